"""The figures of one evaluation, counted from graded completions alone.

`summarise` is the one way from completions to figures: an evaluation that has just run, a file that
is graded again and a report that is verified all go through it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.grading.equality import compare
from utils.grading.faults import FAULTS
from utils.stats.bootstrap import bootstrap_interval
from utils.stats.statistics import clustered_interval, pass_at_k, wilson_interval
from utils.stats.votes import group_equal, majority_at_k

OUTCOMES = ("correct", "wrong_answer", "format_failure", "unscorable")
Row = Mapping[str, Any]
Interval = tuple[float, float]
_LENGTH_BINS = 5
ENGINE_WORK = ("swap", "generate", "grade_wait")
"""Parts of an evaluation in which its engine works; most grading goes on beside generation."""
_RIGHT = "right"


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
    faults: dict[str, int] = field(default_factory=dict)
    """What went wrong (`utils.grading.faults`) -> completions, one fault each."""
    found: int = 0
    """Completions in which the right answer stands, whatever their format."""
    by_length: list[list[float]] = field(default_factory=list)
    """[fewest tokens, most tokens, correct, n], completions in fifths by their length."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in swap, generate and grade; of several engines the slowest's in each."""
    engine_seconds: list[float] = field(default_factory=list)
    """Seconds that each of several engines worked on its share."""
    tokens_per_s: float = 0.0
    samples_per_problem: int = 1
    ks: list[int] = field(default_factory=lambda: [1])
    """The k of pass@k and maj@k."""
    correct_samples: list[int] = field(default_factory=list)
    """Correct completions of each problem, in order."""
    majorities: dict[int, list[float]] = field(default_factory=dict)
    """k -> each problem's chance that a vote among k completions is right; empty without votes."""
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
    def accuracy_anywhere(self) -> float:
        """Share of all completions in which the right answer stands, whatever their format."""
        return self.found / self.completions

    @property
    def well_formed(self) -> int:
        """Number of well-formed completions."""
        return self.completions - self.outcomes["format_failure"]

    @property
    def accuracy_ci95(self) -> Interval:
        """95 % interval of the accuracy: Wilson's, or over problems where each has many samples."""
        if self.samples_per_problem == 1:
            return wilson_interval(self.outcomes["correct"], self.n)
        return clustered_interval(self.problem_means, self.samples_per_problem)

    @property
    def problem_means(self) -> list[float]:
        """Each problem's share of correct completions, in order."""
        return [count / self.samples_per_problem for count in self.correct_samples]

    @property
    def engines_s(self) -> list[float]:
        """Seconds that each engine worked, also where there is one."""
        return self.engine_seconds or [engine_work_s(self.seconds)]

    @property
    def pass_at(self) -> dict[int, float]:
        """Unbiased pass@k."""
        return {k: sum(self._passes(k)) / self.n for k in self.ks}

    @property
    def majority_at(self) -> dict[int, float]:
        """Share of problems that a majority vote among k completions answers correctly."""
        return {k: sum(values) / self.n for k, values in self.majorities.items()}

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scalars to log below `prefix/`."""
        values: dict[str, float] = {
            "accuracy": self.accuracy,
            "format_rate": self.format_rate,
            "accuracy_anywhere": self.accuracy_anywhere,
            "unscorable_rate": self.outcomes["unscorable"] / self.completions,
            "truncated_rate": self.truncated / self.completions,
            "completion_tokens": self.mean_completion_tokens,
            "generated_tokens_per_s": self.tokens_per_s,
            **{f"{name}_s": value for name, value in self.seconds.items()},
        }
        each = enumerate(self.engine_seconds)
        values |= {f"engine_{number}_s": value for number, value in each}
        optional = {"nll": self.nll, "probe_gap": self.probe_gap}
        values |= {name: value for name, value in optional.items() if value is not None}
        if self.samples_per_problem > 1:
            values |= {f"pass_at_{k}": value for k, value in self.pass_at.items()}
            values |= {f"maj_at_{k}": value for k, value in self.majority_at.items()}
        return {f"{prefix}/{name}": value for name, value in values.items()}

    def figures(self) -> dict[str, Any]:
        """Return every figure that follows from the completions alone."""
        return {
            "n": self.n,
            "samples_per_problem": self.samples_per_problem,
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "format_rate": self.format_rate,
            "outcomes": self.outcomes,
            "accuracy_well_formed": _share(self.outcomes["correct"], self.well_formed),
            "accuracy_anywhere": self.accuracy_anywhere,
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "pass_at_ci95": {str(k): bootstrap_interval(self._passes(k)) for k in self.ks},
            "majority_at": {str(k): value for k, value in self.majority_at.items()},
            "majority_at_ci95": {
                str(k): bootstrap_interval(values) for k, values in self.majorities.items()
            },
            "format_failures": self.format_failures,
            "faults": self.faults,
            "truncated_rate": self.truncated / self.completions,
            "mean_completion_tokens": self.mean_completion_tokens,
            "by_level": self.by_level,
            "by_type": self.by_type,
            "by_length": self.by_length,
        }

    def outcome(self) -> dict[str, Any]:
        """Return what `outcome.json` and the results table need."""
        return {**self.figures(), "tokens_per_s": self.tokens_per_s, "seconds": self.seconds}

    def _passes(self, k: int) -> list[float]:
        """Return each problem's pass@k."""
        return [pass_at_k(self.samples_per_problem, count, k) for count in self.correct_samples]


Reports = dict[str, EvalReport]
"""Split name -> report."""


def engine_work_s(seconds: Mapping[str, float]) -> float:
    """Return the seconds of an evaluation, by its parts, in which its engine worked.

    >>> engine_work_s({"swap": 0.5, "generate": 3.0, "grade": 2.0, "grade_wait": 0.25})
    3.75
    """
    return sum(seconds.get(part, 0.0) for part in ENGINE_WORK)


def summarise(
    rows: Sequence[Row],
    *,
    split: str,
    checkpoint: str,
    seconds: dict[str, float] | None = None,
    ks: Sequence[int] = (),
) -> EvalReport:
    """Count graded completions, as `evaluate` wrote them.

    Args:
        ks: of pass@k and maj@k; by default 1, 2, 4, ... up to the samples a problem.

    Raises:
        ValueError: the problems do not have the same number of completions.
    """
    by_problem = _by_problem(rows)
    samples = len(rows) // len(by_problem)
    counted = Counter(row["outcome"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    chosen = list(ks) or [2**power for power in range(samples.bit_length())]
    return EvalReport(
        split=split,
        checkpoint=checkpoint,
        n=len(by_problem),
        samples_per_problem=samples,
        ks=chosen,
        correct_samples=[_correct(group) for group in by_problem.values()],
        majorities=_majorities(list(by_problem.values()), chosen) if samples > 1 else {},
        outcomes={outcome: counted[outcome] for outcome in OUTCOMES},
        format_failures=_format_failures(rows),
        faults=_faults(rows),
        found=sum(row["found"] for row in rows),
        truncated=sum(row["truncated"] for row in rows),
        mean_completion_tokens=tokens / len(rows),
        by_level=_by(rows, "level"),
        by_type=_by(rows, "type"),
        by_length=_by_length(rows),
        seconds=seconds or {},
        samples=[dict(row) for row in rows[:64]],
    )


def _by_problem(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Gather the completions of each problem, in order."""
    gathered: dict[str, list[Row]] = {}
    for row in rows:
        gathered.setdefault(row["unique_id"], []).append(row)
    sizes = Counter(map(len, gathered.values()))
    if len(sizes) != 1:
        raise ValueError(
            f"the problems have {', '.join(map(str, sorted(sizes))) or 'no'} completions each, "
            "expected the same number for all: the file is cut short or holds several evaluations"
        )
    return gathered


def _correct(rows: Sequence[Row]) -> int:
    return sum(row["outcome"] == "correct" for row in rows)


def _majorities(problems: Sequence[Sequence[Row]], ks: Sequence[int]) -> dict[int, list[float]]:
    """Return, for each k, the chance of each problem's vote to be right."""
    votes = [_votes(rows) for rows in problems]
    return {k: [majority_at_k(cast, _RIGHT, k) for cast in votes] for k in ks}


def _votes(rows: Sequence[Row]) -> list[Hashable | None]:
    """Say what each completion votes for; what is not well formed does not vote.

    Correct answers equal the reference and so vote alike; others are grouped by the grader.
    """
    wrong = [row["answer"] if row["outcome"] == "wrong_answer" else None for row in rows]
    groups = group_equal(wrong, lambda one, other: compare(one, other).equal)
    return [
        _RIGHT if row["outcome"] == "correct" else group
        for row, group in zip(rows, groups, strict=True)
    ]


def _format_failures(rows: Sequence[Row]) -> dict[str, int]:
    """Count why completions are malformed; one cut by the limit counts as truncated alone."""
    reasons = Counter(
        "truncated" if row["truncated"] else row["reason"]
        for row in rows
        if row["outcome"] == "format_failure"
    )
    return dict(sorted(reasons.items()))


def _faults(rows: Sequence[Row]) -> dict[str, int]:
    counted = Counter(row["fault"] for row in rows)
    return {fault: counted[fault] for fault in FAULTS if counted[fault]}


def _by(rows: Sequence[Row], key: str) -> dict[str, list[int]]:
    """Return value -> [correct, n]."""
    table: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: str(row[key])):
        cell = table.setdefault(str(row[key]), [0, 0])
        cell[0] += row["outcome"] == "correct"
        cell[1] += 1
    return table


def _by_length(rows: Sequence[Row]) -> list[list[float]]:
    """Cut the completions into fifths by their tokens; equal lengths stay together."""
    lengths = sorted(row["tokens"] for row in rows)
    last = {lengths[-(-len(lengths) * part // _LENGTH_BINS) - 1] for part in range(1, 6)}
    table = []
    shortest = lengths[0]
    for longest in sorted(last):
        inside = [row for row in rows if shortest <= row["tokens"] <= longest]
        table.append([shortest, longest, _correct(inside), len(inside)])
        shortest = min((length for length in lengths if length > longest), default=longest)
    return table


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
