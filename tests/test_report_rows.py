"""A report turns its frame into rows once, however many sections read them."""

from __future__ import annotations

from typing import Any

import pytest
from reports_fixture import make_run

import reports.section
from reports.data import report_data
from reports.formats import markdown
from reports.page import page


def test_a_page_makes_the_rows_of_its_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    records = reports.section.records

    def counting(frame: Any) -> list[dict[str, Any]]:
        made.append(len(frame))
        return records(frame)

    monkeypatch.setattr(reports.section, "records", counting)
    run = make_run()
    page.build([run])
    assert made == [len(run.cases)]
    markdown.summary(run)
    assert len(made) == 2


def test_rows_of_two_runs_are_those_of_each() -> None:
    run = make_run()
    both, alone = report_data([run, run]).rows, report_data([run]).rows
    assert [row["run"] for row in both] == ["A"] * len(alone) + ["B"] * len(alone)
    assert [{**row, "run": ""} for row in both] == [*alone, *alone]
