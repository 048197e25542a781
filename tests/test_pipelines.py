"""Pipelines: what is timed is diffusers' own `__call__`, asked for what the case says. Tiny models of real classes."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines_fixture import (
    KINDS,
    PROMPTS,
    TRAINING,
    case_of,
    dit,
    stable_diffusion,
    workload_of,
)

import baselines
import benches.models  # noqa: F401  (fills the registry)
from benches.models import networks, weights
from benches.models.dit import dit_workload
from benches.models.stable_diffusion import stable_diffusion_workload
from benches.models.workloads import item_seeds
from benches.schedulers import SCHEDULERS, build
from harness.reasons import Reason
from harness.registry import MODELS
from harness.types import Case, Workload

# diffusers passes arrays to numpy in a way that numpy 2 deprecates; nothing here can change it.
pytestmark = [pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]


def run(workload: Workload, batch: Any = None) -> torch.Tensor:
    return workload.iterate({c.name: c.module for c in workload.components}, batch or workload.batch)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize(
    ("kind", "scheduler"), [("sd", "dpmpp_2m"), ("sd", "euler"), ("sdxl", "euler"), ("sdxl", "heun"), ("dit", "ddim")]
)
def test_what_is_timed_is_the_pipeline(kind: str, scheduler: str, guidance_scale: float) -> None:
    case = case_of(kind, scheduler=scheduler, guidance_scale=guidance_scale)
    asked = KINDS[kind][2][: case.batch_size]
    pipeline = KINDS[kind][0]()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build(scheduler, pipeline.scheduler.config)
    size = {} if kind == "dit" else {"height": case.image_size, "width": case.image_size}
    plain = pipeline(
        asked,
        generator=[torch.Generator().manual_seed(seed) for seed in item_seeds(case, 2)],
        num_inference_steps=case.num_steps,
        guidance_scale=guidance_scale,
        output_type="pt",
        **size,
    ).images
    workload = workload_of(kind, case)
    images = run(workload)
    assert tuple(images.shape) == workload.output_shape
    assert images.dtype == torch.float32
    assert images.std() > 0.01
    torch.testing.assert_close(images, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "scheduler", "guidance_scale"),
    [
        *(("sd", name, 4.0) for name in SCHEDULERS),
        *(("dit", name, 4.0) for name, entry in SCHEDULERS.items() if not entry.scales_input),
        ("sdxl", "euler", 4.0),
        ("sd", "ddim", 1.0),
        ("dit", "ddim", 1.0),
        ("sdxl", "euler", 1.0),
    ],
)
def test_calls_and_inputs_are_as_the_components_say(kind: str, scheduler: str, guidance_scale: float) -> None:
    workload = workload_of(kind, case_of(kind, scheduler=scheduler, guidance_scale=guidance_scale, batch_size=1))
    calls: Counter[str] = Counter()

    def counting(component: Any) -> Any:
        def forward(*tensors: torch.Tensor) -> torch.Tensor:
            calls[component.name] += 1
            assert [(t.shape, t.dtype) for t in tensors] == [(t.shape, t.dtype) for t in component.inputs]
            output: torch.Tensor = component.module(*tensors)
            return output

        return forward

    workload.iterate({c.name: counting(c) for c in workload.components}, workload.batch)
    assert calls == {c.name: c.calls for c in workload.components}
    (denoiser,) = (c for c in workload.components if c.repeated)
    assert denoiser.calls == SCHEDULERS[scheduler].evaluations(3)
    assert len(denoiser.inputs[0]) == (2 if guidance_scale > 1 else 1)


@pytest.mark.parametrize(
    ("kind", "scheduler"), [("sd", "dpmpp_2m"), ("sd", "euler_a"), ("sdxl", "euler_a"), ("dit", "ddpm")]
)
def test_an_image_depends_on_its_own_seed_alone(kind: str, scheduler: str) -> None:
    alone = run(workload_of(kind, case_of(kind, scheduler=scheduler, batch_size=1)))
    together = workload_of(kind, case_of(kind, scheduler=scheduler, batch_size=4))
    images = run(together)
    torch.testing.assert_close(images[:1], alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(run(together), images, atol=0, rtol=0)
    others = run(workload_of(kind, case_of(kind, scheduler=scheduler, batch_size=1, seed=1)))
    assert (others - alone).abs().max() > 0.01


def test_each_call_uses_its_own_forwards_and_keeps_no_network() -> None:
    workload = workload_of("sd", case_of("sd"))
    forwards = {c.name: c.module for c in workload.components}
    blank = {**forwards, "vae_decoder": lambda latents: torch.zeros(len(latents), 3, 64, 64)}
    images = run(workload)
    assert torch.equal(workload.iterate(blank, workload.batch), torch.full((2, 3, 64, 64), 0.5))
    torch.testing.assert_close(run(workload), images, atol=0, rtol=0)
    for component in workload.components:
        component.module.network = None
    with pytest.raises(TypeError, match="NoneType"):
        run(workload)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_that_is_kept_for_several_rows_stays_as_it_was_given(kind: str) -> None:
    """A plugin loads a large pipeline once: the second row found the first one's stand-ins in it."""
    make, workload, asked, _ = KINDS[kind]
    pipeline = make()
    kept, scheduler = dict(pipeline.components), pipeline.scheduler
    first, other, again = (
        run(workload(pipeline, case_of(kind, scheduler=name), asked, "random-0"))
        for name in ("ddim", "dpmpp_2m", "ddim")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert pipeline.components == kept
    assert pipeline.scheduler is scheduler


def test_ticks_are_exact_for_whole_steps_and_close_for_others() -> None:
    whole = networks.to_ticks(torch.tensor(999), 3)
    assert whole.tolist() == [999 * networks.TICKS] * 3
    assert networks.from_ticks(whole).tolist() == [999.0] * 3
    assert networks.from_ticks(networks.to_ticks(torch.tensor(965.4), 1)).item() == torch.tensor(965.4).item()


def test_dit_refuses_what_its_pipeline_would_compute_wrongly() -> None:
    with pytest.raises(ValueError, match="scheduler 'euler' needs; it can use ddim"):
        workload_of("dit", case_of("dit", scheduler="euler"))
    with pytest.raises(ValueError, match="images of 32 px, not 64 px"):
        workload_of("dit", case_of("dit", image_size=64))


def test_identity_is_json_and_tells_work_apart() -> None:
    three, four = (workload_of("sd", case_of("sd", num_steps=n)).identity for n in (3, 4))
    assert json.dumps(three, sort_keys=True) != json.dumps(four, sort_keys=True)
    assert three["pipeline"] == "StableDiffusionPipeline"
    assert three["asked"] == PROMPTS[:2]
    assert three["inputs"]["unet"][0] == [[4, 4, 8, 8], "float32"]
    assert three["weights_hash"] == "random-0"


def test_a_saved_stable_diffusion_runs_with_its_own_tokenizer(tmp_path: Path) -> None:
    from benches.digits.prompts import build_tokenizer

    stable_diffusion(build_tokenizer()).save_pretrained(tmp_path)
    case = case_of("sd", model="sd15", weights=str(tmp_path), prompt="a handwritten seven")
    workload = MODELS["sd15"].build(case)
    assert run(workload).shape == (2, 3, 64, 64)
    assert workload.identity["asked"] == ["a handwritten seven"] * 2
    assert workload.identity["weights_hash"] == weights.folder_hash(tmp_path)
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline, not a DiTPipeline"):
        MODELS["dit_xl_2"].build(case.with_(model="dit_xl_2", prompt=None))


def test_a_saved_dit_runs(tmp_path: Path) -> None:
    dit().save_pretrained(tmp_path)
    workload = MODELS["dit_s_2"].build(case_of("dit", model="dit_s_2", weights=str(tmp_path)))
    in_memory = dit_workload(dit(), case_of("dit"), workload.batch.asked, "random-0")
    torch.testing.assert_close(run(workload), run(in_memory), atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [5, 10, 1500])
def test_the_unguided_half_asks_for_the_networks_own_null_class(classes: int) -> None:
    asked: list[list[int]] = []

    def transformer(sample: torch.Tensor, ticks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(labels.tolist())
        output: torch.Tensor = networks_of["transformer"](sample, ticks, labels)
        return output

    workload = dit_workload(dit(classes), case_of("dit", num_steps=1), [1, 4], "random-0")
    networks_of = {c.name: c.module for c in workload.components}
    images = workload.iterate({**networks_of, "transformer": transformer}, workload.batch)
    assert asked == [[1, 4, classes, classes]]
    assert torch.isfinite(images).all()
    assert workload.identity["null_class"] == classes
    assert "null_class" not in dit_workload(dit(), case_of("dit"), [1, 4], "random-0").identity


def test_labels_are_those_that_the_weights_have(tmp_path: Path) -> None:
    dit(10).save_pretrained(tmp_path)
    workload = MODELS["dit_s_2"].build(case_of("dit", model="dit_s_2", weights=str(tmp_path), batch_size=4))
    assert workload.identity["asked"] == [7, 0, 7, 4]  # 207, 360, 387, 974 modulo 10
    assert run(workload).shape == (4, 3, 32, 32)
    with pytest.raises(ValueError, match="label 12 is requested, but these weights have the classes 0 to 9"):
        dit_workload(dit(10), case_of("dit"), [12], "random-0")
    with pytest.raises(ValueError, match="label 1000 is DiTPipeline's null class"):
        dit_workload(dit(1500), case_of("dit"), [1000], "random-0")


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_prompts_that_are_cut_are_counted_by_every_tokenizer(kind: str) -> None:
    make, workload_of_kind, _, _ = KINDS[kind]
    prompts = ["a cat", "word " * 76, "word " * 80]  # a start and an end token more each: 77 fit
    workload = workload_of_kind(make(), case_of(kind, batch_size=4), prompts, "random-0")
    names = ["tokenizer", "tokenizer_2"] if kind == "sdxl" else ["tokenizer"]
    counted = {"limit": 77, "prompts": 4, "truncated": 2, "tokens_lost": 6}
    assert workload.facts["truncation"] == dict.fromkeys(names, counted)
    assert {warning.kind for warning in workload.warnings} == {"truncated"}
    assert tuple(map(str, workload.warnings)) == tuple(
        f"truncated: the {name} cuts prompts at 77 tokens, and 2 of 4 prompts of the batch lose 1 to 5 tokens each"
        for name in names
    )
    assert run(workload).shape[0] == 4
    short = workload_of_kind(make(), case_of(kind), ["a cat"], "random-0")
    assert short.warnings == ()
    assert {fact["truncated"] for fact in short.facts["truncation"].values()} == {0}


def test_trained_tokenizers_count_their_own_tokens() -> None:
    from benches.digits.prompts import build_tokenizer

    tokenizer = build_tokenizer()
    (ids,) = tokenizer(["a handwritten seven " * 40]).input_ids
    assert len(ids) > 77
    pipeline = stable_diffusion(tokenizer)
    workload = stable_diffusion_workload(pipeline, case_of("sd"), ["a handwritten seven " * 40], "random-0")
    assert workload.facts["truncation"]["tokenizer"]["tokens_lost"] == 2 * (len(ids) - 77)


def test_the_identity_has_the_scheduler_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class may change its own settings when it is told the steps: DPM-Solver++ 2S with an odd number of them."""
    pipeline = stable_diffusion()
    pipeline.scheduler.register_to_config(use_karras_sigmas=True, solver_order=3, algorithm_type="sde-dpmsolver++")
    ran: list[Any] = []
    called = type(pipeline).__call__
    monkeypatch.setattr(type(pipeline), "__call__", lambda self, **asked: ran.append(self) or called(self, **asked))
    workload = stable_diffusion_workload(pipeline, case_of("sd", scheduler="dpmpp_2m"), PROMPTS, "random-0")
    run(workload)
    found, scheduler = workload.identity["scheduler"], ran[0].scheduler
    assert found["class"] == type(scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert {k: v for k, v in scheduler.config.items() if not k.startswith("_")} == found["config"]
    asked = {"use_karras_sigmas": False, "solver_order": 2, "algorithm_type": "dpmsolver++"}
    assert asked.items() <= found["config"].items()


def test_a_setting_without_effect_is_a_warning_of_the_row() -> None:
    pipeline = stable_diffusion()
    pipeline.scheduler = type(pipeline.scheduler)(**TRAINING, clip_sample=False, timestep_spacing="trailing")
    workload = stable_diffusion_workload(pipeline, case_of("sd", scheduler="dpmpp_2s"), PROMPTS, "random-0")
    (warning,) = workload.warnings
    data = {"scheduler": "DPMSolverSinglestepScheduler", "setting": "timestep_spacing", "value": "trailing"}
    assert warning == Reason("schedule", data)
    assert str(warning).startswith("schedule: DPMSolverSinglestepScheduler has no setting timestep_spacing")


@pytest.mark.parametrize("model", ["digits_dit", "digits_sd"])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m"])
def test_the_digits_rows_have_the_schedulers_of_the_shipped_run(model: str, scheduler: str) -> None:
    stored = json.loads((Path(baselines.__file__).parent / "reference" / "digits.json").read_text())
    measured = [m for m in stored["run"]["measurements"] if m["case"]["model"] == model]
    wanted = next(m["facts"]["identity"]["scheduler"] for m in measured if m["case"]["scheduler"] == scheduler)
    axes = {"weights": "digits", "scheduler": scheduler, "num_steps": 2}
    workload = MODELS[model].build(Case(**{"model": model, **MODELS[model].axes, **axes}))
    found = workload.identity["scheduler"]
    stored_as = {key: str(v) if v == -math.inf else v for key, v in found["config"].items()}  # JSON has no infinity
    assert {**found, "config": stored_as} == wanted


def test_a_folder_that_is_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model_index"):
        MODELS["sd15"].build(case_of("sd", model="sd15", weights=str(tmp_path)))
