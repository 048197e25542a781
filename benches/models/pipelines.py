"""From a built diffusers pipeline to a workload whose iteration is the pipeline's own `__call__`.

    made = workload(PIPELINES["DiTPipeline"], pipeline, case, asked=[207, 360], weights_hash="random-0")
    forwards = {c.name: c.module for c in made.components}
    images = made.iterate(forwards, made.batch)                # float32 (N, 3, H, W), 0 to 1

The record of a pipeline (`benches.models.pipeline`) holds what differs between pipelines. A copy of the pipeline runs:
it holds stand-ins, and its scheduler is replaced by the case's, with the model's noise schedule. The components own the
networks. The original pipeline is not changed. The output stays a tensor: no PIL, no progress bar, nothing written.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benches.models import networks
from benches.models.pipeline import UNGUIDED, Network, Pipeline
from benches.models.pipeline_border import Border, stand_in
from benches.models.workloads import Batch, batch_of, facts
from benches.schedulers import build, settings_without_effect
from harness.reasons import Reason
from harness.types import Case, Component, Forward, Quality, Workload

EXAMPLE_TIMESTEP = 500  # of the 1,000 that all these models were trained on


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a case requests of a pipeline, with the example tensors with which its networks are traced."""

    pipeline: Any
    case: Case
    batch: Batch

    @property
    def vae(self) -> Any:
        """The pipeline's autoencoder, whatever its attribute is called."""
        return getattr(self.pipeline, "vae", None) or self.pipeline.vqvae

    @property
    def is_guided(self) -> bool:
        return self.case.guidance_scale is not None and self.case.guidance_scale > UNGUIDED

    @property
    def rows(self) -> int:
        """The denoiser's batch size. With guidance it contains every item twice, with and without the condition."""
        return self.case.batch_size * (2 if self.is_guided else 1)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.case.seed))

    def latents(self, rows: int, channels: int) -> torch.Tensor:
        side = int(self.case.image_size or 0) // self.pixels_a_latent
        return self.normal(rows, channels, side, side)

    @property
    def pixels_a_latent(self) -> int:
        """Pixels per latent along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def ticks(self, rows: int) -> torch.Tensor:
        return networks.to_ticks(torch.tensor(EXAMPLE_TIMESTEP), rows)

    def ids(self, tokenizer: Any) -> torch.Tensor:
        """The token ids of the batch's prompts, int64 (N, T)."""
        options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        ids: torch.Tensor = tokenizer(list(self.batch.asked), return_tensors="pt", **options).input_ids
        return ids


def workload(
    kind: Pipeline,
    pipeline: Any,
    case: Case,
    asked: Sequence[Any],
    weights_hash: str,
    quality: Quality | None = None,
) -> Workload:
    """The workload that calls `pipeline`, with a stand-in in place of each network. `asked` holds the prompts or class
    labels of the items, in turn. Raises Unavailable and ValueError as the pipeline's record does."""
    pipeline = copy.copy(pipeline)
    wanted = Asked(pipeline=pipeline, case=case, batch=batch_of(case, asked))
    kind.check(wanted)
    further, more_facts, warnings = kind.identity(wanted), kind.facts(wanted), kind.warnings(wanted)
    components = tuple(_component(network, wanted) for network in kind.networks)
    border = Border()
    for network in kind.networks:
        setattr(pipeline, network.attribute, stand_in(border, network, getattr(pipeline, network.attribute)))
    name, own = str(case.scheduler), {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    pipeline.scheduler = build(name, own)
    pipeline.scheduler.set_timesteps(case.num_steps)  # some classes change some of their settings here
    pipeline.set_progress_bar_config(disable=True)

    def iterate(forwards: Mapping[str, Forward], batch: Batch) -> torch.Tensor:
        with border.installed(forwards, torch.device(batch.device)):
            return kind.call(pipeline, case, batch)

    return Workload(
        components=components,
        iterate=iterate,
        batch=wanted.batch,
        output_shape=(case.batch_size, 3, int(case.image_size or 0), int(case.image_size or 0)),
        identity={**facts(components, weights_hash), **_asked(pipeline, case, wanted.batch), **further},
        output_kind="images",
        quality=quality,
        facts=more_facts,
        warnings=(
            *(
                Reason("schedule", {"scheduler": type(pipeline.scheduler).__name__, "setting": setting, "value": value})
                for setting, value in settings_without_effect(name, own).items()
            ),
            *warnings,
        ),
    )


def _component(network: Network, asked: Asked) -> Component:
    return Component(
        name=network.name,
        module=networks.wrapped(network.forward, getattr(asked.pipeline, network.attribute)),
        inputs=network.inputs(asked),
        calls=network.calls(asked),
        repeated=network.repeated,
        force_upcast=network.force_upcast(asked.pipeline),
    )


def _asked(pipeline: Any, case: Case, batch: Batch) -> dict[str, Any]:
    """Work identity of a pipeline: what is requested of it. The scheduler's settings are read back from the object that
    runs, after `set_timesteps`; private entries of its configuration (versions) stay out."""
    config = {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    return {
        "pipeline": type(pipeline).__name__,
        "scheduler": {"class": type(pipeline.scheduler).__name__, "config": config},
        "num_steps": case.num_steps,
        "guidance_scale": case.guidance_scale,
        "image_size": case.image_size,
        "asked": list(batch.asked),
        "seeds": list(batch.seeds),
    }
