"""Train and score the trials of a hyperparameter search with step 2's own trainer.

The policy is loaded once; its initial weights wait in memory and are restored before each trial,
or an adapter is taken off it and a fresh one put on.
A trial trains on while a checkpoint of it is scored, and ends as soon as a score says so. Scores
are compared after the same number of examples, whatever the batch size.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.loading import with_values
from src.config.schema import Config
from src.config.training import FloatRange, SearchConfig
from src.eval_worker import EvalWorker
from src.evaluation.engine_client import EvaluationError
from src.run.directory import Run
from src.run.metrics import MetricLog, open_metric_log
from src.search.data import RUNG
from src.search.life import trial_folder
from src.search.pruning import ByExamples, TrialRecord, best_trials
from src.search.study import StudyQueue, Trial, TrialPruned
from src.training.adapters import remove_adapter
from src.training.batching import Example
from src.training.checkpoints import CheckpointStore
from src.training.optimization import Schedule
from src.training.policy import free_memory
from src.training_worker import SftTrainer

TRIAL_FAILURES = (FloatingPointError, torch.OutOfMemoryError, MemoryError, EvaluationError)


@dataclass
class TrialRunner:
    """Train and score one trial at a time on a policy that is loaded once."""

    run: Run
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    worker: EvalWorker

    def __post_init__(self) -> None:
        # Weights under an adapter never change.
        trains_all = self.run.config.train.adapter == "none"
        self._initial = _copied_to_host(self.policy) if trains_all else None

    def __call__(self, trial: Trial) -> float:
        """Return the trial's objective: its best score over the rungs.

        Raises:
            TrialPruned: when ASHA stops it.
        """
        values = propose(trial, self.run.config.search)
        config = with_values(self.run.config, values)
        folder = trial_folder(self.run.folder, trial.number)
        with open_metric_log(
            self.run,
            name=f"trial-{trial.number:03d}",
            step_name="examples",
            settings=values,
            extra={"trial": trial.number},
            folder=folder,
        ) as metrics:
            self.restore()
            memory = _memory(self.policy.device)
            metrics.log(memory, step=0)
            trial.set_user_attr("memory_gib", memory["search/memory_gib"])
            trainer = self._trainer(config, folder, metrics)
            record = TrialRecord(trial, trainer, config, metrics)
            try:
                self._train(record, trainer, config)
            except TrialPruned:
                record.close("pruned")
                raise
            except TRIAL_FAILURES:
                record.close("failed")
                raise
            finally:
                self.worker.discard()
            return record.close("complete")

    def _trainer(self, config: Config, folder: Path, metrics: MetricLog) -> SftTrainer:
        return SftTrainer(
            self.policy,
            self.tokenizer,
            config.train,
            CheckpointStore(folder, keep=1),
            ByExamples(metrics, config.train.batch_size),
            config.run.seed,
            overlap=config.search.overlap and not self.worker.in_turn,
            resumable=False,
        )

    def _train(self, record: TrialRecord, trainer: SftTrainer, config: Config) -> None:
        schedule = Schedule.by_examples(config.train, config.search.rung_examples)
        # Closed before a pruned trial's folder is cleared: a checkpoint may still be in writing.
        steps = trainer.train(self.examples, schedule)
        with closing(steps):  # type: ignore[type-var]
            for checkpoint in steps:
                if checkpoint is not None:
                    self.worker.submit(checkpoint, RUNG)
                mail = self.worker.finished() if config.search.overlap else self.worker.drain()
                if any(record.take(scored, reports[RUNG]) for scored, reports in mail):
                    break
        for scored, reports in self.worker.drain():
            record.take(scored, reports[RUNG])

    def restore(self) -> None:
        """Put the initial weights back and let go of what the trial before left in memory."""
        self.policy.zero_grad(set_to_none=True)
        if self._initial is None:
            remove_adapter(self.policy)
        else:
            self.policy.load_state_dict(self._initial)
        free_memory(self.policy.device)


def propose(trial: Trial, search: SearchConfig) -> dict[str, Any]:
    """Draw one value for each dotted path of the search space."""
    values: dict[str, Any] = {}
    for path, space in search.space.items():
        if isinstance(space, FloatRange):
            values[path] = trial.suggest_float(path, space.low, space.high, log=space.log)
        else:
            values[path] = trial.suggest_categorical(path, space.choices)
    return values


def keep_best(queue: StudyQueue, count: int) -> None:
    """Delete the checkpoints of all finished trials but the best `count`."""
    kept = {trial.number for trial in best_trials(queue, count)}
    for trial in queue.trials("COMPLETE", "PRUNED", "FAIL"):
        if trial.number not in kept:
            for folder in trial_folder(queue.folder, trial.number).glob("*step_*"):
                # Another process may be deleting it too.
                shutil.rmtree(folder, ignore_errors=True)


def _copied_to_host(policy: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copy the weights, tied ones once."""
    copies: dict[int, torch.Tensor] = {}
    state = policy.state_dict()
    for tensor in state.values():
        if tensor.data_ptr() not in copies:
            copies[tensor.data_ptr()] = tensor.detach().to("cpu", copy=True)
    return {name: copies[tensor.data_ptr()] for name, tensor in state.items()}


def _memory(device: torch.device) -> dict[str, float]:
    """Return what this process holds now, which a leak makes grow from trial to trial."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    values = {"search/memory_gib": pages * resource.getpagesize() / 2**30}
    if device.type == "cuda":
        values["search/device_memory_gib"] = torch.cuda.memory_allocated(device) / 2**30
    return values
