"""Turn rows of supervised fine-tuning into token examples; leave out what does not verify."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.loading import ConfigError
from src.data.token_ids import prompt_ids, text_ids
from src.sft.rows import SftRow, listed
from src.training.batching import Example
from utils.drgrpo_grader import grade_batch
from utils.grading.answer_forms import extract_boxed

LOGGER = logging.getLogger(__name__)

EMPTY_TARGET = "empty target"
NO_REFERENCE = "no reference answer to verify against"
NOT_CORRECT = "target does not grade as correct"
TOO_LONG = "too long"


@dataclass(frozen=True, slots=True)
class BuiltExamples:
    """Training examples, and by reason the ids of rows that failed; a row counts once."""

    examples: list[Example] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unverified: dict[str, list[str]] = field(default_factory=dict)
    """Rows that were kept all the same (`sft.keep: all`)."""

    def outcome(self) -> dict[str, Any]:
        """Return the counts that `outcome.json` holds."""
        return {
            "examples": len(self.examples),
            "left_out": {reason: len(ids) for reason, ids in self.left_out.items()},
            "kept_unverified": {reason: len(ids) for reason, ids in self.unverified.items()},
        }


def build_examples(
    rows: Sequence[SftRow],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    keep: Literal["verified", "all"],
) -> BuiltExamples:
    """Verify targets with the grader and tokenize prompts and targets.

    Args:
        keep: `verified` leaves out what does not grade as correct; `all` keeps it and counts it.
    """
    plain = (replace(row, target=_without_end(row.target, tokenizer)) for row in rows)
    counted = Counter(plain)  # copies of a row are verified and tokenized once
    distinct = list(counted)
    built = BuiltExamples()
    examples = _tokenize(distinct, tokenizer)
    for row, doubt, example in zip(distinct, _doubts(distinct), examples, strict=True):
        reason = doubt if keep == "verified" else None
        if reason is None and not row.target.strip():
            reason = EMPTY_TARGET
        if reason is None and len(example.ids) > max_tokens:
            reason = TOO_LONG
        if reason is not None:
            built.left_out.setdefault(reason, []).append(row.id)
            continue
        if doubt is not None:
            built.unverified.setdefault(doubt, []).append(row.id)
        built.examples.extend([example] * counted[row])
    return built


def log_left_out(built: BuiltExamples) -> BuiltExamples:
    """Say in one line how many rows were left out and why; refuse to train on none.

    Raises:
        ConfigError: when no example is left.
    """
    LOGGER.info(
        "%d training examples; left out: %s; kept unverified: %s",
        len(built.examples),
        listed(built.left_out),
        listed(built.unverified),
    )
    if not built.examples:
        raise ConfigError(
            f"no training example is left; left out: {listed(built.left_out)}; raise "
            "train.max_tokens, give rows whose target states the reference answer, or keep rows "
            "that do not verify with --set sft.keep=all"
        )
    return built


def _doubts(rows: Sequence[SftRow]) -> Iterator[str | None]:
    """Yield for each row why it is not verified, or None."""
    checked = [row for row in rows if row.target.strip() and row.answer is not None]
    grades = grade_batch([_gradable(row) for row in checked], [row.answer for row in checked])
    correct = {row for row, grade in zip(checked, grades, strict=True) if grade.reward}
    for row in rows:
        if row.answer is None:
            yield NO_REFERENCE
        elif not row.target.strip():
            yield EMPTY_TARGET
        else:
            yield None if row in correct else NOT_CORRECT


def _gradable(row: SftRow) -> str:
    """Return the target as the grader reads it; without tags its last box is its answer."""
    # After a prompt that asks for the tags, a target without them is a format failure.
    if "<answer>" in row.target or row.prompt.rstrip().endswith("<think>"):
        return row.target
    return f"</think> <answer>{extract_boxed(row.target) or ''}</answer>"


def _without_end(target: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Take end-of-text off a target, which the grader would not read past."""
    stripped = target.rstrip()
    while stripped.endswith(tokenizer.eos_token):
        target = stripped.removesuffix(tokenizer.eos_token)
        stripped = target.rstrip()
    return target


def _tokenize(rows: Sequence[SftRow], tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    """Yield prompt, target and one end-of-text token as an example of each row."""
    # Tokenized apart, as at inference: the prompt's tokens never depend on the completion.
    heads = prompt_ids(tokenizer, [row.prompt for row in rows])
    tails = text_ids(tokenizer, [row.target for row in rows])
    end = tokenizer.eos_token_id
    for row, head, tail in zip(rows, heads, tails, strict=True):
        yield Example((*head, *tail, end), len(head), row.id)
