"""The one place where text becomes token ids: prompts and targets alike, for trainer and engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_ANY_TEXT = "a"


def prompt_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize prompts: what the tokenizer opens every text with (BOS), once, then the text.

    A tokenizer that adds BOS by itself (Llama, Gemma, Mistral) gets it, one that does not (Qwen,
    OLMo-2) does not; a prompt that already begins with its text, as chat templates do, is not given
    a second one. Nothing is closed: a completion goes on from here.
    """
    opening = opening_ids(tokenizer)
    size = len(opening)
    found = text_ids(tokenizer, texts)
    return [ids if ids[:size] == opening else [*opening, *ids] for ids in found]


def opening_ids(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer's own rule puts before every text; often BOS or none."""
    opened = tokenizer([_ANY_TEXT], add_special_tokens=True)["input_ids"][0]
    plain = tokenizer([_ANY_TEXT], add_special_tokens=False)["input_ids"][0]
    places = range(len(opened) - len(plain) + 1)
    place = next((at for at in places if opened[at : at + len(plain)] == plain), 0)
    return list(opened[:place])


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize texts that go on from others, such as targets: nothing is put before them.

    One end-of-text token closes those whose text has it.
    """
    if not texts:  # on which tokenizers fail
        return []
    end = tokenizer.eos_token_id
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for text, ids in zip(texts, rows, strict=True):
        # Some tokenizers close every text, special tokens wanted or not.
        while ids and ids[-1] == end:
            ids.pop()
        if text.endswith(tokenizer.eos_token):
            ids.append(end)
    return rows
