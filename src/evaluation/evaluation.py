"""Score a model on problems: generate, grade, count. Every stage's figures come from here.

Several engines may take a share of the problems each. A completion has a seed of its own, so what
is counted is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from src.config.schema import SamplingConfig
from src.data.prompts import PromptTemplate
from src.engine.generator import Completion, Generator, sample_seed
from src.evaluation.figures import EvalReport, summarise
from src.evaluation.rows import PartialRows, Row, grade_rows, write_whole
from src.run.processes import process_count, process_rank
from src.run.terminal import Progress
from src.training.batching import Example
from src.training.checkpoints import recorded_hashes
from src.training.parallel import gathered
from utils.data.problem import Problem
from utils.dataset_loader import problems_sha256
from utils.grading.answer_forms import FormName

# Completions graded together while generation goes on: so many, or those of so many seconds.
_GRADED_TOGETHER = 64
_GRADED_EVERY_S = 20.0
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class EvalTask:
    """What to score: problems under a prompt and a way of sampling.

    `samples` completions are drawn a problem, with pass@k and maj@k for each of `ks` (by default
    powers of two). The mean loss of `targets` is measured where there are any. `completions_file`
    (JSONL) receives every completion with its grade; replaced. `variant` tells tasks on the same
    split apart, as by prompt; completions are seeded by the split alone.
    """

    split: str
    problems: Sequence[Problem]
    prompt: PromptTemplate
    sampling: SamplingConfig
    seed: int
    samples: int = 1
    ks: Sequence[int] = ()
    targets: Sequence[Example] = ()
    completions_file: Path | None = None
    variant: str = ""

    @property
    def name(self) -> str:
        """What the task is asked for by, such as `test` or `test-greedy`."""
        return f"{self.split}-{self.variant}" if self.variant else self.split

    def yardstick(self) -> dict[str, Any]:
        """Return what two accuracies must share to be compared."""
        return {
            "test_set": {"n": len(self.problems), "sha256": problems_sha256(self.problems)},
            "prompt_sha256": self.prompt.sha256,
            "sampling": {**self.sampling.model_dump(mode="json"), "seed": self.seed},
        }


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the problems one engine takes: every `count`-th, from `index` on."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Deal out this share of something.

        >>> Share(1, 2).of("abcde")
        'bd'
        """
        return items[self.index :: self.count]


@dataclass(frozen=True, slots=True)
class Graded:
    """What one engine has made of its share of a task."""

    rows: list[Row]
    seconds: dict[str, float]
    taken: int
    """Tokens of the completions that an interrupted evaluation left."""
    nll: list[tuple[float, int]]
    """Summed log-probability and number of the tokens of each target."""


def evaluate(
    generator: Generator,
    task: EvalTask,
    *,
    checkpoint: str,
    shared: bool = False,
    beat: Callable[[], None] = lambda: None,
) -> EvalReport:
    """Generate completions, grade them while generation goes on, and count.

    Args:
        checkpoint: named in the report.
        shared: all launched processes call this, each with an engine; each takes its share of the
            problems, and all get the report.
        beat: called as grading goes on when all is generated.
    """
    share = Share(process_rank(), process_count()) if shared else Share()
    own = grade_share(generator, task, share, checkpoint=checkpoint, beat=beat)
    parts = gathered([own]) if share.count > 1 else [own]
    return count_up(task, parts, checkpoint=checkpoint, written=share.index == 0)


def grade_share(
    generator: Generator,
    task: EvalTask,
    share: Share,
    *,
    checkpoint: str,
    beat: Callable[[], None] = lambda: None,
) -> Graded:
    """Generate and grade one share of a task.

    What an interrupted evaluation of the same checkpoint and task has left of it is taken over.
    """
    hashes = recorded_hashes(Path(checkpoint))
    identity = {"checkpoint": checkpoint, "weights": hashes, "samples": task.samples}
    partial = PartialRows(
        task.completions_file, identity | task.yardstick(), f"{share.index} of {share.count}"
    )
    rows = partial.begin()
    taken = sum(row["tokens"] for row in rows)
    own = replace(task, problems=share.of(task.problems), targets=share.of(task.targets))
    done = {_key(row) for row in rows}
    label = f"{task.name} evaluation"
    if share.count > 1:
        label += f", engine {share.index + 1} of {share.count}"
    total = len(own.problems) * task.samples
    # One bar to a terminal: the others', which go on alike, would be drawn over it.
    progress = Progress(label, total, "completions", len(done), bar=share.index == 0)
    made, seconds = _made(generator, own, partial, done, progress, beat)
    return Graded(rows + made, seconds, taken, _target_scores(generator, own))


def count_up(
    task: EvalTask, parts: Sequence[Graded], *, checkpoint: str, written: bool = True
) -> EvalReport:
    """Put the shares of a task together and count; the same however many there are.

    Args:
        parts: in the order of their shares.
        written: to the task's file, if it has one.

    Raises:
        RuntimeError: when the shares are not the whole of the task.
    """
    place = {problem.unique_id: index for index, problem in enumerate(task.problems)}
    rows = [row for part in parts for row in part.rows]
    rows.sort(key=lambda row: (place[row["unique_id"]], row["sample"]))
    if len(rows) != len(task.problems) * task.samples:
        raise RuntimeError(
            f"{task.name}: {len(rows)} completions of {len(parts)} share(s), expected "
            f"{len(task.problems)} problems x {task.samples}"
        )
    if written and task.completions_file is not None:
        write_whole(task.completions_file, rows)
    seconds = {name: max(part.seconds[name] for part in parts) for name in parts[0].seconds}
    report = summarise(rows, split=task.name, checkpoint=checkpoint, seconds=seconds, ks=task.ks)
    made = sum(row["tokens"] for row in rows) - sum(part.taken for part in parts)
    return replace(
        report,
        seed=task.seed,
        sampling=task.sampling.model_dump(mode="json"),
        tokens_per_s=made / max(seconds["generate"], 1e-9),
        nll=_mean_nll(parts),
    )


Ended = tuple[Problem, int, Completion]
"""A problem, the index of its sample, and the completion."""


def _made(
    generator: Generator,
    task: EvalTask,
    partial: PartialRows,
    done: set[tuple[str, int]],
    progress: Progress,
    beat: Callable[[], None],
) -> tuple[list[Row], dict[str, float]]:
    """Generate and grade the completions that are not there yet; return them and the seconds."""
    started, seconds = time.perf_counter(), {"grade": 0.0}
    made: list[Row] = []

    def graded(batch: Sequence[Ended]) -> list[Row]:
        """Grade a batch and write it down; the grading thread alone runs this."""
        began = time.perf_counter()
        rows = grade_rows([_row(*item, task.prompt.form) for item in batch])
        seconds["grade"] += time.perf_counter() - began
        partial.add(rows)
        return rows

    with progress, ThreadPoolExecutor(1, "grader") as grader:
        batches = []
        for batch in _ended_together(_generated(generator, task, done)):
            batches.append(grader.submit(graded, batch))
            progress.advance(len(batch))
        seconds["generate"] = time.perf_counter() - started
        for result in batches:
            made += result.result()
            beat()
    # Grading beyond the end of generation is all that it costs.
    seconds["grade_wait"] = time.perf_counter() - started - seconds["generate"]
    return made, seconds


def _generated(generator: Generator, task: EvalTask, done: set[tuple[str, int]]) -> Iterator[Ended]:
    """Yield completions as they end."""
    asked = [
        (problem, sample)
        for problem in task.problems
        for sample in range(task.samples)
        if (problem.unique_id, sample) not in done
    ]
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
    batch: list[Ended] = []
    began = time.monotonic()
    for item in ended:
        batch.append(item)
        if len(batch) == _GRADED_TOGETHER or time.monotonic() - began > _GRADED_EVERY_S:
            yield batch
            batch, began = [], time.monotonic()
    if batch:
        yield batch


def _target_scores(generator: Generator, task: EvalTask) -> list[tuple[float, int]]:
    """Score the task's targets by the engine's own log-probabilities."""
    if not task.targets:
        return []
    logprobs = generator.prompt_logprobs([list(example.ids) for example in task.targets])
    # The first token has no log-probability, so a target's scores begin one place earlier.
    scores = [
        row[example.prompt_tokens - 1 :]
        for row, example in zip(logprobs, task.targets, strict=True)
    ]
    return [(sum(row), len(row)) for row in scores]


def _mean_nll(parts: Sequence[Graded]) -> float | None:
    """Return the mean loss of all target tokens; None without targets."""
    dealt = [part.nll for part in parts]
    # In the order of the targets: sums of floats depend on it in their last digits.
    scores = [score for turn in zip_longest(*dealt) for score in turn if score is not None]
    if not scores:
        return None
    return -sum(total for total, _ in scores) / sum(count for _, count in scores)


def _key(row: Row) -> tuple[str, int]:
    return row["unique_id"], row["sample"]


def _row(problem: Problem, sample: int, completion: Completion, form: FormName) -> Row:
    return {
        "unique_id": problem.unique_id,
        "problem": problem.problem,
        "reference": problem.answer,
        "level": problem.level,
        "type": problem.type,
        "sample": sample,
        "form": form,
        "completion": completion.text,
        "tokens": completion.tokens,
        "truncated": completion.truncated,
    }
