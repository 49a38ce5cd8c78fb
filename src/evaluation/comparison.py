"""Compare two models on the same problems, from the completions of both.

Only what both were asked in the same way may be compared: the same problems and sampling. Prompts
may differ (that is what `--prompts` is for) and are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError
from src.run.files import read_json, read_jsonl
from src.run.terminal import p_value
from utils.stats.bootstrap import bootstrap_interval
from utils.stats.paired import mcnemar_exact, paired_difference_interval

Row = Mapping[str, Any]
_EXAMPLES = 10
_SAME = ("test_set", "sampling")


@dataclass(frozen=True, slots=True)
class Scored:
    """One evaluation on disk: its name, what it was measured with, its completions by problem."""

    name: str
    stage: str
    yardstick: dict[str, Any]
    by_problem: dict[str, list[dict[str, Any]]]

    def means(self, *, found: bool = False) -> dict[str, float]:
        """Return each problem's share of correct completions.

        Args:
            found: count those in which the right answer stands, whatever their format.
        """
        return {
            problem: sum(row["found"] if found else row["outcome"] == "correct" for row in rows)
            / len(rows)
            for problem, rows in self.by_problem.items()
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """How a second model differs from a first on the same n problems, in shares.

    `won` problems only the second answers, `lost` only the first; with several samples a problem,
    those where its share rose or fell. `p_value` is McNemar's exact one, or the sign test's.
    """

    n: int
    difference: float
    ci95: tuple[float, float]
    won: int
    lost: int
    p_value: float

    def __str__(self) -> str:
        """Write `+17.0 points [+14.9, +19.1], p < 0.001, 1,021 won, 170 lost`."""
        low, high = (100 * bound for bound in self.ci95)
        return (
            f"{100 * self.difference:+.1f} points [{low:+.1f}, {high:+.1f}], "
            f"p {p_value(self.p_value, '= ')}, {self.won:,} won, {self.lost:,} lost"
        )


def read_scored(place: Path) -> Scored:
    """Read an evaluation from its folder, or from one of its completion files.

    Raises:
        ConfigError: when there are no completions, or what they were measured with is not known.
    """
    folder, file = (place, place / "completions.jsonl") if place.is_dir() else (place.parent, place)
    if not file.is_file() or not (folder / "outcome.json").is_file():
        raise ConfigError(
            f"{place}: no finished evaluation (outcome.json and completions.jsonl); name the "
            "folder of a stage or of an evaluation, or a model to evaluate first"
        )
    outcome = read_json(folder / "outcome.json")
    variant = file.stem.partition("completions-")[2]
    others = outcome.get("benchmarks") or outcome.get("variants", {})
    measured = others[variant] if variant else outcome
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(file):
        by_problem.setdefault(row["unique_id"], []).append(row)
    name = "/".join((*folder.parts[-2:], *([variant] if variant else [])))
    keys = (*_SAME, "prompt_sha256")
    return Scored(name, folder.name, {key: measured[key] for key in keys}, by_problem)


def refuse_different_yardsticks(scored: Sequence[Scored]) -> None:
    """Refuse to compare what was not measured alike.

    Raises:
        ConfigError: naming what differs and in which.
    """
    problems = []
    for key in _SAME:
        if any(item.yardstick[key] != scored[0].yardstick[key] for item in scored):
            problems += [f"  {item.name}: {key} {item.yardstick[key]}" for item in scored]
    if problems:
        raise ConfigError(
            "these evaluations were not measured alike and cannot be compared:\n"
            + "\n".join(problems)
            + "\nevaluate both models with one configuration"
        )


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference:
    """Return how the second model's means over the same problems differ from the first's.

    Tango's score interval where each problem was answered once, else the bootstrap over problems.

    Args:
        first: problem -> share of correct completions.
        second: likewise, of the same problems.
    """
    if first.keys() != second.keys():
        raise ConfigError("the two models were not scored on the same problems; evaluate again")
    changes = [second[problem] - first[problem] for problem in first]
    n, won, lost = len(changes), sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    once = all(value in (0.0, 1.0) for value in (*first.values(), *second.values()))
    interval = paired_difference_interval(won, lost, n) if once else _bootstrap(changes)
    return Difference(n, sum(changes) / n, interval, won, lost, mcnemar_exact(won, lost))


def compare(first: Scored, second: Scored) -> dict[str, Any]:
    """Return the comparison of two models: as a whole, by level and type, and problems to read."""
    refuse_different_yardsticks([first, second])
    before, after = first.means(), second.means()
    rows = {problem: completions[0] for problem, completions in second.by_problem.items()}
    return {
        "first": first.name,
        "second": second.name,
        "accuracy": [_mean(before), _mean(after)],
        **asdict(paired_difference(before, after)),
        "by_level": _by("level", rows, before, after),
        "by_type": _by("type", rows, before, after),
        "won_examples": _examples(first, second, [p for p in before if after[p] > before[p]]),
        "lost_examples": _examples(first, second, [p for p in before if after[p] < before[p]]),
    }


def _bootstrap(changes: Sequence[float]) -> tuple[float, float]:
    """Resample changes, which lie in [-1, 1]; its Wilson fallback wants shares."""
    low, high = bootstrap_interval([(1 + change) / 2 for change in changes])
    return 2 * low - 1, 2 * high - 1


def _by(
    key: str, rows: Mapping[str, Row], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Compare within each value of a column."""
    values = sorted({str(row[key]) for row in rows.values()})
    compared = {}
    for value in values:
        inside = [problem for problem, row in rows.items() if str(row[key]) == value]
        compared[value] = asdict(
            paired_difference({p: before[p] for p in inside}, {p: after[p] for p in inside})
        )
    return compared


def _examples(first: Scored, second: Scored, problems: Sequence[str]) -> list[dict[str, Any]]:
    """Show the first problems with what both answered."""
    shown = []
    for problem in problems[:_EXAMPLES]:
        one, other = first.by_problem[problem][0], second.by_problem[problem][0]
        shown.append(
            {
                "unique_id": problem,
                "problem": one["problem"],
                "reference": one["reference"],
                "first": {key: one[key] for key in ("outcome", "answer", "reason", "completion")},
                "second": {
                    key: other[key] for key in ("outcome", "answer", "reason", "completion")
                },
            }
        )
    return shown


def _mean(means: Mapping[str, float]) -> float:
    return sum(means.values()) / len(means)
