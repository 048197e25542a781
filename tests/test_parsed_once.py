"""A command parses a run's measurements once, however many of its parts need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baselines.stored import store
from baselines.stored.location import SHIPPED
from benches.cli import main
from harness import storage, suite
from harness.processes.measure import Outcome
from harness.reasons import Reason
from harness.sweeping import sweep as sweeping
from harness.sweeping.sweep import PlannedProcess, Site, new_run
from harness.types import Measurement, Run

Count = Callable[[], int]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How often files of measurements were parsed since the last question."""
    calls: list[Path] = []
    read = storage._read_lines

    def counted(path: Path, *arguments: Any) -> Any:
        calls.append(path)
        return read(path, *arguments)

    def since() -> int:
        number = len(calls)
        calls.clear()
        return number

    monkeypatch.setattr(storage, "_read_lines", counted)
    return since


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGBENCH_BASELINES", raising=False)
    run = store.load(SHIPPED / "digits.json").run
    storage.create(tmp_path / "runs" / run.id, run)
    for measurement in run.measurements:
        storage.append(tmp_path / "runs" / run.id, measurement)
    return tmp_path / "runs" / run.id


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("show", 0),
        ("export --format csv --out table.csv", 0),
        ("report --out page.html", 0),
        ("compare --budget 0", 0),
        ("baseline save --reason first --force", 0),
    ],
)
def test_a_command_parses_a_run_once(
    line: str, code: int, folder: Path, parsed: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = line.split()
    words = ["save"] if command == "baseline" else []
    assert main([command, *words, str(folder), *options[len(words) :]]) == code, capsys.readouterr()
    assert parsed() == 1


def test_what_follows_a_comparison_parses_the_run_once(
    folder: Path, parsed: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(folder), "--budget", "0"])
    parsed()
    assert main(["replay", str(folder)]) == 0, capsys.readouterr()
    assert parsed() == 1
    label = storage.load(folder).cases[0].id
    parsed()
    assert main(["explain", str(folder), label]) == 0, capsys.readouterr()
    assert parsed() == 1


def test_a_run_that_is_complete_is_parsed_once_to_resume_it(folder: Path, parsed: Count) -> None:
    assert main(["run", "--resume", str(folder), "--no-report"]) == 0
    assert parsed() == 1


def test_a_sweep_keeps_what_it_measures_and_parses_it_once_at_the_end(
    tmp_path: Path, machine: dict[str, Any], parsed: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With processes that met a busy machine in the first attempt, the A/A control after each pass over the rows,
    and one control of the model `null`, which comes after the first process of every row."""
    from suite_fixture import Silent

    seen: list[tuple[int, int, int]] = []

    def measured(block: PlannedProcess, run: Run, _site: Site, attempt: int = 0) -> tuple[Run, Measurement]:
        warnings = (Reason("contended_cpu", {"used": 0.6}),) if attempt == 0 else ()
        found = Measurement(
            case=block.case,
            replicate=block.replicate,
            status="ok",
            samples={"latency_s": [1.0 + attempt]},
            warnings=warnings,
            attempt=attempt,
        )
        storage.append(Path(str(run.folder)), found)
        seen.append((len(run.measurements), len(run.superseded), len(run.controls)))
        return run, found

    class ControlWorkers:
        def measure(self, job: Any, _report: object, _name: str) -> Any:
            found = Measurement(case=job.case, replicate=job.replicate, status="ok", samples={"latency_s": [1.0]})
            return Outcome(measurement=found)

    monkeypatch.setattr(sweeping, "measure_process", measured)
    chosen = suite.parse(
        "name: two\nprotocol: {replicates: 2, rounds: false}\ncases: [{model: planted_ok, batch_size: [1, 2]}]"
    )
    started = new_run(chosen, tmp_path / "run", machine)
    finished = sweeping.sweep(started, ControlWorkers(), (), Silent())  # type: ignore[arg-type]
    assert parsed() == 1
    assert finished == storage.load(tmp_path / "run")
    assert finished.finished
    assert seen == [(0, 0, 0), (1, 0, 0), (2, 0, 3), (3, 0, 3), (4, 0, 5), (4, 1, 5), (4, 2, 5), (4, 3, 5)]
    assert sorted(c.side for c in finished.controls) == ["a", "a", "b", "b", "overhead"]
