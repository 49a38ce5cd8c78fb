"""Requests to a vLLM server that come to an end: answered, or given up after a time that is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from src.run.stopping import RunError

SETTING = "engine.no_answer_timeout_s"
RECEIVE = "/update_weights"
"""Path that a server is asked at to take weights, which are sent over NCCL meanwhile."""
_CONNECTIONS = 256
_BUSY = (500, 502, 503)


class ServerError(RunError):
    """The vLLM server cannot be reached, or does not answer."""


def bound_requests(session: requests.Session, timeout_s: float) -> None:
    """Give up every request of a session that is not answered within `timeout_s`."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded(timeout_s))


def check_server(url: str, timeout_s: float) -> None:
    """Ask the server whether it is well; TRL's client asks too, and waits for ever.

    Raises:
        ServerError: when it does not answer, or not with a yes.
    """
    with server_answers(url, timeout_s):
        requests.get(f"{url.rstrip('/')}/health", timeout=timeout_s).raise_for_status()


@contextmanager
def server_answers(url: str, timeout_s: float) -> Iterator[None]:
    """Say in a sentence what keeps the server from answering inside the block."""
    try:
        yield
    except requests.Timeout as error:
        raise ServerError(
            f"the vLLM server at {url}: no answer for {timeout_s:g} s ({SETTING}); if it hangs, "
            "end and start it again, then --resume goes on; if its completions take that long, "
            "raise the setting"
        ) from error
    except requests.RequestException as error:
        raise ServerError(
            f"the vLLM server at {url} cannot be reached ({' '.join(str(error).split())}); start "
            "`vllm serve` there (grpo.server_url), then --resume goes on"
        ) from error


class _Bounded(HTTPAdapter):
    """Sends requests with a deadline, and those again that did not reach the server."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        again = _UnlessSilent(
            total=5,
            status=3,
            status_forcelist=_BUSY,
            backoff_factor=2,
            allowed_methods=["POST", "GET"],
        )
        super().__init__(max_retries=again, pool_maxsize=_CONNECTIONS)

    def send(self, request: requests.PreparedRequest, **given: Any) -> requests.Response:  # type: ignore[override]
        return super().send(request, **given | {"timeout": given.get("timeout") or self._timeout_s})


class _UnlessSilent(Retry):
    """Tries again what failed, unless the deadline has passed or weights were to be taken."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *more: Any,
        **named: Any,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        unasked = isinstance(error, (NewConnectionError, ConnectTimeoutError))
        if url and url.endswith(RECEIVE) and not unasked:
            # Asked again it would take what is sent from the middle for the beginning.
            reason = error or ResponseError(f"status {getattr(response, 'status', None)}")
            raise MaxRetryError(named["_pool"], url, reason)
        return super().increment(method, url, response, error, *more, **named)
