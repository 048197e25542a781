"""The schedulers by name: which diffusers class, with which settings, and how often it asks the model.

A scheduler is built from the model's own training configuration (`from_config`), so that the noise schedule stays the
one that the weights were trained on and only the solver changes. Importing this module imports neither torch nor
diffusers.

    python -c "from benches import schedulers; print(schedulers.SCHEDULERS['heun'].evaluations(20))"   # 39
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.registry import SCHEDULERS

__all__ = ["SCHEDULERS", "Scheduler", "build"]

Evaluations = Callable[[int], int]


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """One way to solve the denoising equation.

    `evaluations(num_steps)` is how often the model is called, guidance not counted (it doubles the batch, not the
    calls). `scales_input` tells that the solver works on latents of another scale than the model was trained on and
    rescales them for every call: a pipeline that steps from the rescaled latents cannot use it (DiTPipeline).
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


def build(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler `name` for a model whose own scheduler has `config`; UnknownName for another name."""
    import diffusers

    entry = SCHEDULERS[name]
    return getattr(diffusers, entry.diffusers_class).from_config(config, **entry.config)


def _once(num_steps: int) -> int:
    return num_steps


def _predictor_corrector(num_steps: int) -> int:
    """Twice a step; the last step ends at zero noise, where there is nothing to correct."""
    return 2 * num_steps - 1


def _pseudo_linear_multistep(num_steps: int) -> int:
    """The first step of several is evaluated twice, to start the multistep formula."""
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
    "PLMS, a fourth-order multistep method (Liu et al. 2022); the first Stable Diffusion's own",
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
_register("dpmpp_2m", "DPMSolverMultistepScheduler", "DPM-Solver++ 2M, deterministic (Lu et al. 2022)")
_register(
    "dpmpp_2m_karras",
    "DPMSolverMultistepScheduler",
    "DPM-Solver++ 2M on the noise levels of Karras et al.",
    use_karras_sigmas=True,
)
_register(
    "dpmpp_2m_sde",
    "DPMSolverMultistepScheduler",
    "DPM-Solver++ 2M with fresh noise in every step",
    algorithm_type="sde-dpmsolver++",
)
_register(
    "dpmpp_2s",
    "DPMSolverSinglestepScheduler",
    "DPM-Solver++ 2S, deterministic, one step at a time (Lu et al. 2022)",
    lower_order_final=True,  # else the class sets it by itself and says so on every run
)
_register("unipc", "UniPCMultistepScheduler", "UniPC, predictor and corrector from one evaluation (Zhao et al. 2023)")
_register("deis", "DEISMultistepScheduler", "DEIS, exponential integrator, multistep (Zhang, Chen 2022)")
