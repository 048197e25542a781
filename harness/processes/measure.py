"""Measures one case in this process: load, build, first call, then every probe. Called by the worker.

The quality of the answer is part of the measurement: a wrong output, a wrong number of calls, a recompilation or
weights of another precision make the measurement `invalid`, with the reason, whatever its speed.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import math
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import harness.null_model  # noqa: F401  registers the model of the controls `overhead`
from harness import backends, probes, reasons
from harness.backends import Build, BuildRequest
from harness.causes import one_line
from harness.derived import DERIVED
from harness.devices import Device
from harness.entries import BadEntry
from harness.measuring import (
    cold_cache,
    content_hashes,
    contention,
    control_workload,
    injection,
    loading,
    process_settings,
    repeatability,
)
from harness.measuring.loading import Loaded
from harness.measuring.out_of_memory import is_out_of_memory
from harness.measuring.process_settings import Settings
from harness.measuring.trial import Counter, Findings, Mismatch, Startup, Trial
from harness.measuring.turns import Interleaving, Turns
from harness.numerics import calibration, optimizations, precision, share
from harness.probes.stages import component_metric, sum_warning
from harness.processes.used_packages import packages_of
from harness.reasons import Reason, ReasonedError
from harness.registry import PROBES
from harness.stored_types import Facts, State
from harness.timing import Timer, perf_counter
from harness.types import Case, Component, Forward, Measurement, Metric, Protocol, Workload


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker needs, picklable. `cache` is a folder for this case alone; `plugins` fill the registries.

    `only` names the probes to run (None: all of them). `injections` are deliberate slow-downs
    (`harness.measuring.injection`). `interleaving` is how the row is measured where two processes take turns
    (`harness.measuring.turns`). `reference_until_s` is set where the fp32 reference has no time limit of its own: it
    must be computed within that many seconds after the row begins.
    """

    case: Case
    replicate: int
    protocol: Protocol
    device: str
    folder: Path
    cache: Path
    threads: int
    plugins: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    injections: tuple[str, ...] = ()
    interleaving: Interleaving | None = None
    reference_until_s: float | None = None

    @property
    def exports(self) -> Path:
        """The folder that all cases of the run share."""
        return self.cache.parent / "exports"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A measurement, and the metrics in it that only its workload knows (its stages, its quality). `unfinished` are
    the probe that runs and those that have not run yet; the measurement is valid without them."""

    measurement: Measurement
    metrics: tuple[Metric, ...] = ()
    unfinished: tuple[str, ...] = ()


def measure(
    job: Job,
    device: Device,
    report: Callable[[str], None],
    turns: Turns | None = None,
    keep: Callable[[Outcome], None] = lambda _outcome: None,
) -> Outcome:
    """The measurement of one case in one process.

    `keep` is called with it as soon as all figures are measured, before each of the probes that may end the process. An
    error in one of those is the reason of its metrics alone. Raises whatever the model or the backend raises. Raises
    Mismatch where one of them changed a process-wide setting, such as TF32; nothing is timed under such a setting.
    """
    began, case = perf_counter(), job.case
    if reason := (
        backends.unavailable(case.backend, case.precision, device.name)
        or optimizations.unavailable(case, device.name)
        or cold_cache.unavailable(job.protocol, device.name)
    ):
        skipped = Measurement(case=case, replicate=job.replicate, status="skipped", reason=reasons.of(reason))
        return Outcome(measurement=skipped)
    before = device.start_span()
    with precision.applied(case.precision), optimizations.in_force(case), _settings_kept() as settings:
        loaded, load_s, build = _build(job, device, report)
        if reason := process_settings.fault(settings):
            raise Mismatch(reason)
        if not build.keeps_modules:
            _give_back(device)
        weights, metrics = _own_weights(loaded.workload.components), workload_metrics(loaded.workload)
        trial = replace(_first_call(job, device, loaded, build, load_s, report), turns=turns)
        if job.reference_until_s is not None:
            trial = replace(trial, reference_until=began + job.reference_until_s)
        chosen = probes.in_order(trial.replicate, job.only)
        timed = [p for p in chosen if p.order < probes.AFTER_CONTROL_WORKLOAD]
        findings = _collect(trial, timed, {m.name for m in metrics}, report)
        fault = next((f.invalid for f in findings if f.invalid), None) or _fault(trial, settings, weights)
    passes = {name: found for f in findings for name, found in f.state.items()}
    state = {**device.span_state(before), **passes, **_control_workload(job, device)}
    outcome = Outcome(measurement=_measurement(trial, loaded, findings, fault, state), metrics=metrics)
    last = [p for p in chosen if p.order >= probes.AFTER_CONTROL_WORKLOAD]
    if fault or not last:
        return outcome
    for number, entry in enumerate(last):
        keep(replace(outcome, unfinished=tuple(p.name for p in last[number:])))
        try:
            with precision.applied(case.precision), optimizations.in_force(case):
                findings += _collect(trial, [entry], {m.name for m in metrics}, report)
        except Exception as error:  # the figures are measured, and the next probe may be sound
            with suppress(OSError):  # the log may be on the disk that is full
                traceback.print_exc()
            findings.append(_without(entry, error))
        outcome = replace(outcome, measurement=_measurement(trial, loaded, findings, fault, state))
    return outcome


def _without(entry: probes.Probe, error: Exception) -> Findings:
    """What is known of a probe that raised an error after the figures were measured."""
    reason = error.reason if isinstance(error, ReasonedError) else Reason("error", {"error": one_line(error)})
    missing, facts = probes.unfinished([entry.name], reason)
    return Findings(missing=missing, facts=dict(facts))


def _give_back(device: Device) -> None:
    """Frees the torch modules that the backend does not run, and what torch keeps of their memory."""
    gc.collect()
    device.release_memory()


def _control_workload(job: Job, device: Device) -> dict[str, Any]:
    """The seconds of the control workload, which runs after everything that it could disturb, and the reason if it
    was contended. If the model leaves no memory for it, only the reason."""
    if job.only is not None:
        return {}
    before = device.start_span()
    try:
        found = control_workload.measure(Timer(device.synchronize), device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {"control_workload_missing": "no memory for it beside the model"}
    reason = contention.contended(device.span_state(before))
    return {"control_workload": found, **({"control_workload_contended": reason} if reason else {})}


def _build(job: Job, device: Device, report: Callable[[str], None]) -> tuple[Loaded, float, Build]:
    """(what was loaded, seconds to load it, what the backend built)."""
    case, timer = job.case, Timer(device.synchronize)
    report("load")
    made, load_s = timer.timed(lambda: loading.built(case))
    loaded = loading.own(made)
    workload = loaded.workload
    batch = repeatability.private_batch(workload.batch)  # so that exporting and calibrating cannot change it
    del made
    report("build")
    job.cache.mkdir(parents=True, exist_ok=True)
    layers_from = packages_of(workload.components)
    changed = optimizations.apply(case, workload.components)
    request = BuildRequest(
        precision=case.precision,
        device=device.torch_device,
        cache=job.cache,
        exports=job.exports,
        work=functools.cache(lambda: _networks_hash(case, workload.components, loaded.weights_hash)),
        calls=_calls_hash(case),
        timer=timer,
        optimizations=optimizations.names(case),
        calibration=lambda: calibration.recorded(workload, device.torch_device),
    )
    with optimizations.kernels_or_unavailable(case):
        build = backends.built(case.backend, workload.components, request)
        changed |= optimizations.reached(case, workload.components, device.torch_device)
    told = {"layers_from": layers_from, **({"optimizations": changed} if changed else {})}
    build = replace(build, facts={**build.facts, **told})
    workload = replace(workload, batch=batch.to(device.torch_device), iterate=_finished(workload.iterate, build))
    workload, build = injection.injected(job.injections, case.id, workload, build, load_s, timer)
    return replace(loaded, workload=_without_unused_modules(workload, build)), load_s, build


def _finished(iterate: Callable[..., Any], build: Build) -> Callable[..., Any]:
    """`iterate`, followed by what the build does after each iteration."""
    after = build.after_iteration
    if after is None:
        return iterate

    def iteration(forwards: Mapping[str, Forward], batch: Any) -> Any:
        output = iterate(forwards, batch)
        after()
        return output

    return iteration


def _first_call(
    job: Job, device: Device, loaded: Loaded, build: Build, load_s: float, report: Callable[[str], None]
) -> Trial:
    """The trial after its first iteration, in which no network may write to its inputs. Raises Mismatch."""
    report("first call")
    workload = loaded.workload
    timer, counter = timer_of(device), Counter(workload.components, build.forwards)
    guarded = {name: repeatability.guarded(name, forward) for name, forward in counter.forwards.items()}
    before = repeatability.snapshot(workload.batch)
    counter.iterations += 1
    output, first_call_s = timer.timed(lambda: workload.iterate(guarded, workload.batch))
    return Trial(
        case=job.case,
        replicate=job.replicate,
        workload=workload,
        build=build,
        device=device,
        timer=timer,
        protocol=job.protocol,
        startup=Startup(load_s=load_s, build_s=build.build_s, capture_s=build.capture_s, first_call_s=first_call_s),
        folder=job.folder,
        counter=counter,
        first_output=output.detach().cpu().clone(),
        batch_before=before,
        weights_hash=loaded.weights_hash,
        interleaving=job.interleaving,
        plugins=job.plugins,
        report=report,
    )


def timer_of(device: Device) -> Timer:
    """A timer by the host's clock, with the device's own beside it where it has one."""
    watch = device.stopwatch()
    return Timer(device.synchronize, device_clock=None if isinstance(watch, Reason | str) else watch)


def _without_unused_modules(workload: Workload, build: Build) -> Workload:
    """The workload without torch modules that the backend does not run, so that they take no memory."""
    import torch

    if build.keeps_modules:
        return workload
    components = tuple(replace(c, module=torch.nn.Identity()) for c in workload.components)
    return replace(workload, components=components)


def workload_metrics(workload: Workload) -> tuple[Metric, ...]:
    """The metrics that only the workload knows: the seconds of its networks, and its quality. Raises BadEntry where a
    quality metric has the name of another one."""
    of_networks = tuple(component_metric(c.name) for c in workload.components)
    of_quality = () if workload.quality is None else tuple(workload.quality.metrics)
    taken = {m.name for p in PROBES.values() for m in p.metrics} | {d.metric.name for d in DERIVED}
    taken |= {m.name for m in of_networks}
    if stolen := next((m.name for m in of_quality if m.name in taken), None):
        raise BadEntry(f"the model's quality metric {stolen!r} has the name of another metric; give it another name")
    return (*of_networks, *of_quality)


def _collect(
    trial: Trial, chosen: Sequence[probes.Probe], of_workload: Collection[str], report: Callable[[str], None]
) -> list[Findings]:
    findings = []
    for entry in chosen:
        report(entry.name)
        found = probes.checked(entry, _found(entry, trial), of_workload)
        findings.append(found if trial.replicate else probes.explained(entry, found))
        if found.invalid:
            break
    return findings


def _found(entry: probes.Probe, trial: Trial) -> Findings:
    """What a probe found, with the state of the machine if the probe requests it and measured anything."""
    if entry.state is None:
        return probes.collected(entry, trial)
    before = trial.device.start_span()
    found = probes.collected(entry, trial)
    if not found.samples:
        return found
    return replace(found, state={**found.state, entry.state: trial.device.span_state(before)})


@contextmanager
def _settings_kept() -> Iterator[Settings]:
    """The process settings before the row; they are restored after it."""
    before = process_settings.read()
    try:
        yield before
    finally:
        process_settings.set_back(before)


def _own_weights(components: Sequence[Component]) -> dict[str, str]:
    """Network -> checksum of its parameters as they run; the checksum of nothing if the backend runs no such module."""
    return {c.name: content_hashes.checksum(c.module) for c in components}


def _fault(trial: Trial, settings: Settings, weights: Mapping[str, str]) -> Reason | str | None:
    built = trial.build
    if reason := trial.counter.mismatch() or built.verify() or share.fault(built.shares, trial.case.precision):
        return reason
    if reason := process_settings.fault(settings):
        return reason
    changed = [name for name, found in _own_weights(trial.workload.components).items() if found != weights[name]]
    return Reason("weights_changed", {"components": changed}) if changed else None


def _measurement(
    trial: Trial, loaded: Loaded, findings: list[Findings], fault: Reason | str | None, state: dict[str, Any]
) -> Measurement:
    found = _merged(f.samples for f in findings)
    samples = {name: values for name, values in found.items() if all(map(math.isfinite, values))}
    missing = {k: reasons.of(v) for f in findings for k, v in f.missing.items() if k not in samples}
    for name in found.keys() - samples.keys():
        missing[name] = Reason("not_finite", {"metric": name})
        fault = fault or missing[name]
    identity = dict(trial.workload.identity)
    facts = {
        **trial.workload.facts,
        **{k: v for f in findings for k, v in f.facts.items()},
        **trial.build.facts,
        **precision.upcast_facts(trial.workload.components, trial.case.precision),
        **share.facts(trial.build.shares),
        "identity": identity,
        "work_hash": work_hash(identity),
        "weights_hash": loaded.weights_hash,
        **({} if loaded.weights_source is None else {"weights_source": loaded.weights_source}),
        "output_shape": list(trial.workload.output_shape),
        "output_kind": trial.workload.output_kind,
    }
    return Measurement(
        case=trial.case,
        replicate=trial.replicate,
        status="invalid" if fault else "ok",
        reason=None if fault is None else reasons.of(fault),
        samples=samples,
        warmup=_merged(f.warmup for f in findings),
        missing=missing,
        facts=cast("Facts", facts),
        state=cast("State", state),
        warnings=tuple(
            reasons.of(told)
            for told in (
                *trial.workload.warnings,
                *trial.build.warnings,
                *(w for f in findings for w in f.warnings),
                *sum_warning(samples),
                *share.warnings(trial.build.shares),
                *precision.upcast_warnings(trial.workload.components, trial.case.precision),
                contention.contended(state),
            )
            if told is not None
        ),
        images=tuple(i for f in findings for i in f.images),
    )


def _networks_hash(case: Case, components: Sequence[Component], weights_hash: str) -> str:
    """Equal for two cases whose networks are identical in values and shapes: one may run what the other exported.
    Such cases differ at most in the sampler's settings: with any other difference, a builder may make another network
    without any attribute showing it. Networks that cannot be pickled are shared with no other case."""
    shapes = {c.name: [(list(x.shape), str(x.dtype)) for x in c.inputs] for c in components}
    networks = content_hashes.networks_hash(components) or f"{weights_hash} of {_calls_hash(case)}"
    of_sampler = {"backend", "precision", "scheduler", "num_steps", "guidance_scale", "prompt"}
    axes = {axis: value for axis, value in case.axes().items() if axis not in of_sampler}
    return work_hash({"networks": networks, "axes": axes, "shapes": shapes})


def _calls_hash(case: Case) -> str:
    """Equal if two cases request the same of their networks: steps, scheduler, guidance, prompt, batch, seed."""
    return work_hash({axis: value for axis, value in case.axes().items() if axis not in {"backend", "precision"}})


def work_hash(identity: Mapping[str, Any]) -> str:
    """Short hash of the work identity: equal exactly when two rows did the same work."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _merged(parts: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: list(values) for part in parts for name, values in part.items()}
