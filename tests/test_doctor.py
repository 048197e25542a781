"""The doctor checks the backends that need packages beside torch in a process of its own, and reports as usable only
what was checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benches
from benches.cli import backend_checks, doctor
from benches.cli.backend_checks import Checks, ChecksFailed
from harness.registry import BACKENDS, PRECISIONS

NEEDS_A_PACKAGE = """
from harness.registry import BACKENDS


@BACKENDS.add("exotic")
class Exotic:
    label = description = "exotic"
    packages = ("exotic-runtime",)
    precisions = ("fp32",)

    def unavailable(self, precision, device):
        {body}

    def build(self, request):
        raise AssertionError("the doctor builds nothing")
"""


def _plugin(folder: Path, body: str) -> str:
    file = folder / "exotic_plugin.py"
    file.write_text(NEEDS_A_PACKAGE.format(body=body))
    return str(file)


def test_the_process_gives_what_the_check_gives_and_imports_no_torch(tmp_path: Path) -> None:
    benches.load_plugins()
    assert {"onnxruntime", "openvino"} <= {*backend_checks.apart()} <= {*BACKENDS} - {"eager", "torch_compile"}
    code = f"""
import sys
from harness.devices import cuda_ruled_out
cuda_ruled_out.no_driver = lambda: cuda_ruled_out.Reason("no_cuda_driver", {{"error": "none"}})
sys.argv = ["it", {str(tmp_path / "answer")!r}]
{backend_checks.START}
print("torch" in sys.modules, "openvino" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    answer = json.loads((tmp_path / "answer").read_text())
    assert {"onnxruntime", "openvino", "tensorrt"} <= answer.keys()
    assert answer == {name: backend_checks.reasons(name, "cpu") for name in answer}


def test_a_backend_of_a_plugin_is_checked_there(tmp_path: Path) -> None:
    with Checks([_plugin(tmp_path, "return None")]) as checks:
        found = checks.reasons()
    assert [precision for precision, reason in found["exotic"].items() if reason is None] == ["fp32"]
    assert found["exotic"].keys() == {*PRECISIONS}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os; os._exit(7)", "ended with exit code 7: it said nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with exit code -11"),
        ("raise RuntimeError('no such runtime')", "ended with exit code 1: RuntimeError: no such runtime"),
    ],
)
def test_a_process_without_an_answer_makes_no_backend_usable(body: str, told: str, tmp_path: Path) -> None:
    benches.load_plugins()
    with Checks([_plugin(tmp_path, body)]) as checks:
        with pytest.raises(ChecksFailed, match=told):
            checks.reasons()
        rows = {row["what"]: row for row in doctor._backends("cpu", checks)}
    assert rows["backend eager"]["status"] == "yes"
    for name in backend_checks.apart():
        assert rows[f"backend {name}"]["status"] == "no"
        assert told in rows[f"backend {name}"]["detail"]


def test_a_backend_that_the_answer_does_not_name_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    benches.load_plugins()
    with Checks([]) as checks:
        monkeypatch.setattr(checks, "reasons", lambda: {})
        rows = {row["what"]: row for row in doctor._backends("cpu", checks)}
    assert rows["backend onnxruntime"]["status"] == "no"
    assert rows["backend onnxruntime"]["detail"] == "the process that checks it gave no answer about it"
