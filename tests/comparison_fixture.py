"""Comparisons as CI gets them, for the tests of its files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from baselines.verdict import OUTCOMES, Comparison, Verdict

SLOWER = Verdict(
    case_id="c1",
    label="vit · batch 1",
    metric="latency_s",
    kind="noisy",
    unit="s",
    outcome="regressed",
    reason="confirmed on 16 fresh pairs",
    baseline=0.010,
    candidate=0.0105,
    ratio=1.05,
    low=1.04,
    high=1.06,
    minimum_detectable=0.02,
    pairs=24,
    dropped=2,
    p_value=1e-5,
)
UNDECIDED = replace(SLOWER, case_id="c2", label="dit · 20 steps", outcome="inconclusive", reason="budget spent")
GONE = replace(SLOWER, case_id="c3", label="sd", metric="row", kind="health", outcome="missing", reason="no such row")
SAME = replace(SLOWER, case_id="c4", label="vit · batch 32", outcome="unchanged", reason="within ±2.5 %")


def paired(*verdicts: Verdict, **changes: Any) -> Comparison:
    given: dict[str, Any] = {
        "run_id": "ab-1",
        "suite": "gate",
        "baseline": "base (ref=main)",
        "scope": "all",
        "rule": "paired",
        "arms": ("ref=main", "ref=HEAD"),
        "notes": ("24 pairs, 2 dropped",),
    }
    return Comparison(**given | changes, verdicts=verdicts)


def every_state() -> Iterator[tuple[Comparison, bool]]:
    """Comparisons of two verdicts in all pairs of outcomes, gating or not, quiet or not, strict or not."""
    for first, second in itertools.combinations_with_replacement(OUTCOMES, 2):
        for kind, gating, contaminated, strict in itertools.product(
            ("noisy", "exact", "quality_set"), (True, False), ((), ("busy",)), (True, False)
        ):
            one: Any = replace(SLOWER, outcome=first, kind=kind, gating=gating)  # type: ignore[arg-type]
            yield paired(one, replace(UNDECIDED, outcome=second), contaminated=contaminated), strict  # type: ignore[arg-type]
            nothing = replace(one, candidate=None)
            yield paired(nothing, contaminated=contaminated), strict
    for absent in (True, False):
        yield paired(refused=("other GPU",), absent=absent), False
    yield paired(refused=("pip: no such package",), error=True, run_id="", notes=()), False
    yield paired(), False
