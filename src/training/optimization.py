"""The optimizer, its learning rate over a schedule, and when to stop.

Takes no more than torch for plain AdamW, so that the GPU benchmark can use it alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from src.config.training import OptimizerName, TrainConfig

_BETA1, _EPSILON = 0.9, 1e-8


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train and where to save, in optimizer steps."""

    steps: int
    checkpoint_steps: frozenset[int]
    total_examples: int

    @classmethod
    def by_steps(cls, config: TrainConfig, examples: int) -> Schedule:
        """Save at the configuration's checkpoint steps."""
        checkpoint_steps = frozenset(config.checkpoint_steps(examples))
        return cls(config.steps(examples), checkpoint_steps, examples * config.epochs)

    @classmethod
    def by_examples(cls, config: TrainConfig, rungs: Sequence[int]) -> Schedule:
        """Save after the given numbers of examples, whatever the batch size."""
        steps = [rung // config.batch_size for rung in rungs]
        return cls(steps[-1], frozenset(steps), rungs[-1])


class EarlyStopping:
    """Tell when a score has not improved by `min_delta` for `patience` evaluations."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta
        self._best = -math.inf
        self._since_best = 0

    def should_stop(self, *scores: float) -> bool:
        """Take the next scores, higher being better."""
        for score in scores:
            if score > self._best + self._min_delta:
                self._best, self._since_best = score, 0
            else:
                self._since_best += 1
        return self._since_best >= self._patience


def build_optimizer(policy: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build AdamW of what is not frozen; norms, biases, embeddings decay with `decay_all` alone."""
    embeddings = {
        id(parameter)
        for module in policy.modules()
        if isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters()
    }
    decayed: list[Any] = []
    plain: list[Any] = []
    for parameter in (each for each in policy.parameters() if each.requires_grad):
        is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if is_matrix or config.decay_all else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    kind, settings = named_optimizer(config.optimizer, config.learning_rate, config.adam_beta2)
    return kind([group for group in groups if group["params"]], **settings)


def named_optimizer(
    name: OptimizerName, learning_rate: float, beta2: float
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the class of AdamW that keeps its moments as `name` says, and its settings.

    Moments in 8 bits by blocks of 256: Dettmers et al. 2022, "8-bit Optimizers via Block-wise
    Quantization". Kahan summation of bfloat16 weights: Zamirai et al. 2020, "Revisiting BFloat16
    Training".
    """
    settings: dict[str, Any] = {"lr": learning_rate, "betas": (_BETA1, beta2), "eps": _EPSILON}
    # Imported here: each is needed by those alone who choose it.
    if name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit  # noqa: PLC0415

        return AdamW8bit, settings
    if name == "adamw_bf16_kahan":
        from optimi import AdamW  # noqa: PLC0415

        # Its Triton kernels, which it takes by itself for shards on a GPU, know nothing of shards.
        return AdamW, settings | {"kahan_sum": True, "triton": False}
    return torch.optim.AdamW, settings | {"fused": True}


def room_for_moments(optimizer: torch.optim.Optimizer, name: OptimizerName) -> list[torch.Tensor]:
    """Return tensors that take as much memory as what the optimizer will keep but has not yet."""
    if optimizer.state:
        return []
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    if name == "adamw_8bit":
        return [torch.empty_like(item, dtype=torch.int16) for item in parameters]
    count = 3 if name == "adamw_bf16_kahan" else 2
    return [torch.empty_like(item) for item in parameters for _ in range(count)]


def learning_rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Return the share of the peak learning rate that step `step` (from 0) takes."""
    warmup = max(1, round(config.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))
