"""The copy goes to the memory: on a CPU of the size that recorded runs have, on a GPU of more than its L2 holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.devices.cpu import Cpu
from harness.measuring import control_workload
from harness.processes import measure
from harness.timing import Timer
from harness.types import Case, Protocol

MIB = 2**20


@pytest.mark.parametrize(
    ("l2", "copied"),
    [(4 * MIB, 16 * MIB), (50 * MIB, 100 * MIB), (0, 2 * control_workload.UNKNOWN_L2_BYTES)],
)
def test_on_a_gpu_the_copy_is_of_twice_the_l2(l2: int, copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: SimpleNamespace(L2_cache_size=l2))
    assert control_workload.copied_bytes("cuda") == copied


def test_on_a_cpu_it_is_what_the_recorded_baselines_have(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda size, **how: made.append(size) or zeros(8, **how))
    found = control_workload.measure(Timer(lambda: None), Cpu())
    assert made == [16 * MIB]
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys(
        control_workload.NAMES, control_workload.TURNS
    )


@pytest.mark.parametrize(("error", "kept"), [(torch.OutOfMemoryError(), True), (ValueError("broken"), False)])
def test_a_model_that_leaves_it_no_memory_keeps_its_row(
    error: Exception, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(control_workload, "measure", fails)
    job = measure.Job(
        case=Case(model="m"),
        replicate=0,
        protocol=Protocol(),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path,
        threads=1,
    )
    if kept:
        assert measure._control_workload(job, Cpu()) == {
            "control_workload_missing": "no memory for it beside the model"
        }
    else:
        with pytest.raises(ValueError, match="broken"):
            measure._control_workload(job, Cpu())
