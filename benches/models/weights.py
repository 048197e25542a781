"""Where weights come from, and their name in a row's identity: random, a folder, or the hub.

Random weights exist to time an architecture without a download. They are one seeded block of normal numbers, repeated
over all parameters: seconds for billions of them, the same on every machine, outputs finite in fp16.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Built = TypeVar("Built")

RANDOM_SEED = 0
# A prime number of values, so that the rows of a matrix do not repeat each other.
BLOCK_VALUES = 1_000_003
_IN_PLACE = ("normal_", "uniform_", "erfinv_", "fill_", "zero_", "mul_", "add_", "clamp_")
_FILLS = frozenset(getattr(torch.Tensor, name) for name in _IN_PLACE)


class _NoFill(TorchFunctionMode):
    """Leaves new parameters as they are: to initialise a billion values that are then overwritten takes a minute."""

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
    makes its own cast. ValueError where the folder holds another pipeline.
    """
    if weights == "pretrained":
        if hub is None:
            raise ValueError(f"no pretrained {pipeline_class.__name__} of this size is published in this format")
        folder = Path(pipeline_class.download(hub))
        return _from_folder(pipeline_class, folder, options), f"hub:{hub}@{folder.name}"
    folder = Path(weights).expanduser()
    return _from_folder(pipeline_class, folder, options), folder_hash(folder)


def _from_folder(pipeline_class: Any, folder: Path, options: dict[str, Any]) -> Any:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} holds no model_index.json, so it is no folder that save_pretrained made")
    found = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if found != pipeline_class.__name__:
        raise ValueError(f"{folder} holds a {found}, not a {pipeline_class.__name__}")
    return pipeline_class.from_pretrained(folder, local_files_only=True, **options).to(dtype=torch.float32)
