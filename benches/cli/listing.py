"""`imgbench list`: the entries of the registries, as a table or as JSON."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from typing import Any, Final

import benches
from baselines.verdict import FINE
from benches.cli.arguments import add_device
from benches.cli.printing import print_rows, say_json
from harness.registry import BACKENDS, DEVICES, GPUS, MODELS, OPTIMIZATIONS, PRECISIONS, PROBES, SCHEDULERS
from harness.types import Metric
from harness.units import format_value

Row = dict[str, Any]
# The modules that fill each registry.
FILLED_BY: Final = {
    "suites": ("harness.backends", "benches.models"),
    "models": ("benches.models",),
    "backends": ("harness.backends",),
    "schedulers": ("benches.schedulers",),
    "optimizations": ("harness.backends",),
    "metrics": ("harness.probes", "benches.models"),
    "precisions": ("harness.numerics.precisions",),
    "devices": ("harness.devices",),
    "gpus": ("harness.devices.gpus",),
}

LISTED: Final = (
    *("suites", "models", "backends", "precisions", "schedulers", "optimizations", "metrics", "devices", "gpus"),
)


def arguments(command: ArgumentParser) -> None:
    command.add_argument("what", choices=LISTED, help="what to list")
    add_device(command, "with backends: check which precisions each backend runs on this device (imports torch)")
    command.add_argument("--json", action="store_true", help="print JSON")


def run(options: Namespace) -> int:
    for module in FILLED_BY.get(options.what, benches.PLUGINS):
        importlib.import_module(module)
    found = rows(options.what, options.device)
    if options.json:
        say_json(found)
    else:
        print_rows(for_people(options.what, found))
    return FINE


def rows(what: str, device: str | None = None) -> list[Row]:
    """One mapping per entry of the registry `what`, with JSON types only."""
    kinds = {
        "suites": _suites,
        "models": _models,
        "schedulers": _schedulers,
        "metrics": _metrics,
        "optimizations": _optimizations,
        "precisions": _precisions,
        "devices": _devices,
        "gpus": _gpus,
    }
    return kinds.get(what, lambda: _checked_backends(device) if device else _backends())()


def for_people(what: str, found: list[Row]) -> list[Row]:
    """The same rows, with nested values as text."""
    if what == "backends" and any("precisions" in r for r in found):
        return [
            {
                "name": r["name"],
                "device": r["device"],
                "precisions": ", ".join(p for p, reason in r["precisions"].items() if reason is None) or "none",
                "why not the others": r["reason"]
                or "; ".join(f"{p}: {reason}" for p, reason in r["precisions"].items() if reason),
            }
            for r in found
        ]
    if what == "optimizations":
        return [{**r, "backends": ", ".join(r["backends"]), "devices": ", ".join(r["devices"])} for r in found]
    if what == "models":
        return [
            {
                "name": r["name"],
                "family": r["family"],
                "parameters": format_value(r["parameters"], "count"),
                "weights": ", ".join(r["weights"]),
                "axes": ", ".join(f"{k}={v}" for k, v in r["axes"].items()),
            }
            for r in found
        ]
    return found


def _suites() -> list[Row]:
    from benches import suites

    found = [suites.find(name) for name in suites.names()]
    return [
        {
            "name": s.name,
            "cases": len(s.cases),
            "processes": s.protocol.replicates,
            "description": s.description.strip(),
        }
        for s in found
    ]


def _models() -> list[Row]:
    return [{"name": m.name, **m.info, "weights": list(m.weights), "axes": dict(m.axes)} for m in MODELS.values()]


def _schedulers() -> list[Row]:
    return [
        {"name": name, "description": s.description, "model_calls_for_20_steps": s.evaluations(20)}
        for name, s in SCHEDULERS.items()
    ]


def _optimizations() -> list[Row]:
    return [
        {
            "name": name,
            "description": entry.description,
            "backends": list(entry.backends),
            "devices": list(entry.devices),
        }
        for name, entry in OPTIMIZATIONS.items()
    ]


def _precisions() -> list[Row]:
    return [{"name": name, "description": p.description, "weights": p.weights} for name, p in PRECISIONS.items()]


def _devices() -> list[Row]:
    reasons = {name: device.unavailable() for name, device in DEVICES.items()}
    return [
        {"name": name, "available": reason is None, "reason": None if reason is None else str(reason)}
        for name, reason in reasons.items()
    ]


def _gpus() -> list[Row]:
    return [{"name": name, "figures": gpu.figures(), "source": gpu.source} for name, gpu in GPUS.items()]


def _metrics() -> list[Row]:
    from harness import derived_metrics

    measured = [m for p in sorted(PROBES.values(), key=lambda p: p.order) for m in p.metrics]
    return [_metric(m) for m in (*measured, *derived_metrics.METRICS)] + _stage_and_quality()


def _metric(metric: Metric) -> Row:
    return {
        "name": metric.name,
        "unit": metric.unit,
        "better": metric.better,
        "kind": metric.kind,
        "description": metric.description,
    }


def _stage_and_quality() -> list[Row]:
    from benches.models.digits import QUALITY_METRICS
    from benches.models.pipeline import PIPELINES
    from harness.probes.stages import component_metric

    networks = dict.fromkeys(network.name for pipeline in PIPELINES.values() for network in pipeline.networks)
    stages = [component_metric(name) for name in (*networks, "classifier")]
    return [_metric(m) for m in (*stages, *QUALITY_METRICS)]


def _backends() -> list[Row]:
    return [{"name": n, "label": b.label, "description": b.description} for n, b in BACKENDS.items()]


def _checked_backends(device: str) -> list[Row]:
    """Every backend with its precisions: None if the precision runs on `device`, else the reason."""
    from harness import backends

    found = []
    for name, backend in BACKENDS.items():
        reasons = {p: backends.unavailable(name, p, device) for p in PRECISIONS}
        precisions = {p: None if reason is None else str(reason) for p, reason in reasons.items()}
        available = None in precisions.values()
        found.append(
            {
                "name": name,
                "label": backend.label,
                "description": backend.description,
                "device": device,
                "available": available,
                "reason": None if available else next(iter(precisions.values())),
                "precisions": precisions,
            }
        )
    return found
