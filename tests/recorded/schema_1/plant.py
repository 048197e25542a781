"""Writes the planted half of the corpus: run folders, stores and paired runs that need no measuring.

    PYTHONPATH=OLD:OLD/tests python plant.py FOLDER        # OLD: the version that writes schema 1 (commit 22628e0)

All files are written by that version's own types and storage, with a clock that is set. Each group of rows is a run, a
store of sessions and a comparison of its own, so that each exit code has one.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import baselines.store
import numpy as np
from baseline_fixture import ENVIRONMENT, GPU_ENVIRONMENT, METRICS, MIB, PROTOCOL, changed, measured, metric, run_of
from baselines.paired.judge import PairedJudge
from benches.paired_commands import as_json
from harness.picture_sets import encode
from harness.precision import upcast_warnings
from harness.reference import ON_CPU, NoReference
from harness.throttling import warning as throttled
from harness.turns import Interleaving

from baselines.paired.metrics import PAIRED_METRICS
from benches import cli
from benches.ab import decide
from harness import agreement, causes, contention, paired, share, storage, threads
from harness.causes import Cause
from harness.paired import CONTROL_GROUP, Block, PairedRun, row_of
from harness.probes.stages import sum_warning
from harness.types import IDENTICAL, Case, Component, Control, Measurement, Metric, Protocol, Run

ROOT = Path(sys.argv[1])
COMPARED: dict[str, dict[str, Any]] = {}
CREATED = "2026-03-{:02d}T03:04:05+00:00"
BUSY = contention.warnings({"elapsed_s": 2.0, "other_cpu_s": 1.2, "steal_s": 0.0})
STOLEN = contention.warnings({"elapsed_s": 2.0, "other_cpu_s": 0.0, "steal_s": 0.4})
QUOTA = contention.warnings({"elapsed_s": 2.0, "other_cpu_s": 0.0, "throttled_periods": 4})
ENERGY_BUSY = contention.warnings({"latency_pass": {}, "energy_pass": {"elapsed_s": 2.0, "other_cpu_s": 1.2}})
FOREIGN = contention.warnings({"elapsed_s": 2.0, "gpu": {"foreign_processes": 2}})
HOT = contention.warnings({"elapsed_s": 2.0, "gpu": {"thermal_throttled_s": 1.0}})
SLOWED = contention.warnings({"elapsed_s": 2.0, "gpu": {"throttle_reasons": 0x40}})
METRIC_SET = METRICS | {
    "kid": metric("kid", "quality_set", "1", "lower"),
    "relative_error": metric("relative_error", "quality_continuous", "1", "lower", "mean"),
    "words": metric("words", "noisy", "s", "lower"),
}
LEVELS = (0.0, 0.004, -0.004, 0.002, -0.002)  # of the stored sessions, in log


def case(name: str, **axes: Any) -> Case:
    return Case(model=name, **axes)


def processes(name: str | Case, samples: dict[str, list[Any]], **changes: Any) -> list[Measurement]:
    """Three processes of a case; `changes` replace fields of each."""
    facts = changes.pop("facts", {})
    missing = changes.pop("missing", None)
    found = measured(samples, name if isinstance(name, Case) else case(name), missing, **facts)
    return [replace(m, **changes) for m in found]


def latency(value: float, spread: float = 0.002) -> dict[str, list[Any]]:
    return {"latency_s": [[value * (1 + spread * k)] * 3 for k in (0, 1, -1)]}


def ended(name: str | Case, status: Any, reason: str, cause: Cause | None = None) -> list[Measurement]:
    one = name if isinstance(name, Case) else case(name)
    return [Measurement(case=one, replicate=0, status=status, reason=reason, cause=cause)]


def header(name: str, day: int, environment: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    given = {
        "suite": name,
        "metrics": METRIC_SET,
        "environment": environment or ENVIRONMENT,
        "created": CREATED.format(day),
        "finished": CREATED.format(day),
    }
    return given | changes


def write_run(run: Run, *, controls: bool = True) -> Path:
    folder = ROOT / "runs" / run.id
    storage.create(folder, run)
    for measurement in (*run.measurements, *run.superseded):
        storage.append(folder, measurement)
    for control in run.controls:
        storage.append_control(folder, control)
    return folder


def store(name: str, sessions: Sequence[Run], days: Sequence[int] | None = None, *, reference: bool = False) -> Path:
    """A store of sessions, saved by the version's own `save`, forced where rows are not ok."""
    root = ROOT / "stores" / name
    root.mkdir(parents=True, exist_ok=True)
    for number, session in enumerate(sessions):
        day = days[number] if days else number + 1
        baselines.store.now = lambda day=day: CREATED.format(day)  # type: ignore[attr-defined]
        kept = baselines.store.save_reference if reference else baselines.store.save
        kept(session, "planted", root, force=True)
    return root


def compared(name: str, run: str, store_name: str, *options: str) -> None:
    COMPARED[name] = {"run": run, "store": store_name, "options": list(options)}


Rows = Callable[[float], list[Measurement]]  # of a session at a level (log); the run itself has a function of its own


def group(name: str, then: Rows, now: list[Measurement], sessions: int = 4, *options: str, **changes: Any) -> None:
    """A run `name` against a store `name` of sessions that lie at LEVELS."""
    stored = [run_of(then(LEVELS[i]), f"{name}-s{i}", **header(name, i + 1)) for i in range(sessions)]
    run = run_of(now, name, **header(name, 20, **changes))
    store(name, stored)
    write_run(run)
    compared(name, name, name, *options)


def at(level: float, value: float = 0.01) -> float:
    return value * float(np.exp(level))


def speed() -> None:
    names = ("slower", "faster", "same", "open", "one_disturbed", "rate_down", "suspect_alone")

    def then(level: float) -> list[Measurement]:
        found = [m for n in names if n != "rate_down" for m in processes(n, latency(at(level)))]
        found += [m for n in ("wide",) for m in processes(n, latency(at(level * 12)))]
        return found + processes("rate_down", {"rate": [[at(level, 100.0)]] * 3})

    now = [
        *processes("slower", latency(0.013)),
        *processes("faster", latency(0.008)),
        *processes("same", latency(0.01)),
        *processes("open", latency(0.0101, 0.03)),
        *processes("one_disturbed", {"latency_s": [[0.0101], [0.012], [0.0123]]}),
        *processes("rate_down", {"rate": [[80.0]] * 3}),
        *processes("suspect_alone", latency(0.01065)),
        *processes("wide", latency(0.0107)),
    ]
    group("speed-mixed", then, now)
    quiet = [m for m in now if m.case.model in {"same", "open"}]
    group("speed-fine", lambda level: [m for m in then(level) if m.case.model in {"same", "open"}], quiet)
    group("speed-improved", lambda level: processes("faster", latency(at(level))), processes("faster", latency(0.008)))
    group(
        "speed-one-session",
        lambda level: processes("slower", latency(at(level))),
        processes("slower", latency(0.02)),
        1,
    )
    group("speed-open", lambda level: processes("wide", latency(at(level * 12))), processes("wide", latency(0.0107)))

    many = [f"row_{i}" for i in range(24)]

    def crowd(level: float) -> list[Measurement]:
        return [m for i, n in enumerate(many) for m in processes(n, latency(at(level * (1 if i % 2 else -1))))]

    group(
        "speed-suspects-in-a-crowd",
        crowd,
        [
            m
            for i, n in enumerate(many)
            for m in processes(n, latency({3: 0.01045, 7: 0.0096, 9: 0.01039}.get(i, 0.01)))
        ],
    )


def contended() -> None:
    names = [f"row_{i}" for i in range(6)]

    def then(level: float) -> list[Measurement]:
        return [m for n in names for m in processes(n, latency(at(level)) | {"energy_per_image_j": [[1.0]] * 3})]

    def now(busy: dict[int, tuple[str, ...]]) -> list[Measurement]:
        found = []
        for i, n in enumerate(names):
            found += processes(
                n, latency(0.013 if i == 0 else 0.01) | {"energy_per_image_j": [[1.0]] * 3}, warnings=busy.get(i, ())
            )
        return found

    for number, words in enumerate((BUSY, STOLEN, QUOTA, ENERGY_BUSY, FOREIGN, HOT, SLOWED)):
        group(f"contended-one-row-{number}", then, [m for m in now({1: words}) if m.case.model != "row_0"])
    group("contended-and-regressed", then, now({0: BUSY}))
    group("contended-run", then, now({0: BUSY, 1: STOLEN, 2: BUSY}))
    # Enough quiet processes are left: the busy one does not count.
    spare = now({})
    spare += [replace(m, replicate=m.replicate + 3, warnings=BUSY) for m in now({})[:3]]
    group("contended-with-quiet-processes-left", then, spare)

    def busy_then(level: float) -> list[Measurement]:
        return [replace(m, warnings=BUSY) if m.case.model == "row_1" else m for m in then(level)]

    group("contended-in-every-session", busy_then, [m for m in now({}) if m.case.model != "row_0"])
    # Attempts: the first quiet ok one counts, a failure after ok counts, a failure of the environment does not.
    tries = []
    for m in now({})[3:]:
        tries += [m]
    first = tries[0]
    others = [
        replace(first, attempt=0, warnings=BUSY, samples={"latency_s": [0.02] * 3}),
        replace(first, attempt=1, warnings=STOLEN, samples={"latency_s": [0.018] * 3}),
        replace(first, attempt=2, samples={"latency_s": [0.01] * 3}),
        replace(first, attempt=3, samples={"latency_s": [0.011] * 3}),
    ]
    second = tries[3]
    others += [
        replace(second, attempt=0, warnings=BUSY),
        replace(second, attempt=1, warnings=QUOTA, samples={"latency_s": [0.03] * 3}),
    ]
    third = tries[6]
    bare = {"samples": {}, "facts": {}}
    others += [
        replace(third, attempt=0),
        replace(third, attempt=1, status="failed", reason=told(Cause.DISK_FULL), cause=Cause.DISK_FULL, **bare),
    ]
    fourth = tries[9]
    others += [
        replace(fourth, attempt=0),
        replace(fourth, attempt=1, status="failed", reason="ValueError: it broke", **bare),
    ]
    left = [m for m in tries if m not in (first, second, third, fourth)]
    group("contended-retries", then, [*others, *left], superseded=())


def told(cause: Cause) -> str:
    return causes.sentence(cause, "OSError: it happened")


def quality() -> None:
    items = [1.0] * 200

    def flipped(lost: int, won: int = 0) -> list[float]:
        values = list(items)
        values[:lost] = [0.0] * lost
        return values

    base_items = [0.0] * 20 + [1.0] * 180

    def now_items(lost: int, won: int) -> list[float]:
        values = list(base_items)
        values[:won] = [1.0] * won
        values[20 : 20 + lost] = [0.0] * lost
        return values

    rows: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "items_same": ({"top1": base_items}, {"top1": now_items(1, 1)}),
        "items_lost": ({"top1": base_items}, {"top1": now_items(19, 0)}),
        "items_won": ({"top1": base_items}, {"top1": now_items(0, 16)}),
        "items_open": ({"top1": [1.0] * 20}, {"top1": [0.0] * 3 + [1.0] * 17}),
        "items_other_count": ({"top1": base_items}, {"top1": base_items[:100]}),
        "items_not_binary": ({"top1": base_items}, {"top1": [0.5] * 200}),
        "items_identical": ({"top1": base_items}, {"top1": base_items}),
        "psnr_both_high": ({"psnr_db": [70.0]}, {"psnr_db": [64.0]}),
        "psnr_lower": ({"psnr_db": [40.0]}, {"psnr_db": [39.0]}),
        "psnr_within": ({"psnr_db": [40.0]}, {"psnr_db": [39.8]}),
        "cosine_lower": ({"cosine_similarity": [0.999]}, {"cosine_similarity": [0.95]}),
        "cosine_within": ({"cosine_similarity": [0.999]}, {"cosine_similarity": [0.998]}),
        "cosine_higher": ({"cosine_similarity": [0.95]}, {"cosine_similarity": [0.999]}),
        "error_up": ({"relative_error": [0.1]}, {"relative_error": [0.2]}),
        "error_within": ({"relative_error": [0.1]}, {"relative_error": [0.11]}),
        "fid_within": ({"fid": [10.0]}, {"fid": [10.5]}),
        "fid_up": ({"fid": [10.0]}, {"fid": [12.0]}),
        "fid_down": ({"fid": [10.0]}, {"fid": [8.0]}),
    }
    then = lambda level: [m for n, (a, _) in rows.items() for m in processes(n, a)]  # noqa: E731
    group("quality-all", then, [m for n, (_, b) in rows.items() for m in processes(n, b)])
    for name in (
        "items_lost",
        "items_won",
        "items_open",
        "psnr_lower",
        "cosine_lower",
        "fid_up",
        "fid_down",
        "error_up",
    ):
        a, b = rows[name]
        group(f"quality-{name.replace('_', '-')}", lambda _, a=a, n=name: processes(n, a), processes(name, b))

    crowd = [f"row_{i}" for i in range(12)]
    lost = {name: now_items(8, 0) if i == 4 else now_items(1, 1) for i, name in enumerate(crowd)}
    group(
        "quality-suspect-in-a-crowd",
        lambda _: [m for n in crowd for m in processes(n, {"top1": base_items})],
        [m for n in crowd for m in processes(n, {"top1": lost[n]})],
    )

    def none(name: str, reason: str = IDENTICAL) -> list[Measurement]:
        return processes(name, {"parameters": [5.0]}, missing={"psnr_db": reason})

    identical_then = lambda level: [  # noqa: E731
        *none("both"),
        *processes("now", {"psnr_db": [40.0], "parameters": [5.0]}),
        *none("before"),
        *none("before_high"),
        *none("not_any_more", IDENTICAL),
        *processes("lost_reason", {"psnr_db": [40.0], "parameters": [5.0]}),
        *processes("lost", {"psnr_db": [40.0], "parameters": [5.0]}),
        *none("other_words", "PSNR is for images; this output is logits"),
    ]
    identical_now = [
        *none("both"),
        *none("now"),
        *processes("before", {"psnr_db": [40.0], "parameters": [5.0]}),
        *processes("before_high", {"psnr_db": [75.0], "parameters": [5.0]}),
        *none("not_any_more", "there is no fp32 reference: RuntimeError: it broke"),
        *none("lost_reason", "there is no fp32 reference: RuntimeError: it broke"),
        *processes("lost", {"parameters": [5.0]}),
        *processes("other_words", {"psnr_db": [40.0], "parameters": [5.0]}),
    ]
    group("quality-identical-pictures", identical_then, identical_now)
    better = {"both", "now", "before_high"}
    group(
        "quality-identical-pictures-fine",
        lambda _: [m for m in identical_then(0) if m.case.model in better],
        [m for m in identical_now if m.case.model in better],
    )

    generator = np.random.default_rng(3)
    reference = generator.normal(0, 1, (60, 6))
    clean = generator.normal(0, 1, (60, 6))
    sets = {
        "set_same": (clean, clean + generator.normal(0, 0.01, clean.shape), 10.0, 10.01),
        "set_worse": (clean, clean + 1.5, 1.0, 3.0),
        "set_better": (clean + 1.5, clean, 3.0, 1.0),
        "set_open": (clean, generator.normal(0.2, 1.2, clean.shape), 0.5, 0.8),
        "set_few": (clean[:8], clean[:8] + 1, 1.0, 2.0),
        "set_other_shape": (clean, clean[:40], 1.0, 2.0),
    }
    old, new = [], []
    for name, (a, b, before, after) in sets.items():
        for distance in ("fid", "kid"):
            one = case(f"{name}_{distance}")
            old += processes(one, {distance: [before]}, facts={"picture_set": encode(a, reference)})
            new += processes(one, {distance: [after]}, facts={"picture_set": encode(b, reference)})
    group("quality-picture-sets", lambda _: old, new, 1)
    conditions = {"quality_conditions": {"items": 12, "reference_hash": "r2"}}
    group(
        "quality-other-conditions",
        lambda _: [
            *processes("other", {"fid": [10.0]}),
            *processes("none", {"fid": [10.0]}, facts={"quality_conditions": None}),
        ],
        [*processes("other", {"fid": [10.0]}, facts=conditions), *processes("none", {"fid": [10.1]})],
    )


def values() -> None:
    rows: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "exact_same": ({"parameters": [5.0]}, {"parameters": [5.0]}),
        "exact_less": ({"weights_bytes": [5e6]}, {"weights_bytes": [4e6]}),
        "exact_more": ({"weights_bytes": [5e6]}, {"weights_bytes": [6e6]}),
        "exact_other_work": ({"parameters": [5.0]}, {"parameters": [6.0]}),
        "exact_varies": ({"parameters": [5.0]}, {"parameters": [[5.0], [6.0], [5.0]]}),
        "exact_a_little": ({"weights_bytes": [5e9]}, {"weights_bytes": [5e9 + 1]}),
        "near_same": ({"peak_allocated_bytes": [[1e9]] * 3}, {"peak_allocated_bytes": [[1.001e9]] * 3}),
        "near_more": ({"peak_allocated_bytes": [[1e9]] * 3}, {"peak_allocated_bytes": [[1.1e9]] * 3}),
        "near_less": ({"peak_allocated_bytes": [[1e9]] * 3}, {"peak_allocated_bytes": [[0.9e9]] * 3}),
        "near_small": ({"peak_allocated_bytes": [[8.0 * MIB]] * 3}, {"peak_allocated_bytes": [[9.5 * MIB]] * 3}),
        "energy_same": ({"energy_per_image_j": [[1.0]] * 3}, {"energy_per_image_j": [[1.05]] * 3}),
        "energy_more": ({"energy_per_image_j": [[1.0]] * 3}, {"energy_per_image_j": [[1.2]] * 3}),
        "energy_less": ({"energy_per_image_j": [[1.0]] * 3}, {"energy_per_image_j": [[0.8]] * 3}),
        "energy_gone": ({"energy_per_image_j": [[1.0]] * 3, "parameters": [5.0]}, {"parameters": [5.0]}),
        "energy_new": ({"parameters": [5.0]}, {"energy_per_image_j": [[1.0]] * 3, "parameters": [5.0]}),
        "advisory": ({"load_s": [[1.0]] * 3, "parameters": [5.0]}, {"load_s": [[9.0]] * 3, "parameters": [5.0]}),
        "zero": ({"latency_s": [[0.01]] * 3}, {"latency_s": [[0.0], [0.01], [0.01]]}),
    }
    group(
        "values-all",
        lambda _: [m for n, (a, _b) in rows.items() for m in processes(n, a)],
        [m for n, (_, b) in rows.items() for m in processes(n, b)],
    )
    for name in (
        "exact_less",
        "exact_more",
        "exact_other_work",
        "near_more",
        "energy_more",
        "energy_new",
        "energy_gone",
        "zero",
    ):
        a, b = rows[name]
        group(f"values-{name.replace('_', '-')}", lambda _, a=a, n=name: processes(n, a), processes(name, b))
    unit = METRIC_SET | {"latency_s": metric("latency_s", "noisy", "ms", "lower")}
    group(
        "values-other-unit",
        lambda level: processes("same", latency(at(level))),
        processes("same", latency(0.01)),
        metrics=unit,
    )
    gone = {name: one for name, one in METRIC_SET.items() if name != "parameters"}
    group(
        "values-not-described",
        lambda _: processes("row", {"parameters": [5.0]}),
        processes("row", {"parameters": [5.0]}),
        metrics=gone,
    )


STATUSES: dict[str, tuple[str, str, Cause | None]] = {
    "failed": ("failed", "ValueError: it broke", None),
    "invalid_output": ("invalid", "cosine -1.0000 to the fp32 eager output is below 0.99", None),
    "invalid_nan": ("invalid", "the output holds NaN", None),
    "oom": ("oom", "OutOfMemoryError: CUDA out of memory", None),
    "oom_kernel": ("oom", causes.sentence(Cause.KERNEL_OUT_OF_MEMORY, ""), Cause.KERNEL_OUT_OF_MEMORY),
    "timeout": ("timeout", "no result after 12 s; it was in phase 'build'", None),
    "skipped": ("skipped", "openvino is not installed", None),
    "unknown": ("failed", "UnknownName: unknown model 'x'", None),
    **{f"env_{c.value}": ("failed", causes.sentence(c, "OSError: it happened"), c) for c in Cause if c.of_environment},
}


def health() -> None:
    ok = lambda name: processes(name, latency(0.01) | {"parameters": [5.0]})  # noqa: E731
    pairs: dict[str, tuple[str, str]] = {}  # name -> (state then, state now)
    for now in STATUSES:
        pairs[f"ok_to_{now}"] = ("ok", now)
    for then in ("failed", "skipped", "oom", "timeout", "invalid_output"):
        for now in ("ok", "failed", "skipped", "invalid_output"):
            pairs[f"{then}_to_{now}"] = (then, now)
    pairs["skipped_to_other_skipped"] = ("skipped", "skipped_otherwise")

    def rows(index: int, names: Sequence[str]) -> list[Measurement]:
        found = []
        for name in names:
            state = pairs[name][index]
            if state == "ok":
                found += ok(name)
            elif state == "skipped_otherwise":
                found += ended(name, "skipped", "no TensorRT here")
            else:
                found += ended(name, *STATUSES[state])
        return found

    group("health-all", lambda _: [*rows(0, list(pairs)), *ok("kept")], [*rows(1, list(pairs)), *ok("kept")])
    singles = ("failed", "invalid_nan", "oom", "timeout", "skipped", "env_killed")
    for name in (
        *(f"ok_to_{state}" for state in singles),
        "skipped_to_skipped",
        "skipped_to_other_skipped",
        "failed_to_ok",
    ):
        group(
            f"health-{name.replace('_', '-')}",
            lambda _, n=name: [*rows(0, [n]), *ok("kept")],
            [*rows(1, [name]), *ok("kept")],
            1,
        )
    # Everything of the baseline is there, and more.
    group("health-new-row", lambda _: ok("kept"), [*ok("kept"), *ok("added")])
    group("health-new-row-allowed", lambda _: ok("kept"), [*ok("kept"), *ok("added")], 4, "--allow-new")
    group("health-new-row-broken", lambda _: ok("kept"), [*ok("kept"), *ended("added", "failed", "ValueError: x")])
    group("health-gone-row", lambda _: [*ok("kept"), *ok("gone")], ok("kept"))
    group("health-gone-row-not-asked-for", lambda _: [*ok("kept"), *ok("gone")], ok("kept"), 4, selection="model=kept")
    planned = (case("kept"), case("gone"))
    group("health-not-run-row", lambda _: [*ok("kept"), *ok("gone")], ok("kept"), cases=planned, finished=None)
    group("health-too-few-processes", lambda _: ok("kept"), ok("kept")[:2])
    group("health-nothing-measured", lambda _: ok("row"), ended("row", "skipped", "no GPU"))
    # Work.
    other = lambda **facts: processes("row", latency(0.01), facts=facts)  # noqa: E731
    kept = other()
    group("work-other", lambda _: other(identity={"steps": 10}, work_hash="w0"), kept)
    group("work-not-recorded", lambda _: other(work_hash=None), kept)
    varies = [replace(m, facts=m.facts | {"work_hash": f"w{i}"}) for i, m in enumerate(kept)]
    group("work-varies", lambda _: kept, varies)
    half = lambda **facts: processes(case("row", precision="fp16"), latency(0.01), facts=facts)  # noqa: E731
    group("work-other-precision", lambda _: half(component_precisions={"vae": "fp32"}), half())
    named = other(identity={"steps": 20, "weights_hash": "by-value"}, work_hash="w9", weights_source="digits")
    group("work-same-by-name", lambda _: other(identity={"steps": 20, "weights_hash": "digits"}), named)
    moved = processes(case("folder", weights="/new/place"), latency(0.01), facts={"weights_hash": "abc"})
    before = lambda _: processes(case("folder", weights="/old/place"), latency(0.01), facts={"weights_hash": "abc"})  # noqa: E731
    group("work-weights-moved", before, moved)


def machines() -> None:
    def rows(level: float) -> list[Measurement]:
        return [
            *processes("row", latency(at(level))),
            *processes("exact", {"parameters": [5.0], "psnr_db": [40.0]}),
            *ended("broken", "skipped", "no GPU"),
        ]

    now = [
        *processes("row", latency(0.013)),
        *processes("exact", {"parameters": [5.0], "psnr_db": [30.0]}),
        *ended("broken", "skipped", "no GPU"),
    ]

    def one(name: str, here: dict[str, Any], there: dict[str, Any], *options: str, **changes: Any) -> None:
        stored = [run_of(rows(LEVELS[i]), f"{name}-s{i}", **header(name, i + 1, there)) for i in range(4)]
        store(name, stored)
        write_run(run_of(now, name, **header(name, 20, here, **changes)))
        compared(name, name, name, *options)

    for path, value in (
        (("versions", "torch"), "2.14.0"),
        (("versions", "diffusers"), "0.43.0"),
        (("host_hash",), "host-b"),
        (("kernel",), "6.2.0"),
        (("threads",), 1),
        (("cpu", "model"), "another CPU"),
        (("cpu", "isa"), "AVX2"),
        (("git", "commit"), "decade"),
        (("shortest_sample_s",), 0.005),
        (("cpu", "model"), None),
    ):
        text = "-".join(path).replace("_", "-")
        one(
            f"machine-{text}{'-unknown' if value is None else ''}",
            changed(copy.deepcopy(ENVIRONMENT), path, value),
            ENVIRONMENT,
        )
    one("machine-gpu", GPU_ENVIRONMENT, GPU_ENVIRONMENT)
    one(
        "machine-gpu-uuid",
        GPU_ENVIRONMENT | {"gpus": [GPU_ENVIRONMENT["gpus"][0] | {"uuid": "GPU-2"}]},
        GPU_ENVIRONMENT,
    )
    one("machine-protocol", ENVIRONMENT, ENVIRONMENT, protocol=replace(PROTOCOL, min_samples=20))
    one(
        "machine-protocol-untimed",
        ENVIRONMENT,
        ENVIRONMENT,
        protocol=replace(PROTOCOL, timeout_s=9.0, contended_retries=0),
    )
    one("machine-stale", ENVIRONMENT, ENVIRONMENT, "--max-age", "5")
    one("machine-partly-stale", ENVIRONMENT, ENVIRONMENT, "--max-age", "17.5")
    # No session at all, and one of another suite.
    write_run(run_of(now, "machine-none", **header("machine-none", 20)))
    compared("machine-none", "machine-none", "machine-stale")
    # The shipped reference: of this machine, and of another one.
    for name, there in (
        ("own", ENVIRONMENT),
        ("other", changed(copy.deepcopy(ENVIRONMENT), ("cpu", "model"), "another CPU")),
    ):
        suite = f"reference-{name}"
        gone = [*rows(0.0), *processes("oom_here", latency(0.01)), *processes("failed_here", latency(0.01))]
        store(suite, [run_of(gone, f"{suite}-r", **header(suite, 1, there))], reference=True)
        here = [
            *now,
            *ended("oom_here", *STATUSES["oom"]),
            *ended("failed_here", *STATUSES["failed"]),
            *processes("added", latency(0.01)),
        ]
        write_run(run_of(here, suite, **header(suite, 20)))
        compared(suite, suite, suite)
        write_run(run_of(now[:6], f"{suite}-fewer", **header(suite, 20, selection="model=row|exact")))
        compared(f"{suite}-fewer", f"{suite}-fewer", suite)
    # A session edited after it was saved, and one copied under another name.
    for name in ("edited", "copied"):
        one(f"machine-{name}", ENVIRONMENT, ENVIRONMENT)
        path = next((ROOT / "stores" / f"machine-{name}").rglob("*s3.json"))
        if name == "edited":
            path.write_text(path.read_text().replace('"planted"', '"planned"', 1))
        else:
            shutil.copy(path, path.with_name("copy.json"))
    # Two of the sessions took shorter samples than the others and the run.
    name, short = "machine-shortest-sample-of-some", changed(copy.deepcopy(ENVIRONMENT), ("shortest_sample_s",), 0.005)
    environments = [short, ENVIRONMENT, short, ENVIRONMENT, ENVIRONMENT, ENVIRONMENT]
    store(name, [run_of(rows(i / 500), f"{name}-s{i}", **header(name, i + 1, e)) for i, e in enumerate(environments)])
    write_run(run_of(now, name, **header(name, 20)))
    compared(name, name, name)
    # A run that is a stored session itself, alone and among others.
    for count in (1, 5):
        name = f"machine-itself-{count}"
        sessions = [run_of(rows(LEVELS[i]), f"{name}-s{i}", **header(name, i + 1)) for i in range(count)]
        store(name, sessions)
        write_run(sessions[-1])
        compared(name, sessions[-1].id, name)


def controls() -> None:
    rows = lambda level: [m for n in ("a", "b", "c", "d", "e", "f") for m in processes(n, latency(at(level)))]  # noqa: E731
    sentinel = lambda found, seconds: [replace(m, state={"sentinel": {"gemm": [seconds] * 3}}) for m in found]  # noqa: E731

    def run(name: str, now: list[Measurement], **changes: Any) -> None:
        stored = [
            run_of(sentinel(rows(LEVELS[i]), at(LEVELS[i], 0.002)), f"{name}-s{i}", **header(name, i + 1))
            for i in range(5)
        ]
        store(name, stored)
        write_run(run_of(now, name, **header(name, 20, **changes)))
        compared(name, name, name)

    def aa(factor: float, count: int = 3, warnings: tuple[str, ...] = ()) -> tuple[Control, ...]:
        one = processes("a", latency(0.01))[:count]
        two = processes("a", latency(0.01 * factor), warnings=warnings)[:count]
        return (*(Control(side="a", measurement=m) for m in one), *(Control(side="b", measurement=m) for m in two))

    slow = [*rows(0.0)[3:], *processes("a", latency(0.013))]
    run("control-quiet", sentinel(slow, 0.002), controls=aa(1.001))
    run("control-moved", sentinel(slow, 0.002), controls=aa(1.2))
    run("control-moved-while-busy", sentinel(slow, 0.002), controls=aa(1.2, warnings=BUSY))
    run("control-one-process", sentinel(slow, 0.002), controls=aa(1.01, 1))
    run("sentinel-moved", sentinel(slow, 0.0024))
    busy = [
        replace(m, state=m.state | {"sentinel_contended": BUSY[0].partition(": ")[2]}) for m in sentinel(slow, 0.0024)
    ]
    run("sentinel-busy", busy)


def warned() -> None:
    """A row for each kind of warning, in the words of the functions that give them."""
    parts = {"vae": share.Share(quantised=10, elements=100, largest_left=("conv.weight", 50))}
    component = Component(name="vae", module=None, inputs=(), force_upcast=True)  # type: ignore[arg-type]
    allowed = threads.Allowed(**{f: getattr(threads.allowed(), f) for f in threads.Allowed.__dataclass_fields__})
    texts = {
        "contended": BUSY,
        "partly_quantised": share.warnings(parts),
        "upcast": upcast_warnings([component], "fp16"),
        "stages": sum_warning({"stage_sum_s": [0.5], "latency_s": [1.0]}),
        "oversubscribed": threads.warnings(allowed.threads.count + 4, allowed),
        "oversubscribed_by_quota": threads.warnings(8, replace(allowed, quota=1.5)),
        "unchecked": (NoReference("RuntimeError: no room; and no time").warning,),
        "reference": (f"reference of the timed batch: {ON_CPU}", f"reference of the quality set: {ON_CPU}"),
        "imprecise": ("imprecise: the median inside a process is known to ±5.0%, asked for was ±2.0%",),
        "unsteady": ("unsteady: warm-up capped at 10 s (the last windows differ by 8.0%)",),
        "not_repeatable": (
            "not repeatable: for one input the outputs of the first and of later iterations differ "
            "(relative error 1e-06)",
        ),
        "clocks": ("clocks: 10.000 ms by the wall clock, 8.000 ms by the GPU's events",),
        "energy": ("energy: the counter moved by 12.0 J, the integrated power gives 9.0 J",),
        "throttled": (str(throttled({"gpu": {"elapsed_s": 1.0, "power_throttled_s": 0.6}})),),
        "no_templates": (
            "no templates: inductor has no Triton templates for matrix products and convolutions on a GPU with 20 "
            "multiprocessors, so max-autotune leaves them to cuBLAS and cuDNN",
        ),
        "schedule": (
            "schedule: DDIMScheduler has no setting use_karras_sigmas, so that True, which these weights ask for, "
            "has no effect",
        ),
        "truncated": (
            "truncated: the tokenizer cuts prompts at 77 tokens, and 1 of 1 prompts of the batch loses 3 tokens",
        ),
        "told": ("told: by the model",),
        "different_outputs": (
            agreement.in_words(agreement.Difference(fact="output_hash", first="a", other="b", error=2e-6)),
        ),
        "different_outputs_unmeasured": (
            agreement.in_words(agreement.Difference(fact="output_hash", first="a", other="b")),
        ),
        "many": (*share.warnings(parts), *BUSY, "told: by the model"),
    }
    found = [m for n, words in texts.items() for m in processes(n, latency(0.01), warnings=tuple(words))]
    for steps in (10, 20, 30):
        found += processes(
            case("same_output", num_steps=steps), latency(0.01), facts={"output_hash": "h", "work_hash": f"w{steps}"}
        )
    names = {"warned", "warned-quiet"}
    for name in sorted(names):
        rows = [m for m in found if name == "warned" or not any("contended" in w for w in m.warnings)]
        store(name, [run_of(rows, f"{name}-s{i}", **header(name, i + 1)) for i in range(4)])
        write_run(run_of(rows, name, **header(name, 20)))
        compared(name, name, name)


def differing() -> None:
    """Rows that are invalid since their processes disagree, in the words of `agreement`, and other reasons."""
    first = processes("row", latency(0.01), facts={"output_hash": "a"})
    found: list[Measurement] = []
    facts: dict[str, tuple[Any, Any]] = dict.fromkeys(agreement.PROVEN, ("a" * 64, "b" * 64))
    facts["elements_by_dtype"] = ({"float32": 10}, {"float16": 10})
    for name, (one, other) in facts.items():
        row = case(f"differs_{name}")
        sound = [replace(m, case=row, facts=m.facts | {name: one}) for m in first]
        found += [
            sound[0],
            *(agreement.checked(sound[0], replace(m, facts=m.facts | {name: other}), "cpu") for m in sound[1:]),
        ]
    write_run(run_of(found, "differing", **header("differing", 20)))
    store("differing", [run_of(first, "differing-s0", **header("differing", 1))])
    compared("differing", "differing", "differing")


def damaged() -> None:
    rows = [*processes("a", latency(0.01)), *processes("b", latency(0.01))]
    store("damaged", [run_of(rows, f"damaged-s{i}", **header("damaged", i + 1)) for i in range(4)])
    base = run_of(rows, "damaged", **header("damaged", 20))
    ways: dict[str, Callable[[Path], object]] = {
        "cut": lambda f: (f / "measurements.jsonl").write_bytes((f / "measurements.jsonl").read_bytes()[:-40]),
        "repeated": lambda f: append(f, (f / "measurements.jsonl").read_text().splitlines()[0]),
        "foreign-case": lambda f: append(
            f, (f / "measurements.jsonl").read_text().splitlines()[0].replace('"model": "a"', '"model": "z"')
        ),
        "other-type": lambda f: replaced(f / "measurements.jsonl", '"replicate": 2', '"replicate": "two"'),
        "field-gone": lambda f: replaced(f / "measurements.jsonl", '"warnings": [], ', ""),
        "unfinished": lambda f: (f / "measurements.jsonl").write_text(
            "\n".join((f / "measurements.jsonl").read_text().splitlines()[:4]) + "\n"
        ),
        "no-measurements": lambda f: (f / "measurements.jsonl").unlink(),
        "controls-cut": lambda f: (f / "controls.jsonl").write_text('{"side": "a", "measu'),
        "header-cut": lambda f: (f / "run.json").write_text((f / "run.json").read_text()[:200]),
        "schema-0": lambda f: replaced(f / "run.json", '"schema": 1', '"schema": 0'),
        "old-protocol": old_protocol,
    }
    for name, damage in ways.items():
        finished = None if name == "unfinished" else base.finished
        folder = write_run(replace(base, id=f"damaged-{name}", finished=finished))
        damage(folder)
        compared(f"damaged-{name}", f"damaged-{name}", "damaged")


def append(folder: Path, line: str) -> None:
    with (folder / "measurements.jsonl").open("a") as file:
        file.write(line + "\n")


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def old_protocol(folder: Path) -> None:
    """As a run before `target_interval` and `contended_retries`."""
    document = json.loads((folder / "run.json").read_text())
    for name in ("target_interval", "contended_retries", "cold_cache"):
        del document["protocol"][name]
    (folder / "run.json").write_text(json.dumps(document))


# Paired runs.

COUNTS = Interleaving(warmups=1, turns=4, samples=5, discarded=0)
Shift = Callable[[int, np.random.Generator], float]


def noise(shift: float, sd: float = 0.004) -> Shift:
    return lambda pair, rng: shift + float(rng.normal(0, sd))


QUIET = noise(0.0)
OUT = {"work_hash": "w", "output_hash": "a", "quality": "none"}
PREFLIGHT_METRICS = {
    m.name: m
    for m in (
        Metric(
            name="peak_host_bytes", unit="B", label="", better="lower", kind="near_exact", description="", summary="max"
        ),
        metric("energy_per_image_j", "energy", "J", "lower", "mean"),
        metric("parameters", "exact", "count", None),
        metric("top1", "quality_item", "share", "higher", "mean"),
        metric("psnr_db", "quality_continuous", "dB", "higher", "mean"),
    )
}


def ab(
    name: str,
    rows: dict[str, Shift],
    *,
    pairs: int = 160,
    preflight: dict[str, tuple[Any, Any]] | None = None,
    fails: dict[tuple[str, str], tuple[str, str]] | None = None,
    busy: Callable[[int], tuple[str, ...]] = lambda pair: (),
    control: Shift = QUIET,
    sentinel: Shift | None = None,
    budget: float = 1e9,
    ended: str | None = "decided",
    starts: dict[str, Shift] | None = None,
    samples: int = 5,
    text: str = "inject:busy=0.05",
    **changes: Any,
) -> None:
    """A paired run whose pairs are drawn, and that goes on as long as the judge wants pairs. `fails`: (row, arm) ->
    (status, reason), from the fourth pair on. Rows that only stand in `preflight` are not timed."""
    rng = np.random.default_rng(7)
    counts = replace(COUNTS, samples=samples)
    given = preflight or {}
    cases = {row: case(row) for row in {**rows, **given}}
    planned = tuple(
        replace(row_of(one, one), interleaving=counts if row in rows else None) for row, one in cases.items()
    )
    ids = {row: one.id for row, one in cases.items()}
    first = next(iter(rows), None)
    run = PairedRun(
        **{
            "id": name,
            "suite": "planted",
            "created": CREATED.format(20),
            "seed": 7,
            "budget_s": budget,
            "device": "cpu",
            "threads": 1,
            "arms": ({"name": "base", "text": "", "injections": []}, {"name": "head", "text": text, "injections": []}),
            "loaded": ({}, {}),
            "proof": ("base: its own code", "head: its own code"),
            "environment": ENVIRONMENT,
            "protocol": Protocol(quality=False, stages=False, target_interval=None),
            "metrics": PREFLIGHT_METRICS | {a.metric.name: a.metric for a in PAIRED_METRICS},
            "rows": planned,
            "control": ids[first] if first else None,
            "sentinels": ("gemm",),
            "finished": CREATED.format(20) if ended else None,
            "ended": ended,
            "rule": 4,
            **changes,
        }
    )
    folder = ROOT / "paired" / name
    folder.mkdir(parents=True)
    paired.write_header(folder, run)
    for row in cases:
        sides = given.get(row, ({"facts": OUT}, {"facts": OUT}))
        for arm, side in zip(("base", "head"), sides, strict=True):
            for number, fields in enumerate(side if isinstance(side, list) else [side]):
                if fields is None:
                    continue
                one = Measurement(**{"case": cases[row], "replicate": number, "status": "ok", **fields})
                paired.append_preflight(folder, ids[row], arm, one)  # type: ignore[arg-type]
    judge = PairedJudge(run)
    by_id = {ids[row]: row for row in cases}
    pair, elapsed = 0, 0.0
    while (wanted := judge.wanted()) and pair < pairs and elapsed < budget:
        for group_name in ("models", CONTROL_GROUP):
            asked = [r for r in by_id if r in wanted] if group_name == "models" else [run.control]
            if not asked:
                continue
            sides = ("base", "head" if group_name == "models" else "control")
            made: dict[str, dict[str, Measurement]] = {side: {} for side in sides}
            for row_id in asked:
                row = by_id[str(row_id)]
                shift = rows[row](pair, rng) if group_name == "models" else control(pair, rng)
                level = 0.01 * float(np.exp(rng.normal(0, 0.02)))
                start = (starts or {}).get(row, noise(0.0))(pair, rng) if group_name == "models" else 0.0
                for side in sides:
                    broken = (fails or {}).get((row, side))
                    if broken and pair >= 3:
                        made[side][str(row_id)] = Measurement(
                            case=cases[row], replicate=pair, status=broken[0], reason=broken[1]
                        )  # type: ignore[arg-type]
                        continue
                    factor = float(np.exp(shift)) if side != "base" else 1.0
                    seconds = [
                        round(level * factor * float(np.exp(rng.normal(0, 0.002))), 9) for _ in range(4 * samples)
                    ]
                    made[side][str(row_id)] = Measurement(
                        case=cases[row],
                        replicate=pair,
                        status="ok",
                        samples={
                            "latency_s": seconds,
                            "load_s": [round(0.5 * (float(np.exp(start)) if side == "head" else 1.0), 9)],
                        },
                        facts={"turns": 4},
                        warnings=busy(pair) if group_name == "models" else (),
                    )
            elapsed += 1.0
            blocks = []
            order = sides if pair % 2 == 0 else sides[::-1]
            for slot, side in enumerate(order):
                moved = sentinel(pair, rng) if sentinel and side == "head" else 0.0
                turns = [round(0.002 * float(np.exp(moved + rng.normal(0, 0.003))), 9) for _ in range(4)]
                blocks.append(
                    Block(
                        pair=pair,
                        slot=slot,
                        arm=side,  # type: ignore[arg-type]
                        group=group_name,
                        phase=judge.phase,
                        server=pair // 8,
                        started=CREATED.format(20),
                        elapsed_s=elapsed + 0.1 * slot,
                        measurements=made[side],
                        sentinel={"gemm": turns} if group_name == "models" else {},
                    )
                )
            for block in blocks:
                paired.append_block(folder, block)
            judge.add(*blocks)
        pair += 1
    if ended is not None:
        storage.write_atomically(folder / "comparison.json", as_json(decide(folder)))


def alternating(size: float, shift: float = 0.0) -> Shift:
    return lambda pair, rng: shift + (size if pair % 2 else -size)


def later(before: Shift, after: Shift, pair_from: int) -> Shift:
    return lambda pair, rng: (before if pair < pair_from else after)(pair, rng)


def paired_runs() -> None:
    ab("ab-equal-arms", {"one": noise(0.0), "two": noise(0.0)}, text="")
    ab("ab-regressed", {"slow": noise(0.10), "quick": noise(-0.08), "same": noise(0.0)})
    ab("ab-by-all-pairs", {f"row_{i}": noise(0.055 if i == 0 else 0.0, 0.012) for i in range(4)}, pairs=90)
    ab("ab-suspicion-ruled-out", {"row": later(noise(0.06), noise(0.0, 0.002), 8)})
    ab("ab-suspicion-left-open", {"row": later(noise(0.06), alternating(0.12), 8)}, pairs=140)
    ab("ab-budget-spent", {"row": alternating(0.08), "other": noise(0.0)}, budget=30, ended="budget")
    ab("ab-too-noisy", {"row": alternating(0.2)}, pairs=130)
    ab("ab-suspect-at-the-end", {"row": noise(0.03, 0.03)}, pairs=14, ended="budget")
    ab("ab-no-pair", {"row": noise(0.0)}, pairs=0, ended="budget")
    ab("ab-other-end", {"row": alternating(0.2)}, pairs=5, ended="nothing could be timed")
    ab("ab-interrupted", {"row": noise(0.10), "other": noise(0.0)}, pairs=12, ended=None)
    ab("ab-start-up", {"row": noise(0.0)}, starts={"row": noise(0.3, 0.01)})
    ab("ab-start-up-a-little", {"row": noise(0.0)}, starts={"row": noise(0.05, 0.002)})
    ab(
        "ab-start-up-taken-back",
        {"row": alternating(0.08)},
        starts={"row": later(noise(0.0, 0.002), alternating(0.5), 8)},
        pairs=30,
    )
    ab("ab-few-samples", {"row": noise(0.0)}, samples=1)
    ab(
        "ab-head-fails",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "head"): ("failed", "ValueError: it broke")},
    )
    ab(
        "ab-base-fails",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "base"): ("failed", "ValueError: it broke")},
    )
    ab(
        "ab-head-out-of-memory",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "head"): ("oom", f"OutOfMemoryError: no room; {TOGETHER}")},
    )
    ab(
        "ab-head-invalid",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "head"): ("invalid", "the output holds NaN")},
    )
    ab(
        "ab-head-times-out",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "head"): ("timeout", "no answer after 9 s")},
    )
    ab(
        "ab-head-fails-after-alarm",
        {"row": later(noise(0.3), noise(0.3), 0), "other": alternating(0.05)},
        fails={("other", "head"): ("oom", "x")},
    )
    ab(
        "ab-control-fails",
        {"row": noise(0.0), "other": noise(0.0)},
        fails={("row", "control"): ("failed", "ValueError: it broke")},
    )
    ab("ab-contaminated", {"slow": noise(0.10), "same": noise(0.0)}, busy=lambda pair: BUSY if pair % 3 == 0 else ())
    ab("ab-some-dropped", {"slow": noise(0.10), "same": noise(0.0)}, busy=lambda pair: STOLEN if pair % 8 == 0 else ())
    ab("ab-gave-up", {"row": noise(0.0)}, busy=lambda pair: QUOTA if pair % 4 else (), budget=60)
    ab("ab-control-moved", {"row": noise(0.08), "other": noise(0.0)}, control=noise(0.12))
    ab("ab-sentinel-moved", {"row": noise(0.08), "other": noise(0.0)}, sentinel=noise(0.08))
    ab("ab-older-rule", {"row": noise(0.10)}, rule=3)
    ok = {"facts": OUT}
    failed = {"status": "failed", "reason": "ValueError: it broke"}
    skipped = {"status": "skipped", "reason": "openvino is not installed"}
    unknown = {"status": "failed", "reason": "UnknownName: unknown model 'm'"}
    oom = {"status": "oom", "reason": "OutOfMemoryError: no room"}
    invalid = {"status": "invalid", "reason": "the output holds NaN"}
    killed = {"status": "failed", "reason": told(Cause.KILLED), "cause": Cause.KILLED}
    known = {
        "ok": ok,
        "failed": failed,
        "skipped": skipped,
        "unknown": unknown,
        "oom": oom,
        "invalid": invalid,
        "killed": killed,
        "none": None,
        "part": [ok, failed],
    }
    states = {f"{a}_and_{b}": (known[a], known[b]) for a in known for b in known if (a, b) != ("ok", "ok")}
    ab("ab-states", {"timed": noise(0.0, 0.002)}, pairs=8, preflight=states)
    for name in (
        *("ok_and_failed", "ok_and_invalid", "ok_and_oom", "ok_and_killed", "ok_and_skipped", "ok_and_none"),
        *(
            "failed_and_ok",
            "failed_and_failed",
            "skipped_and_ok",
            "skipped_and_skipped",
            "unknown_and_ok",
            "part_and_ok",
        ),
    ):
        ab(f"ab-{name.replace('_', '-')}", {"timed": noise(0.0, 0.002)}, pairs=8, preflight={"row": states[name]})
    ab("ab-nothing-timed", {}, preflight={"row": (skipped, skipped)}, control=noise(0.0))
    figures = lambda facts=OUT, warnings=(), **samples: {"facts": facts, "samples": samples, "warnings": warnings}  # noqa: E731
    judged = OUT | {"output_hash": "b", "quality_conditions": {"items": 40}}
    del judged["quality"]
    mine = {k: v for k, v in OUT.items() if k != "quality"}
    sides: dict[str, tuple[Any, Any]] = {
        "energy_more": (figures(energy_per_image_j=[1.0]), figures(energy_per_image_j=[2.0])),
        "energy_busy": (figures(energy_per_image_j=[1.0], warnings=ENERGY_BUSY), figures(energy_per_image_j=[2.0])),
        "energy_gone": (
            figures(energy_per_image_j=[1.0]),
            figures() | {"missing": {"energy_per_image_j": "the counter did not move in 1.0 s"}},
        ),
        "energy_new": (figures(), figures(energy_per_image_j=[2.0])),
        "memory_once": (figures(peak_host_bytes=[1e9]), figures(peak_host_bytes=[2e9])),
        "memory_thrice": ([figures(peak_host_bytes=[1e9])] * 3, [figures(peak_host_bytes=[2e9])] * 3),
        "memory_less": ([figures(peak_host_bytes=[2e9])] * 3, [figures(peak_host_bytes=[1e9])] * 3),
        "other_count": (figures(parameters=[5.0]), figures(parameters=[6.0])),
        "other_work": (figures(OUT | {"work_hash": "w0"}), figures()),
        "outputs_differ": (figures(mine), figures(mine | {"output_hash": "b"})),
        "outputs_differ_judged": (
            figures(judged | {"output_hash": "a"}, top1=[1.0] * 40),
            figures(judged, top1=[0.0] * 12 + [1.0] * 28),
        ),
        "outputs_differ_open": (
            figures(judged | {"output_hash": "a"}, top1=[1.0] * 40),
            figures(judged, top1=[0.0] * 3 + [1.0] * 37),
        ),
        "outputs_differ_no_judge": (figures(OUT), figures(OUT | {"output_hash": "b"})),
        "pictures_identical": (figures() | {"missing": {"psnr_db": IDENTICAL}}, figures(psnr_db=[40.0])),
    }
    for name in (
        "energy_more",
        "memory_once",
        "memory_thrice",
        "other_count",
        "outputs_differ",
        "outputs_differ_judged",
    ):
        both = sides[name]
        ab(f"ab-{name.replace('_', '-')}", {"row": noise(0.0, 0.002)}, pairs=8, preflight={"row": both})
    ab("ab-preflight-all", {name: noise(0.0, 0.002) for name in sides}, pairs=8, preflight=sides)


TOGETHER = "both arms of a pair are in memory at once; each had enough when it was measured alone"


def main() -> None:
    for folder in ("runs", "stores", "paired"):
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
    for plant in (
        speed,
        contended,
        quality,
        values,
        health,
        machines,
        controls,
        warned,
        differing,
        damaged,
        paired_runs,
    ):
        plant()
    # A hand-edited decision: replay has to find the difference.
    for entry in COMPARED.values():
        folder = ROOT / "runs" / entry["run"]
        cli.main(
            [
                "compare",
                str(folder),
                "--store",
                str(ROOT / "stores" / entry["store"]),
                "--budget",
                "0",
                *entry["options"],
            ]
        )
    edited = ROOT / "runs" / "speed-mixed" / "comparison.json"
    edited.write_text(edited.read_text().replace('"regressed"', '"unchanged"', 1))
    edited = ROOT / "paired" / "ab-regressed" / "comparison.json"
    shutil.copytree(edited.parent, ROOT / "paired" / "ab-edited-decision")
    edited = ROOT / "paired" / "ab-edited-decision" / "comparison.json"
    edited.write_text(edited.read_text().replace('"regressed"', '"unchanged"', 1))
    (ROOT / "compared.json").write_text(json.dumps(COMPARED, indent=1))


if __name__ == "__main__":
    main()
