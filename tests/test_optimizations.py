"""Optimisations: their names, that each does something or says why not, and that attention stays the same attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from suite_fixture import QUICK
from torch.nn import functional

from harness import suite
from harness.numerics import attention, optimizations
from harness.numerics.optimizations import OPTIMIZATIONS, canonical
from harness.types import Case, Component, Run, Unavailable

RunSuite = Callable[..., Run]


def test_names_are_sorted_and_none_is_nothing() -> None:
    assert canonical("inference_mode+channels_last") == "channels_last+inference_mode"
    assert canonical("none") is None
    assert canonical(None) is None
    case = Case(model="m", optimizations="channels_last+inference_mode")
    assert optimizations.names(case) == ("channels_last", "inference_mode")
    assert case.label.endswith("channels_last+inference_mode")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("chanels_last", "did you mean 'channels_last'"),
        ("channels_last+channels_last", "channels_last is named twice"),
        ("attention_math+attention_sliced", "exclude each other"),
        ("graph_off+graph_basic", "exclude each other"),
        (3, "must be none or names"),
        ("", "must be none or names"),
    ],
)
def test_a_wrong_value_is_one_line(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        canonical(value)
    if value != "":
        with pytest.raises(suite.SuiteError, match="optimizations: .*" + reason):
            suite.parse(f"name: s\ncases:\n - {{model: planted_ok, optimizations: {value!r}}}\n")


def test_an_axis_that_a_case_does_not_have_is_no_part_of_its_id() -> None:
    plain = Case(model="m")
    assert plain.id == Case(model="m", optimizations=None).id
    assert plain.id != Case(model="m", optimizations="channels_last").id


def test_what_cannot_be_had_says_why() -> None:
    def reason(**axes: str) -> str:
        return str(optimizations.unavailable(Case(model="m", **axes), "cpu"))  # type: ignore[arg-type]

    assert reason(optimizations="model_cpu_offload").startswith("model_cpu_offload needs an NVIDIA GPU")
    assert "not for openvino" in reason(optimizations="attention_math", backend="openvino")
    assert "not for eager" in reason(optimizations="graph_basic")
    assert optimizations.unavailable(Case(model="m", optimizations="inference_mode"), "cpu") is None


def test_every_optimisation_says_what_it_is() -> None:
    assert OPTIMIZATIONS
    for entry in OPTIMIZATIONS.values():
        assert entry.description
        assert entry.backends
        assert entry.devices


SHAPES = {"self": (2, 3, 7, 16, 7), "cross": (2, 3, 7, 16, 5), "one query": (1, 1, 1, 8, 4)}


@pytest.mark.parametrize("other", [attention.math_attention, attention.sliced, attention.chunked])
@pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))
@pytest.mark.parametrize("masked", ["none", "boolean", "added", "causal", "scaled"])
def test_other_attentions_are_the_same_function(
    other: attention.Attention, shape: tuple[int, ...], masked: str
) -> None:
    items, heads, queries, width, keys = shape
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(items, heads, queries, width, generator=generator)
    k, v = (torch.randn(items, heads, keys, width, generator=generator) for _ in range(2))
    mask = torch.randn(items, 1, queries, keys, generator=generator)
    options = {
        "none": {},
        "boolean": {
            "attn_mask": torch.cat([torch.ones(items, 1, queries, 1, dtype=torch.bool), mask[..., 1:] > 0], -1)
        },
        "added": {"attn_mask": mask},
        "causal": {"is_causal": True},
        "scaled": {"scale": 0.3},
    }[masked]
    wanted = functional.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(other(q, k, v, **options), wanted)


def test_a_mask_of_one_row_serves_all_queries() -> None:
    q = torch.randn(1, 2, 8, 4)
    mask = torch.zeros(1, 1, 1, 8)
    mask[..., 5:] = -torch.inf
    wanted = functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    for other in (attention.sliced, attention.chunked):
        torch.testing.assert_close(other(q, q, q, mask), wanted)


@pytest.mark.parametrize(("name", "kernel"), [("attention_flash", "flash"), ("attention_cudnn", "cudnn")])
def test_a_kernel_of_torch_is_the_only_one_allowed(name: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed(*_: object) -> torch.Tensor:
        asked = torch.backends.cuda
        return {  # type: ignore[return-value]
            "flash": asked.flash_sdp_enabled(), "efficient": asked.mem_efficient_sdp_enabled(),
            "math": asked.math_sdp_enabled(), "cudnn": asked.cudnn_sdp_enabled(),
        }  # fmt: skip

    monkeypatch.setattr(functional, "scaled_dot_product_attention", allowed)
    case = Case(model="m", optimizations=name)
    with optimizations.in_force(case):
        found = functional.scaled_dot_product_attention(torch.ones(1))
    assert found == {"flash": False, "efficient": False, "math": False, "cudnn": False} | {kernel: True}
    assert str(optimizations.unavailable(case, "cpu")).startswith(f"{name} needs an NVIDIA GPU")
    assert optimizations.unavailable(case, "cuda") is None


def test_dropout_is_refused() -> None:
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(ValueError, match="dropout"):
        attention.math_attention(q, q, q, dropout_p=0.1)


def test_torchs_function_is_exchanged_for_the_block_and_can_be_had_inside() -> None:
    own = functional.scaled_dot_product_attention
    with attention.exchanged(attention.math_attention):
        assert functional.scaled_dot_product_attention is attention.math_attention
        with attention.torchs_own():
            assert functional.scaled_dot_product_attention is own
        with attention.counted() as count:
            q = torch.randn(1, 1, 2, 4)
            functional.scaled_dot_product_attention(q, q, q)
        assert count() == 1
        assert functional.scaled_dot_product_attention is attention.math_attention
    assert functional.scaled_dot_product_attention is own


def components(module: torch.nn.Module, *inputs: torch.Tensor) -> tuple[Component, ...]:
    return (Component(name="net", module=module, inputs=inputs),)


def applied(names: str, module: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, str]:
    case, found = Case(model="m", optimizations=names), components(module, *inputs)
    with optimizations.in_force(case):
        return optimizations.apply(case, found) | optimizations.reached(case, found, "cpu")


def test_channels_last_moves_convolutions_and_needs_one() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))
    assert applied("channels_last", module, torch.randn(1, 3, 9, 9)) == {"channels_last": "2 of 2 convolutions"}
    assert module[1].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(Unavailable, match="no two-dimensional convolution"):
        applied("channels_last", torch.nn.Linear(4, 4), torch.randn(1, 4))


def test_attention_that_no_network_has_is_unsupported() -> None:
    with pytest.raises(Unavailable, match="no network of this model calls"):
        applied("attention_sliced", torch.nn.Linear(4, 4), torch.randn(1, 4))


class Attending(torch.nn.Module):
    """Keeps the dtype that its attention was asked in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()), requires_grad=False)
        self.asked: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append(x.dtype)
        return functional.scaled_dot_product_attention(x * self.scale, x, x)


def test_attention_is_counted_in_the_precision_of_the_row() -> None:
    case, module = Case(model="m", precision="bf16", optimizations="attention_math"), Attending().to(torch.bfloat16)
    found = components(module, torch.randn(1, 2, 8, 4))
    with optimizations.in_force(case):
        assert optimizations.apply(case, found) == {}  # nothing is called before the build has cast it
        assert module.asked == []
        assert optimizations.reached(case, found, "cpu") == {"attention_math": "attention calls: 1 in net"}
    assert module.asked == [torch.bfloat16]


def test_a_kernel_that_this_device_lacks_is_a_reason_and_no_failure() -> None:
    case = Case(model="m", optimizations="attention_efficient")
    found = components(Attending(), torch.randn(1, 2, 8, 4))
    reason = "attention_efficient: No viable backend .* for these shapes and this precision on this device"
    with (
        optimizations.in_force(case),
        pytest.raises(Unavailable, match=reason),  # the words are torch's own: a CPU has no such kernel
        optimizations.kernels_or_unavailable(case),
    ):
        optimizations.reached(case, found, "cpu")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case(model="m", optimizations="attention_flash"), "another error"),
        (Case(model="m"), "No available kernel. Aborting execution."),
    ],
)
def test_any_other_error_stays_what_it_is(case: Case, said: str) -> None:
    with pytest.raises(RuntimeError, match=said) as raised, optimizations.kernels_or_unavailable(case):
        raise RuntimeError(said)
    assert type(raised.value) is RuntimeError


def test_inference_mode_is_in_force() -> None:
    with optimizations.in_force(Case(model="m", optimizations="inference_mode")):
        assert (torch.ones(1) + 1).is_inference()
    with optimizations.in_force(Case(model="m")):
        assert not (torch.ones(1) + 1).is_inference()


def vae(side: int = 16) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    from benches.models.networks import wrapped
    from benches.models.pipeline import decode

    made = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=side,
    )  # fmt: skip
    return wrapped(decode, made)


def test_a_vae_is_sliced_and_tiled_where_there_is_something_to_divide() -> None:
    latents = torch.randn(3, 4, 8, 8)
    assert applied("vae_slicing", vae(), latents) == {"vae_slicing": "3 calls of the decoder in one decoding"}
    with pytest.raises(Unavailable, match="batch of one"):
        applied("vae_slicing", vae(), latents[:1])
    with pytest.raises(Unavailable, match="fits in one tile"):
        applied("vae_tiling", vae(), latents)
    tiles = applied("vae_tiling", vae(), torch.randn(1, 4, 16, 16))["vae_tiling"]
    assert int(tiles.split()[0]) >= 4
    with pytest.raises(Unavailable, match="no VAE"):
        applied("vae_slicing", torch.nn.Linear(4, 4), torch.randn(1, 4))


def test_projections_are_fused_once_and_give_the_same_answer() -> None:
    from diffusers import DiTTransformer2DModel

    from benches.models.dit import transformer as forward
    from benches.models.networks import wrapped

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, patch_size=2,
        norm_num_groups=1, num_embeds_ada_norm=1000,
    )  # fmt: skip
    module = wrapped(forward, transformer)
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([5, 5]), torch.tensor([1, 2]))
    with torch.no_grad():
        before = module(*inputs)
        found = applied("fused_qkv", module, *inputs)
        after = module(*inputs)
    assert found == {"fused_qkv": "attention blocks: 2 in net"}
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    with pytest.raises(Unavailable, match="no projections that can be fused"):
        applied("fused_qkv", torch.nn.Linear(4, 4), torch.randn(1, 4))


@pytest.mark.slow
def test_rows_with_optimisations_are_measured_and_proven(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: digits_vit, optimizations: [none, attention_chunked+channels_last, inference_mode, fused_qkv]}\n"
        " - {model: digits_vit, backend: onnxruntime, optimizations: [graph_off, dynamic_batch]}\n",
        QUICK.replace("timeout_s: 60", "timeout_s: 200"),  # attention in chunks is slow where other work runs
    )
    plain, chunked, inference, fused, off, dynamic = run.measurements
    assert [m.status for m in run.measurements] == ["ok", "ok", "ok", "skipped", "ok", "ok"]
    assert chunked.facts["optimizations"]["attention_chunked"].startswith("attention calls: ")
    assert "convolution" in chunked.facts["optimizations"]["channels_last"]
    assert chunked.samples["cosine_similarity"][0] > 0.9999
    assert "cosine_similarity" not in plain.samples  # it is the reference itself
    assert inference.samples["cosine_similarity"][0] == pytest.approx(1.0)
    assert "timm's are fused already" in str(fused.reason)
    assert off.facts["graph_optimization_level"] == "ORT_DISABLE_ALL"
    assert dynamic.facts["graph_optimization_level"] == "ORT_ENABLE_ALL"
    assert sum(off.facts["nodes"]["classifier"].values()) > sum(dynamic.facts["nodes"]["classifier"].values()) * 0.5


def test_the_record_sets_inference_mode_and_not_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    record = OPTIMIZATIONS["inference_mode"]
    monkeypatch.setattr(OPTIMIZATIONS, "_entries", {"mine": record, "inference_mode": OPTIMIZATIONS["channels_last"]})
    with optimizations.grad_mode(["mine"]):
        assert (torch.ones(1) + 1).is_inference()
    with optimizations.grad_mode(["inference_mode"]):
        assert not (torch.ones(1) + 1).is_inference()
