"""Every scheduler: known to diffusers, solves both kinds of prediction, and calls the model as often as it says."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from benches.schedulers import SCHEDULERS, Scheduler, build
from harness.registry import UnknownName

# diffusers passes arrays to numpy in a way that numpy 2 deprecates; nothing here can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

TRAINING = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
}


@pytest.mark.parametrize(
    ("name", "calls"), [("ddim", 20), ("pndm", 21), ("heun", 39), ("kdpm2", 39), ("dpmpp_2m", 20), ("unipc", 20)]
)
def test_evaluations_of_20_steps(name: str, calls: int) -> None:
    assert SCHEDULERS[name].evaluations(20) == calls


@pytest.mark.parametrize("name", list(SCHEDULERS))
@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_calls_and_finite_latents(name: str, num_steps: int, prediction_type: str) -> None:
    import torch

    scheduler = build(name, {**TRAINING, "prediction_type": prediction_type})
    scheduler.set_timesteps(num_steps)
    assert len(scheduler.timesteps) == SCHEDULERS[name].evaluations(num_steps)
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 8, 8) * scheduler.init_noise_sigma
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(0)} if takes_generator else {}
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(torch.randn_like(model_input), timestep, latents, **extra, return_dict=False)[0]
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_scales_input_is_true_of_the_class(name: str) -> None:
    import torch

    scheduler = build(name, TRAINING)
    scheduler.set_timesteps(5)
    latents = torch.ones(1, 4, 2, 2)
    scaled = scheduler.scale_model_input(latents, scheduler.timesteps[0])
    assert SCHEDULERS[name].scales_input == (not torch.equal(scaled, latents))


def test_entries_describe_themselves() -> None:
    for name, entry in SCHEDULERS.items():
        assert isinstance(entry, Scheduler)
        assert entry.name == name
        assert entry.description
        assert entry.info["class"] == entry.diffusers_class


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'euler_a'"):
        build("eulera", TRAINING)


def test_import_is_cheap() -> None:
    code = (
        "import sys, benches.schedulers, benches.models; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
