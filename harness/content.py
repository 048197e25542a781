"""What was loaded, as hashes of its content: a row's weights, and the networks that an exporter reads.

Names and paths say what was asked for; two names may hold the same weights, and one name may hold others tomorrow. So
the identity of a row and the key of every exported file come from here.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from harness import quantisation
from harness.types import Component

if TYPE_CHECKING:
    import torch


def weights_hash(components: Sequence[Component], *, buffers: bool = True) -> str:
    """sha256 (hex) over the names, dtypes, shapes and values of all parameters and buffers, wherever they came from.

    Without `buffers` the parameters alone count: a buffer may be a cache that a network fills as it runs.
    """
    import torch

    named = list(_tensors(components, buffers=buffers))
    with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:  # hashlib lets other threads run meanwhile
        digests = list(pool.map(lambda pair: tensor_digest(pair[1]), named))
    whole = hashlib.sha256()
    for (name, _), digest in zip(named, digests, strict=True):
        whole.update(f"{name}\0{digest}\n".encode())
    return whole.hexdigest()


def _tensors(components: Sequence[Component], *, buffers: bool) -> Iterator[tuple[str, torch.Tensor]]:
    for component in components:
        for name, parameter in component.module.named_parameters():
            yield f"{component.name}.{name}", parameter
        for number, packed in enumerate(quantisation.packed_tensors(component.module)):
            yield f"{component.name}.packed.{number}", packed
        if buffers:
            for name, buffer in component.module.named_buffers():
                yield f"{component.name}.{name}", buffer


def networks_hash(components: Sequence[Component]) -> str | None:
    """sha256 (hex) over all that the networks are made of: classes, every attribute of every layer, and the values of
    all tensors. None for a network that cannot be pickled (a lambda, a scripted module), about which nothing can be
    said."""
    whole = hashlib.sha256()
    try:
        for component in components:
            whole.update(f"{component.name}\0".encode())
            whole.update(_pickled(component.module))
    except Exception:  # whatever an attribute raises that does not let itself be pickled
        return None
    return whole.hexdigest()


def _pickled(module: torch.nn.Module) -> bytes:
    """The module as a pickle in which each tensor is its digest."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return tensor_digest(value) if isinstance(value, torch.Tensor) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(module)
    return buffer.getvalue()


def tensor_digest(tensor: torch.Tensor) -> str:
    """sha256 (hex) over dtype, shape and values; strides do not count. A tensor without values (on the meta device, not
    initialised yet) has its dtype and shape alone."""
    import torch
    from torch.nn.parameter import is_lazy

    digest = hashlib.sha256()
    for part in [] if is_lazy(tensor) else quantisation.inner_tensors(tensor):
        digest.update(json.dumps([str(part.dtype), list(part.shape)]).encode())
        if part.is_meta:
            continue
        plain = part.detach().cpu()
        if plain.layout is not torch.strided or plain.is_quantized:
            sink = io.BytesIO()
            with quantisation.quiet():
                torch.save(plain, sink)
            digest.update(sink.getbuffer())
        elif plain.numel():
            digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
