"""An engine that sleeps while the trainer on its GPU trains, and gives its memory back meanwhile.

vLLM's sleep of level 2 keeps neither weights nor KV cache. What wakes holds anything at all, so the
order is kept here: the weights wake, are written and compared layer by layer; then the KV cache
wakes and there may be sampling; then both go again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch


class Sleeper(Protocol):
    """What vLLM's LLM has for it."""

    def sleep(self, level: int) -> None:
        """Give memory back."""

    def wake_up(self, tags: list[str]) -> None:
        """Take memory again: of `weights` or of the `kv_cache`."""


class SleepCycle:
    """Where an engine stands between two sleeps.

    Args:
        engine: one that sleeps already; None for one that never does, of which all is allowed.
    """

    def __init__(self, engine: Sleeper | None) -> None:
        self._engine = engine
        self._weights: Literal["gone", "unproven", "proven"] = (
            "proven" if engine is None else "gone"
        )

    @property
    def asleep(self) -> bool:
        """Whether the weights are gone."""
        return self._weights == "gone"

    def wake_weights(self) -> None:
        """Make room for weights, which are about to be written."""
        if self._engine is None:
            return
        if self.asleep:
            _wake(self._engine, "weights")
        self._weights = "unproven"

    def weights_proven(self) -> None:
        """Take note that the weights were written and compared.

        Raises:
            RuntimeError: where there was no room for them.
        """
        if self.asleep:
            raise RuntimeError("weights were written while the engine slept; wake it first")
        self._weights = "proven"

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Allow sampling inside the block; the engine sleeps again after it.

        Raises:
            RuntimeError: where no weights have been written and compared since it slept.
        """
        if self._weights != "proven":
            raise RuntimeError(
                f"the engine's weights are {self._weights} since it slept, so nothing may be "
                "sampled from it; sync the policy's weights first"
            )
        if self._engine is not None:
            _wake(self._engine, "kv_cache")
        yield
        if self._engine is not None:
            self._engine.sleep(level=2)
            self._weights = "gone"


def _wake(engine: Sleeper, what: str) -> None:
    # vLLM takes memory from the driver, which has none of what torch keeps for its next pass.
    torch.cuda.empty_cache()
    engine.wake_up(tags=[what])
