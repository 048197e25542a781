"""What must hold for energy on any GPU, from two GEMM sizes that were each run for some seconds ("joules of GEMMs").

The counter and both power readings come from NVML. Agreement shows that they are consistent, not that they are
correct. The figures of a size are joules, seconds, flops, instant_w and average_w (None or text where there is none).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from benches.gpu_check import Check, must_run
from benches.gpu_check.record import Record

CHECK: Final = "joules of GEMMs"
AGREEMENT: Final = 0.25  # of the counter's mean power: beyond it, the energy of a row is missing too
OVER_LIMIT: Final = 1.05  # of the enforced limit, which is itself a mean over some milliseconds
SIZES_AGREE: Final = 0.25  # of the larger J/FLOP: both sizes are bound by compute, but use caches differently


def instant(record: Record) -> Check:
    return _against(record, must_run.INSTANT, "instant_w")


def average(record: Record) -> Check:
    return _against(record, must_run.AVERAGE, "average_w")


def limit(record: Record) -> Check:
    def decide(sizes: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Any]) -> tuple[bool, str] | str:
        limit_w = figures.get("power_limit_w")
        if not limit_w:
            return "NVML gives no power limit"
        means = {size: found["joules"] / found["seconds"] for size, found in sizes.items()}
        words = ", ".join(f"{size}: {mean:.0f} W" for size, mean in means.items())
        return all(mean <= OVER_LIMIT * limit_w for mean in means.values()), f"{words}; limit {limit_w:.0f} W"

    return _decided(record, must_run.LIMIT, decide)


def per_flop(record: Record) -> Check:
    def decide(sizes: Mapping[str, Mapping[str, Any]], _figures: Mapping[str, Any]) -> tuple[bool, str] | str:
        if len(sizes) < 2:
            return "fewer than two sizes were measured"
        found = {size: one["joules"] / one["flops"] for size, one in sizes.items()}
        words = ", ".join(f"{size}: {joules * 1e12:.2f} pJ/FLOP" for size, joules in found.items())
        return min(found.values()) >= (1 - SIZES_AGREE) * max(found.values()) > 0, words

    return _decided(record, must_run.PER_FLOP, decide)


LAWS: Final[tuple[Callable[[Record], Check], ...]] = (instant, average, limit, per_flop)


def _against(record: Record, name: str, reading: str) -> Check:
    def decide(sizes: Mapping[str, Mapping[str, Any]], _figures: Mapping[str, Any]) -> tuple[bool, str] | str:
        if silent := [one[reading] for one in sizes.values() if not isinstance(one[reading], int | float)]:
            return str(silent[0] or "NVML gives no such reading")
        ratios = {size: one[reading] * one["seconds"] / one["joules"] for size, one in sizes.items()}
        words = ", ".join(f"{size}: {ratio:.3f} of the counter" for size, ratio in ratios.items())
        return all(abs(ratio - 1) <= AGREEMENT for ratio in ratios.values()), words

    return _decided(record, name, decide)


def _decided(
    record: Record,
    name: str,
    decide: Callable[[Mapping[str, Mapping[str, Any]], Mapping[str, Any]], tuple[bool, str] | str],
) -> Check:
    """`decide` returns whether the law holds and what was measured, or the reason why it cannot decide."""
    check = record.checks.get(CHECK)
    if check is None or check.result != "ok" or not check.figures:
        why = "not measured" if check is None else check.detail
        return Check(what=name, result="left out", detail=f"{CHECK}: {why}")
    found = decide(check.figures["sizes"], check.figures)
    if isinstance(found, str):
        return Check(what=name, result="left out", detail=found)
    return Check(what=name, result="ok" if found[0] else "FAILED", detail=found[1])
