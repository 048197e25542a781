"""`imgbench ab`: measures base against head in one run, and decides by the paired rule.

The steps are: prepare the arms; start the hosts, which report what they loaded; preflight; measure pairs until every
row is decided or the budget is spent; write the comparison and its files; return the exit code. The budget counts from
the start of the first host. Environments for git refs are made before that, and cached.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import benches
from baselines.paired import preflight as preflight_rules
from baselines.paired import verdicts
from baselines.paired.decider import PairedDecider, replayed
from baselines.paired.decision import RULE
from baselines.paired.metrics import PAIRED_METRICS
from baselines.paired.preflight import Found
from baselines.stored import fingerprint
from baselines.verdict import Comparison
from benches.ab import arm_proof, arms
from benches.failures import NotComparable
from benches.preload import libraries
from harness import storage
from harness.devices import NoSuchDevice, unmeasured
from harness.measuring import control_workload
from harness.measuring.turns import Referee
from harness.paired import paired_run
from harness.paired import preflight as paired_preflight
from harness.paired.arms import Arm, other_sampling
from harness.paired.hosts import ArmHost, Launch, close_all
from harness.paired.paired_run import PairedRun
from harness.paired.pairs import ArmHosts, Pairs
from harness.processes.threads import Threads
from harness.reasons import stated
from harness.registry import PROBES
from harness.stored_types import Environment
from harness.timing import perf_counter
from harness.types import Suite

QUICK_PROBES = ("startup", "latency", "memory", "fidelity", "counts")
MEMORY_PROBES = ("memory",)
ENERGY_SHARE = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line requests. `plugins` are the user's own modules, and `paths` the folders in which they are
    found. With `apart`, each arm has a fork server of its own, even if they could share one."""

    suite: Suite
    base: Arm
    head: Arm
    budget_s: float
    device: str | None
    threads: Threads
    seed: int
    plugins: tuple[str, ...]
    paths: tuple[str, ...]
    project: Path
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A decided paired run: the decider with all pairs, and the comparison."""

    decider: PairedDecider
    comparison: Comparison


def run(asked: Asked, folder: Path, say: Say) -> Decided:
    """Measures and decides. Raises ArmFailed, NotComparable and NoSuchDevice."""
    return decided(measure(asked, folder, say, PairedDecider), folder)


def measure(asked: Asked, folder: Path, say: Say, deciding: Callable[[PairedRun], PairedDecider]) -> PairedDecider:
    """Measures the rows that the decider wants, stores them in `folder`, and returns the closed decider. `deciding`
    makes the decider of a run. Raises ArmFailed, NotComparable and NoSuchDevice."""
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="imgbench-ab-") as scratch, closing(Referee(Path(scratch))) as referee:
        hosts = _start_hosts(asked, folder, Path(scratch))
        try:
            header = _header(asked, folder, hosts)
            if asked.device is None and (reason := unmeasured.at_the_start(header.environment)):
                say(str(reason))
            pairs = Pairs(
                run=header,
                folder=folder,
                hosts=hosts,
                referee=referee,
                plugins=(*benches.PLUGINS, *asked.plugins),
                caches=Path(scratch) / "cache",
                began=began,
                say=say,
            )
            _preflight(pairs, asked, say)
            decider = deciding(pairs.run)
            ended = _measure(pairs, say, decider)
        finally:
            close_all(hosts.all())
    decider.run = replace(pairs.run, finished=storage.now(), ended=ended)
    decider.decision.close()
    paired_run.write_header(folder, decider.run)
    return decider


def decide(folder: Path) -> Decided:
    """Decides a stored paired run from its raw values alone."""
    return decided(replayed(paired_run.load(folder), paired_run.processes(folder)), folder)


def decided(decider: PairedDecider, folder: Path) -> Decided:
    """The comparison of a run, from a decider with all of its pairs. The preflight is read from `folder`."""
    header, preflight = decider.run, list(paired_run.preflight(folder))
    found = verdicts.comparison(decider, preflight_rules.verdicts(header, preflight), header.ended or "interrupted")
    notes = (*found.notes, preflight_rules.outputs(header, preflight), *map(stated, header.notes))
    return Decided(decider=decider, comparison=replace(found, notes=notes))


def _start_hosts(asked: Asked, folder: Path, scratch: Path) -> ArmHosts:
    (scratch / "empty").mkdir()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def started(arm: Arm) -> ArmHost:
        # The working tree in which the command was called must not shadow the ref's own copy.
        own = arm.folder is not None
        launch = Launch(
            arm=arm,
            environment=arms.launch_environment(arm, asked.project, scratch / "ours"),
            plugins=(*benches.PLUGINS, *asked.plugins),
            preload=libraries(asked.suite.cases, asked.base.overrides, asked.head.overrides),
            paths=() if own else asked.paths,
            # A commit without the plugins gets those of the working directory.
            last_paths=(str(arm.folder), *asked.paths) if own else (),
            logs=logs,
            empty=scratch / "empty",
        )
        return ArmHost(launch)

    base = started(asked.base)
    if asked.base.shares_server_with(asked.head) and not asked.apart:
        return ArmHosts(base=base, head=base, control=base)
    head = started(asked.head)
    return ArmHosts(base=base, head=head, control=started(replace(asked.base, name="control")))


def _header(asked: Asked, folder: Path, hosts: ArmHosts) -> PairedRun:
    """The run's header, with what each arm reports. Raises NotComparable if an arm did not load its own code."""
    environments = [_ask(s, "environment", (asked.device, asked.threads.count)) for s in (hosts.base, hosts.head)]
    variables = tuple(dict.fromkeys([*asked.base.environment, *asked.head.environment]))
    modules = [plugin.split(".")[0] for plugin in asked.plugins]
    packages = tuple(dict.fromkeys([*asked.base.packages, *asked.head.packages, *modules, *arms.OURS]))
    loaded = [_ask(s, "loaded", (packages, variables)) for s in (hosts.base, hosts.head)]
    refused = arms.refusal(asked.base, asked.head, loaded[0], loaded[1])
    if not refused:
        refused = other_sampling(*environments, cold_cache=asked.suite.protocol.cold_cache)
    if refused:
        raise NotComparable(refused)
    rows = paired_run.rows_of(asked.suite.cases, asked.base.overrides, asked.head.overrides)
    metrics = {m.name: m for p in sorted(PROBES.values(), key=lambda p: p.order) for m in p.metrics}
    found = environments[0] | {"fingerprint": fingerprint.fingerprint(environments[0])}
    found |= {"threads_from": str(asked.threads.source)}
    header = PairedRun(
        id=folder.name,
        suite=asked.suite.name,
        created=storage.now(),
        seed=asked.seed,
        budget_s=asked.budget_s,
        device=found["device"],
        threads=asked.threads.count,
        arms=(asdict(asked.base), asdict(asked.head)),
        loaded=(loaded[0], loaded[1]),
        proof=tuple(arms.proof(asked.base, asked.head, loaded[0], loaded[1])),
        environment=cast("Environment", found),
        protocol=replace(asked.suite.protocol, quality=False, stages=False, target_interval=None),
        metrics=metrics | {asked.metric.name: asked.metric for asked in PAIRED_METRICS},
        rows=rows,
        control_workloads=control_workload.NAMES,
        shared_server=hosts.base is hosts.head,
        rule=RULE,
    )
    paired_run.write_header(folder, header)
    return header


def _ask(host: ArmHost, command: str, argument: Any) -> dict[str, Any]:
    """What an arm reports about itself. Raises NotComparable, and NoSuchDevice for a missing device."""
    reply = host.call(command, argument, 300.0)
    if reply.value is None:
        raise NotComparable(f"the {host.launch.arm.name} arm: {reply.reason}")
    if isinstance(reply.value, str):
        raise NoSuchDevice(reply.value)
    return dict(reply.value)


def _preflight(pairs: Pairs, asked: Asked, say: Say) -> None:
    """Measures both arms in full. Rows that may be timed get their iteration counts, and the row that takes the least
    time becomes the A/A control. Raises NotComparable if the measured rows do not use an arm's project."""
    probes, notes = _probes(pairs.run)
    pairs.run = replace(pairs.run, notes=notes)
    paired_preflight.preflight(pairs, pairs.run.rows, probes)
    found = list(paired_run.preflight(pairs.folder))
    _prove_use(pairs, asked, found)
    usable = preflight_rules.usable(pairs.run, found)
    base = {row: m for row, arm, m in found if arm == "base" and row in usable}
    rows = paired_preflight.with_counts(pairs.run.rows, base)
    shortest = min(base, key=lambda row: base[row].duration_s or 0.0, default=None)
    pairs.run = replace(pairs.run, rows=rows, control=shortest)
    pairs.expect({row: [m for name, _, m in found if name == row] for row in base})
    paired_run.write_header(pairs.folder, pairs.run)
    again = preflight_rules.undecided_memory(pairs.run, found)
    undecided = [row for row in rows if row.id in again]
    for replicate in range(1, preflight_rules.PROCESSES):
        paired_preflight.preflight(pairs, undecided, MEMORY_PROBES, replicate)
    if undecided:
        say(f"memory measured in {preflight_rules.PROCESSES} processes for {len(undecided)} rows")
    differ = preflight_rules.other_outputs(pairs.run, found)
    ordered = sorted(rows, key=lambda row: row.id not in differ)  # outputs that differ come first
    chosen = [row for row in ordered if row.id in differ or (row.interleaving and not _same_code(pairs.run))]
    quality_metrics = paired_preflight.quality(pairs, chosen)
    pairs.run = replace(pairs.run, metrics=pairs.run.metrics | quality_metrics)
    paired_run.write_header(pairs.folder, pairs.run)


def _prove_use(pairs: Pairs, asked: Asked, found: Found) -> None:
    """Adds to the proof which packages of the project the rows used. Raises NotComparable if they used none."""
    lines: list[str] = []
    for arm in (asked.base, asked.head):
        if (refused := arm_proof.refusal(arm, found)) is not None:
            raise NotComparable(refused)
        lines += arm_proof.proof(arm, found)
    pairs.run = replace(pairs.run, proof=(*pairs.run.proof, *lines))


def _same_code(run: PairedRun) -> bool:
    """Whether both arms are the same except for injected slow-downs. Equal outputs of one batch then prove that all
    outputs are equal."""
    base, head = ({k: v for k, v in arm.items() if k not in {"name", "text", "injections"}} for arm in run.arms)
    return base == head


def _probes(run: PairedRun) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(probes of the preflight, notes on probes that are left out). Energy is measured only if its windows fit into
    ENERGY_SHARE of the budget. Without an energy counter, its probe takes no time and returns the reason."""
    seconds = len(run.rows) * 2 * run.protocol.energy_window_s
    if not run.environment.get("energy_counter") or seconds <= ENERGY_SHARE * run.budget_s:
        return (*QUICK_PROBES, "energy"), ()
    return QUICK_PROBES, (
        f"energy is not measured, because its windows need {seconds:.0f} s, more than a fifth of the budget",
    )


def _measure(pairs: Pairs, say: Say, decider: PairedDecider) -> str:
    if not any(row.interleaving for row in pairs.run.rows):
        return "budget" if pairs.left_s <= 0 else "nothing could be timed"
    return pairs.measure(Reported(decider=decider, say=say, pairs=pairs))


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A decider that also reports its progress."""

    decider: PairedDecider
    say: Say
    pairs: Pairs

    @property
    def phase(self) -> str:
        return self.decider.phase

    def wanted(self) -> set[str]:
        return self.decider.wanted()

    def add(self, first: paired_run.PairedProcess, second: paired_run.PairedProcess) -> None:
        self.decider.add(first, second)
        states = [q.state for q in self.decider.decision.questions.values() if q.primary]
        settled = sum(state not in {"open", "suspect"} for state in states)
        suspects = sum(state == "suspect" for state in states)
        self.say(
            f"{self.decider.phase} · {settled} of {len(states)} rows decided, {suspects} suspected · "
            f"{self.pairs.elapsed_s:.0f} of {self.pairs.run.budget_s:.0f} s"
        )


def seed_of(given: int | None) -> int:
    """The seed of the random order: `given`, or else a new one. The run stores it."""
    return random.SystemRandom().randrange(2**31) if given is None else given
