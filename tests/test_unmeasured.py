"""Accelerators that imgbench does not measure are reported at the start of a run, in refusals and by the doctor. Also
torch's settings that are stored with a run."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reports_fixture import empty_run

from baselines.verdict import USAGE
from benches.ab import driver as ab
from benches.cli import doctor, parser, run_start
from benches.cli import run as commands
from harness import devices
from harness.devices import unmeasured
from harness.devices.unmeasured import Accelerator
from harness.processes import environment

XPU = "this machine has an Intel GPU (XPU), which imgbench does not measure: it measures NVIDIA GPUs and CPUs"


@pytest.fixture
def xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)


def test_this_machine_has_none() -> None:
    assert unmeasured.present() == ()
    assert environment.collect(("cpu", None))["unmeasured"] == []


def test_each_is_found_by_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert unmeasured.present() == (Accelerator.MPS,)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert unmeasured.present() == (Accelerator.MPS, Accelerator.XPU)
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert unmeasured.present() == (Accelerator.MPS, Accelerator.XPU), (
        "a build for ROCm on a machine without such a GPU"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert unmeasured.present() == (Accelerator.ROCM, Accelerator.MPS, Accelerator.XPU)


def test_an_nvidia_gpu_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert unmeasured.present() == ()


def test_an_amd_gpu_answers_by_the_names_of_cuda_and_is_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "7.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.default() == "cpu"
    with pytest.raises(devices.NoSuchDevice) as refused:
        devices.device("cuda")
    assert str(refused.value) == (
        "device cuda: this build of torch has no CUDA; this machine has an AMD GPU (ROCm), which imgbench does not "
        "measure: it measures NVIDIA GPUs and CPUs"
    )


@pytest.mark.usefixtures("xpu")
def test_every_refused_device_says_what_the_machine_has() -> None:
    with pytest.raises(devices.NoSuchDevice) as refused:
        devices.device("xpu")
    assert str(refused.value) == f"unknown device 'xpu'; known: cpu, cuda; {XPU}"


@pytest.mark.usefixtures("xpu")
def test_the_command_line_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["run", "digits", "--device", "xpu"])
    assert ended.value.code == USAGE
    assert f"imgbench: argument --device: unknown device 'xpu'; known: cpu, cuda; {XPU}\n" in capsys.readouterr().err
    assert parser().parse_args(["run", "digits", "--device", "cuda"]).device == "cuda"


@pytest.mark.usefixtures("xpu")
def test_the_environment_has_a_value_and_no_sentence() -> None:
    assert environment.collect(("cpu", None))["unmeasured"] == ["xpu"]


@pytest.mark.parametrize(
    ("device", "found", "told"),
    [
        ("cpu", ["xpu"], f"{XPU}; this run measures the CPU"),
        ("cpu", [], None),
        ("cuda", ["xpu"], None),
        ("cpu", ["later"], None),
    ],
)
def test_what_a_run_says_at_its_start(device: str, found: list[str], told: str | None) -> None:
    said = unmeasured.at_the_start({"device": device, "unmeasured": found})
    assert (said and str(said)) == told if found != ["later"] else "this machine has later" in str(said)
    assert unmeasured.at_the_start({"device": device}) is None  # a run from before this was recorded


class Stopped(Exception): ...


def started(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `imgbench run` says before anything is measured, on a machine with an Intel GPU."""

    def stop(*_: Any) -> None:
        raise Stopped

    found = {"device": "cpu", "unmeasured": ["xpu"], "threads": 1}
    monkeypatch.setattr(run_start, "conditions", lambda *_: dict(found))
    monkeypatch.setattr(run_start, "started", stop)
    options: Namespace = parser().parse_args(["run", "digits", *arguments])
    with pytest.raises(Stopped):
        commands.run(options)
    return capsys.readouterr().out


def test_a_run_says_that_it_measures_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{XPU}; this run measures the CPU\n" in started([], monkeypatch, capsys)
    assert "Intel" not in started(["--device", "cpu"], monkeypatch, capsys), "it was asked for"


def test_ab_says_so_before_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(**_: Any) -> None:
        raise Stopped

    header = SimpleNamespace(environment={"device": "cpu", "unmeasured": ["xpu"]})
    monkeypatch.setattr(ab, "_start_hosts", lambda *_: SimpleNamespace(all=lambda: ()))
    monkeypatch.setattr(ab, "_header", lambda *_: header)
    monkeypatch.setattr(ab, "Pairs", stop)
    for device, told in ((None, [f"{XPU}; this run measures the CPU"]), ("cpu", [])):
        said: list[str] = []
        asked: Any = SimpleNamespace(device=device, plugins=())
        with pytest.raises(Stopped):
            ab.measure(asked, tmp_path, said.append, ab.PairedDecider)
        assert said == told


def test_pytest_says_so_in_its_last_words() -> None:
    pytest.importorskip("pytest_benchmark")
    from benches import conftest
    from benches.pytest_plugin.suite_run import SUITE_RUN

    run = replace(empty_run(), environment={"device": "cpu", "unmeasured": ["xpu"]}, folder="runs/x")
    for device, told in ((None, [f"{XPU}; this run measures the CPU", "run runs/x"]), ("cpu", ["run runs/x"])):
        config: Any = SimpleNamespace(
            stash={SUITE_RUN: SimpleNamespace(run=run)}, getoption=lambda _name, device=device: device
        )
        lines: list[str] = []
        reporter: Any = SimpleNamespace(section=lambda _title: None, write_line=lines.append)
        conftest.pytest_terminal_summary(reporter, config)
        assert lines == told


def test_the_doctor_says_so() -> None:
    assert doctor._unmeasured({"unmeasured": []}) == []
    assert doctor._unmeasured({"unmeasured": ["xpu"]}) == [
        {"what": "other accelerators", "status": "no", "detail": XPU}
    ]


def test_settings_that_change_kernels_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment.torch_settings()
    assert {type(value) for value in before.values()} <= {bool, str}
    switches: dict[str, tuple[Any, str]] = {
        "fp16_reduced_precision_reduction": (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
        "bf16_reduced_precision_reduction": (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
        "fp16_accumulation": (torch.backends.cuda.matmul, "allow_fp16_accumulation"),
        "cudnn": (torch.backends.cudnn, "enabled"),
        "cudnn_benchmark": (torch.backends.cudnn, "benchmark"),
        "cudnn_deterministic": (torch.backends.cudnn, "deterministic"),
    }
    for name, (owner, attribute) in switches.items():
        was = getattr(owner, attribute)
        setattr(owner, attribute, not was)
        try:
            changed = environment.torch_settings()
        finally:
            setattr(owner, attribute, was)
        assert {key for key in before if changed[key] != before[key]} == {name}
    assert environment.torch_settings() == before


def test_variables_that_change_kernels_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.FLAGS, *environment.GPU_FLAGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found = environment.collect(("cpu", 1))
    assert found["flags"] == {"CUDA_VISIBLE_DEVICES": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert found["torch_settings"] == environment.torch_settings()


@pytest.mark.parametrize(("name", "seconds"), [("cpu", 2e-4), ("cuda", 4e-3)])
def test_the_length_of_a_sample_is_stored(name: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(
        name=name, is_gpu=name == "cuda", energy_meter=lambda: "no meter", describe=lambda: {"device": name}
    )
    monkeypatch.setattr(devices, "device", lambda _name: device)
    found = environment.collect((name, 1))
    assert (found["shortest_sample_s"], found["is_gpu"]) == (seconds, name == "cuda")
    assert ("tensorrt" in found["backend_packages"]) == (name == "cuda")
