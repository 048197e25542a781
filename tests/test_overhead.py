"""What imgbench itself costs an iteration: the model null and its processes, the column, the warning, the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import baseline_fixture
import pytest
from rounds_fixture import rounds_run
from suite_fixture import PLUGINS, QUICK, Silent

from baselines.stored import controls
from baselines.stored.compare import compare
from harness import causes, frames, overhead, storage, suite
from harness.attempts import timed
from harness.causes import Cause
from harness.processes.measure import Job, Outcome
from harness.ratios import ratios
from harness.reasons import Reason
from harness.sweeping import overhead as planned
from harness.sweeping import planning
from harness.sweeping.sweep import new_run, remaining, sweep
from harness.types import Case, Control, Measurement, Protocol, Run
from reports.data import report_data
from reports.section import NotShown, Section
from reports.sections.overhead import overhead as section

COST_S = 1e-5
RunSuite = Callable[..., Run]


def null_process(backend: str = "eager", seconds: float = COST_S, **changes: Any) -> Control:
    """A control as a run stores it: an ok process of the model null, unless `changes` say otherwise."""
    given: dict[str, Any] = {
        "case": planned.case_of(backend),
        "replicate": 0,
        "status": "ok",
        "samples": {"latency_s": [seconds, 0.9 * seconds, 3 * seconds]},
        "duration_s": 1.5,
    }
    return Control(side="overhead", measurement=Measurement(**given | changes))


def ended(status: str, reason: Reason, backend: str = "eager") -> Control:
    return null_process(backend, status=status, reason=reason, samples={})


def run_of_latency(seconds: float, *found: Control) -> Run:
    """A run of one row, eager, with three processes of about this latency."""
    run = baseline_fixture.run_of(baseline_fixture.measured(baseline_fixture.latency(seconds, seconds, seconds)))
    return replace(run, controls=found)


def row_of(run: Run) -> Any:
    return frames.cases_frame(run).iloc[0]


class Listener(Silent):
    """Also hears of rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[str] = []

    def phase(self, phase: str) -> None:
        self.phases.append(phase)

    def rounds_begin(self, open_rows: int, seconds_left: float) -> None: ...
    def round_end(self, measurements: Sequence[Measurement], open_rows: int, seconds_left: float) -> None: ...


class PlantedWorkers:
    """Measures nothing: the row is ok and has no latency, and the model null ends as `ends` says, by backend."""

    def __init__(self, **ends: tuple[str, Reason]) -> None:
        self.ends = ends
        self.null: list[Job] = []
        self.rows: list[Job] = []

    def measure(self, job: Job, report: Callable[[str], None], name: str | None = None) -> Outcome:
        is_null = job.only is not None and job.case == planned.case_of(job.case.backend)
        (self.null if is_null else self.rows).append(job)
        status, reason = self.ends.get(job.case.backend, ("ok", None)) if is_null else ("ok", None)
        samples = {"latency_s": [COST_S]} if is_null and status == "ok" else {}
        found = Measurement(
            case=job.case, replicate=job.replicate, status=status, reason=reason, samples=samples, duration_s=2.0
        )  # type: ignore[arg-type]
        return Outcome(measurement=found)


def started(tmp_path: Path, protocol: str = QUICK) -> Run:
    """A new run of two rows in eager and one in ONNX Runtime."""
    chosen = suite.parse(
        f"name: s\nprotocol: {protocol}\ncases:\n - {{model: planted_ok, batch_size: [1, 2]}}\n"
        " - {model: planted_ok, backend: onnxruntime, precision: int8_dynamic}\n"
    )
    return new_run(chosen, tmp_path / "run", baseline_fixture.ENVIRONMENT)  # type: ignore[arg-type]


def swept(run: Run, workers: PlantedWorkers, **options: Any) -> Run:
    return sweep(run, workers, PLUGINS, Listener(), **options)  # type: ignore[arg-type]


def of_null(run: Run) -> list[tuple[str, str, int]]:
    return [
        (c.measurement.case.backend, c.measurement.status, c.measurement.attempt)
        for c in run.controls
        if c.side == "overhead"
    ]


def test_a_suite_may_name_the_model_and_its_rows_pass_every_check(run_suite: RunSuite) -> None:
    run = run_suite(
        ' - {model: "null", backend: [eager, onnxruntime, openvino], batch_size: [1, 2]}\n'
        ' - {model: "null", precision: [bf16, int8_dynamic], batch_size: 32}\n'
    )
    assert [(m.case.label, m.status, str(m.reason)) for m in run.measurements if m.status != "ok"] == []
    assert of_null(run) == [(backend, "ok", 0) for backend in ("eager", "onnxruntime", "openvino")]
    costs = overhead.by_backend(run)
    assert all(isinstance(cost, float) and 0 < cost < 0.1 for cost in costs.values())
    assert len(frames.cases_frame(run)) == len(run.cases) == 8
    assert storage.load(Path(str(run.folder))).controls == run.controls


def test_null_without_quotes_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(suite.SuiteError, match='the model of that name is "null"'):
        suite.parse("name: s\ncases:\n - {model: null}\n")


@pytest.mark.parametrize(
    "protocol",
    [
        QUICK,
        QUICK.replace("replicates: 1", "replicates: 3"),
        QUICK.replace("replicates: 1", "replicates: 3, rounds: false"),
    ],
)
def test_each_run_measures_the_model_once_in_each_backend_and_briefly(protocol: str, tmp_path: Path) -> None:
    workers = PlantedWorkers()
    run = swept(started(tmp_path, protocol), workers)
    assert of_null(run) == [("eager", "ok", 0), ("onnxruntime", "ok", 0)]
    assert {job.case.precision for job in workers.null} == {"fp32"}
    assert {job.only for job in workers.null} == {("startup", "latency")}
    assert all(job.protocol.max_sample_time_s <= 0.1 for job in workers.null)
    assert all(job.protocol.target_interval is None for job in workers.null)
    assert run.finished is not None
    assert {m.case.model for m in run.measurements} == {"planted_ok"}
    again = swept(run, workers)
    assert len(workers.null) == 2
    assert again.controls == run.controls


def test_it_comes_after_the_first_process_of_each_row_also_without_rounds(tmp_path: Path) -> None:
    made: list[tuple[str, int]] = []

    class Noting(PlantedWorkers):
        def measure(self, job: Job, report: Callable[[str], None], name: str | None = None) -> Outcome:
            made.append(("null" if name and name.startswith("overhead-") else "row", job.replicate))
            return super().measure(job, report, name)

    swept(started(tmp_path, QUICK.replace("replicates: 1", "replicates: 2, rounds: false")), Noting())
    first = made.index(("null", 0))
    assert made[first : first + 2] == [("null", 0)] * 2
    assert {replicate for _, replicate in made[:first]} == {0}
    assert ("row", 1) in made[first:]


def test_a_backend_without_a_valid_row_is_not_measured(tmp_path: Path) -> None:
    class Failing(PlantedWorkers):
        def measure(self, job: Job, report: Callable[[str], None], name: str | None = None) -> Outcome:
            found = super().measure(job, report, name)
            if job.case.backend != "onnxruntime":
                return found
            failed = replace(found.measurement, status="failed", reason=Reason("error", {"error": "no"}))
            return replace(found, measurement=failed)

    assert of_null(swept(started(tmp_path), Failing())) == [("eager", "ok", 0)]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("skipped", Reason("ort_fp32_is_tf32")),
        ("oom", Reason("out_of_memory", {"error": "no memory"})),
        ("oom", causes.reason(Cause.KERNEL_OUT_OF_MEMORY)),
        ("failed", Reason("error", {"error": "ValueError: no"})),
        ("timeout", Reason("no_result_in_time", {"seconds": 300.0, "phase": "build"})),
    ],
)
def test_what_ends_badly_is_stored_with_its_reason_and_not_repeated(
    status: str, reason: Reason, tmp_path: Path
) -> None:
    workers = PlantedWorkers(onnxruntime=(status, reason))
    run = swept(started(tmp_path), workers)
    assert of_null(run) == [("eager", "ok", 0), ("onnxruntime", status, 0)]
    assert [m.status for m in run.measurements] == ["ok"] * 3
    assert run.finished is not None
    again = swept(storage.load(Path(str(run.folder))), workers)
    assert of_null(again) == of_null(run)
    frame = frames.cases_frame(again)
    assert list(frame["overhead_s"].isna()) == [False, False, True]
    assert frame["missing_kinds"][2]["overhead_s"] == "overhead_failed"
    assert str(reason) in frame["missing"][2]["overhead_s"]
    assert "overhead_s" not in frame["missing"][0]


def test_what_the_environment_ended_is_measured_again_when_the_run_is_resumed(tmp_path: Path) -> None:
    run = swept(started(tmp_path), PlantedWorkers(eager=("failed", causes.reason(Cause.KILLED))))
    assert of_null(run) == [("eager", "failed", 0), ("onnxruntime", "ok", 0)]
    workers = PlantedWorkers()
    again = swept(storage.load(Path(str(run.folder))), workers)
    assert [job.case.backend for job in workers.null] == ["eager"]
    assert of_null(again)[-1] == ("eager", "ok", 1)
    assert overhead.by_backend(again)["eager"] == COST_S


def test_a_failure_is_measured_again_where_failed_rows_are(tmp_path: Path) -> None:
    run = swept(started(tmp_path), PlantedWorkers(eager=("oom", Reason("out_of_memory", {"error": "no memory"}))))
    workers = PlantedWorkers()
    again = swept(run, workers, retry_failed=True)
    assert [job.case.backend for job in workers.null] == ["eager"]
    assert overhead.by_backend(again)["eager"] == COST_S


def test_a_process_that_a_kill_left_out_is_measured_when_the_run_is_resumed(tmp_path: Path) -> None:
    run = swept(started(tmp_path), PlantedWorkers())
    folder = Path(str(run.folder))
    first = next(c for c in run.controls if c.side == "overhead")
    (folder / storage.CONTROLS_FILE).unlink()
    storage.append_control(folder, first)
    workers = PlantedWorkers()
    assert remaining(storage.load(folder)) == []
    swept(storage.load(folder), workers)
    assert [job.case.backend for job in workers.null] == ["onnxruntime"]


def test_a_row_that_becomes_valid_late_has_the_overhead_of_its_backend(tmp_path: Path) -> None:
    """The environment ended a later process of it, so that the row is not valid before this process is repeated."""
    run = swept(started(tmp_path, QUICK.replace("replicates: 1", "replicates: 2, rounds: false")), PlantedWorkers())
    folder = Path(str(run.folder))
    killed = replace(run.measurements[0], status="failed", reason=causes.reason(Cause.KILLED), replicate=2)
    last = replace(killed, case=run.cases[2])
    (folder / storage.CONTROLS_FILE).unlink()
    for measurement in (replace(killed, case=run.cases[0]), replace(killed, case=run.cases[1]), last):
        storage.append(folder, measurement)
    workers = PlantedWorkers(eager=("failed", causes.reason(Cause.KILLED)))
    again = swept(storage.load(folder), workers)
    assert {(m.status, m.replicate) for m in again.measurements} == {("ok", 0), ("ok", 1), ("ok", 2)}
    assert of_null(again) == [("eager", "failed", 0), ("onnxruntime", "ok", 0)], "each is tried once in a sweep"


def test_its_time_counts_as_spent_and_as_left(tmp_path: Path) -> None:
    run = started(tmp_path)
    before = planned.seconds_left(run)
    assert before > 2 * planned.PROCESS_S, "two backends"
    run = swept(run, PlantedWorkers())
    assert planned.seconds_left(run) == 0
    assert planning.spent_s(run)[0] == 3 * 2.0 + 2 * 2.0, "three rows and two backends"
    assert planning.spent_s(replace(run, controls=()))[0] == 3 * 2.0


@pytest.mark.parametrize(("times", "warned"), [(99, True), (101, False)])
def test_an_iteration_of_less_than_a_hundred_times_the_overhead_says_so(times: float, warned: bool) -> None:
    row = row_of(run_of_latency(times * COST_S, null_process()))
    assert row["overhead_s"] == pytest.approx(COST_S)
    assert ("overhead" in row["warnings"]) == warned
    assert any("imgbench itself takes 10.0 µs" in text for text in row["warning_texts"]) == warned
    assert "overhead_s" not in row["missing"]


def test_only_the_overhead_of_the_row_s_own_backend_counts() -> None:
    row = row_of(run_of_latency(99 * COST_S, null_process("onnxruntime")))
    assert row["warnings"] == []
    assert row["missing_kinds"]["overhead_s"] == "overhead_not_measured"
    assert "overhead_s" in frames.cases_frame(run_of_latency(1.0)).columns


def test_the_warning_does_not_depend_on_the_metrics_that_are_shown() -> None:
    run = run_of_latency(99 * COST_S, null_process())
    assert frames.cases_frame(run, shown=("load_s",)).iloc[0]["warnings"] == ["overhead"]


def test_the_warning_is_about_the_latency_that_the_row_shows() -> None:
    """The processes of a row's rounds, and not the one that was measured alone."""
    run = run_of_latency(99 * COST_S, null_process())
    slow = replace(run.measurements[0], samples={"latency_s": [101 * COST_S] * 3}, replicate=9, round=1)
    run = replace(run, measurements=(*run.measurements, slow))
    assert timed(run.measurements) == (slow,)
    assert row_of(run)["latency_s"] == pytest.approx(101 * COST_S)
    assert row_of(run)["warnings"] == []


def test_a_row_that_is_not_ok_has_no_overhead_and_no_warning() -> None:
    failed = Measurement(case=baseline_fixture.A, replicate=0, status="failed", reason=Reason("error", {"error": "x"}))
    row = row_of(replace(baseline_fixture.run_of([failed]), controls=(null_process(),)))
    assert (row["warnings"], row["missing"]) == ([], {})
    assert row["overhead_s"] != row["overhead_s"], "NaN"


def test_such_a_process_is_no_row_and_no_control_of_anything_else() -> None:
    run = run_of_latency(0.1)
    with_null = replace(run, controls=(null_process(seconds=5.0), null_process("onnxruntime", seconds=9.0)))
    assert controls.control(with_null) is None
    assert controls.tripped(with_null) == []
    stored = baseline_fixture.stored(run, run, run)
    assert compare(with_null, stored) == compare(run, stored)
    sides = tuple(
        Control(side=side, measurement=replace(m, replicate=i))
        for side in ("a", "b")
        for i, m in enumerate(run.measurements)
    )
    both = replace(run, controls=(null_process(), *sides))
    assert controls.control(both) == controls.control(replace(run, controls=sides))
    rounds = rounds_run(rounds=4)
    mixed = ratios(replace(rounds, controls=(null_process(), *rounds.controls)))
    assert (mixed.of, mixed.controls) == (ratios(rounds).of, ratios(rounds).controls)


def test_a_stored_run_is_read_back_with_them() -> None:
    run = run_of_latency(0.1, null_process(), ended("skipped", Reason("ort_fp32_is_tf32"), "onnxruntime"))
    back = storage.run_from_dict(storage.run_to_dict(run))
    assert back.controls == run.controls
    assert overhead.by_backend(back) == overhead.by_backend(run)


def test_a_later_failure_does_not_replace_a_figure() -> None:
    found = run_of_latency(0.1, null_process(), ended("failed", causes.reason(Cause.KILLED)))
    assert overhead.by_backend(found) == {"eager": COST_S}


def test_the_short_protocol_keeps_what_the_run_asks_for() -> None:
    asked = Protocol(cold_cache=True, min_samples=3, timeout_s=60.0)
    short = planned.protocol_of(asked)
    assert (short.cold_cache, short.min_samples, short.timeout_s) == (True, 3, 60.0)
    assert planned.protocol_of(Protocol()).timeout_s == planned.TIMEOUT_S
    assert planned.case_of("openvino") == Case(model="null", backend="openvino")


def test_the_report_has_a_line_for_each_backend_with_the_rows_that_it_matters_for() -> None:
    run = run_of_latency(50 * COST_S, null_process(), ended("skipped", Reason("ort_fp32_is_tf32"), "onnxruntime"))
    found = section(report_data([run]))
    assert isinstance(found, Section)
    assert found.table is not None
    label = run.cases[0].label
    assert found.table.values.tolist() == [
        ["eager", "10.0 µs", f"1 of 1: {label}"],
        ["onnxruntime", f"– ({overhead.by_backend(run)['onnxruntime']})", "–"],
    ]
    fast = section(report_data([run_of_latency(1.0, null_process())]))
    assert isinstance(fast, Section)
    assert fast.table is not None
    assert list(fast.table.iloc[0]) == ["eager", "10.0 µs", "0 of 1"]
    both = section(report_data([run, run_of_latency(1.0, null_process())]))
    assert isinstance(both, Section)
    assert both.table is not None
    assert list(both.table["Run"]) == ["A", "A", "B"]
    assert isinstance(section(report_data([run_of_latency(1.0)])), NotShown)
