"""Every output gives the paired ratios of a run's rounds, and none divides the latencies of two rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from drifting_fixture import FAST, LATER, REFERENCE, drifting_run, one_after_the_other
from plotly.offline import get_plotlyjs
from rich.console import Console
from rounds_fixture import Noise, group_cases, rounds_run

from baselines.stored.controls import control
from harness import frames
from harness.reasons import Reason
from harness.types import Case, Control, Run
from reports import conclusions, pareto
from reports.data import report_data
from reports.formats import benchmark_json, markdown, terminal
from reports.page import page
from reports.precision_of_ratios import controls, precision_sentences
from reports.relative_speed import relative_speed
from reports.section import NotShown, ReportData, Section
from reports.sections import environment, latency, quality, ratios, samples, table, trade_offs
from reports.wording import value_text

TARGET = "Interval of the speed"
BY_MEDIANS = re.compile(r"0\.6[67]\d?x|1\.50x")  # of the medians: 0.667 of the fast row, 1.5 of its inverse


@pytest.fixture(scope="module")
def run() -> Run:
    return drifting_run()


@pytest.fixture(scope="module")
def data(run: Run) -> ReportData:
    return report_data([run])


def rows(data: ReportData) -> dict[str, dict[str, Any]]:
    return {row["backend"]: row for row in data.rows}


def printed(run: Run, width: int) -> str:
    console = Console(width=width)
    cases = frames.cases_frame(run, terminal.SHOWN)
    with console.capture() as captured:
        console.print(terminal.table(cases, width))
    return captured.get()


def test_the_medians_of_the_planted_run_mislead(data: ReportData) -> None:
    found = rows(data)
    assert found["eager"]["latency_s"] / found["onnxruntime"]["latency_s"] < 0.7


class TestFrames:
    def test_the_columns(self, run: Run) -> None:
        frame = frames.cases_frame(run).set_index("case_id")
        fast, reference = frame.loc[FAST.id], frame.loc[REFERENCE.id]
        assert fast["speedup"] == pytest.approx(2.0, rel=0.01)
        assert fast["speedup_low"] < 2.0 < fast["speedup_high"]
        assert frame.loc[LATER.id, "speedup"] == pytest.approx(1.25, rel=0.01)
        assert set(frame["speedup_reference"]) == {REFERENCE.id}
        assert list(frame["speedup_rounds"]) == [7, 2, 5]
        assert list(frame["speedup_simultaneous"]) == [True, True, True]
        assert reference["speedup"] == 1.0
        assert frame["speedup_low"].isna()[REFERENCE.id]
        assert reference["speedup_reached"] is None or reference["speedup_reached"] != reference["speedup_reached"]

    @pytest.mark.parametrize(("target", "told"), [(0.5, True), (0.0001, False)])
    def test_whether_the_interval_is_within_the_target(self, target: float, told: bool) -> None:
        frame = frames.cases_frame(drifting_run(ratio_interval=target)).set_index("case_id")
        assert frame.loc[FAST.id, "speedup_reached"] is told

    def test_without_a_target_nothing_is_reached_or_missed(self) -> None:
        frame = frames.cases_frame(drifting_run(ratio_interval=None))
        assert frame["speedup_reached"].isna().all()

    def test_one_process_at_a_time(self) -> None:
        frame = frames.cases_frame(drifting_run(alternates=True))
        assert list(frame["speedup_simultaneous"]) == [False, False, False]

    def test_a_run_without_rounds_has_none_and_says_why(self) -> None:
        frame = frames.cases_frame(one_after_the_other())
        assert frame["speedup"].isna().all()
        assert {kinds["speedup"] for kinds in frame["missing_kinds"]} == {"not_in_rounds"}

    def test_the_only_row_of_its_group_says_so(self, run: Run) -> None:
        alone = replace(run, cases=(FAST,), measurements=tuple(m for m in run.measurements if m.case == FAST))
        (row,) = frames.cases_frame(alone).to_dict("records")
        assert row["missing_kinds"]["speedup"] == "only_row_of_its_group"

    def test_a_row_that_no_round_reached_says_so(self, run: Run) -> None:
        kept = tuple(m for m in run.measurements if m.case != LATER or m.round is None)
        frame = frames.cases_frame(replace(run, measurements=kept, finished=None)).set_index("case_id")
        assert frame.loc[LATER.id, "missing_kinds"]["speedup"] == "no_round"
        assert "before the run was stopped" in frame.loc[LATER.id, "missing"]["speedup"]
        assert frame.loc[FAST.id, "speedup"] == pytest.approx(2.0, rel=0.01)

    def test_exports_keep_types(self, run: Run) -> None:
        found = {row["case_id"]: row for row in json.loads(frames.to_json(frames.cases_frame(run)))}
        assert found[FAST.id]["speedup_rounds"] == 2
        assert found[FAST.id]["speedup_simultaneous"] is True
        assert found[REFERENCE.id]["speedup_low"] is None
        assert frames.to_csv(frames.cases_frame(run)).splitlines()[0].count("speedup") == 7

    def test_a_row_with_two_speed_levels_has_a_warning(self) -> None:
        noise = Noise(seed=3, process=(0.003, 0.01), outliers=0, burst=0)
        case = group_cases()[1]

        def levels(of: Case, drawn: np.random.Generator) -> float:
            return float(np.log(1.25)) if of == case and drawn.random() < 0.4 else 0.0

        found = rounds_run(rounds=20, samples=1, noise=noise, levels=levels)
        warnings = frames.cases_frame(found).set_index("case_id")["warnings"]
        assert warnings[case.id] == ["speed levels"]
        assert sum(map(len, warnings)) == 1
        (text,) = frames.cases_frame(found).set_index("case_id")["warning_texts"][case.id]
        assert re.fullmatch(
            r"speed levels: \d+ of 20 processes ran at 12\.\d ms per iteration, the others at \S+ ms; "
            r"such slow processes have a share between \d+ % and \d+ %, by its 95 % interval",
            text,
        )

    def test_it_is_no_metric(self, run: Run) -> None:
        assert "speedup" not in frames.metrics_of(run)

    def test_samples_name_their_round(self, run: Run) -> None:
        frame = frames.samples_frame(run)
        assert set(frame[frame["case_id"] == FAST.id]["round"].dropna()) == {0.0, 1.0}


class TestFindings:
    def test_rows_rank_by_their_ratios(self, data: ReportData) -> None:
        (found,) = conclusions.model_findings(data)
        (race,) = found.races
        assert [row["backend"] for row in race.rows] == ["onnxruntime", "openvino", "eager"]
        assert race.winner["backend"] == "onnxruntime"
        words = " ".join(conclusions.race_sentences(race, data))
        assert re.search(r"\*\*2\.00x\*\* \[1\.\d+, 2\.\d+\] the speed of eager fp32", words)

    def test_rows_whose_ratio_may_be_one_are_not_separable(self, run: Run) -> None:
        twin = FAST.with_(backend="tensorrt")
        copied = [
            replace(m, case=twin, samples={name: [v * 1.0005 for v in vs] for name, vs in m.samples.items()})
            for m in run.measurements
            if m.case == FAST
        ]
        both = replace(run, cases=(*run.cases, twin), measurements=(*run.measurements, *copied))
        data = report_data([both])
        (race,) = conclusions.model_findings(data)[0].races
        assert [row["backend"] for row in race.tied] == ["tensorrt"]
        words = " ".join(conclusions.race_sentences(race, data))
        assert words.startswith("Highest speed at batch 8: **onnxruntime fp32**")
        assert "the 95 % interval of the ratio contains 1" in words

    def test_a_faster_row_that_is_unchecked_does_not_win(self, run: Run) -> None:
        warning = Reason("unchecked", {"reason": "no reference"})
        marked = tuple(replace(m, warnings=(warning,)) if m.case == FAST else m for m in run.measurements)
        data = report_data([replace(run, measurements=marked)])
        (race,) = conclusions.model_findings(data)[0].races
        assert race.winner["backend"] == "openvino"
        assert [row["backend"] for row in race.unchecked] == ["onnxruntime"]
        assert any("onnxruntime fp32 is faster (1.60x" in words for words in conclusions.race_sentences(race, data))

    def test_without_eager_the_ratio_is_to_the_first_row(self, run: Run) -> None:
        changed = REFERENCE.with_(backend="openvino")
        swap = {REFERENCE: changed, FAST: FAST, LATER: LATER}
        moved = replace(
            run,
            cases=tuple(swap[c] for c in run.cases),
            measurements=tuple(replace(m, case=swap[m.case]) for m in run.measurements),
            controls=tuple(replace(c, measurement=replace(c.measurement, case=changed)) for c in run.controls),
        )
        data = report_data([moved])
        (race,) = conclusions.model_findings(data)[0].races
        words = " ".join(conclusions.race_sentences(race, data))
        assert re.search(r"no valid eager fp32 row to compare with \(2\.00x \[.*\] the speed of openvino fp32\)", words)

    def test_the_speed_of_a_precision(self, run: Run) -> None:
        bf16 = FAST.with_(backend="eager", precision="bf16")
        moved = tuple(replace(m, case=bf16) if m.case == FAST else m for m in run.measurements)
        data = report_data([replace(run, cases=(REFERENCE, bf16, LATER), measurements=moved)])
        (found,) = conclusions.model_findings(data)
        assert found.sentences[0].startswith("Speed of eager relative to fp32: bf16 **2.00x [")


def test_the_pareto_front_follows_the_ratios(data: ReportData) -> None:
    """By the medians, openvino would beat onnxruntime in speed and in quality."""
    (front,) = pareto.fronts(data)
    assert [row["backend"] for row in front.best] == ["onnxruntime", "openvino"]
    eager, fast, _ = data.rows
    assert front.per_image(fast) == pytest.approx(front.per_image(eager) / 2, rel=0.01)
    assert front.seconds[FAST.id].low == pytest.approx(front.per_image(eager) / fast["speedup_high"])
    (chart,) = quality.quality(data).figures  # type: ignore[union-attr]
    points = {trace.name: trace for trace in chart.figure.data}
    assert points["onnxruntime fp32"].x[0] == pytest.approx(front.per_image(fast) * 1e3)
    assert points["onnxruntime fp32"].error_x.array[0] > 0


class TestOutputs:
    def test_the_effect_of_each_choice(self, data: ReportData) -> None:
        found = trade_offs.trade_offs(data)
        assert isinstance(found, Section)
        assert found.table is not None
        speeds = dict(zip(found.table["Row"], found.table["Speed"], strict=True))
        assert speeds["onnxruntime fp32"].startswith("2.00x")
        assert "Latency" not in found.table

    def test_the_table(self, data: ReportData) -> None:
        columns = table.columns_of(data.rows, data)
        keys = [column.key for column in columns]
        assert keys[keys.index("latency_s") + 1] == "speedup"
        found = table.table(data)
        assert isinstance(found, Section)
        words = str(found.html)
        assert "2.00x" in words
        assert "once alone, then in 2 rounds in turns with rows of the same work" in words

    def test_the_bars(self, data: ReportData) -> None:
        figure = latency.bars(list(data.rows), data)
        ends = dict(zip([row["backend"] for row in data.rows], figure.data[1].text, strict=True))
        assert ends["onnxruntime"].endswith("· 2.00x")
        assert "x" not in ends["eager"]

    def test_markdown(self, run: Run) -> None:
        text = markdown.summary(run)
        assert "| speed |" in text
        assert "2.00x \\[" in text
        assert not BY_MEDIANS.search(text)

    @pytest.mark.parametrize("width", [80, 220])
    def test_the_terminal(self, run: Run, width: int) -> None:
        text = printed(run, width)
        assert "2.00x" in text
        assert "reference" in text
        assert ("2.00x [" in text) is (width == 220)

    def test_the_lines_of_pytest(self, run: Run) -> None:
        lines = terminal.speed_lines(run)
        assert lines[0].startswith(f"{FAST.label}: 2.00x [")
        assert lines[0].endswith(f" the speed of {REFERENCE.label}")
        assert any("cannot be told apart" in line for line in lines)

    def test_the_json_of_pytest_benchmark(self, run: Run) -> None:
        row = benchmark_json.records(run)[FAST.id]
        told = json.loads(json.dumps(benchmark_json.extra_info(run, FAST, row)))["speedup"]
        assert told["value"] == pytest.approx(2.0, rel=0.01)
        assert (told["reference"], told["rounds"]) == (REFERENCE.id, 2)
        row = benchmark_json.records(one_after_the_other())[FAST.id]
        info = benchmark_json.extra_info(one_after_the_other(), FAST, row)
        assert info["speedup"] is None
        assert "one after the other" in info["missing"]["speedup"]

    def test_no_output_has_the_ratio_of_the_medians(self, run: Run, data: ReportData) -> None:
        charts = [str(c.figure.to_json()) for c in latency.latency(data).figures]  # type: ignore[union-attr]
        text = page.render(data).replace(get_plotlyjs(), "")
        assert "2.00x" in text
        told = [text, *charts, markdown.summary(run), *terminal.speed_lines(run)]
        assert not [found[0] for text in told if (found := BY_MEDIANS.search(text))]


class TestSamples:
    def test_a_row_shows_the_processes_of_its_rounds(self, data: ReportData) -> None:
        found = samples.latency_samples(data.samples)
        assert [str(process) for process in found["", FAST.id]] == ["round 0, process 1", "round 1, process 2"]
        figure = samples.spread(list(data.rows), found)
        assert figure.data[1].hovertext[0].endswith("round 0, process 1, 12 samples")

    def test_a_row_without_rounds_shows_all_of_its_processes(self) -> None:
        found = samples.latency_samples(report_data([one_after_the_other()]).samples)
        assert [str(process) for process in found["", FAST.id]] == ["process 0", "process 1", "process 2"]

    def test_many_processes_have_fewer_dots_each(self) -> None:
        many = rounds_run(rounds=40, turns=4, samples=10)
        data = report_data([many])
        figure = samples.spread(list(data.rows), samples.latency_samples(data.samples))
        assert len(figure.data[0].x) == 40 * 6


class TestWithoutRounds:
    def test_there_is_no_ratio_but_the_latencies(self) -> None:
        data = report_data([one_after_the_other()])
        (race,) = conclusions.model_findings(data)[0].races
        words = " ".join(conclusions.race_sentences(race, data))
        eager = value_text(rows(data)["eager"], data.metrics["latency_s"])
        assert f"; eager fp32 takes {eager}" in words
        told = trade_offs.trade_offs(data)
        assert isinstance(told, Section)
        assert told.table is not None
        assert "Speed" not in told.table
        assert told.table["Latency"].str.contains("against").all()
        for text in (words, markdown.summary(one_after_the_other()), printed(one_after_the_other(), 220)):
            assert not re.search(r"\dx\b", text)

    def test_the_page_says_so(self) -> None:
        data = report_data([one_after_the_other()])
        assert list(precision_sentences(data)) == [
            "**The rows were measured one after the other**, so there is no ratio of two rows: it would contain the "
            "changes of the machine's speed between them."
        ]
        assert isinstance(ratios.ratios(data), NotShown)
        assert "measured one after the other" in page.render(data)

    def test_rows_of_two_runs_have_no_ratio(self, run: Run) -> None:
        first, *_, last = report_data([run, run]).rows
        assert relative_speed(first, last, report_data([run, run])) is None


class TestControlsOfARun:
    def test_a_run_with_rounds_has_one_in_each_group(self, data: ReportData) -> None:
        assert environment._control(data.runs[0]) == "in 1 group of rows"

    def test_a_control_of_another_kind_is_no_control_of_equal_rows(self, run: Run) -> None:
        only = (replace(run.controls[0], side="overhead"),)
        assert environment._control(replace(run, controls=only)) == "none"

    def test_an_older_run_keeps_what_it_showed(self) -> None:
        old = one_after_the_other()
        sides: list[Literal["a", "b"]] = ["a", "b"]
        kept = tuple(Control(side=side, measurement=m) for side in sides for m in old.measurements[:3])
        told = environment._control(replace(old, controls=kept))
        assert told == str(control(replace(old, controls=kept)))
        assert "differs from itself" in told

    def test_the_page_gives_the_number_of_processes(self, run: Run) -> None:
        assert dict(page.run_facts(run, "")["facts"])["Processes per row"] == "3 to 8"
        assert dict(page.run_facts(one_after_the_other(), "")["facts"])["Processes per row"] == "3"


class TestPrecision:
    def test_each_group_has_its_control(self, data: ReportData) -> None:
        (one,) = controls(data)
        assert one.reference["case_id"] == REFERENCE.id
        assert one.ratio.low is not None
        assert one.ratio.high is not None
        assert one.invisible == pytest.approx(max(1 / one.ratio.low, one.ratio.high) - 1)
        found = ratios.ratios(data)
        assert isinstance(found, Section)
        assert found.table is not None
        (line,) = found.table.to_dict("records")
        assert line["Rounds"] == "7"
        assert line["A/A ratio"].startswith(("1.00x", "0.99", "0.998x"))
        assert line["Measured"] == "in turns"

    def test_the_sentence_has_the_control(self, data: ReportData) -> None:
        limit = 100 * (controls(data)[0].invisible or 0)
        words = list(precision_sentences(data))
        assert words[0].startswith(f"**Two rows of the same work that differ by less than ±{limit:.2g} %**")

    def test_ratios_that_are_too_wide_are_named(self) -> None:
        data = report_data([drifting_run(ratio_interval=0.0001)])
        assert any(words.startswith("**2 of 2 ratios are not within ±0.01 %**") for words in precision_sentences(data))
        found = ratios.ratios(data)
        assert isinstance(found, Section)
        assert found.table is not None
        assert "onnxruntime fp32 2.00x" in found.table["Ratios not within the target"][0]
        (words,) = {
            value
            for row in data.rows
            for name, value in table._conditions(row, data)
            if name == "Interval of the speed"
        }
        assert words == "not within ±0.01 % when the rounds ended"

    def test_one_process_at_a_time_is_said(self) -> None:
        data = report_data([drifting_run(alternates=True)])
        found = ratios.ratios(data)
        assert isinstance(found, Section)
        assert found.table is not None
        assert list(found.table["Measured"]) == ["one process at a time"]
        assert "do not fit into memory together" in page.render(data)
