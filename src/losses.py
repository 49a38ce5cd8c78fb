"""Losses over target tokens only.

Shapes: T tokens of a packed row, V vocabulary, N target tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from src.attention import packing_arguments
from src.batching import PackedBatch


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
