"""Run benchmarks on one model: each with its own prompt, sampling and number of samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.benchmarks.asking import benchmark_sampling
from src.benchmarks.table import COLUMNS, rows_of
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.evaluation.figures import Reports
from src.run.directory import Run
from src.run.files import write_json_atomic
from src.run.metrics import open_metric_log
from src.run.terminal import show
from src.training.checkpoints import Checkpoint
from src.training.policy import load_tokenizer, resolve_model
from utils.dataset_loader import ProblemSet

LOGGER = logging.getLogger(__name__)


def benchmark_tasks(run: Run, loaded: Mapping[str, ProblemSet]) -> list[EvalTask]:
    """Return what each benchmark asks; completions go to the stage's folder.

    Raises:
        ConfigError: when a prompt is not there.
    """
    config = run.config
    tokenizer = load_tokenizer(resolve_model(config.model.path), config)
    return [
        EvalTask(
            name,
            problems.test,
            stage_prompt(config, tokenizer, config.evaluation.benchmark(name).prompt),
            benchmark_sampling(config, name),
            config.run.seed,
            samples=config.evaluation.benchmark(name).samples,
            ks=_ks(config.evaluation.benchmark(name).samples),
            completions_file=run.folder / f"completions-{name}.jsonl",
        )
        for name, problems in loaded.items()
    ]


def score_benchmarks(run: Run, model: str, tasks: list[EvalTask]) -> dict[str, Any]:
    """Score a model on the benchmarks with engines on all devices; return the stage's outcome."""
    for task in tasks:
        _say_cut(run.config, task)
    with EvalWorker(run.config, model, {}, trains=False) as worker:
        for task in tasks:
            worker.define(task)
        checkpoint = Checkpoint(Path(model), 0, 0)
        reports = worker.evaluate(checkpoint, *(task.name for task in tasks))
    return _write(run, model, tasks, reports)


def _ks(samples: int) -> list[int]:
    """Return the k of pass@k: powers of two, and all the samples.

    >>> _ks(6)
    [1, 2, 4, 6]
    """
    return sorted({2**power for power in range(samples.bit_length())} | {samples})


def _write(run: Run, model: str, tasks: list[EvalTask], reports: Reports) -> dict[str, Any]:
    with open_metric_log(run, name=run.stage.replace("/", "-")) as metrics:
        for task in tasks:
            metrics.log(reports[task.name].metrics(f"benchmark/{task.name}"), step=0)
    evaluation = run.config.evaluation
    found = {
        task.name: {
            **reports[task.name].figures(),
            **task.yardstick(),
            "prompt": evaluation.benchmark(task.name).prompt,
            "published": evaluation.benchmark(task.name).problems,
        }
        for task in tasks
    }
    outcome = {"checkpoint": model, "benchmarks": found}
    write_json_atomic(run.folder / "summary.json", outcome)
    show(f"{run.stage}: other yardsticks than the run's own", COLUMNS, rows_of(found))
    return outcome


def _say_cut(config: Config, task: EvalTask) -> None:
    wanted = config.evaluation.benchmark(task.name).max_completion_tokens
    given = task.sampling.max_completion_tokens
    if given < wanted:
        LOGGER.warning(
            "benchmark %s: at most %d new tokens, not %d: engine.max_model_tokens is %d; raise it "
            "where the model has the context",
            task.name, given, wanted, config.engine.max_model_tokens,
        )  # fmt: skip
