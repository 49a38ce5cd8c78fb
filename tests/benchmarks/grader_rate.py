"""Answers graded a second on one core, ours beside math-verify: the short form of `grader_speed`.

python -m tests.benchmarks.grader_rate --rows math_test.jsonl.gz    # 2 minutes
python -m tests.benchmarks.grader_rate --quick
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.benchmarks.grader_speed import math_verify, mixture, on_cores, ours, read_references
from tests.benchmarks.table import Row, alternate, listed, parser, report


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(rows: Path | None, quick: bool) -> list[Row]:
    """Grade the same mixture with cold caches, in turn."""
    answers, rounds = (200, 1) if quick else (10_000, 2)
    pairs = mixture(read_references(rows), answers)
    found = alternate(
        {
            "ours": lambda: on_cores(ours, pairs, 1)[0],
            "math-verify": lambda: on_cores(math_verify, pairs, 1)[0],
        },
        rounds,
    )
    rates = {name: [answers / seconds for seconds in times] for name, times in found.items()}
    return [
        Row(
            "grader_rate, one core",
            "math-verify 0.9",
            median(rates["ours"]) / median(rates["math-verify"]),
            "",
            f"answers/s: ours {listed(rates['ours'], '.0f')}, math-verify "
            f"{listed(rates['math-verify'], '.0f')}; {answers} answers to "
            f"{'generated problems' if rows is None else f'the references of {rows.name}'}, 45 % "
            "identical, 10 % rewritten, 45 % another problem's; caches cold",
        )
    ]


if __name__ == "__main__":
    main()
