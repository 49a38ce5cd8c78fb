"""The project's own rewards; each has the face of a user's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from src.rewards.batch import Row
from utils.grading.outcome import Grade

Reward = Callable[[Sequence[str], Sequence[str], Sequence[Row], Sequence[Grade]], Sequence[float]]


def accuracy(
    completions: Sequence[str],
    references: Sequence[str],
    rows: Sequence[Row],
    grades: Sequence[Grade],
) -> list[float]:
    """Return 1 for a correct answer, else 0."""
    return [grade.reward for grade in grades]


def well_formed(
    completions: Sequence[str],
    references: Sequence[str],
    rows: Sequence[Row],
    grades: Sequence[Grade],
) -> list[float]:
    """Return 1 for a well-formed completion, else 0."""
    return [grade.format_reward for grade in grades]


def overlong(
    completions: Sequence[str],
    references: Sequence[str],
    rows: Sequence[Row],
    grades: Sequence[Grade],
) -> list[float]:
    """Return the soft overlong penalty, -1 to 0 (DAPO, arXiv:2503.14476, equation 13).

    A completion that ended in time has none; in the last `overlong_tokens` before the limit it
    falls linearly to -1, which is also what one that was cut gets.
    """
    return [_overlong(row) for row in rows]


def brevity(
    completions: Sequence[str],
    references: Sequence[str],
    rows: Sequence[Row],
    grades: Sequence[Grade],
) -> list[float]:
    """Return minus the completion's share of the token limit."""
    return [-row["tokens"] / row["token_limit"] for row in rows]


BUILT_IN: dict[str, Reward] = {
    "accuracy": accuracy,
    "format": well_formed,
    "overlong": overlong,
    "brevity": brevity,
}


def _overlong(row: Row) -> float:
    if not row["finished"]:
        return -1.0
    free = row["token_limit"] - row["overlong_tokens"]
    return -max(0, row["tokens"] - free) / max(1, row["overlong_tokens"])
