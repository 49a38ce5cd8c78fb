"""Make MATH-shaped problems with worked solutions from a seed.

The tiny profile trains and tests on these, and the tiny base model was pretrained on the same kind
of text with some steps deliberately wrong (`error_rate`). Every problem belongs to one split by a
hash of its text, so the pretraining corpus, train, validation and test never share a problem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from utils.data.problem import Problem, normalised_text, text_bucket
from utils.data.problem_kinds import KINDS, Draft, ErrorProneHand

Split = Literal["train", "validation", "test"]

LEVELS = (1, 2, 3, 4, 5)
PROBLEM_TYPES = tuple(KINDS)
TRAIN_PROBLEMS, TEST_PROBLEMS = 1_600, 1_000
"""How many are generated where no number is asked for."""
_BUCKETS = 10
_HELD_OUT_BUCKETS: dict[int, Split] = {0: "test", 1: "validation"}


def generate_problems(count: int, split: Split, seed: int) -> list[Problem]:
    """Return `count` different problems of one split, the types and levels evenly mixed."""
    seen: set[str] = set()
    problems: list[Problem] = []
    for problem in stream_problems(split, seed):
        key = normalised_text(problem.problem)
        if key in seen:
            continue
        seen.add(key)
        problems.append(problem)
        if len(problems) == count:
            break
    return problems


def stream_problems(split: Split, seed: int, error_rate: float = 0.0) -> Iterator[Problem]:
    """Yield problems of one split without end; texts may repeat."""
    rng = random.Random(f"{split}:{seed}")
    hand = ErrorProneHand(rng, error_rate)
    index = 0
    while True:
        kind = rng.choice(PROBLEM_TYPES)
        level = rng.choice(LEVELS)
        draft = KINDS[kind](rng, level, hand)
        if _split_of(draft.question) != split:
            continue
        yield Problem(
            problem=draft.question,
            solution=_write_solution(draft),
            answer=draft.answer,
            level=level,
            type=kind,
            unique_id=f"synthetic/{split}/{seed}/{index}",
        )
        index += 1


def _split_of(question: str) -> Split:
    return _HELD_OUT_BUCKETS.get(text_bucket(question, _BUCKETS), "train")


def _write_solution(draft: Draft) -> str:
    worked = " ".join(f"${step}$." for step in draft.steps)
    return f"{worked} The answer is $\\boxed{{{draft.answer}}}$."
