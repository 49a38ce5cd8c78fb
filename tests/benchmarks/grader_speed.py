"""Answers graded per second, ours beside math-verify, on one core and on two, and with bombs.

    python -m tests.benchmarks.grader_speed                          # generated problems
    python -m tests.benchmarks.grader_speed math_test.jsonl.gz       # rows with an `answer`

The mix is like a policy's on MATH: 45 % of the answers identical to the reference, 10 % rewritten,
45 % another problem's answer. Every grader runs in a process of its own with cold caches. "With
problems" is what a run pays: the problem's text is given, to tell an echo from an answer. The last
table grades the same number of answers in one batch with and without 5 % hostile ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from utils.data.problem_generator import generate_problems

Row = tuple[str, str, str]  # (answer, reference, the problem's text)
Rows = list[Row]
REWRITES: list[Callable[[str], str]] = [
    lambda text: f"${text}$",
    lambda text: text.replace(r"\frac", r"\dfrac"),
    lambda text: text.replace(" ", ""),
    lambda text: f"{text}.",
    lambda text: text.replace(r"\pi", "π"),
    lambda text: text.replace(r"\left", "").replace(r"\right", ""),
    lambda text: rf"\boxed{{{text}}}",
    lambda text: f"The answer is {text}",
]
HOSTILE_SHARE = 0.05


def main() -> None:
    given = parse_arguments()
    rows = mixture(read_problems(given.file), given.answers)
    print(f"{len(rows)} answers: 45 % identical, 10 % rewritten, 45 % another problem's\n")
    print(f"{'grader':<14}{'cores':>6}{'answers/s':>12}{'ratio':>8}{'correct':>9}  memory, MiB")
    baseline: dict[int, float] = {}
    graders = {"math-verify": math_verify, "ours": ours, "with problems": ours_with_problems}
    for name, grade in graders.items():
        for cores in (1, 2):
            seconds, correct, memory = on_cores(grade, rows, cores)
            rate = len(rows) / seconds
            baseline.setdefault(cores, rate)
            ratio = rate / baseline[cores]
            print(f"{name:<14}{cores:>6}{rate:>12,.0f}{ratio:>8.1f}{correct:>9}  {memory}")
    with_bombs(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, help="JSONL, may be gzipped")
    parser.add_argument("--answers", type=int, default=10_000)
    return parser.parse_args()


def read_problems(file: Path | None) -> list[tuple[str, str]]:
    """Read (reference, problem) of a file, or make some."""
    if file is None:
        made = generate_problems(4_000, "test", seed=1)
        return [(problem.answer, problem.problem) for problem in made]
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["answer"], row["problem"]) for row in rows if row["answer"]]


def mixture(problems: list[tuple[str, str]], count: int) -> Rows:
    """Draw the rows of the mix."""
    generator = random.Random(0)
    rows = []
    for index in range(count):
        (reference, problem), kind = generator.choice(problems), index % 20
        if kind < 9:
            answer = reference
        elif kind < 11:
            answer = generator.choice(REWRITES)(reference)
        else:
            answer = generator.choice(problems)[0]
        rows.append((answer, reference, problem))
    generator.shuffle(rows)
    return rows


def math_verify(rows: Rows) -> int:
    """Grade with math-verify as its documentation shows it; its timeouts are on."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    return sum(verify(parse(f"${gold}$"), parse(f"${answer}$")) for answer, gold, _ in rows)


def ours(rows: Rows) -> int:
    """Grade with `grade_batch`."""
    return graded_correct(rows, None)


def ours_with_problems(rows: Rows) -> int:
    """Grade with `grade_batch`, each problem's text given."""
    return graded_correct(rows, [problem for *_, problem in rows])


def graded_correct(rows: Rows, problems: list[str] | None) -> int:
    """Count the answers that `grade_batch` finds correct."""
    from utils.drgrpo_grader import grade_batch

    responses = [f"</think> <answer>{answer}</answer>" for answer, *_ in rows]
    references = [reference for _, reference, _ in rows]
    grades = grade_batch(responses, references, problems=problems)
    return sum(grade.outcome == "correct" for grade in grades)


def on_cores(grade: Callable[[Rows], int], rows: Rows, cores: int) -> tuple[float, int, str]:
    """Grade in one process a core; return the longest seconds, the correct ones and the memory."""
    shares = [rows[index::cores] for index in range(cores)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        results = pool.starmap(timed, [(grade, share, i) for i, share in enumerate(shares)], 1)
    parents = " + ".join(f"{own}" for _, _, own, _ in results)
    children = " + ".join(f"{child}" for *_, child in results if child)
    memory = f"{parents}" + (f", children {children}" if children else "")
    return max(item[0] for item in results), sum(item[1] for item in results), memory


def timed(grade: Callable[[Rows], int], rows: Rows, core: int) -> tuple[float, int, int, int]:
    """Grade on one core, after a first answer that loads what is loaded once."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    grade([(r"\sin^2 q", r"1 - \cos^2 q", "Simplify.")])
    started = time.perf_counter()
    correct = grade(rows)
    seconds = time.perf_counter() - started
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return seconds, correct, own, children_mib()


def children_mib() -> int:
    """Sum the resident memory of this process's children."""
    total = 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        status = Path(f"/proc/{child}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total // 1024


def with_bombs(rows: Rows) -> None:
    """Compare one batch with and without hostile answers."""
    context = multiprocessing.get_context("spawn")
    print(f"\n{'batch':<28}{'answers/s':>12}{'ratio':>8}  statistics")
    rates = []
    for name, share in (("without bombs", 0.0), (f"{HOSTILE_SHARE:.0%} bombs", HOSTILE_SHARE)):
        with context.Pool(1) as pool:
            seconds, statistics = pool.apply(grade_with_bombs, (rows, share))
        rates.append(len(rows) / seconds)
        events = ("symbolic_calls", "timeouts", "kills", "guard_hits", "cache_hits")
        told = ", ".join(f"{event} {statistics.get(event, 0)}" for event in events)
        print(f"{name:<28}{rates[-1]:>12,.0f}{rates[-1] / rates[0]:>8.2f}  {told}")


def grade_with_bombs(rows: Rows, share: float) -> tuple[float, dict[str, int]]:
    """Replace a share of the answers by distinct hostile ones and grade the batch."""
    from tests.unit.grading.hostile import responses
    from utils.drgrpo_grader import grade_batch, grading_statistics

    bombs = [text for family in responses("/nonexistent/canary").values() for text in family]
    generator = random.Random(0)
    texts = [f"</think> <answer>{answer}</answer>" for answer, *_ in rows]
    for position in generator.sample(range(len(texts)), int(share * len(texts))):
        texts[position] = generator.choice(bombs)
    grade_batch([r"</think> <answer>\sin^2 q</answer>"] * 2, [r"1 - \cos^2 q", r"\sin^2 (q)"])
    started = time.perf_counter()
    grade_batch(texts, [reference for _, reference, _ in rows])
    return time.perf_counter() - started, grading_statistics()


if __name__ == "__main__":
    main()
