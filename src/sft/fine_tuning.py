"""One round of supervised fine-tuning: train, have checkpoints scored, keep the best."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.run.directory import Run
from src.run.metrics import MetricLog, open_metric_log
from src.run.provenance import MANIFEST
from src.sft.examples import build_examples, log_left_out
from src.sft.rejection_sampling import draw_traces, select_traces, trace_task
from src.sft.rows import SftRow, rows_from_problems
from src.stages.scoring import record_validation, validation_task
from src.training.batching import Example
from src.training.checkpoints import Checkpoint, CheckpointStore
from src.training.optimization import EarlyStopping, Schedule
from src.training.parallel import main_process_first
from src.training.policy import free_memory, load_policy, torch_device
from src.training_worker import SftTrainer
from utils.dataset_loader import ProblemSet

LOGGER = logging.getLogger(__name__)
_VALIDATION, _TRAIN_SUBSET = "validation", "train_subset"


def fine_tuning_tasks(
    config: Config,
    problems: ProblemSet,
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, EvalTask]:
    """Return what each checkpoint is scored on: validation, and a fixed subset of train."""
    train = config.train
    validation = validation_task(config, problems, prompt, train.validation_rows)
    rows = rows_from_problems(validation.problems[: train.loss_rows], prompt)
    targets = build_examples(rows, tokenizer, train.max_tokens, "all").examples
    tasks = {_VALIDATION: validation_task(config, problems, prompt, train.validation_rows, targets)}
    subset = problems.train[: train.train_subset_rows]
    if subset:
        tasks[_TRAIN_SUBSET] = EvalTask(
            _TRAIN_SUBSET, subset, prompt, config.sampling, config.run.seed
        )
    return tasks


@dataclass
class FineTuning:
    """Rounds of training from the base model; solutions need one, expert iteration several.

    The store of a round lies in `checkpoints/`, of several in `checkpoints/round_<n>/`.
    """

    run: Run
    model: str
    tokenizer: PreTrainedTokenizerBase
    worker: EvalWorker
    tasks: dict[str, EvalTask]
    training_data: dict[str, Any] = field(default_factory=dict)
    """Counts of what was trained on and left out, of the last round."""

    def on_rows(self, rows: Sequence[SftRow], round_number: int = 1) -> CheckpointStore:
        """Train on rows and return the store of scored checkpoints."""
        config = self.run.config
        several = config.sft.source == "rejection_sampling"
        folder = self.run.folder / "checkpoints"
        store = CheckpointStore(
            folder / f"round_{round_number}" if several else folder,
            config.train.keep,
            self.run.folder / MANIFEST,
        )
        built = build_examples(rows, self.tokenizer, config.train.max_tokens, config.sft.keep)
        self.training_data = log_left_out(built).outcome()
        with open_metric_log(self.run, extra={"round": round_number} if several else {}) as metrics:
            self._train(built.examples, store, metrics)
        free_memory(torch_device(config))  # of this policy, before another round's is loaded
        return store

    def by_expert_iteration(self, problems: ProblemSet, prompt: PromptTemplate) -> CheckpointStore:
        """Draw completions from the policy so far, train on the correct ones, and again."""
        config, drawn = self.run.config, []
        policy = Checkpoint(Path(self.model), 0, 0)
        for number in range(1, config.sft.rounds + 1):
            task = trace_task(config, problems, prompt, self.run.folder, number)
            with main_process_first(config.train.rank_timeout_s):
                drawn.append(draw_traces(self.worker, policy, task))
            traces = select_traces(drawn, prompt, config.sft.max_per_problem)
            store = self.on_rows(traces.rows, number)
            self.training_data |= {"traces": traces.counts.outcome()}
            policy = store.chosen_or(policy)
        return store

    def _train(
        self, examples: Sequence[Example], store: CheckpointStore, metrics: MetricLog
    ) -> None:
        config, worker, splits = self.run.config, self.worker, tuple(self.tasks)
        for checkpoint in store.unscored():
            worker.submit(checkpoint, *splits)
        if worker.in_turn:  # the engine leaves the GPU before the policy is loaded there
            self._record_all(store, metrics)
        stopping = EarlyStopping(config.train.patience, config.train.min_delta)
        trainer = self._trainer(store, metrics)
        stopped = trainer.agree(stopping.should_stop(*(score.accuracy for score in store.scores())))
        schedule = Schedule.by_steps(config.train, len(examples))
        steps = trainer.train(examples, schedule, resume=self.run.resume)
        with closing(steps):  # type: ignore[type-var]
            for written in () if stopped else steps:
                if written is not None:
                    worker.submit(written, *splits)
                if trainer.agree(stopping.should_stop(*self._recorded(store, metrics))):
                    LOGGER.info("no better for %d checkpoints: stopping", config.train.patience)
                    break
        self._record_all(store, metrics)

    def _record_all(self, store: CheckpointStore, metrics: MetricLog) -> None:
        for scored, reports in self.worker.drain():
            record_validation(store, metrics, scored, reports)

    def _recorded(self, store: CheckpointStore, metrics: MetricLog) -> Iterator[float]:
        for scored, reports in self.worker.finished():
            yield record_validation(store, metrics, scored, reports)

    def _trainer(self, store: CheckpointStore, metrics: MetricLog) -> SftTrainer:
        config = self.run.config
        return SftTrainer(
            load_policy(self.model, config, config.train.attention, config.train),
            self.tokenizer,
            config.train,
            store,
            metrics,
            config.run.seed,
            overlap=not self.worker.in_turn,
            held_out=self.tasks[_VALIDATION].targets,
            device=torch_device(config),
        )
