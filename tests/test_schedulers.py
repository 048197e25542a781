"""Every scheduler: known to diffusers, solves both kinds of prediction, and calls the model as often as it says."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from benches.schedulers import SCHEDULERS, Scheduler, build, settings_without_effect
from harness.registry import UnknownName
from harness.types import Unavailable

# diffusers passes arrays to numpy in a way that numpy 2 deprecates; nothing here can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

TRAINING: dict[str, object] = {
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
    assert SCHEDULERS
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


SOLVER_SETTINGS = {  # of a published folder's own scheduler; none of them is a schedule
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
    "use_lu_lambdas": True,
    "algorithm_type": "sde-dpmsolver++",
    "solver_order": 3,
    "solver_type": "heun",
    "lower_order_final": False,
    "euler_at_final": True,
    "predict_x0": False,
    "disable_corrector": [0, 1],
    "variance_type": "fixed_large",
    "interpolation_type": "log_linear",
    "skip_prk_steps": False,
    "sigma_min": 0.1,
    "sigma_max": 5.0,
}


def settings(name: str, config: dict[str, object], num_steps: int = 6) -> dict[str, object]:
    scheduler = build(name, config)
    scheduler.set_timesteps(num_steps)
    return {key: value for key, value in scheduler.config.items() if not key.startswith("_")}


@pytest.mark.parametrize("own_class", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_a_name_fixes_every_solver_setting_whatever_the_models_own_scheduler_is(name: str, own_class: str) -> None:
    own = {**TRAINING, "_class_name": own_class}
    plain = settings(name, own)
    assert settings(name, {**own, **SOLVER_SETTINGS}) == plain
    assert plain | dict(SCHEDULERS[name].config) == plain


def test_three_names_of_one_class_are_three_solvers_on_a_folder_that_has_its_own() -> None:
    own = {**TRAINING, "_class_name": "DPMSolverMultistepScheduler", **SOLVER_SETTINGS}
    named = {name: settings(name, own) for name in ("dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde")}
    found = {name: (s["algorithm_type"], s["use_karras_sigmas"], s["solver_order"]) for name, s in named.items()}
    assert found == {
        "dpmpp_2m": ("dpmsolver++", False, 2),
        "dpmpp_2m_karras": ("dpmsolver++", True, 2),
        "dpmpp_2m_sde": ("sde-dpmsolver++", False, 2),
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("beta_start", 0.002),
        ("beta_end", 0.05),
        ("beta_schedule", "linear"),
        ("num_train_timesteps", 500),
        ("prediction_type", "v_prediction"),
        ("timestep_spacing", "trailing"),
        ("steps_offset", 0),
        ("final_sigmas_type", "sigma_min"),
        ("rescale_betas_zero_snr", True),
    ],
)
def test_the_noise_schedule_is_the_models(setting: str, value: object) -> None:
    assert settings("dpmpp_2m", {**TRAINING, setting: value})[setting] == value


@pytest.mark.parametrize("name", ["heun", "kdpm2", "lms", "pndm", "dpmpp_2s", "deis"])
def test_a_class_that_cannot_have_the_models_noise_schedule_is_refused(name: str) -> None:
    with pytest.raises(Unavailable, match=f"scheduler '{name}' .* has no setting 'rescale_betas_zero_snr'"):
        build(name, {**TRAINING, "rescale_betas_zero_snr": True})


@pytest.mark.parametrize("own_class", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_a_model_without_betas_is_refused(own_class: str) -> None:
    with pytest.raises(Unavailable, match=f"{own_class}, whose noise schedule has no betas"):
        build("euler", {"_class_name": own_class, "num_train_timesteps": 1000})


def test_latents_are_clipped_only_where_the_model_says_so() -> None:
    assert settings("ddim", TRAINING)["clip_sample"] is False
    unstated = {key: value for key, value in TRAINING.items() if key != "clip_sample"}
    assert settings("ddim", {**unstated, "_class_name": "PNDMScheduler"})["clip_sample"] is False
    assert settings("ddim", {**unstated, "_class_name": "DDIMScheduler"})["clip_sample"] is True  # its own default
    assert settings("ddpm", {**TRAINING, "clip_sample": True})["clip_sample"] is True


def test_what_a_hand_written_file_leaves_out_is_the_default_of_its_own_class() -> None:
    """Heun's default betas are other ones than those that an unstated DDIM model was trained on."""
    found = settings("heun", {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000})
    assert (found["beta_start"], found["beta_end"]) == (0.0001, 0.02)


def test_a_setting_that_a_class_does_not_have_is_told_and_not_recorded() -> None:
    own = {**TRAINING, "timestep_spacing": "trailing", "clip_sample": True}
    assert settings_without_effect("dpmpp_2s", own) == {"timestep_spacing": "trailing", "clip_sample": True}
    assert "timestep_spacing" not in settings("dpmpp_2s", own)
    assert settings_without_effect("ddim", own) == {}
