"""The page of a paired run holds every row, verdict and control, whatever became of the run."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from paired_fixture import judged, rows

from baselines.paired.decider import PairedDecider
from baselines.paired.verdicts import comparison
from baselines.verdict import Comparison
from harness.paired.paired_run import row_of
from harness.reasons import stated
from harness.types import Case
from reports.page import paired_page

HOSTILE = "</script><script>alert(1)</script>"


def page(judge: PairedDecider, found: Comparison | None = None) -> str:
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
    assert "suspected after 8 pairs, supported by 8 fresh pairs; all 16 pairs together are beyond 1 %" in html
    assert "screen, 8 pairs: shift" in html


def test_every_row_and_control_has_its_place() -> None:
    html = page(judged(rows(40), 12))
    forest = charts(html)[0]
    labels = forest["layout"]["yaxis"]["ticktext"]
    assert len(labels) == 42
    assert labels[-2:] == ["A/A: base against itself", "control workload: gemm"]
    assert len(set(labels)) == 42
    assert "Green: not slower (40 rows" in html


def test_a_busy_machine_is_said_first_and_no_row_is_green() -> None:
    html = page(judged(rows(2), 12, busy=True))
    assert "nothing is decided about speed" in html
    assert "The run is contended: " in html
    assert "pairs left out: contended: other processes used 60 % of a core" in html
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
    html = page(
        judge, replace(comparison(judge, [], "decided"), notes=(stated(HOSTILE),), contended=(stated(HOSTILE),))
    )
    assert HOSTILE not in html
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.S)  # plotly.js itself names sites that it never loads
    assert not re.search(r'(src|href)="https?:', markup)
    assert "default-src 'none'" in html


def test_labels_name_what_tells_the_rows_apart() -> None:
    base = Case(model="sd", scheduler="ddim", num_steps=3)
    planned = [row_of(base, base), row_of(base.with_(num_steps=5), base.with_(num_steps=5, backend="onnxruntime"))]
    assert list(paired_page.short_labels(planned).values()) == ["sd 3 st.", "sd 5 st. → onnxruntime"]
