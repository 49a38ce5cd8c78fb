"""Hyperparameter search with Optuna over step 2's own trainer: TPE proposes, ASHA prunes.

The only module that imports optuna. Every rung compares trials after the same number of examples,
whatever their batch size.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from matplotlib.figure import Figure
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.artifacts import write_text_atomic
from src.batching import Example
from src.checkpoints import CheckpointStore
from src.config_loading import nested_yaml, with_values
from src.config_schema import Config, FloatRange
from src.eval_worker import EvalWorker
from src.metric_log import open_metric_log
from src.run_directory import Run
from src.training_worker import EarlyStopping, Schedule, SftTrainer

LOGGER = logging.getLogger(__name__)


@dataclass
class TrialRunner:
    """Train and score one trial at a time on a policy that is loaded once.

    Its initial weights wait in memory and are restored before each trial.
    """

    run: Run
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    validation: Sequence[Example]
    worker: EvalWorker

    def __post_init__(self) -> None:
        self._initial = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in self.policy.state_dict().items()
        }

    def __call__(self, trial: optuna.Trial) -> float:
        """Return the trial's objective: its best score over the rungs.

        Raises:
            optuna.TrialPruned: when ASHA stops it.
        """
        values = propose(trial, self.run.config)
        config = with_values(self.run.config, values)
        self.policy.load_state_dict(self._initial)
        folder = self.run.folder / "trials" / f"trial_{trial.number:03d}"
        store = CheckpointStore(folder, keep=1, resumable=False)
        with open_metric_log(
            self.run,
            name=f"trial-{trial.number:03d}",
            step_name="examples",
            settings=values,
            extra={"trial": trial.number},
        ) as metrics:
            trainer = SftTrainer(
                self.policy, self.tokenizer, config.train, store, metrics, config.run.seed
            )
            try:
                score = self._train(trial, trainer, config, metrics_log=metrics)
                metrics.summarise(objective=score, state="complete")
                return score
            except optuna.TrialPruned:
                metrics.summarise(state="pruned")
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _train(
        self, trial: optuna.Trial, trainer: SftTrainer, config: Config, metrics_log: Any
    ) -> float:
        search, best = config.search, -math.inf
        stopping = EarlyStopping(config.train.patience, config.train.min_delta)
        schedule = Schedule.by_examples(config.train, search.rung_examples)
        for checkpoint in trainer.train(self.examples, schedule):
            if search.objective == "eval_loss":
                score = -trainer.validation_nll(self.validation)
                logged = {"validation/nll": -score}
            else:
                report = self.worker.evaluate(checkpoint, "validation")
                score, logged = report.accuracy, report.metrics("validation")
            metrics_log.log(logged | {"trial/value": abs(score)}, step=checkpoint.examples_seen)
            best = max(best, score)
            trial.report(score, step=checkpoint.examples_seen)
            LOGGER.info(
                "trial %d: %.4f after %d examples", trial.number, score, checkpoint.examples_seen
            )
            if trial.should_prune():
                raise optuna.TrialPruned
            if stopping.should_stop(score):
                break
        return best


def propose(trial: optuna.Trial, config: Config) -> dict[str, Any]:
    """Draw one value for each dotted path of the search space."""
    values: dict[str, Any] = {}
    for path, space in config.search.space.items():
        if isinstance(space, FloatRange):
            values[path] = trial.suggest_float(path, space.low, space.high, log=space.log)
        else:
            values[path] = trial.suggest_categorical(path, space.choices)
    return values


def open_study(run: Run) -> optuna.Study:
    """Open the study on disk, or begin it; an interrupted study goes on where it was."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search, seed = run.config.search, run.config.run.seed
    journal = optuna.storages.journal.JournalFileBackend(str(run.folder / "study.journal"))
    study = optuna.create_study(
        study_name=run.config.run.name,
        storage=optuna.storages.JournalStorage(journal),
        load_if_exists=True,
        direction="maximize",
        # Its own stream for each continuation, so that a resumed study does not repeat proposals.
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.startup_trials),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=search.rung_examples[0], reduction_factor=search.reduction_factor
        ),
    )
    finished = len([trial for trial in study.trials if trial.state.is_finished()])
    if finished:
        study.sampler.reseed_rng()
        LOGGER.info("study: going on after %d finished trials", finished)
    return study


def run_study(study: optuna.Study, runner: TrialRunner) -> None:
    """Run the trials that are still missing; a trial that fails is recorded and does not end it."""
    finished = len([trial for trial in study.trials if trial.state.is_finished()])
    study.optimize(
        runner,
        n_trials=max(0, runner.run.config.search.trials - finished),
        catch=(FloatingPointError, torch.OutOfMemoryError),
    )


def describe_study(study: optuna.Study, run: Run) -> dict[str, Any]:
    """Write `best.yaml`, `trials.csv` and plots; return the figures for the report.

    Raises:
        RuntimeError: when no trial was completed.
    """
    states = [trial.state for trial in study.trials]
    if optuna.trial.TrialState.COMPLETE not in states:
        raise RuntimeError(
            f"{run.folder}: no trial was completed, so there is no best; see metrics.jsonl for the "
            "losses and run more trials with --resume --set search.trials=N"
        )
    best = study.best_trial
    write_text_atomic(run.folder / "best.yaml", nested_yaml(best.params))
    frame = study.trials_dataframe(attrs=("number", "value", "state", "params", "duration"))
    write_text_atomic(run.folder / "trials.csv", frame.to_csv(index=False))
    plot_study(study, run.folder)
    return {
        "trials": len(states),
        "pruned": states.count(optuna.trial.TrialState.PRUNED),
        "failed": states.count(optuna.trial.TrialState.FAIL),
        "best": {
            "number": best.number,
            "value": abs(best.value or 0.0),
            "params": best.params,
            "objective": run.config.search.objective,
        },
    }


def plot_study(study: optuna.Study, folder: Path) -> None:
    """Draw history, intermediate values and importances as PNG files."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    history, rungs, importance = figure.subplots(1, 3)
    for trial in study.trials:
        color = {"COMPLETE": "tab:blue", "PRUNED": "tab:orange"}.get(trial.state.name, "tab:red")
        steps = sorted(trial.intermediate_values)
        values = [abs(trial.intermediate_values[step]) for step in steps]
        rungs.plot(steps, values, marker="o", color=color, alpha=0.7)
        if values:
            history.scatter(trial.number, values[-1], color=color)
    objective = "validation score"
    history.set(title="trials (blue complete, orange pruned)", xlabel="trial", ylabel=objective)
    rungs.set(title="rungs", xlabel="examples seen", ylabel=objective)
    shares = _importances(study)
    importance.barh(list(shares), list(shares.values()))
    importance.set(title="hyperparameter importance", xlabel="share (fANOVA-style)")
    figure.savefig(folder / "study.png", dpi=120)


def _importances(study: optuna.Study) -> dict[str, float]:
    """Return each parameter's share; empty with too few completed trials to tell."""
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < 3 or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
