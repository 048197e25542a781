"""Precisions of torch modules: what each does to the weights, how close it stays, and what calibration sees."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from build_request_fixture import build_request
from planted import workload

from harness.backends.eager import cast_all, read_back, saved_bytes
from harness.numerics import calibration, precision, quantisation
from harness.numerics.linear_use import Left, Range
from harness.reasons import Reason
from harness.types import CalibrationData, Case, Component, Workload

QUANTISED = ("int8_dynamic", "int8_dynamic_classic", "int8_static", "int8_weight_only")


class Network(torch.nn.Module):
    """Two linear layers, of which the second gets large inputs, and one that is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 64)
        self.second = torch.nn.Linear(64, 64)
        self.unused = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu() * 10)


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(1))


def test_ranges_are_the_largest_inputs_of_each_layer(inputs: torch.Tensor) -> None:
    module = network()
    found = quantisation.ranges_of(module, [(inputs[:4],), (inputs[4:],)])
    assert set(found) == {"first", "second"}
    assert found["first"] == Range(largest=float(inputs.abs().max()), ndim=2, rows=4)
    assert found["second"].largest == pytest.approx(float((module.first(inputs).relu() * 10).max()))
    assert not any(layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize("wanted", QUANTISED)
def test_quantised_weights_are_int8_and_the_answer_stays_close(wanted: str, inputs: torch.Tensor) -> None:
    module = network()
    reference = module(inputs)
    before = precision.weights_of(module)["bytes"], saved_bytes(module)
    cast = precision.cast(module, wanted, quantisation.ranges_of(module, [(inputs,)]))
    with torch.no_grad():
        output = precision.bordered(cast, wanted, "cpu")(inputs)
    read = precision.weights_of(cast)
    assert precision.mismatch(read["elements_by_dtype"], wanted) is None
    assert float(torch.nn.functional.cosine_similarity(output, reference).min()) > 0.999
    left = 1 if wanted == "int8_static" else 0  # the layer that calibration did not reach
    assert read["elements_by_dtype"]["int8"] == (3 - left) * 64 * 64
    assert read["bytes"] < before[0] * (0.6 if left else 0.35)
    assert saved_bytes(cast) < before[1]


def test_a_static_range_clips_what_is_larger(inputs: torch.Tensor) -> None:
    """The sign that the recorded range is what is used: a range that is too small ruins the answer."""
    reference = network()(inputs)
    tiny = {name: Range(largest=0.01, ndim=2, rows=8) for name in ("first", "second")}
    cast = precision.cast(network(), "int8_static", tiny)
    with torch.no_grad():
        output = cast(inputs)
    assert float(torch.nn.functional.cosine_similarity(output, reference).min()) < 0.9


def test_a_network_without_linear_layers_is_not_int8() -> None:
    module = precision.cast(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), "int8_dynamic")
    read = precision.weights_of(module)["elements_by_dtype"]
    assert "no weight is int8" in str(precision.mismatch(read, "int8_dynamic"))


def test_why_fp8_and_tf32_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: "no GPU is here")
    assert precision.unsupported_by_torch("fp16", "cuda") == Reason("no_device", {"why": "no GPU is here"})
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    assert "compute capability 8.9" in str(precision.unsupported_by_torch("fp8_e4m3", "cpu"))
    assert "TF32" in str(precision.unsupported_by_torch("tf32", "cpu"))
    assert "CPU only" in str(precision.unsupported_by_torch("int8_dynamic_classic", "cuda"))


WORDS = {
    "int8_dynamic": "3 of 3",
    "int8_dynamic_classic": "3 of 3",
    "int8_static": "2 of 3; 1 left: no call of the network reached it",
    "int8_weight_only": "3 of 3",
}


@pytest.mark.parametrize("wanted", QUANTISED)
def test_every_linear_layer_is_quantised_or_left_for_a_reason(wanted: str, inputs: torch.Tensor) -> None:
    module = network()
    ranges = quantisation.ranges_of(module, [(inputs,)])
    left = quantisation.left_out(module, wanted, ranges)
    found = quantisation.census(precision.cast(module, wanted, ranges), left)
    assert found.in_words() == WORDS[wanted]
    assert found.fault("net") is None


def test_one_layer_that_was_forgotten_is_enough(inputs: torch.Tensor) -> None:
    """An int8 weight somewhere proves nothing of the others, nor one network anything of the next."""
    from harness.backends.eager import Cast

    half = network()
    ranges = quantisation.ranges_of(half, [(inputs,)])
    precision.cast(half.first, "int8_weight_only")
    whole = precision.cast(network(), "int8_weight_only")
    left = quantisation.left_out(half, "int8_weight_only", ranges)
    reason = "2 of 3 linear layers of half are not quantised (second, unused)"
    assert str(quantisation.census(half, left).fault("half")) == reason
    read = read_back(Cast(modules={"whole": whole, "half": half}, left={"whole": {}, "half": {}}), "int8_weight_only")
    assert str(read["verify"]()) == reason
    assert read["facts"]["quantised_layers"] == {"whole": "3 of 3", "half": "1 of 3"}


def test_what_fp8_kernels_cannot_take_is_said_beforehand() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Linear(64, 10))
    left = quantisation.left_out(module, "fp8_e4m3", {})
    assert left == {"1": Reason("sides_not_multiples_of_16")}


def test_the_file_of_an_offloaded_network_is_as_large_as_ever(inputs: torch.Tensor, tmp_path: Path) -> None:
    """accelerate leaves tensors without data in the module, and the saved file would hold none."""
    from harness.backends.eager import Eager

    expected = saved_bytes(network()), precision.weights_of(network())["bytes"]
    request = build_request(tmp_path, optimizations=("sequential_cpu_offload",))
    module = network()
    build = Eager().build([Component(name="net", module=module, inputs=(inputs,))], request)
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert (build.disk_bytes(), build.weights_bytes) == expected
    assert build.verify() is None
    with torch.no_grad():
        torch.testing.assert_close(build.forwards["net"](inputs), network()(inputs))


class Denoiser(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def sampler(calls: int, calibration_data: CalibrationData | None = None) -> Workload:
    """A workload that calls its network `calls` times, each on the last answer."""

    def iterate(forwards, batch):  # type: ignore[no-untyped-def]
        for _ in range(calls):
            batch = forwards["net"](batch)
        return batch

    component = Component(name="net", module=Denoiser(), inputs=(torch.zeros(2, 3),), calls=calls, repeated=True)
    case = Case(model="m", batch_size=2)
    return workload(case, iterate, components=(component,), batch=torch.zeros(2, 3), calibration=calibration_data)


def test_calibration_keeps_real_inputs_spread_over_all_steps() -> None:
    found = calibration.recorded(sampler(100), "cpu")
    seen = [int(call[0][0, 0]) for call in found.calls["net"]]
    assert len(seen) == calibration.MAX_CALLS
    assert (seen[0], seen[-1]) == (0, 99)
    assert max(b - a for a, b in pairwise(seen)) <= 4
    assert found.source == "the timed batch"


def test_calibration_uses_the_workloads_own_data() -> None:
    data = CalibrationData(batches=lambda: [torch.full((2, 3), 7.0), torch.full((2, 3), 9.0)], source="two batches")
    found = calibration.recorded(sampler(1, data), "cpu")
    assert [float(call[0][0, 0]) for call in found.calls["net"]] == [7.0, 9.0]
    assert found.source == "two batches"


class Conditioned(torch.nn.Module):
    """Tokens that each item's condition scales, as in a DiT: the layer of the condition gets one row an item."""

    def __init__(self) -> None:
        super().__init__()
        self.condition, self.tokens = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.head(self.tokens(tokens) * self.condition(condition)[:, None])


@pytest.mark.parametrize("wanted", ["int8_dynamic", "int8_static", "int8_dynamic_bf16", "int8_static_fp16"])
@pytest.mark.parametrize(("batch", "left"), [(16, {"condition": Left.GPU_ROWS}), (17, {})])
def test_layers_that_a_gpus_int8_product_cannot_take_are_left_and_listed(
    wanted: str, batch: int, left: dict[str, Left], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchao would multiply such layers on the CPU or in fp32, and inductor would fail. (A CPU takes the place of the
    GPU here.)"""
    monkeypatch.setattr(quantisation, "on_gpu", lambda _layer: True)
    given = (torch.randn(batch, 2, 32), torch.randn(batch, 32))
    recorded = calibration.Recorded(calls={"net": [given]}, source="planted")
    request = build_request(tmp_path, precision=wanted, calibration=lambda: recorded)
    cast = cast_all([Component(name="net", module=Conditioned(), inputs=given)], request)
    assert cast.left["net"] == left | {"head": Left.GPU_SIDES}
    read = read_back(cast, wanted)
    assert read["verify"]() is None
    listed = "1 left: its input has 16 rows or fewer, and a GPU's int8 product needs 17 or more" in str(read["facts"])
    assert listed == bool(left)


def test_the_fewest_rows_of_all_calls_decide() -> None:
    found = quantisation.ranges_of(Conditioned(), [(torch.randn(n, 2, 32), torch.randn(n, 32)) for n in (40, 3, 9)])
    assert {name: seen.rows for name, seen in found.items()} == {"condition": 3, "tokens": 6, "head": 6}


@pytest.mark.parametrize("wanted", ["int8_weight_only", "int8_dynamic_classic"])
def test_what_multiplies_no_integers_on_a_gpu_is_not_left_for_its_rows(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "on_gpu", lambda _layer: True)
    module = Conditioned()
    ranges = quantisation.ranges_of(module, [(torch.randn(2, 2, 32), torch.randn(2, 32))])
    assert quantisation.left_out(module, wanted, ranges) == {}


@pytest.mark.parametrize("wanted", ["int8_dynamic", "int8_static", "int8_dynamic_bf16", "int8_static_fp16"])
def test_eager_int8_products_on_a_gpu_are_refused_because_they_wait_for_it(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.registry import BACKENDS

    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    reason = str(BACKENDS["eager"].unavailable(wanted, "cuda"))
    assert reason.startswith(f"torchao's {wanted} synchronises with the GPU in every linear layer")
    assert "torch_compile" in reason
    assert BACKENDS["cuda_graphs"].unavailable(wanted, "cuda") is not None
    assert BACKENDS["torch_compile"].unavailable(wanted, "cuda") is None
    assert BACKENDS["eager"].unavailable(wanted, "cpu") is None
    weights = wanted.replace("dynamic", "weight_only").replace("static", "weight_only")
    assert BACKENDS["eager"].unavailable(weights, "cuda") is None


def test_the_reason_of_that_refusal_is_still_true_of_the_installed_torchao() -> None:
    """torchao formats the input of each product as text. Once it no longer does, eager may run int8 on a GPU again."""
    from torchao.kernel import intmm

    class Input(torch.Tensor):
        formatted = 0

        def __repr__(self, *, tensor_contents: object = None) -> str:
            Input.formatted += 1
            return "an input"

    x = torch.ones(8, 8, dtype=torch.int8)
    intmm.safe_int_mm(x.as_subclass(Input), x)
    assert Input.formatted == 1


@pytest.mark.parametrize("wanted", ["int8_dynamic", "int8_static", "int8_weight_only", "int8_dynamic_bf16"])
def test_quantising_changes_no_setting_of_inductor(wanted: str, inputs: torch.Tensor) -> None:
    import torch._inductor.config as inductor

    before = dict(inductor.get_config_copy())
    module = network()
    precision.cast(module, wanted, quantisation.ranges_of(module, [(inputs,)]))
    assert inductor.get_config_copy() == before


def test_fp8_changes_no_setting_of_inductor_either(monkeypatch: pytest.MonkeyPatch, inputs: torch.Tensor) -> None:
    """fp8 cannot run here, so the test checks what is requested of torchao."""
    from torchao import quantization as ao

    asked: list[bool] = []
    monkeypatch.setattr(ao, "Float8DynamicActivationFloat8WeightConfig", lambda **_: SimpleNamespace())
    monkeypatch.setattr(ao, "quantize_", lambda _layer, config, **_: asked.append(config.set_inductor_config))
    precision.cast(network(), "fp8_e4m3")
    assert asked == [False] * 3
