"""Split the seconds of a training step into what they were spent on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class StepClock:
    """Adds up named parts of a step; what is in none of them is training itself."""

    def __init__(self) -> None:
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Start a step."""
        self._parts.clear()
        self._began = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block for a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._parts[name] += seconds

    def end(self) -> dict[str, float]:
        """Return part -> seconds, with `step` the whole and `train` the rest."""
        whole = time.perf_counter() - self._began
        return {**self._parts, "train": whole - sum(self._parts.values()), "step": whole}
