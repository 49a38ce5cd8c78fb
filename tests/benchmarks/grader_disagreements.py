"""Grade a run's own completions with math-verify too, and print where the two graders differ.

    python -m tests.benchmarks.grader_disagreements results/tiny/*/completions.jsonl

Only well-formed completions are compared: math-verify knows no format. Each disagreement is to be
read; what was found stands in utils/grading/README.md.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

from math_verify import parse, verify

from src.run.files import read_jsonl
from utils.drgrpo_grader import grade

SHOWN = 200


def main(files: list[Path]) -> None:
    logging.disable(logging.CRITICAL)
    table: Counter[tuple[bool, bool]] = Counter()
    seen: set[tuple[str, str]] = set()
    shown = 0
    for file in files:
        for row in read_jsonl(file):
            found = grade(row["completion"], row["reference"])
            if found.outcome == "format_failure" or found.answer is None:
                continue
            ours = found.outcome == "correct"
            theirs = bool(verify(parse(f"${row['reference']}$"), parse(f"${found.answer}$")))
            table[ours, theirs] += 1
            pair = (found.answer, row["reference"])
            if ours != theirs and pair not in seen and shown < SHOWN:
                seen.add(pair)
                shown += 1
                print(f"ours {found.outcome} ({found.stage}), math-verify {theirs}: {pair}")
    total = sum(table.values())
    print(f"\n{total} well-formed completions; both correct {table[True, True]}, both not")
    print(f"{table[False, False]}, only ours {table[True, False]}, only math-verify", end=" ")
    print(f"{table[False, True]}; {shown} different disagreements shown")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
