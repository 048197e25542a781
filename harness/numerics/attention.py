"""Other implementations of attention, which replace torch's `scaled_dot_product_attention` in the whole process.

timm, diffusers and transformers look the function up in `torch.nn.functional` in each call. One replacement therefore
affects every attention of every model and costs nothing per call. By default torch chooses a fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

BLOCKS: Final = 4  # of queries, in `chunked`

Attention = Callable[..., "torch.Tensor"]


def math_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """softmax(q kᵀ · scale) v, with the whole matrix of weights in memory: (..., L, E), (..., S, E), (..., S, V) ->
    (..., L, V).

    Raises ValueError for dropout and grouped queries, which inference of these models does not use.
    """
    import torch

    if dropout_p or enable_gqa:
        raise ValueError("this attention supports neither dropout nor grouped queries")
    weights = query @ key.transpose(-2, -1) * (scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        allowed = torch.ones(weights.shape[-2:], dtype=torch.bool, device=query.device).tril()
        weights = weights.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        weights = weights.masked_fill(~attn_mask, -math.inf) if masked else weights + attn_mask
    return weights.softmax(dim=-1) @ value


def sliced(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The same for one item of the batch and one head at a time. It needs memory for one matrix of weights."""
    import torch

    leading = query.shape[:-2]
    mask = None if attn_mask is None else attn_mask.expand(*leading, query.shape[-2], key.shape[-2])
    parts = [x.reshape(-1, *x.shape[-2:]) for x in (query, key, value)]
    masks = [None] * len(parts[0]) if mask is None else mask.reshape(-1, *mask.shape[-2:])
    found = [
        math_attention(q, k, v, m, dropout_p, is_causal, scale, enable_gqa)
        for q, k, v, m in zip(*parts, masks, strict=True)
    ]
    return torch.stack(found).reshape(*leading, query.shape[-2], value.shape[-1])


def chunked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The same for BLOCKS blocks of queries, one after the other. It needs memory for one block's part of the
    matrix."""
    import torch

    mask = attn_mask
    if is_causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    size = -(-query.shape[-2] // BLOCKS)
    found = []
    for start in range(0, query.shape[-2], size):
        rows = slice(start, start + size)
        own = None if mask is None else mask if mask.shape[-2] == 1 else mask[..., rows, :]
        found.append(math_attention(query[..., rows, :], key, value, own, dropout_p, False, scale, enable_gqa))
    return torch.cat(found, dim=-2)


def by_kernel(name: str) -> Attention:
    """torch's function with one kernel, named as in `torch.nn.attention.SDPBackend`. It fails if that cannot run."""

    def attention(*arguments: Any, **options: Any) -> torch.Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, name)):
            return _torchs_own()(*arguments, **options)

    return attention


_exchanged: list[Attention] = []  # torch's own function, while another one replaces it


def _torchs_own() -> Attention:
    from torch.nn import functional

    return _exchanged[0] if _exchanged else functional.scaled_dot_product_attention


@contextmanager
def exchanged(attention: Attention) -> Iterator[None]:
    """Replaces torch's function by `attention`, and restores the previous one afterwards."""
    from torch.nn import functional

    before, own = functional.scaled_dot_product_attention, _torchs_own()
    _exchanged[:] = [own]
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before
        if before is own:
            _exchanged.clear()


@contextmanager
def torchs_own() -> Iterator[None]:
    """Restores torch's own function inside the `with` block."""
    with exchanged(_torchs_own()):
        yield


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts the calls of the attention function that is in use."""
    from torch.nn import functional

    inner, calls = functional.scaled_dot_product_attention, 0

    def counting(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return inner(*arguments, **options)

    with exchanged(counting):
        yield lambda: calls
