"""The page of a paired run holds every row, verdict and control, whatever became of the run."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from paired_fixture import paired_run

from baselines.paired.decider import PairedJudge
from baselines.paired.verdicts import comparison
from baselines.verdict import Comparison
from harness.measuring.turns import Interleaving
from harness.paired.paired_run import CONTROL_GROUP, PairedProcess, PairedRow, PairedRun, row_of
from harness.types import Case, Measurement
from reports.page import paired_page

COUNTS = Interleaving(warmups=1, turns=4, samples=1, discarded=0)
HOSTILE = "</script><script>alert(1)</script>"


def rows(count: int) -> tuple[PairedRow, ...]:
    cases = [Case(model="vit", batch_size=i + 1) for i in range(count)]
    return tuple(replace(row_of(case, case), interleaving=COUNTS) for case in cases)


def run_of(planned: tuple[PairedRow, ...]) -> PairedRun:
    return paired_run(
        arms=({"text": ""}, {"text": "inject:busy=0.05"}),
        proof=("base: its own code", "head: its own code"),
        environment={"device": "cpu", "cpu": {"model": "a CPU"}, "versions": {"torch": "2"}},
        rows=planned,
        control=planned[0].id if planned else None,
        sentinels=("gemm",),
        finished="2026-01-02T03:14:05+00:00",
    )


def judged(
    planned: tuple[PairedRow, ...], pairs: int, slow: float = 1.0, *, busy: bool = False, broken: str = ""
) -> PairedJudge:
    """A judge after `pairs` pairs; the head of the first row is `slow` times as slow."""
    judge = PairedJudge(run_of(planned))
    rng = np.random.default_rng(0)
    for number in range(pairs):
        for group in ("vit", CONTROL_GROUP):
            blocks = []
            measured = planned if group == "vit" else planned[:1]
            for slot, arm in enumerate(("base", "head" if group == "vit" else "control")):
                found = {}
                for row in measured:
                    factor = slow if arm == "head" and row is planned[0] else 1.0
                    seconds = (0.01 * factor * np.exp(rng.normal(0, 0.004, 4))).tolist()
                    failed = {"status": "failed", "reason": broken} if broken and arm == "head" else {"status": "ok"}
                    found[row.id] = Measurement(
                        case=row.base,
                        replicate=number,
                        samples={} if broken and arm == "head" else {"latency_s": seconds},
                        facts={"turns": 4},
                        warnings=("contended: other processes used 60% of a core",) if busy else (),
                        **failed,  # type: ignore[arg-type]
                    )
                blocks.append(
                    PairedProcess(
                        pair=number,
                        slot=slot,
                        arm=arm,  # type: ignore[arg-type]
                        group=group,
                        phase=judge.phase,
                        server=0,
                        started="",
                        elapsed_s=4.0 * number,
                        measurements=found,
                        sentinel={"gemm": [0.001, 0.001, 0.001, 0.001]},
                    )
                )
            judge.add(*blocks)
    judge.decision.close()
    return judge


def page(judge: PairedJudge, found: Comparison | None = None) -> str:
    return paired_page.build(judge, found or comparison(judge, [], "decided"))


def charts(html: str) -> list[dict]:
    """The figures of the page, as they were given to the script."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)]


def test_a_slow_row_is_the_first_thing_it_says_and_the_first_row_of_the_chart() -> None:
    judge = judged(rows(3), 30, 1.05)
    html = page(judge)
    assert "Red: 1 row is slower." in html
    assert "exit code 10: regressed" in html
    forest = next(f for f in charts(html) if "regressed" in {t.get("name") for t in f["data"]})
    worst = next(t for t in forest["data"] if t["name"] == "regressed")
    assert worst["y"] == [0.0]
    assert worst["x"][0] == pytest.approx(5.0, abs=0.5)
    assert {t["name"] for t in forest["data"]} == {"regressed", "unchanged", "control"}
    assert "suspected after 8 pairs, 8 fresh ones bear it out, and all 16 together lie beyond 1%" in html
    assert "screen, 8 pairs: shift" in html


def test_every_row_and_control_has_its_place() -> None:
    html = page(judged(rows(40), 12))
    forest = charts(html)[0]
    labels = forest["layout"]["yaxis"]["ticktext"]
    assert len(labels) == 42
    assert labels[-2:] == ["A/A: base against itself", "sentinel: gemm"]
    assert len(set(labels)) == 42
    assert "Green: not slower (40 rows" in html


def test_a_busy_machine_is_said_first_and_no_row_is_green() -> None:
    html = page(judged(rows(2), 12, busy=True))
    assert "the machine was not quiet enough to judge speed" in html
    assert "contaminated: contended: " in html
    assert "pairs left out: contended: other processes used 60% of a core" in html
    assert "unchanged</span>" not in html


def test_rows_that_broke_and_runs_without_a_pair_have_a_page_too() -> None:
    html = page(judged(rows(2), 1, broken="it broke"))
    assert "no longer run" in html
    assert "it broke" in html
    assert "no row has 4 pairs" in html
    nothing = judged(rows(1), 0)
    html = page(nothing)
    assert "no pair was measured" in html


def test_it_loads_nothing_and_escapes_what_it_is_given() -> None:
    judge = judged(rows(1), 10)
    html = page(judge, replace(comparison(judge, [], "decided"), notes=(HOSTILE,), contaminated=(HOSTILE,)))
    assert HOSTILE not in html
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.S)  # plotly.js itself names sites that it never loads
    assert not re.search(r'(src|href)="https?:', markup)
    assert "default-src 'none'" in html


def test_labels_name_what_tells_the_rows_apart() -> None:
    base = Case(model="sd", scheduler="ddim", num_steps=3)
    planned = [row_of(base, base), row_of(base.with_(num_steps=5), base.with_(num_steps=5, backend="onnxruntime"))]
    assert list(paired_page.short_labels(planned).values()) == ["sd 3 st.", "sd 5 st. → onnxruntime"]
