"""What the pipeline asks of an engine that generates text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.config.schema import SamplingConfig


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text.

    `truncated` is true only where the token limit cut it: ending at the stop text or at the
    end-of-text token is complete.
    """

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion with what a policy update needs.

    `logprobs` are the engine's, in nats, one a token. `finished` is false where the token limit cut
    it.
    """

    ids: list[int]
    logprobs: list[float]
    text: str
    finished: bool


class RolloutPool(Protocol):
    """Rollouts that an engine samples together; more may join while others run."""

    def add(self, key: int, prompt_ids: list[int], seed: int) -> None:
        """Begin a rollout under a key of the caller's."""

    def ended(self) -> Iterator[tuple[int, Rollout]]:
        """Yield (key, rollout) as they end, until none is running."""


class Generator(Protocol):
    """An engine whose weights can be swapped in place."""

    def swap(self, checkpoint: Path) -> None:
        """Load another checkpoint of the same architecture into the running engine."""

    def differing_layers(self, checkpoint: Path) -> list[str]:
        """List the layers that hold other weights than a checkpoint, to the bit."""

    def prompt_logprobs(self, ids: Sequence[list[int]]) -> list[list[float]]:
        """Return the log-probability of each token after the first, in nats."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts as the engine tokenizes prompts."""

    def stream(
        self, prompts: Sequence[str], sampling: SamplingConfig, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Complete each prompt once, with its own seed; yield (index, completion) as they end."""


def sample_seed(run_seed: int, *key: object) -> int:
    """Derive a 32-bit seed for one completion from the run's seed and what it is for.

    Completions then depend neither on batch order nor on what was sampled before, and a resumed
    run goes on with fresh ones instead of replaying the old.
    """
    digest = hashlib.sha256(":".join(map(str, (run_seed, *key))).encode()).digest()
    return int.from_bytes(digest[:4], "big")
