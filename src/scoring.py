"""Validation during training and the one final evaluation on test, alike for every stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.artifacts import write_json_atomic
from src.batching import Example
from src.checkpoints import Checkpoint, CheckpointStore, Score
from src.config_loading import ConfigError
from src.config_schema import Config
from src.eval_worker import EvalWorker, Reports
from src.evaluation import EvalReport, EvalTask
from src.metric_log import MetricLog, open_metric_log
from src.policy import resolve_model
from src.prompts import PromptTemplate
from src.run_directory import Run, pipeline_folder, read_outcome
from utils.dataset_loader import ProblemSet, problems_sha256

LOGGER = logging.getLogger(__name__)
_SAMPLE_COLUMNS = ("problem", "completion", "reference", "answer", "outcome", "reason", "tokens")


def validation_task(
    config: Config,
    problems: ProblemSet,
    prompt: PromptTemplate,
    rows: int,
    targets: Sequence[Example] = (),
) -> EvalTask:
    """Return the fixed validation subset with its sampling and seed.

    Args:
        targets: solutions whose loss is measured too.
    """
    chosen = problems.validation[:rows]
    return EvalTask("validation", chosen, prompt, config.sampling, config.run.seed, targets=targets)


def record_validation(
    store: CheckpointStore, metrics: MetricLog, checkpoint: Checkpoint, reports: Reports
) -> float:
    """Log a checkpoint's reports, let the store keep or delete it; return validation accuracy."""
    for split, scored in reports.items():
        metrics.log(scored.metrics(split), checkpoint.step)
    report = reports["validation"]
    score = Score(report.accuracy, report.format_rate, -(report.nll or 0.0))
    store.record(checkpoint, score)
    LOGGER.info("step %d: %s", checkpoint.step, describe(report))
    return report.accuracy


def test_task(run: Run, problems: ProblemSet, prompt: PromptTemplate) -> EvalTask:
    """Return the test problems with their sampling and seed; completions go to the run's folder."""
    sampling = run.config.sampling
    return EvalTask(
        "test",
        problems.test,
        prompt,
        sampling,
        run.config.run.seed,
        samples=sampling.samples,
        completions_file=run.folder / "completions.jsonl",
    )


def score_on_test(run: Run, model: str, task: EvalTask) -> dict[str, Any]:
    """Score a model on the test split with a fresh engine; return the stage's outcome."""
    with EvalWorker(run.config, model, {task.split: task}) as worker:
        checkpoint = Checkpoint(Path(model), 0, 0)
        report = worker.evaluate(checkpoint, task.split)[task.split]
    return write_test_outcome(run, report, task)


def write_test_outcome(run: Run, report: EvalReport, task: EvalTask) -> dict[str, Any]:
    """Log a test report, write `summary.json` and return what `outcome.json` holds."""
    with open_metric_log(run, name=f"{run.stage}-test") as metrics:
        metrics.log(report.metrics("test"), step=0)
        metrics.samples(sample_rows(report, run.config.wandb.sample_rows), step=0)
        metrics.summarise(accuracy=report.accuracy, format_rate=report.format_rate, n=report.n)
    outcome = {
        **report.outcome(),
        "checkpoint": report.checkpoint,
        "test_set": {"n": len(task.problems), "sha256": problems_sha256(task.problems)},
        "prompt_sha256": task.prompt.sha256,
        "sampling": {**task.sampling.model_dump(mode="json"), "seed": task.seed},
        "chosen_on": "validation",
        "reported_on": task.split,
    }
    write_json_atomic(run.folder / "summary.json", outcome)
    LOGGER.info("%s", describe(report))
    return outcome


def sample_rows(report: EvalReport, count: int) -> list[dict[str, Any]]:
    """Return the first completions with the columns worth reading."""
    return [{name: row[name] for name in _SAMPLE_COLUMNS} for row in report.samples[:count]]


def describe(report: EvalReport) -> str:
    """Return one line: outcomes with counts and shares, interval, tokens, speed."""
    low, high = report.accuracy_ci95
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count} ({count / report.n:.1%})"
        for name, count in report.outcomes.items()
    )
    failures = ", ".join(f"{name} {count}" for name, count in report.format_failures.items())
    return (
        f"{report.split} n {report.n}, accuracy {report.accuracy:.1%} [{low:.1%}, {high:.1%}], "
        f"format rate {report.format_rate:.1%}; {counts}; format failures: {failures or 'none'}; "
        f"{report.mean_completion_tokens:.0f} tokens a completion, "
        f"{report.tokens_per_s:.0f} tokens/s"
    )


def starting_model(config: Config) -> str:
    """Return what step 3 starts from: step 2's best checkpoint, or the base model.

    Raises:
        ConfigError: when step 2 has not finished, or the checkpoint is damaged.
    """
    if config.grpo.init == "base":
        return resolve_model(config.model.path)
    folder = pipeline_folder(config)
    outcome = read_outcome(folder, "step2_sft")
    if outcome is None:
        raise ConfigError(
            f"{folder / 'step2_sft'}: step 2 has not finished, so there is no checkpoint to start "
            "from; run step2_sft/step2_sft.py first, or use --set grpo.init=base"
        )
    return resolve_model(outcome["checkpoint"])
