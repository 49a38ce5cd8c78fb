"""Keep an engine's weights at what is asked for, and prove it after every swap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.engine.generator import Generator
from src.engine.weight_probe import PROBE_TEXTS, Probe, read_probe

_LAYERS_NAMED = 5
_SHORT_TEXT = "1 + 1 = 2, so"


class StaleWeightsError(RuntimeError):
    """After a swap the engine does not hold the checkpoint's weights."""


def check_synced(unlike: Sequence[str]) -> None:
    """Refuse to sample from an engine that was given the policy's weights and holds others.

    Args:
        unlike: the layers that differ.

    Raises:
        StaleWeightsError: naming them.
    """
    if unlike:
        raise StaleWeightsError(
            f"after the weight sync {len(unlike)} layers of the rollout engine hold other weights "
            f"than the policy: {', '.join(unlike[:_LAYERS_NAMED])}"
        )


def check_numbers(engine: Generator, model: str) -> None:
    """Refuse a model whose log-probabilities are no numbers; its completions would be empty.

    Raises:
        ValueError: naming the model.
    """
    rows = engine.prompt_logprobs(engine.token_ids([_SHORT_TEXT]))
    if not all(math.isfinite(value) for row in rows for value in row):
        raise ValueError(
            f"{model}: its log-probabilities are not finite numbers: its weights hold NaN or "
            "infinity, or overflow in engine.dtype"
        )


@dataclass
class SwapVerifier:
    """Swap checkpoints into an engine; compare its layers and its log-probabilities.

    The layers are compared to the bit, so that one that stayed old is seen however small the update
    was. The log-probabilities of the probe texts, which the trainer stored, show that the whole
    model computes what the trainer's does: two bfloat16 implementations never agree exactly, so
    their mean gap must not exceed `tolerance` (nats a token).
    """

    engine: Generator
    tolerance: float
    loaded: str
    probe: Probe | None = field(default=None)

    def load(self, folder: Path) -> float | None:
        """Swap to a checkpoint and return the gap; None where no swap was needed.

        Raises:
            StaleWeightsError: with the layers or the figures.
        """
        probe = read_probe(folder)
        if str(folder) == self.loaded and (probe is None or self.probe is not None):
            return None
        if probe is None:
            raise StaleWeightsError(f"{folder}: no probe is stored, so a swap cannot be verified")
        if self.engine.token_ids(PROBE_TEXTS) != probe.ids:
            raise StaleWeightsError(
                f"{folder}: its tokenizer cuts the probe texts otherwise than the engine's"
            )
        if str(folder) != self.loaded:
            self.engine.swap(folder)
        self._check_layers(folder)
        gap = probe.gap(self.engine.prompt_logprobs(probe.ids))
        if not gap <= self.tolerance:  # NaN is no agreement either
            raise StaleWeightsError(
                f"{folder}: after the swap log-probabilities are off by {gap:.4f} nats a token "
                f"(tolerance {self.tolerance})"
            )
        self.loaded, self.probe = str(folder), probe
        return gap

    def _check_layers(self, folder: Path) -> None:
        layers = self.engine.differing_layers(folder)
        if layers:
            raise StaleWeightsError(
                f"{folder}: after the swap {len(layers)} layers of the engine hold other weights "
                f"than the checkpoint: {', '.join(layers[:_LAYERS_NAMED])}"
            )
