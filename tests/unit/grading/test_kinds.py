"""Answers by kind, labelled from mathematics alone: whoever wrote them had not read the grader."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from utils.drgrpo_grader import grade_batch

ROWS = [json.loads(line) for line in (Path(__file__).parent / "kinds.jsonl").open(encoding="utf-8")]
# Right, and refused: a sentence, a determinant, a product of logarithms that reads in two ways.
KNOWN_TO_BE_REFUSED = {
    ("\\$18", "Janet makes \\$18 every day."),
    ("-2", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"),
    ("2", "\\log_{2}3\\cdot\\log_{3}4"),
    ("\\log_{2}3\\cdot\\log_{3}4", "2"),
}
BY_KIND = defaultdict(list)
for row in ROWS:
    BY_KIND[row["kind"]].append(row)


@pytest.mark.parametrize("kind", BY_KIND)
def test_cases_of_a_kind(kind):
    rows = BY_KIND[kind]
    responses = [f"so</think> <answer>{row['pred']}</answer>" for row in rows]
    grades = grade_batch(responses, [row["gold"] for row in rows])
    paid = [row for row, grade in zip(rows, grades, strict=True)
            if grade.reward and not row["equal"]]  # fmt: skip
    refused = [
        (row["gold"], row["pred"])
        for row, grade in zip(rows, grades, strict=True)
        if row["equal"] and not grade.reward
    ]
    assert paid == []
    assert [pair for pair in refused if pair not in KNOWN_TO_BE_REFUSED] == []
