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

from benches.models.pipeline import PIPELINES

if TYPE_CHECKING:
    from torch import nn

    from harness.types import Case

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
    """A network from its class name and configuration; on the device and with the initialisation that are in force."""
    name = entry["class"]
    library = importlib.import_module("diffusers")
    if hasattr(library, name):
        network: nn.Module = getattr(library, name).from_config(dict(entry["config"]))
    else:
        network_class = getattr(importlib.import_module("transformers"), name)
        network = network_class(network_class.config_class(**entry["config"]))
    for own in (network for pipeline in PIPELINES.values() for network in pipeline.networks):
        if own.network_class == name and own.as_published is not None:
            own.as_published(network)
    return network


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
    """Arguments that leave out the parts of a pipeline that do not belong to the measured generation."""
    return dict(PIPELINES[pipeline].left_out) if pipeline in PIPELINES else {}


def load(case: Case) -> tuple[Any, str]:
    """The pipeline that `case.weights` names, and the weights' name; for any model with a bundled architecture."""
    import diffusers

    from benches.models.weights import RANDOM_SEED, load_pipeline

    if case.weights == "random":
        return random_pipeline(case.model), f"random-{RANDOM_SEED}"
    entry = read(case.model)
    options = pipeline_options(entry["pipeline"])
    return load_pipeline(getattr(diffusers, entry["pipeline"]), case.weights, entry["hub"], **options)
