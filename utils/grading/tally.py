"""Counts of what grading did in this process."""

from __future__ import annotations

import os
import threading
from collections import Counter


class Tally:
    """Count events by name; safe from any thread and after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count an event."""
        with self._lock:
            self._counts[name] += count

    def snapshot(self) -> dict[str, int]:
        """Return the counts so far; subtract an earlier snapshot for those of one batch."""
        with self._lock:
            return dict(self._counts)

    def reset_after_fork(self) -> None:
        """Start from nothing in a forked process, whatever the parent's threads held."""
        self._lock = threading.Lock()
        self._counts = Counter()


TALLY = Tally()
os.register_at_fork(after_in_child=TALLY.reset_after_fork)
