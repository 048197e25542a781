"""A tokenizer for random weights: CLIP's shapes and special ids, without its vocabulary.

CLIP's vocabulary is a download. With random weights no word has a meaning, so any ids suffice. The pipeline's work on
them and its cost are the same: 77 ids with a start token, an end token and padding. Trained weights have their own
tokenizer.
"""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import torch

START, END = 49406, 49407  # of CLIP's 49,408 ids


class WordTokenizer:
    """One id per word, from a checksum of the word, so it is the same on every machine."""

    model_max_length = 77

    def __init__(self, pad_id: int = END) -> None:
        self.pad_id = pad_id  # Stable Diffusion pads with the end token, its later text encoders with 0
        self.added_tokens_encoder: dict[str, int] = {}

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def __call__(
        self,
        text: str | list[str],
        padding: str = "longest",
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str = "pt",
    ) -> Any:
        """`input_ids` int64 (N, T) for N texts; T is `max_length` where padding is "max_length"."""
        texts = [text] if isinstance(text, str) else text
        rows = [[START, *(zlib.crc32(word.encode()) % START for word in self.tokenize(t)), END] for t in texts]
        length = max(len(row) for row in rows)
        if padding == "max_length":
            length = max_length or self.model_max_length
        rows = [[*row[: length - 1], END] if len(row) > length else row for row in rows]
        padded = [row + [self.pad_id] * (length - len(row)) for row in rows]
        return SimpleNamespace(input_ids=torch.tensor(padded), attention_mask=None)

    def batch_decode(self, ids: torch.Tensor) -> list[str]:
        """The ids as numbers, because their words are not known."""
        return [" ".join(str(int(i)) for i in row) for row in ids]
