"""Score a model on problems: generate, grade, count. Every stage's figures come from here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from src.artifacts import append_jsonl
from src.config_schema import SamplingConfig
from src.generator import Completion, Generator, sample_seed
from src.progress import Progress
from src.prompts import PromptTemplate
from utils.drgrpo_grader import Grade, format_problem, grade_batch
from utils.problem import Problem
from utils.statistics import wilson_interval

OUTCOMES = ("correct", "wrong_answer", "format_failure", "unscorable")
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class EvalTask:
    """What to score: problems under a prompt and a way of sampling."""

    split: str
    problems: Sequence[Problem]
    prompt: PromptTemplate
    sampling: SamplingConfig
    seed: int


@dataclass(frozen=True)
class EvalReport:
    """The figures of one evaluation. Rates have all n problems as denominator."""

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
    probe_gap: float | None = None
    """Mean absolute log-probability gap after the swap (nats); None where nothing was swapped."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The first completions, to be read."""

    @property
    def accuracy(self) -> float:
        """Share of all problems answered correctly in the right format."""
        return self.outcomes["correct"] / self.n

    @property
    def format_rate(self) -> float:
        """Share of all problems whose completion is well formed."""
        return 1 - self.outcomes["format_failure"] / self.n

    @property
    def accuracy_ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson_interval(self.outcomes["correct"], self.n)

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scalars to log below `prefix/`."""
        values: dict[str, float] = {
            "accuracy": self.accuracy,
            "format_rate": self.format_rate,
            "unscorable_rate": self.outcomes["unscorable"] / self.n,
            "truncated_rate": self.truncated / self.n,
            "completion_tokens": self.mean_completion_tokens,
            "generated_tokens_per_s": self.tokens_per_s,
            **{f"{name}_s": value for name, value in self.seconds.items()},
        }
        if self.probe_gap is not None:
            values["probe_gap"] = self.probe_gap
        return {f"{prefix}/{name}": value for name, value in values.items()}

    def outcome(self) -> dict[str, Any]:
        """Return what `outcome.json` and the results table need."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "format_rate": self.format_rate,
            "outcomes": self.outcomes,
            "format_failures": self.format_failures,
            "truncated_rate": self.truncated / self.n,
            "mean_completion_tokens": self.mean_completion_tokens,
            "by_level": self.by_level,
            "by_type": self.by_type,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
        }


def evaluate(
    generator: Generator, task: EvalTask, *, checkpoint: str, completions_file: Path | None = None
) -> EvalReport:
    """Generate one completion a problem, grade it and count.

    Args:
        checkpoint: named in the report.
        completions_file: JSONL that receives every completion with its grade; replaced.
    """
    if completions_file is not None:
        completions_file.unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []
    seconds = {"generate": 0.0, "grade": 0.0}
    with Progress(f"{task.split} evaluation", len(task.problems), "problems") as progress:
        for chunk in _chunks(task.problems):
            started = time.perf_counter()
            completions = _generate(generator, task, chunk)
            generated = time.perf_counter()
            grades = grade_batch(
                [completion.text for completion in completions],
                [problem.answer for problem in chunk],
            )
            seconds["generate"] += generated - started
            seconds["grade"] += time.perf_counter() - generated
            new = [_row(*item) for item in zip(chunk, completions, grades, strict=True)]
            if completions_file is not None:
                append_jsonl(completions_file, new)
            rows += new
            progress.advance(len(chunk))
    return summarise(rows, split=task.split, checkpoint=checkpoint, seconds=seconds)


def summarise(
    rows: Sequence[Mapping[str, Any]], *, split: str, checkpoint: str, seconds: dict[str, float]
) -> EvalReport:
    """Count graded completions, as `evaluate` wrote them."""
    counted = Counter(row["outcome"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    return EvalReport(
        split=split,
        checkpoint=checkpoint,
        n=len(rows),
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


def report_from(values: Mapping[str, Any]) -> EvalReport:
    """Rebuild a report from `report_values`."""
    return EvalReport(**values)


def report_values(report: EvalReport) -> dict[str, Any]:
    """Return a report as plain values."""
    return asdict(report)


def _chunks(problems: Sequence[Problem]) -> Iterator[Sequence[Problem]]:
    for start in range(0, len(problems), _CHUNK):
        yield problems[start : start + _CHUNK]


def _generate(
    generator: Generator, task: EvalTask, problems: Sequence[Problem]
) -> list[Completion]:
    prompts = [task.prompt.render(problem) for problem in problems]
    seeds = [sample_seed(task.seed, task.split, problem.unique_id) for problem in problems]
    return generator.generate(prompts, task.sampling, seeds)


def _row(problem: Problem, completion: Completion, grade: Grade) -> dict[str, Any]:
    return {
        "unique_id": problem.unique_id,
        "problem": problem.problem,
        "reference": problem.answer,
        "level": problem.level,
        "type": problem.type,
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
