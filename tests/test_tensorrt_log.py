"""Why TensorRT failed, from its own messages: through the real bindings over stubs of its libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt import log as tensorrt_log
from harness.backends.tensorrt.engine import Engine, EngineError, Places
from harness.causes import MAX_REASON, one_line
from harness.measuring.out_of_memory import is_out_of_memory
from harness.timing import Timer

# From the texts in TensorRT's libraries and from published logs. This code has seen none of them on hardware.
OUT_OF_MEMORY = [
    "[defaultAllocator.cpp::allocate::58] Error Code 1: Cuda Runtime (out of memory)",
    "[virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)",
    "Requested amount of GPU memory (8388608 bytes) could not be allocated. There may not be enough free memory for "
    "allocation to succeed.",
    "GPU memory allocation failed during initialization of layer: conv_in",
    "1048576-byte allocation failed.",
    "Error in 'conv_in': run-time allocation failed (1048576 bytes)",
]
BROKEN = "CUDA initialization failure with error: 35"


@pytest.fixture(autouse=True)
def _nothing_said(trt: Any) -> None:
    tensorrt_log.forget()


def built(folder: Path) -> None:
    places = Places(engines=folder / "engines", timings=folder / "timing.cache")
    (folder / "vit-fp16").mkdir()
    (folder / "vit-fp16" / "model.onnx").write_bytes(b"a network")
    tensorrt_engine.plan(folder / "vit-fp16" / "model.onnx", [], places, False, Timer(lambda: None))


def loaded(folder: Path) -> None:
    (folder / "a.engine").write_bytes(b"the engine")
    Engine(folder / "a.engine")


@pytest.mark.parametrize("work", [built, loaded])
@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_out_of_memory_at_build_and_load_is_known_by_what_the_library_logs(
    work: Any, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENSORRT_STUB_SAYS", text)
    monkeypatch.setattr(tensorrt_engine, "key_of", lambda *_arguments: "key")
    with pytest.raises(EngineError) as raised:
        work(tmp_path)
    assert is_out_of_memory(raised.value)
    assert text in one_line(raised.value)[:MAX_REASON], "the row's reason holds TensorRT's words"
    assert text in capfd.readouterr().err, "and the worker's log does, too"


def test_another_failure_is_not_out_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENSORRT_STUB_SAYS", BROKEN)
    with pytest.raises(EngineError, match=f"TensorRT made no runtime: {BROKEN}") as raised:
        loaded(tmp_path)
    assert not is_out_of_memory(raised.value)


def test_no_reason_is_said_to_be_none_and_an_earlier_one_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TENSORRT_STUB_SAYS", OUT_OF_MEMORY[0])
    with pytest.raises(EngineError):
        loaded(tmp_path)
    monkeypatch.delenv("TENSORRT_STUB_SAYS")
    with pytest.raises(EngineError, match="TensorRT made no runtime: TensorRT gave no reason") as raised:
        loaded(tmp_path)
    assert not is_out_of_memory(raised.value)


SKIPPED = [
    "Skipping tactic 3 due to insufficient memory on requested size of 4294967296 detected for tactic 0x4.",
    "Tactic Device request: 4294MB Available: 1024MB. Device memory is insufficient to use tactic.",
    "Requested amount of GPU memory (8388608 bytes) could not be allocated.",
]


@pytest.mark.parametrize("skipped", SKIPPED)
def test_skipped_tactics_explain_that_none_is_left_and_other_warnings_are_left_out(skipped: str, trt: Any) -> None:
    failed = "Error Code 10: Internal Error (Could not find any implementation for node conv_in.)"
    logger = tensorrt_log.logger()
    logger.log(trt.ILogger.WARNING, skipped)
    logger.log(trt.ILogger.WARNING, "CUDA lazy loading is not enabled. Enabling it can reduce device memory usage")
    logger.log(trt.ILogger.INFO, "[MemUsageChange] Init CUDA: CPU +2, GPU +0")
    for _ in range(2):
        logger.log(trt.ILogger.INTERNAL_ERROR, failed)
    assert tensorrt_log.reason() == f"{failed}; {skipped}"


@pytest.mark.parametrize("skipped", SKIPPED[:2])
def test_only_a_build_without_any_tactic_left_ran_out_of_memory(skipped: str, trt: Any) -> None:
    """A build that skipped a tactic for memory may fail for another reason."""
    logger = tensorrt_log.logger()
    logger.log(trt.ILogger.WARNING, skipped)
    logger.log(trt.ILogger.ERROR, BROKEN)
    assert tensorrt_log.reason() == BROKEN
    assert not is_out_of_memory(EngineError(tensorrt_log.reason()))
    logger.log(trt.ILogger.ERROR, "Could not find any implementation for node conv_in.")
    assert is_out_of_memory(EngineError(tensorrt_log.reason()))


def test_a_process_has_one_logger_and_the_first_messages_are_kept(trt: Any) -> None:
    assert tensorrt_log.logger() is tensorrt_log.logger()
    for i in range(1000):
        tensorrt_log.logger().log(trt.ILogger.ERROR, f"error {i}")
    assert tensorrt_log.reason().split("; ") == [f"error {i}" for i in range(tensorrt_log.KEPT)]
