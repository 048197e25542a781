"""What imgbench needs to know about a diffusers pipeline, as one record: its networks, and how it is called.

A new pipeline is one file here, or in a plugin: `register(Pipeline(...))` and a model that builds one
(`benches.models.pipelines.workload`). dit.py is an example. The functions of a record are called with torch imported,
so that importing a pipeline's file imports neither torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from harness import entries
from harness.reasons import Reason
from harness.registry import Registry

if TYPE_CHECKING:
    import torch

    from benches.models.networks import Wrapped
    from benches.models.pipeline_border import StandIn
    from benches.models.pipelines import Asked
    from benches.models.workloads import Batch

UNGUIDED = 1.0  # up to this scale diffusers' pipelines run without guidance


def _once(_asked: Asked) -> int:
    return 1


def evaluations(asked: Asked) -> int:
    """How often the case's scheduler calls the denoiser."""
    from benches.schedulers import SCHEDULERS

    return int(SCHEDULERS[str(asked.case.scheduler)].evaluations(int(asked.case.num_steps or 0)))


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a pipeline.

    name          of the component that the backends build
    attribute     of the pipeline that holds the network
    forward       (self, *tensors) -> one tensor: how the backends call it. `self.network` is the original network, and
                  `self.timestep(ticks)` is the timestep, which is passed as an integer (`benches.models.networks`)
    stand_in      (self, *arguments) -> what the pipeline reads: what it calls instead of the network.
                  `self.cross(*tensors)` runs the forward, `self.config` is the network's, and
                  `self.ticks(timestep, rows)` makes ticks
    method        of the network that the pipeline calls
    inputs        example tensors, with the exact shapes of every call in this case
    calls         how often one iteration calls it
    repeated      whether it is the denoiser
    force_upcast  whether the pipeline runs it in fp32 if its weights are in fp16
    details       attributes of the network that the pipeline reads beside `config`, `dtype` and `device`
    as_published  (network) -> None: gives random weights of the class `network_class` the published parameters
    """

    name: str
    attribute: str
    forward: Callable[..., torch.Tensor]
    stand_in: Callable[..., Any]
    inputs: Callable[[Asked], tuple[torch.Tensor, ...]]
    method: str = "forward"
    calls: Callable[[Asked], int] = _once
    repeated: bool = False
    force_upcast: Callable[[Any], bool] = lambda _pipeline: False
    details: Callable[[Any], Mapping[str, Any]] = lambda _network: {}
    network_class: str = ""
    as_published: Callable[[Any], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One class of diffusers' pipelines.

    networks   those that a backend builds, in the order of their first call
    call       runs the pipeline's own `__call__` on a batch: float (N, 3, H, W) of 0 to 1
    check      raises Unavailable or ValueError if the pipeline cannot do what is requested
    identity   what else makes two pieces of its work the same
    facts      further facts of the row
    warnings   further warnings of the row
    left_out   arguments of the pipeline that leave out what does not belong to the generation
    """

    diffusers_class: str
    networks: tuple[Network, ...]
    call: Callable[[Any, Any, Batch], torch.Tensor]
    check: Callable[[Asked], None] = lambda _asked: None
    identity: Callable[[Asked], Mapping[str, Any]] = lambda _asked: {}
    facts: Callable[[Asked], Mapping[str, Any]] = lambda _asked: {}
    warnings: Callable[[Asked], tuple[Reason | str, ...]] = lambda _asked: ()
    left_out: Mapping[str, Any] = field(default_factory=dict)


PIPELINES: Registry[Pipeline] = Registry("pipeline")


OF_PIPELINE: Final = {
    "networks": entries.Rule(
        lambda value: isinstance(value, tuple) and len(value) > 0 and all(isinstance(n, Network) for n in value),
        "a tuple of one or more benches.models.pipeline.Network",
    ),
    **dict.fromkeys(("call", "check", "identity", "facts", "warnings"), entries.FUNCTION),
    "left_out": entries.MAPPING,
}
OF_NETWORK: Final = {
    **dict.fromkeys(("name", "attribute", "method"), entries.LINE),
    **dict.fromkeys(("forward", "stand_in", "inputs", "calls", "force_upcast", "details"), entries.FUNCTION),
    "repeated": entries.BOOLEAN,
    "network_class": entries.TEXT,
    "as_published": entries.optional(entries.FUNCTION),
}


@PIPELINES.checked_by
def _check(subject: str, _name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Pipeline)
    entries.demand(subject, entry, OF_PIPELINE)
    for network in entry.networks:
        entries.demand(f"{subject}: network {network.name!r}", network, OF_NETWORK)


def register(pipeline: Pipeline) -> Pipeline:
    """Adds `pipeline` under the name of its diffusers class. Raises DuplicateName and BadEntry."""
    return PIPELINES.register(pipeline.diffusers_class, pipeline)


def decode(self: Wrapped, latents: torch.Tensor) -> torch.Tensor:
    """Latents (N, C, h, w), already divided by the scaling factor -> images (N, 3, H, W), about -1 to 1."""
    output: torch.Tensor = self.network.decode(latents, return_dict=False)[0]
    return output


def decode_stand_in(self: StandIn, latents: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
    image = self.cross(latents)
    return SimpleNamespace(sample=image) if return_dict else (image,)


def denoiser(name: str, **described: Any) -> Network:
    """The network `name`, which the pipeline calls in every denoising step. `described` has the other fields of a
    Network: `forward`, `stand_in` and `inputs`, and what differs from the defaults."""
    return Network(name=name, attribute=name, calls=evaluations, repeated=True, **described)


def vae_decoder(attribute: str = "vae", force_upcast: Callable[[Any], bool] = lambda _pipeline: False) -> Network:
    """The decoder of a VAE, which most pipelines of latents have."""
    return Network(
        name="vae_decoder",
        attribute=attribute,
        forward=decode,
        stand_in=decode_stand_in,
        method="decode",
        inputs=lambda asked: (asked.latents(asked.case.batch_size, asked.vae.config.latent_channels),),
        force_upcast=force_upcast,
    )
