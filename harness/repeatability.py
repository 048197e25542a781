"""One input, one output, from the first iteration to the last: what is timed must be the same work every time.

A network that writes into its input gets another input in every further iteration; one that keeps a state, or draws
random numbers, gives another output. Both would be timed as if nothing had happened, and a backend that does it right
(an export has no state) would be held against an output that is wrong. So the inputs of every call of the first
iteration are compared before and after the call, the timed batch before the first and after the last sample, and the
outputs of the first iteration, of the last warm-up iteration and of the last sample with each other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from harness.tolerance import relative_errors
from harness.trial import Mismatch
from harness.types import Forward

if TYPE_CHECKING:
    import torch

OWN_COPY = "let its forward() work on a copy (x = x / 255 instead of x.div_(255))"


def private_batch(batch: Any) -> Any:
    """A copy of a batch that nothing else holds; a batch that cannot be copied as it is."""
    try:
        return copy.deepcopy(batch)
    except Exception:  # whatever an attribute of a plugin's batch raises that does not let itself be copied
        return batch


def guarded(name: str, forward: Forward) -> Forward:
    """`forward` of the network `name`, which raises Mismatch where a call changed one of its inputs."""

    def checked(*inputs: torch.Tensor) -> torch.Tensor:
        before = [x.detach().clone() for x in inputs]
        output = forward(*inputs)
        for number, (x, kept) in enumerate(zip(inputs, before, strict=True)):
            if not same_values(x, kept):
                which = f"input {number + 1} of {len(inputs)}" if len(inputs) > 1 else "its input"
                raise Mismatch(
                    f"the network {name} writes into {which}, so that every further iteration gets another one; "
                    f"{OWN_COPY}"
                )
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
    """The tensors of a batch as they were."""

    tensors: tuple[torch.Tensor, ...]

    def fault(self, batch: Any) -> str | None:
        """Why `batch` is not the batch that the snapshot was taken of, or None."""
        now = tuple(_tensors(batch))
        if len(now) == len(self.tensors) and all(map(same_values, now, self.tensors)):
            return None
        return f"the timed batch was changed while it was timed, so that the iterations did other work; {OWN_COPY}"


def snapshot(batch: Any) -> Snapshot:
    return Snapshot(tensors=tuple(x.detach().clone() for x in _tensors(batch)))


def _tensors(value: Any, above: tuple[int, ...] = ()) -> Iterator[torch.Tensor]:
    """The tensors in a batch: itself, or those in its attributes, values and elements."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
        return
    if id(value) in above:  # an object that holds itself
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


def repeat_error(outputs: Sequence[torch.Tensor]) -> float:
    """The largest relative error of an item of any later output, shapes (N, ...), against the first one: 0.0 where all
    are the same value by value, infinite where a shape is another."""
    first, *later = outputs
    others = [x for x in later if not same_values(x, first)]
    if any(x.shape != first.shape for x in others):
        return math.inf
    return max((max(relative_errors(x, first)) for x in others), default=0.0)
