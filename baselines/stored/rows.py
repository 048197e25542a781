"""The rows of a run for comparisons: a planned case with its processes and its status.

The status of a row is the worst of its processes, as in `harness.frames`, but without pandas.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from baselines.stored.measured import identical
from baselines.wording import ReasonKind, because, field_differs
from harness.attempts import contended, of_environment, timed
from harness.reasons import Reason
from harness.types import Case, Measurement, Metric, Run

NOT_RUN = "not_run"
LATENCY = "latency_s"
SEVERITY = ("invalid", "failed", "oom", "timeout", "skipped", "ok")
POSITIVE_KINDS = frozenset({"noisy", "energy", "near_exact"})

Groups = list[list[float]]


class FactVaries(ValueError):
    """The processes of one row have different values of a fact; `reason` names it."""

    def __init__(self, name: str) -> None:
        self.reason = because(ReasonKind.FACT_VARIES, name=name)
        super().__init__(str(self.reason))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of a run. `processes` are the ok measurements, in order of their replicate."""

    case: Case
    status: str
    reason: Reason | None
    processes: tuple[Measurement, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def groups(self, metric: str) -> Groups:
        """Raw samples of one metric, one list per process; processes without it are left out. For the latency they are
        the processes whose time counts (`harness.attempts.timed`)."""
        counted = timed(self.processes) if metric == LATENCY else self.processes
        return [m.samples[metric] for m in counted if m.samples.get(metric)]

    def quiet(self, least: int) -> Row:
        """The row without its contended processes if at least `least` remain, otherwise the row itself."""
        quiet = tuple(m for m in self.processes if contended(m) is None)
        return replace(self, processes=quiet) if len(quiet) >= least else self

    @property
    def contention(self) -> Reason | None:
        """The contention of the first contended process whose time counts; None if there is none."""
        return next((reason for m in timed(self.processes) if (reason := contended(m))), None)

    def metrics(self) -> list[str]:
        """Names of the metrics that this row has samples of."""
        return list(dict.fromkeys(name for m in self.processes for name, values in m.samples.items() if values))

    def missing(self, metric: str) -> Reason | None:
        """Why the row has no value of `metric`; None if no reason is stored."""
        return next((m.missing[metric] for m in self.processes if metric in m.missing), None)

    def identical(self, metric: str) -> bool:
        """Whether the row has no value of `metric` because its outputs are bit-identical to the reference."""
        return identical(self.missing(metric)) and not self.groups(metric)

    def fact(self, name: str) -> Any:
        """The value of a fact; None if it is not recorded. Raises FactVaries if the processes have different values."""
        facts: list[Mapping[str, Any]] = [m.facts for m in self.processes]
        found = [each[name] for each in facts if name in each]
        if any(value != found[0] for value in found[1:]):
            raise FactVaries(name)
        return found[0] if found else None


def rows_of(run: Run) -> dict[str, Row]:
    """Case id -> row, for every planned case, measured or not."""
    by_case: dict[str, list[Measurement]] = {case.id: [] for case in run.cases}
    cases = {case.id: case for case in run.cases}
    for measurement in run.measurements:
        cases.setdefault(measurement.case.id, measurement.case)
        by_case.setdefault(measurement.case.id, []).append(measurement)
    return {case_id: row_from(cases[case_id], measurements) for case_id, measurements in by_case.items()}


def under_ids_of(here: Mapping[str, Row], stored: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of a stored run, in order, by the id of the same row here. Rows are the same if all axes but `weights`
    and the loaded weights are equal, even if the folder of the weights has another name."""
    twins: dict[tuple[Any, ...], list[str]] = {}
    for case_id, row in here.items():
        if case_id not in stored and (key := _loaded_key(row)) is not None:
            twins.setdefault(key, []).append(case_id)
    found: dict[str, Row] = {}
    for case_id, row in stored.items():
        same = twins.get(_loaded_key(row) or ()) if case_id not in here else None
        new = same.pop(0) if same else case_id
        found[new] = replace(row, case=here[new].case) if same is not None and new != case_id else row
    return found


def _loaded_key(row: Row) -> tuple[Any, ...] | None:
    """All axes but `weights`, and the weights that every process loaded; None if the processes differ."""
    hashes = {m.facts.get("weights_hash") for m in row.processes}
    loaded = next(iter(hashes)) if len(hashes) == 1 else None
    if not isinstance(loaded, str):
        return None
    return (*(value for axis, value in row.case.axes().items() if axis != "weights"), loaded)


def row_from(case: Case, measurements: Sequence[Measurement]) -> Row:
    """One case and its processes as a row, with the worst of their statuses."""
    results = [m for m in measurements if not of_environment(m)]
    if not results:
        told = measurements[0].reason if measurements else None
        return Row(case=case, status=NOT_RUN, reason=told or Reason("not_measured_yet"))
    measurements = results
    worst = min(measurements, key=lambda m: SEVERITY.index(m.status))
    good = sorted((m for m in measurements if m.status == "ok"), key=lambda m: m.replicate)
    return Row(case=case, status=worst.status, reason=worst.reason, processes=tuple(good))


def bad_values(metric: Metric, groups: Sequence[Sequence[float]], *, here: bool = True) -> Reason | None:
    """Why these samples of this run (`here`) or of the baseline cannot be compared: there are none, or a value is not
    finite, or not positive although its kind requires it. None if they can."""
    values = [v for group in groups for v in group]
    if not values:
        return because(ReasonKind.NO_SAMPLES, here=here)
    wrong = [v for v in values if not math.isfinite(v)]
    if not wrong and metric.kind in POSITIVE_KINDS:
        wrong = [v for v in values if v <= 0]
    return because(ReasonKind.BAD_VALUE, metric=metric.name, value=f"{wrong[0]:g}", here=here) if wrong else None


def process_value(metric: Metric, values: Sequence[float]) -> float:
    """The value of one process: the metric's summary of its samples."""
    if metric.summary == "max":
        return max(values)
    if metric.summary == "last":
        return values[-1]
    return statistics.median(values) if metric.summary == "median" else math.fsum(values) / len(values)


def metric_differences(here: Metric, there: Metric) -> list[Reason]:
    """The differences that make two metrics of the same name incomparable."""
    pairs: Mapping[str, tuple[object, object]] = {
        name: (getattr(here, name), getattr(there, name)) for name in ("unit", "better", "kind", "summary")
    }
    return [field_differs(name, a, b) for name, (a, b) in pairs.items() if a != b]
