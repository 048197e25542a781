"""Models: published sizes, weights of every source, and the digits models with their quality."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import benches.models
from benches.models import architectures, digits, vit, weights
from benches.models.workloads import classifier_workload
from harness import suite
from harness.registry import MODELS
from harness.types import Case, Workload

# diffusers passes arrays to numpy in a way that numpy 2 deprecates; nothing here can change it.
pytestmark = [pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]

SUITES = sorted((Path(benches.models.__file__).parents[1] / "suites").glob("*.yaml"))
DIGITS = ("digits_vit", "digits_dit", "digits_sd")


def case_of(name: str, **axes: Any) -> Case:
    model = MODELS[name]
    return Case(**{"model": name, "weights": model.weights[0], **model.axes, **axes})


def run(workload: Workload) -> torch.Tensor:
    return workload.iterate({c.name: c.module for c in workload.components}, workload.batch)


def parameters_on_meta(make: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return weights.count(make())


@pytest.mark.parametrize("name", list(vit.SIZES))
def test_vit_has_the_published_size(name: str) -> None:
    import timm

    found = parameters_on_meta(lambda: timm.create_model(name, num_classes=vit.CLASSES))
    assert found == MODELS[name].parameters == vit.SIZES[name][2]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("sd15", {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863}),
        ("sd21", {"text_encoder": 340_387_840, "unet": 865_910_724, "vae": 83_653_863}),
        (
            "sdxl",
            {
                "text_encoder": 123_060_480,
                "text_encoder_2": 694_659_840,
                "unet": 2_567_463_684,
                "vae": 83_653_863,
            },
        ),
        ("dit_s_2", {"transformer": 32_963_360, "vae": 83_653_863}),
        ("dit_b_2", {"transformer": 130_512_416, "vae": 83_653_863}),
        ("dit_l_2", {"transformer": 458_102_816, "vae": 83_653_863}),
        ("dit_xl_2", {"transformer": 675_129_632, "vae": 83_653_863}),
    ],
)
def test_pipeline_has_the_published_sizes(name: str, published: dict[str, int]) -> None:
    entries = architectures.read(name)["networks"]
    found = {part: parameters_on_meta(lambda e=e: architectures.build_network(e)) for part, e in entries.items()}
    assert found == published
    assert MODELS[name].parameters == sum(published.values())


def test_random_weights_are_seeded_and_finite() -> None:
    first, again, other = (weights.random_module(lambda: torch.nn.Linear(50, 70), seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(first.bias, torch.zeros(70))
    assert first.weight.std().item() == pytest.approx(50**-0.5, rel=0.1)


def test_random_vit_depends_on_the_case_seed_and_size() -> None:
    case = Case(model="vit_tiny_patch16_224", image_size=32, batch_size=2)
    workload = MODELS[case.model].build(case)
    assert tuple(run(workload).shape) == workload.output_shape == (2, 1000)
    assert not torch.equal(workload.batch, MODELS[case.model].build(case.with_(seed=1)).batch)


def test_a_saved_vit_runs_and_another_architecture_is_refused(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    module = weights.random_module(lambda: timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32))
    save_for_hf(module, str(tmp_path), model_args={"img_size": 32}, safe_serialization=True)
    case = case_of("vit_tiny_patch16_224", weights=str(tmp_path), image_size=32, batch_size=2)
    workload = MODELS[case.model].build(case)
    with torch.no_grad():
        torch.testing.assert_close(run(workload), module(workload.batch))
    assert workload.output_shape == (2, 7)
    with pytest.raises(ValueError, match="'vit_tiny_patch16_224', not 'vit_base_patch16_224'"):
        MODELS["vit_base_patch16_224"].build(case.with_(model="vit_base_patch16_224"))


def test_the_width_of_the_logits_is_the_modules_own_or_given() -> None:
    class Own(torch.nn.Linear):
        num_classes = 5

    images = torch.zeros(2, 3, 4, 4)
    case = Case(model="own", batch_size=2)
    assert classifier_workload(Own(4, 5), case, images, "w").output_shape == (2, 5)
    assert classifier_workload(torch.nn.Linear(4, 6), case, images, "w", num_classes=6).output_shape == (2, 6)
    assert classifier_workload(Own(4, 6), case, images, "w", num_classes=6).output_shape == (2, 6)
    with pytest.raises(ValueError, match="Linear has no num_classes"):
        classifier_workload(torch.nn.Linear(4, 6), case, images, "w")


@pytest.mark.parametrize("name", DIGITS)
def test_digits_with_random_weights_run_and_claim_no_quality(name: str) -> None:
    axes = {} if name == "digits_vit" else {"num_steps": 2}
    workload = MODELS[name].build(case_of(name, weights="random", batch_size=3, **axes))
    output = run(workload)
    assert tuple(output.shape) == workload.output_shape
    assert torch.isfinite(output).all()
    assert workload.quality is None
    assert workload.identity["weights_hash"] == "random-0"


@pytest.mark.parametrize("batch_size", [1, 32, 200])
def test_digits_vit_is_scored_on_every_held_out_scan_once(batch_size: int) -> None:
    quality = MODELS["digits_vit"].build(case_of("digits_vit", batch_size=batch_size)).quality
    assert quality is not None
    batches = quality.batches()
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(batches) == -(-397 // batch_size)
    from benches.digits import data

    right = torch.nn.functional.one_hot(data.load("held_out").labels, 10)
    padded = torch.cat([right, 1 - right])[: len(batches) * batch_size]
    assert quality.score(padded)["top1"] == [1.0] * 397


def test_digits_generators_are_judged_on_fixed_seeds() -> None:
    quality = MODELS["digits_sd"].build(case_of("digits_sd", batch_size=32, seed=5)).quality
    assert quality is not None
    batches = quality.batches()
    assert [len(batch.seeds) for batch in batches] == [32] * 7
    assert [seed for batch in batches for seed in batch.seeds][:200] == list(range(200))
    assert batches[0].asked[7] == "a handwritten seven"
    assert quality.captions[19] == "a handwritten nine"
    from benches.digits import data

    scans = data.load("held_out")
    rows = torch.stack([torch.nonzero(scans.labels == i % 10)[i // 10, 0] for i in range(200)])
    images = torch.cat([scans.images[rows].float() / 255.0, torch.zeros(24, 3, 32, 32)])
    samples = quality.score(images)
    assert {name: len(values) for name, values in samples.items()} == {"recognised": 200, "fid": 1, "kid": 1}
    assert sum(samples["recognised"]) > 190
    assert quality.images is not None
    assert torch.equal(quality.images(images)[:200].permute(0, 3, 1, 2), scans.images[rows])
    json.dumps(dict(quality.conditions))


def test_a_prompt_of_the_users_own_has_no_digit_to_be_judged_by() -> None:
    workload = MODELS["digits_sd"].build(case_of("digits_sd", prompt="the number seven", batch_size=2))
    assert workload.quality is None
    assert workload.identity["asked"] == ["the number seven"] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model: vit_tiny_patch16_224\n    num_steps: 5", "num_steps: model 'vit_tiny_patch16_224' has no such axis"),
        ("model: vit_tiny_patch16_224\n    image_size: 225", "must be a multiple of 16"),
        ("model: digits_dit\n    image_size: 64", "supports 32 only, not 64"),
        ("model: digits_dit\n    prompt: seven", "has no such axis"),
        ("model: dit_s_2\n    weights: pretrained", "is neither a known keyword nor a folder"),
        ("model: sd15\n    weights: digits", "is neither a known keyword nor a folder"),
        ("model: sdlx", "did you mean 'sdxl'"),
    ],
)
def test_an_axis_that_does_not_fit_is_named(line: str, message: str) -> None:
    with pytest.raises(suite.SuiteError, match=message):
        suite.parse(f"cases:\n  - {line}\n")


@pytest.mark.parametrize("path", SUITES, ids=[path.stem for path in SUITES])
def test_suites_are_valid(path: Path) -> None:
    found = suite.read(path)
    assert found.name == path.stem
    assert found.description
    assert found.cases


def test_metrics_say_what_they_are() -> None:
    for metric in (digits.TOP1, digits.RECOGNISED, digits.FID, digits.KID):
        assert metric.better in ("higher", "lower")
        assert len(metric.description) > 40
