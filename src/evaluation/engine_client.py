"""One evaluation engine as its client sees it: asked, watched, and started again where it dies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from src.config.schema import Config
from src.evaluation.engine_process import (
    EngineStartError,
    WorkerTraceback,
    start_engine,
    take_start,
)
from src.evaluation.evaluation import EvalTask, Share, count_up
from src.evaluation.figures import Reports, engine_work_s
from src.evaluation.worker_loop import (
    EngineStarted,
    EvalRequest,
    EvalResult,
    Trouble,
    serve,
)
from src.evaluation.worker_process import WorkerProcess
from src.run.stopping import RunError
from src.training.checkpoints import Checkpoint

LOGGER = logging.getLogger(__name__)


class EvaluationError(RunError):
    """A checkpoint could not be scored."""


class EngineClient:
    """One engine in a process of its own, which scores its share of each request.

    Args:
        name: said in messages.
        config: with `devices.eval` and `engine.memory_fraction` as this engine has them.
        share: of the problems.
        bell: set whenever there is news.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        share: Share,
        tasks: Mapping[str, EvalTask],
        bell: threading.Event,
    ) -> None:
        self._name, self._config, self._share, self._bell = name, config, share, bell
        self._tasks = dict(tasks)
        self._pending: list[EvalRequest] = []
        self._answers: dict[int, EvalResult | EvaluationError] = {}
        self._restarted_for: set[int] = set()
        self._ready = False
        self._worker: WorkerProcess | None = None

    @property
    def process(self) -> WorkerProcess:
        """The process as it is now; another one after a restart."""
        assert self._worker is not None
        return self._worker

    def start(self, model: str) -> None:
        """Start the process with an engine on a model."""
        self._started_on = model
        arguments = (self._config, model, self._tasks)
        self._worker = start_engine(self._name, serve, arguments, self._config, self._bell)

    def define(self, task: EvalTask) -> None:
        """Say what a split name means from now on."""
        self._tasks[task.name] = task
        self.process.send(task)

    def ask(self, request: EvalRequest) -> None:
        """Ask for this engine's share of a request."""
        own = replace(request, share=self._share)
        self._pending.append(own)
        self.process.send(own)

    def forget(self, number: int) -> None:
        """Forget a request; its answer will be dropped when it comes."""
        self._pending = [request for request in self._pending if request.number != number]
        self._answers.pop(number, None)

    def has_answer(self, number: int) -> bool:
        """Tell whether a request is answered; take what has come, and mend what has broken.

        Raises:
            EngineStartError: when the engine could not start; a second one would not either.
        """
        while number not in self._answers and self.process.has_news():
            message = self.process.receive()
            if message is None:
                self._mend(f"{self._name} {self.process.gone}", self._started_on)
            elif isinstance(message, EngineStarted):
                self._begin(message)
            else:
                self._sort_in(message)
        return number in self._answers

    def take(self, number: int) -> EvalResult:
        """Return an answer that has come.

        Raises:
            EvaluationError: the checkpoint could not be scored.
        """
        answer = self._answers.pop(number)
        if isinstance(answer, EvaluationError):
            raise answer
        if answer.shares is None:
            raise EvaluationError(
                f"{_said(answer.request)} could not be scored: {_told(answer.trouble)}"
            ) from _cause(answer.trouble)
        return answer

    def is_ready(self) -> bool:
        """Tell whether the engine is there.

        Raises:
            EngineStartError: when it could not start, or its process is gone.
        """
        while not self._ready and self.process.has_news():
            message = self.process.receive()
            if message is None:
                raise EngineStartError(
                    f"{self._started_on}: {self._name} {self.process.gone} before its engine was "
                    "ready"
                )
            self._begin(message)
        return self._ready

    def stop(self, grace_s: float = 0.0) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.stop(grace_s)
        self._worker, self._ready = None, False

    def _begin(self, message: EngineStarted) -> None:
        take_start(message, self.process, self._name, self._started_on, self._config)
        self._ready = True

    def _sort_in(self, answer: EvalResult) -> None:
        first = self._pending[0] if self._pending else None
        if first is None or answer.request.number != first.number:
            return  # the answer to a request that was discarded
        if answer.wants_fresh_engine:
            self._mend(_told(answer.trouble), str(first.checkpoint.folder))
        else:
            self._answers[first.number] = answer
            self._pending.pop(0)

    def _mend(self, reason: str, model: str) -> None:
        """Start again on `model` with what is not yet answered; once for each request."""
        first = self._pending[0]
        if first.number in self._restarted_for:
            self._pending.pop(0)
            self._answers[first.number] = EvaluationError(
                f"{_said(first)} failed twice, the second time with a fresh engine: {reason}"
            )
            return
        LOGGER.warning("%s; starting a fresh engine", reason)
        self._restarted_for.add(first.number)
        self.stop()
        self.start(model)
        for request in self._pending:
            self.process.send(request)


def reports_of(
    checkpoint: Checkpoint, tasks: Mapping[str, EvalTask], results: Sequence[EvalResult]
) -> Reports:
    """Put the engines' shares together: split name -> report.

    Args:
        tasks: what the splits meant when they were asked for.
        results: of all engines, in the order of their shares.
    """
    gaps = [result.probe_gap for result in results if result.probe_gap is not None]
    reports = {}
    for split, task in tasks.items():
        parts = [result.shares[split] for result in results if result.shares is not None]
        report = count_up(task, parts, checkpoint=str(checkpoint.folder))
        reports[split] = replace(
            report,
            step=checkpoint.step,
            probe_gap=max(gaps, default=None),
            engine_seconds=[engine_work_s(part.seconds) for part in parts if len(parts) > 1],
        )
    return reports


def _said(request: EvalRequest) -> str:
    return f"{request.checkpoint.folder} on {', '.join(request.splits)}"


def _told(trouble: Trouble | None) -> str:
    return trouble.told if trouble is not None else "no reason was given"


def _cause(trouble: Trouble | None) -> WorkerTraceback | None:
    return WorkerTraceback(trouble.trace) if trouble is not None else None
