"""Hashes of what was loaded: a row's weights, and the networks that an exporter reads.

A name or a path does not identify content: two names may hold the same weights, and the weights of a name may change.
This module computes the identity of a row and the key of every exported file from the content.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from harness.numerics import quantisation
from harness.types import Component

if TYPE_CHECKING:
    import torch

_INTEGERS: Final = {2: "int16", 4: "int32", 8: "int64"}  # by bytes of an element


def weights_hash(components: Sequence[Component]) -> str:
    """sha256 (hex) over the names, dtypes, shapes and values of all weights, wherever they came from: parameters,
    buffers in the state dict, and tensors that a layer holds as plain attributes. Non-persistent buffers are left out:
    they may be caches that are uninitialised before the first call."""
    import torch

    named = [(f"{c.name}.{name}", tensor) for c in components for name, tensor in _weights(c.module)]
    with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:  # hashlib releases the GIL
        digests = list(pool.map(lambda pair: tensor_digest(pair[1]), named))
    whole = hashlib.sha256()
    for (name, _), digest in zip(named, digests, strict=True):
        whole.update(f"{name}\0{digest}\n".encode())
    return whole.hexdigest()


def _weights(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    for number, packed in enumerate(quantisation.packed_tensors(module)):
        yield f"packed.{number}", packed
    for name, layer in module.named_modules():
        for own, buffer in layer.named_buffers(recurse=False):
            if own not in layer._non_persistent_buffers_set:
                yield f"{name}.{own}", buffer
        for own, value in vars(layer).items():
            for number, tensor in enumerate(_plain_tensors(value)):
                yield f"{name}.{own}.{number}", tensor


def _plain_tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in an attribute: itself, or those in a list or a tuple. torch keeps parameters in dicts."""
    import torch

    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        yield value
    elif type(value) in {list, tuple}:
        for item in value:
            yield from _plain_tensors(item)


def checksum(module: torch.nn.Module) -> str:
    """A checksum of the parameters' bits, computed on their device, which shows whether they changed. It is much
    cheaper than a hash, but it does not identify content."""
    return " ".join(_checksum(parameter) for parameter in module.parameters())


def _checksum(tensor: torch.Tensor) -> str:
    import torch

    words = []
    for part in quantisation.inner_tensors(tensor):
        if part.is_meta or part.layout is not torch.strided or part.is_quantized:
            words.append("-")
            continue
        plain = part.detach().contiguous().reshape(-1)
        bits = plain.view(getattr(torch, _INTEGERS.get(plain.element_size(), "uint8")))
        words.append(f"{int(bits.sum(dtype=torch.int64))}:{int(bits[::2].sum(dtype=torch.int64))}")
    return "/".join(words)


def networks_hash(components: Sequence[Component]) -> str | None:
    """sha256 (hex) over whole networks: classes, every attribute of every layer, the values of all tensors. None for
    a network that cannot be pickled (it holds a lambda or is a scripted module)."""
    whole = hashlib.sha256()
    try:
        for component in components:
            whole.update(f"{component.name}\0".encode())
            whole.update(_pickled(component.module))
    except Exception:  # an attribute that cannot be pickled may raise anything
        return None
    return whole.hexdigest()


def _pickled(module: torch.nn.Module) -> bytes:
    """The module as a pickle in which a digest stands for each tensor."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return tensor_digest(value) if isinstance(value, torch.Tensor) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(module)
    return buffer.getvalue()


def tensor_digest(tensor: torch.Tensor) -> str:
    """sha256 (hex) over dtype, shape and values, not strides. A tensor on the meta device is hashed by dtype and
    shape only."""
    import torch

    digest = hashlib.sha256()
    for part in quantisation.inner_tensors(tensor):
        digest.update(json.dumps([str(part.dtype), list(part.shape)]).encode())
        if part.is_meta:
            continue
        plain = part.detach().cpu()
        if plain.layout is not torch.strided or plain.is_quantized:
            saved = io.BytesIO()
            with quantisation.quiet():
                torch.save(plain, saved)
            digest.update(saved.getbuffer())
        elif plain.numel():
            digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
