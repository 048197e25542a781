"""What the page on extending shows: each example is one file, loaded as a plugin and run. What nobody declares is
refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reports_fixture import ENVIRONMENT

import benches
from benches.cli import backend_checks, doctor, listing, main
from benches.cli.commands import COMMANDS
from benches.models.pipeline import PIPELINES
from harness import backends, devices, frames, storage, suite
from harness.devices import cpu, gpus
from harness.numerics import optimizations
from harness.numerics.tolerance import tolerance
from harness.processes import environment, measure
from harness.reasons import Reason, stated
from harness.registry import BACKENDS, DEVICES, GPUS, MODELS, OPTIMIZATIONS, PRECISIONS, PROBES, SCHEDULERS
from harness.types import Case, Measurement, Protocol, Run
from reports import theme
from reports.page import page
from reports.section import SECTIONS

pytestmark = [pytest.mark.usefixtures("registries", "one_thread")]

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
REGISTRIES = (
    BACKENDS, COMMANDS, DEVICES, GPUS, MODELS, OPTIMIZATIONS, PIPELINES, PRECISIONS, PROBES, SCHEDULERS, SECTIONS,
)  # fmt: skip
QUICK = Protocol(warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05)
VIT = Case(model="my_model", image_size=8, batch_size=2)

Add = Callable[..., None]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes an example into a file of its own and gives its path; what it registers is gone after the test."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(name: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(EXAMPLES[name], encoding="utf-8")
        return str(path)

    yield write
    for name in EXAMPLES:
        sys.modules.pop(name, None)


@pytest.fixture
def add(example: Callable[[str], str]) -> Add:
    """Loads examples as plugins, each from one file."""
    return lambda *names: benches.load_plugins(*map(example, names))


def measured(case: Case, folder: Path, *only: str, device: Any = None) -> Measurement:
    job = measure.Job(
        case=case,
        replicate=0,
        protocol=QUICK,
        device="cpu",
        folder=folder,
        cache=folder / case.id,
        threads=1,
        only=only or ("latency",),
    )
    return measure.measure(job, device or DEVICES["cpu"], lambda _phase: None).measurement


def run_of(*measurements: Measurement) -> Run:
    cases = tuple(m.case for m in measurements)
    metrics = {m.name: m for probe in PROBES.values() for m in probe.metrics}
    return Run(
        id="r",
        suite="s",
        protocol=QUICK,
        environment=ENVIRONMENT,
        metrics=metrics,
        cases=cases,
        measurements=measurements,
    )


def names(what: str) -> set[str]:
    return {row["name"] for row in listing.rows(what, "cpu")}


def test_the_page_has_an_example_of_each_kind() -> None:
    kinds = "model pipeline backend precision scheduler optimization metric section device gpu command"
    assert {*EXAMPLES} == {f"my_{kind}" for kind in kinds.split()}


def test_a_model_runs_and_a_suite_takes_it(add: Add, tmp_path: Path) -> None:
    add("my_model")
    assert "my_model" in names("models")
    (case,) = suite.parse("cases: [{model: my_model, batch_size: 2}]").cases
    found = measured(case, tmp_path)
    assert found.status == "ok"
    assert list(frames.cases_frame(run_of(found))["latency_s"]) == pytest.approx([found.samples["latency_s"][1]], rel=9)


def test_a_backend_runs_what_it_declares_and_is_drawn_in_its_colour(add: Add, tmp_path: Path) -> None:
    add("my_model", "my_backend")
    (row,) = (row for row in listing.rows("backends", "cpu") if row["name"] == "torch_export")
    assert {name for name, reason in row["precisions"].items() if reason is None} == {"fp32", "bf16"}
    assert row["precisions"]["int8_dynamic"] == "the backend torch_export does not declare the precision int8_dynamic"
    reasons = backend_checks.reasons("torch_export", "cpu")
    assert doctor._backend("torch_export", reasons)["detail"] == "fp32, bf16"
    assert theme.backend_colour("torch_export") == "#6f8f3a"
    found = measured(VIT.with_(backend="torch_export", precision="bf16"), tmp_path, "latency", "fidelity")
    assert (found.status, found.facts["elements_by_dtype"].keys()) == ("ok", {"bfloat16"})
    refused = measured(VIT.with_(backend="torch_export", precision="fp16"), tmp_path)
    assert refused.status == "skipped"
    assert refused.reason == Reason("precision_undeclared", {"backend": "torch_export", "precision": "fp16"})


def test_the_versions_of_what_a_backend_names_are_in_the_environment(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("my_backend")
    monkeypatch.setattr(BACKENDS["torch_export"], "packages", ("pytest",), raising=False)
    assert environment.versions()["pytest"] == pytest.__version__
    assert {"torch", "torchao", "openvino", "numpy"} <= environment.versions().keys()


def test_a_precision_is_built_read_back_and_refused_by_backends_that_do_not_declare_it(
    add: Add, tmp_path: Path
) -> None:
    add("my_model", "my_precision")
    assert "int4_weight_only" in names("precisions")
    (case,) = suite.parse("cases: [{model: my_model, batch_size: 2, precision: int4_weight_only}]").cases
    found = measured(case, tmp_path, "latency", "fidelity")
    assert (found.status, found.reason) == ("ok", None)
    assert found.facts["elements_by_dtype"] == {"int4": 64 * 4 * 10, "float32": 64 * 3 * 16 + 64 + 10}
    assert found.facts["quantised_layers"] == {"classifier": "1 of 1"}
    assert found.facts["quantised_share"] == 64 * 4 * 10 / (64 * 4 * 10 + 64 * 3 * 16)
    assert found.samples["relative_error"][0] > 0
    assert tolerance("int4_weight_only", "features").cosine_floor == 0.90
    assert (theme.precision_symbol("int4_weight_only"), theme.precision_dash("int4_weight_only")) == (
        "asterisk",
        "1px,3px",
    )
    for name in ("onnxruntime", "openvino", "tensorrt"):
        assert backends.unavailable(name, "int4_weight_only", "cpu") is not None, name
    reasons = {name: backends.unavailable(name, "int4_weight_only", "cpu") for name in BACKENDS}
    assert str(reasons["onnxruntime"]) == "the backend onnxruntime does not declare the precision int4_weight_only"
    assert (reasons["eager"], reasons["torch_compile"]) == (None, backends.unavailable("torch_compile", "fp32", "cpu"))


def test_a_precision_that_quantises_less_than_it_says_is_invalid(add: Add, tmp_path: Path) -> None:
    """The record names int4, and what was built has int8."""
    add("my_model", "my_precision")
    record = PRECISIONS["int4_weight_only"]
    quantiser = replace(record.quantiser, quantise=PRECISIONS["int8_weight_only"].quantiser.quantise)
    PRECISIONS._entries["int4_weight_only"] = replace(record, quantiser=quantiser)
    found = measured(VIT.with_(precision="int4_weight_only"), tmp_path)
    assert found.status == "invalid"
    assert "no weight is int4" in str(found.reason)


def test_a_layer_that_a_precision_cannot_take_stays_as_it_is(add: Add) -> None:
    from harness.numerics import quantisation

    add("my_precision")
    module = torch.nn.Sequential(torch.nn.Linear(32, 4), torch.nn.Linear(4, 4))
    left = quantisation.left_out(module, "int4_weight_only", {})
    assert left == {"1": stated("its input is no multiple of the group of 32")}


def test_packed_values_are_read_back_by_their_width() -> None:
    """Some layouts hold two int4 values a byte and do not say so."""
    from harness.numerics import quantisation

    class Packed:
        def __init__(self, values: torch.Tensor) -> None:
            self.values, self.scale = values, torch.ones(64, 1)

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["values", "scale"], None

        def numel(self) -> int:
            return 64 * 32

    halves: Any = Packed(torch.zeros(64, 16, dtype=torch.uint8))
    words: Any = Packed(torch.zeros(64, 4, dtype=torch.int32))
    whole: Any = Packed(torch.zeros(64, 32, dtype=torch.int8))
    found = [(quantisation.is_quantised(w), quantisation.stored_dtype(w)) for w in (halves, words, whole)]
    assert found == [(True, "int4"), (True, "int4"), (True, "int8")]


def test_a_pipeline_runs_eagerly_and_through_an_export(add: Add, tmp_path: Path) -> None:
    add("my_pipeline", "my_backend")
    given = "cases: [{model: my_ddpm, batch_size: 2, backend: [eager, torch_export]}]"
    eager, exported = (measured(c, tmp_path, "latency", "stages", "fidelity") for c in suite.parse(given).cases)
    assert (eager.status, exported.status) == ("ok", "ok")
    assert eager.facts["identity"] == exported.facts["identity"]
    assert eager.facts["identity"]["pipeline"] == "DDPMPipeline"
    assert eager.facts["identity"]["calls"] == {"unet": 2}
    assert len(eager.samples["stage_unet_s"]) > 0
    assert min(exported.samples["cosine_similarity"]) > 0.999


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pipeline_runs_through_onnx(add: Add, tmp_path: Path) -> None:
    add("my_pipeline")
    (case,) = suite.parse("cases: [{model: my_ddpm, backend: onnxruntime}]").cases
    found = measured(case, tmp_path, "latency", "fidelity")
    assert found.status == "ok"
    assert min(found.samples["cosine_similarity"]) > 0.999


def test_a_scheduler_runs_in_any_pipeline(add: Add, tmp_path: Path) -> None:
    add("my_scheduler", "my_pipeline")
    assert "euler_karras" in names("schedulers")
    (case,) = suite.parse("cases: [{model: my_ddpm, scheduler: euler_karras}]").cases
    found = measured(case, tmp_path)
    assert found.status == "ok"
    assert found.facts["identity"]["scheduler"]["class"] == "EulerDiscreteScheduler"
    assert found.facts["identity"]["scheduler"]["config"]["use_karras_sigmas"] is True


def test_an_optimisation_changes_the_module_or_says_why_not(add: Add, tmp_path: Path) -> None:
    add("my_model", "my_pipeline", "my_optimization", "my_backend")
    (row,) = (row for row in listing.rows("optimizations") if row["name"] == "tanh_gelu")
    assert {"eager", "torch_compile", "torch_export"} <= {*row["backends"]}
    assert not {"onnxruntime", "openvino", "tensorrt"} & {*row["backends"]}
    (case,) = suite.parse("cases: [{model: my_model, optimizations: tanh_gelu}]").cases
    found = measured(case, tmp_path)
    assert (found.status, found.facts["optimizations"]) == ("ok", {"tanh_gelu": "1 activations"})
    reason = str(optimizations.unavailable(case.with_(backend="openvino"), "cpu"))
    assert reason.startswith("tanh_gelu is for ")
    assert reason.endswith(", not for openvino")


def test_an_optimisation_that_no_backend_declares_is_refused(add: Add) -> None:
    add("my_model", "my_optimization")
    OPTIMIZATIONS._entries["tanh_gelu"] = replace(OPTIMIZATIONS["tanh_gelu"], needs="a feature of no backend")
    for backend in BACKENDS:
        case = VIT.with_(backend=backend, optimizations="tanh_gelu")
        assert "not for" in str(optimizations.unavailable(case, "cpu")), backend


def test_a_metric_is_measured_listed_and_in_the_frame(add: Add, tmp_path: Path) -> None:
    add("my_model", "my_metric")
    assert "pair_s" in names("metrics")
    found = measured(VIT, tmp_path, "latency", "pair")
    assert len(found.samples["pair_s"]) == 3
    (value,) = frames.cases_frame(run_of(found))["pair_s"]
    assert min(found.samples["pair_s"]) <= value <= max(found.samples["pair_s"])


def test_a_section_is_on_the_page(add: Add, tmp_path: Path) -> None:
    add("my_model", "my_section")
    text = page.build([run_of(measured(VIT, tmp_path))])
    assert "Slowest row" in text
    assert f"The slowest row is {VIT.label}." in text


def test_a_device_is_listed_says_why_it_is_not_here_and_is_the_default_where_it_is(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.devices import unmeasured

    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert unmeasured.present() == ("xpu",)
    add("my_device")
    assert unmeasured.present() == (), "it is measured now"
    assert (devices.default(), devices.device("xpu").torch_device) == ("xpu", "xpu")
    assert backends.unavailable("eager", "fp32", "xpu") is None
    assert "tensor cores" in str(backends.unavailable("eager", "tf32", "xpu"))
    for name in ("openvino", "tensorrt", "onnxruntime", "cuda_graphs"):
        assert backends.unavailable(name, "fp32", "xpu") is not None, name
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    assert devices.default() == "cpu"
    with pytest.raises(devices.NoSuchDevice, match="device xpu: no Intel GPU answers"):
        devices.device("xpu")
    (row,) = (row for row in listing.rows("devices") if row["name"] == "xpu")
    assert not row["available"]


def test_a_device_of_another_kind_measures_a_row(add: Add, tmp_path: Path) -> None:
    add("my_model")

    class Other(cpu.Cpu):
        name = "other"
        torch_device = "cpu"

        def stopwatch(self) -> str:
            return "it has no clock"

    DEVICES.register("other", Other())
    found = measured(VIT, tmp_path, "latency", "memory", device=devices.device("other"))
    assert found.status == "ok"
    assert found.missing["peak_driver_bytes"] == cpu.NO_MEMORY


def test_a_gpu_is_known_by_the_drivers_name(add: Add) -> None:
    name = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
    assert gpus.find(name) is None
    assert [r["status"] for r in doctor._gpus({"gpus": [{"name": name}]})] == ["no"]
    add("my_gpu")
    (row,) = doctor._gpus({"gpus": [{"name": name}]})
    words = "RTX PRO 6000 Blackwell Workstation: 96 GB, 1792 GB/s, 600 W, dense bf16 503.8 TFLOP/s (data sheet)"
    assert row == {"what": "GPU", "status": "yes", "detail": words}
    assert "RTX PRO 6000 Blackwell Workstation" in names("gpus")


def test_a_command_is_listed_and_runs(
    example: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = example("my_command")
    with pytest.raises(SystemExit) as ended:
        main(["--plugin", plugin, "--help"])
    assert ended.value.code == 0
    assert "rows of a run that have no result" in capsys.readouterr().out
    ok = Measurement(case=VIT, replicate=0, status="ok", samples={"latency_s": [0.1]})
    for name, stored, told in (
        ("complete", ok, ""),
        ("broken", replace(ok, status="oom", reason="no memory", samples={}), f"{VIT.label}: oom: no memory\n"),
    ):
        storage.create(tmp_path / name, run_of(stored))
        storage.append(tmp_path / name, stored)
        assert main(["--plugin", plugin, "problems", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out == told


def test_a_device_of_a_plugin_is_accepted_on_the_command_line(
    example: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert main(["list", "backends", "--json", "--device", "xpu", "--plugin", example("my_device")]) == 0
    (row,) = (row for row in json.loads(capsys.readouterr().out) if row["name"] == "eager")
    assert (row["device"], row["precisions"]["fp32"]) == ("xpu", None)


@pytest.mark.parametrize(
    ("driver", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
    ],
)
def test_a_gpu_is_the_most_specific_one_of_its_name(driver: str, model: str | None) -> None:
    found = gpus.find(driver)
    assert (found.name if found else None) == model


def test_the_peaks_are_dense() -> None:
    """Makers print some of them with sparsity, twice as high: 1979 TFLOP/s of an H100 SXM, 242 of an L4."""
    assert len(GPUS) >= 12
    wanted = {"H100 SXM": 989.4e12, "H200 SXM": 989.5e12, "L4": 121e12, "L40S": 362.05e12, "B200 SXM": 2250e12}
    assert {name: GPUS[name].flops["bf16"] for name in wanted} == wanted
    assert [gpu.name for gpu in GPUS.values() if gpu.flops.get("bf16", gpu.flops["fp16"]) != gpu.flops["fp16"]] == []


def test_a_backend_that_declares_nothing_is_refused_for_each_precision(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(label="l", description="d", unavailable=lambda _precision, _device: None)
    monkeypatch.setattr(BACKENDS, "_entries", {"silent": silent})
    assert all("does not declare" in str(backends.unavailable("silent", name, "cpu")) for name in PRECISIONS)
    case = Case(model="m", backend="silent", optimizations="channels_last")
    assert "not for silent" in str(optimizations.unavailable(case, "cpu"))


def test_an_export_refuses_a_precision_that_it_has_no_form_of(add: Add, tmp_path: Path) -> None:
    """It would otherwise write int8 weights under the name int4."""
    from build_request_fixture import build_request

    from harness.backends.onnx import export
    from harness.types import Component, Unavailable

    add("my_precision")
    component = Component(name="net", module=torch.nn.Linear(32, 4), inputs=(torch.ones(1, 32),))
    request = build_request(tmp_path, precision="int4_weight_only")
    plain = request.exports / f"net-fp32-{request.work()}"
    plain.mkdir(parents=True)
    (plain / "model.onnx").touch()
    with pytest.raises(Unavailable, match="no ONNX form of the precision int4_weight_only"):
        export.exported([component], request, "int4_weight_only")
