"""Score a model on problems: generate, grade, count. Every stage's figures come from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.config.schema import SamplingConfig
from src.data.prompts import PromptTemplate
from src.engine.generator import Completion, Generator, sample_seed
from src.evaluation.figures import EvalReport, summarise
from src.evaluation.rows import PartialRows, Row, grade_rows
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


def evaluate(
    generator: Generator,
    task: EvalTask,
    *,
    checkpoint: str,
    shared: bool = False,
    beat: Callable[[], None] = lambda: None,
) -> EvalReport:
    """Generate completions, grade them while generation goes on, and count.

    What an interrupted evaluation of the same checkpoint and task has left is taken over.

    Args:
        checkpoint: named in the report.
        shared: all launched processes call this, each with an engine; each takes its share of the
            problems, and all get the report.
        beat: called as grading goes on when all is generated.
    """
    rank, processes = (process_rank(), process_count()) if shared else (0, 1)
    hashes = recorded_hashes(Path(checkpoint))
    identity = {"checkpoint": checkpoint, "weights": hashes, "samples": task.samples}
    partial = PartialRows(
        task.completions_file, identity | task.yardstick(), f"{rank} of {processes}"
    )
    rows = partial.begin()
    seconds = {"grade": 0.0}
    taken = sum(row["tokens"] for row in rows)
    own = replace(task, problems=task.problems[rank::processes])
    rows += _made(generator, own, partial, {_key(row) for row in rows}, seconds, beat)
    if processes > 1:
        rows = gathered(rows)
        taken = sum(gathered([taken]))
        slowest = gathered([seconds])
        seconds = {part: max(each[part] for each in slowest) for part in seconds}
    place = {problem.unique_id: index for index, problem in enumerate(task.problems)}
    rows.sort(key=lambda row: (place[row["unique_id"]], row["sample"]))
    if rank == 0:
        partial.finish(rows)
    report = summarise(rows, split=task.name, checkpoint=checkpoint, seconds=seconds, ks=task.ks)
    made = sum(row["tokens"] for row in rows) - taken
    return replace(
        report,
        seed=task.seed,
        sampling=task.sampling.model_dump(mode="json"),
        tokens_per_s=made / max(seconds["generate"], 1e-9),
        nll=_mean_nll(generator, task),
    )


Ended = tuple[Problem, int, Completion]
"""A problem, the index of its sample, and the completion."""


def _made(
    generator: Generator,
    task: EvalTask,
    partial: PartialRows,
    done: set[tuple[str, int]],
    seconds: dict[str, float],
    beat: Callable[[], None],
) -> list[Row]:
    """Generate and grade the completions that are not there yet."""
    started = time.perf_counter()
    total = len(task.problems) * task.samples
    made: list[Row] = []

    def graded(batch: Sequence[Ended]) -> list[Row]:
        """Grade a batch and write it down; the grading thread alone runs this."""
        began = time.perf_counter()
        rows = grade_rows([_row(*item, task.prompt.form) for item in batch])
        seconds["grade"] += time.perf_counter() - began
        partial.add(rows)
        return rows

    with (
        Progress(f"{task.name} evaluation", total, "completions", len(done)) as progress,
        ThreadPoolExecutor(1, "grader") as grader,
    ):
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
    return made


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
