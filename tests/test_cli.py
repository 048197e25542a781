"""The command line as its user sees it: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from suite_fixture import QUICK

import benches.cli
from baselines.verdict import BENCHMARK_ERROR
from benches.cli import main, parser
from harness import storage
from harness.types import Run

RunSuite = Callable[..., Run]
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE / "fixtures")}


def imgbench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.cli", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=cwd or HERE.parent)


@pytest.fixture
def run_folder(run_suite: RunSuite) -> Path:
    return Path(
        str(
            run_suite(
                " - {model: planted_judged, batch_size: [1, 2]}\n - {model: planted_ok, backend: tensorrt}\n"
            ).folder
        )
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("cases: [{model: digits_vti}]", "did you mean 'digits_vit'?"),
        ("cases: [{model: digits_vit, precision: fp17}]", "did you mean 'fp16'?"),
        ("cases: [{model: digits_vit, batch_size: 0}]", "batch_size: 0"),
        ("cases: [{model: digits_vit, num_steps: 5}]", "has no such axis"),
        ("a: &a [1]\ncases: [*a]", "aliases are not allowed"),
    ],
)
def test_a_bad_suite_is_one_line_and_exit_64(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["run", str(path), "--out", str(tmp_path / "runs")]) == 64
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "nope"],
        ["run", "digits", "--only", "model=nope"],
        ["run", "digits", "--plugin", "no_such_module"],
        ["export", "nowhere", "--format", "csv"],
        ["report", "nowhere"],
        ["compare", "nowhere"],
        ["run", "--resume", "nowhere"],
    ],
)
def test_a_bad_command_is_exit_64_and_no_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 64
    assert capsys.readouterr().err.startswith("imgbench: ")


def test_usage_errors_of_the_parser_exit_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["rnu"], [], ["export", "x"], ["list", "modles"], ["run", "digits", "--replicates", "0"]):
        with pytest.raises(SystemExit) as caught:
            parser().parse_args(arguments)
        assert caught.value.code == 64
    assert "Traceback" not in capsys.readouterr().err


def test_an_installation_that_lacks_a_module_is_a_benchmark_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(benches.cli, "listing", raising=False)
    monkeypatch.setitem(sys.modules, "benches.cli.listing", None)  # what a missing library makes of it
    assert main(["list", "models"]) == BENCHMARK_ERROR
    assert "this is a defect of imgbench" in capsys.readouterr().err


@pytest.mark.slow
def test_run_compare_report_export_in_one_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run is a command of its own; what only reads is called here."""
    monkeypatch.chdir(HERE.parent)

    def called(*arguments: str) -> tuple[int, str]:
        code = main([*arguments, *store])
        return code, capsys.readouterr().out

    suite_file = tmp_path / "mine.yaml"
    suite_file.write_text(
        f"name: mine\nprotocol: {QUICK.replace('replicates: 1', 'replicates: 2, ratio_interval: null')}\n"
        "cases:\n - {model: planted_judged, batch_size: [1, 2]}\n - {model: planted_ok, backend: tensorrt}\n"
    )
    store = ["--store", str(tmp_path / "store")]
    out = str(tmp_path / "runs")
    first = imgbench("run", str(suite_file), "--out", out, "--plugin", "planted", *store)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    report = Path(first.stdout.splitlines()[-1])
    assert report.name == "report.html"
    assert "planted_judged" in report.read_text()
    assert called("compare", out)[0] == 12  # no baseline yet
    code, saved = called("baseline", "save", out, "--force", "--reason", "first")
    assert code == 0, saved
    assert Path(saved.strip()).exists()
    again = imgbench("run", str(suite_file), "--out", out, "--plugin", "planted", *store)
    assert "compared with" in again.stdout
    _, compared = called("compare", out, "--json", "--budget", "0")
    verdicts = json.loads(compared)["verdicts"]
    assert {v["outcome"] for v in verdicts if v["metric"] == "top1"} == {"unchanged"}
    stored = Path(saved.strip())
    stored.write_text(stored.read_text().replace('"top1"', '"top2"', 1))
    code, edited = called("compare", out)
    assert code == 12
    assert "edited" in edited


def test_exports_agree_with_the_frame(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run_folder), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["ok", "ok", "skipped"]
    assert list(rows[0])[:4] == ["run_id", "case_id", "label", "family"]
    for name in ("csv", "parquet"):
        path = tmp_path / f"out.{name}"
        assert main(["export", str(run_folder.parent), "--format", name, "--out", str(path)]) == 0
        frame = pd.read_csv(path) if name == "csv" else pd.read_parquet(path)
        assert frame.latency_s[:2].tolist() == pytest.approx([row["latency_s"] for row in rows[:2]])
        assert pd.isna(frame.latency_s[2])
    assert main(["export", str(run_folder), "--format", "csv", "--samples", "--out", str(tmp_path / "s.csv")]) == 0
    assert set(pd.read_csv(tmp_path / "s.csv").phase) == {"warmup", "steady"}
    assert main(["export", str(run_folder), "--format", "parquet"]) == 64


@pytest.mark.slow
def test_nothing_measured_and_broken_rows_have_their_codes(tmp_path: Path) -> None:
    skipped, broken = tmp_path / "skipped.yaml", tmp_path / "broken.yaml"
    skipped.write_text("cases: [{model: planted_ok, backend: tensorrt}]")
    broken.write_text(f"protocol: {QUICK}\ncases: [{{model: [planted_ok, planted_error]}}]")
    common = ["--out", str(tmp_path / "runs"), "--plugin", "planted", "--no-report"]
    assert imgbench("run", str(skipped), *common).returncode == 13
    assert imgbench("run", str(broken), *common).returncode == 20


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_resume(tmp_path: Path) -> None:
    suite_file = tmp_path / "hang.yaml"
    suite_file.write_text(f"protocol: {QUICK}\ncases: [{{model: [planted_ok, planted_hang]}}]")
    command = [
        sys.executable,
        "-m",
        "benches.cli",
        "run",
        str(suite_file),
        "--out",
        str(tmp_path / "runs"),
        "--plugin",
        "planted",
    ]
    begun = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI may have it ignored
    )
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in tmp_path.glob("runs/*/measurements.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    begun.send_signal(signal.SIGINT)
    out, err = begun.communicate(timeout=60)
    assert begun.returncode == 130
    assert "Resume with: imgbench run --resume" in out
    assert "Traceback" not in err
    (folder,) = (tmp_path / "runs").iterdir()
    assert [m.status for m in storage.load(folder).measurements] == ["ok"]


@pytest.mark.parametrize("what", ["suites", "models", "backends", "schedulers", "metrics"])
def test_every_listing_is_json_and_a_table(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) >= 4
    assert all(row["name"] for row in rows)
    assert main(["list", what]) == 0
    assert str(rows[0]["name"]) in capsys.readouterr().out


def test_unavailable_backends_are_listed_with_their_reason(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "backends", "--device", "cpu", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["eager"]["available"]
    assert {name for name, row in rows.items() if not row["available"]} >= {"cuda_graphs", "tensorrt"}
    assert all(row["reason"] for row in rows.values() if not row["available"])


def test_doctor_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["device"]["status"] == "yes"
    assert all(row["detail"] for row in found.values())
