"""Expert iteration: draw completions of the training problems and train on the correct ones.

After STaR (arXiv:2203.14465) and ReST-EM (arXiv:2312.06585): in each round the policy answers every
training problem several times, the grader keeps what is correct, and the next policy is trained on
that.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError
from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.run.files import read_jsonl
from src.sft.rows import SftRow
from src.training.checkpoints import Checkpoint
from utils.data.problem import Problem
from utils.dataset_loader import ProblemSet

LOGGER = logging.getLogger(__name__)

TraceRow = Mapping[str, Any]
"""One graded completion, as `evaluate` writes it to the completions file."""


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """What became of the completions of all rounds: correct = duplicates + over_limit + kept."""

    drawn: int
    correct: int
    """Graded as correct and not cut by the token limit."""
    duplicates: int
    """Same text as another correct completion of the problem, white space aside."""
    over_limit: int
    """Distinct, but more than `sft.max_per_problem`."""
    kept: int
    problems: int
    problems_solved: int
    """Problems with at least one correct completion."""

    def outcome(self) -> dict[str, int]:
        """Return what `outcome.json` holds."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Traces:
    """Training rows made of completions, and the counts behind them."""

    rows: list[SftRow]
    counts: TraceCounts


def trace_task(
    config: Config, problems: ProblemSet, prompt: PromptTemplate, folder: Path, round_number: int
) -> EvalTask:
    """Return what to draw in a round (1 is the first); its file is `traces_<round>.jsonl`."""
    # The split's name is part of each completion's seed, so every round draws anew.
    return EvalTask(
        f"traces_{round_number}",
        problems.train,
        prompt,
        config.sampling,
        config.run.seed,
        samples=config.sft.samples,
        completions_file=folder / f"traces_{round_number}.jsonl",
    )


def draw_traces(worker: EvalWorker, checkpoint: Checkpoint, task: EvalTask) -> list[dict[str, Any]]:
    """Draw and grade the completions of a round; a file that is already whole is taken instead."""
    if task.completions_file is None:
        raise ValueError(f"{task.split}: completions_file is needed, the traces are read from it")
    drawn = _drawn_before(task, task.completions_file)
    if drawn:
        LOGGER.info("%s: taking the %d completions drawn earlier", task.split, len(drawn))
        return drawn
    worker.define(task)
    worker.evaluate(checkpoint, task.split)
    return read_jsonl(task.completions_file)


def select_traces(
    rounds: Sequence[Sequence[TraceRow]], template: PromptTemplate, max_per_problem: int
) -> Traces:
    """Keep correct completions of all rounds so far, distinct and at most so many a problem.

    Raises:
        ConfigError: when a round has no correct completion.
    """
    by_problem: dict[str, dict[str, SftRow]] = {}  # problem -> folded completion -> row
    correct = 0
    for number, drawn in enumerate(rounds, 1):
        found = [row for row in drawn if row["outcome"] == "correct" and not row["truncated"]]
        if not found:
            raise ConfigError(_nothing_correct(number, drawn))
        correct += len(found)
        for row in found:
            folded = " ".join(row["completion"].split())
            made = by_problem.setdefault(row["problem"], {})
            made.setdefault(folded, _sft_row(row, number, template))
    rows = [
        row
        for problem, made in by_problem.items()
        for row in _chosen(problem, made, max_per_problem)
    ]
    distinct = sum(map(len, by_problem.values()))
    counts = TraceCounts(
        drawn=sum(map(len, rounds)),
        correct=correct,
        duplicates=correct - distinct,
        over_limit=distinct - len(rows),
        kept=len(rows),
        problems=len({row["problem"] for drawn in rounds for row in drawn}),
        problems_solved=len(by_problem),
    )
    LOGGER.info("traces after round %d: %s", len(rounds), _in_words(counts))
    return Traces(rows, counts)


def _drawn_before(task: EvalTask, file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that holds every sample of every problem, else none."""
    # Lines are counted first: a file that was cut short may end in half a row.
    if not file.is_file() or _line_count(file) != len(task.problems) * task.samples:
        return []
    rows = read_jsonl(file)
    wanted = Counter((item.problem, n) for item in task.problems for n in range(task.samples))
    return rows if Counter((row["problem"], row["sample"]) for row in rows) == wanted else []


def _line_count(file: Path) -> int:
    with file.open("rb") as stream:
        return sum(line.endswith(b"\n") for line in stream)


def _sft_row(row: TraceRow, round_number: int, template: PromptTemplate) -> SftRow:
    name = f"{row['unique_id']}#{round_number}.{row['sample']}"
    problem = Problem(row["problem"], "", row["reference"], None, "unknown", row["unique_id"])
    return SftRow(name, template.render(problem), row["completion"], row["reference"])


def _chosen(problem: str, made: Mapping[str, SftRow], limit: int) -> list[SftRow]:
    """Choose by a hash of the text, so that the choice is the same each time."""

    # Not the shortest, which would teach to skip steps, and not the first, which would shut out
    # what later rounds find.
    def rank(text: str) -> bytes:
        return hashlib.sha256(f"{problem}\n{text}".encode()).digest()

    return [made[text] for text in sorted(made, key=rank)[:limit]]


def _nothing_correct(round_number: int, drawn: Sequence[TraceRow]) -> str:
    outcomes = Counter(row["outcome"] for row in drawn)
    listed = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return (
        f"sft.source=rejection_sampling: none of the {len(drawn)} completions of round "
        f"{round_number} is correct and whole ({listed}); draw more (sft.samples), train on easier "
        "problems, or start from a model trained on solutions: --set sft.source=solutions, then "
        "model.path=<its checkpoint>"
    )


def _in_words(counts: TraceCounts) -> str:
    return (
        f"{counts.drawn} drawn, {counts.correct} correct "
        f"({counts.correct / counts.drawn:.1%}), {counts.duplicates} duplicates, "
        f"{counts.over_limit} over the limit a problem, {counts.kept} kept; "
        f"{counts.problems_solved} of {counts.problems} problems solved"
    )
