"""Losses and log-probabilities of packed rows: targets alone, nothing padded.

SFT sums the loss of its target tokens. GRPO wants the log-probability of each completion token:
TRL runs a batch as a rectangle, padded to its longest prompt and longest completion, and each
prompt once for every completion. Here the same sequences go end to end through the policy's packed
attention, and where that can do it the members of a group share one copy of their prompt.

Shapes: B sequences, P prompt and C completion columns, T tokens of a packed row, V vocabulary,
N target tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from src.training.attention import PACKED_SDPA, packing_arguments
from src.training.batching import Example, GroupedBatch, PackedBatch, pack, pack_groups


def target_logits(model: torch.nn.Module, implementation: str, batch: PackedBatch) -> torch.Tensor:
    """Return float32 logits (N, V) of the target tokens.

    The output layer runs on the positions that predict a target alone: with a large vocabulary,
    logits of prompts are most of a step's memory.

    Args:
        implementation: the attention the model was loaded with.
    """
    output = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=batch.predicts,
        **packing_arguments(implementation, batch),
    )
    return output.logits[0].float()


def summed_nll(model: torch.nn.Module, implementation: str, batch: PackedBatch) -> torch.Tensor:
    """Return the summed negative log-likelihood of the target tokens, in nats.

    The caller divides by the whole step's target count, so that the gradient does not depend on
    how the step was cut into micro-batches.
    """
    logits = target_logits(model, implementation, batch)
    return F.cross_entropy(logits, batch.targets, reduction="sum")


def summed_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the summed entropy of the next-token distributions of logits (N, V), in nats."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum()


@dataclass(frozen=True, slots=True)
class CompletionScores:
    """Log-probabilities and entropies (B, C) in nats, 0 where there is no token."""

    logprobs: torch.Tensor
    entropies: torch.Tensor
    lengths: tuple[int, ...]
    """Real tokens of each sequence."""
    shared: tuple[int, ...]
    """Prompt tokens that some of them did not have to run, as another had."""
    targets: int
    """Completion tokens of all sequences."""


def completion_scores(
    model: torch.nn.Module,
    implementation: str,
    ids: torch.Tensor,
    mask: torch.Tensor,
    completion_columns: int,
) -> CompletionScores:
    """Score completions under a model that has TRL's fused output layer.

    Args:
        implementation: the attention the model was loaded with.
        ids: prompts padded left and completions padded right (B, P + C).
        mask: 1 on real tokens (B, P + C).
    """
    present = mask.bool()
    examples = [
        Example(tuple(row[real].tolist()), int(real[:-completion_columns].sum()), "rollout")
        for row, real in zip(ids, present, strict=True)
    ]
    shares = implementation == PACKED_SDPA
    batch = (pack_groups if shares else pack)(examples, ids.device)
    output = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        labels=_labels(batch),
        fused_lm_head=True,
        **packing_arguments(implementation, batch),
    )
    completions = present[:, -completion_columns:]  # (B, C), row by row as they were packed
    empty = output.log_probs.new_zeros(completions.shape)
    return CompletionScores(
        empty.masked_scatter(completions, output.log_probs[0, batch.predicts]),
        empty.masked_scatter(completions, output.entropy[0, batch.predicts].detach())
        if output.entropy is not None
        else empty,
        tuple(len(example.ids) for example in examples),
        _shared(batch) if isinstance(batch, GroupedBatch) else (),
        len(batch.targets),
    )


def _shared(batch: GroupedBatch) -> tuple[int, ...]:
    return tuple(prefix for prefix, own in batch.groups for _ in own[1:])


def _labels(batch: PackedBatch | GroupedBatch) -> torch.Tensor:
    """Return the row's tokens where they are targets and -100 elsewhere, (1, T)."""
    labels = torch.full_like(batch.ids, -100)
    labels[0, batch.predicts + 1] = batch.targets
    return labels
