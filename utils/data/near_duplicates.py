"""Find problems of one set that stand in another: copies, copies with other numbers, near copies.

Near copies are found exactly. Two sets that share at least the threshold's part of their shingles
share one among the rarest of each (the prefix filter of Chaudhuri et al. 2006, "A primitive
operator for similarity joins"), so only texts that meet there are compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from utils.data.problem import normalised_text

Kind = Literal["exact", "normalised", "numbers", "near"]
KINDS: tuple[Kind, ...] = ("exact", "normalised", "numbers", "near")
"""From the plainest copy to the loosest: same text; same after folding case and white space; same
but for the numbers; alike in the 8-token shingles of the text without its numbers."""
THRESHOLD = 0.6
SHINGLE = 8
_TOKEN = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|\d+|\S")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FEWEST_MASKED = 6


@dataclass(frozen=True, slots=True)
class Match:
    """A text of the first set that repeats one of the second.

    `similarity` is the Jaccard similarity of the shingles, numbers masked.
    """

    kind: Kind
    index: int
    other: int
    similarity: float


def find_duplicates(texts: Iterable[str], others: Sequence[str]) -> Iterator[Match]:
    """Yield each text that repeats one of the others, with the plainest kind that applies.

    Args:
        texts: the larger set, such as training problems; read once, so it may be a stream.
        others: the set to protect, such as test problems; held in memory.
    """
    index = _Index(others)
    for place, text in enumerate(texts):
        if found := index.match(text):
            kind, other, similarity = found
            yield Match(kind, place, other, similarity)


def masked_numbers(text: str) -> str:
    """Fold a text and put `#` for each number.

    >>> masked_numbers("Add 12 and 1,000.5  apples")
    'add # and # apples'
    """
    return _NUMBER.sub("#", normalised_text(text))


def shingles(text: str) -> frozenset[str]:
    """Return all runs of 8 tokens with the numbers masked; a shorter text is one run.

    >>> len(shingles("a b c d e f g h i")), sorted(shingles("a 12 b"))
    (2, ['a # b'])
    """
    tokens = _TOKEN.findall(masked_numbers(text))
    last = max(len(tokens) - SHINGLE, 0)
    return frozenset(" ".join(tokens[start : start + SHINGLE]) for start in range(last + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of shingles that two texts have in common."""
    return len(one & other) / len(one | other)


class _Index:
    """The protected texts, by text, by folded text, by masked text and by rare shingles."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._exact = {text: place for place, text in reversed(list(enumerate(texts)))}
        self._folded = {normalised_text(text): place for text, place in self._exact.items()}
        self._masked = {
            masked_numbers(text): place
            for text, place in self._exact.items()
            if _can_be_masked(text)
        }
        self._shingles = [shingles(text) for text in texts]
        self._frequency = Counter(shingle for own in self._shingles for shingle in own)
        self._by_rare: dict[str, list[int]] = defaultdict(list)
        for place, own in enumerate(self._shingles):
            for shingle in self._rarest(own):
                self._by_rare[shingle].append(place)

    def match(self, text: str) -> tuple[Kind, int, float] | None:
        """Return the kind, the place of the text that is repeated, and the similarity."""
        if text in self._exact:
            return "exact", self._exact[text], 1.0
        folded = normalised_text(text)
        if folded in self._folded:
            return "normalised", self._folded[folded], 1.0
        if not _can_be_masked(text):
            return None
        masked = masked_numbers(text)
        if masked in self._masked:
            return "numbers", self._masked[masked], 1.0
        own = shingles(text)
        met = {place for key in self._rarest(own) for place in self._by_rare.get(key, ())}
        similarity, other = max(
            ((jaccard(own, self._shingles[place]), place) for place in met), default=(0.0, -1)
        )
        return ("near", other, similarity) if similarity >= THRESHOLD else None

    def _rarest(self, own: frozenset[str]) -> list[str]:
        """Return the rarest: so many that two texts that are alike share one of them."""
        ordered = sorted(own, key=lambda shingle: (self._frequency[shingle], shingle))
        needed = math.ceil(THRESHOLD * len(own) - 1e-9)
        return ordered[: len(own) - needed + 1]


def _can_be_masked(text: str) -> bool:
    """Say whether enough is left without the numbers to tell one problem from another."""
    return len(_TOKEN.findall(masked_numbers(text).replace("#", ""))) >= _FEWEST_MASKED
