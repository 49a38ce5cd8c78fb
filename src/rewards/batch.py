"""What a reward function is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.grading.outcome import Grade

Row = dict[str, Any]
"""What is known of a completion beside its text; `docs/rewards.md` lists the keys."""


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """Completions beside their reference answers, rows and grades, all of one length."""

    completions: Sequence[str]
    references: Sequence[str]
    rows: Sequence[Row]
    grades: Sequence[Grade]

    def __len__(self) -> int:
        return len(self.completions)

    def only(self, place: int) -> RewardBatch:
        """Return the batch of one completion alone."""
        one = slice(place, place + 1)
        return RewardBatch(
            self.completions[one], self.references[one], self.rows[one], self.grades[one]
        )

    def arguments(self) -> tuple[list[str], list[str], list[Row], list[Grade]]:
        """Return the four arguments of a reward function."""
        return (
            list(self.completions), list(self.references), list(self.rows), list(self.grades),
        )  # fmt: skip

    def described(self, place: int) -> str:
        """Name a completion: `row 3 of 64 (problem p17)`."""
        return f"row {place} of {len(self)} (problem {self.rows[place]['unique_id']})"
