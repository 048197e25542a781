"""Recordings of pairs of processes with the same code in both arms, small enough for the repository.

    recording = from_run(folder, conditions="shared runner, two cores, nothing else started")
    save(recording, path)
    load(path).draw(generator, pairs=64).shifts[("digits_vit-...", "latency_s")]

A file is one gzipped JSON document with metadata, rows, and processes in order of time (key "blocks"). Samples are
seconds. They are rounded to 5 significant digits to keep the file small, which changes it by at most 5e-5 of its value,
far less than the noise. The document has a sha256 of its content, which is checked on reading. With one version of
zlib, the same recording gives the same bytes.

Format history: schema 1 (0.2.0) is the only one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from baselines.detector.drawn import LATENCY, Array, PairSamples, ResampledRun, run_of_pairs, segments
from baselines.paired.metrics import TAIL
from harness.attempts import contended
from harness.derived_metrics import needed_for
from harness.paired import paired_run
from harness.storage import UnreadableRun, record
from harness.types import Measurement

SCHEMA: Final = 1
DIGITS: Final = 5
SEGMENT: Final = 8  # consecutive pairs that are resampled together: as many as share a fork server

Arm = Literal["a", "b"]


class RecordingRefused(UnreadableRun):
    """A file is no recording or was edited, or a run cannot become a recording. `str()` is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The machine and the conditions of a recording. `conditions` describes the other load of the machine."""

    cpu: str
    cores: int
    threads: int
    suite: str
    imgbench: str
    commit: str
    date: str
    conditions: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured row."""

    id: str
    label: str
    metric: str = LATENCY


@dataclass(frozen=True, kw_only=True)
class RowSamples:
    """Seconds of each sample of one row in one process, in order, measured in `turns` turns of equal length.
    `contended` is the reason why the row was contended, or None."""

    seconds: tuple[float, ...]
    turns: int = 1
    contended: str | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedProcess:
    """One process of one arm. Pairs are numbered over all joined runs. `elapsed_s` is the time since the start of the
    run."""

    run: int
    pair: int
    slot: int
    arm: Arm
    group: str
    server: int
    elapsed_s: float
    rows: dict[str, RowSamples] = field(default_factory=dict)

    @property
    def contended(self) -> str | None:
        """The reason why the first contended row was contended, or None."""
        return next((r.contended for r in self.rows.values() if r.contended), None)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording. `blocks` (named as the stored key) are its processes in order of time, with the same code in both
    arms."""

    metadata: Metadata
    rows: tuple[Row, ...]
    blocks: tuple[RecordedProcess, ...]

    @cached_property
    def groups(self) -> dict[str, str]:
        """The group of each row, by its id."""
        return {row: process.group for process in self.blocks for row in process.rows}

    @cached_property
    def pairs(self) -> dict[str, PairSamples]:
        """The pairs of each row in order of time: samples of both arms, and their shifts."""
        found: dict[str, list[tuple[int, RowSamples, RowSamples]]] = {row.id: [] for row in self.rows}
        waiting: dict[tuple[str, int], RecordedProcess] = {}
        for process in self.blocks:
            other = waiting.pop((process.group, process.pair), None)
            if other is None:
                waiting[(process.group, process.pair)] = process
                continue
            base, head = (other, process) if other.arm == "a" else (process, other)
            for row in found.keys() & base.rows.keys() & head.rows.keys():
                found[row].append((process.pair, base.rows[row], head.rows[row]))
        return {row: _pair_samples(entries) for row, entries in found.items()}

    @cached_property
    def _complete(self) -> dict[str, list[int]]:
        """The pairs of each group that have all of its rows. Raises RecordingRefused if a group has fewer than two."""
        found: dict[str, set[int]] = {}
        for row, group in sorted(self.groups.items()):
            numbers = set(self.pairs[row].numbers)
            found[group] = found.get(group, numbers) & numbers
        if empty := sorted(g for g, numbers in found.items() if len(numbers) < 2):
            raise RecordingRefused(f"fewer than two pairs have all rows of {', '.join(empty)}")
        return {group: sorted(numbers) for group, numbers in sorted(found.items())}

    def log_ratios(self, row: str, metric: str = LATENCY) -> Array:
        """ln(b / a) of each pair in order of time, computed turn by turn as in the decision; NaN for a contended
        pair."""
        return self.pairs[row].shifts[metric]

    def draw(self, generator: np.random.Generator, pairs: int = 128) -> ResampledRun:
        """A resampled run of `pairs` pairs per group, in segments of consecutive pairs with random starts.

        Rows of a group are resampled together. This keeps their correlation in a pair, the drift within a segment, and
        the offset of a fork server. Both arms are the same code, and one random draw decides which of them is the head.
        A short recording has a mean shift by chance, which every resampled run inherits. So a recording should have
        more pairs than a run.
        """
        flipped = bool(generator.integers(2))
        chosen = {g: segments(generator, numbers, pairs, SEGMENT) for g, numbers in self._complete.items()}
        return run_of_pairs(self.pairs, self.groups, chosen, flipped=flipped)


def _pair_samples(entries: Sequence[tuple[int, RowSamples, RowSamples]]) -> PairSamples:
    base, head = [e[1] for e in entries], [e[2] for e in entries]
    uncontended = np.array(
        [a.contended is None and b.contended is None for a, b in zip(base, head, strict=True)], dtype=bool
    )
    return PairSamples.of(
        numbers=[e[0] for e in entries],
        base=[np.asarray(r.seconds) for r in base],
        head=[np.asarray(r.seconds) for r in head],
        turns=[(a.turns, b.turns) for a, b in zip(base, head, strict=True)],
        uncontended=uncontended,
        tail=bool(entries) and min(len(r.seconds) for r in (*base, *head)) >= needed_for(TAIL),
    )


def save(recording: Recording, path: Path) -> None:
    """Writes the file; the same recording gives the same bytes."""
    document = _document(recording)
    text = _canonical({**document, "sha256": _digest(document)})
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=9) as file:
        file.write(text.encode())


def load(path: Path) -> Recording:
    """Reads a file that `save` wrote. Raises RecordingRefused if it is not one, or if it was edited."""
    try:
        document = json.loads(gzip.decompress(path.read_bytes()))
        if (schema := document.pop("schema", None)) != SCHEMA:
            raise RecordingRefused(f"{path}: schema {schema!r}; this version reads {SCHEMA}")
        if document.pop("sha256", None) != _digest({"schema": SCHEMA, **document}):
            raise RecordingRefused(f"{path}: edited or truncated (its hash does not match)")
        return Recording(
            metadata=record(Metadata, document["metadata"]),
            rows=tuple(record(Row, entry) for entry in document["rows"]),
            blocks=tuple(_process(entry) for entry in document["blocks"]),
        )
    except RecordingRefused:
        raise
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingRefused(f"{path}: {type(error).__name__}: {error}") from None


def from_run(folder: Path, conditions: str) -> Recording:
    """The recording of a paired run with the same code in both arms. Raises RecordingRefused if the arms differ."""
    run = paired_run.load(folder)
    base, head = ({k: v for k, v in arm.items() if k != "name"} for arm in run.arms)
    if base != head or any(row.base != row.head for row in run.rows):
        raise RecordingRefused(f"{folder}: base and head differ, so its pairs do not show noise alone")
    kept = [p for p in paired_run.processes(folder) if p.group != paired_run.CONTROL_GROUP]
    processes = tuple(_recorded(process) for process in kept)
    seen = {row for process in processes for row in process.rows}
    environment: Mapping[str, Any] = run.environment
    return Recording(
        metadata=Metadata(
            cpu=str(environment["cpu"]["model"]),
            cores=int(environment["cpu"]["cores_allowed"]),
            threads=run.threads,
            suite=run.suite,
            imgbench=str(environment["imgbench"]),
            commit=str((environment.get("git") or {}).get("commit")),
            date=run.created[:10],
            conditions=conditions,
        ),
        rows=tuple(Row(id=row.id, label=row.label) for row in run.rows if row.id in seen),
        blocks=processes,
    )


def joined(recordings: Sequence[Recording]) -> Recording:
    """One recording of several runs of one machine, in the given order. Pairs and runs are numbered consecutively.

    Raises RecordingRefused if the machine, the threads or the suite differ.
    """
    first = recordings[0].metadata
    rows: dict[str, Row] = {}
    processes: list[RecordedProcess] = []
    for number, recording in enumerate(recordings):
        for name in ("cpu", "cores", "threads", "suite"):
            there, here = getattr(first, name), getattr(recording.metadata, name)
            if there != here:
                raise RecordingRefused(f"recordings of different {name}: {there} and {here}")
        rows |= {row.id: row for row in recording.rows}
        offset = 1 + max((p.pair for p in processes), default=-1)
        processes += [replace(p, run=number, pair=p.pair + offset) for p in recording.blocks]
    return Recording(metadata=_joined_metadata(recordings), rows=tuple(rows.values()), blocks=tuple(processes))


def _joined_metadata(recordings: Sequence[Recording]) -> Metadata:
    def texts(name: str) -> str:
        return ", ".join(dict.fromkeys(getattr(r.metadata, name) for r in recordings))

    names = {"imgbench": texts("imgbench"), "commit": texts("commit"), "date": texts("date")}
    return record(Metadata, {**asdict(recordings[0].metadata), **names, "conditions": texts("conditions")})


def _recorded(process: paired_run.PairedProcess) -> RecordedProcess:
    rows = {row: _samples(m) for row, m in process.measurements.items() if m.samples.get(LATENCY)}
    return RecordedProcess(
        run=0,
        pair=process.pair,
        slot=process.slot,
        arm="a" if process.arm == "base" else "b",
        group=process.group,
        server=process.server,
        elapsed_s=rounded(process.elapsed_s),
        rows=rows,
    )


def _samples(measurement: Measurement) -> RowSamples:
    return RowSamples(
        seconds=tuple(rounded(v) for v in measurement.samples[LATENCY]),
        turns=int(measurement.facts.get("turns", 1)),
        contended=None if (reason := contended(measurement)) is None else str(reason),
    )


def rounded(value: float) -> float:
    """`value` with 5 significant digits.

    >>> rounded(0.00182364912)
    0.0018236
    """
    return float(f"{value:.{DIGITS}g}")


def _document(recording: Recording) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "metadata": asdict(recording.metadata),
        "rows": [asdict(row) for row in recording.rows],
        "blocks": [asdict(process) for process in recording.blocks],
    }


def _process(entry: dict[str, Any]) -> RecordedProcess:
    rows = {row: record(RowSamples, {**s, "seconds": tuple(s["seconds"])}) for row, s in entry["rows"].items()}
    return record(RecordedProcess, {**entry, "rows": rows})


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(document: dict[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(_canonical(document).encode()).hexdigest()
