"""Runs -> ReportData: joins the frames of several runs, reads images, and removes the quality of random weights."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from baselines.verdict import Comparison
from harness import frames
from harness.types import Metric, Run
from reports.section import ReportData, alias

RANDOM_WEIGHTS = "the weights are random, so the outputs have no meaningful quality"
PNG = b"\x89PNG\r\n\x1a\n"
MAX_IMAGE_BYTES = 12 * 1024**2


def report_data(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> ReportData:
    """The data of a report over one or several runs."""
    names = [alias(i, len(runs)) for i in range(len(runs))]
    metrics = {n: capitalised(metric) for run in runs for n, metric in frames.metrics_of(run).items()}
    return ReportData(
        runs=tuple(runs),
        cases=with_items(
            without_random_quality(_joined_cases([frames.cases_frame(run) for run in runs], names), metrics),
            runs,
            names,
        ),
        samples=_joined_samples([frames.samples_frame(run) for run in runs], names),
        metrics=metrics,
        comparisons=tuple(comparisons),
        images={key: uri for run, name in zip(runs, names, strict=True) for key, uri in _images(run, name)},
    )


def capitalised(metric: Metric) -> Metric:
    """The metric with a capitalised label, as a heading needs it."""
    return replace(metric, label=metric.label[:1].upper() + metric.label[1:])


def without_random_quality(cases: pd.DataFrame, metrics: dict[str, Metric]) -> pd.DataFrame:
    """A copy in which rows with random weights have no quality and no images, with the reason in `missing`."""
    chosen = cases["weights"] == "random"
    names = [name for name, metric in metrics.items() if metric.kind in {"quality_item", "quality_set"}]
    columns = [c for name in names for c in (name, f"{name}_low", f"{name}_high") if c in cases]
    masked = cases.copy()
    for column in columns:
        masked[column] = cases[column].astype(float).where(~chosen)
    images = [[] if c else kept for c, kept in zip(chosen, cases["images"], strict=True)]
    masked["images"] = pd.Series(images, index=cases.index, dtype=object)
    taken = {name: list(chosen & cases[name].notna()) for name in names if name in cases}
    missing = [
        told | {name: RANDOM_WEIGHTS for name, rows in taken.items() if rows[index]}
        for index, told in enumerate(cases["missing"])
    ]
    masked["missing"] = pd.Series(missing, index=cases.index, dtype=object)
    return masked


def with_items(cases: pd.DataFrame, runs: Sequence[Run], names: Sequence[str]) -> pd.DataFrame:
    """A copy with the column `quality_items`: the number of items of a row's quality, NaN without quality."""
    counts = {
        (name, m.case.id): (m.facts.get("quality_conditions") or {}).get("items")
        for run, name in zip(runs, names, strict=True)
        for m in run.measurements
        if m.facts.get("quality_conditions")
    }
    keys = zip(cases["run"], cases["case_id"], strict=True)
    return cases.assign(quality_items=pd.Series([counts.get(key) for key in keys], index=cases.index, dtype=float))


def _joined_cases(parts: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    columns = list(dict.fromkeys(["run", *frames.LEADING, *(c for part in parts for c in part.columns)]))
    named = [part.assign(run=name).reindex(columns=columns) for part, name in zip(parts, names, strict=True)]
    if len(named) == 1:
        return named[0]
    # pd.concat warns about columns that are empty in one run only, unless they hold objects
    return pd.concat(
        [part.astype(object) for part in named] or [pd.DataFrame(columns=columns)], ignore_index=True
    ).infer_objects()


def _joined_samples(parts: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    named = [part.assign(run=name) for part, name in zip(parts, names, strict=True)]
    filled = [part for part in named if len(part)] or named[:1]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["run", *frames.SAMPLE_COLUMNS])


def _images(run: Run, name: str) -> Iterator[tuple[tuple[str, str], str]]:
    """((run, file name), data URI) of each image that is a PNG in the run folder."""
    if run.folder is None:
        return
    folder = Path(run.folder).resolve()
    for file in dict.fromkeys(file for m in run.measurements for file in m.images):
        path = (folder / file).resolve()
        if not path.is_relative_to(folder) or not path.is_file() or path.stat().st_size > MAX_IMAGE_BYTES:
            continue
        content = path.read_bytes()
        if content.startswith(PNG):
            yield (name, file), f"data:image/png;base64,{base64.b64encode(content).decode()}"
