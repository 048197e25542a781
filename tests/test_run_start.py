"""`imgbench run` and pytest's session start a run in one place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import benches
from benches import suites
from benches.cli import parser, run_start
from benches.cli import run as command
from harness import storage

FOUND: dict[str, Any] = {"device": "cpu", "versions": {}, "git": None, "threads": 1}


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Workers that find `FOUND`."""
    monkeypatch.setattr(run_start, "collect_environment", lambda *_: dict(FOUND))
    return SimpleNamespace(logs=None)


def test_the_conditions_name_the_plugins_and_the_code(workers: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    found = run_start.conditions(workers, [str(tmp_path / "mine.py")], None, None)
    assert found["plugins"] == [str(tmp_path / "mine.py")]
    assert {"harness", "benches", "mine"} <= found["sources"].keys()
    assert found["fingerprint"]
    assert found.items() >= FOUND.items()
    assert not Path(workers.logs).exists(), "the logs of reading the conditions are not kept"


def test_a_started_run_is_stored_and_locked(workers: Any, tmp_path: Path) -> None:
    benches.load_plugins()
    chosen = suites.find("smoke")
    found = run_start.conditions(workers, [], None, None)
    with run_start.started(chosen, tmp_path, found, workers, "batch_size=10") as run:
        folder = Path(str(run.folder))
        assert folder.parent == tmp_path
        assert workers.logs == folder / "logs"
        assert (folder / "suite.yaml").read_text(encoding="utf-8") == chosen.source
        stored = storage.load(folder)
        assert (stored.selection, stored.cases, stored.measurements) == ("batch_size=10", chosen.cases, ())
        with pytest.raises(storage.RunBusy), storage.locked(folder):
            pass
    with storage.locked(folder):
        pass


class Stopped(Exception): ...


def test_the_command_and_pytest_start_here(workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytest_benchmark")
    from benches.pytest_plugin.suite_run import SuiteRun

    begun: list[tuple[str, Path, str | None]] = []

    def stop(suite: Any, out: Path, _found: Any, _workers: Any, selection: str | None = None) -> None:
        begun.append((suite.name, out, selection))
        raise Stopped

    monkeypatch.setattr(run_start, "started", stop)
    benches.load_plugins()
    with pytest.raises(Stopped):
        command.run(parser().parse_args(["run", "smoke", "--out", str(tmp_path), "--only", "batch_size=10"]))
    session = SuiteRun(suites.find("smoke"), (), tmp_path, "cpu", None)
    session.select(session.suite.cases[:1])
    with pytest.raises(Stopped):
        session.measured(SimpleNamespace())  # type: ignore[arg-type]
    assert begun[0] == ("smoke", tmp_path, "batch_size=10")
    assert begun[1][:2] == ("smoke", tmp_path)
    assert str(begun[1][2]).startswith("pytest: 1 of ")
