"""The client of a process with one engine that does one thing after another.

A process that dies or hangs is replaced once a request: the fresh one is told again what it must
know, and asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from src.config.schema import Config
from src.engine.swap_verifier import StaleWeightsError
from src.evaluation.worker_loop import EngineStarted, Trouble
from src.evaluation.worker_process import Mailbox, WorkerProcess
from src.run.processes import worker_environment
from src.run.stopping import RunError

LOGGER = logging.getLogger(__name__)


class EngineStartError(RunError):
    """The worker's engine cannot start, and would not the next time either."""


class EngineError(RunError):
    """An engine cannot do what it was asked for."""


class WorkerTraceback(Exception):  # noqa: N818 - the cause of an error, never raised itself
    """Where in the worker's process something went wrong."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request came to, or why it came to nothing, and the seconds it took."""

    value: Any
    seconds: float
    trouble: Trouble | None = None
    stale: bool = False
    """The trouble is that the engine holds other weights than it should."""


def start_engine(
    name: str,
    serve: Callable[..., None],
    arguments: tuple[Any, ...],
    config: Config,
    bell: threading.Event | None = None,
) -> WorkerProcess:
    """Start a process with an engine on the devices that its own configuration names.

    Args:
        serve: run in the process; sends `EngineStarted` first.
        bell: set whenever there is news.
    """
    engine = config.engine
    with worker_environment(config):
        return WorkerProcess(
            name,
            serve,
            arguments,
            engine.start_timeout_s,
            "engine.start_timeout_s",
            bell=bell,
            has_children=engine.tensor_parallel > 1,
        )


def take_start(
    message: EngineStarted, process: WorkerProcess, name: str, model: str, config: Config
) -> None:
    """Take note that an engine is there; from now on it must show that it goes on.

    Raises:
        EngineStartError: when it could not start; a second one would not either.
    """
    if message.trouble is not None:
        raise EngineStartError(
            f"{name} could not start on {model}: {message.trouble.told}"
        ) from WorkerTraceback(message.trouble.trace)
    process.allow(config.engine.no_answer_timeout_s, "engine.no_answer_timeout_s")


class EngineProcess:
    """One engine on `devices.eval`, in a process that answers each request by an `Answer`.

    Args:
        name: said in messages, such as `the rollout engine`.
        serve: run in the process; sends `EngineStarted` first.
        model: folder or hub id the engine starts with.
    """

    def __init__(
        self, name: str, serve: Callable[[Config, str, Mailbox], None], config: Config, model: str
    ) -> None:
        self._name, self._serve = name, serve
        self._config, self._model = config, model
        self._known: Any = None
        self._asked: Any = None
        self._asked_at = 0.0
        self._answered: Answer | None = None
        self._restarted = False
        self._busy_s = 0.0
        self._worker = self._started()

    def stop(self, grace_s: float = 0.0) -> None:
        """End the process, which may take `grace_s` to do so itself."""
        self._worker.stop(grace_s)

    @property
    def busy_s(self) -> float:
        """Seconds the engine has been at work until now."""
        while self._asked is not None and self._answered is None and self._worker.has_news():
            self._answered = self._receive()
            if self._answered is None:
                break  # the process is gone, which `answer` mends
        if self._answered is not None:
            return self._busy_s + self._answered.seconds
        return self._busy_s + (time.monotonic() - self._asked_at if self._asked is not None else 0)

    def ask(self, request: Any, *, remember: bool = False) -> Any:
        """Ask for something and wait for what it comes to.

        Args:
            remember: a process that takes the place of this one is asked this first.
        """
        if remember:
            self._known = request
        self.begin(request)
        return self.answer()

    def begin(self, request: Any) -> None:
        """Ask for something; the answer of what was asked before must have been taken."""
        if self._asked is not None:
            raise RuntimeError(f"{self._name} is still at {type(self._asked).__name__}")
        self._asked, self._asked_at, self._restarted = request, time.monotonic(), False
        self._worker.send(request)

    def answer(self) -> Any:
        """Wait for what was asked for.

        Raises:
            EngineError: the engine failed at it, or its process was lost twice.
            EngineStartError: the engine could not start; a second one would not either.
            StaleWeightsError: naming what stayed as it was.
        """
        while self._answered is None:
            self._answered = self._receive() or self._again()
        answer, self._asked, self._answered = self._answered, None, None
        self._busy_s += answer.seconds
        return self._value(answer)

    def _value(self, answer: Answer) -> Any:
        trouble = answer.trouble
        if trouble is None:
            return answer.value
        if answer.stale:
            raise StaleWeightsError(trouble.told) from WorkerTraceback(trouble.trace)
        raise EngineError(f"{self._name} failed: {trouble.told}") from WorkerTraceback(
            trouble.trace
        )

    def _receive(self) -> Answer | None:
        """Wait for an answer; None when the process is gone."""
        message = self._worker.receive()
        while isinstance(message, EngineStarted):
            take_start(message, self._worker, self._name, self._model, self._config)
            message = self._worker.receive()
        return message

    def _again(self) -> Answer | None:
        """Start a fresh process and ask it; once for each request."""
        gone = self._worker.gone
        if self._restarted:
            raise EngineError(
                f"{self._name} failed twice, the second time with a fresh process: it {gone}"
            )
        LOGGER.warning("%s %s; starting a fresh one", self._name, gone)
        self._restarted = True
        self._worker.stop()
        self._worker = self._started()
        if self._known is not None and self._asked is not self._known:
            self._worker.send(self._known)
            told = self._receive()
            if told is None:
                return self._again()
            self._value(told)
        self._asked_at = time.monotonic()
        self._worker.send(self._asked)
        return None

    def _started(self) -> WorkerProcess:
        return start_engine(self._name, self._serve, (self._config, self._model), self._config)
