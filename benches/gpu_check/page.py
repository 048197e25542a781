"""One HTML page of a record: its verdict and table above the sections that every run's report has.

The page needs the packages of a report (pandas, plotly, jinja2), which the machine with the GPU may lack. `--verify
FILE --page PAGE` writes it on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from markupsafe import Markup, escape

from benches.gpu_check import QUICK, controls, published
from benches.gpu_check.record import Record
from benches.gpu_check.verdict import CODES, Verdict
from harness.registry import PROBES
from harness.types import Metric, Run
from reports.data import report_data
from reports.page import page
from reports.section import SECTIONS, NotShown, Section


def write(path: Path, record: Record, decided: Verdict) -> None:
    page.write(path, build(record, decided))


def build(record: Record, decided: Verdict) -> str:
    """The whole page."""
    run = as_run(record)
    data = report_data([run])
    made: dict[str, Section | NotShown | None] = {
        "verdict": _verdict(record, decided),
        "checks": _checks(decided),
        **({name: make(data) for name, make in SECTIONS.items()} if run.measurements else {}),
        "nvidia-smi": _smi(record),
    }
    device = record.header["environment"].get("device_name")
    return page.assembled(
        made,
        title=f"GPU check: {device}",
        eyebrow="GPU check",
        descriptions=[decided.line],
        runs=[page.run_facts(run, "")],
    )


def as_run(record: Record) -> Run:
    """The rows of the record as a run, without the controls."""
    rows = [row for name, row in record.rows.items() if name not in controls.EXPECTED]
    metrics: dict[str, Metric] = {m.name: m for probe in PROBES.values() for m in probe.metrics}
    measured = {row.measurement.case.id: row.measurement for row in rows}
    return Run(
        id=str(record.header.get("created", "")),
        suite="gpu-check",
        protocol=QUICK,
        environment=record.header["environment"],
        metrics=metrics,
        cases=tuple(m.case for m in measured.values()),
        measurements=tuple(measured.values()),
        created=str(record.header.get("created", "")),
        finished=str(record.header.get("created", "")) if record.end else None,
    )


def _verdict(record: Record, decided: Verdict) -> Section:
    items = [f"failed: {text}" for text in decided.failed]
    items += [f"missing: {text}" for text in decided.missing]
    items += [f"published: {text}" for text in published.lines(record)]
    content = Markup("<p class='lead'><strong>{}</strong></p><p class='note'>exit code {}</p><ul>{}</ul>").format(
        decided.line, CODES[decided.word], Markup().join(Markup("<li>{}</li>").format(text) for text in items)
    )
    return Section(order=-20, title="Verdict", html=content)


def _checks(decided: Verdict) -> Section:
    rows: list[Mapping[str, str]] = [
        {"Result": check.result, "Check": check.what, "Finding": check.detail} for check in decided.found
    ]
    return Section(order=-10, title="Checks", table=pd.DataFrame(rows))


def _smi(record: Record) -> Section:
    text = str(record.header.get("nvidia_smi") or "not read")
    return Section(order=99, title="nvidia-smi -q", html=Markup("<pre>{}</pre>").format(escape(text)))
