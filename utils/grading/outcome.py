"""What grading says of one response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["correct", "wrong_answer", "format_failure", "unscorable"]


@dataclass(frozen=True, slots=True)
class Grade:
    """Outcome for one response; `reason` says why it is not correct, `stage` what decided.

    Stages: `format`, `reference` (it states nothing), and those of `utils.grading.equality`:
    `guard` (caps on size), `text`, `exact`, `structure`, `numeric`, `symbolic`; `echo` where an
    equal answer only repeats the problem (`utils.grading.echo`).
    """

    outcome: Outcome
    answer: str | None
    reason: str
    stage: str

    @property
    def reward(self) -> float:
        """Return 1.0 for a correct answer, else 0.0."""
        return float(self.outcome == "correct")

    @property
    def format_reward(self) -> float:
        """Return 1.0 for a well-formed response, else 0.0."""
        return float(self.outcome != "format_failure")
