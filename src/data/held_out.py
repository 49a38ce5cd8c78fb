"""Find which texts to be fitted repeat a held-out problem, and say which of them are left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.data.near_duplicates import KINDS, Kind, find_duplicates
from utils.dataset_loader import describe_repeats

LOGGER = logging.getLogger(__name__)
_REMOVED: dict[str, tuple[Kind, ...]] = {
    "exact": ("exact", "normalised"),
    "numbers": ("exact", "normalised", "numbers"),
    "near": KINDS,
}


@dataclass(frozen=True, slots=True)
class Repeats:
    """Texts that repeat a held-out problem."""

    removed: frozenset[int]
    """Places of the texts to leave out."""
    by_kind: dict[str, dict[str, Any]]
    """Kind -> count, how many are removed, examples; plainest first."""

    def log(self, fitted: str, held_out: str) -> None:
        """Say how many there are of each kind."""
        for kind, one in self.by_kind.items():
            LOGGER.info(
                "data: %d %s repeat %s (%s); %d left out",
                *(one["count"], fitted, held_out, kind, one["removed"]),
            )


def find_repeats(texts: Sequence[str], held_out: Sequence[str], remove: str) -> Repeats:
    """Compare texts to be fitted with problems that are held out.

    Args:
        remove: `exact` leaves out copies (case and white space folded); `numbers` also those that
            differ in their numbers alone; `near` also those that are alike.
    """
    LOGGER.info(
        "data: looking for repetitions of %d held-out problems in %d texts (0.2 ms each)",
        *(len(held_out), len(texts)),
    )
    matches = list(find_duplicates(texts, held_out))
    by_kind: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        same = [
            {
                "similarity": round(match.similarity, 3),
                "fitted": texts[match.index],
                "held_out": held_out[match.other],
            }
            for match in matches
            if match.kind == kind
        ]
        by_kind |= describe_repeats(kind, same, removed=kind in _REMOVED[remove])
    removed = frozenset(match.index for match in matches if match.kind in _REMOVED[remove])
    return Repeats(removed, by_kind)
