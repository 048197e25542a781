"""`imgbench selftest --stored`: the line of its rates, and one trial of each kind on a planted suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches.cli import main
from benches.cli.stored_trials import Trial, line
from harness import storage

SUITE = """name: planted
protocol: {replicates: 2, ratio_interval: null, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5,
  min_sample_time_s: 0.01, target_interval: null, stages: false, timeout_s: 60}
cases:
 - {model: planted_ok, precision: [fp32, bf16], batch_size: 2}
"""


def test_the_line_counts_equal_and_planted_runs_and_alarms_elsewhere() -> None:
    found = [
        Trial(planted=None, regressed=frozenset()),
        Trial(planted="a", regressed=frozenset("ab")),
        Trial(planted=None, regressed=frozenset("b")),
        Trial(planted="b", regressed=frozenset()),
    ]
    assert line(found[:1]) == "equal runs with an alarm 0/1 [0 %, 79 %]"
    assert line(found) == (
        "equal runs with an alarm 1/2 [9 %, 91 %]; planted rows caught 1/2 [9 %, 91 %]; alarms elsewhere in 1/2 runs"
    )


def test_two_kinds_of_selftest_at_once_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["selftest", "--stored", "--record", str(tmp_path / "noise.json")]) == 64
    assert "give only one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_plants_the_slow_down_in_one_row_of_a_complete_run(
    workers: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent / "fixtures")
    (tmp_path / "planted.yaml").write_text(SUITE)
    command = ["selftest", str(tmp_path / "planted.yaml"), "--stored", "--sessions", "1", "--trials", "1"]
    assert main([*command, "--plugin", "planted", "--out", str(tmp_path / "runs"), "--budget", "1m"]) == 0
    out = capsys.readouterr().out
    assert "session 1 of 1" in out
    assert "planted rows caught" in out
    runs = [storage.load(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    session, *trials = sorted(runs, key=lambda run: run.created)
    planted = [run for run in trials if run.environment["injections"]]
    assert len(trials) == 2
    assert len(planted) == 1
    row = next(case for case in session.cases if case.precision == "bf16")
    assert planted[0].environment["injections"] == [f"busy=0.05@{row.id}"]
    first = {m.case.id: m.facts.get("injected") for m in planted[0].measurements if m.replicate == 0}
    assert first == {row.id: ["busy=0.05"], **{c.id: None for c in session.cases if c != row}}
