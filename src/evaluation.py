"""Score a model on problems: generate, grade, count. Every stage's figures come from here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from src.artifacts import append_jsonl, write_jsonl_atomic
from src.batching import Example
from src.config_schema import SamplingConfig
from src.generator import Completion, Generator, sample_seed
from src.progress import Progress
from src.prompts import PromptTemplate
from utils.drgrpo_grader import Grade, format_problem, grade_batch
from utils.problem import Problem
from utils.statistics import clustered_interval, pass_at_k, wilson_interval

OUTCOMES = ("correct", "wrong_answer", "format_failure", "unscorable")
Row = dict[str, Any]
# Completions graded together while generation goes on.
_GRADED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class EvalTask:
    """What to score: problems under a prompt and a way of sampling.

    `samples` completions are drawn a problem. The mean loss of `targets` is measured where there
    are any. `completions_file` (JSONL) receives every completion with its grade; replaced.
    """

    split: str
    problems: Sequence[Problem]
    prompt: PromptTemplate
    sampling: SamplingConfig
    seed: int
    samples: int = 1
    targets: Sequence[Example] = ()
    completions_file: Path | None = None


@dataclass(frozen=True)
class EvalReport:
    """The figures of one evaluation of n problems; rates have all completions as denominator."""

    split: str
    checkpoint: str
    n: int
    outcomes: dict[str, int]
    format_failures: dict[str, int]
    truncated: int
    mean_completion_tokens: float
    by_level: dict[str, list[int]]
    """Level -> [correct, n]."""
    by_type: dict[str, list[int]]
    """Type -> [correct, n]."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in swap, generate and grade."""
    tokens_per_s: float = 0.0
    samples_per_problem: int = 1
    correct_samples: list[int] = field(default_factory=list)
    """Correct completions of each problem, in order."""
    nll: float | None = None
    """Mean negative log-likelihood of the task's target tokens, in nats; None without targets."""
    step: int | None = None
    """Optimizer step of the checkpoint."""
    seed: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    probe_gap: float | None = None
    """Mean absolute log-probability gap after the swap (nats); None where nothing was swapped."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The first completions, to be read."""

    @property
    def completions(self) -> int:
        """Number of completions graded."""
        return self.n * self.samples_per_problem

    @property
    def accuracy(self) -> float:
        """Share of all completions that are correct and in the right format."""
        return self.outcomes["correct"] / self.completions

    @property
    def format_rate(self) -> float:
        """Share of all completions that are well formed."""
        return 1 - self.outcomes["format_failure"] / self.completions

    @property
    def accuracy_ci95(self) -> tuple[float, float]:
        """95 % interval of the accuracy: Wilson's, or over problems where each has many samples."""
        if self.samples_per_problem == 1:
            return wilson_interval(self.outcomes["correct"], self.n)
        means = [count / self.samples_per_problem for count in self.correct_samples]
        return clustered_interval(means, self.samples_per_problem)

    @property
    def pass_at(self) -> dict[int, float]:
        """Unbiased pass@k for k = 1, 2, 4, ... up to the samples a problem."""
        samples = self.samples_per_problem
        ks = [2**power for power in range(samples.bit_length())]
        return {
            k: sum(pass_at_k(samples, count, k) for count in self.correct_samples) / self.n
            for k in ks
        }

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scalars to log below `prefix/`."""
        values: dict[str, float] = {
            "accuracy": self.accuracy,
            "format_rate": self.format_rate,
            "unscorable_rate": self.outcomes["unscorable"] / self.completions,
            "truncated_rate": self.truncated / self.completions,
            "completion_tokens": self.mean_completion_tokens,
            "generated_tokens_per_s": self.tokens_per_s,
            **{f"{name}_s": value for name, value in self.seconds.items()},
        }
        optional = {"nll": self.nll, "probe_gap": self.probe_gap}
        values |= {name: value for name, value in optional.items() if value is not None}
        if self.samples_per_problem > 1:
            values |= {f"pass_at_{k}": value for k, value in self.pass_at.items()}
        return {f"{prefix}/{name}": value for name, value in values.items()}

    def outcome(self) -> dict[str, Any]:
        """Return what `outcome.json` and the results table need."""
        return {
            "n": self.n,
            "samples_per_problem": self.samples_per_problem,
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "format_rate": self.format_rate,
            "outcomes": self.outcomes,
            "format_failures": self.format_failures,
            "truncated_rate": self.truncated / self.completions,
            "mean_completion_tokens": self.mean_completion_tokens,
            "by_level": self.by_level,
            "by_type": self.by_type,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
        }


def evaluate(generator: Generator, task: EvalTask, *, checkpoint: str) -> EvalReport:
    """Generate completions, grade them while generation goes on, and count.

    Args:
        checkpoint: named in the report.
    """
    if task.completions_file is not None:
        task.completions_file.unlink(missing_ok=True)
    started = time.perf_counter()
    seconds = {"grade": 0.0}
    rows: list[Row] = []
    total = len(task.problems) * task.samples
    with (
        Progress(f"{task.split} evaluation", total, "completions") as progress,
        ThreadPoolExecutor(1, "grader") as grader,
    ):
        batches = []
        for batch in _ended_together(_generated(generator, task)):
            batches.append(grader.submit(_graded, task, batch, seconds))
            progress.advance(len(batch))
        seconds["generate"] = time.perf_counter() - started
        for done in batches:
            rows += done.result()
    # Grading beyond the end of generation is all that it costs.
    seconds["grade_wait"] = time.perf_counter() - started - seconds["generate"]
    place = {problem.unique_id: index for index, problem in enumerate(task.problems)}
    rows.sort(key=lambda row: (place[row["unique_id"]], row["sample"]))
    if task.completions_file is not None:
        write_jsonl_atomic(task.completions_file, rows)
    report = summarise(rows, split=task.split, checkpoint=checkpoint, seconds=seconds)
    sampling = task.sampling.model_dump(mode="json")
    return replace(report, seed=task.seed, sampling=sampling, nll=_mean_nll(generator, task))


def summarise(
    rows: Sequence[Mapping[str, Any]], *, split: str, checkpoint: str, seconds: dict[str, float]
) -> EvalReport:
    """Count graded completions, as `evaluate` wrote them."""
    counted = Counter(row["outcome"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    correct: dict[str, int] = {}
    for row in rows:
        got = row["outcome"] == "correct"
        correct[row["unique_id"]] = correct.get(row["unique_id"], 0) + got
    return EvalReport(
        split=split,
        checkpoint=checkpoint,
        n=len(correct),
        samples_per_problem=len(rows) // len(correct),
        correct_samples=list(correct.values()),
        outcomes={outcome: counted[outcome] for outcome in OUTCOMES},
        format_failures=_format_failures(rows),
        truncated=sum(row["truncated"] for row in rows),
        mean_completion_tokens=tokens / len(rows),
        by_level=_by(rows, "level"),
        by_type=_by(rows, "type"),
        seconds=seconds,
        tokens_per_s=tokens / max(seconds["generate"], 1e-9),
        samples=[dict(row) for row in rows[:64]],
    )


Ended = tuple[Problem, int, Completion]
"""A problem, the index of its sample, and the completion."""


def _generated(generator: Generator, task: EvalTask) -> Iterator[Ended]:
    """Yield completions as they end."""
    asked = [(problem, sample) for problem in task.problems for sample in range(task.samples)]
    prompts = [task.prompt.render(problem) for problem, _ in asked]
    seeds = [_seed(task, problem, sample) for problem, sample in asked]
    for index, completion in generator.stream(prompts, task.sampling, seeds):
        yield (*asked[index], completion)


def _seed(task: EvalTask, problem: Problem, sample: int) -> int:
    """Derive the seed of one completion; the first is the same however many are drawn."""
    more = (sample,) if sample else ()
    return sample_seed(task.seed, task.split, problem.unique_id, *more)


def _ended_together(ended: Iterator[Ended]) -> Iterator[list[Ended]]:
    """Gather completions into batches worth grading."""
    while batch := list(islice(ended, _GRADED_TOGETHER)):
        yield batch


def _graded(task: EvalTask, batch: Sequence[Ended], seconds: dict[str, float]) -> list[Row]:
    """Grade a batch and write it down; the grading thread alone runs this."""
    started = time.perf_counter()
    grades = grade_batch(
        [completion.text for _, _, completion in batch],
        [problem.answer for problem, _, _ in batch],
    )
    rows = [_row(*item, grade) for item, grade in zip(batch, grades, strict=True)]
    seconds["grade"] += time.perf_counter() - started
    if task.completions_file is not None:
        append_jsonl(task.completions_file, rows)
    return rows


def _mean_nll(generator: Generator, task: EvalTask) -> float | None:
    """Return the mean loss of the task's target tokens, by the engine's own log-probabilities."""
    if not task.targets:
        return None
    logprobs = generator.prompt_logprobs([list(example.ids) for example in task.targets])
    # The first token has no log-probability, so a target's scores begin one place earlier.
    scores = [
        row[example.prompt_tokens - 1 :]
        for row, example in zip(logprobs, task.targets, strict=True)
    ]
    return -sum(map(sum, scores)) / sum(map(len, scores))


def _row(problem: Problem, sample: int, completion: Completion, grade: Grade) -> Row:
    return {
        "unique_id": problem.unique_id,
        "problem": problem.problem,
        "reference": problem.answer,
        "level": problem.level,
        "type": problem.type,
        "sample": sample,
        "completion": completion.text,
        "answer": grade.answer,
        "outcome": grade.outcome,
        "decided_by": grade.stage,
        "reason": grade.reason,
        "tokens": completion.tokens,
        "truncated": completion.truncated,
    }


def _format_failures(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count why completions are malformed; one cut by the limit counts as truncated alone."""
    reasons = Counter(
        "truncated" if row["truncated"] else format_problem(row["completion"]) or "other"
        for row in rows
        if row["outcome"] == "format_failure"
    )
    return dict(sorted(reasons.items()))


def _by(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[int]]:
    """Return value -> [correct, n]."""
    table: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: str(row[key])):
        cell = table.setdefault(str(row[key]), [0, 0])
        cell[0] += row["outcome"] == "correct"
        cell[1] += 1
    return table
