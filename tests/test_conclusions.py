"""The words of a report: who is fastest, what that costs in quality, and what cannot be told apart."""

from __future__ import annotations

import dataclasses
import re

import pytest
from reports_fixture import NO_ENERGY, doubled, make_comparison, make_run

from reports import conclusions
from reports import pareto as fronts
from reports.data import report_data
from reports.formats import terminal
from reports.rows import separable, visibly_worse
from reports.section import ReportData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return report_data([make_run(tmp_path_factory.mktemp("run"))], [make_comparison()])


def races(data: ReportData, model: str) -> list[conclusions.Race]:
    return [race for found in conclusions.model_findings(data) if found.model == model for race in found.races]


def test_winner_is_the_fastest_that_keeps_its_quality(data: ReportData) -> None:
    race = races(data, "digits_vit")[0]
    assert race.where == "batch 32"
    assert (race.winner["backend"], race.winner["precision"]) == ("onnxruntime", "int8_dynamic")
    words = " ".join(conclusions.race_sentences(race, data))
    assert words.startswith("Fastest valid row at batch 32: **onnxruntime int8_dynamic**, **5.")
    assert "intervals overlap" in words


def test_a_fast_row_that_loses_quality_does_not_win(data: ReportData) -> None:
    fast = data.cases["backend"].eq("eager") & data.cases["precision"].eq("int8_dynamic")
    shrunk = data.cases.copy()
    for column in ("latency_s", "latency_s_low", "latency_s_high"):
        shrunk[column] = shrunk[column].mask(fast, shrunk[column] / 10)
    race = races(dataclasses.replace(data, cases=shrunk), "digits_vit")[0]
    assert race.winner["backend"] == "onnxruntime"
    assert [row["backend"] for row in race.disqualified] == ["eager"]
    assert any("has visibly worse quality" in s for s in conclusions.race_sentences(race, data))


def test_overlapping_intervals_are_not_separable(data: ReportData) -> None:
    cases = data.cases.copy()
    cases["latency_s_low"], cases["latency_s_high"] = cases["latency_s"] / 3, cases["latency_s"] * 3
    race = races(dataclasses.replace(data, cases=cases), "digits_vit")[0]
    words = list(conclusions.race_sentences(race, data))
    assert words[0].startswith("Lowest median at")
    assert words[1].startswith("It is not separable from ")


def test_rankings_hold_equal_work_only(data: ReportData) -> None:
    races = [race for found in conclusions.model_findings(data) for race in found.races]
    assert races
    for race in races:
        for axis in ("model", "image_size", "num_steps", "scheduler", "batch_size", "weights"):
            assert len({row[axis] for row in race.rows}) == 1
        assert {row["status"] for row in race.rows} == {"ok"}


def test_runs_are_never_ranked_against_each_other(data: ReportData) -> None:
    everything = list(conclusions.model_findings(doubled(data)))
    assert len(everything) > 1
    for found in everything:
        assert {row["run"] for race in found.races for row in race.rows} == {found.run}


def test_overview_counts_rows_and_says_what_is_unmeasured(data: ReportData) -> None:
    words = list(conclusions.overview(data))
    assert words[0] == (
        "**42 rows**: 34 ok, 3 skipped, 1 failed, 1 out of memory, 1 timed out, 1 invalid and 1 not run."
    )
    assert f"**Energy per image could not be measured** on any row: {NO_ENERGY}." in words
    assert words[-1].startswith("Against the baseline **example-cpu/digits**: 1 regressed")


def test_losses_name_the_rows(data: ReportData) -> None:
    (vit,) = [found for found in conclusions.model_findings(data) if found.model == "digits_vit"]
    gains, losses = vit.sentences
    assert re.fullmatch(
        r"Latency of eager beside fp32: bf16 \*\*1\d\.\d ms \[.*\]\*\* against 1\d\.\d ms \[.*\] \(batch 32\) "
        r"and int8_dynamic .*",
        gains,
    )
    assert losses.startswith("**2 rows have visibly worse quality** than eager fp32: eager int8_dynamic at batch 1")


def test_pareto_front(data: ReportData) -> None:
    (front,) = [f for f in fronts.fronts(data) if f.title == "digits_vit"]
    speeds = [front.per_image(row) for row in front.best]
    assert speeds == sorted(speeds)
    assert [row["top1"] for row in front.best] == sorted(row["top1"] for row in front.best)


def test_no_interval_is_not_a_verdict() -> None:
    assert separable({"fid": 1.0}, {"fid": 9.0}, "fid") is None


def test_a_change_that_decides_nothing_says_so_where_changes_are_counted() -> None:
    found = make_comparison()
    improved = next(v for v in found.verdicts if v.outcome == "improved")
    unchanged = dataclasses.replace(improved, outcome="unchanged", gating=False)
    aside = dataclasses.replace(improved, gating=False)
    advisory = dataclasses.replace(found, verdicts=(aside, unchanged))
    some = dataclasses.replace(found, verdicts=(improved, aside, aside))
    assert conclusions.comparison_sentence(advisory).endswith("1 improved (advisory) and 1 unchanged.")
    assert terminal.headline(advisory).endswith(": 1 improved (advisory), 1 unchanged")
    assert terminal.headline(some).endswith(": 3 improved (2 advisory)")


def test_a_fast_row_with_a_wrong_picture_set_does_not_win(data: ReportData) -> None:
    """FID has no interval: it loses by the tolerance of `compare`."""
    fid = data.metrics["fid"]
    reference = {"fid": 12.0, "model": "m"}
    assert visibly_worse({"fid": 900.0}, reference, fid)
    assert not visibly_worse({"fid": 13.0}, reference, fid)
    assert not visibly_worse({"fid": 1.0}, reference, fid)
