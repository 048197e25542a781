"""Folders of weights: one spelling in a suite, one path and one content in a run, one row in a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from baseline_fixture import latency, measured, run_of, stored
from suite_fixture import PLUGINS, Silent

from baselines.stored import admission
from baselines.stored import explanation as sessions_in_words
from baselines.stored.compare import compare
from baselines.stored.rows import rows_of
from harness import storage, suite, weights
from harness.processes.worker import Workers
from harness.suite import SuiteError
from harness.sweeping.sweep import sweep
from harness.types import Case, Measurement, Run
from harness.weights import WeightsChanged

RunSuite = Callable[..., Run]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working and home folder with a folder of weights `a`, a link to it, and one that is called like a keyword."""
    for name in ("a/unet", "b", "random"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/config.json").write_text("{}")
    (tmp_path / "a/unet/model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("a", "a"), ("./a", "a"), ("a/", "a"), ("a/.", "a"), (".//a//", "a"), ("b/../a", "a"), ("random", "random"),
     ("./random", "./random"), ("random/", "./random"), ("link/../a", "a"), ("~nosuchuser/x", "~nosuchuser/x")],
)  # fmt: skip
def test_one_spelling(spelling: str, expected: str, here: Path) -> None:
    assert weights.normalised(spelling, {"random"}) == expected


def test_a_step_up_behind_a_link_to_elsewhere_stays(here: Path) -> None:
    (here / "b/inner").mkdir()
    (here / "away").symlink_to("b/inner")
    (here / "b/a").mkdir()
    assert weights.normalised("away/../a") == "away/../a"  # b/a, and not a


def spelled(*spellings: str, more: str = "") -> list[str]:
    listed = ", ".join(f'"{s}"' for s in spellings)
    return [c.weights for c in suite.parse(f"cases: [{{model: planted_ok, weights: [{listed}]{more}}}]").cases]


def test_two_spellings_of_one_folder_are_one_case(here: Path) -> None:
    assert spelled("./a", "a/", "~/a", f"{here}/a/.", "link", "b") == ["a", "b"]
    assert spelled("random", "./random") == ["random", "./random"]  # a keyword, and a folder of that name
    both = "cases: [{model: planted_ok, weights: ./a}, {model: planted_ok, weights: a/., batch_size: [1, 2]}]"
    assert [(c.weights, c.batch_size) for c in suite.parse(both).cases] == [("a", 1), ("a", 2)]


def test_every_spelling_excludes_and_selects(here: Path) -> None:
    assert spelled("./a", "b", more=", exclude: [{weights: a/}]") == ["b"]
    cases = suite.parse("cases: [{model: planted_ok, weights: [a, b]}]").cases
    assert [c.weights for c in suite.only(cases, "weights=./b/")] == ["b"]
    with pytest.raises(SuiteError, match="neither a known keyword nor a folder"):
        spelled("./none")


def test_content_is_what_loaders_read(here: Path) -> None:
    before = weights.content(here / "a")
    (here / "a/.git").mkdir()
    for stray in ("README.md", "README.txt", ".DS_Store", ".git/config.json", "model.lock", "unet/notes~"):
        (here / "a" / stray).write_text("stray")
    (here / "a/again").symlink_to(here / "a")  # a circle
    assert weights.content(here / "a") == before
    assert weights.content(here / "link") == before
    (here / "outside").mkdir()
    (here / "outside/merges.txt").write_text("a b")
    (here / "a/tokenizer").symlink_to(here / "outside")
    linked = weights.content(here / "a")
    assert linked != before
    (here / "outside/merges.txt").write_text("b a")
    assert weights.content(here / "a") != linked


def test_a_run_resumes_from_another_folder_with_the_weights_that_it_was_begun_with(
    here: Path, run_suite: RunSuite, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a/mended").touch()

    class Stop(Silent):
        def end(self, measurement: Measurement) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(" - {model: planted_until_mended, weights: ./a, batch_size: [1, 2]}\n", listener=Stop())
    stopped = storage.load(here / "run")
    assert stopped.weights == {"a": {"path": str(here.resolve() / "a"), "content": weights.content(here / "a")}}
    monkeypatch.chdir("/")
    whole = sweep(weights.checked(stopped), workers, PLUGINS, Silent())
    assert [(m.status, m.case.weights) for m in whole.measurements] == [("ok", "a"), ("ok", "a")]
    assert [m.case for m in whole.measurements] == list(stopped.cases)
    assert {c.measurement.case.weights for c in whole.controls if c.side != "overhead"} == {"a"}


def test_weights_that_are_gone_or_others_are_refused_in_one_line(here: Path) -> None:
    (case,) = suite.parse("cases: [{model: planted_ok, weights: a}]").cases
    run = replace(run_of([]), cases=(case,), weights=weights.recorded([case]))
    assert weights.checked(run) == run
    (here / "a/config.json").write_text("{ }")
    with pytest.raises(
        WeightsChanged, match=r"'a': the folder .*/a has changed since the run began .* start a new run"
    ):
        weights.checked(run)
    (here / "a").rename(here / "c")
    with pytest.raises(WeightsChanged, match=r"'a': the folder .*/a does not exist any more; restore the weights"):
        weights.checked(run)
    with pytest.raises(WeightsChanged, match="resume from the working directory in which the run was started"):
        weights.checked(replace(run, weights={}))  # a run of an older version, resumed elsewhere


def test_a_keyword_is_no_folder(here: Path) -> None:
    case = Case(model="planted_ok", weights="random")
    assert weights.recorded([case]) == {}
    assert weights.built_case(case, run_of([])) == case


def rows(path: str, loaded: str, *seconds: float, batch: int = 1) -> list[Measurement]:
    case = Case(model="m", weights=path, batch_size=batch)
    return measured(latency(*seconds), case, weights_hash=loaded)


def test_a_row_under_another_path_is_the_same_row_where_the_loaded_weights_are() -> None:
    then = [run_of([*rows("a", "h1", 1, 2, 3), *rows("a", "h1", 7, 8, 9, batch=2)])] * 2
    here = run_of([*rows("/x/a", "h1", 1, 2, 3), *rows("/x/a", "h1", 7, 8, 9, batch=2)])
    found = compare(here, stored(*then))
    assert {(v.case_id, v.metric, v.outcome) for v in found.verdicts} == {
        (case_id, "latency_s", "unchanged") for case_id in rows_of(here)
    }
    assert "rows with the same weights as in the baseline at a different path: 2" in [str(note) for note in found.notes]
    moved = run_of(rows("/x/a", "h1", 2, 4, 6))
    slower = compare(moved, stored(*[run_of(rows("a", "h1", 1, 2, 3))] * 2))
    assert any("session 2 of 2" in s for s in sessions_in_words.lines(moved, then, slower.verdicts[0]))
    assert admission.objections(here, then[0], force=False) == []


def test_a_row_of_other_weights_or_axes_is_not_taken_for_it() -> None:
    then = stored(run_of(rows("a", "h1", 1, 2, 3)))
    for other in (rows("/x/a", "h2", 1, 2, 3), rows("/x/a", "h1", 1, 2, 3, batch=2)):
        found = compare(run_of(other), then)
        assert [v.outcome for v in found.verdicts] == ["missing", "new"]
    both = run_of([*rows("a", "h1", 1, 2, 3), *rows("/x/a", "h1", 1, 2, 3)])
    assert [v.outcome for v in compare(both, then).verdicts] == ["unchanged", "new"]
