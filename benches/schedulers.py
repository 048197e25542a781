"""The schedulers by name: the diffusers class, its settings, and how often it evaluates the model.

A name fixes every solver setting: what it does not state is the default of the diffusers class. The configuration of
the model's own scheduler supplies only the noise schedule, by the two lists below; its solver settings (order, SDE,
Karras) have no effect. Importing this module imports neither torch nor diffusers.

    python -c "from benches import schedulers; print(schedulers.SCHEDULERS['heun'].evaluations(20))"   # 39
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness import entries
from harness.entries import BadEntry
from harness.reasons import Reason
from harness.registry import SCHEDULERS, nearest
from harness.types import Unavailable

__all__ = ["SCHEDULERS", "Scheduler", "build", "settings_without_effect"]

Evaluations = Callable[[int], int]

# What the weights were trained on. If the model's file does not state one, the default of its own class applies.
TRAINED_ON = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_type",  # "continuous": the network was conditioned on the noise level instead of a step
    "use_flow_sigmas",  # a flow-matching model, and the shift of its noise levels
    "flow_shift",
    "use_dynamic_shifting",
    "time_shift_type",
    "shift_terminal",
    "clip_sample",  # whether the data lie within ±clip_sample_range: pixels do, latents do not
)
# Which of these noise levels are visited, and numbers that go with a setting above. If the model's file does not state
# one, the default of the class that is built applies, as in diffusers' own `from_config`.
VISITED = (
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "final_sigmas_type",
    "lambda_min_clipped",  # cuts the infinite end of a cosine schedule
    "clip_sample_range",
    "thresholding",  # for pixels, like clip_sample
    "dynamic_thresholding_ratio",
    "sample_max_value",
)
# A class that lacks one of these settings behaves as with this value. Another value is another noise schedule.
ONLY_VALUE: Mapping[str, Any] = {
    "rescale_betas_zero_snr": False,
    "timestep_type": "discrete",
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
}
# The same for settings without which a model can still be sampled, though not as intended.
USUAL_VALUE: Mapping[str, Any] = {"timestep_spacing": "linspace", "clip_sample": False, "thresholding": False}


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """One way to solve the denoising equation.

    `evaluations(num_steps)` is how often the model is called, guidance not counted (it doubles the batch, not the
    calls). `scales_input` says that the solver works on latents of another scale than the model was trained on and
    rescales them for every call. A pipeline that steps from the rescaled latents cannot use it (DiTPipeline).
    """

    name: str
    diffusers_class: str
    description: str
    evaluations: Evaluations
    config: Mapping[str, Any] = field(default_factory=dict)
    scales_input: bool = False

    @property
    def info(self) -> dict[str, Any]:
        return {"class": self.diffusers_class, "config": dict(self.config), "description": self.description}


FIELDS: Final = {
    "diffusers_class": entries.Rule(lambda value: isinstance(value, str) and value.isidentifier(), "a class name"),
    "description": entries.LINE,
    "evaluations": entries.FUNCTION,
    "config": entries.MAPPING,
    "scales_input": entries.BOOLEAN,
}


@SCHEDULERS.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Scheduler)
    entries.demand_name(subject, entry, name)
    entries.demand(subject, entry, FIELDS)


def build(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler `name` on the noise schedule of a model whose own scheduler has `config`.

    Raises UnknownName for another name, BadEntry if diffusers has no such class, and Unavailable if the class cannot
    reproduce the model's noise schedule.
    """
    import diffusers

    entry = SCHEDULERS[name]
    scheduler_class = getattr(diffusers, entry.diffusers_class, None)
    if scheduler_class is None:
        known = [found for found in dir(diffusers) if found.endswith("Scheduler")]
        near = nearest(entry.diffusers_class, known)
        raise BadEntry(f"scheduler {name!r}: diffusers has no class {entry.diffusers_class!r}; {near}")
    schedule = _schedule(config)
    own_settings = _parameters(scheduler_class)
    for setting, only in ONLY_VALUE.items():
        if setting not in own_settings and schedule.get(setting, only) != only:
            lacking = {"scheduler": name, "class_name": entry.diffusers_class, "setting": setting}
            raise Unavailable(Reason("scheduler_without_setting", {**lacking, "needed": schedule[setting]}))
    if "clip_sample" in own_settings:
        schedule.setdefault("clip_sample", False)  # every pipeline here denoises latents, which have no bounds
    unknown = settings_without_effect(name, config)
    return scheduler_class.from_config({k: v for k, v in schedule.items() if k not in unknown}, **entry.config)


def settings_without_effect(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in `config`, the model's own, that scheduler `name` lacks and that would change its result."""
    import diffusers

    known = _parameters(getattr(diffusers, SCHEDULERS[name].diffusers_class))
    schedule = _schedule(config)
    return {
        setting: schedule[setting]
        for setting, usual in USUAL_VALUE.items()
        if setting not in known and schedule.get(setting, usual) != usual
    }


def _schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    """The noise schedule in the configuration of a model's own scheduler. Unavailable if it has no betas."""
    import diffusers

    own_class = getattr(diffusers, str(config.get("_class_name")), None)
    if own_class is not None and "beta_schedule" not in _parameters(own_class):
        raise Unavailable(
            Reason("schedule_without_betas", {"trained_for": own_class.__name__, "known": list(SCHEDULERS)})
        )
    defaulted = config.get("_use_default_values", ())
    unstated = {} if own_class is None else _parameters(own_class)
    trained = {**unstated, **config}
    return {
        **{setting: trained[setting] for setting in TRAINED_ON if setting in trained},
        **{setting: config[setting] for setting in VISITED if setting in config and setting not in defaulted},
    }


def _parameters(scheduler_class: Any) -> dict[str, Any]:
    """The settings that a diffusers scheduler class takes, with their defaults."""
    parameters = inspect.signature(scheduler_class.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _once(num_steps: int) -> int:
    return num_steps


def _predictor_corrector(num_steps: int) -> int:
    """Two calls per step, but one in the last step, which ends at zero noise and needs no correction."""
    return 2 * num_steps - 1


def _pseudo_linear_multistep(num_steps: int) -> int:
    """One call per step. The first of several steps has two, to start the multistep formula."""
    return num_steps + 1 if num_steps > 1 else 1


def _register(
    name: str,
    diffusers_class: str,
    description: str,
    evaluations: Evaluations = _once,
    scales_input: bool = False,
    **config: Any,
) -> None:
    entry = Scheduler(
        name=name,
        diffusers_class=diffusers_class,
        description=description,
        evaluations=evaluations,
        config=config,
        scales_input=scales_input,
    )
    SCHEDULERS.register(name, entry)


_register("ddim", "DDIMScheduler", "DDIM, deterministic (Song et al. 2020)")
_register("ddpm", "DDPMScheduler", "ancestral sampling with fresh noise in every step (Ho et al. 2020)")
_register(
    "pndm",
    "PNDMScheduler",
    "PLMS, a fourth-order multistep method (Liu et al. 2022); the default of Stable Diffusion v1",
    _pseudo_linear_multistep,
    skip_prk_steps=True,
)
_register("lms", "LMSDiscreteScheduler", "linear multistep in sigma (Crowson's k-diffusion)", scales_input=True)
_register("euler", "EulerDiscreteScheduler", "Euler, deterministic (Karras et al. 2022)", scales_input=True)
_register("euler_a", "EulerAncestralDiscreteScheduler", "Euler with fresh noise in every step", scales_input=True)
_register(
    "heun",
    "HeunDiscreteScheduler",
    "Heun, second order: two evaluations a step (Karras et al. 2022)",
    _predictor_corrector,
    scales_input=True,
)
_register(
    "kdpm2",
    "KDPM2DiscreteScheduler",
    "DPM2, second order: two evaluations a step (Karras et al. 2022)",
    _predictor_corrector,
    scales_input=True,
)
_register(
    "dpmpp_2m",
    "DPMSolverMultistepScheduler",
    "DPM-Solver++ 2M, deterministic (Lu et al. 2022)",
    algorithm_type="dpmsolver++",
    solver_order=2,
)
_register(
    "dpmpp_2m_karras",
    "DPMSolverMultistepScheduler",
    "DPM-Solver++ 2M on the noise levels of Karras et al.",
    algorithm_type="dpmsolver++",
    solver_order=2,
    use_karras_sigmas=True,
)
_register(
    "dpmpp_2m_sde",
    "DPMSolverMultistepScheduler",
    "DPM-Solver++ 2M with fresh noise in every step",
    algorithm_type="sde-dpmsolver++",
    solver_order=2,
)
_register(
    "dpmpp_2s",
    "DPMSolverSinglestepScheduler",
    "DPM-Solver++ 2S, deterministic, one step at a time (Lu et al. 2022)",
    algorithm_type="dpmsolver++",
    solver_order=2,
    lower_order_final=True,  # otherwise the class sets it itself and warns in every run
)
_register("unipc", "UniPCMultistepScheduler", "UniPC, predictor and corrector from one evaluation (Zhao et al. 2023)")
_register("deis", "DEISMultistepScheduler", "DEIS, exponential integrator, multistep (Zhang, Chen 2022)")
