"""Flushed caches: `cold_cache: true` in a suite's protocol.

Before each iteration, outside the timed span, a buffer of twice the last-level cache is read and written: on a GPU of
twice its L2, on a CPU of twice the last-level caches of all CPUs that the process may use. Weights and inputs then come
from memory, as they do where other work runs in between. Without the flush they may still be in the cache, and a
network that fits there is timed faster than it runs in a service. One iteration is then one sample
(`harness.timing.Timer.cold_seconds` says how it is timed). The stage table is measured in the same way; memory, energy
and quality are not.

Not yet proven on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.devices.cpu import ALLOWED_CPUS
from harness.measuring.out_of_memory import is_out_of_memory
from harness.types import Protocol, Unavailable

if TYPE_CHECKING:
    from harness.measuring.trial import Trial

CPUS: Final = Path("/sys/devices/system/cpu")
TIMES: Final = 2  # times the size of the cache: lines are not evicted in the order in which they came
UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30}


class Flush:
    """A buffer of `size` bytes on `device`. A call reads and writes all of it, on a GPU in the current stream."""

    def __init__(self, size: int, device: str) -> None:
        import torch

        self.size = size
        self._buffer = torch.zeros(size // 4, dtype=torch.int32, device=device)

    def __call__(self) -> None:
        self._buffer.add_(1)  # a plain fill may write around the caches


def unavailable(protocol: Protocol, device: str) -> str | None:
    """Why the caches of `device` ("cpu" or "cuda") cannot be flushed although the protocol asks for it, or None."""
    found = cache_bytes(device) if protocol.cold_cache else 0
    return f"cold_cache: {found}" if isinstance(found, str) else None


@contextmanager
def flushed(trial: Trial) -> Iterator[Flush | None]:
    """The function that flushes the caches of the trial's device; None where the protocol does not request it. The
    buffer is freed after the block. Raises Unavailable where there is no memory for the buffer beside the model."""
    if not trial.protocol.cold_cache:
        yield None
        return
    found = cache_bytes(trial.device.name)
    if isinstance(found, str):
        raise ValueError(found)
    flush = _flush(TIMES * found, trial.device.torch_device)
    try:
        yield flush
    finally:
        del flush._buffer
        _give_back(trial.device.name)


def _flush(size: int, device: str) -> Flush:
    try:
        return Flush(size, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        took = f"{size / 2**20:.0f} MiB beside the model"
        raise Unavailable(f"cold_cache: there is no room to flush the caches, which takes {took}") from error


def _give_back(device: str) -> None:
    """Makes torch's allocator release the buffer, which would otherwise count in the peaks of reserved memory."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()


def cache_bytes(device: str) -> int | str:
    """The size in bytes of the last-level cache of `device`, or the reason why it is unknown."""
    import torch

    if device == "cuda":
        size = int(torch.cuda.get_device_properties(0).L2_cache_size)
        return size or "the driver does not report the size of this GPU's L2 cache"
    return last_level_bytes(CPUS, ALLOWED_CPUS)


def last_level_bytes(root: Path, cpus: tuple[int, ...]) -> int | str:
    """The total size in bytes of the last-level caches of `cpus`, each counted once; or the reason why the kernel does
    not report it below `root`."""
    found: dict[str, int] = {}
    for cpu in cpus:
        try:
            caches = [_cache(folder) for folder in sorted((root / f"cpu{cpu}/cache").glob("index*"))]
        except (OSError, ValueError, KeyError, IndexError):
            caches = []
        _, shared, size = max(filter(None, caches), default=(0, "", 0))
        if not size:
            return f"the kernel does not list the caches of CPU {cpu} ({root}/cpu{cpu}/cache)"
        found[shared] = size
    return sum(found.values()) or "the kernel does not report which CPUs this process may use"


def _cache(folder: Path) -> tuple[int, str, int] | None:
    """(level, the CPUs that share it, bytes) of one cache; None for one that holds instructions alone."""
    level, kind, shared, size = (
        (folder / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "shared_cpu_list", "size")
    )
    if kind == "Instruction":
        return None
    return int(level), shared, int(size[:-1]) * UNITS[size[-1]]
