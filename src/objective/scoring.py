"""Score completions in packed rows, and count what that took."""

from __future__ import annotations

from typing import Any

import torch

from src.config.training import ComputeType
from src.training.losses import CompletionScores, completion_scores
from src.training.parallel import autocast_to
from src.training.throughput import training_flops


class PackedScorer:
    """Log-probabilities and entropies of completions, and the work done for them.

    Args:
        compute_dtype: of matrix products; log-probabilities, their loss and sums stay float32.
    """

    def __init__(self, compute_dtype: ComputeType) -> None:
        self._compute_dtype = compute_dtype
        self.forget()

    def forget(self) -> None:
        """Count from 0 again."""
        self.trained_tokens, self.flops = 0, 0.0

    def scored(
        self,
        model: torch.nn.Module,
        own: Any,
        sequences: tuple[torch.Tensor, torch.Tensor],
        columns: int,
        batch_size: int | None,
        *,
        counts: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score completions (B, C) in packed rows of at most `batch_size` sequences.

        Args:
            own: the model without what accelerate wraps it in.
            sequences: ids and mask (B, P + C).
            columns: C.
            counts: it is trained on.
        """
        ids, mask = sequences
        size = batch_size or len(ids)
        scores = []
        for rows, present in zip(ids.split(size), mask.split(size), strict=True):
            with autocast_to(self._compute_dtype, ids.device):
                scores.append(
                    completion_scores(
                        model, own.config._attn_implementation, rows, present, columns
                    )
                )
            if counts:
                self._count(own, scores[-1])
        return (
            torch.cat([score.logprobs for score in scores]),
            torch.cat([score.entropies for score in scores]),
        )

    def _count(self, policy: Any, scores: CompletionScores) -> None:
        """Count the tokens trained on and the FLOPs this took."""
        self.trained_tokens += scores.targets
        self.flops += training_flops(policy, scores.lengths, scores.targets)
        self.flops -= training_flops(policy, scores.shared, 0)
