"""`imgbench ab` as its user sees it, on planted models and slow-downs: red, or disarmed, and never green by mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.paired.decision import RULE
from baselines.verdict import CONTENDED, REGRESSED
from benches.ab import arms
from benches.ab.driver import decide
from benches.cli.ab import seconds
from benches.failures import UsageError
from harness.measuring.turns import shared_cpus
from harness.paired import paired_run as paired
from harness.types import Case

HERE = Path(__file__).parent
SUITE = (
    "name: planted\nprotocol: {replicates: 1, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, timeout_s: 60}\ncases:\n - {model: planted_ok, batch_size: [64, 256]}\n"
)


def ab(folder: Path, *arguments: str, shell: str = "{}") -> subprocess.CompletedProcess[str]:
    """`imgbench ab` on the planted suite in `folder`, through `shell`, which holds {} for the command."""
    (folder / "suite.yaml").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "benches.cli",
        "ab",
        "suite.yaml",
        "--plugin",
        "planted",
        "--budget",
        "150s",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": f"{HERE / 'fixtures'}{os.pathsep}{HERE.parent}"}
    return subprocess.run(
        ["sh", "-c", shell.format(" ".join(command))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
    )


@pytest.fixture(scope="module")
def slowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A paired run whose head is half as slow again in one of its two rows."""
    folder = tmp_path_factory.mktemp("slowed")
    return folder, ab(folder, "--head", "inject:busy=0.5@*b256*", "--junit", "junit.xml", "--json-file", "ab.json")


def test_a_planted_slow_down_is_red_or_the_gate_is_disarmed(
    slowed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = slowed
    assert done.returncode in {REGRESSED, CONTENDED}, done.stdout + done.stderr
    document = json.loads((folder / "ab.json").read_text())
    timed = {v["case_id"]: v["outcome"] for v in document["verdicts"] if v["metric"] == "latency_s"}
    slow = next(outcome for case, outcome in timed.items() if "b256" in case)
    assert slow == ("regressed" if done.returncode == REGRESSED else "inconclusive")
    assert "injected nothing against busy=0.5@*b256*" in done.stdout
    assert ("<failure" if done.returncode == REGRESSED else "contaminated") in (folder / "junit.xml").read_text()
    assert Path(folder, done.stdout.splitlines()[-1]).is_dir()


def test_every_block_of_the_slowed_arm_says_so(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = slowed
    run = folder / done.stdout.splitlines()[-1]
    stored = list(paired.blocks(run))
    told = {(b.arm, "b256" in row, bool(m.facts.get("injected"))) for b in stored for row, m in b.measurements.items()}
    assert {t for t in told if t[2]} == {("head", True, True)}
    assert {b.arm for b in stored} == {"base", "head", "control"}
    assert {(b.group == paired.CONTROL_GROUP, bool(b.sentinel)) for b in stored} == {(True, False), (False, True)}


def test_both_arms_have_equal_counts_and_take_turns(slowed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = slowed
    run = folder / done.stdout.splitlines()[-1]
    rows = {row.id: row for row in paired.load(run).rows}
    for block in paired.blocks(run):
        for row, measurement in block.measurements.items():
            counts = rows[row].interleaving
            assert counts is not None
            assert counts.turns % 2 == 0
            assert len(measurement.samples["latency_s"]) == counts.turns * counts.samples


def test_both_processes_of_a_pair_run_on_the_same_cpus(
    slowed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Read back in the processes themselves."""
    folder, done = slowed
    run = folder / done.stdout.splitlines()[-1]
    threads = paired.load(run).threads
    for block in paired.blocks(run):
        for measurement in block.measurements.values():
            assert tuple(measurement.state.get("cpus", ())) == shared_cpus(block.pair, threads)


def test_the_next_pair_runs_on_the_next_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {2, 3, 5, 7})
    assert [shared_cpus(pair, 1) for pair in range(5)] == [(2,), (3,), (5,), (7,), (2,)]
    assert [shared_cpus(pair, 3) for pair in range(3)] == [(2, 3, 5), (2, 3, 7), (2, 5, 7)]
    assert shared_cpus(0, 4) == ()


def test_replay_is_bit_for_bit_and_sees_an_edited_value(
    slowed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = slowed
    run = folder / done.stdout.splitlines()[-1]
    command = [sys.executable, "-m", "benches.cli"]
    again = subprocess.run([*command, "replay", str(run)], capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "bit for bit the same" in again.stdout
    told = subprocess.run(
        [*command, "explain", str(run), "b256"], capture_output=True, text=True, check=False, cwd=HERE.parent
    )
    assert told.returncode == 0
    expected = "screen, 8 pairs: shift" if done.returncode == REGRESSED else "pairs left out: "
    assert expected in told.stdout
    path = run / paired.BLOCKS_FILE
    whole, header = path.read_text(), paired.load(run)
    try:
        path.write_text("\n".join(whole.split("\n")[4:]))  # the first pairs are gone
        paired.write_header(run, replace(header, rule=1))
        edited = subprocess.run(
            [*command, "replay", str(run)], capture_output=True, text=True, check=False, cwd=HERE.parent
        )
    finally:
        path.write_text(whole)
        paired.write_header(run, header)
    assert edited.returncode == 12
    assert "another decision" in edited.stdout
    assert f"decided by version 1 of the rule, and this is version {RULE}" in edited.stdout
    assert decide(run).comparison.arms == ("as things are", "inject:busy=0.5@*b256*")


def test_make_sees_it_too(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("gate:\n\t@$(GATE)\n")
    made = ab(tmp_path, "--head", "inject:busy=0.5", "--only", "batch_size=256", shell="make gate GATE='{}'")
    assert made.returncode == 2, made.stdout + made.stderr
    assert "Error 10" in made.stderr or "Error 14" in made.stderr


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
