"""The report: figures that hold the numbers, words that follow from them, a page that loads nothing and escapes all."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reports_fixture import (
    HOSTILE,
    METRICS,
    NO_ENERGY,
    doubled,
    empty_run,
    failures_only,
    make_comparison,
    make_run,
    vit_case,
)

from harness.units import format_value, percent
from reports import charts, theme
from reports import pareto as fronts
from reports.data import RANDOM_WEIGHTS, report_data
from reports.formats import markdown
from reports.page import page
from reports.rows import headed, measured, panels
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.sections import comparison, latency, memory, quality, samples, stages

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "diffusers", "transformers", "onnxruntime"}:
            raise ImportError(f"{name} is absent")

sys.meta_path.insert(0, Absent())
from reports.formats import markdown
from reports.page import page
print(len(page.SECTIONS))
"""
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return report_data([make_run(tmp_path_factory.mktemp("run"))], [make_comparison()])


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return page.render(data)


@pytest.fixture(scope="module")
def two(data: ReportData) -> ReportData:
    return doubled(data)


def vit_rows(data: ReportData) -> list[dict[str, Any]]:
    return [row for row in measured(data, "latency_s") if row["model"] == "digits_vit"]


def without_plotly(html: str) -> str:
    return re.sub(r"<script>/\*\*.*?</script>", "", html, count=1, flags=re.DOTALL)


class TestFigures:
    def test_curve_holds_the_latencies_in_the_unit_of_its_axis(self, data: ReportData) -> None:
        rows = vit_rows(data)
        figure = latency.curve(rows, METRICS["latency_s"])
        assert figure.layout.yaxis.title.text == "Latency (ms)"
        assert figure.data[0].name == "eager fp32"
        assert list(figure.data[0].x) == [1, 32]
        expected = [row["latency_s"] * 1e3 for row in rows if row["backend"] == "eager" and row["precision"] == "fp32"]
        assert list(figure.data[0].y) == pytest.approx(expected)

    def test_curve_has_the_interval_as_error_bars(self, data: ReportData) -> None:
        row = vit_rows(data)[0]
        bars = latency.curve(vit_rows(data), METRICS["latency_s"]).data[0].error_y
        assert bars.array[0] == pytest.approx((row["latency_s_high"] - row["latency_s"]) * 1e3)
        assert bars.arrayminus[0] == pytest.approx((row["latency_s"] - row["latency_s_low"]) * 1e3)

    def test_axis_titles_come_from_the_metric(self, data: ReportData) -> None:
        renamed = dataclasses.replace(METRICS["latency_s"], label="Time of a turn")
        assert latency.curve(vit_rows(data), renamed).layout.yaxis.title.text == "Time of a turn (ms)"

    def test_bars_end_in_the_value(self, data: ReportData) -> None:
        rows = [row for row in measured(data, "latency_s") if row["model"] == "digits_dit"]
        figure = latency.bars(rows, data)
        assert [note.text for note in figure.layout.annotations] == [
            "<b>ddim · 20 steps</b>",
            "<b>dpmpp_2m · 5 steps</b>",
            "<b>dpmpp_2m · 20 steps</b>",
        ]
        assert list(figure.data[0].x) == pytest.approx([row["latency_s"] * 1e3 for row in rows])
        assert figure.data[1].text[0].strip() == format_value(rows[0]["latency_s"], "s")
        assert figure.data[1].text[2].strip() == format_value(rows[2]["latency_s"], "s")  # no rounds, so no speed

    def test_memory_bars(self, data: ReportData) -> None:
        figure = memory.peak_bars(vit_rows(data), METRICS["peak_host_bytes"], data)
        assert figure.layout.xaxis.title.text == "Peak host memory (MiB)"
        assert figure.data[0].x[0] == pytest.approx(402e6 / 2**20)
        assert figure.data[1].x[0] == pytest.approx(1.2e6 / 2**20)

    def test_stage_bars_and_their_sum(self, data: ReportData) -> None:
        rows = [row for row in measured(data, "latency_s") if row["model"] == "digits_sd"]
        figure = stages.stacked(rows, stages.stage_metrics(data.metrics), data.metrics)
        assert [t.name for t in figure.data[:4]] == ["Text encoder", "U-Net", "VAE decoder", "Other"]
        assert figure.data[-1].text[0].strip() == percent(rows[0]["stage_sum_s"] / rows[0]["latency_s"], ".0")

    def test_denoising_steps_are_folded_by_step(self, data: ReportData) -> None:
        rows = stages.longest([row for row in measured(data, "latency_s") if row["model"] == "digits_sd"])
        figure = stages.step_curves(rows, data.samples)
        assert figure is not None
        assert len(figure.data[0].y) == 20
        assert figure.data[0].y[0] == max(figure.data[0].y)

    def test_spread_draws_every_process_as_a_ratio_to_the_median(self, data: ReportData) -> None:
        rows = vit_rows(data)[:1]
        figure = samples.spread(rows, samples.latency_samples(data.samples))
        assert len(figure.data[0].x) == 75
        assert len(set(figure.data[0].y)) == 3
        dots = figure.data[0]
        medians = [np.median([x for x, y in zip(dots.x, dots.y, strict=True) if y == line]) for line in set(dots.y)]
        assert np.median(medians) == pytest.approx(1.0)

    def test_pareto_chart_has_the_front_and_turns_fid_round(self, data: ReportData) -> None:
        found = {(front.title, front.metric.name): front for front in fronts.fronts(data)}
        figure = quality.scatter(found["digits_vit", "top1"])
        assert figure.layout.yaxis.title.text == "Top-1 (%)"
        assert figure.data[0].name == "Pareto front"
        assert len(figure.data[0].x) == len(found["digits_vit", "top1"].best)
        assert quality.scatter(found["digits_sd", "fid"]).layout.yaxis.autorange == "reversed"

    def test_forest_is_coloured_by_outcome(self, data: ReportData) -> None:
        verdicts = [v for v in make_comparison().verdicts if v.ratio is not None]
        figure = comparison.forest(verdicts, "Latency")
        assert {trace.name: trace.marker.color for trace in figure.data}["regressed"] == theme.OUTCOMES["regressed"]
        assert figure.layout.xaxis.title.text == "Latency: this run / baseline"

    def test_a_backend_has_one_colour_everywhere(self, data: ReportData) -> None:
        blue = theme.backend_colour("eager")
        assert latency.curve(vit_rows(data), METRICS["latency_s"]).data[0].line.color == blue
        assert memory.peak_bars(vit_rows(data), METRICS["peak_host_bytes"], data).data[0].marker.color[0] == blue

    def test_plotly_text_is_escaped(self) -> None:
        assert charts.text(HOSTILE) == "&lt;script&gt;alert('x')&lt;/script&gt;"
        assert charts.text("x" * 200, 10) == "xxxxxxxxx…"

    def test_single_rows_share_a_chart(self, data: ReportData) -> None:
        found = panels(measured(data, "latency_s"))
        assert list(found) == ["digits_vit", "digits_dit", "digits_sd", "models with one row"]
        assert list(headed(found["models with one row"])) == ["vit_tiny_patch16_224", HOSTILE]


class TestData:
    def test_random_weights_have_no_quality(self, data: ReportData) -> None:
        (row,) = [r for r in data.rows if r["weights"] == "random"]
        assert row["latency_s"] is not None
        assert row["top1"] is None
        assert row["top1_low"] is None
        assert row["missing"]["top1"] == RANDOM_WEIGHTS

    def test_pictures_outside_the_run_folder_are_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        run = make_run(tmp_path / "run")
        secret = tmp_path / "secret.png"
        secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
        (first, *rest) = run.measurements[:1]
        sly = dataclasses.replace(first, images=("../secret.png", "images/none.png"))
        small = dataclasses.replace(run, measurements=(sly, *rest), cases=(sly.case,))
        assert report_data([small]).images == {}

    def test_runs_get_letters(self, two: ReportData) -> None:
        assert two.aliases == ("A", "B")


class TestPage:
    def test_loads_nothing_from_anywhere(self, html: str) -> None:
        own = without_plotly(html)
        assert len(own) < 2_000_000
        assert not re.search(r"(src|href|action|data)\s*=\s*[\"']?(https?:)?//", own)
        assert "@import" not in own
        assert "default-src 'none'" in own
        assert html.count("plotly.js v") == 1

    def test_equal_data_give_equal_bytes(self, data: ReportData, html: str) -> None:
        assert page.render(data) == html

    def test_hostile_names_stay_text(self, html: str) -> None:
        own = without_plotly(html)
        assert "<script>alert" not in own
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in own
        assert "<b>bold</b>" not in own
        documents = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', own, flags=re.DOTALL)
        assert documents
        for document in documents:
            assert "<" not in document
            assert document.endswith("}")

    def test_sections_stand_in_order(self, html: str) -> None:
        assert re.findall(r'<section id="(\w+)">', html) == [
            "headline", "table", "comparison", "latency", "trade_offs", "quality", "images", "memory", "stages",
            "samples", "problems", "environment", "glossary",
        ]  # fmt: skip

    def test_says_why_a_section_is_not_shown(self, html: str) -> None:
        assert f"<dt>Energy</dt><dd>{NO_ENERGY}</dd>" in html

    def test_every_row_and_reason_is_there(self, data: ReportData, html: str) -> None:
        assert html.count('<tr class="main">') == len(data.cases)
        for reason in ("outputs are not finite", "no answer within 1800 s", "needs an NVIDIA GPU", "not measured yet"):
            assert reason in html

    def test_table_cell_has_unit_and_interval(self, data: ReportData, html: str) -> None:
        row = vit_rows(data)[0]
        assert f"{format_value(row['latency_s'], 's')}<small>[" in html

    def test_several_runs(self, two: ReportData) -> None:
        own = without_plotly(page.render(two))
        assert '<span class="alias">B</span>' in own
        assert "B · onnxruntime int8_dynamic" in own

    @pytest.mark.parametrize("make", [empty_run, failures_only])
    def test_degrades_gracefully(self, make: Any) -> None:
        built = page.build([make()])
        assert "Not shown" in built
        assert "plotly.js v" not in built

    def test_no_run_at_all(self) -> None:
        assert "Not shown" in page.build([])

    def test_write_gives_the_same_bytes(self, tmp_path: Path) -> None:
        page.write(tmp_path / "report.html", "ä\n")
        assert (tmp_path / "report.html").read_bytes() == "ä\n".encode()


@pytest.mark.parametrize("name", list(SECTIONS))
class TestEverySection:
    def test_survives_an_empty_frame(self, name: str) -> None:
        assert isinstance(SECTIONS[name](report_data([empty_run()])), Section | NotShown)

    def test_survives_failures_only(self, name: str) -> None:
        assert isinstance(SECTIONS[name](report_data([failures_only()])), Section | NotShown)

    def test_survives_two_runs(self, name: str, two: ReportData) -> None:
        assert isinstance(SECTIONS[name](two), Section | NotShown)

    def test_writes_nothing_into_its_argument(self, name: str, data: ReportData) -> None:
        before = data.cases.copy(deep=True)
        SECTIONS[name](data)
        pd.testing.assert_frame_equal(data.cases, before)


class TestMarkdown:
    def test_summary_has_findings_table_and_comparison(self) -> None:
        run = make_run()
        small = dataclasses.replace(run, measurements=run.measurements[:6], cases=run.cases[:2])
        text = markdown.summary(small, [make_comparison()])
        assert text.startswith("## imgbench: `digits-20260102-030405`\n\n- **2 rows**: 2 ok.")
        assert "| row | status | Latency | Throughput | Top-1 |" in text
        assert "| regressed | digits\\_vit · eager" in text

    def test_hostile_text_is_escaped(self) -> None:
        text = markdown.comparison(make_comparison())
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
        assert markdown.escaped("a|b `c`\n*d*") == "a\\|b \\`c\\` \\*d\\*"


def test_imports_with_torch_absent() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(SECTIONS)


def test_labels_are_the_cases_own(data: ReportData) -> None:
    assert vit_case("eager", "fp32", 1).label in set(data.cases["label"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=str(CHROMIUM), args=[*flags, "--disable-sync"])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_without_network(browser: Any, html: str, tmp_path: Path, width: int) -> None:
    page.write(tmp_path / "report.html", html)
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    opened = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: errors.append(message.text))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((tmp_path / "report.html").as_uri())
    opened.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 20")
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    opened.fill('[data-role="text"]', "int8_dynamic digits_vit")
    opened.select_option('select[data-key="batch_size"]', "32")
    assert opened.inner_text('[data-role="count"]') == "2 of 42 rows"
    opened.click('[data-role="reset"]')
    opened.evaluate("document.querySelector('th[data-key=\"latency_s\"]').click()")
    fastest = "document.querySelector('table.rows tbody td[data-label=\"Backend\"]').textContent.trim()"
    assert opened.evaluate(fastest) == "onnxruntime"
    context.close()
