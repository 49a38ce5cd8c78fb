"""Show the progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from types import TracebackType

from tqdm import tqdm

LOGGER = logging.getLogger(__name__)
_LINE_EVERY_S = 20.0


class Progress:
    """Count units done; report rate and time left."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = self._first = done
        self._started = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=label, unit=f" {unit}", dynamic_ncols=True)
            if _is_terminal()
            else None
        )

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add finished units; `note` shows current figures."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S or self._done >= self._total:
            self._last_line = now
            rate = (self._done - self._first) / max(now - self._started, 1e-9)
            left = (self._total - self._done) / rate if rate else float("inf")
            LOGGER.info(
                "%s: %d/%d %s, %.2f/s, %.0f s left %s",
                self._label, self._done, self._total, self._unit, rate, left, note,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _is_terminal() -> bool:
    """Say whether a bar can be drawn; some terminals, such as a container's, have no width."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
