"""In which order GRPO meets its problems: an endless sequence that any position can be asked of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from src.config.grpo import GrpoConfig


@dataclass(frozen=True, slots=True)
class RolloutProblem:
    """A problem with its prompt as tokens."""

    unique_id: str
    prompt: str
    prompt_ids: list[int]
    answer: str
    level: int | None
    problem: str
    """Its text alone, which the grader reads."""


class ProblemStream:
    """All problems again and again, each pass a fresh permutation, the easy first if asked for.

    Args:
        order: as `grpo.order`.
        pass_rates: problem id -> share of the starting model's completions that are correct.
    """

    def __init__(
        self,
        problems: Sequence[RolloutProblem],
        seed: int,
        order: str = "shuffled",
        pass_rates: Mapping[str, float] | None = None,
    ) -> None:
        self._problems = problems
        self._seed = seed
        self._order = order
        self._pass_rates = pass_rates or {}
        self._pass = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(problem.prompt_ids) for problem in self._problems)

    def at(self, position: int) -> RolloutProblem:
        """Return the problem at a position from 0 on."""
        number, place = divmod(position, len(self._problems))
        return self._problems[self._pass(number)[place]]

    def _permutation(self, number: int) -> list[int]:
        order = list(range(len(self._problems)))
        random.Random(f"{self._seed}:{number}").shuffle(order)
        if self._order != "shuffled":
            order.sort(key=lambda index: self._difficulty(self._problems[index]))
        return order

    def _difficulty(self, problem: RolloutProblem) -> float:
        if self._order == "level":
            return 0.0 if problem.level is None else float(problem.level)
        return -self._pass_rates[problem.unique_id]


def informative(
    problems: Sequence[RolloutProblem], pass_rates: Mapping[str, float], grpo: GrpoConfig
) -> list[RolloutProblem]:
    """Leave out problems the starting model always or never solves, if asked for."""
    if grpo.problem_filter == "none":
        return list(problems)
    return [problem for problem in problems if 0.0 < pass_rates[problem.unique_id] < 1.0]
