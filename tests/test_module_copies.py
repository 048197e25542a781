"""What a backend does to the network of one row reaches no other row and no reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.measuring.module_copies import SharedModule, private
from harness.numerics import precision
from harness.types import Component, Measurement, Run

RunSuite = Callable[..., Run]
NARROW = "[int8_dynamic, int8_weight_only, int8_static, fp16, fp32]"


def by_precision(run: Run, model: str) -> dict[str, Measurement]:
    return {m.case.precision: m for m in run.measurements if m.case.model == model}


@pytest.mark.parametrize("model", ["planted_cached", "planted_global"])
def test_a_builder_that_gives_the_same_module_twice_is_measured_like_one_that_does_not(
    run_suite: RunSuite, model: str
) -> None:
    """The reference was made of the module that had been quantised in place, and every row held against it."""
    run = run_suite(f"  - {{model: [{model}, planted_fresh], batch_size: 4, precision: {NARROW}}}")
    kept, fresh = by_precision(run, model), by_precision(run, "planted_fresh")
    for name in ("int8_dynamic", "int8_weight_only", "int8_static", "fp16"):
        assert kept[name].status == "ok", kept[name].reason
        assert kept[name].samples["relative_error"] == fresh[name].samples["relative_error"]
        assert max(kept[name].samples["relative_error"]) > 0
    assert kept["fp32"].facts["output_hash"] == fresh["fp32"].facts["output_hash"]


def test_copies_share_memory_until_they_are_cast_and_ties_between_networks_stay() -> None:
    tied = torch.nn.Linear(4, 4)
    components = [Component(name=n, module=torch.nn.Sequential(tied), inputs=()) for n in ("a", "b")]
    first, second = private(components)
    assert first.module[0] is second.module[0], "what two networks share they still share"
    assert first.module[0] is not tied
    assert first.module[0].weight.data_ptr() == tied.weight.data_ptr()
    precision.cast(first.module, "bf16")
    assert (tied.weight.dtype, first.module[0].weight.dtype) == (torch.float32, torch.bfloat16)


def test_a_copy_has_buffers_of_its_own() -> None:
    module = torch.nn.BatchNorm1d(3)
    (own,) = private([Component(name="norm", module=module, inputs=())])
    own.module.train()(torch.randn(8, 3))
    assert int(module.num_batches_tracked) == 0


def test_a_module_that_cannot_be_copied_is_given_once_in_a_process_and_refused_then() -> None:
    module = torch.nn.Linear(2, 2)
    module.lines = (line for line in ())
    component = Component(name="net", module=module, inputs=())
    assert private([component])[0].module is module
    with pytest.raises(
        SharedModule,
        match=r"^the builder returned the network net \(Linear\), or a layer of it, a second time, .* make a",
    ):
        private([component])


@pytest.mark.parametrize("model", ["planted_uncopyable", "planted_wrapped", "planted_copies_to_itself"])
def test_a_row_whose_network_cannot_be_copied_is_no_reference_of_itself(run_suite: RunSuite, model: str) -> None:
    run = run_suite(f"  - {{model: {model}, batch_size: 4, precision: [int8_dynamic, fp32]}}")
    found = by_precision(run, model)
    assert found["int8_dynamic"].status == "invalid"
    assert "a second time" in str(found["int8_dynamic"].reason)
    assert found["fp32"].status == "ok", "it adopts its own output"


def test_a_network_whose_forward_was_patched_runs_as_it_was_given(run_suite: RunSuite) -> None:
    """Its copy would call the layers of the original, which no cast reaches."""
    run = run_suite("  - {model: planted_patched, batch_size: 4, precision: [fp32, bf16, int8_dynamic]}")
    assert [m.status for m in run.measurements] == ["ok"] * 3, [m.reason for m in run.measurements]
    assert max(by_precision(run, "planted_patched")["bf16"].samples["relative_error"]) > 0
