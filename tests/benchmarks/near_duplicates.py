"""Training rows compared with a protected set, rows/s: the prefix filter beside every pair.

    python -m tests.benchmarks.near_duplicates --rows math_train.jsonl.gz
    python -m tests.benchmarks.near_duplicates --rows math_train.jsonl.gz --count 1000000

Rows are the file's (or generated) problems with a fifth of their words replaced at random, so that
none is a copy of another; every hundredth is a protected problem with one word replaced. Both sides
see the same rows; the pairwise side, far fewer of them.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tests.benchmarks.table import Row, parser, report
from utils.data.near_duplicates import THRESHOLD, find_duplicates, jaccard, shingles
from utils.data.problem_generator import generate_problems
from utils.data.row_files import read_rows

PROTECTED, PAIRWISE, PLANTED_EVERY = 5000, 200, 100


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=50_000, help="rows of the filter's side")
    given = options.parse_args()
    count = 4_000 if given.quick else given.count
    texts = problems(given.rows)
    protected = texts[: min(PROTECTED, len(texts) // 2)]
    others = texts[len(protected) :]

    started = time.perf_counter()
    found = {match.index for match in find_duplicates(made(others, protected, count), protected)}
    hashed_s = time.perf_counter() - started
    started = time.perf_counter()
    expected = pairwise(list(made(others, protected, PAIRWISE)), protected)
    pairwise_s = time.perf_counter() - started

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    missed = len(expected - found)
    detail = (
        f"{count:,} rows against {len(protected):,} in {hashed_s:.0f} s ({count / hashed_s:,.0f} "
        f"rows/s, index included), {memory:.1f} GiB; pair by pair "
        f"{PAIRWISE / pairwise_s:,.0f} rows/s; of {len(expected)} near copies among the first "
        f"{PAIRWISE} rows {missed} missed"
    )
    ratio = (count / hashed_s) / (PAIRWISE / pairwise_s)
    report([Row("near-duplicates, rows/s", "Jaccard of every pair", ratio, "", detail)],
           given.output)  # fmt: skip


def problems(file: Path | None) -> list[str]:
    if file is None:
        return [problem.problem for problem in generate_problems(8_000, "train", seed=1)]
    return [row["problem"] for _, row in read_rows(file)]


def made(texts: Sequence[str], protected: Sequence[str], count: int) -> Iterator[str]:
    """Yield the same rows each time."""
    draw = random.Random(0)
    vocabulary = [word for text in islice(texts, 500) for word in text.split()]
    for number in range(count):
        planted = number % PLANTED_EVERY == 0
        words = draw.choice(protected if planted else texts).split()
        places = 1 if planted else max(len(words) // 5, 1)
        for place in draw.sample(range(len(words)), min(places, len(words))):
            words[place] = draw.choice(vocabulary)
        yield " ".join(words)


def pairwise(texts: Sequence[str], protected: Sequence[str]) -> set[int]:
    """Find near copies by the definition."""
    cut = [shingles(text) for text in protected]
    return {
        index
        for index, text in enumerate(texts)
        if max(jaccard(shingles(text), other) for other in cut) >= THRESHOLD
    }


if __name__ == "__main__":
    main()
