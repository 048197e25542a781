"""Registries refuse an entry that the harness cannot use when it is added, in one plain line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
from plotly.validator_cache import ValidatorCache

import benches
from benches import schedulers
from benches.cli import main
from benches.cli.commands import COMMANDS
from benches.failures import UsageError
from benches.models.pipeline import PIPELINES, Pipeline
from benches.schedulers import Scheduler
from harness import drawing, records
from harness.backends import Build
from harness.devices.cpu import Cpu
from harness.devices.gpus import Gpu
from harness.measuring.trial import Findings
from harness.numerics.optimizations import Optimization
from harness.numerics.precisions import Bounds, Precision, Quantiser
from harness.probes import Probe, probe
from harness.processes import worker
from harness.processes.measure import Job, Outcome
from harness.reasons import Reason
from harness.registry import (
    BACKENDS,
    DEVICES,
    GPUS,
    MODELS,
    OPTIMIZATIONS,
    PRECISIONS,
    PROBES,
    SCHEDULERS,
    BadEntry,
    Registry,
    built,
)
from harness.types import Case, Measurement, Metric, Protocol, Quality
from reports.section import SECTIONS

pytestmark = pytest.mark.usefixtures("registries")

REGISTRIES: tuple[Registry[Any], ...] = (
    BACKENDS, COMMANDS, DEVICES, GPUS, MODELS, OPTIMIZATIONS, PIPELINES, PRECISIONS, PROBES, SCHEDULERS, SECTIONS,
)  # fmt: skip
METRIC: dict[str, Any] = {
    "name": "foo_s", "unit": "s", "label": "Foo", "better": "lower", "kind": "noisy", "description": "d",
}  # fmt: skip


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Loads a plugin of this text, which must be refused, and gives what is said after the plugin's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    number = iter(range(100))

    def refused(text: str) -> str:
        path = tmp_path / f"bad_entry_{tmp_path.name}_{next(number)}.py"
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            benches.load_plugins(str(path))
        said = str(caught.value)
        assert said.startswith(f"plugin {path}: ")
        assert "\n" not in said
        return said.removeprefix(f"plugin {path}: ")

    return refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "fuzzy", "metric 'foo_s': kind: 'fuzzy' must be 'noisy', 'exact', "),
        ("better", "faster", "metric 'foo_s': better: 'faster' must be 'lower', 'higher' or None"),
        ("summary", "total", "metric 'foo_s': summary: 'total' must be 'median', 'mean', 'max' or 'last'"),
        ("unit", None, "metric 'foo_s': unit: None must be text"),
        ("name", "two\nlines", r"metric 'two\nlines': name: 'two\nlines' must be text on one line"),
    ],
)
def test_a_metric_that_nothing_can_show_or_compare_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(BadEntry) as caught:
        Metric(**METRIC | {field: value})
    assert str(caught.value).startswith(message)
    with pytest.raises(ValueError, match=field):
        records.metrics_from_dict({"foo_s": METRIC | {field: value}})


def test_a_metric_of_an_undeclared_kind_is_refused_before_anything_is_measured(refusal: Callable[[str], str]) -> None:
    said = refusal(
        "from harness.types import Metric\n"
        "Metric(name='foo', unit='s', label='L', better='lower', kind='fuzzy', description='d')\n"
    )
    assert said.startswith("metric 'foo': kind: 'fuzzy' must be ")


def test_a_probe_cannot_take_the_metric_of_another_one(refusal: Callable[[str], str]) -> None:
    said = refusal(
        "from harness.probes import probe\n"
        "from harness.types import Metric\n"
        "MINE = Metric(name='latency_s', unit='B', label='L', better='higher', kind='exact', description='d')\n"
        "@probe('thief', order=46, metrics=(MINE,))\n"
        "def thief(trial): ...\n"
    )
    assert said == "probe 'thief': the probe 'latency' already has the metric 'latency_s'"
    assert "thief" not in PROBES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("metrics=METRIC", "probe 'p': metrics: Metric\\(name='foo_s'.* must be a tuple of harness.types.Metric"),
        ("metrics=('foo_s',)", r"probe 'p': metrics: \('foo_s',\) must be a tuple of harness.types.Metric"),
        ("metrics=(METRIC, METRIC)", "probe 'p': it declares the metric 'foo_s' twice"),
        ("metrics=(), order='last'", "probe 'p': order: 'last' must be a number"),
    ],
)
def test_a_probe_that_cannot_be_run_is_refused(given: str, message: str) -> None:
    metric = Metric(**METRIC)
    arguments = eval(f"dict({given})", {"METRIC": metric})
    with pytest.raises(BadEntry, match=message):
        probe("p", **{"order": 46, **arguments})(lambda _trial: Findings())


def in_its_place(collect: Callable[[Any], Any], order: float = 46) -> Probe:
    return Probe(name="mine", order=order, metrics=(Metric(**METRIC),), first_process_only=False, collect=collect)


def measured(folder: Path, *only: str, model: str = "planted_ok", backend: str = "eager") -> Measurement:
    protocol = Protocol(warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05)
    case = Case(model=model, backend=backend, image_size=8)
    job = Job(
        case=case, replicate=0, protocol=protocol, device="cpu", folder=folder, cache=folder / "cache", threads=1,
        only=only,
    )  # fmt: skip
    return worker.measure_job(job, lambda _phase: None).measurement


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Findings(samples={"bar": [1.0]}), "the probe 'mine' gives samples of 'bar', which it does not declare"),
        (Findings(samples={"latency_s": [1.0]}), "the probe 'mine' gives samples of 'latency_s', which it does not"),
        (Findings(missing={"bar": "gone"}), "the probe 'mine' explains 'bar', which it does not declare"),
        (Findings(samples={"foo_s": 1.0}), "the probe 'mine': foo_s: 1.0 must be a list of numbers"),  # type: ignore[dict-item]
        (None, "the probe 'mine' returns None instead of a harness.measuring.trial.Findings"),
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_a_probe_gives_what_it_declares_and_nothing_else(
    found: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROBES._entries, "mine", in_its_place(lambda _trial: found))
    row = measured(tmp_path, "latency", "mine")
    assert row.status == "failed"
    assert str(row.reason).startswith(message)


@pytest.mark.usefixtures("one_thread")
def test_a_metric_that_its_probe_neither_gives_nor_explains_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROBES._entries, "mine", in_its_place(lambda _trial: Findings()))
    row = measured(tmp_path, "latency", "mine")
    assert (row.status, row.missing["foo_s"]) == ("ok", Reason("not_given", {"probe": "mine"}))


@pytest.mark.usefixtures("one_thread")
def test_a_built_in_probe_explains_each_of_its_metrics(tmp_path: Path) -> None:
    for number, model in enumerate(("planted_ok", "planted_judged")):
        (tmp_path / str(number)).mkdir()
        row = measured(tmp_path / str(number), *(n for n in PROBES if n != "energy"), model=model)
        assert row.status == "ok", row.reason
        assert [name for name, why in row.missing.items() if why.kind == "not_given"] == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["latency_s", "throughput", "stage_classifier_s"])
def test_a_model_cannot_take_the_name_of_a_metric(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = Quality(
        metrics=(Metric(**METRIC | {"name": name}),), batches=list, score=lambda _outputs: {}, conditions={}
    )
    model = replace(MODELS["planted_ok"], build=lambda case: planted.workload(case, quality=quality))
    monkeypatch.setitem(MODELS._entries, "planted_ok", model)
    row = measured(tmp_path, "latency")
    assert row.status == "failed"
    assert str(row.reason).startswith(f"the model's quality metric {name!r} has the name of another metric")


def late(name: str, order: int, collect: Callable[[Any], Findings]) -> Probe:
    metric = Metric(**METRIC | {"name": f"{name}_s"})
    return Probe(name=name, order=order, metrics=(metric,), first_process_only=False, collect=collect)


def broken(_trial: Any) -> Findings:
    raise RuntimeError("boom")


@pytest.mark.usefixtures("one_thread")
def test_a_last_probe_that_raises_is_the_reason_of_its_own_metrics_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, order, collect in (
        ("early", 120, lambda _trial: Findings(samples={"early_s": [1.0]})),
        ("broken", 130, broken),
        ("sound", 140, lambda _trial: Findings(samples={"sound_s": [2.0]})),
    ):
        monkeypatch.setitem(PROBES._entries, name, late(name, order, collect))
    row = measured(tmp_path, "latency", "early", "broken", "sound")
    assert (row.status, row.samples["early_s"], row.samples["sound_s"]) == ("ok", [1.0], [2.0])
    error = Reason("error", {"error": "RuntimeError: boom"})
    assert row.missing == {
        "broken_s": Reason("probe_failed", {"probe": "broken", "reason": error}),
        "device_time_s": row.missing["device_time_s"],
    }
    assert {name for name in row.facts if name.endswith("_missing")} == {"broken_missing"}


def test_where_a_process_ends_in_a_probe_the_ones_after_it_are_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broken", "sound"):
        monkeypatch.setitem(PROBES._entries, name, late(name, 130, broken))
    kept = Measurement(case=Case(model="m"), replicate=0, status="ok", samples={"latency_s": [1.0]})
    killed = Reason("killed", {"detail": "SIGKILL"})
    found = worker._without_the_rest(Outcome(measurement=kept, unfinished=("broken", "sound")), killed)
    assert (found.unfinished, found.measurement.samples) == ((), kept.samples)
    assert found.measurement.missing == {
        "broken_s": Reason("probe_failed", {"probe": "broken", "reason": killed}),
        "sound_s": Reason("probe_not_run", {"after": "broken"}),
    }


def of_workload(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Makes "planted_ok" a model of the planted workload with these changes."""
    model = replace(MODELS["planted_ok"], build=lambda case: replace(planted.workload(case), **changes))
    monkeypatch.setitem(MODELS._entries, "planted_ok", model)


@pytest.mark.usefixtures("one_thread")
def test_the_parameters_are_counted_where_the_model_does_not_give_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_workload(monkeypatch, identity={"weights_hash": "mine"})
    row = measured(tmp_path, "latency", "counts")
    assert (row.status, row.samples["parameters"]) == ("ok", [1930.0]), row.reason
    assert row.facts["identity"]["parameters"] == {"classifier": 1930}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"components": ()}, r"components: \(\) must be a tuple of one or more harness.types.Component"),
        ({"identity": None}, "identity: None must be a mapping"),
        ({"identity": {"parameters": 5}}, r"identity: {'parameters': 5} must be a mapping, whose parameters"),
        ({"output_kind": "pixels"}, "output_kind: 'pixels' must be 'logits', 'features' or 'images'"),
        ({"output_shape": None}, "output_shape: None must be a tuple of whole numbers"),
        ({"quality": "good"}, "quality: 'good' must be a harness.types.Quality, or None"),
    ],
)
def test_a_workload_that_cannot_be_measured_is_refused_in_one_plain_line(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_workload(monkeypatch, **changes)
    with pytest.raises(BadEntry, match=f"^the workload of the model 'planted_ok': {message}"):
        built(Case(model="planted_ok", image_size=8))


@pytest.mark.usefixtures("one_thread")
def test_the_reason_of_a_row_does_not_name_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._entries, "planted_ok", replace(MODELS["planted_ok"], build=lambda _case: None))  # type: ignore[arg-type,return-value]
    row = measured(tmp_path, "latency")
    assert row.status == "failed"
    assert str(row.reason).startswith("the build function of the model 'planted_ok' returns None instead")


def backend(**changes: Any) -> Any:
    """A backend that can be used, with these changes; a change to None takes the field away."""
    sound: dict[str, Any] = {
        "label": "l", "description": "d", "precisions": ("fp32",), "unavailable": lambda *_: None,
        "build": lambda *_: None,
    }  # fmt: skip
    return SimpleNamespace(**{name: value for name, value in {**sound, **changes}.items() if value is not None})


def precision(**changes: Any) -> Precision:
    bounds = {kind: Bounds(cosine_floor=0.9, error_ceiling=0.5) for kind in ("logits", "images")}
    return Precision(**{"name": "x", "description": "d", "activations": "float32", "bounds": bounds, **changes})


def quantiser(**changes: Any) -> Quantiser:
    return Quantiser(**{"name": "q", "quantise": lambda module, *_: module, **changes})


def optimization(**changes: Any) -> Optimization:
    return Optimization(**{"label": "l", "description": "d", "group": "g", **changes})


def scheduler(**changes: Any) -> Scheduler:
    sound = {"name": "x", "diffusers_class": "DDIMScheduler", "description": "d", "evaluations": lambda steps: steps}
    return Scheduler(**{**sound, **changes})


def gpu(**changes: Any) -> Gpu:
    sound: dict[str, Any] = {
        "name": "x", "driver_name": "X", "memory_bytes": 1e9, "bytes_per_s": 1e9, "power_w": 100,
        "flops": {"fp32": 1e12}, "source": "s",
    }  # fmt: skip
    return Gpu(**{**sound, **changes})


class Device(Cpu):
    name = "x"


class Shortless(Cpu):
    name = "x"
    shortest_sample_s = 0  # type: ignore[assignment]


class Speechless(Cpu):
    name = "x"
    describe = None  # type: ignore[assignment]


BAD: list[tuple[Registry[Any], str, Any, str]] = [
    (BACKENDS, "x", backend(label=None), "backend 'x': 'label' is missing; it must be text on one line"),
    (BACKENDS, "x", backend(description="two\nlines"), r"backend 'x': description: 'two\nlines' must be text on one"),
    (BACKENDS, "x", backend(unavailable=None), "backend 'x': 'unavailable' is missing; it must be a function"),
    (BACKENDS, "x", backend(build=None), "backend 'x': 'build' is missing; it must be a function"),
    (BACKENDS, "x", backend(precisions="fp32"), "backend 'x': precisions: 'fp32' must be a tuple of names"),
    (BACKENDS, "x", backend(features="module"), "backend 'x': features: 'module' must be a tuple of names"),
    (BACKENDS, "x", backend(packages="mine"), "backend 'x': packages: 'mine' must be a tuple of names"),
    (BACKENDS, "x", backend(colour="reddish"), "backend 'x': colour: 'reddish' must be a colour of the form '#2f7ec7'"),
    (BACKENDS, "two\nlines", backend(), r"a backend's name must be text on one line, not 'two\nlines'"),
    (COMMANDS, "x", object(), "command 'x': 'help' is missing; it must be text on one line"),
    (COMMANDS, "x", SimpleNamespace(help="h", run=print), "command 'x': 'arguments' is missing; it must be a function"),
    (PRECISIONS, "x", {"name": "x"}, "precision 'x': the entry must be a harness.numerics.precisions.Precision, not {"),
    (PRECISIONS, "y", precision(), "precision 'y': the record has the name 'x'; the two must be equal"),
    (PRECISIONS, "x", precision(activations="float33"), "precision 'x': activations: 'float33' must be 'float32', "),
    (PRECISIONS, "x", precision(bounds={}), "precision 'x': bounds: {} must be a mapping that gives the Bounds of "),
    (PRECISIONS, "x", precision(symbol="blob"), "precision 'x': symbol: 'blob' must be one of plotly's markers"),
    (PRECISIONS, "x", precision(dash="zig"), "precision 'x': dash: 'zig' must be 'solid', 'dot', "),
    (PRECISIONS, "x", precision(capability=8), "precision 'x': capability: 8 must be a tuple of two whole numbers"),
    (PRECISIONS, "x", precision(quantiser="int4"), "precision 'x': quantiser: 'int4' must be a harness.numerics."),
    (PRECISIONS, "x", precision(quantiser=quantiser(quantise="int4")), "precision 'x': quantiser: quantise: 'int4' mu"),
    (
        PRECISIONS, "x", precision(activations="float64", quantiser=quantiser()),
        "precision 'x': no precision without a quantiser has activations in float64",
    ),
    (OPTIMIZATIONS, "a+b", optimization(), "optimisation 'a+b': the name must not contain '+'"),
    (OPTIMIZATIONS, "none", optimization(), "optimisation 'none': the name must not contain '+', which joins names, a"),
    (OPTIMIZATIONS, "x", optimization(change="tanh"), "optimisation 'x': change: 'tanh' must be a function, or None"),
    (OPTIMIZATIONS, "x", optimization(only_on="cuda"), "optimisation 'x': only_on: 'cuda' must be a tuple of names"),
    (SCHEDULERS, "y", scheduler(), "scheduler 'y': the record has the name 'x'; the two must be equal"),
    (SCHEDULERS, "x", scheduler(evaluations=20), "scheduler 'x': evaluations: 20 must be a function"),
    (SCHEDULERS, "x", scheduler(diffusers_class="a b"), "scheduler 'x': diffusers_class: 'a b' must be a class name"),
    (GPUS, "x", gpu(power_w="much"), "GPU 'x': power_w: 'much' must be a number above 0"),
    (GPUS, "x", gpu(flops={"fp32": 0}), "GPU 'x': flops: {'fp32': 0} must be a mapping of precisions to operations"),
    (DEVICES, "y", Device(), "device 'y': the record has the name 'x'; the two must be equal"),
    (DEVICES, "x", Shortless(), "device 'x': shortest_sample_s: 0 must be a number above 0"),
    (DEVICES, "x", Speechless(), "device 'x': describe: None must be a function"),
    (SECTIONS, "x", "text", "section 'x': the entry must be a function of the report's data, not 'text'"),
    (PIPELINES, "x", Pipeline(diffusers_class="x", networks=(), call=print), "pipeline 'x': networks: () must be a tu"),
    (PROBES, "x", print, "probe 'x': the entry must be a harness.probes.Probe, not <built-in function print>"),
    (MODELS, "x", print, "model 'x': the entry must be a harness.types.Model, not <built-in function print>"),
]  # fmt: skip


@pytest.mark.parametrize(("registry", "name", "entry", "message"), BAD, ids=[message[:50] for *_, message in BAD])
def test_an_entry_that_cannot_be_used_is_refused_when_it_is_added(
    registry: Registry[Any], name: str, entry: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    with pytest.raises(BadEntry) as caught:
        registry.register(name, entry)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert name not in registry


def test_every_registry_is_checked() -> None:
    assert [registry.noun for registry in REGISTRIES if registry._check is None] == []


def test_a_malformed_entry_is_no_defect_of_imgbench(
    refusal: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where the command line only prints its help."""
    text = (
        "from benches.cli.commands import COMMANDS\n"
        "COMMANDS.register('silent', type('Silent', (), {'arguments': print, 'run': print})())\n"
    )
    said = "command 'silent': 'help' is missing; it must be text on one line"
    assert refusal(text) == said
    path = tmp_path / "silent_command.py"
    path.write_text(text)
    assert main(["--plugin", str(path), "--help"]) == 64
    assert capsys.readouterr().err == f"imgbench: plugin {path}: {said}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from harness.numerics.optimizations import Optimization\n"
            "from harness.registry import OPTIMIZATIONS\n"
            "OPTIMIZATIONS.register('fast', Optimization(label='l', description='d', group='g', needs='warp drive'))\n",
            "optimisation 'fast': no backend declares the feature 'warp drive', which it needs",
        ),
        (
            "from harness.probes import probe\n"
            "from harness.types import Metric\n"
            "MINE = Metric(name='throughput', unit='s', label='L', better=None, kind='advisory', description='d')\n"
            "@probe('mine', order=46, metrics=(MINE,))\n"
            "def mine(trial): ...\n",
            "probe 'mine': imgbench derives the metric 'throughput' from others",
        ),
    ],
)
def test_what_does_not_fit_the_other_entries_is_refused(text: str, message: str, refusal: Callable[[str], str]) -> None:
    assert refusal(text) == message


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "the backend 'mine' builds None instead of a harness.backends.Build"),
        (
            Build(forwards={}, build_s=0.0, cached=False, weights_bytes=1, disk_bytes=lambda: 1),
            "the backend 'mine' builds no forward for the network 'classifier'",
        ),
    ],
)
def test_a_backend_that_builds_nothing_says_so(
    found: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS._entries, "mine", backend(build=lambda *_: found))
    row = measured(tmp_path, "latency", backend="mine")
    assert (row.status, str(row.reason)) == ("failed", message)


def test_a_scheduler_of_an_unknown_class_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULERS._entries, "x", scheduler(diffusers_class="DDIMSheduler"))
    with pytest.raises(BadEntry) as caught:
        schedulers.build("x", {})
    said = "scheduler 'x': diffusers has no class 'DDIMSheduler'; did you mean 'DDIMScheduler'?"
    assert str(caught.value) == said


def test_the_markers_and_lines_are_those_that_plotly_draws() -> None:
    known = {*plotly_values("scatter.marker", "symbol")}
    assert known >= drawing.MARKERS
    assert {f"{marker}-open" for marker in drawing.MARKERS} <= known
    assert {*drawing.LINES} <= {*plotly_values("scatter.line", "dash")}
    dash: Any = ValidatorCache.get_validator("scatter.line", "dash")
    for lengths in ("4px,2px", "1px, 3px", "5.5% 2%", "3"):
        assert drawing.LINE_STYLE.holds(lengths)
        assert dash.validate_coerce(lengths) == lengths


def plotly_values(parent: str, name: str) -> list[str]:
    validator: Any = ValidatorCache.get_validator(parent, name)
    return [value for value in validator.values if isinstance(value, str)]
