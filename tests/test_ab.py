"""`imgbench ab` as its user sees it, through make, on a planted machine and a planted slow-down: it is red."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.paired.decision import RULE
from baselines.verdict import NOT_COMPARABLE, REGRESSED
from benches.ab import arms
from benches.ab.driver import decide
from benches.cli import main
from benches.cli.arguments import seconds
from benches.failures import UsageError
from harness.measuring.turns import shared_cpus
from harness.paired import paired_run
from harness.types import Case

HERE = Path(__file__).parent
SUITE = "protocol: {warmup_min_s: 0.01, timeout_s: 60}\ncases: [{model: planted_timed, batch_size: [64, 256]}]\n"
SLOWED = "inject:busy=0.5@*b256*"
GATE = (
    f"{sys.executable} -m benches.cli ab suite.yaml --plugin planted_machine --budget 1h --head {SLOWED} "
    "--junit junit.xml --json-file ab.json"
)


@pytest.fixture(scope="module")
def slowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A paired run, called by make, whose head is half as slow again in one of its two rows."""
    folder = tmp_path_factory.mktemp("slowed")
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "Makefile").write_text(f"gate:\n\t@{GATE}\n")
    environment = os.environ | {"PYTHONPATH": f"{HERE / 'fixtures'}{os.pathsep}{HERE.parent}"}
    return folder, subprocess.run(
        ["make", "--no-print-directory", "gate"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=900,
    )


def run_of(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The run's folder, which the command names last."""
    return slowed[0] / slowed[1].stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_planted_slow_down_is_red_in_its_row_alone(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = slowed
    assert f"Error {REGRESSED}" in done.stderr, done.stdout + done.stderr
    document = json.loads((folder / "ab.json").read_text())
    timed = {v["case_id"]: v for v in document["verdicts"] if v["metric"] == "latency_s"}
    assert {("b256" in row, v["outcome"]) for row, v in timed.items()} == {(True, "regressed"), (False, "unchanged")}
    assert next(v for row, v in timed.items() if "b256" in row)["ratio"] == pytest.approx(1.5, abs=0.02)
    assert "the injection: none against busy=0.5@*b256*" in done.stdout
    assert (folder / "junit.xml").read_text().count("<failure") == 1
    assert run_of(slowed).is_dir()


@pytest.mark.slow
def test_every_block_of_the_slowed_arm_says_so(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    stored = list(paired_run.processes(run_of(slowed)))
    told = {(b.arm, "b256" in row, bool(m.facts.get("injected"))) for b in stored for row, m in b.measurements.items()}
    assert {t for t in told if t[2]} == {("head", True, True)}
    assert {b.arm for b in stored} == {"base", "head", "control"}
    assert {(b.group == paired_run.CONTROL_GROUP, bool(b.control_workload)) for b in stored} == {
        (True, False),
        (False, True),
    }


@pytest.mark.slow
def test_both_arms_have_equal_counts_and_take_turns(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run = run_of(slowed)
    rows = {row.id: row for row in paired_run.load(run).rows}
    measured = [found for block in paired_run.processes(run) for found in block.measurements.items()]
    assert {row for row, _ in measured} == rows.keys()
    for row, measurement in measured:
        counts = rows[row].interleaving
        assert counts is not None
        assert counts.turns % 2 == 0
        assert len(measurement.samples["latency_s"]) == counts.turns * counts.samples


@pytest.mark.slow
def test_both_processes_of_a_pair_run_on_the_same_cpus(
    slowed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Read back in the processes themselves."""
    run = run_of(slowed)
    threads = paired_run.load(run).threads
    bound = [
        (shared_cpus(b.pair, threads), tuple(m.state.get("cpus", ())))
        for b in paired_run.processes(run)
        for m in b.measurements.values()
    ]
    assert bound
    assert [found for wanted, found in bound] == [wanted for wanted, found in bound]


def test_the_next_pair_runs_on_the_next_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {2, 3, 5, 7})
    assert [shared_cpus(pair, 1) for pair in range(5)] == [(2,), (3,), (5,), (7,), (2,)]
    assert [shared_cpus(pair, 3) for pair in range(3)] == [(2, 3, 5), (2, 3, 7), (2, 5, 7)]
    assert shared_cpus(0, 4) == ()


@pytest.mark.slow
def test_replay_is_bit_for_bit_and_sees_an_edited_value(
    slowed: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of(slowed), run)
    assert main(["replay", str(run)]) == 0
    assert "bit for bit the same" in capsys.readouterr().out
    assert main(["explain", str(run), "b256"]) == 0
    assert "screen, 8 pairs: shift" in capsys.readouterr().out
    path = run / paired_run.PROCESSES_FILE
    path.write_text("\n".join(path.read_text().split("\n")[4:]))  # the first pairs are gone
    paired_run.write_header(run, replace(paired_run.load(run), rule=1))
    assert main(["replay", str(run)]) == NOT_COMPARABLE
    told = capsys.readouterr().out
    assert "another decision" in told
    assert f"the stored decision is by version 1 of the rule, and this imgbench has version {RULE}" in told
    assert decide(run).comparison.arms == ("as things are", "inject:busy=0.5@*b256*")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "must be name=value"),
        ("presicion=bf16", "did you mean 'precision'?"),
        ("ref=a,ref=b", "given twice"),
        ("inject:bussy=0.1", "unknown injection"),
        ("inject:busy=0", "above 0"),
    ],
)
def test_a_bad_arm_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        arms.parse("head", text)


def test_an_arm_is_read_as_it_is_written() -> None:
    found = arms.parse("head", r"env:A=1\,2,precision=bf16,num_steps=3,inject:tail=0.5")
    assert dict(found.environment) == {"A": "1,2"}
    assert dict(found.overrides) == {"precision": "bf16", "num_steps": 3}
    assert found.injections == ("tail=0.5",)
    with pytest.raises(UsageError, match="no such axis"):
        arms.checked(found, (Case(model="planted_ok", image_size=8),))


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5h", 1800)])
def test_a_budget_is_a_duration(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "ten", "10x", "m"])
def test_a_bad_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        seconds(text)
