"""What a row's output is held to is printed beside what it has: in the terminal, the frame and the page."""

from __future__ import annotations

from dataclasses import replace

from reports_fixture import make_run
from rich.console import Console

from harness import frames
from reports.data import report_data
from reports.formats import terminal
from reports.page import page


def printed(facts: dict[str, float], width: int) -> str:
    """The table of one row whose facts are these."""
    run = make_run()
    first = replace(run.measurements[0], facts={**run.measurements[0].facts, **facts})
    rows = frames.cases_frame(replace(run, cases=(first.case,), measurements=(first,)))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(terminal.table(rows, width))
    return captured.get()


def test_a_cosine_stands_beside_the_floor_of_its_precision() -> None:
    assert "0.999999 (>= 0.99)" in " ".join(printed({"cosine_floor": 0.99}, 160).split())
    assert ">=" not in printed({}, 160)
    assert "0.999999" not in printed({"cosine_floor": 0.99}, 80)  # a narrow terminal has no room for it


def test_what_a_row_is_held_to_is_in_the_frame_and_opens_with_the_row() -> None:
    run = make_run()
    facts = {"cosine_floor": 0.99, "error_ceiling": 0.1, "item_error_ceiling": 0.3}
    measured = [replace(m, facts={**m.facts, **facts}) for m in run.measurements]
    held = replace(run, measurements=tuple(measured))
    rows = frames.cases_frame(held)
    done = rows[rows["status"] == "ok"]
    assert {tuple(row) for row in done[list(frames.TOLERANCES)].to_numpy().tolist()} == {(0.99, 0.1, 0.3)}
    words = "cosine to fp32 &gt;= 0.99, relative error &lt;= 0.1, relative error of one item &lt;= 0.3"
    assert words in page.render(report_data([held]))
    assert "Held to" not in page.render(report_data([run]))
