"""Search texts for whole problems, to keep what is held out away from training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from utils.data.problem import normalised_text

_KEY_CHARACTERS = 16


class ContainedTexts:
    """Find out whether a text contains one of many others, after folding case and white space.

    Exact, and fast enough for 10^5 long texts against 10^4: only the texts that share their first
    characters with the place looked at are compared whole. A find that begins or ends inside a word
    or a number does not count ("1+1" is not in "1+12"), nor does an empty text.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        # Length of key -> key -> texts; texts shorter than a key have one of their own length.
        self._by_key: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for text in {normalised_text(text) for text in texts} - {""}:
            key = text[:_KEY_CHARACTERS]
            self._by_key[len(key)][key].append(text)

    def found_in(self, text: str) -> bool:
        """Say whether any of the texts stands in this one."""
        folded = normalised_text(text)
        return any(
            _stands_at(folded, start, candidate)
            for length, by_key in self._by_key.items()
            for start in range(len(folded) - length + 1)
            for candidate in by_key.get(folded[start : start + length], ())
        )


def _stands_at(text: str, start: int, part: str) -> bool:
    end = start + len(part)
    return (
        text.startswith(part, start)
        and not (part[0].isalnum() and text[start - 1 : start].isalnum())
        and not (part[-1].isalnum() and text[end : end + 1].isalnum())
    )
