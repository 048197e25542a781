"""The prompts that the text-to-image model is trained on, and their tokenizer.

A prompt is a template around a number word. The tokenizer is a `CLIPTokenizer` with a vocabulary of its own. As in
CLIP, it has a token for every byte, inside a word and at its end, so that any text can be encoded. Its merges make one
token of each word below. It needs no file, because the vocabulary is computed from `WORDS` and `TEMPLATES`.

    python -c "from benches.digits import prompts; print(prompts.PROMPTS, len(prompts.vocabulary()[0]))"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {}",
    "a handwritten digit {}",
    "a scan of a handwritten {}",
    "a photo of the number {}",
    "the digit {}",
    "{}",
)
PROMPTS = tuple(TEMPLATES[0].format(word) for word in WORDS)
MAX_LENGTH = 77  # tokens, as in Stable Diffusion
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def prompt(digit: int, template: int = 0) -> str:
    """Return the prompt for `digit` (0 to 9), "a handwritten seven"; IndexError for any other digit."""
    if not 0 <= digit < len(WORDS):
        raise IndexError(f"there is no digit {digit}: the digits are 0 to {len(WORDS) - 1}")
    return TEMPLATES[template].format(WORDS[digit])


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the token ids, and the merges in order of priority. Each word is merged from the left, letter by
    letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [letter + WORD_END for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in sorted(set(" ".join(TEMPLATES).replace("{}", "").split()) | set(WORDS)):
        pieces = [*word[:-1], word[-1] + WORD_END]
        left = pieces[0]
        for right in pieces[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            if left not in tokens:
                tokens.append(left)
    return {token: number for number, token in enumerate([*tokens, START, END])}, merges


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer. It pads to `MAX_LENGTH` with the end token, as that of Stable Diffusion does."""
    from transformers import CLIPTokenizer

    tokens, merges = vocabulary()
    return CLIPTokenizer(vocab=tokens, merges=merges, model_max_length=MAX_LENGTH)
