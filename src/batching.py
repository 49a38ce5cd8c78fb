"""Turn problems into token examples and examples into micro-batches.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config_loading import ConfigError
from src.prompts import PromptTemplate
from utils.drgrpo_grader import grade
from utils.problem import Problem

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence: prompt tokens, then target tokens that close with end-of-text."""

    ids: tuple[int, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Padded sequences of one forward pass."""

    ids: torch.Tensor  # (B, T) int64
    attention: torch.Tensor  # (B, T) int64, 1 for real tokens
    targets: torch.Tensor  # (B, T) bool, true where a token is to be predicted

    @property
    def target_tokens(self) -> int:
        """Number of predicted tokens."""
        return int(self.targets.sum())


@dataclass(frozen=True, slots=True)
class BuiltExamples:
    """Training examples, and what was left out and why."""

    examples: list[Example]
    not_graded_correct: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)


def build_sft_examples(
    problems: Sequence[Problem],
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> BuiltExamples:
    """Tokenize prompts and targets; keep rows whose own target grades as correct."""
    built = BuiltExamples([])
    for problem in problems:
        target = prompt.target(problem)
        if "<answer>" in target and not grade(target, problem.answer).reward:
            built.not_graded_correct.append(problem.unique_id)
            continue
        # Tokenized apart, as at inference: the prompt's tokens never depend on the completion.
        head = tokenizer(prompt.render(problem), add_special_tokens=False)["input_ids"]
        tail = tokenizer(target, add_special_tokens=False)["input_ids"]
        ids = (*head, *tail, tokenizer.eos_token_id)
        if len(ids) > max_tokens:
            built.too_long.append(problem.unique_id)
            continue
        built.examples.append(Example(ids, len(head)))
    return built


def log_left_out(built: BuiltExamples) -> BuiltExamples:
    """Say how many rows were left out and why; refuse to train on none.

    Raises:
        ConfigError: when no example is left.
    """
    LOGGER.info(
        "%d training examples; left out: %d whose own target does not grade as correct %s, "
        "%d too long",
        len(built.examples),
        len(built.not_graded_correct),
        built.not_graded_correct[:10],
        len(built.too_long),
    )
    if not built.examples:
        raise ConfigError(
            "no training example is left: every row was too long or its target does not grade as "
            "correct; raise train.max_tokens or check the data's solutions"
        )
    return built


def shuffled_steps(
    examples: Sequence[Example], batch_size: int, total_examples: int, seed: int
) -> Iterator[list[Example]]:
    """Yield the examples of each optimizer step: every pass a fresh permutation, none dropped."""
    order: list[int] = []
    while len(order) < total_examples:
        permutation = list(range(len(examples)))
        random.Random(f"{seed}:{len(order)}").shuffle(permutation)
        order += permutation
    order = order[:total_examples]
    for start in range(0, total_examples, batch_size):
        yield [examples[index] for index in order[start : start + batch_size]]


def micro_batches(
    examples: Sequence[Example], size: int, pad_id: int, device: torch.device
) -> Iterator[MicroBatch]:
    """Cut a step into micro-batches of similar length, so that little is padded."""
    by_length = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(by_length), size):
        yield _pad(by_length[start : start + size], pad_id, device)


def _pad(examples: Sequence[Example], pad_id: int, device: torch.device) -> MicroBatch:
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), pad_id)
    attention = torch.zeros(len(examples), length, dtype=torch.long)
    targets = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in enumerate(examples):
        tokens = len(example.ids)
        ids[row, :tokens] = torch.tensor(example.ids)
        attention[row, :tokens] = 1
        targets[row, example.prompt_tokens : tokens] = True
    return MicroBatch(ids.to(device), attention.to(device), targets.to(device))
