"""Every way in which a block of measurement can end becomes a row with its status and reason, and the sweep goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import planted
import pytest
import torch
from suite_fixture import QUICK

from harness import frames
from harness.backends.tensorrt.engine import EngineError
from harness.measuring.out_of_memory import is_out_of_memory
from harness.types import Run

HERE = Path(__file__).parent
RunSuite = Callable[..., Run]


def test_every_bad_end_is_a_row_and_the_sweep_goes_on(run_suite: RunSuite) -> None:
    names = ["error", "out_of_memory", "segfault", "kill", "exit", "nan", "constant", "shape", "batch", "calls", "ok"]
    run = run_suite("".join(f" - {{model: planted_{name}, batch_size: 4}}\n" for name in names))
    found = frames.cases_frame(run).set_index("model")
    expected = {
        "planted_error": ("failed", "ValueError: the planted error"),
        "planted_out_of_memory": ("oom", "memory"),
        "planted_segfault": ("failed", "the worker was killed by SIGSEGV"),
        "planted_kill": ("failed", "killed by SIGKILL, and not by the kernel's out-of-memory killer"),
        "planted_exit": ("failed", "exit code 3"),
        "planted_nan": ("invalid", "40 values that are NaN or infinite"),
        "planted_constant": ("invalid", "4 of 4 outputs are constant"),
        "planted_shape": ("invalid", "shape (4, 5) instead of (4, 10)"),
        "planted_batch": ("invalid", "called with shapes [(2, 3, 8, 8)] instead of [(4, 3, 8, 8)]"),
        "planted_calls": ("invalid", "instead of"),
        "planted_ok": ("ok", None),
    }
    for model, (status, reason) in expected.items():
        assert found.loc[model, "status"] == status, model
        assert reason is None or reason in found.loc[model, "reason"], (model, found.loc[model, "reason"])
    assert found.loc[["planted_nan", "planted_error"], "latency_s"].isna().all()
    assert found.loc["planted_ok", "latency_s"] > 0


def test_another_shape_is_invalid_also_where_a_backend_would_refuse_it(run_suite: RunSuite) -> None:
    run = run_suite(" - {model: planted_batch, batch_size: 4, backend: [onnxruntime, openvino]}\n")
    reason = "classifier was called with shapes [(2, 3, 8, 8)] instead of [(4, 3, 8, 8)]"
    assert {m.case.backend: (m.status, str(m.reason)) for m in run.measurements} == dict.fromkeys(
        ("onnxruntime", "openvino"), ("invalid", reason)
    )


def test_a_hang_is_killed_at_the_timeout(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_hang}\n - {model: planted_ok}\n", QUICK.replace("timeout_s: 60", "timeout_s: 10")
    )
    hung, fine = run.measurements
    assert (hung.status, fine.status) == ("timeout", "ok")
    assert "no result within 10 s; it was in phase 'load'" in str(hung.reason)


def test_a_fast_wrong_answer_is_invalid(run_suite: RunSuite) -> None:
    run = run_suite(" - {model: planted_drift, precision: [fp32, bf16]}\n")
    assert [m.status for m in run.measurements] == ["ok", "invalid"]
    assert "to the fp32 eager output is below 0.99" in str(run.measurements[1].reason)


def test_an_unavailable_backend_is_skipped_with_its_reason(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_ok, backend: [tensorrt, cuda_graphs]}\n - {model: planted_ok, precision: tf32}\n"
    )
    assert [m.status for m in run.measurements] == ["skipped"] * 3
    assert all("GPU" in str(m.reason) or "TF32" in str(m.reason) for m in run.measurements)


def test_outputs_of_every_kind_are_rows_with_what_the_model_says(run_suite: RunSuite) -> None:
    names = ", ".join(planted.OUTPUTS)
    run = run_suite(f" - {{model: [{names}], batch_size: 2, precision: [fp32, bf16]}}\n")
    found = frames.cases_frame(run)
    assert set(found.status) == {"ok"}, found[["label", "reason"]].to_dict()
    assert all("told: by the model" in texts for texts in found.warning_texts)
    assert [m.facts["told"] for m in run.measurements if m.case.precision == "fp32"] == list(planted.OUTPUTS)
    assert all(m.facts["output_shape"] == [2, *planted.OUTPUTS[m.case.model][0]] for m in run.measurements)
    agreement = {m.case.model: m.samples.get("top1_agreement") for m in run.measurements if m.case.precision == "bf16"}
    assert {model for model, samples in agreement.items() if samples} == {"planted_class_map"}
    assert len(agreement["planted_class_map"] or ()) == 2


@pytest.mark.slow
def test_every_backend_that_runs_here_gives_a_valid_row(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_judged, backend: [eager, onnxruntime], precision: [fp32, int8_dynamic], batch_size: 4}\n"
        " - {model: planted_judged, precision: [bf16, fp16], batch_size: 4}\n"
        " - {model: planted_judged, backend: torch_compile, batch_size: 4}\n"
    )
    found = frames.cases_frame(run)
    assert set(found.status) == {"ok"}, found[["label", "reason"]].to_dict()
    assert set(found.top1) == {0.75}
    agreement = [m.samples["top1_agreement"] for m in run.measurements if "top1_agreement" in m.samples]
    assert {len(samples) for samples in agreement} == {12}
    assert (found.weights_bytes[found.precision == "bf16"] == 1930 * 2).all()
    assert (found.weights_bytes[(found.precision == "int8_dynamic")] < 1930 * 4 / 2).all()
    assert (found.cosine_similarity.dropna() > 0.999).all()
    facts = {(m.case.backend, m.case.precision): m.facts for m in run.measurements}
    assert facts["onnxruntime", "fp32"]["providers"] == ["CPUExecutionProvider"]
    ran = facts["onnxruntime", "int8_dynamic"]["nodes"]
    assert any("QuantizeMatMul" in node for nodes in ran.values() for node in nodes), ran
    assert facts["torch_compile", "fp32"]["compiled_graphs"] == 1


def test_replicates_are_processes_and_a_bad_case_is_not_repeated(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_ok}\n - {model: planted_error}\n",
        QUICK.replace("replicates: 1", "replicates: 3, ratio_interval: null"),
    )
    assert [m.case.model for m in run.measurements].count("planted_ok") == 3
    assert [m.case.model for m in run.measurements].count("planted_error") == 1
    assert {m.replicate for m in run.measurements if m.case.model == "planted_ok"} == {0, 1, 2}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        Exception(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 8"
        ),
        EngineError("TensorRT made no runtime: Error Code 1: Cuda Runtime (out of memory)"),
    ],
)
def test_out_of_memory_is_known_by_whoever_says_it(error: Exception) -> None:
    """ONNX Runtime's errors are not RuntimeErrors, and TensorRT's contain what it logged
    (tests/test_tensorrt_log.py)."""
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("it broke"))


CLASH = """
from pathlib import Path
from harness.processes.worker import Workers
from worker_calls import where
if __name__ == "__main__":
    workers = Workers(("planted",), Path({logs!r}), ("timm",))
    print(workers.call(where, "timm", 60.0, "where", lambda _phase: None).value)
"""


def in_a_folder(folder: Path, logs: Path) -> subprocess.CompletedProcess[str]:
    """What a worker says when the command is called in `folder`, in a process with a fork server of its own."""
    script = logs / "script.py"
    script.write_text(CLASH.format(logs=str(logs)))
    there = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE / "fixtures", HERE.parent)))}
    return subprocess.run(
        [sys.executable, str(script)], env=there, capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.mark.slow
def test_a_worker_does_not_import_what_lies_in_the_working_directory(tmp_path: Path) -> None:
    """The command in a checkout of timm would measure that, under the name and version of the installed one."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").touch()
    (tmp_path / "logs").mkdir()
    done = in_a_folder(tmp_path, tmp_path / "logs")
    assert "site-packages" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_fork_server_that_ends_is_a_reply_with_its_words(tmp_path: Path) -> None:
    """As where timm does not fit the installed torchvision: RuntimeError in the import that all workers share."""
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from harness.processes.worker import Workers\n"
        "from worker_calls import where\n"
        "if __name__ == '__main__':\n"
        f"    workers = Workers(('planted',), Path({str(tmp_path)!r}), ('broken_library',))\n"
        "    for _ in range(2):\n"
        "        reply = workers.call(where, 'timm', 60.0, 'where', lambda _phase: None)\n"
        "        print(reply.status, reply.reason)\n"
    )
    there = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, HERE / "fixtures", HERE.parent)))}
    done = subprocess.run([sys.executable, str(script)], env=there, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("failed the fork server ended") for line in lines)
    assert "operator torchvision::nms does not exist" in done.stdout
