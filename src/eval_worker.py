"""Persistent vLLM engines that score checkpoints: their client.

The engines live as long as the run; checkpoints reach them by path and are swapped in place. Every
swap is verified, in each engine, against the log-probabilities the trainer stored with the
checkpoint. Several engines share the problems of a request out, and their report is that of one.
What an engine's process does is in `src/evaluation/worker_loop.py`, how one is asked and started
again in `src/evaluation/engine_client.py`, how it is watched in `src/evaluation/worker_process.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from src.config.schema import Config
from src.evaluation.engine_client import EngineClient, reports_of
from src.evaluation.evaluation import EvalTask, Share
from src.evaluation.figures import Reports
from src.evaluation.worker_loop import EvalRequest
from src.run.devices import engine_config, is_cpu
from src.run.processes import evaluation_engines, is_main_process, takes_turns, training_gpus
from src.training.checkpoints import Checkpoint

# Checkpoints that may wait for their scores; then the trainer waits, so that none is skipped.
_LONGEST_QUEUE = 2
# Seconds that an idle engine has to end by itself.
_GRACE_S = 5.0
# While waiting, how often each engine is looked at for signs of life.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and what its splits meant when it was made."""

    request: EvalRequest
    tasks: dict[str, EvalTask]


class EvalWorker:
    """Client of the evaluation engines: submit checkpoints, take reports in order.

    Among several training processes the main one alone has engines; for the others every request
    is without effect and without answer.

    Args:
        model: folder or hub id the engines start with.
        tasks: what each split name means.
        trains: this stage trains; otherwise the engines may have the trainer's GPU too.
        sleeps: whether an engine gives its GPU's memory back while nothing is scored.
    """

    def __init__(
        self,
        config: Config,
        model: str,
        tasks: Mapping[str, EvalTask],
        *,
        trains: bool = True,
        sleeps: bool = False,
    ) -> None:
        engine = config.engine.model_copy(update={"sleep": "on" if sleeps else "off"})
        config = config.model_copy(update={"engine": engine})
        self._model = model
        self._tasks = dict(tasks)
        # On one device the trainer would only slow the engine down, and the other way round.
        self.in_turn = trains and takes_turns(config)
        """Whether trainer and engine share a device and so take turns."""
        self._bell = threading.Event()
        self._engines = self._clients(config, trains) if is_main_process() else []
        self._pending: list[_Asked] = []
        self._next_number = 0

    def _clients(self, config: Config, trains: bool) -> list[EngineClient]:
        groups = evaluation_engines(config, trains=trains)
        names = ["the evaluation worker"]
        if len(groups) > 1:
            names = [f"the evaluation worker on {', '.join(devices)}" for devices in groups]
        self._on_gpus = not is_cpu(groups[0][0])
        training = training_gpus(config) if trains else range(0)
        return [
            EngineClient(
                name,
                engine_config(config, devices, training),
                Share(index, len(groups)),
                self._tasks,
                self._bell,
            )
            for index, (name, devices) in enumerate(zip(names, groups, strict=True))
        ]

    def __enter__(self) -> EvalWorker:
        for engine in self._engines:
            engine.start(self._model)
        if self._engines and self.in_turn and self._on_gpus:
            # The engine measures what the card has free, so the trainer fills it afterwards.
            self._wait_for(lambda: all(engine.is_ready() for engine in self._engines))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for engine in self._engines:
            engine.stop(_GRACE_S if error is None else 0.0)

    def define(self, task: EvalTask) -> None:
        """Say what a split name means from now on."""
        self._tasks[task.name] = task
        for engine in self._engines:
            engine.define(task)

    def submit(self, checkpoint: Checkpoint, *splits: str) -> None:
        """Ask for a checkpoint's scores; the answer comes from `finished`."""
        if not self._engines:
            return
        request = EvalRequest(self._next_number, checkpoint, splits)
        self._next_number += 1
        tasks = {split: self._tasks[split] for split in splits if split in self._tasks}
        self._pending.append(_Asked(request, tasks))
        for engine in self._engines:
            engine.ask(request)

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
        while self._pending:
            self._forget_first()

    def evaluate(self, checkpoint: Checkpoint, *splits: str) -> Reports:
        """Score one checkpoint and wait; reports asked for earlier must have been taken."""
        if self._pending:
            raise RuntimeError("take the outstanding reports (drain) before calling evaluate")
        self.submit(checkpoint, *splits)
        return self._take()[1]

    def _take(self) -> tuple[Checkpoint, Reports]:
        self._wait_for(self._has_answer)
        first = self._pending[0]
        try:
            results = [engine.take(first.request.number) for engine in self._engines]
        finally:
            self._forget_first()
        checkpoint = first.request.checkpoint
        return checkpoint, reports_of(checkpoint, first.tasks, results)

    def _has_answer(self) -> bool:
        """Tell whether every engine has answered the first outstanding request."""
        number = self._pending[0].request.number
        # Each is looked at: one that has died starts again while the others go on.
        answered = [engine.has_answer(number) for engine in self._engines]
        return all(answered)

    def _wait_for(self, holds: Callable[[], bool]) -> None:
        self._bell.clear()
        while not holds():
            self._bell.wait(_LOOK_EVERY_S)
            self._bell.clear()

    def _forget_first(self) -> None:
        asked = self._pending.pop(0)
        for engine in self._engines:
            engine.forget(asked.request.number)
