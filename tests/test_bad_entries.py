"""Registries refuse an entry that the harness cannot use when it is added, in one plain line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import planted
import pytest

import benches
from benches.failures import UsageError
from harness import records
from harness.measuring.trial import Findings
from harness.probes import Probe, probe
from harness.processes import worker
from harness.processes.measure import Job, Outcome
from harness.reasons import Reason
from harness.registry import MODELS, PROBES, BadEntry, built
from harness.types import Case, Measurement, Metric, Protocol, Quality

pytestmark = pytest.mark.usefixtures("registries")

METRIC: dict[str, Any] = {
    "name": "foo_s", "unit": "s", "label": "Foo", "better": "lower", "kind": "noisy", "description": "d",
}  # fmt: skip


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Loads a plugin of this text, which must be refused, and gives what is said after the plugin's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
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


def measured(folder: Path, *only: str, model: str = "planted_ok") -> Measurement:
    protocol = Protocol(warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05)
    case = Case(model=model, image_size=8)
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
