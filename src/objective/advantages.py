"""Advantages that TRL does not know, of one process's completions, group by group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.config.grpo import GrpoConfig
from utils.grading.outcome import Grade

# A mean reward below this is none: nothing in the group earned anything.
_NO_REWARD = 1e-6


@dataclass(frozen=True, slots=True)
class Judged:
    """A completion's grade, and its rewards by name; without numbers where it is unscorable."""

    grade: Grade
    rewards: dict[str, float | None]

    def total(self, weights: dict[str, float]) -> float:
        """Return the weighted sum of its rewards; NaN where it is unscorable."""
        if self.grade.outcome == "unscorable":
            return math.nan
        return sum(weight * (self.rewards[name] or 0.0) for name, weight in weights.items())


def own_advantages(groups: Sequence[Sequence[Judged]], grpo: GrpoConfig) -> list[float] | None:
    """Return the advantage of each completion, 0 where unscorable; None: they are TRL's.

    `max_likelihood` is MaxRL's (r - mean) / mean (arXiv:2602.02710): the mean score of the
    successes alone less that of all, an estimate of the gradient of log p. A group that earned
    nothing has none. `correct_only` is 1 for a correct completion (arXiv:2308.01825).
    """
    if grpo.advantage == "group_mean":
        return None
    if grpo.advantage == "correct_only":
        return [float(one.grade.outcome == "correct") for group in groups for one in group]
    weights = grpo.rewards.weights()
    return [
        advantage
        for group in groups
        for advantage in over_mean([one.total(weights) for one in group])
    ]


def over_mean(rewards: Sequence[float]) -> list[float]:
    """Return each reward less the mean, over the mean; NaN has no say and becomes 0.

    >>> over_mean([1.0, 0.0, 0.0, 1.0])
    [1.0, -1.0, -1.0, 1.0]
    """
    known = [reward for reward in rewards if not math.isnan(reward)]
    mean = sum(known) / max(1, len(known))
    if mean < _NO_REWARD:
        return [0.0] * len(rewards)
    return [0.0 if math.isnan(reward) else (reward - mean) / mean for reward in rewards]
