"""Where weights come from, and their name in a row's identity: random, a folder, or the hub.

Random weights exist to time an architecture without a download. They are one seeded sequence of normal numbers,
repeated over all parameters. Billions of them take seconds, they are the same on every machine, and the outputs are
finite in fp16.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benches.models import folders, reading
from harness.reasons import Reason
from harness.types import RequestError

Built = TypeVar("Built")

RANDOM_SEED = 0
# A prime number of values, so that the rows of a matrix do not repeat each other.
BLOCK_VALUES = 1_000_003
_IN_PLACE = ("normal_", "uniform_", "erfinv_", "fill_", "zero_", "mul_", "add_", "clamp_")
_FILLS = frozenset(getattr(torch.Tensor, name) for name in _IN_PLACE)


class _NoFill(TorchFunctionMode):
    """Leaves new parameters uninitialised, because initialising a billion values that are then overwritten takes a
    minute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        fills = func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init"
        if fills and isinstance(target, nn.Parameter):
            return target
        return func(*args, **kwargs)


def random_module(build: Callable[[], Built], seed: int = RANDOM_SEED) -> Built:
    """The module that `build` makes, in eval mode, its parameters filled from `seed`."""
    with _NoFill():
        module: Any = build()
    fill(module, seed)
    return module.eval()


@torch.no_grad()
def fill(module: nn.Module, seed: int = RANDOM_SEED) -> None:
    """Fill all parameters: matrices with normal numbers of variance 1 / fan-in, norms with 1, biases with 0."""
    block = torch.randn(BLOCK_VALUES, generator=torch.Generator().manual_seed(seed))
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        flat = parameter.view(-1)
        scale = (parameter.shape[0] / parameter.numel()) ** 0.5
        for start in range(0, flat.numel(), BLOCK_VALUES):
            part = flat[start : start + BLOCK_VALUES]
            torch.mul(block[: part.numel()], scale, out=part)


def count(module: nn.Module) -> int:
    """The number of parameters; one that several layers share counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


@functools.cache
def folder_hash(folder: Path) -> str:
    """sha256 (hex) over the names, sizes and bytes of all files in the folder, in order."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def load_pipeline(pipeline_class: Any, weights: str, hub: str | None, **options: Any) -> tuple[Any, str]:
    """A pipeline from a `save_pretrained` folder, or with "pretrained" from the hub; and the weights' name.

    The name is the folder's sha256, or the hub repository with its commit. Everything is read as fp32: a backend
    makes its own cast. FolderError, in one line, if the folder holds another pipeline or is incomplete.
    """
    if weights == "pretrained":
        if hub is None:
            raise RequestError(Reason("not_published", {"pipeline": pipeline_class.__name__}))
        folder = Path(pipeline_class.download(hub))
        return pipeline_from_folder(pipeline_class, folder, **options), f"hub:{hub}@{folder.name}"
    folder = Path(weights).expanduser()
    return pipeline_from_folder(pipeline_class, folder, **options), folder_hash(folder)


def pipeline_from_folder(pipeline_class: Any, folder: Path, **options: Any) -> Any:
    """The whole pipeline of a `save_pretrained` folder in fp32. Raises FolderError, in one line, if it is incomplete.

    A network of which there is only a variant (`*.fp16.safetensors`) is read from that. `options` that are None leave a
    part out.
    """
    parameters = inspect.signature(pipeline_class.__init__).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.name not in {"self", *options}]
    left_out = [name for name, value in options.items() if value is None]
    folders.check_pipeline(folder, pipeline_class.__name__, needed, left_out)
    index = folders.read_json(folder / folders.INDEX)
    with reading.by("diffusers", folder, index):
        parts = {
            name: _network(folder, name, index[name], variant)
            for name, variant in folders.variants(folder).items()
            if name not in options
        }
        pipeline = pipeline_class.from_pretrained(folder, local_files_only=True, **parts, **options)
        for name, network in pipeline.components.items():
            if isinstance(network, nn.Module):
                _check_complete(folder / name, network)
    return pipeline.to(dtype=torch.float32)


def _network(folder: Path, name: str, entry: tuple[str, str], variant: str) -> Any:
    """One network of a pipeline's folder, from the files of a variant."""
    library, class_name = entry
    network_class = getattr(importlib.import_module(library), class_name)
    return network_class.from_pretrained(folder / name, variant=variant, local_files_only=True)


def _check_complete(folder: Path, network: nn.Module) -> None:
    """Raises FolderError if the files of a network hold fewer values than it has parameters: the libraries would
    initialise the rest at random. Older files name the same parameters differently, so values are counted."""
    held = sum(_values(file) for file in folders.weights_files(folder))
    if held < count(network):
        told = {"at": str(folder), "held": held, "parameters": count(network)}
        raise folders.FolderError(Reason("weights_files_too_small", told))


def _values(file: Path) -> int:
    """The number of values in a weight file, without reading them."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return sum(tensor.numel() for tensor in torch.load(file, map_location="meta", weights_only=True).values())
