"""Named rewards of a graded completion; `grpo.rewards` weighs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from src.config.schema import Config
from utils.grading.outcome import Grade


@dataclass(frozen=True, slots=True)
class Scored:
    """What a reward may look at; `limit` is the most tokens a completion may have."""

    grade: Grade
    tokens: int
    finished: bool
    limit: int
    overlong_tokens: int
    """Tokens before the limit in which the overlong penalty rises."""


def reward_values(
    grade: Grade, tokens: int, finished: bool, config: Config
) -> dict[str, float | None]:
    """Compute every reward of one completion; all are None where it could not be scored.

    All, because one number would be enough for TRL to count the missing ones as zero.
    """
    limit = config.sampling.max_completion_tokens
    scored = Scored(grade, tokens, finished, limit, round(config.grpo.overlong_share * limit))
    if grade.outcome == "unscorable":
        return dict.fromkeys(config.grpo.rewards.weights())
    return {name: _REWARDS[name](scored) for name in config.grpo.rewards.weights()}


def overlong(scored: Scored) -> float:
    """Return the soft overlong penalty, -1 to 0 (DAPO, arXiv:2503.14476, equation 13).

    A completion that ended in time has none; in the last `overlong_tokens` before the limit it
    falls linearly to -1, which is also what one that was cut gets.
    """
    if not scored.finished:
        return -1.0
    free = scored.limit - scored.overlong_tokens
    return -max(0, scored.tokens - free) / max(1, scored.overlong_tokens)


_REWARDS: dict[str, Callable[[Scored], float]] = {
    "accuracy": lambda scored: scored.grade.reward,
    "format": lambda scored: scored.grade.format_reward,
    "overlong": overlong,
    "brevity": lambda scored: -scored.tokens / scored.limit,
}
