"""What the commands say of wrong arguments: the option or path that is wrong, and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports_fixture import make_run

from baselines.stored.store import BaselineRefused
from baselines.wording import ReasonKind, because
from benches.ab.arms import Arm, differences
from benches.cli import baseline, main
from benches.cli.decisions import id_named
from benches.failures import UsageError
from harness import storage
from reports.sections.table import facts_text


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The folder of a stored run."""
    folder = tmp_path / "stored"
    run = make_run()
    storage.create(folder, run)
    for measurement in run.measurements:
        storage.append(folder, measurement)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run smoke --threads two", "'two' must be a whole number, 1 or more"),
        ("run smoke --replicates 0", "'0' must be a whole number, 1 or more"),
        ("selftest --trials x", "'x' must be a whole number, 0 or more"),
        (
            "run smoke --resume runs",
            "--resume continues a run of its own suite, so it does not take SUITE (smoke)",
        ),
        ("run --retry-failed", "so it needs --resume RUN"),
        ("run", "run: SUITE is missing; give a suite, or --resume RUN"),
        ("selftest --plan foo=1", "selftest: --plan: unknown injection 'foo'"),
        ("show /nosuch", "/nosuch does not exist"),
        ("replay /nosuch", "/nosuch does not exist"),
        ("run smoke --only batch_size=x", "this suite has 8 and 10"),
    ],
)
def test_a_usage_error_names_what_is_wrong(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments.split())
    except SystemExit as error:
        code = error.code
    assert code == 64
    assert message in capsys.readouterr().err


def test_a_folder_without_a_run_is_told_apart_from_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path)]) == 64
    assert "is not a run folder: it has no run.json" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_export_names_the_given_file_whose_folder_is_absent(
    stored: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stored / "nosuch" / "x.csv"
    assert main(["export", str(stored), "--format", form, "--out", str(out)]) == 64
    assert f"--out {out}: the folder {out.parent} does not exist" in capsys.readouterr().err


def test_explain_checks_the_row_of_a_run_without_a_baseline(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(stored), "nosuch", "--store", str(stored / "baselines")]) == 64
    assert "'nosuch' names 0 rows" in capsys.readouterr().err


def test_an_exact_id_is_named_before_ids_that_contain_it() -> None:
    assert id_named("a", {"a": "x", "ab": "y"}) == "a"
    with pytest.raises(UsageError, match="'a' names 2 rows"):
        id_named("a", {"ab": "x", "ac": "y"})


def test_each_objection_to_a_baseline_has_its_line(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise BaselineRefused("not ok: a", "not measured: b")

    monkeypatch.setattr(baseline.baselines.stored.store, "save", refuse)
    assert main(["baseline", "save", str(stored), "--reason", "new"]) == 12
    assert capsys.readouterr().err == "imgbench: not ok: a\nimgbench: not measured: b\n"


def test_the_facts_of_a_row_are_shown_without_base64() -> None:
    found = make_run().measurements[0]
    found.facts["picture_set"] = {"features": {"shape": [2, 3], "base64": "QUJD"}}
    text = facts_text([found])
    assert "picture_set" in text
    assert "base64" not in text
    assert "QUJD" not in text


def test_the_difference_of_arms_names_the_injection() -> None:
    loaded = {"versions": {}, "variables": {}, "packages": {}, "python_version": "3.12"}
    base, head = Arm(name="base", text="", python="p"), Arm(name="head", text="", python="p", injections=("busy=0.3",))
    assert differences(base, head, loaded, loaded) == ["the injection: none against busy=0.3"]


def test_a_paired_run_without_pairs_says_so_once() -> None:
    ended = because(ReasonKind.ENDED_GAVE_UP)
    assert str(because(ReasonKind.PAIR_COUNTS, kept=0, dropped=0, ended=ended)) == (
        "no pair was measured; the run stopped early, because most pairs were contended"
    )
    assert str(because(ReasonKind.PAIR_COUNTS, kept=1, dropped=2, ended=ended)).startswith(
        "1 pair of fresh processes counts over all rows, 2 contended pairs are left out; "
    )
