"""Flushed caches: `cold_cache: true` in a suite's protocol.

Before each iteration, outside the timed span, a buffer of twice the last-level cache is read and written: on a GPU of
twice its L2, on a CPU of twice the last-level caches of all CPUs that the process may use. Weights and inputs then come
from memory, as they do in a service where other work runs in between. Without the flush they may still be in the cache,
and a network that fits there appears faster than it is in a service. One iteration is then one sample
(`harness.timing.Timer.cold_seconds` says how it is timed). The stage table is measured in the same way; memory, energy
and quality are not.

It is not yet tested on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from harness import reasons
from harness.measuring.out_of_memory import is_out_of_memory
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.types import Protocol, Unavailable

if TYPE_CHECKING:
    from harness.measuring.trial import Trial

TIMES: Final = 2  # times the size of the cache, because lines are not evicted in the order in which they were loaded


class Flush:
    """A buffer of `size` bytes on `device`. A call reads and writes all of it, on a GPU in the current stream."""

    def __init__(self, size: int, device: str) -> None:
        import torch

        self.size = size
        self._buffer = torch.zeros(size // 4, dtype=torch.int32, device=device)

    def __call__(self) -> None:
        self._buffer.add_(1)  # a plain fill may bypass the caches


def unavailable(protocol: Protocol, device: str) -> Reason | None:
    """Why the caches of `device` cannot be flushed although the protocol requires it, or None."""
    found = cache_bytes(device) if protocol.cold_cache else 0
    return Reason("cache_unknown", {"why": found}) if isinstance(found, Reason) else None


@contextmanager
def flushed(trial: Trial) -> Iterator[Flush | None]:
    """The function that flushes the caches of the trial's device; None where the protocol does not request it. The
    buffer is freed after the block. Raises Unavailable where there is no memory for the buffer beside the model."""
    if not trial.protocol.cold_cache:
        yield None
        return
    found = cache_bytes(trial.device.name)
    if isinstance(found, Reason):
        raise Unavailable(Reason("cache_unknown", {"why": found}))
    flush = _flush(TIMES * found, trial.device.torch_device)
    try:
        yield flush
    finally:
        del flush._buffer
        trial.device.release_memory()  # the buffer would otherwise count in the peaks of reserved memory


def _flush(size: int, device: str) -> Flush:
    try:
        return Flush(size, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise Unavailable(Reason("no_room_to_flush", {"bytes": size})) from error


def cache_bytes(device: str) -> int | Reason:
    """The size in bytes of the last-level cache of `device`, or the reason why it is unknown."""
    found: int | Reason | str = DEVICES[device].cache_bytes()
    return found if isinstance(found, int) else reasons.of(found)
