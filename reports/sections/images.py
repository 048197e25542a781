"""Generated images side by side: the same seeds for every backend, precision, scheduler and step count."""

from __future__ import annotations

from dataclasses import dataclass

from reports.rows import WORK, Row, by_work, measured, quality_metrics, variant, varying, work_label
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.templates import fragment
from reports.wording import estimate


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A strip of images of one row, with its quality as text."""

    name: str
    words: str
    uri: str


@SECTIONS.add("images")
def images(data: ReportData) -> Section | NotShown:
    rows = [row for row in measured(data) if _uris(row, data)]
    if not rows:
        return NotShown(title="Generated images", reason="no valid row with trained weights has stored images")
    groups = []
    for work in by_work(rows).values():
        model_rows = [row for row in rows if row["model"] == work[0]["model"]]
        axes = [a for a in varying(model_rows, (*WORK, "batch_size")) if a != "model"]
        heading = " · ".join(
            filter(None, [work[0]["model"], work_label(work[0], [a for a in axes if a != "batch_size"])])
        )
        groups.append((heading, [shot for row in work for shot in _shots(row, work, data)]))
    note = (
        "Each strip shows one row. Strips under one heading start from the same noise, so they differ only by backend "
        "and precision. The share recognised is measured on many more images than are shown."
    )
    return Section(order=45, title="Generated images", note=note, html=fragment("images.html", groups=groups))


def _uris(row: Row, data: ReportData) -> list[str]:
    return [data.images[(row["run"], file)] for file in row["images"] or () if (row["run"], file) in data.images]


def _shots(row: Row, rows: list[Row], data: ReportData) -> list[Shot]:
    batch = varying(rows, ("batch_size",))
    name = " · ".join(filter(None, [variant(row), work_label(row, batch)]))
    words = " · ".join(f"{metric.label} {estimate(row, metric)}" for metric in quality_metrics([row], data.metrics)[:2])
    return [Shot(name=name, words=words, uri=uri) for uri in _uris(row, data)]
