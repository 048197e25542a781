"""The digits models: the split, the stored weights' quality, plain loading, and a training run in small.

python -m pytest tests/test_digits.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benches.digits import card, data, evaluate, models, prompts, quality, train

BUDGET = 15.0  # MB in the weights folder
IMAGES = quality.COUNT  # fewer, and FID and KID would be mostly scatter
GENERATORS = evaluate.GENERATORS
DATA_HASH = "57db638772d14841c5d261289c2058c37fc48abd799f29a13614ae832f23a545"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with models.one_thread():
        yield


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {"dit": models.build_dit(), "sd": models.build_sd()}


def test_the_split_is_disjoint_complete_and_stratified() -> None:
    train_scans, train_labels = data.scans_of("train")
    held_scans, held_labels = data.scans_of("held_out")
    assert (len(train_labels), len(held_labels)) == (data.TRAIN_COUNT, data.HELD_OUT_COUNT)
    assert not {scan.tobytes() for scan in train_scans} & {scan.tobytes() for scan in held_scans}
    share = np.bincount(held_labels) / (np.bincount(held_labels) + np.bincount(train_labels))
    assert np.ptp(share) < 0.01
    assert data.content_hash() == DATA_HASH


def test_pictures_have_three_equal_channels() -> None:
    held_out = data.load("held_out")
    assert held_out.images.shape == (data.HELD_OUT_COUNT, 3, 32, 32)
    assert held_out.images.dtype == torch.uint8
    assert held_out.labels.dtype == torch.int64
    assert torch.equal(held_out.images[:, 0], held_out.images[:, 2])


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'"):
        data.load("test")  # type: ignore[arg-type]


def test_enlarging_and_shrinking_keeps_the_scan_and_what_it_says() -> None:
    held_out = data.load("held_out")
    scans, _ = data.scans_of("held_out")
    assert np.abs(data.to_8x8(held_out.images) - scans).mean() < 0.3
    right = quality.recognised(held_out.images, held_out.labels)
    assert sum(right) / len(right) >= 0.98


def test_the_classifier_is_right_on_held_out_digits() -> None:
    assert evaluate.top_1() >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_generated_digits_are_recognised_and_more_steps_are_better(name: str, pipelines: dict[str, Any]) -> None:
    labels = [place % 10 for place in range(IMAGES)]
    pipeline = evaluate.with_solver(pipelines[name], "dpmpp_2m")
    many, few = (evaluate.generate(pipeline, labels, steps, seed=7, batch=50) for steps in (20, 3))
    assert sum(quality.recognised(many, torch.tensor(labels))) >= 0.95 * IMAGES
    assert quality.fid_and_kid(many)["fid"] * 1.5 < quality.fid_and_kid(few)["fid"]
    assert len({image.numpy().tobytes() for image in many}) == IMAGES


@pytest.mark.parametrize("solver", ["ddim", "euler", "heun", "unipc"])
@pytest.mark.parametrize("name", GENERATORS)
def test_other_solvers_take_the_stored_schedule(name: str, solver: str, pipelines: dict[str, Any]) -> None:
    labels = list(range(10)) * 2
    images = evaluate.generate(evaluate.with_solver(pipelines[name], solver), labels, 20, batch=20)
    assert sum(quality.recognised(images, torch.tensor(labels))) >= 17


def test_pictures_follow_their_seed_not_their_batch(pipelines: dict[str, Any]) -> None:
    pipeline = evaluate.with_solver(pipelines["dit"], "ddim")
    alone, together = (evaluate.generate(pipeline, [4, 2, 7], 3, batch=batch).int() for batch in (1, 3))
    assert (alone - together).abs().max() <= 1


def test_the_weights_are_small_and_load_in_plain_libraries() -> None:
    from diffusers import DiTPipeline, StableDiffusionPipeline

    assert card.megabytes(models.WEIGHTS) <= BUDGET
    assert (models.WEIGHTS / "README.md").is_file()
    dit = DiTPipeline.from_pretrained(models.WEIGHTS / "dit", local_files_only=True)
    sd = StableDiffusionPipeline.from_pretrained(models.WEIGHTS / "sd", local_files_only=True)
    for module in (dit.transformer, dit.vae, sd.unet, sd.vae, sd.text_encoder):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
        assert not module.training


def test_the_tokenizer_gives_prompts_back(pipelines: dict[str, Any]) -> None:
    tokenizer = pipelines["sd"].tokenizer
    for template in range(len(prompts.TEMPLATES)):
        for digit in range(10):
            text = models.prompt(digit, template)
            tokens = tokenizer(text).input_ids
            assert tokenizer.decode(tokens, skip_special_tokens=True) == text
            assert len(tokens) == len(text.split()) + 2
    assert models.PROMPTS[7] == "a handwritten seven"
    assert len(tokenizer("six", padding="max_length").input_ids) == prompts.MAX_LENGTH


def test_random_weights_are_seeded_and_need_no_file() -> None:
    before = torch.random.get_rng_state()
    first, second = models.build_vit("random"), models.build_vit("random")
    assert torch.equal(first.head.weight, second.head.weight)
    assert torch.equal(before, torch.random.get_rng_state())
    assert models.build_dit("random")([3], num_inference_steps=1, output_type="np").images.shape == (1, 32, 32, 3)
    assert models.build_sd("random")("nine", num_inference_steps=1, output_type="np").images.shape == (1, 32, 32, 3)
    assert models.weights_hash("dit", "random") is None
    assert len(models.weights_hash("dit") or "") == 64


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"benches\.digits\.train"):
        models.build_vit(tmp_path / "absent")


def test_real_digits_are_nearer_than_noise() -> None:
    noise = torch.randint(0, 256, (quality.COUNT, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    assert quality.noise_floor()["fid"] * 10 < quality.fid_and_kid(noise.to(torch.uint8))["fid"]
    assert quality.conditions()["pictures"] == quality.COUNT


@pytest.mark.slow
def test_training_runs_end_to_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = train.train_side_by_side

    def mostly_here(names: Sequence[str], out: Path, share: float, seed: int) -> None:
        """The first in a process of its own, as all are in earnest: each imports torch, which takes seconds."""
        apart(names[:1], out, share, seed)
        for name in names[1:]:
            train.train_one(name, out, share, seed)

    monkeypatch.setattr(train, "train_side_by_side", mostly_here)
    train.main(["--share", "0.001", "--images", "20", "--steps", "2", "--out", str(tmp_path)])
    assert "held-out digits right" in (tmp_path / "README.md").read_text()
    assert "sd: step" in capfd.readouterr().out
    assert models.build_sd(tmp_path / "sd")("zero", num_inference_steps=2, output_type="np").images.shape[1] == 32


def test_training_refuses_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--only", "gan"])
    assert "unknown model: gan" in capsys.readouterr().err
