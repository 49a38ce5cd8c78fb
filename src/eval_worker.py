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
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from src.checkpoints import Checkpoint
from src.config_schema import Config
from src.devices import prepare_worker_process, worker_environment
from src.evaluation import EvalReport, EvalTask, evaluate
from src.generator import Generator
from src.weight_probe import Probe, read_probe
from utils.drgrpo_grader import set_children

LOGGER = logging.getLogger(__name__)


class EvaluationError(RuntimeError):
    """A checkpoint could not be scored; the message carries the worker's own traceback."""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One checkpoint to score on one split."""

    number: int
    checkpoint: Checkpoint
    split: str
    completions_file: Path | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The answer to a request: a report, or why there is none.

    `wants_fresh_engine` asks the client to start the worker again on this checkpoint.
    """

    request: EvalRequest
    report: EvalReport | None = None
    error: str | None = None
    wants_fresh_engine: bool = False


class StaleWeightsError(RuntimeError):
    """After a swap the engine's log-probabilities are not the checkpoint's."""


@dataclass
class SwapVerifier:
    """Keep an engine's weights at what is asked for, and prove it.

    A measured gap above `tolerance` is stale; so is one that lies much closer to the weights held
    before than to the new ones, which catches a swap that did nothing after a small update.
    """

    engine: Generator
    tolerance: float
    loaded: str
    probe: Probe | None = field(default=None)

    def load(self, folder: Path) -> float | None:
        """Swap to a checkpoint and return the verified gap; None where no swap was needed.

        Raises:
            StaleWeightsError: with the figures.
        """
        probe = read_probe(folder)
        if str(folder) == self.loaded:
            if probe is None or self.probe is not None:
                return None
        elif probe is None:
            raise StaleWeightsError(f"{folder}: no probe is stored, so a swap cannot be verified")
        else:
            self.engine.swap(folder)
        measured = self.engine.prompt_logprobs(probe.ids)
        gap = probe.gap(measured)
        to_previous = self.probe.gap(measured) if self.probe is not None else float("inf")
        if gap > self.tolerance or to_previous < gap / 2:
            raise StaleWeightsError(
                f"{folder}: after the swap log-probabilities are off by {gap:.4f} nats a token "
                f"(tolerance {self.tolerance}; to the weights before: {to_previous:.4f})"
            )
        self.loaded, self.probe = str(folder), probe
        return gap


class EvalWorker:
    """Client of the evaluation process: submit checkpoints, take reports in order.

    Args:
        model: folder or hub id the engine starts with.
        tasks: what each split name means.
    """

    def __init__(self, config: Config, model: str, tasks: Mapping[str, EvalTask]) -> None:
        self._config = config
        self._model = model
        self._tasks = dict(tasks)
        # On one device the trainer would only slow the engine down, and the other way round.
        self._in_turn = config.devices.train == config.devices.eval
        self._pending: list[EvalRequest] = []
        self._restarted_for: set[int] = set()
        self._next_number = 0
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> EvalWorker:
        self._start(self._model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def submit(
        self, checkpoint: Checkpoint, split: str, completions_file: Path | None = None
    ) -> None:
        """Ask for a score; the answer comes from `finished`."""
        request = EvalRequest(self._next_number, checkpoint, split, completions_file)
        self._next_number += 1
        self._pending.append(request)
        self._send(request)

    def finished(self) -> Iterator[tuple[Checkpoint, EvalReport]]:
        """Yield the reports that have arrived, in the order of their requests.

        Where trainer and engine share a device this waits for all of them.
        """
        while self._pending and (self._in_turn or self._has_answer()):
            yield self._take()

    def drain(self) -> Iterator[tuple[Checkpoint, EvalReport]]:
        """Wait for and yield every outstanding report."""
        while self._pending:
            yield self._take()

    def evaluate(
        self, checkpoint: Checkpoint, split: str, completions_file: Path | None = None
    ) -> EvalReport:
        """Score one checkpoint and wait; reports asked for earlier must have been taken."""
        if self._pending:
            raise RuntimeError("take the outstanding reports (drain) before calling evaluate")
        self.submit(checkpoint, split, completions_file)
        return self._take()[1]

    def _take(self) -> tuple[Checkpoint, EvalReport]:
        while True:
            result = self._receive()
            if result is None:
                self._restart("the evaluation worker died", self._model)
            elif result.report is not None:
                self._pending.pop(0)
                return result.request.checkpoint, result.report
            elif result.wants_fresh_engine:
                LOGGER.warning("%s; starting a fresh engine", result.error)
                self._restart(str(result.error), str(result.request.checkpoint.folder))
            else:
                raise EvaluationError(
                    f"{result.request.checkpoint.folder} on {result.request.split} could not be "
                    f"scored:\n{result.error}"
                )

    def _receive(self) -> EvalResult | None:
        """Wait for an answer; None when the process is gone."""
        assert self._connection is not None
        assert self._process is not None
        try:
            while not self._connection.poll(1.0):
                if not self._process.is_alive():
                    return None
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def _restart(self, reason: str, model: str) -> None:
        """Start again on `model` with what is not yet answered; once for each request."""
        first = self._pending[0]
        if first.number in self._restarted_for:
            raise EvaluationError(
                f"{first.checkpoint.folder} on {first.split} failed twice, the second time with a "
                f"fresh engine: {reason}"
            )
        self._restarted_for.add(first.number)
        self._stop()
        self._start(model)
        for request in self._pending:
            self._send(request)

    def _has_answer(self) -> bool:
        assert self._connection is not None
        assert self._process is not None
        return self._connection.poll() or not self._process.is_alive()

    def _send(self, request: EvalRequest) -> None:
        assert self._connection is not None
        try:
            self._connection.send(request)
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
        self._connection = self._process = None


def _serve(
    config: Config, model: str, tasks: Mapping[str, EvalTask], connection: Connection
) -> None:
    """Answer requests until the client closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker_process()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        # Imported here: the client's process never needs vLLM.
        from src.vllm_engine import VllmEngine  # noqa: PLC0415

        started = time.perf_counter()
        set_children(config.grader.children)
        verifier = SwapVerifier(VllmEngine(model, config), config.engine.swap_tolerance, model)
        LOGGER.info("evaluation engine ready in %.1f s", time.perf_counter() - started)
        while True:
            request = connection.recv()
            connection.send(_answer(request, tasks, verifier))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(
    request: EvalRequest, tasks: Mapping[str, EvalTask], verifier: SwapVerifier
) -> EvalResult:
    """Score one checkpoint; whatever goes wrong travels to the client."""
    try:
        started = time.perf_counter()
        gap = verifier.load(request.checkpoint.folder)
        swapped = time.perf_counter() - started
        report = evaluate(
            verifier.engine,
            tasks[request.split],
            checkpoint=str(request.checkpoint.folder),
            completions_file=request.completions_file,
        )
        seconds = {"swap": swapped, **report.seconds}
        return EvalResult(request, replace(report, probe_gap=gap, seconds=seconds))
    except StaleWeightsError as error:
        return EvalResult(request, error=str(error), wants_fresh_engine=True)
    except Exception:  # noqa: BLE001 - the worker's boundary: every failure becomes a message
        return EvalResult(request, error=traceback.format_exc())
