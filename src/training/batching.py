"""Cut each optimizer step into packed micro-batches: sequences end to end, nothing padded.

Shapes: T tokens of all sequences of a micro-batch, N target tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence: prompt tokens, then target tokens that close with end-of-text."""

    ids: tuple[int, ...]
    prompt_tokens: int
    id: str
    """Names the row it was made of."""

    @property
    def target_tokens(self) -> int:
        """Number of predicted tokens."""
        return len(self.ids) - self.prompt_tokens


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences of one forward pass, end to end in one row."""

    ids: torch.Tensor  # (1, T) int64
    positions: torch.Tensor  # (1, T) int64, from 0 in each sequence
    lengths: tuple[int, ...]
    predicts: torch.Tensor  # (N,) places in the row whose next token is a target
    targets: torch.Tensor  # (N,) those tokens


def pack(examples: Sequence[Example], device: torch.device) -> PackedBatch:
    """Lay sequences end to end; each keeps its own positions and attends to itself alone."""
    ids: list[int] = []
    positions: list[int] = []
    predicts: list[int] = []
    for example in examples:
        start, tokens = len(ids), len(example.ids)
        predicts += range(start + example.prompt_tokens - 1, start + tokens - 1)
        positions += range(tokens)
        ids += example.ids
    row = torch.tensor([ids])  # (1, T)
    places = torch.tensor(predicts, dtype=torch.long)
    return PackedBatch(
        row.to(device),
        torch.tensor([positions]).to(device),
        tuple(len(example.ids) for example in examples),
        places.to(device),
        row[0][places + 1].to(device),
    )


@dataclass(frozen=True, slots=True)
class GroupedBatch:
    """Prompts with their completions in one row, each prompt once.

    A completion begins with the prompt's last token, whose prediction is its own first token.
    """

    ids: torch.Tensor  # (1, T) int64
    positions: torch.Tensor  # (1, T) int64, those of each sequence on its own
    groups: tuple[tuple[int, tuple[int, ...]], ...]
    """For each prompt its tokens but the last, and the tokens of each completion with that one."""
    predicts: torch.Tensor  # (N,) places in the row whose next token is a target
    targets: torch.Tensor  # (N,) those tokens


def pack_groups(examples: Sequence[Example], device: torch.device) -> GroupedBatch:
    """Lay examples out with neighbours of one prompt behind a single copy of it."""
    ids: list[int] = []
    positions: list[int] = []
    predicts: list[int] = []
    groups = []
    for prompt, neighbours in groupby(examples, key=lambda item: item.ids[: item.prompt_tokens]):
        prefix, own = len(prompt) - 1, []
        ids += prompt[:-1]
        positions += range(prefix)
        for example in neighbours:
            sequence = example.ids[prefix:]
            predicts += range(len(ids), len(ids) + len(sequence) - 1)
            positions += range(prefix, len(example.ids))
            ids += sequence
            own.append(len(sequence))
        groups.append((prefix, tuple(own)))
    row = torch.tensor([ids])  # (1, T)
    places = torch.tensor(predicts, dtype=torch.long)
    return GroupedBatch(
        row.to(device),
        torch.tensor([positions]).to(device),
        tuple(groups),
        places.to(device),
        row[0][places + 1].to(device),
    )


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
    examples: Sequence[Example], most_tokens: int, processes: int = 1
) -> list[list[list[Example]]]:
    """Share a step out: for each process, its micro-batches, as few as hold `most_tokens` each.

    The longest first, each to the micro-batch with the fewest tokens so far, so that memory and
    time are alike everywhere. All processes get the same number of micro-batches, as sharded
    models gather their weights in each; in a small last step some may be empty. An example of more
    tokens has a micro-batch to itself.
    """
    whole = sum(min(_length(example), most_tokens) for example in examples)
    rounds = max(1, -(-whole // (most_tokens * processes)))
    bins = _dealt(examples, rounds * processes)
    while any(len(own) > 1 and sum(map(_length, own)) > most_tokens for own in bins):
        rounds += 1
        bins = _dealt(examples, rounds * processes)
    return [bins[process::processes] for process in range(processes)]


def _dealt(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """Deal examples out to a number of micro-batches."""
    bins: list[list[Example]] = [[] for _ in range(count)]
    tokens = [0] * count
    for example in sorted(examples, key=_length, reverse=True):
        lightest = min(range(count), key=tokens.__getitem__)
        bins[lightest].append(example)
        tokens[lightest] += len(example.ids)
    return bins


def _length(example: Example) -> int:
    return len(example.ids)


def largest_micro_batch(
    steps: Iterable[Sequence[Example]], most_tokens: int, processes: int = 1
) -> list[Example]:
    """Return the micro-batch with the most tokens of all that the steps are shared out into."""
    return max(
        (group for step in steps for share in micro_batches(step, most_tokens, processes)
         for group in share),
        key=lambda group: sum(map(_length, group)),
    )  # fmt: skip
