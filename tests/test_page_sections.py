"""A section that fails leaves the rest of the page as it is."""

from __future__ import annotations

import re
from typing import Any

import plotly.graph_objects as go
import pytest
from reports_fixture import make_run

from harness.entries import BadEntry
from reports.page import page
from reports.section import SECTIONS, Chart, NotShown, Section


def broken(_data: Any) -> Section:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (broken, "the section failed: RuntimeError: boom"),
        (lambda _data: "text", "the section returns 'text' instead of a reports.section.Section"),
        (
            lambda _data: Section(order="last", title="t"),  # type: ignore[arg-type]
            "the section failed: a section: order: 'last' must be a number",
        ),
    ],
)
def test_a_section_that_fails_is_not_shown_and_the_others_are(
    make: Any, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    sound = page.build([run])
    assert "the section failed" not in sound
    monkeypatch.setattr(SECTIONS, "_entries", {**SECTIONS._entries, "my_section": make})
    found = page.build([run])
    (told,) = re.findall(r"<dt>My section</dt><dd>(.*?)</dd>", found)
    assert told.replace("&#39;", "'") == reason
    assert found.replace(f"<div><dt>My section</dt><dd>{told}</dd></div>\n", "").split() == sound.split()
    assert capsys.readouterr().err == f"imgbench: section 'my_section': {reason}\n"


def test_a_chart_that_cannot_be_drawn_takes_its_section_from_the_page_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = page._drawn

    def draw(chart: Chart, name: str) -> page.DrawnChart:
        if chart.title == "bad":
            raise ValueError("no JSON")
        return drawn(chart, name)

    monkeypatch.setattr(page, "_drawn", draw)
    good, bad = (Section(order=1, title="t", figures=(Chart(title=t, figure=go.Figure()),)) for t in ("good", "bad"))
    shown, absent = page._sections({"good": good, "bad": bad})
    assert [section.id for section in shown] == ["good"]
    assert absent == [NotShown(title="Bad", reason="a chart of the section failed: ValueError: no JSON")]


def test_a_chart_of_another_type_is_refused() -> None:
    with pytest.raises(BadEntry, match=r"^a chart: figure: 'f' must be a plotly.graph_objs._figure.Figure$"):
        Chart(title="t", figure="f")
