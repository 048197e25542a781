"""A text from outside that begins like a formula: a spreadsheet shows it, and does not run it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas as pd
import pytest

import baselines.stored.store
from baselines.stored.location import SHIPPED
from harness import frames
from harness.types import Measurement

FORMULAS = ('=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''-1")
HARMLESS = ("'tis a cat", "a=b", "cat -1", "''", "'", "a '=1")


def cells(frame: pd.DataFrame) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(frames.to_csv(frame), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_begins_like_a_formula_is_escaped_and_comes_back(text: str) -> None:
    (row,) = cells(pd.DataFrame({"prompt": [text]}))
    assert row["prompt"] == f"'{text}"
    assert frames.unescaped(row["prompt"]) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_any_other_text_stays_as_it_is(text: str) -> None:
    (row,) = cells(pd.DataFrame({"prompt": [text]}))
    assert row["prompt"] == frames.unescaped(row["prompt"]) == text


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"value": [-1.5, float("nan")], "whole": [-3, 4], "mixed": [-2.5, "-2.5"]})
    assert cells(frame) == [
        {"value": "-1.5", "whole": "-3", "mixed": "-2.5"},
        {"value": "", "whole": "4", "mixed": "'-2.5"},
    ]


def test_a_run_whose_words_are_formulas_has_none_in_its_table() -> None:
    """Model, prompt, label and reason of a row that failed, by way of the table that `export` writes."""
    run = baselines.stored.store.load(SHIPPED / "digits.json").run
    case = replace(run.cases[0], model="=cmd|' /C calc'!A0", prompt="@SUM(1)")
    failed = Measurement(case=case, replicate=0, status="failed", reason="-2+3 is what it said")
    frame = frames.cases_frame(replace(run, cases=(case, *run.cases), measurements=(failed, *run.measurements)))
    rows = cells(frame)
    (first, *others) = rows
    for name, text in (
        ("model", case.model),
        ("prompt", case.prompt),
        ("label", case.label),
        ("reason", str(failed.reason)),
    ):
        assert first[name] == f"'{text}"
        assert frames.unescaped(first[name]) == text
    numbers = [value for row in others for name, value in row.items() if name.startswith("latency")]
    assert numbers
    assert not [value for value in numbers if value and float(value) <= 0]


def test_a_table_without_formulas_is_the_same_text_as_before() -> None:
    run = baselines.stored.store.load(SHIPPED / "digits.json").run
    for frame in (frames.cases_frame(run), frames.samples_frame(replace(run, measurements=run.measurements[:2]))):
        assert frames.to_csv(frame) == frames.flat(frame).to_csv(index=False)
