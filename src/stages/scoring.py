"""Validation during training and the one final evaluation on test, alike for every stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.problems import load_problems
from src.data.prompts import PromptTemplate
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.evaluation.figures import EvalReport, Reports
from src.output.lines import IN_LOG, brief
from src.run.directory import Run, earlier_folder, read_outcome, reported_model
from src.run.files import write_json_atomic
from src.run.metrics import MetricLog, open_metric_log
from src.run.terminal import interval, list_faults, percent, show_scores
from src.stages.model_check import check_model
from src.training.batching import Example
from src.training.checkpoints import Checkpoint, CheckpointStore, Score
from src.training.policy import load_tokenizer, resolve_model
from utils.data.problem import Problem
from utils.dataset_loader import ProblemSet
from utils.drgrpo_grader import grade
from utils.grading.answer_forms import extract_boxed

LOGGER = logging.getLogger(__name__)
# Characters: four such solutions leave room for the question in most contexts.
_LONGEST_EXAMPLE = 600
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
    negative_nll = -(report.nll or 0.0)
    score = Score(report.accuracy, report.format_rate, negative_nll, report.problem_means)
    store.record(checkpoint, score)
    where = f"step {checkpoint.step}"
    LOGGER.info("%s: %s", where, describe(report), extra=in_brief(where, report))
    return report.accuracy


def test_task(run: Run, problems: ProblemSet, prompt: PromptTemplate) -> EvalTask:
    """Return the test problems with their sampling and seed; completions go to the run's folder."""
    config = run.config
    return EvalTask(
        "test",
        problems.test,
        prompt,
        config.sampling,
        config.run.seed,
        samples=config.sampling.samples,
        ks=config.evaluation.pass_at,
        completions_file=run.folder / "completions.jsonl",
    )


def test_tasks(run: Run, problems: ProblemSet) -> list[EvalTask]:
    """Return the test task and, after it, its variants: other prompts, and greedy decoding.

    Raises:
        ConfigError: when a prompt is not there, or wants more worked examples than there are.
    """
    config = run.config
    tokenizer = load_tokenizer(resolve_model(config.model.path), config)
    headline = test_task(run, problems, stage_prompt(config, tokenizer))
    tasks = [headline]
    for name in config.evaluation.prompts:
        examples = worked_examples(problems, config.evaluation.shots)
        prompt = stage_prompt(config, tokenizer, name, examples)
        tasks.append(replace(headline, prompt=prompt, variant=Path(name).stem))
    if config.evaluation.greedy:
        greedy = config.sampling.model_copy(update={"temperature": 0.0, "samples": 1})
        tasks += [
            replace(
                task,
                sampling=greedy,
                samples=1,
                ks=(),
                variant=f"{task.variant}-greedy".lstrip("-"),
            )
            for task in tuple(tasks)
        ]
    folder = run.folder
    return [
        headline,
        *(
            replace(task, completions_file=folder / f"completions-{task.variant}.jsonl")
            for task in tasks[1:]
        ),
    ]


def worked_examples(problems: ProblemSet, count: int) -> list[Problem]:
    """Choose training problems to work in a prompt: the first brief ones that grade as correct.

    Raises:
        ConfigError: when there are fewer.
    """
    chosen: list[Problem] = []
    for problem in problems.train:
        if len(chosen) == count:
            break
        stated = f"</think> <answer>{extract_boxed(problem.solution) or ''}</answer>"
        if len(problem.solution) <= _LONGEST_EXAMPLE and grade(stated, problem.answer).reward:
            chosen.append(problem)
    if len(chosen) < count:
        raise ConfigError(
            f"evaluation.shots: {count} worked examples are wanted, and {len(chosen)} of the "
            f"{len(problems.train)} training problems have a solution of at most "
            f"{_LONGEST_EXAMPLE} characters that grades as correct; lower it"
        )
    return chosen


def run_evaluation(config: Config, run: Run) -> None:
    """Score `config.model.path` on the test problems: all that a stage without training does."""
    problems = load_problems(config)
    model = resolve_model(config.model.path)
    check_model(model, config)
    tasks = test_tasks(run, problems)
    run.begin(data=problems.provenance(), model=model)
    run.finish(**score_model(run, model, tasks))


def score_model(run: Run, model: str, tasks: Sequence[EvalTask]) -> dict[str, Any]:
    """Score a model on the test split with engines on all devices; return the stage's outcome.

    Nothing trains meanwhile.

    Args:
        tasks: the one that is reported, then its variants.
    """
    with EvalWorker(run.config, model, {}, trains=False) as worker:
        return score_on_test(run, Checkpoint(Path(model), 0, 0), tasks, worker)


def score_on_test(
    run: Run, checkpoint: Checkpoint, tasks: Sequence[EvalTask], worker: EvalWorker
) -> dict[str, Any]:
    """Score a checkpoint on the test split; return the stage's outcome.

    Args:
        tasks: the one that is reported, then its variants.
        worker: to score it, by a verified swap unless its engine began with this very model.
    """
    for task in tasks:
        worker.define(task)
    reports = worker.evaluate(checkpoint, *(task.name for task in tasks))
    return write_test_outcome(run, tasks, reports)


def write_test_outcome(run: Run, tasks: Sequence[EvalTask], reports: Reports) -> dict[str, Any]:
    """Log the test reports, show them, write `summary.json`; return what `outcome.json` holds.

    Args:
        tasks: the one that is reported, then the same model asked in other ways; each of those has
            a yardstick of its own.
        reports: task name -> report.
    """
    task, *variants = tasks
    report = reports[task.name]
    with open_metric_log(run, name=f"{run.stage}-test") as metrics:
        metrics.log(report.metrics("test"), step=0)
        metrics.samples(sample_rows(report, run.config.wandb.sample_rows), step=0)
        metrics.summarise(**_summary(report))
        if Path(report.checkpoint).is_dir():  # not a hub id
            metrics.checkpoint(Path(report.checkpoint))
    outcome = {
        **report.outcome(),
        "checkpoint": report.checkpoint,
        **task.yardstick(),
        "reported_on": task.split,
        "variants": {
            other.variant: reports[other.name].figures() | other.yardstick() for other in variants
        },
    }
    write_json_atomic(run.folder / "summary.json", outcome)
    for each in tasks:
        LOGGER.info("%s", describe(reports[each.name]), extra=IN_LOG)
    headline = Path(run.config.data.prompt).stem
    show_scores(f"{run.stage}, test", {headline: outcome, **outcome["variants"]})
    faults = list_faults(report.faults, report.completions)
    if faults:
        line = brief(f"what went wrong: {faults[0]}", *faults[1:])
        LOGGER.info("what went wrong: %s", ", ".join(faults), extra=line)
    return outcome


def _summary(report: EvalReport) -> dict[str, Any]:
    """Return the figures that the report states of a stage."""
    low, high = report.accuracy_ci95
    shown = {f"test/{name}": count for name, count in report.outcomes.items()}
    return {
        "test/n": report.n,
        "test/accuracy": report.accuracy,
        "test/accuracy_low": low,
        "test/accuracy_high": high,
        "test/format_rate": report.format_rate,
        "test/accuracy_anywhere": report.accuracy_anywhere,
        **shown,
    }


def sample_rows(report: EvalReport, count: int) -> list[dict[str, Any]]:
    """Return the first completions with the columns worth reading."""
    return [{name: row[name] for name in _SAMPLE_COLUMNS} for row in report.samples[:count]]


def describe(report: EvalReport) -> str:
    """Return one line: outcomes with counts and shares, interval, tokens, speed."""
    low, high = report.accuracy_ci95
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count} ({count / report.completions:.1%})"
        for name, count in report.outcomes.items()
    )
    failures = ", ".join(f"{name} {count}" for name, count in report.format_failures.items())
    return (
        f"{report.split} n {report.n}, accuracy {report.accuracy:.1%} [{low:.1%}, {high:.1%}], "
        f"format rate {report.format_rate:.1%}; {counts}; format failures: {failures or 'none'}; "
        f"right answer anywhere {report.accuracy_anywhere:.1%}; "
        f"{report.mean_completion_tokens:.0f} tokens a completion, "
        f"{report.tokens_per_s:.0f} tokens/s"
    )


def in_brief(where: str, report: EvalReport, split: str = "") -> dict[str, Any]:
    """Return the `extra` of a log line on a report: accuracy with its interval, format, tokens."""
    return brief(
        f"{where}: {split or report.split} {percent(report.accuracy)} % "
        f"{interval(report.accuracy_ci95)} of {report.n:,}",
        f"format {percent(report.format_rate)} %",
        f"right anywhere {percent(report.accuracy_anywhere)} %",
        f"{report.mean_completion_tokens:.0f} tokens",
        f"{report.tokens_per_s:,.0f} tokens/s",
    )


def starting_model(config: Config) -> str:
    """Return what step 3 starts from: step 2's best checkpoint, or the base model.

    Raises:
        ConfigError: when step 2 has not finished, or the checkpoint is damaged.
    """
    if config.grpo.init == "base":
        return resolve_model(config.model.path)
    folder = earlier_folder(config, "step2_sft")
    outcome = read_outcome(folder, "step2_sft")
    if outcome is None:
        raise ConfigError(
            f"{folder / 'step2_sft'}: step 2 has not finished, so there is no checkpoint to start "
            "from; run step2_sft/step2_sft.py first, or use --set grpo.init=base"
        )
    return resolve_model(reported_model(folder / "step2_sft", outcome))
