"""The records of imgbench: frozen dataclasses, importable without torch.

suite.yaml -> Suite -> [Case] -> Workload -> forwards -> samples -> Measurement -> Run -> frames -> Verdict -> Section

Values are stored in SI base units (seconds, bytes, joules, watts); `harness.units` formats them for output.
A missing value is absent with a reason (`Measurement.missing`), never 0, inf or -1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness import causes, entries, labels, reasons
from harness.causes import Cause
from harness.quoting import quoted
from harness.reasons import Reason, ReasonedError
from harness.stored_types import Environment, Facts, State

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Status = Literal["ok", "skipped", "failed", "oom", "timeout", "invalid"]
Better = Literal["lower", "higher"]
Kind = Literal[
    "noisy", "exact", "near_exact", "energy", "quality_item", "quality_continuous", "quality_set", "advisory"
]
Summary = Literal["median", "mean", "max", "last"]
ControlSide = Literal["a", "b", "copy", "overhead"]

STATUSES: tuple[str, ...] = get_args(Status)
IDENTICAL = Reason("identical_output")  # the reason why a PSNR is missing: it would be infinite

Samples = dict[str, list[float]]
Forward = Callable[..., "torch.Tensor"]


class Unavailable(ReasonedError, ValueError):
    """A combination that a model or a backend cannot do: its row is `skipped`, with this as the reason (a `Reason`, or
    text)."""


class RequestError(ReasonedError, ValueError):
    """A case requests what its weights cannot give, such as another image size: its row is `failed`, with this as the
    reason (a `Reason`, or text)."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured quantity, with all that is needed to print it, to rank by it and to compare it.

    `kind` picks the comparison rule: noisy (statistics), exact (equality), near_exact (0.5 % or 2 MiB), energy,
    quality_item (one 0/1 an item), quality_continuous, quality_set (one figure for a set of images), advisory
    (shown, never gated). `summary` says how the samples become the row's one value. `better` is None where neither
    direction is better (a parameter count). Raises BadEntry (`harness.entries`) for a field that nothing could show or
    compare.
    """

    name: str
    unit: str
    label: str
    better: Better | None
    kind: Kind
    description: str
    summary: Summary = "median"

    def __post_init__(self) -> None:
        entries.demand(f"metric {quoted(self.name)}", self, METRIC_FIELDS)


METRIC_FIELDS: Mapping[str, entries.Rule] = {
    "name": entries.LINE,
    "unit": entries.TEXT,
    "label": entries.TEXT,
    "better": entries.one_of("lower", "higher", None),
    "kind": entries.one_of(*get_args(Kind)),
    "description": entries.TEXT,
    "summary": entries.one_of(*get_args(Summary)),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration of a suite: a value of each axis. Axes that a model does not have are None."""

    model: str
    weights: str = "random"
    backend: str = "eager"
    precision: str = "fp32"
    batch_size: int = 1
    image_size: int | None = None
    scheduler: str | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    prompt: str | None = None
    optimizations: str | None = None
    seed: int = 0

    @cached_property
    def id(self) -> str:
        """A stable, file-safe name: the most important axes, and a hash of all axes. Axes that a case does not
        have are left out, so that a new axis does not rename old cases. Computed once."""
        given = {axis: value for axis, value in self.axes().items() if value is not None}
        canonical = json.dumps(given, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        readable = "-".join([self.model, self.backend, self.precision, f"b{self.batch_size}"])
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in readable)[:80]
        return f"{safe}-{digest}"

    @property
    def label(self) -> str:
        """The case as text: every axis that it has. Weights are named if the model's name does not contain them, and
        the seed if it is not 0.

        >>> Case(model="digits_vit", weights="digits", batch_size=32, image_size=32).label
        'digits_vit · eager · fp32 · batch 32 · 32 px'
        >>> Case(model="sd15", prompt="a cat", seed=3).label
        'sd15 (random) · eager · fp32 · batch 1 · "a cat" · seed 3'
        """
        return labels.of(self)

    def axes(self) -> dict[str, Any]:
        """Axis name -> value, in declaration order."""
        return {axis: getattr(self, axis) for axis in AXES}

    def with_(self, **axes: Any) -> Case:
        return replace(self, **axes)


AXES: tuple[str, ...] = tuple(f.name for f in fields(Case))


@dataclass(frozen=True, kw_only=True)
class Component:
    """One neural network of a workload, as the backends see it: positional tensors in, one tensor out.

    `inputs` are example tensors (fp32 or integer, on the CPU) with the exact shapes of every call in this case; an
    exporter traces with them and the run is checked against them. `calls` is how often one iteration must call it. A
    component with `repeated` is the denoiser: each of its calls is a denoising step of its own in the stage table. A
    component with `force_upcast` (diffusers' term) overflows in fp16. In an fp16 row it runs in fp32, in every backend
    (`harness.numerics.precision.of_component`)."""

    name: str
    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    calls: int = 1
    repeated: bool = False
    force_upcast: bool = False


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How to score the outputs of a trained model, at the case's own batch size, backend and precision.

    `batches` yields inputs for `Workload.iterate`, each of exactly batch_size items (the last one filled up with
    items that `score` cuts off again). `score` gets all outputs concatenated along dimension 0 and returns samples by
    metric: one 0/1 for each item for quality_item metrics, one figure for a set. `conditions` are stored with every
    figure: "items" is the number of scored items, beside hashes of reference and extractor. `images` turns outputs
    into uint8 images (N, H, W, 3) for the report, or is None for a classifier. `keep` returns the data by which FID
    and KID are compared later, image by image, in JSON types (`harness.image_sets.encode`), or is None.
    """

    metrics: tuple[Metric, ...]
    batches: Callable[[], Sequence[Any]]
    score: Callable[[torch.Tensor], Samples]
    conditions: Mapping[str, Any]
    images: Callable[[torch.Tensor], torch.Tensor] | None = None
    captions: tuple[str, ...] = ()
    keep: Callable[[torch.Tensor], Mapping[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """Inputs from which int8_static takes its ranges; no quality figure is measured on them. `batches` yields inputs
    for `Workload.iterate`, each of exactly batch_size items; `source` describes them."""

    batches: Callable[[], Sequence[Any]]
    source: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a model makes of a case: networks, and one iteration over one batch, given a forward for each network.

    `iterate(forwards, batch)` runs one iteration; `forwards[name]` replaces the component of that name, and is the only
    way to run it, since a row runs copies of modules. `batch` is the timed batch; it has `.to(device)`, as every batch
    of `Quality.batches` has, and is moved before it is timed. The output's shape must be `output_shape`, whose first
    number is the batch size. `identity` is JSON: all that makes two pieces of work the same (shapes, steps, prompts,
    parameters); its `weights_hash` is the model's own name for the weights. What runs on the host between components
    (scheduler, tokenizer) stays in fp32: a component casts its own inputs and outputs. Without `calibration`
    int8_static takes its ranges from the timed batch. `facts` and `warnings` are the model's own additions to the row.
    """

    components: tuple[Component, ...]
    iterate: Callable[[Mapping[str, Forward], Any], torch.Tensor]
    batch: Any
    output_shape: tuple[int, ...]
    identity: Mapping[str, Any]
    output_kind: Literal["logits", "features", "images"]
    quality: Quality | None = None
    calibration: CalibrationData | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Model:
    """An entry of the model registry: how to build the workload, and which axes the model has.

    `axes` are those beyond the general ones (weights, backend, precision, batch_size, seed) with their defaults; naming
    another axis in a suite is an error. `weights` are the allowed keywords, the first one the default; a folder is
    allowed where "folder" is among them. `image_size_multiple` None: the size is fixed. `parameters` is the published
    count. `libraries` are the modules that it imports, once for all workers (None: any of imgbench's own models').
    `folder_axes` gives the defaults of a row whose `weights` are a folder, as far as its files state them
    (`image_size`); it never raises. `unguided_up_to`: guidance scales up to it mean no guidance and are one case, with
    this scale (None: every scale is a case of its own).
    """

    name: str
    build: Callable[[Case], Workload]
    family: str
    description: str
    axes: Mapping[str, Any]
    weights: tuple[str, ...] = ("random",)
    image_size_multiple: int | None = None
    max_image_size: int = 4096
    parameters: int | None = None
    libraries: tuple[str, ...] | None = None
    folder_axes: Callable[[Path], Mapping[str, Any]] | None = None
    unguided_up_to: float | None = None

    @property
    def info(self) -> dict[str, Any]:
        return {"family": self.family, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a suite is measured. Seconds are wall-clock; stored with every run and part of the baseline's key.

    A process takes samples until the 95 % interval of its own median is within ±`target_interval` of it (None: no
    such target), but at least `min_samples` in `min_sample_time_s` and for at most `max_sample_time_s`. A process that
    was contended is measured again up to `contended_retries` times. With `cold_cache` the caches are flushed
    before each iteration (`harness.measuring.cold_cache`).

    The first process of a row is measured alone. With `rounds` its further processes, at least `replicates` - 1, take
    turns with those of its reference row (`harness.sweeping.rounds`), and rounds go on until the 95 % interval of each
    row's speed relative to its reference is within ±`ratio_interval` of it, or until the whole run has taken `budget_s`
    seconds. Without a `ratio_interval` each row has exactly `replicates` processes. Without `rounds` all processes are
    measured alone.
    """

    replicates: int = 4
    warmup_min_iterations: int = 3
    warmup_min_s: float = 0.3
    warmup_max_s: float = 10.0
    steady_tolerance: float = 0.02
    min_samples: int = 10
    min_sample_time_s: float = 0.5
    max_sample_time_s: float = 30.0
    target_interval: float | None = 0.02
    contended_retries: int = 2
    rounds: bool = True
    ratio_interval: float | None = 0.03
    budget_s: float | None = None
    fresh_builds: bool = False
    energy_window_s: float = 10.0
    timeout_s: float = 1800.0
    quality: bool = True
    stages: bool = True
    cold_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named list of cases and the protocol to measure them by; `source` is the YAML text it came from."""

    name: str
    description: str
    protocol: Protocol
    cases: tuple[Case, ...]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one worker process measured for one case: raw samples by metric, or the status and the reason if there are
    none.

    `samples` and `warmup` are raw values in base units. `missing` gives the reason for each metric that could not be
    measured. `attempt` counts how often the same process of a case was repeated, because it was contended or a failure
    was retried. `facts` holds what was verified of the execution (providers, dtypes, counted calls, output hash) and
    the work identity. `state` is the machine during the measurement (PSI, load, clocks) and the seconds of the control
    workload. `round` is the number, unique in the run, of the round in which the process took turns with processes of
    other rows (`harness.sweeping.rounds`); None if it was measured alone. `warnings` are shown with the row. `images`
    are file names relative to the run folder. `reason`, `missing` and `warnings` also take text, which becomes a reason
    of the kind "stated" (`harness.reasons`).
    """

    case: Case
    replicate: int
    status: Status
    reason: Reason | None = None
    attempt: int = 0
    samples: Samples = field(default_factory=dict)
    warmup: Samples = field(default_factory=dict)
    missing: dict[str, Reason] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    state: State = field(default_factory=State)
    warnings: tuple[Reason, ...] = ()
    images: tuple[str, ...] = ()
    started: str = ""
    duration_s: float | None = None
    round: int | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown status {self.status!r}; one of {', '.join(STATUSES)}")
        if (self.status == "ok") == (self.reason is not None):
            raise ValueError(f"a measurement has a reason exactly when it is not ok: {self.status=} {self.reason=}")
        if self.reason is not None:
            object.__setattr__(self, "reason", reasons.of(self.reason))
        object.__setattr__(self, "missing", {name: reasons.of(told) for name, told in self.missing.items()})
        object.__setattr__(self, "warnings", tuple(map(reasons.of, self.warnings)))

    @property
    def cause(self) -> Cause | None:
        """The typed cause of a failure (`harness.causes`), which is the kind of its reason; None if the cause is the
        row itself, or unknown."""
        return causes.of_reason(self.reason)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A process that measures no row. `copy` is a second copy of a group's reference row, which takes turns with it:
    the A/A control of the group. `overhead` is a network that does nothing, in the backend of its case: what imgbench
    itself costs an iteration. `a` and `b` are the A/A control of a run without rounds: one case
    measured as two rows."""

    side: ControlSide
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder in memory. `cases` are all that were planned; `metrics` describe all samples in it.

    `measurements` are those that count, one for each process of a case; `superseded` are attempts that were measured
    again (`harness.attempts`): they are kept and never count. `controls` are not rows of the suite
    (`Control`). `models` maps a model's name to `Model.info`, `weights` a folder of weights as its cases name
    it to its path and content (`harness.weights`). `selection` is the text of `--only` if the run measures a part of
    its suite. `folder` is where it was read from (None for a stored baseline).
    """

    id: str
    suite: str
    protocol: Protocol
    environment: Environment
    metrics: dict[str, Metric]
    cases: tuple[Case, ...]
    measurements: tuple[Measurement, ...]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    description: str = ""
    created: str = ""
    finished: str | None = None
    selection: str | None = None
    folder: str | None = None
    problems: tuple[str, ...] = ()
    superseded: tuple[Measurement, ...] = ()
    controls: tuple[Control, ...] = ()

    @cached_property
    def by_case(self) -> dict[str, tuple[Measurement, ...]]:
        """Case id -> its measurements that count, in their stored order. A case without one is absent."""
        found: dict[str, list[Measurement]] = {}
        for measurement in self.measurements:
            found.setdefault(measurement.case.id, []).append(measurement)
        return {case_id: tuple(measurements) for case_id, measurements in found.items()}
