"""A persistent vLLM process that scores checkpoints, and its client.

The engine lives as long as the run; checkpoints reach it by path and are swapped in place. Every
swap is verified against the log-probabilities the trainer stored with the checkpoint.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from src.config.schema import Config
from src.engine.swap_verifier import StaleWeightsError, SwapVerifier
from src.evaluation.evaluation import EvalTask, evaluate
from src.evaluation.figures import EvalReport
from src.run.devices import is_cpu
from src.run.processes import (
    evaluation_device,
    is_main_process,
    prepare_worker_process,
    worker_environment,
)
from src.training.checkpoints import Checkpoint, verify_checkpoint
from utils.drgrpo_grader import set_children

LOGGER = logging.getLogger(__name__)


class EvaluationError(RuntimeError):
    """A checkpoint could not be scored; the message carries the worker's own traceback."""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One checkpoint to score on some splits."""

    number: int
    checkpoint: Checkpoint
    splits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """The worker's first message: its engine is ready, or why it could not start."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The answer to a request: a report for each split, or why there is none.

    `wants_fresh_engine` asks the client to start the worker again on this checkpoint.
    """

    request: EvalRequest
    reports: dict[str, EvalReport] | None = None
    error: str | None = None
    wants_fresh_engine: bool = False


Reports = dict[str, EvalReport]
"""Split name -> report."""
# Checkpoints that may wait for their scores; then the trainer waits, so that none is skipped.
_LONGEST_QUEUE = 2


class EvalWorker:
    """Client of the evaluation process: submit checkpoints, take reports in order.

    Among several training processes the main one alone has a worker; for the others every request
    is without effect and without answer.

    Args:
        model: folder or hub id the engine starts with.
        tasks: what each split name means.
    """

    def __init__(self, config: Config, model: str, tasks: Mapping[str, EvalTask]) -> None:
        devices = config.devices.model_copy(update={"eval": evaluation_device(config)})
        self._config = config.model_copy(update={"devices": devices})
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
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

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
        self._stop()

    def define(self, task: EvalTask) -> None:
        """Say what a split name means from now on."""
        self._tasks[task.name] = task
        if not self._idle:
            self._send(task)

    def submit(self, checkpoint: Checkpoint, *splits: str) -> None:
        """Ask for a checkpoint's scores; the answer comes from `finished`."""
        if self._idle:
            return
        request = EvalRequest(self._next_number, checkpoint, splits)
        self._next_number += 1
        self._pending.append(request)
        self._send(request)

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
                self._restart("the evaluation worker died", self._model)
            elif result.request.number != first.number:
                continue  # the answer to a request that was discarded
            elif result.reports is not None:
                self._pending.pop(0)
                return first.checkpoint, result.reports
            elif result.wants_fresh_engine:
                LOGGER.warning("%s; starting a fresh engine", result.error)
                self._restart(str(result.error), str(first.checkpoint.folder))
            else:
                self._pending.pop(0)
                raise EvaluationError(
                    f"{first.checkpoint.folder} on {', '.join(first.splits)} could not be "
                    f"scored:\n{result.error}"
                )

    def _wait_for_engine(self) -> None:
        while not self._ready:
            if self._receive_message() is None:
                raise EvaluationError("the evaluation worker died before its engine was ready")

    def _receive(self) -> EvalResult | None:
        """Wait for an answer; None when the process is gone."""
        message = self._receive_message()
        while isinstance(message, EngineStarted):
            message = self._receive_message()
        return message

    def _receive_message(self) -> EvalResult | EngineStarted | None:
        """Wait for a message; None when the process is gone.

        Raises:
            EvaluationError: when the engine could not start; a second one would not either.
        """
        assert self._connection is not None
        assert self._process is not None
        try:
            while not self._connection.poll(1.0):
                if not self._process.is_alive():
                    return None
            message = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(message, EngineStarted):
            if message.error is not None:
                raise EvaluationError(
                    f"the evaluation engine could not start on {self._model}:\n{message.error}"
                )
            self._ready = True
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
        self._restarted_for.add(first.number)
        self._stop()
        self._start(model)
        for request in self._pending:
            self._send(request)

    def _has_answer(self) -> bool:
        """Tell whether the first outstanding request is answered; drop answers nobody wants."""
        assert self._connection is not None
        assert self._process is not None
        while self._arrived is None and self._connection.poll():
            message = self._receive_message()
            if message is None:
                break  # the process is gone
            if isinstance(message, EvalResult) and (
                message.request.number == self._pending[0].number
            ):
                self._arrived = message
        return self._arrived is not None or not self._process.is_alive()

    def _send(self, message: EvalRequest | EvalTask) -> None:
        assert self._connection is not None
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            # The process is gone; the next _take notices, restarts it and sends again.
            LOGGER.warning("the evaluation worker does not listen")

    def _start(self, model: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(self._config, model, self._tasks, theirs),
            name="eval-worker",
            daemon=True,
        )
        with worker_environment(self._config):
            self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(timeout=5)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._connection = self._process = self._arrived = None
        self._ready = False


def _serve(
    config: Config, model: str, tasks: Mapping[str, EvalTask], connection: Connection
) -> None:
    """Answer requests until the client closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker_process()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        started, known = time.perf_counter(), dict(tasks)
        set_children(config.grader.children)
        try:
            # Imported here: the client's process never needs vLLM.
            from src.engine.vllm_engine import VllmEngine  # noqa: PLC0415

            engine = VllmEngine(model, config)
        except Exception:  # noqa: BLE001 - the worker's boundary
            connection.send(EngineStarted(traceback.format_exc()))
            return
        connection.send(EngineStarted())
        LOGGER.info("evaluation engine ready in %.1f s", time.perf_counter() - started)
        verifier = SwapVerifier(engine, config.engine.swap_tolerance, model)
        while True:
            message = connection.recv()
            if isinstance(message, EvalTask):
                known[message.name] = message
            else:
                connection.send(_answer(message, known, verifier))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(
    request: EvalRequest, tasks: Mapping[str, EvalTask], verifier: SwapVerifier
) -> EvalResult:
    """Score one checkpoint; whatever goes wrong travels to the client."""
    folder = request.checkpoint.folder
    try:
        started = time.perf_counter()
        verify_checkpoint(folder)
        gap = verifier.load(folder)
        seconds = {"swap": time.perf_counter() - started}
        reports = {}
        for split in request.splits:
            report = evaluate(verifier.engine, tasks[split], checkpoint=str(folder))
            reports[split] = replace(
                report,
                step=request.checkpoint.step,
                probe_gap=gap,
                seconds=seconds | report.seconds,
            )
            seconds = {"swap": 0.0}  # one swap serves all splits
        return EvalResult(request, reports)
    except StaleWeightsError as error:
        return EvalResult(request, error=str(error), wants_fresh_engine=True)
    except Exception:  # noqa: BLE001 - the worker's boundary: every failure becomes a message
        return EvalResult(request, error=traceback.format_exc())
