"""Identity is what was loaded: hashes of weights and networks, and the files that are exported under them."""

from __future__ import annotations

from collections.abc import Callable

import planted_states
import pytest
import torch

from harness.measuring import content_hashes
from harness.types import Component, Run

RunSuite = Callable[..., Run]


def component(module: torch.nn.Module) -> tuple[Component]:
    return (Component(name="net", module=module, inputs=()),)


def test_equal_values_have_one_hash_whoever_loaded_them_and_one_value_more_has_another() -> None:
    first, again, other = (planted_states.Fresh(seed) for seed in (1, 1, 2))
    assert content_hashes.weights_hash(component(first)) == content_hashes.weights_hash(component(again))
    assert content_hashes.weights_hash(component(first)) != content_hashes.weights_hash(component(other))
    with torch.no_grad():
        again.head.weight[0, 0] += 1e-6
    assert content_hashes.weights_hash(component(first)) != content_hashes.weights_hash(component(again))


def test_a_memory_format_is_no_other_value() -> None:
    module = torch.nn.Conv2d(3, 4, 3)
    before = content_hashes.weights_hash(component(module))
    assert content_hashes.weights_hash(component(module.to(memory_format=torch.channels_last))) == before


def test_buffers_of_the_state_dict_and_plain_tensors_are_weights_and_caches_are_not() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    module.scales = [torch.ones(3)]
    whole = content_hashes.weights_hash(component(module))
    module.cache.add_(1.0)
    assert content_hashes.weights_hash(component(module)) == whole
    module.running_mean.add_(1.0)
    other = content_hashes.weights_hash(component(module))
    module.scales[0].add_(1.0)
    assert len({whole, other, content_hashes.weights_hash(component(module))}) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
def test_a_checksum_sees_one_value_that_changed(dtype: torch.dtype) -> None:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.ones(7, 3).to(dtype), requires_grad=False)
    before = content_hashes.checksum(module)
    assert content_hashes.checksum(module) == before
    module.weight.data[3, 1] = 0
    assert content_hashes.checksum(module) != before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_every_dtype_has_a_digest_and_no_two_share_one(dtype: torch.dtype) -> None:
    ones = torch.ones(4)
    assert content_hashes.tensor_digest(ones.to(dtype)) != content_hashes.tensor_digest(ones)
    assert content_hashes.tensor_digest(ones.to(dtype)) == content_hashes.tensor_digest(ones.to(dtype))


def test_a_tensor_without_values_or_of_one_value_has_a_digest() -> None:
    assert content_hashes.tensor_digest(torch.tensor(1.0)) != content_hashes.tensor_digest(torch.tensor(2.0))
    assert content_hashes.tensor_digest(torch.empty(3, device="meta")) != content_hashes.tensor_digest(
        torch.empty(4, device="meta")
    )
    assert content_hashes.tensor_digest(torch.empty(0))


def test_a_plain_attribute_makes_another_network_of_the_same_weights() -> None:
    one, same, other = (component(planted_states.Scaled(factor)) for factor in (1.0, 1.0, 2.0))
    assert content_hashes.weights_hash(one) == content_hashes.weights_hash(other)
    assert content_hashes.networks_hash(one) == content_hashes.networks_hash(same)
    assert content_hashes.networks_hash(one) != content_hashes.networks_hash(other)


def test_of_a_network_that_cannot_be_pickled_nothing_is_said() -> None:
    module = planted_states.Fresh()
    module.activation = lambda x: x
    assert content_hashes.networks_hash(component(module)) is None


@pytest.mark.parametrize("model", ["planted_by_seed", "planted_scaled_by_seed", "planted_scaled_by_global"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_each_row_exports_its_own_network(run_suite: RunSuite, model: str, backend: str) -> None:
    """The second checkpoint ran the first one's file, since a plugin named both alike."""
    run = run_suite(f"  - {{model: {model}, batch_size: 4, seed: [0, 1], backend: [eager, {backend}]}}")
    assert [m.status for m in run.measurements] == ["ok"] * 4, [m.reason for m in run.measurements]
    hashes = [m.facts["output_hash"] for m in run.measurements if m.case.backend == backend]
    assert len(set(hashes)) == 2


def test_backends_that_read_onnx_share_one_export(run_suite: RunSuite) -> None:
    run = run_suite("  - {model: planted_fresh, batch_size: 4, backend: [onnxruntime, openvino]}")
    first, second = run.measurements
    assert first.facts["export_s"] == second.facts["export_s"], "the seconds of the one export stand beside its file"
    assert first.facts["weights_source"] == "planted"
    assert first.facts["identity"]["weights_hash"] == first.facts["weights_hash"] != "planted"
