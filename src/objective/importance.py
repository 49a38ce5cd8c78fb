"""Correct for the gap between the engine that sampled and the policy that is trained.

The same weights give other probabilities in another implementation, so rollouts are slightly
off-policy (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
training"). The ratio of the policy's to the engine's probability is measured on every sampled
token, and with it whether the engine holds the policy's weights at all.

With `grpo.one_step_off` the engine held weights from before the last update, and the same ratio
corrects for both: the loss is the decoupled objective of AReaL (Fu et al. 2025, arXiv:2505.24298,
section 5.2), whose proximal policy is the one before the present update.

Shapes: B sequences, C completion tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from src.engine.swap_verifier import StaleWeightsError


@dataclass
class Agreement:
    """Sums over the sampled tokens of a step, on one process."""

    tokens: float = 0.0
    ratio: float = 0.0
    gap: float = 0.0
    """Absolute differences of log-probabilities, in nats."""
    corrected: float = 0.0
    """Tokens whose ratio was cut or left out."""
    entropy: float = 0.0
    """Entropies of the policy's next-token distributions, in nats."""
    update_ratio: float = 0.0
    """Ratios of the policy's probability to that of the policy that began on the rollouts."""
    update_gap: float = 0.0
    """Absolute differences of these two's log-probabilities, in nats."""

    def __add__(self, other: Agreement) -> Agreement:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Agreement(**sums)

    def add_update(self, policy: torch.Tensor, old: torch.Tensor, mask: torch.Tensor) -> None:
        """Measure how far updates on the same rollouts have moved the policy (B, C)."""
        difference = (policy - old) * mask
        sums = torch.stack([(difference.exp() * mask).sum(), difference.abs().sum()])
        self.update_ratio, self.update_gap = sums.tolist()

    def check(self, tolerance: float) -> None:
        """Refuse to go on where engine and policy disagree beyond rounding.

        Raises:
            StaleWeightsError: with the mean gap, in nats a token.
            FloatingPointError: where there is none to be had.
        """
        gap = self.gap / max(self.tokens, 1.0)
        if not math.isfinite(gap):
            raise FloatingPointError(
                "log-probabilities of the rollouts are not finite, by the engine or by the policy: "
                "the weights have diverged, and grpo.learning_rate is too high; or numbers go "
                "beyond float16's 65,504, and engine.dtype and train.compute_dtype had better be "
                "bfloat16 or float32"
            )
        if gap > tolerance:
            raise StaleWeightsError(
                f"the rollout engine's log-probabilities are off by {gap:.4f} nats a token from "
                f"the policy's (tolerance {tolerance}, engine.swap_tolerance): it does not sample "
                "from the weights that are trained"
            )

    def metrics(self) -> dict[str, float]:
        """Return means over the tokens."""
        tokens = max(self.tokens, 1.0)
        moved = {"update_ratio": self.update_ratio, "update_gap": self.update_gap}
        return {
            # None was measured where rollouts are trained on once.
            **{f"grpo/{name}": s / tokens for name, s in moved.items() if self.update_ratio},
            "grpo/importance_ratio": self.ratio / tokens,
            "grpo/logprob_gap": self.gap / tokens,
            "grpo/importance_corrected_rate": self.corrected / tokens,
            "grpo/entropy": self.entropy / tokens,
        }


def importance_weights(
    policy: torch.Tensor, engine: torch.Tensor, mask: torch.Tensor, mode: str, cap: float
) -> tuple[torch.Tensor, Agreement]:
    """Return the weight of each token's loss (B, C), and how well policy and engine agree.

    Args:
        policy: log-probabilities under the policy before its update (B, C), in nats.
        engine: the engine's own (B, C).
        mask: 1 on sampled tokens (B, C).
        mode: as `grpo.importance_correction`: a `token` ratio or a `sequence`'s product of them,
            cut to the cap (`truncate`) or left out above it (`mask`).
    """
    difference = (policy - engine) * mask  # (B, C)
    ratio = difference.exp()
    sums = [mask.sum(), (ratio * mask).sum(), difference.abs().sum()]
    if mode == "off":
        return torch.ones_like(ratio), _read(sums)
    unit, _, action = mode.partition("_")
    if unit == "sequence":
        ratio = difference.sum(-1, keepdim=True).exp().expand_as(difference)
    above = ratio > cap
    weights = ratio.clamp(max=cap) if action == "truncate" else ratio.masked_fill(above, 0.0)
    return weights, _read([*sums, (above * mask).sum()])


def _read(sums: list[torch.Tensor]) -> Agreement:
    """Bring the sums over in one transfer: each read of a tensor waits for the GPU."""
    return Agreement(*torch.stack([value.float() for value in sums]).tolist())
