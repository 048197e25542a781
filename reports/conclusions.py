"""The findings of a run as sentences, computed from its rows. Only ok rows that do the same work are ranked, and a row
with visibly worse quality does not rank first. Rows whose intervals overlap are "not separable".

Texts mark emphasis with **two stars**. They are otherwise plain text, and the caller escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baselines.verdict import Comparison
from harness.types import STATUSES, Metric
from harness.units import counted, format_value
from reports.rows import (
    WORK,
    Row,
    bounds,
    by_model,
    by_work_and_batch,
    engine,
    measured,
    quality_metrics,
    reference_of,
    separable,
    varying,
    visibly_worse,
    warnings_of,
    work_label,
)
from reports.section import ReportData
from reports.wording import bounds_text, estimate, listed, most_common, outcomes_text, ratio_text, value_text

GROUPS_PER_MODEL = 3
STATUS_WORDS = {"oom": "out of memory", "timeout": "timed out", "not_run": "not run"}


@dataclass(frozen=True, kw_only=True)
class Race:
    """Rows of equal work and batch size, ranked by latency.

    `tied` rows cannot be separated from the winner. `disqualified` rows are faster but have visibly worse quality.
    `unchecked` rows are faster, but their output was not compared with an fp32 reference.
    """

    where: str
    rows: tuple[Row, ...]
    winner: Row
    reference: Row | None
    tied: tuple[Row, ...]
    disqualified: tuple[Row, ...]
    unchecked: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFindings:
    """The findings about one model: its rankings, and sentences on its quality."""

    run: str
    model: str
    weights: str
    races: tuple[Race, ...]
    more_races: int
    sentences: tuple[str, ...]


def model_findings(data: ReportData) -> list[ModelFindings]:
    """Findings by (run, model, weights), in the order of the cases."""
    found = []
    for (run, model, weights), rows in by_model(measured(data, "latency_s")).items():
        axes = [axis for axis in varying(rows, (*WORK, "batch_size")) if axis not in ("run", "model", "weights")]
        groups = sorted(by_work_and_batch(rows).values(), key=lambda g: (-len(g), -g[0]["batch_size"]))
        races = [race(group, axes, data) for group in groups]
        found.append(
            ModelFindings(
                run=run, model=model, weights=weights, races=tuple(races[:GROUPS_PER_MODEL]),
                more_races=max(0, len(races) - GROUPS_PER_MODEL), sentences=(*_precisions(rows), *_losses(rows, data)),
            )
        )  # fmt: skip
    return found


def race(rows: Sequence[Row], axes: Sequence[str], data: ReportData) -> Race:
    """The ranking of rows that do equal work."""
    quality = quality_metrics(rows, data.metrics)
    reference = reference_of(rows[0], rows)
    ordered = sorted(rows, key=lambda row: row["latency_s"])
    worse = [r for r in ordered if reference and any(visibly_worse(r, reference, m) for m in quality)]
    unchecked = [r for r in ordered if r not in worse and "unchecked" in dict(warnings_of(r))]
    fit = [r for r in ordered if r not in worse and r not in unchecked] or unchecked
    winner = fit[0]
    batch = () if "batch_size" in axes else ("batch_size",)
    return Race(
        where=work_label(rows[0], (*axes, *batch)),
        rows=tuple(ordered),
        winner=winner,
        reference=reference,
        tied=tuple(r for r in fit[1:] if separable(winner, r, "latency_s") is False),
        disqualified=tuple(r for r in worse if r["latency_s"] < winner["latency_s"]),
        unchecked=tuple(r for r in unchecked if r["latency_s"] < winner["latency_s"]),
    )


def race_sentences(found: Race, data: ReportData) -> Iterator[str]:
    """The ranking as sentences, the result first."""
    latency, winner = data.metrics["latency_s"], found.winner
    per_image = format_value(winner["latency_s"] / winner["batch_size"], "s")
    share = f" ({per_image} per image)" if winner["batch_size"] > 1 else ""
    timing = f"**{value_text(winner, latency)}** {bounds_text(winner, latency)}".rstrip() + share
    if len(found.rows) == 1:
        yield f"One valid row at {found.where}: {engine(winner)}, {timing}.{_quality_clause(found, data)}"
        return
    head = "Lowest median" if found.tied else "Fastest valid row"
    yield f"{head} at {found.where}: **{engine(winner)}**, {timing}{_speedup(found)}.{_quality_clause(found, data)}"
    if found.tied:
        others = [f"{engine(r)} ({estimate(r, latency)})" for r in found.tied]
        yield f"It is not separable from {listed(others)}, because the 95 % intervals overlap."
    for row in found.disqualified[:2]:
        words = "has visibly worse quality"
        yield f"{engine(row)} is faster ({estimate(row, latency)}) but {words}, so it does not rank first."
    for row in found.unchecked[:2]:
        told = "its output was not compared with fp32 eager"
        yield f"{engine(row)} is faster ({estimate(row, latency)}) but {told}, so it does not rank first."


def speedup(row: Row, reference: Row) -> tuple[float, float | None, float | None]:
    """The speed relative to the reference, with the bounds that follow from the two intervals."""
    ratio = reference["latency_s"] / row["latency_s"]
    ours, theirs = bounds(row, "latency_s"), bounds(reference, "latency_s")
    return (ratio, theirs[0] / ours[1], theirs[1] / ours[0]) if ours and theirs else (ratio, None, None)


def _speedup(found: Race) -> str:
    if found.reference is None:
        return "; there is no valid eager fp32 row to compare with"
    if found.winner is found.reference:
        return ", which is the reference"
    ratio = speedup(found.winner, found.reference)
    if separable(found.winner, found.reference, "latency_s") is False:
        return f", {ratio_text(*ratio)} the speed of eager fp32, which is not separable"
    return f", **{ratio_text(ratio[0])}**{ratio_text(*ratio)[len(ratio_text(ratio[0])) :]} the speed of eager fp32"


def _quality_clause(found: Race, data: ReportData) -> str:
    """' Top-1 99.0 % [..] against 99.2 % [..] in eager fp32 (intervals overlap).'"""
    clauses = []
    metrics = quality_metrics([found.winner], data.metrics)
    worse = [m for m in metrics[1:] if found.reference and visibly_worse(found.winner, found.reference, m)]
    for metric in (*metrics[:1], *worse):
        words = f"{metric.label} {estimate(found.winner, metric)}"
        reference = found.reference
        if reference is not None and reference is not found.winner and reference.get(metric.name) is not None:
            words += _against(found.winner, reference, metric)
        clauses.append(words)
    return f" {'; '.join(clauses)}." if clauses else ""


def _against(row: Row, reference: Row, metric: Metric) -> str:
    if row[metric.name] == reference[metric.name]:
        return ", equal to eager fp32"
    apart = separable(row, reference, metric.name)
    verdict = {True: "intervals do not overlap", False: "intervals overlap", None: "no interval"}[apart]
    return f" against {estimate(reference, metric)} of eager fp32 ({verdict})"


def _precisions(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence on the speed of eager in each precision, at the largest batch size that has it."""
    told: dict[str, str] = {}
    for row in sorted(rows, key=lambda r: r["batch_size"], reverse=True):
        reference = reference_of(row, rows)
        plain = row["backend"] == "eager" and row["precision"] != "fp32" and not row.get("optimizations")
        if plain and reference is not None and row["precision"] not in told:
            apart = "" if separable(row, reference, "latency_s") is not False else ", not separable"
            ratio = ratio_text(*speedup(row, reference))
            told[row["precision"]] = f"{row['precision']} **{ratio}** (batch {row['batch_size']}{apart})"
    if told:
        yield f"Speed of eager relative to fp32: {listed(list(told.values()), limit=9)}."


def _losses(rows: Sequence[Row], data: ReportData) -> Iterator[str]:
    """One sentence on the rows with visibly worse quality than eager fp32."""
    quality = quality_metrics(rows, data.metrics)
    axes = [axis for axis in varying(rows, (*WORK, "batch_size")) if axis not in ("run", "model", "weights")]
    lost = []
    for row in rows:
        reference = reference_of(row, rows)
        metric = next((m for m in quality if reference and visibly_worse(row, reference, m)), None)
        if reference and metric:
            where = work_label(row, axes)
            against = f"{metric.label} {value_text(row, metric)} against {value_text(reference, metric)}"
            lost.append(f"{engine(row)}{f' at {where}' if where else ''} ({against})")
    if lost:
        verb = "has" if len(lost) == 1 else "have"
        yield f"**{counted(len(lost), 'row')} {verb} visibly worse quality** than eager fp32: {listed(lost)}."


def status_counts(data: ReportData) -> dict[str, int]:
    """The number of rows of each status that occurs, ok first."""
    statuses = list(data.cases["status"])
    return {s: statuses.count(s) for s in (*STATUSES, "not_run") if s in statuses}


def status_words(status: str) -> str:
    return STATUS_WORDS.get(status, status)


def overview(data: ReportData) -> Iterator[str]:
    """Sentences on the whole report: rows by status, metrics without a value, and verdicts."""
    counts = status_counts(data)
    if not counts:
        yield "The run has no cases: nothing was planned or measured."
        return
    parts = listed([f"{number} {status_words(status)}" for status, number in counts.items()], limit=9)
    total = sum(counts.values())
    yield f"**{counted(total, 'row')}**: {parts}."
    if "ok" not in counts:
        yield "**No row is valid**, so nothing is ranked or plotted; the reasons are under Problems."
    yield from _unmeasured_sentences(data)
    yield from _trust(data)
    for comparison in data.comparisons:
        yield comparison_sentence(comparison)


def _unmeasured_sentences(data: ReportData) -> Iterator[str]:
    """Sentences on metrics that no row has: energy with its reason, the others by name."""
    absent = unmeasured(data)
    energy = {reason for metric, reason in absent if metric.kind == "energy"}
    for reason in sorted(energy):
        labels = [metric.label for metric, why in absent if why == reason]
        words = listed([labels[0], *map(_inside, labels[1:])], limit=6)
        yield f"**{words} could not be measured** on any row: {reason.rstrip('.')}."
    rest = [_inside(metric.label) for metric, reason in absent if reason not in energy]
    if rest:
        yield f"No row has a value of these metrics: {listed(rest, limit=12)}; the reasons are under Problems."


def _inside(label: str) -> str:
    """A label inside a sentence: 'Mean power' -> 'mean power', but 'PSNR to fp32' as it is."""
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def _trust(data: ReportData) -> Iterator[str]:
    """Sentences on reservations: warnings, and runs with one process per row."""
    rows = measured(data)
    warned = [row for row in rows if row["warnings"]]
    if warned:
        kinds = most_common(kind for row in warned for kind in dict.fromkeys(k for k, _ in warnings_of(row)))
        words = listed([f"{kind} ({number})" for kind, number in kinds], limit=5)
        yield f"**{len(warned)} of {counted(len(rows), 'valid row')}** have a warning: {words}; see Problems."
    if rows and any(run.protocol.replicates == 1 for run in data.runs):
        yield (
            "**Each row has one process**, so the intervals do not include the variation between processes, which is "
            "usually larger than that between iterations. Use more replicates before you act on a small difference."
        )


def comparison_sentence(found: Comparison) -> str:
    """'Against the baseline x: 1 regressed, 20 unchanged.'"""
    if found.refused:
        return f"**Not compared** with the baseline {found.baseline}: {'; '.join(map(str, found.refused))}."
    words = listed(outcomes_text(found.verdicts), limit=9)
    return f"Against the baseline **{found.baseline}**: {words or 'no verdict'}."


def unmeasured(data: ReportData) -> list[tuple[Metric, str]]:
    """Requested metrics that no valid row has, with the most frequent reason."""
    reasons: dict[str, list[str]] = {}
    rows = [row for row in data.rows if row["status"] == "ok"]
    for row in rows:
        for name, reason in (row["missing"] or {}).items():
            reasons.setdefault(name, []).append(reason)
    absent = [name for name in reasons if name in data.metrics and all(row.get(name) is None for row in rows)]
    return [(data.metrics[name], most_common(reasons[name])[0][0]) for name in absent]
