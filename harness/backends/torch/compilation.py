"""What torch.compile did for one row: frames compiled, cache lookups, CUDA graphs skipped and recorded.

dynamo and inductor count over the whole process, and one process measures several rows, one after another. A row's
counts are therefore differences from the start of its build, and they are final when the next row's build starts.

That start also resets dynamo. Rows of one model share the code object of their forward. dynamo compiles a code object
only eight times, and it reuses the code of an earlier row for a row with the same shapes. The reset discards the
compiled code and the CUDA graphs of all earlier rows of the process, which have been measured and verified by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each thing happened. `frames` counts the graphs that dynamo compiled, `partitions` the parts of the
    graphs that inductor divided, and `skipped` the graphs that it did not capture as CUDA graphs. `recorded` counts the
    compiled functions that have a CUDA graph, and `recordings` all of their CUDA graphs; both are None if this torch
    does not show them."""

    frames: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    partitions: int = 0
    skipped: int = 0
    recorded: int | None = 0
    recordings: int | None = 0

    @property
    def cached(self) -> bool:
        """Whether every graph was in inductor's cache on disk."""
        return self.cache_misses == 0 and self.cache_hits > 0


class Compilation:
    """The counts of one row, from the creation of this object, which resets dynamo, until the next one is created."""

    _latest: ClassVar[Compilation | None] = None

    def __init__(self) -> None:
        import torch

        if (earlier := Compilation._latest) is not None:
            earlier._final = earlier.counts()
        torch.compiler.reset()
        self._before = _counters()
        self._final: Counts | None = None
        Compilation._latest = self

    def counts(self) -> Counts:
        """What happened since this object was created and before the next one was."""
        if self._final is not None:
            return self._final
        counted = {name: count - self._before[name] for name, count in _counters().items()}
        nodes = _recordings()
        return Counts(
            **counted,
            recorded=None if nodes is None else len(set(nodes)),
            recordings=None if nodes is None else len(nodes),
        )


def _counters() -> dict[str, int]:
    from torch._dynamo.utils import counters

    inductor = counters["inductor"]
    return {
        "frames": counters["stats"]["unique_graphs"],
        "cache_hits": inductor["fxgraph_cache_hit"],
        "cache_misses": inductor["fxgraph_cache_miss"],
        "partitions": inductor["cudagraph_partitions"],
        "skipped": inductor["cudagraph_skips"],
    }


def _recordings() -> list[Any] | None:
    """The compiled function of every CUDA graph in inductor's tree; None if this torch does not show it."""
    import torch

    if not torch.cuda.is_initialized():
        return []
    try:
        from torch._inductor import cudagraph_trees

        manager = cudagraph_trees.get_manager(torch.cuda.current_device(), create_if_none_exists=False)
        return [] if manager is None else list(_functions(manager.roots))
    except (ImportError, AttributeError, TypeError):  # internals, which another version may have renamed
        return None


def _functions(level: Mapping[Any, Sequence[Any]]) -> Iterator[Any]:
    for function, nodes in level.items():
        for node in nodes:
            yield function
            yield from _functions(node.children)
