"""Outlive a database server that is away for a while: ask again, and trust no heartbeat of then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError

from src.config.loading import ConfigError

LOGGER = logging.getLogger(__name__)
_AWAY = (OperationalError, InterfaceError, PendingRollbackError)
_PAUSE_S = 1.0


class Patience:
    """Repeats what failed because the server was away.

    Args:
        url: of the database, for messages.
        finished: what storing a trial's end raises where it is stored already; the repeated call
            may meet its own first attempt, whose answer was lost.
        reset: forgets the broken connection and its open transaction.
        wait_s: how long the server may be away, in seconds.
    """

    def __init__(
        self,
        url: str,
        finished: type[Exception],
        reset: Callable[[], None] = lambda: None,
        wait_s: float = 300.0,
    ) -> None:
        self._url = url
        self._finished = finished
        self._reset = reset
        self._wait_s = wait_s
        self._given_up = False
        self._back = time.monotonic()

    def over(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, repeated until the server answers.

        Raises (the returned call):
            ConfigError: when it has not answered for `wait_s`.
        """

        @wraps(call)
        def patient(*args: Any, **named: Any) -> Any:
            away_since: float | None = None
            while True:
                try:
                    result = call(*args, **named)
                    break
                except Exception as error:
                    if away_since is not None and isinstance(error, self._finished):
                        result = True
                        break
                    if not isinstance(error, _AWAY) and not isinstance(error.__cause__, _AWAY):
                        raise
                    away_since = self._wait(away_since, error)
            if away_since is not None:
                self._back = time.monotonic()
                LOGGER.info("search.storage: the database answers again")
            return result

        return patient

    def heartbeats_count(self, heartbeat_s: float) -> bool:
        """Say whether all who live have had the time for a heartbeat since the server came back."""
        return time.monotonic() - self._back > 2 * heartbeat_s

    def _wait(self, since: float | None, error: Exception) -> float:
        now = time.monotonic()
        if since is None:
            since = now
            reason = str(error.__cause__ or error).splitlines()[0]
            LOGGER.warning(
                "search.storage: the database does not answer (%s); asking again for %.0f s",
                reason,
                self._wait_s,
            )
        if self._given_up or now - since > self._wait_s:
            self._given_up = True
            raise ConfigError(
                f"search.storage: {self._url} has not answered for {self._wait_s:.0f} s; start the "
                "database, then the same command again: finished trials are kept, and the one "
                "that ran here waits again"
            ) from None
        self._reset()
        time.sleep(_PAUSE_S)
        return since
