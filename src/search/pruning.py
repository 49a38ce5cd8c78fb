"""One trial as its scores arrive: order, pruning, its best checkpoint, where its time goes."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from src.config.schema import Config
from src.evaluation.figures import EvalReport
from src.run.metrics import MetricLog
from src.search.life import trial_folder
from src.search.study import FrozenTrial, StudyQueue, Trial, TrialPruned
from src.training.checkpoints import Checkpoint
from src.training.optimization import EarlyStopping
from src.training_worker import SftTrainer

LOGGER = logging.getLogger(__name__)
Merit = tuple[float, float, float]


def merit(report: EvalReport, objective: str) -> Merit:
    """Return what trials are ordered by, greater being better: the objective, then the tie-breaks.

    Equal accuracies are told apart by format rate, then by validation loss.

    Raises:
        FloatingPointError: when the loss is not finite.
    """
    negative_nll = 0.0 if report.nll is None else -report.nll
    if not math.isfinite(negative_nll):
        raise FloatingPointError(f"validation loss {report.nll}; lower train.learning_rate")
    if objective == "eval_loss":
        return negative_nll, report.accuracy, report.format_rate
    return report.accuracy, report.format_rate, negative_nll


class ByExamples(MetricLog):
    """Put the trainer's metrics on the trial's axis: examples seen instead of optimizer steps."""

    def __init__(self, metrics: MetricLog, batch_size: int) -> None:
        super().__init__([])
        self._metrics, self._batch_size = metrics, batch_size

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values at the examples seen after a step."""
        self._metrics.log(values, step * self._batch_size)


@dataclass
class TrialRecord:
    """Take a trial's reports in the order of its checkpoints; keep the best checkpoint on disk."""

    trial: Trial
    trainer: SftTrainer
    config: Config
    metrics: MetricLog

    def __post_init__(self) -> None:
        self._stopping = EarlyStopping(self.config.train.patience, self.config.train.min_delta)
        self._merit: Merit = (-math.inf, -math.inf, -math.inf)
        self._best: tuple[Checkpoint, EvalReport] | None = None
        self._engines_s = [0.0]
        self._started = time.perf_counter()

    def take(self, checkpoint: Checkpoint, report: EvalReport) -> bool:
        """Tell the study a score; return whether training should stop for lack of progress.

        Raises:
            TrialPruned: when other trials were better after as many examples.
        """
        search, seen = self.config.search, checkpoint.examples_seen
        each = zip_longest(self._engines_s, report.engines_s, fillvalue=0.0)
        self._engines_s = [before + more for before, more in each]
        order = merit(report, search.objective)
        self.metrics.log(report.metrics("validation") | {"trial/value": abs(order[0])}, step=seen)
        LOGGER.info(
            "trial %d: %s %.4f after %d examples",
            self.trial.number, search.objective.replace("_", " "), abs(order[0]), seen,
        )  # fmt: skip
        self._keep_better(checkpoint, report, order)
        self.trial.report(order[0], step=seen)
        # After the last rung there is nothing left to save.
        if seen < search.rung_examples[-1] and self.trial.should_prune():
            LOGGER.info("trial %d: pruned, others were better by then", self.trial.number)
            raise TrialPruned
        return self._stopping.should_stop(order[0])

    def close(self, state: str) -> float:
        """Store with the trial what the study's end needs; return the best score."""
        values: dict[str, object] = {
            "train_s": self.trainer.busy_s,
            "eval_s": sum(self._engines_s) / len(self._engines_s),
            "engines_s": self._engines_s,
            "wall_s": time.perf_counter() - self._started,
        }
        if state == "complete" and self._best is not None:
            checkpoint, report = self._best
            values |= {
                "merit": list(self._merit),
                "checkpoint": checkpoint.folder.name,
                "step": checkpoint.step,
                "examples_seen": checkpoint.examples_seen,
                "accuracy": report.accuracy,
                "format_rate": report.format_rate,
                "nll": report.nll,
            }
        for name, value in values.items():
            self.trial.set_user_attr(name, value)
        self.metrics.summarise(state=state, **values)
        return self._merit[0]

    def _keep_better(self, checkpoint: Checkpoint, report: EvalReport, order: Merit) -> None:
        loser: Path | None = checkpoint.folder
        if order > self._merit:
            loser = self._best[0].folder if self._best else None
            self._merit, self._best = order, (checkpoint, report)
        if loser is not None:
            shutil.rmtree(loser)


def best_trials(queue: StudyQueue, count: int) -> list[FrozenTrial]:
    """Return the best completed trials, best first; the earlier one among equals."""
    complete = queue.trials("COMPLETE")
    complete.sort(key=lambda trial: (trial.user_attrs["merit"], -trial.number), reverse=True)
    return complete[:count]


def best_checkpoint(queue: StudyQueue, trial: FrozenTrial) -> Checkpoint:
    """Return the checkpoint that made a trial's score."""
    stored = trial.user_attrs
    folder = trial_folder(queue.folder, trial.number) / stored["checkpoint"]
    return Checkpoint(folder, stored["step"], stored["examples_seen"])
