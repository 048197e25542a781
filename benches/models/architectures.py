"""Published architectures, built from the configurations in `benches/architectures/`: nothing is downloaded.

python -c "from benches.models import architectures; print(architectures.parameters('sd15'))"   # 1066235307
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parents[1] / "architectures"


@functools.cache
def read(name: str) -> Mapping[str, Any]:
    """The bundled architecture `name`: hub, source, pipeline, scheduler, tokenizers, networks."""
    entry: Mapping[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return entry


def parameters(name: str) -> int:
    """The published number of parameters of all networks of the pipeline."""
    return sum(network["parameters"] for network in read(name)["networks"].values())


def build_network(entry: Mapping[str, Any]) -> nn.Module:
    """A network from its class name and configuration; on the device and with the fills that are in force."""
    library = importlib.import_module("transformers" if entry["class"].startswith("CLIP") else "diffusers")
    network_class = getattr(library, entry["class"])
    if library.__name__ == "diffusers":
        network = network_class.from_config(dict(entry["config"]))
    else:
        network = network_class(getattr(library, "CLIPTextConfig")(**entry["config"]))  # noqa: B009
    if entry["class"] == "DiTTransformer2DModel":
        share_embedder(network)
    built: nn.Module = network
    return built


def share_embedder(transformer: Any) -> None:
    """Give a diffusers DiT the parameters of the published one.

    diffusers holds an embedder of timestep and class in every block (XL/2: 749.8 M parameters), filled with copies
    when it converts the published weights, which have one for all blocks (675.1 M). So random weights share one. The
    position table is a frozen parameter there and counts; in diffusers it is a buffer, so it becomes a parameter.
    The work is diffusers' own either way: every block embeds.
    """
    from torch.nn import Parameter

    first, *others = transformer.transformer_blocks
    for block in others:
        block.norm1.emb = first.norm1.emb
    table = transformer.pos_embed.pos_embed
    del transformer.pos_embed.pos_embed
    transformer.pos_embed.pos_embed = Parameter(table, requires_grad=False)


def random_pipeline(name: str) -> Any:
    """The whole pipeline of the bundled architecture `name` with seeded random weights, fp32 on the CPU."""
    import diffusers

    from benches.models.tokenizer import WordTokenizer
    from benches.models.weights import random_module

    entry = read(name)
    parts: dict[str, Any] = {part: WordTokenizer(**options) for part, options in entry.get("tokenizers", {}).items()}
    for part, network in entry["networks"].items():
        parts[part] = random_module(functools.partial(build_network, network))
    scheduler = entry["scheduler"]
    parts["scheduler"] = getattr(diffusers, scheduler["class"]).from_config(scheduler["config"])
    pipeline_class = getattr(diffusers, entry["pipeline"])
    return pipeline_class(**parts, **pipeline_options(entry["pipeline"]))


def pipeline_options(pipeline: str) -> dict[str, Any]:
    """What is left out of a pipeline: it is no part of the generation that is measured."""
    if pipeline == "StableDiffusionPipeline":
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if pipeline == "StableDiffusionXLPipeline":
        return {"add_watermarker": False}
    return {}
