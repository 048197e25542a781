"""Checks that every iteration does the same work: the same input gives the same output, from the first to the last.

A network that writes to its input gets another input in every further iteration. One that keeps state, or draws random
numbers, gives another output. The timing would not show this, and a correct backend (an export has no state) would be
compared with a wrong output. Three things are therefore compared:

- each input of every call in the first iteration, before and after the call,
- the timed batch, before the first and after the last sample,
- the outputs of the first iteration, of the last warm-up iteration and of the last sample, with each other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from harness.measuring import output_files
from harness.measuring.trial import Mismatch, Trial
from harness.numerics.tolerance import relative_errors
from harness.reasons import Reason
from harness.types import Forward

if TYPE_CHECKING:
    import torch


def private_batch(batch: Any) -> Any:
    """A private copy of a batch; the batch itself if it cannot be copied."""
    try:
        return copy.deepcopy(batch)
    except Exception:  # an attribute of a plugin's batch that cannot be copied may raise anything
        return batch


def guarded(name: str, forward: Forward) -> Forward:
    """The `forward` of the network `name`, which now raises Mismatch if a call changes one of its inputs."""

    def checked(*inputs: torch.Tensor) -> torch.Tensor:
        before = [x.detach().clone() for x in inputs]
        output = forward(*inputs)
        for number, (x, kept) in enumerate(zip(inputs, before, strict=True)):
            if not same_values(x, kept):
                which = {"component": name, "input": number + 1, "inputs": len(inputs)}
                raise Mismatch(Reason("input_changed", which))
        return output

    return checked


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal value by value; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    equal: torch.Tensor = a == b
    if a.is_floating_point() or a.is_complex():
        equal = equal | ((a != a) & (b != b))
    return bool(equal.all())


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Copies of the tensors of a batch."""

    tensors: tuple[torch.Tensor, ...]

    def fault(self, batch: Any) -> Reason | None:
        """How `batch` differs from the snapshot, or None."""
        now = tuple(_tensors(batch))
        if len(now) == len(self.tensors) and all(map(same_values, now, self.tensors)):
            return None
        return Reason("batch_changed")


def snapshot(batch: Any) -> Snapshot:
    return Snapshot(tensors=tuple(x.detach().clone() for x in _tensors(batch)))


def _tensors(value: Any, above: tuple[int, ...] = ()) -> Iterator[torch.Tensor]:
    """The tensors in a batch: the batch itself, or those in its attributes, values and elements."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
        return
    if id(value) in above:  # an object that contains itself
        return
    inner: Sequence[Any] = ()
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = value
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType | FunctionType):
        inner = list(vars(value).values())
    if hasattr(type(value), "__slots__"):
        inner = [*inner, *(getattr(value, name, None) for name in _slots(type(value)))]
    for one in inner:
        yield from _tensors(one, (*above, id(value)))


def _slots(kind: type) -> list[str]:
    found = [getattr(base, "__slots__", ()) for base in kind.__mro__]
    return [name for slots in found for name in ([slots] if isinstance(slots, str) else slots)]


def first_process_error(trial: Trial, output: torch.Tensor) -> dict[str, float]:
    """The fact of the largest relative error of an item against the output of the first process of the case. Empty if
    that is not stored."""
    path = output_files.first_output(trial.folder, trial.case.id)
    return {"first_process_error": repeat_error([output_files.load(path), output.float()])} if path.exists() else {}


def repeat_error(outputs: Sequence[torch.Tensor]) -> float:
    """The largest relative error of any item of a later output against the first output, shapes (N, ...): 0.0 if all
    values are equal, infinite if the shapes differ."""
    first, *later = outputs
    others = [x for x in later if not same_values(x, first)]
    if any(x.shape != first.shape for x in others):
        return math.inf
    return max((max(relative_errors(x, first)) for x in others), default=0.0)
