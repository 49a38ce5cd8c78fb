"""The dataset item that every stage passes around."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mathematics problem with its worked solution and reference answer.

    `level` is 1 to 5, or None where the source does not state one.
    """

    problem: str
    solution: str
    answer: str
    level: int | None
    type: str
    unique_id: str


def normalised_text(problem_text: str) -> str:
    """Fold case and white space, so that trivially edited copies compare equal.

    >>> normalised_text("Find  $X$.\\n")
    'find $x$.'
    """
    return re.sub(r"\s+", " ", problem_text).strip().lower()


def text_bucket(problem_text: str, buckets: int) -> int:
    """Assign a problem to one of `buckets` by a hash of its normalised text.

    The same text lands in the same bucket on every machine and in every run, so splits drawn by
    bucket are disjoint without a shared list.
    """
    digest = hashlib.sha256(normalised_text(problem_text).encode()).digest()
    return int.from_bytes(digest[:8], "big") % buckets
