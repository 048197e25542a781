"""The findings of a run as sentences, computed from its rows. Only ok rows that do the same work are ranked, and a row
with visibly worse quality does not rank first. Rows are ranked by their paired ratios (`reports.relative_speed`). Two
rows whose ratio has an interval that contains 1 are "not separable"; rows without a ratio are, if their intervals
overlap.

Texts mark emphasis with **two stars**. They are otherwise plain text, and the caller escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baselines.verdict import Comparison
from harness.types import STATUSES, Metric
from harness.units import counted, format_value
from reports.precision_of_ratios import precision_sentences
from reports.relative_speed import apart, by_speed, paired, relative_speed, speed_text
from reports.rows import (
    WORK,
    Row,
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
    """Rows of equal work and batch size, ranked by speed.

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
                more_races=max(0, len(races) - GROUPS_PER_MODEL),
                sentences=(*_precisions(rows, data), *_losses(rows, data)),
            )
        )  # fmt: skip
    return found


def race(rows: Sequence[Row], axes: Sequence[str], data: ReportData) -> Race:
    """The ranking of rows that do equal work."""
    quality = quality_metrics(rows, data.metrics)
    reference = reference_of(rows[0], rows)
    ordered = by_speed(rows)
    worse = [r for r in ordered if reference and any(visibly_worse(r, reference, m) for m in quality)]
    unchecked = [r for r in ordered if r not in worse and "unchecked" in dict(warnings_of(r))]
    fit = [r for r in ordered if r not in worse and r not in unchecked] or unchecked
    winner = fit[0]
    faster = ordered[: ordered.index(winner)]
    batch = () if "batch_size" in axes else ("batch_size",)
    return Race(
        where=work_label(rows[0], (*axes, *batch)),
        rows=tuple(ordered),
        winner=winner,
        reference=reference,
        tied=tuple(r for r in fit[1:] if apart(winner, r, data) is False),
        disqualified=tuple(r for r in worse if r in faster),
        unchecked=tuple(r for r in unchecked if r in faster),
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
    head = "Fastest valid row" if not found.tied else "Highest speed" if paired(found.rows) else "Lowest median"
    told = f"**{engine(winner)}**, {timing}{_speedup(found, data)}"
    yield f"{head} at {found.where}: {told}.{_quality_clause(found, data)}"
    if found.tied:
        yield from _ties(found, data)
    for row in found.disqualified[:2]:
        words = "has visibly worse quality"
        yield f"{engine(row)} is faster ({_beside(row, winner, data)}) but {words}, so it does not rank first."
    for row in found.unchecked[:2]:
        told = "its output was not compared with fp32 eager"
        yield f"{engine(row)} is faster ({_beside(row, winner, data)}) but {told}, so it does not rank first."


def _ties(found: Race, data: ReportData) -> Iterator[str]:
    """The rows from which the winner is not separable: by their ratios, and by their latencies if they have none."""
    ratios = [(row, relative_speed(found.winner, row, data)) for row in found.tied]
    by_ratio = [f"{engine(row)} ({speed_text(ratio)} its speed)" for row, ratio in ratios if ratio is not None]
    others = [f"{engine(row)} ({estimate(row, data.metrics['latency_s'])})" for row, ratio in ratios if ratio is None]
    if by_ratio:
        why = "because the 95 % interval of the ratio contains 1"
        yield f"It is not separable from {listed(by_ratio)}, {why}."
    if others:
        yield f"It is not separable from {listed(others)}, because the 95 % intervals overlap."


def _beside(row: Row, winner: Row, data: ReportData) -> str:
    """The speed of a row relative to the winner, or its latency if they have no ratio."""
    ratio = relative_speed(row, winner, data)
    return estimate(row, data.metrics["latency_s"]) if ratio is None else speed_text(ratio)


def _speedup(found: Race, data: ReportData) -> str:
    """The winner's speed relative to the reference; without a ratio, the latency of the reference."""
    reference = found.reference
    if reference is None:
        return f"; there is no valid eager fp32 row to compare with{_against_first(found, data)}"
    if found.winner is reference:
        return ", which is the reference"
    ratio = relative_speed(found.winner, reference, data)
    same = ", which is not separable" if apart(found.winner, reference, data) is False else ""
    if ratio is None:
        return f"; eager fp32 takes {estimate(reference, data.metrics['latency_s'])}{same}"
    alone = ratio_text(ratio.value)
    shown = alone if same else f"**{alone}**"
    return f", {shown}{speed_text(ratio)[len(alone) :]} the speed of eager fp32{same}"


def _against_first(found: Race, data: ReportData) -> str:
    """The winner's speed relative to the reference of its group, where that is not eager fp32."""
    first = next((row for row in found.rows if row["case_id"] == found.winner.get("speedup_reference")), None)
    ratio = None if first is None else relative_speed(found.winner, first, data)
    return "" if first is None or ratio is None else f" ({speed_text(ratio)} the speed of {engine(first)})"


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
    separated = separable(row, reference, metric.name)
    verdict = {True: "intervals do not overlap", False: "intervals overlap", None: "no interval"}[separated]
    return f" against {estimate(reference, metric)} of eager fp32 ({verdict})"


def _precisions(rows: Sequence[Row], data: ReportData) -> Iterator[str]:
    """One sentence on the speed of eager in each precision, at the largest batch size that has it; without a ratio, on
    its latency."""
    told: dict[str, str] = {}
    latencies: dict[str, str] = {}
    latency = data.metrics["latency_s"]
    for row in sorted(rows, key=lambda r: r["batch_size"], reverse=True):
        reference = reference_of(row, rows)
        plain = row["backend"] == "eager" and row["precision"] != "fp32" and not row.get("optimizations")
        if plain and reference is not None and row["precision"] not in {*told, *latencies}:
            ratio = relative_speed(row, reference, data)
            where = f"batch {row['batch_size']}{', not separable' if apart(row, reference, data) is False else ''}"
            if ratio is None:
                words = f"**{estimate(row, latency)}** against {estimate(reference, latency)} ({where})"
                latencies[row["precision"]] = f"{row['precision']} {words}"
            else:
                told[row["precision"]] = f"{row['precision']} **{speed_text(ratio)}** ({where})"
    if told:
        yield f"Speed of eager relative to fp32: {listed(list(told.values()), limit=9)}."
    if latencies:
        yield f"Latency of eager beside fp32: {listed(list(latencies.values()), limit=9)}."


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
    yield from precision_sentences(data)
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
