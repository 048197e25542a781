"""Measures every case of a suite, process by process, into a run folder; resumes what is missing.

The first process of every case comes first, alone, in the suite's order, so that a sweep that is stopped early has each
row. One process of the model `null` in each backend follows (`harness.sweeping.overhead`). Then come the rounds
(`harness.sweeping.rounds`) until their plan ends (`harness.sweeping.planning`). A failure of the environment (a full
disk, a kill from outside) is not a result: it is stored, and measured again when the run is resumed.

A protocol without rounds, or with one process for each row, has the older way: the further processes are measured
alone, too, in a shuffled order, the A/A control is the fastest row, measured twice more as two rows, and processes that
were contended are measured again (`harness.attempts`).
"""

from __future__ import annotations

import math
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from harness import attempts, storage, weights
from harness.devices import NoSuchDevice
from harness.measuring import process_agreement
from harness.measuring.output_files import FOLDER as REFERENCES
from harness.measuring.turns import Referee
from harness.processes import threads as thread_rule
from harness.processes.environment import collect_or_reason
from harness.processes.measure import Job
from harness.processes.worker import Workers
from harness.registry import MODELS, PROBES
from harness.stored_types import Environment
from harness.sweeping import memory, overhead, planning, rounds
from harness.sweeping.planning import Plan
from harness.sweeping.remaining_time import PlannedProcess, RemainingTime
from harness.sweeping.rounds import Member
from harness.timing import perf_counter
from harness.types import Case, Control, Measurement, Metric, Run, Suite
from harness.types import Protocol as ProtocolRecord

ENVIRONMENT_TIMEOUT_S = 300.0
SHUFFLE_SEED = 20
CONTENDED_IN_A_ROW = 3
CONTROL_PROBES = ("startup", "latency")


class Listener(Protocol):
    """Receives the progress of a sweep."""

    def begin(self, total: int, left: int) -> None: ...
    def start(self, case: Case, replicate: int, seconds_left: float | None) -> None: ...
    def skip(self, case: Case, replicate: int) -> None: ...
    def phase(self, phase: str) -> None: ...
    def end(self, measurement: Measurement) -> None: ...
    def rounds_begin(self, open_rows: int, seconds_left: float) -> None: ...
    def round_end(self, measurements: Sequence[Measurement], open_rows: int, seconds_left: float) -> None: ...


class EnvironmentFailed(RuntimeError):
    """The conditions of the run could not be read, so nothing may be measured; `str()` is one line for the user."""


class StorageFailed(RuntimeError):
    """Nothing can be written any more, so the sweep ended; what was measured is kept. `str()` is one line."""


def collect_environment(workers: Workers, device: str | None, threads: int | None = None) -> Environment:
    """The environment, read in a worker. Raises EnvironmentFailed, ThreadsRefused for a variable that holds no number,
    and NoSuchDevice for a device that is not here."""
    thread_rule.chosen(threads)  # here, since a worker's exceptions do not reach its caller
    thread_rule.allowed()
    asked = (device, threads)
    reply = workers.call(collect_or_reason, asked, ENVIRONMENT_TIMEOUT_S, "environment", lambda _phase: None)
    if reply.value is None:
        raise EnvironmentFailed(f"cannot read the environment: {reply.reason}")
    if isinstance(reply.value, str):
        raise NoSuchDevice(reply.value)
    found: Environment = reply.value
    return found


def new_run(suite: Suite, folder: Path, found: Environment, selection: str | None = None) -> Run:
    """Writes the header of a new run folder and returns the run, still without measurements. Folders of weights are
    resolved and read here (`harness.weights`). Raises WeightsChanged."""
    run = Run(
        id=folder.name,
        suite=suite.name,
        description=suite.description,
        protocol=suite.protocol,
        environment=found,
        metrics={m.name: m for p in sorted(PROBES.values(), key=lambda p: p.order) for m in p.metrics},
        models={case.model: MODELS[case.model].info for case in suite.cases},
        weights=weights.recorded(suite.cases),
        cases=suite.cases,
        measurements=(),
        created=storage.now(),
        selection=selection,
        folder=str(folder),
    )
    storage.create(folder, run)
    return run


def planned_processes(cases: Sequence[Case], replicates: int) -> list[PlannedProcess]:
    """Every (case, process) in the order of measurement."""
    rounds = [list(cases)]
    shuffle = random.Random(SHUFFLE_SEED)
    for _ in range(1, replicates):
        rounds.append(shuffle.sample(list(cases), len(cases)))
    return [PlannedProcess(case=case, replicate=i) for i, cases_ in enumerate(rounds) for case in cases_]


def sweep(run: Run, workers: Workers, plugins: Sequence[str], listener: Listener, *, retry_failed: bool = False) -> Run:
    """Measures what `run` still lacks and returns the whole run. KeyboardInterrupt leaves a run that resumes.

    A case whose process did not end well is not measured again in further processes: its row has its reason already.
    Earlier failures of the environment are measured again, and with `retry_failed` all failures. Raises StorageFailed
    if nothing can be written any more.
    """
    folder = Path(str(run.folder))
    began = perf_counter()
    earlier_s = math.fsum(planning.spent_s(run))
    left = remaining(run, retry_failed=retry_failed)
    estimate = RemainingTime(run.measurements)
    total = len(planned_processes(run.cases, processes_alone(run.protocol)))
    settled = _settled(run, retry_failed)
    listener.begin(total, len(left))
    with tempfile.TemporaryDirectory(prefix="imgbench-") as cache:
        site = _site(run, workers, plugins, cache, listener.phase)
        tried: set[str] = set()  # backends whose overhead this sweep has measured, or tried to
        for number, process in enumerate(left):
            if process.replicate:
                run = _overheads(run, site, tried, retry_failed=retry_failed)
            if process.case.id in settled:
                listener.skip(process.case, process.replicate)
            else:
                preparing_s = _preparing_s(run, estimate.seconds(left[number:], settled))
                seconds_left = _with_rounds(run, preparing_s, perf_counter() - began)
                listener.start(process.case, process.replicate, seconds_left)
                attempt = attempts.next_attempt(run, process.case.id, process.replicate)
                run, measurement = measure_process(process, run, site, attempt)
                run = _with(run, measurement)
                estimate.add(measurement)
                if measurement.status != "ok":
                    settled.add(process.case.id)
                listener.end(measurement)
                stop_without_storage(measurement)
            if not planning.in_rounds(run) and (
                number + 1 == len(left) or left[number + 1].replicate > process.replicate
            ):
                run = control(process.replicate, run, site)
        run = _overheads(run, site, tried, retry_failed=retry_failed)
        if planning.in_rounds(run):
            _rounds(run, site, listener, earlier_s - began, planning.to_retry(run, retry_failed=retry_failed))
        else:
            for number in range(run.protocol.replicates):
                run = control(number, run, site)  # what a kill between a round and its control left out
            _again(run, site, listener)
    return finish(folder)


def _overheads(run: Run, site: Site, tried: set[str], *, retry_failed: bool) -> Run:
    """The run with the process of the model `null` that it lacks in each of its backends: what imgbench itself costs an
    iteration. The backends are added to `tried`, and one that is there already is not measured again."""
    for backend in [b for b in overhead.left(run, retry_failed=retry_failed) if b not in tried]:
        tried.add(backend)
        site.report(f"overhead of {backend}")
        case = overhead.case_of(backend)
        job = _job(PlannedProcess(case=case, replicate=0), run, site)
        job = replace(job, protocol=overhead.protocol_of(run.protocol), only=CONTROL_PROBES)
        outcome = site.workers.measure(job, site.report, f"overhead-{backend}")
        measurement = replace(outcome.measurement, case=case, attempt=overhead.next_attempt(run, backend))
        found = Control(side="overhead", measurement=measurement)
        storage.append_control(Path(str(run.folder)), found)
        run = replace(run, controls=(*run.controls, found))
        stop_without_storage(measurement)
    return run


def _preparing_s(run: Run, rows_s: float | None) -> float | None:
    """The seconds that are left of preparing, from those of its rows."""
    return None if rows_s is None else rows_s + overhead.seconds_left(run)


def _with_rounds(run: Run, preparing_s: float | None, elapsed_s: float) -> float | None:
    """The seconds left: those of preparing, and those that the rounds will probably take afterwards."""
    if preparing_s is None or not planning.in_rounds(run):
        return preparing_s
    found = planning.plan(run)
    prepared = max(1, len(found.prepared))
    wanted = planning.seconds_left(found) * len(run.cases) / prepared
    first_s = planning.seconds_left(found, first_only=True) * len(run.cases) / prepared
    whole = planning.budget_s(run, elapsed_s + preparing_s)
    return preparing_s + min(wanted, max(first_s, whole - elapsed_s - preparing_s))


def _rounds(run: Run, site: Site, listener: Listener, before_s: float, retried: Collection[Measurement]) -> None:
    """Measures rounds until no row is open or no further one fits into the budget. Each row has one round with its
    reference, whatever the budget, because a run without any ratio answers nothing. `before_s` is what the clock lacks
    of the seconds that the run has taken; the failures `retried` are measured again."""
    budget = planning.budget_s(run, planning.spent_s(run)[0])
    alone: frozenset[str] = frozenset()
    slower = _Slower()

    def left_s() -> float:
        return budget - before_s - perf_counter()

    def planned(run: Run) -> Plan:
        return planning.plan(run, alone=alone, free_bytes=memory.free_bytes(run.environment), retried=retried)

    listener.rounds_begin(*_left(planned(run), slower, left_s()))
    with tempfile.TemporaryDirectory(prefix="imgbench-") as folder:
        referee = Referee(Path(folder))
        place = rounds.Site(workers=site.workers, referee=referee, plugins=tuple(site.plugins), cache=site.cache)
        try:
            done = True
            while done:
                found, done = planned(run), False
                short = slower.expected(planning.seconds_left(found)) > left_s()
                for each in planning.cycle(found, widest_first=short):
                    if slower.expected(each.seconds) > left_s() and not planning.is_first(found, each):
                        continue
                    clock, done = perf_counter(), True
                    measured = rounds.measure_round(each, run, place)
                    slower.add(perf_counter() - clock, each.seconds)
                    short_of_memory = {m.case.id for _, m in measured if m.status == "oom"}
                    if short_of_memory and each.alternates == "turns":
                        alone |= short_of_memory  # planned again, without others beside it
                        break
                    run = _stored(run, measured, site)
                    listener.round_end(
                        [m for member, m in measured if not member.copy], *_left(planned(run), slower, left_s())
                    )
                    for _, measurement in measured:
                        stop_without_storage(measurement)
        finally:
            referee.close()


class _Slower:
    """How much longer rounds take than expected: the median over the last ones."""

    LAST: Final = 9

    def __init__(self) -> None:
        self._factors: list[float] = []

    def add(self, seconds: float, expected: float) -> None:
        self._factors = [*self._factors, seconds / max(expected, 1e-3)][-self.LAST :]

    def expected(self, seconds: float) -> float:
        return seconds * (statistics.median(self._factors) if self._factors else 1.0)


def _left(found: Plan, slower: _Slower, budget_left_s: float) -> tuple[int, float]:
    """(rows that are open, expected seconds of the rounds that are left)."""
    open_rows = sum(not entry.copy for group in found.groups for entry in found.open_entries(group))
    first_s = slower.expected(planning.seconds_left(found, first_only=True))
    return open_rows, min(slower.expected(planning.seconds_left(found)), max(first_s, budget_left_s))


def _stored(run: Run, measured: Sequence[tuple[Member, Measurement]], site: Site) -> Run:
    """The run with a round, which is written to its folder: the reference's processes first, so that what a kill
    leaves of a round has a reference."""
    folder = Path(str(run.folder))
    references = {member.case.id for member, _ in measured if member.copy}
    for member, found in sorted(measured, key=lambda each: each[0].case.id not in references):
        measurement = process_agreement.checked(site.firsts.get(member.case.id), found, run.environment["device"])
        if member.copy:
            control = Control(side="copy", measurement=measurement)
            storage.append_control(folder, control)
            run = replace(run, controls=(*run.controls, control))
        else:
            storage.append(folder, measurement)
            run = _with(run, measurement)
    return run


def processes_alone(protocol: ProtocolRecord) -> int:
    """How many processes of each row are measured alone."""
    return 1 if protocol.rounds else protocol.replicates


def stop_without_storage(measurement: Measurement) -> None:
    """Raises StorageFailed if a measurement failed because of a disk on which the next one would fail, too."""
    if measurement.cause is not None and measurement.cause.of_storage:
        raise StorageFailed(str(measurement.reason))


@dataclass(frozen=True, kw_only=True)
class Site:
    """What measuring a process needs: the workers with their plugins, and a cache that all processes of a run share.
    `firsts` are the measurements, by case id, with which the further processes of a row are compared."""

    workers: Workers
    plugins: Sequence[str]
    cache: Path
    report: Callable[[str], None]
    firsts: dict[str, Measurement] = field(default_factory=dict)


def _site(run: Run, workers: Workers, plugins: Sequence[str], cache: str, report: Callable[[str], None]) -> Site:
    """Where a run goes on: its further processes are compared with those that it has."""
    firsts = process_agreement.firsts(run.measurements)
    return Site(workers=workers, plugins=plugins, cache=Path(cache), report=report, firsts=firsts)


def control(number: int, run: Run, site: Site) -> Run:
    """The run with one process of each side of the A/A control that round `number` lacks, measured in random order;
    none where no row is ok."""
    good = [m for m in run.measurements if m.status == "ok" and m.replicate == 0]
    if not good:
        return run
    sides: list[Literal["a", "b"]] = ["a", "b"]
    own = [c for c in run.controls if c.side in sides]
    case = own[0].measurement.case if own else min(good, key=lambda m: m.duration_s or 0.0).case
    told = [c for c in own if c.measurement.replicate == number]
    done = {c.side for c in told if not attempts.of_environment(c.measurement)}
    for side in [s for s in random.Random(f"{run.id}-{number}").sample(sides, 2) if s not in done]:
        attempt = max((c.measurement.attempt for c in told if c.side == side), default=-1) + 1
        site.report("A/A control")
        job = replace(_job(PlannedProcess(case=case, replicate=number), run, site), only=CONTROL_PROBES)
        outcome = site.workers.measure(job, site.report, case.id)
        measurement = replace(outcome.measurement, case=case, attempt=attempt)
        found = Control(side=side, measurement=measurement)
        storage.append_control(Path(str(run.folder)), found)
        run = replace(run, controls=(*run.controls, found))
        stop_without_storage(measurement)
    return run


def _again(run: Run, site: Site, listener: Listener) -> None:
    """Measures contended processes again until an attempt is not contended, as often as the protocol says. It stops
    after CONTENDED_IN_A_ROW contended attempts in a row, because the machine probably stays contended."""
    contended = 0
    while todo := attempts.again(run.measurements, run.superseded, run.protocol.contended_retries):
        listener.begin(len(todo), len(todo))
        for measurement, attempt in todo:
            if contended == CONTENDED_IN_A_ROW:
                return
            listener.start(measurement.case, measurement.replicate, None)
            listener.phase("measured again: it was contended")
            process = PlannedProcess(case=measurement.case, replicate=measurement.replicate)
            run, found = measure_process(process, run, site, attempt)
            run = _with(run, found)
            contended = contended + 1 if attempts.contended(found) else 0
            listener.end(found)
            stop_without_storage(found)


def extend(run: Run, wanted: Mapping[Case, int], workers: Workers, plugins: Sequence[str], seconds: float) -> int:
    """Adds further processes of some cases to a finished run, in turns, while they fit into `seconds`; how many.

    They are measured as the first ones were, without what only a first process does (quality, stages). The run's
    folder must be locked, and `run` be read from it since.
    """
    began, done = perf_counter(), 0
    expected = {case: _later_s(run, case) for case in wanted}
    counts = {case: 1 + max(m.replicate for m in run.measurements if m.case == case) for case in wanted}
    storage.write_header(Path(str(run.folder)), run)  # a run of schema 1 becomes one of schema 2
    with tempfile.TemporaryDirectory(prefix="imgbench-") as cache:
        site = _site(run, workers, plugins, cache, lambda _phase: None)
        for number in range(max(wanted.values(), default=0)):
            for case in [c for c, count in wanted.items() if number < count]:
                if perf_counter() - began + expected[case] > seconds:
                    continue
                run, found = measure_process(PlannedProcess(case=case, replicate=counts[case] + number), run, site)
                stop_without_storage(found)
                done += 1
    shutil.rmtree(Path(str(run.folder)) / REFERENCES, ignore_errors=True)
    return done


def extend_rounds(
    run: Run, wanted: Mapping[Case, int], workers: Workers, plugins: Sequence[str], seconds: float
) -> int:
    """Adds further rounds of some cases with the references of their groups to a finished run, in turns, while they fit
    into `seconds`; how many rounds of these cases. Those of a reference are with all rows of its group.

    The run's folder must be locked, and `run` be read from it since.
    """
    began, done = perf_counter(), 0
    slower = _Slower()
    storage.write_header(Path(str(run.folder)), run)
    with (
        tempfile.TemporaryDirectory(prefix="imgbench-") as cache,
        tempfile.TemporaryDirectory(prefix="imgbench-") as folder,
    ):
        site = _site(run, workers, plugins, cache, lambda _phase: None)
        referee = Referee(Path(folder))
        place = rounds.Site(workers=workers, referee=referee, plugins=tuple(plugins), cache=site.cache)
        try:
            for number in range(max(wanted.values(), default=0)):
                ids = {case.id for case, count in wanted.items() if number < count}
                plan = planning.plan(run, free_bytes=memory.free_bytes(run.environment))
                for each in planning.rounds_of(plan, ids):
                    if perf_counter() - began + slower.expected(each.seconds) > seconds:
                        continue
                    clock = perf_counter()
                    measured = rounds.measure_round(each, run, place)
                    slower.add(perf_counter() - clock, each.seconds)
                    run = _stored(run, measured, site)
                    done += len(ids & {member.case.id for member in each.members})
                    for _, measurement in measured:
                        stop_without_storage(measurement)
        finally:
            referee.close()
    shutil.rmtree(Path(str(run.folder)) / REFERENCES, ignore_errors=True)
    return done


def _later_s(run: Run, case: Case) -> float:
    """Seconds of the longest later process of a case; of its first one where there is no later one."""
    mine = [m for m in run.measurements if m.case == case]
    return max(m.duration_s or 0.0 for m in [m for m in mine if m.replicate > 0] or mine)


def measure_process(process: PlannedProcess, run: Run, site: Site, attempt: int = 0) -> tuple[Run, Measurement]:
    """Measures one process into the run's folder: the run, with metrics new in its header, and the measurement,
    which is `invalid` if it disagrees with the first one of its row (`harness.measuring.process_agreement`).

    The run does not hold the measurement; the folder does.
    """
    folder = Path(str(run.folder))
    outcome = site.workers.measure(_job(process, run, site), site.report, process.case.id)
    run = _with_metrics(run, outcome.metrics, folder)
    first = site.firsts.get(process.case.id)
    found = replace(outcome.measurement, case=process.case, attempt=attempt)
    measurement = process_agreement.checked(first, found, run.environment["device"])
    if measurement.status == "ok":
        site.firsts.setdefault(process.case.id, measurement)
    storage.append(folder, measurement)
    return run, measurement


def _with(run: Run, measurement: Measurement) -> Run:
    """The run with a measurement that its folder has already, as `storage.load` reads it."""
    measurements, superseded = attempts.split((*run.measurements, *run.superseded, measurement))
    return replace(run, measurements=measurements, superseded=superseded)


def finish(folder: Path) -> Run:
    """Stamps the run as finished, removes what only its processes needed, and returns the whole run. A run with
    processes left, because the environment failed, is not finished: resume it first."""
    run = storage.load(folder)
    if not complete(run):
        return run
    run = replace(run, finished=storage.now())
    storage.write_header(folder, run)
    shutil.rmtree(folder / REFERENCES, ignore_errors=True)
    return run


def remaining(run: Run, *, retry_failed: bool = False) -> list[PlannedProcess]:
    """The processes that a run still lacks: never measured, failed because of the environment, or with `retry_failed`
    failed for any reason; none for a case with another failure."""
    done = {(m.case.id, m.replicate) for m in run.measurements if not attempts.to_retry(m, retry_failed)}
    settled = _settled(run, retry_failed)
    planned = planned_processes(run.cases, processes_alone(run.protocol))
    extra = [
        m for m in run.measurements if m.round is None and m.replicate >= processes_alone(run.protocol)
    ]  # `extend`
    planned += [PlannedProcess(case=m.case, replicate=m.replicate) for m in extra]
    return [b for b in planned if (b.case.id, b.replicate) not in done and b.case.id not in settled]


def complete(run: Run, *, retry_failed: bool = False) -> bool:
    """Whether a run lacks no process. Its rounds may be unfinished: `Run.finished` tells."""
    return not remaining(run, retry_failed=retry_failed) and not planning.to_retry(run, retry_failed=retry_failed)


def _settled(run: Run, retry_failed: bool) -> set[str]:
    """Ids of the cases that failed and are not measured again."""
    return {m.case.id for m in run.measurements if m.status != "ok" and not attempts.to_retry(m, retry_failed)}


def _job(process: PlannedProcess, run: Run, site: Site) -> Job:
    """What a process that is measured alone does. Where rounds follow, it has no target for its own interval, because
    the row's latency comes from its rounds."""
    target = None if planning.in_rounds(run) else run.protocol.target_interval
    return Job(
        case=weights.built_case(process.case, run),
        replicate=process.replicate,
        protocol=replace(run.protocol, target_interval=target),
        device=run.environment["device"],
        folder=Path(str(run.folder)),
        cache=site.cache / process.case.id,
        threads=cast("int", run.environment["threads"]),
        plugins=tuple(site.plugins),
        injections=tuple(run.environment.get("injections", ())),
    )


def _with_metrics(run: Run, found: Sequence[Metric], folder: Path) -> Run:
    """The run with the metrics of a new model in its header, which is rewritten before their first samples."""
    if all(m.name in run.metrics for m in found):
        return run
    run = replace(run, metrics={m.name: m for m in merged(run.metrics.values(), found)})
    storage.write_header(folder, run)
    return run


def merged(known: Iterable[Metric], found: Sequence[Metric]) -> list[Metric]:
    """`known` with what is new in `found`, each new one before the metric that follows it there, so that the stages of
    all models stand in the order in which they run."""
    ordered = list(known)
    names = [m.name for m in ordered]
    following: str | None = None
    for metric in reversed(found):
        if metric.name not in names:
            place = names.index(following) if following is not None else len(names)
            names.insert(place, metric.name)
            ordered.insert(place, metric)
        following = metric.name
    return ordered
