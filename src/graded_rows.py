"""Completions as rows with their grades: what an evaluation writes, and what is graded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.drgrpo_grader import Grade, grade_batch
from utils.faults import fault_of

Row = dict[str, Any]


def grade_rows(rows: Sequence[Row], *, fast: bool = True) -> list[Row]:
    """Return completions of one prompt with their grades, whatever grades they had.

    Args:
        rows: with `completion`, `reference`, `truncated` and `form`, where the prompt asks for the
            answer.
    """
    if not rows:
        return []
    form = rows[0]["form"]
    texts = [row["completion"] for row in rows]
    references = [row["reference"] for row in rows]
    grades = grade_batch(texts, references, fast, form=form)
    malformed = [i for i, grade in enumerate(grades) if grade.outcome == "format_failure"]
    anywhere = grade_batch(
        [texts[i] for i in malformed], [references[i] for i in malformed], fast, form="anywhere"
    )
    found = [grade.outcome == "correct" for grade in grades]
    for index, grade in zip(malformed, anywhere, strict=True):
        found[index] = grade.outcome == "correct"
    return [
        row | _grade_columns(row, grade, is_found)
        for row, grade, is_found in zip(rows, grades, found, strict=True)
    ]


def _grade_columns(row: Row, grade: Grade, found: bool) -> Row:
    return {
        "answer": grade.answer,
        "outcome": grade.outcome,
        "decided_by": grade.stage,
        "reason": grade.reason,
        "found": found,
        "fault": fault_of(
            row["completion"], row["reference"], grade, truncated=row["truncated"], found=found
        ),
    }
