"""Counts the prompt tokens that a pipeline never reads, because the tokenizer truncates at the model's limit.

found = truncation.counted("tokenizer", tokenizer, ["a very long prompt ..."])
found.tokens_lost        # (12,)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """What one tokenizer cuts off the prompts of a batch. `tokens_lost` has one count per prompt, in the batch's order,
    and `limit` is how many tokens a prompt may have, start and end token included."""

    tokenizer: str
    limit: int
    tokens_lost: tuple[int, ...]

    @property
    def fact(self) -> dict[str, int]:
        return {
            "limit": self.limit,
            "prompts": len(self.tokens_lost),
            "truncated": sum(lost > 0 for lost in self.tokens_lost),
            "tokens_lost": sum(self.tokens_lost),
        }

    @property
    def warning(self) -> Reason | None:
        """The warning of the row, or None if nothing is cut off."""
        if not any(self.tokens_lost):
            return None
        told = {"tokenizer": self.tokenizer, "limit": self.limit, "tokens_lost": list(self.tokens_lost)}
        return Reason("truncated", told)


def counted(name: str, tokenizer: Any, prompts: Sequence[str]) -> Truncation:
    """What `tokenizer`, the pipeline's part `name`, cuts off each of `prompts`."""
    limit = int(tokenizer.model_max_length)
    lengths = {prompt: _length(tokenizer, prompt) for prompt in dict.fromkeys(prompts)}
    lost = tuple(max(0, lengths[prompt] - limit) for prompt in prompts)
    return Truncation(tokenizer=name, limit=limit, tokens_lost=lost)


def _length(tokenizer: Any, prompt: str) -> int:
    """Tokens of the whole prompt, start and end token included."""
    return int(tokenizer(prompt, padding="longest", return_tensors="pt").input_ids.shape[-1])
