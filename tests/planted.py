"""A plugin of tiny models that misbehave in every way that a worker must survive. Imported by name in the workers."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.backends import BuildRequest
from harness.backends.onnxruntime import OnnxRuntime
from harness.backends.openvino import OpenVino
from harness.registry import BACKENDS, MODELS
from harness.types import Case, Component, Forward, Metric, Quality, Workload

SIZE = 8
CLASSES = 10
ITEMS = 12


class Mean(torch.nn.Module):
    """Images (N, 3, 8, 8) -> logits (N, 10), one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * SIZE * SIZE, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def workload(
    case: Case, iterate: Callable[[Mapping[str, Forward], Any], torch.Tensor] | None = None, **changes: Any
) -> Workload:
    torch.manual_seed(0)
    images = torch.randn(case.batch_size, 3, SIZE, SIZE)
    component = Component(name="classifier", module=Mean().eval(), inputs=(images,))
    given: dict[str, Any] = {
        "components": (component,),
        "iterate": iterate or (lambda forwards, batch: forwards["classifier"](batch)),
        "batch": images,
        "output_shape": (case.batch_size, CLASSES),
        "identity": {"parameters": {"classifier": 1930}, "weights_hash": "planted"},
        "output_kind": "logits",
    }
    return Workload(**{**given, **changes})


def add(name: str) -> Callable[[Callable[[Case], Workload]], Callable[[Case], Workload]]:
    return MODELS.add(
        name,
        family="planted",
        description="for tests",
        axes={"image_size": SIZE},
        weights=("random", "folder"),
        libraries=(),
    )


@add("planted_ok")
def planted_ok(case: Case) -> Workload:
    return workload(case)


@add("planted_<script>alert(1)</script>")
def planted_script(case: Case) -> Workload:
    return workload(case)


class Attention(torch.nn.Module):
    """Images (N, 3, 8, 8) -> logits (N, 10), with nn.MultiheadAttention in between."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 32, 4, 4)
        self.block = torch.nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = torch.nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


class Convolution(torch.nn.Module):
    """Images (N, 3, 8, 8) -> logits (N, 10), without a linear layer, and with a buffer of int8."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, CLASSES, 1)
        self.register_buffer("mask", torch.ones(4, 4, dtype=torch.int8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images).mean((2, 3))


def of(module: torch.nn.Module, case: Case) -> Workload:
    torch.manual_seed(0)
    images = torch.randn(case.batch_size, 3, SIZE, SIZE)
    component = Component(name="classifier", module=module.eval(), inputs=(images,))
    return workload(case, components=(component,), batch=images)


@add("planted_attention")
def planted_attention(case: Case) -> Workload:
    torch.manual_seed(0)
    return of(Attention(), case)


@add("planted_convolution")
def planted_convolution(case: Case) -> Workload:
    torch.manual_seed(0)
    return of(Convolution(), case)


@add("planted_judged")
def planted_judged(case: Case) -> Workload:
    metric = Metric(
        name="top1", unit="share", label="Top-1", better="higher", kind="quality_item", description="", summary="mean"
    )
    batches = [
        torch.randn(case.batch_size, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(i))
        for i in range(-(-ITEMS // case.batch_size))
    ]
    quality = Quality(
        metrics=(metric,),
        batches=lambda: batches,
        score=lambda logits: {"top1": [float(i % 4 > 0) for i in range(ITEMS)]},
        conditions={"items": ITEMS},
    )
    return workload(case, quality=quality)


@add("planted_error")
def planted_error(case: Case) -> Workload:
    raise ValueError("the planted error")


@add("planted_out_of_memory")
def planted_out_of_memory(case: Case) -> Workload:
    torch.empty(2**60)
    raise AssertionError("an exbibyte was given")


@add("planted_segfault")
def planted_segfault(case: Case) -> Workload:
    ctypes.string_at(0)
    raise AssertionError("address 0 was readable")


@add("planted_kill")
def planted_kill(case: Case) -> Workload:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


@add("planted_exit")
def planted_exit(case: Case) -> Workload:
    os._exit(3)


@add("planted_hang")
def planted_hang(case: Case) -> Workload:
    time.sleep(3600)
    raise AssertionError("slept for an hour")


@add("planted_nan")
def planted_nan(case: Case) -> Workload:
    return workload(case, lambda forwards, batch: forwards["classifier"](batch) * float("nan"))


@add("planted_constant")
def planted_constant(case: Case) -> Workload:
    return workload(case, lambda forwards, batch: forwards["classifier"](batch) * 0.0)


OUTPUTS: dict[str, tuple[tuple[int, ...], Callable[[torch.Tensor], torch.Tensor]]] = {  # from logits (N, 10)
    "planted_one_logit": ((1,), lambda logits: logits[:, :1]),
    "planted_class_map": ((5, 1, 2), lambda logits: logits.reshape(-1, 5, 1, 2)),
    "planted_empty_mask": ((5, 2), lambda logits: logits.reshape(-1, 5, 2) > 1e9),
    "planted_label": ((), lambda logits: logits.argmax(dim=1)),
}


def add_output(name: str, shape: tuple[int, ...], of: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def build(case: Case) -> Workload:
        return workload(
            case,
            lambda forwards, batch: of(forwards["classifier"](batch)),
            output_shape=(case.batch_size, *shape),
            facts={"told": name, "output_shape": "what the harness found counts"},
            warnings=("told: by the model",),
        )

    add(name)(build)


for _name, (_shape, _of) in OUTPUTS.items():
    add_output(_name, _shape, _of)


@add("planted_shape")
def planted_shape(case: Case) -> Workload:
    return workload(case, lambda forwards, batch: forwards["classifier"](batch)[:, :5])


@add("planted_batch")
def planted_batch(case: Case) -> Workload:
    """Asks for the batch, runs half of it and repeats the answer: the shape of the output alone would not tell."""
    return workload(case, lambda forwards, batch: forwards["classifier"](batch[: len(batch) // 2]).repeat(2, 1))


@add("planted_calls")
def planted_calls(case: Case) -> Workload:
    """Calls its network twice where once was asked for, as a sampler with other steps would."""
    return workload(case, lambda forwards, batch: forwards["classifier"](batch) + forwards["classifier"](batch))


@add("planted_drift")
def planted_drift(case: Case) -> Workload:
    """Wrong in any precision but fp32, though finite and of the right shape."""
    sign = 1.0 if case.precision == "fp32" else -1.0
    return workload(case, lambda forwards, batch: sign * forwards["classifier"](batch))


@add("planted_scaled")
def planted_scaled(case: Case) -> Workload:
    """Five times too large in any precision but fp32: a cosine does not see it."""
    scale = 1.0 if case.precision == "fp32" else 5.0
    return workload(case, lambda forwards, batch: scale * forwards["classifier"](batch))


@add("planted_garbage_item")
def planted_garbage_item(case: Case) -> Workload:
    """Item 7 wrong in any precision but fp32, though the mean over the items hardly moves."""

    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        logits = forwards["classifier"](batch)
        if case.precision != "fp32":
            turned = logits[7] - logits[7].mean()
            logits[7] = logits[7] + 0.4 * turned.norm() * torch.nn.functional.normalize(turned.flip(0), dim=0)
        return logits

    return workload(case, iterate)


LATE = {1: "kill", 2: "nan", 3: "hang", 4: "error"}


@add("planted_late")
def planted_late(case: Case) -> Workload:
    """Sound with seed 0; with another one sound in the first two processes, and what LATE says in each later one."""
    how = LATE.get(case.seed)
    if how is None or not _late(Path(os.environ["PLANTED_MARK"])):
        return workload(case)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)
    if how == "nan":
        return workload(case, lambda forwards, batch: forwards["classifier"](batch) * float("nan"))
    raise ValueError("the planted error")


def _late(mark: Path) -> bool:
    """Whether two processes were here before this one, which leaves its mark as well."""
    with mark.open("ab") as file:
        file.write(b".")
        return file.tell() > 2


class Flipping(Mean):
    """Reads a number of its class in its forward: a compiled graph is guarded by it."""

    scale = 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.scale


@add("planted_recompile")
def planted_recompile(case: Case) -> Workload:
    """Changes what its compiled graph was guarded by after the build, so that the first iteration compiles anew."""
    module = Flipping().eval()
    torch.manual_seed(0)
    images = torch.randn(case.batch_size, 3, SIZE, SIZE)

    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        Flipping.scale = 2
        return forwards["classifier"](batch)

    component = Component(name="classifier", module=module, inputs=(images,))
    return workload(case, iterate, components=(component,), batch=images)


@BACKENDS.add("planted_fallback")
class Fallback(OnnxRuntime):
    """A list of providers of which the first cannot be had here: ONNX Runtime takes the next one, in silence."""

    label = description = "for tests"
    providers: ClassVar[Mapping[str, str]] = {"cpu": "CUDAExecutionProvider"}

    def unavailable(self, wanted: str, device: str) -> str | None:
        return None

    def session_providers(self, request: BuildRequest) -> list[Any]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


@BACKENDS.add("planted_other_precision")
class OtherPrecision(OpenVino):
    """Asks OpenVINO for a precision that it takes as another one, in silence."""

    label = description = "for tests"

    def unavailable(self, wanted: str, device: str) -> str | None:
        return None


@add("planted_until_mended")
def planted_until_mended(case: Case) -> Workload:
    """Sound once its folder of weights holds a file `mended`; until then an OSError of the number `seed`, or with seed
    0 an error of its own."""
    if not (Path(case.weights) / "mended").exists():
        raise OSError(case.seed, os.strerror(case.seed)) if case.seed else ValueError("the planted error")
    return workload(case)


@add("planted_terminated")
def planted_terminated(case: Case) -> Workload:
    """As a batch system or an operator ends it."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    raise AssertionError("survived SIGTERM")
