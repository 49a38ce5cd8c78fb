"""A persistent vLLM process that scores checkpoints: its client.

The engine lives as long as the run; checkpoints reach it by path and are swapped in place. Every
swap is verified against the log-probabilities the trainer stored with the checkpoint. What the
process does is in `src/evaluation/worker_loop.py`, how it is watched in
`src/evaluation/worker_process.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from types import TracebackType

from src.config.schema import Config
from src.evaluation.engine_process import EngineStartError, WorkerTraceback
from src.evaluation.evaluation import EvalTask
from src.evaluation.worker_loop import (
    EngineStarted,
    EvalRequest,
    EvalResult,
    Reports,
    Trouble,
    serve,
)
from src.evaluation.worker_process import WorkerProcess
from src.run.devices import is_cpu
from src.run.processes import evaluation_device, is_main_process, worker_environment
from src.run.stopping import RunError
from src.training.checkpoints import Checkpoint

LOGGER = logging.getLogger(__name__)
# Checkpoints that may wait for their scores; then the trainer waits, so that none is skipped.
_LONGEST_QUEUE = 2
# Seconds that an idle worker has to end by itself.
_GRACE_S = 5.0


class EvaluationError(RunError):
    """A checkpoint could not be scored."""


class EvalWorker:
    """Client of the evaluation process: submit checkpoints, take reports in order.

    Among several training processes the main one alone has a worker; for the others every request
    is without effect and without answer.

    Args:
        model: folder or hub id the engine starts with.
        tasks: what each split name means.
        sleeps: whether the engine gives its GPU's memory back while nothing is scored.
    """

    def __init__(
        self, config: Config, model: str, tasks: Mapping[str, EvalTask], *, sleeps: bool = False
    ) -> None:
        devices = config.devices.model_copy(update={"eval": evaluation_device(config)})
        engine = config.engine.model_copy(update={"sleep": "on" if sleeps else "off"})
        self._config = config.model_copy(update={"devices": devices, "engine": engine})
        self._model = model
        self._tasks = dict(tasks)
        self._idle = not is_main_process()
        # On one device the trainer would only slow the engine down, and the other way round.
        self.in_turn = devices.train == devices.eval
        """Whether trainer and engine share a device and so take turns."""
        self._pending: list[EvalRequest] = []
        self._restarted_for: set[int] = set()
        self._next_number = 0
        self._arrived: EvalResult | None = None
        self._ready = False
        self._started_on = model
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> EvalWorker:
        if not self._idle:
            self._start(self._model)
            if self.in_turn and not is_cpu(self._config.devices.eval):
                # The engine measures what the card has free, so the trainer fills it afterwards.
                self._wait_for_engine()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop(_GRACE_S if error is None else 0.0)

    def define(self, task: EvalTask) -> None:
        """Say what a split name means from now on."""
        self._tasks[task.name] = task
        if not self._idle:
            self._process.send(task)

    def submit(self, checkpoint: Checkpoint, *splits: str) -> None:
        """Ask for a checkpoint's scores; the answer comes from `finished`."""
        if self._idle:
            return
        request = EvalRequest(self._next_number, checkpoint, splits)
        self._next_number += 1
        self._pending.append(request)
        self._process.send(request)

    def finished(self) -> Iterator[tuple[Checkpoint, Reports]]:
        """Yield the reports that have arrived, in the order of their requests.

        Where trainer and engine share a device this waits for all of them, and elsewhere while
        more than two checkpoints wait.
        """
        while self._pending and (
            self.in_turn or len(self._pending) > _LONGEST_QUEUE or self._has_answer()
        ):
            yield self._take()

    def drain(self) -> Iterator[tuple[Checkpoint, Reports]]:
        """Wait for and yield every outstanding report."""
        while self._pending:
            yield self._take()

    def discard(self) -> None:
        """Forget what is outstanding; its answers will be dropped as they come."""
        self._pending.clear()

    def evaluate(self, checkpoint: Checkpoint, *splits: str) -> Reports:
        """Score one checkpoint and wait; reports asked for earlier must have been taken."""
        if self._pending:
            raise RuntimeError("take the outstanding reports (drain) before calling evaluate")
        self.submit(checkpoint, *splits)
        return self._take()[1]

    def _take(self) -> tuple[Checkpoint, Reports]:
        while True:
            first = self._pending[0]
            result, self._arrived = self._arrived or self._receive(), None
            if result is None:
                self._restart(f"the evaluation worker {self._process.gone}", self._model)
            elif result.request.number != first.number:
                continue  # the answer to a request that was discarded
            elif result.reports is not None:
                self._pending.pop(0)
                return first.checkpoint, result.reports
            elif result.wants_fresh_engine:
                self._restart(_told(result.trouble), str(first.checkpoint.folder))
            else:
                self._pending.pop(0)
                raise EvaluationError(
                    f"{first.checkpoint.folder} on {', '.join(first.splits)} could not be "
                    f"scored: {_told(result.trouble)}"
                ) from _cause(result.trouble)

    @property
    def _process(self) -> WorkerProcess:
        assert self._worker is not None
        return self._worker

    def _wait_for_engine(self) -> None:
        while not self._ready:
            if self._receive_message() is None:
                raise EngineStartError(
                    f"{self._started_on}: the evaluation worker {self._process.gone} before its "
                    "engine was ready"
                )

    def _receive(self) -> EvalResult | None:
        """Wait for an answer; None when the process is gone."""
        message = self._receive_message()
        while isinstance(message, EngineStarted):
            message = self._receive_message()
        return message

    def _receive_message(self) -> EvalResult | EngineStarted | None:
        """Wait for a message; None when the process is gone.

        Raises:
            EngineStartError: when the engine could not start; a second one would not either.
        """
        message = self._process.receive()
        if isinstance(message, EngineStarted):
            if message.trouble is not None:
                raise EngineStartError(
                    f"the evaluation engine could not start on {self._started_on}: "
                    f"{_told(message.trouble)}"
                ) from _cause(message.trouble)
            self._ready = True
            allowed_s = self._config.engine.no_answer_timeout_s
            self._process.allow(allowed_s, "engine.no_answer_timeout_s")
        return message

    def _restart(self, reason: str, model: str) -> None:
        """Start again on `model` with what is not yet answered; once for each request."""
        first = self._pending[0]
        if first.number in self._restarted_for:
            self._pending.pop(0)
            raise EvaluationError(
                f"{first.checkpoint.folder} on {', '.join(first.splits)} failed twice, the second "
                f"time with a fresh engine: {reason}"
            )
        LOGGER.warning("%s; starting a fresh engine", reason)
        self._restarted_for.add(first.number)
        self._stop()
        self._start(model)
        for request in self._pending:
            self._process.send(request)

    def _has_answer(self) -> bool:
        """Tell whether the first outstanding request is answered; drop answers nobody wants."""
        while self._arrived is None and self._process.has_news():
            message = self._receive_message()
            if message is None:
                return True  # the process is gone, which `_take` mends
            if isinstance(message, EvalResult) and (
                message.request.number == self._pending[0].number
            ):
                self._arrived = message
        return self._arrived is not None

    def _start(self, model: str) -> None:
        self._started_on = model
        with worker_environment(self._config):
            self._worker = WorkerProcess(
                "the evaluation worker",
                serve,
                (self._config, model, self._tasks),
                self._config.engine.start_timeout_s,
                "engine.start_timeout_s",
            )

    def _stop(self, grace_s: float = 0.0) -> None:
        if self._worker is not None:
            self._worker.stop(grace_s)
        self._worker = self._arrived = None
        self._ready = False


def _told(trouble: Trouble | None) -> str:
    return trouble.told if trouble is not None else "no reason was given"


def _cause(trouble: Trouble | None) -> WorkerTraceback | None:
    return WorkerTraceback(trouble.trace) if trouble is not None else None
