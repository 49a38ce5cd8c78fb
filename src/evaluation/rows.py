"""Completions as rows with their grades: what an evaluation writes, and what is graded again.

Those of an evaluation that still runs are kept too, so that one killed can go on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.run.files import append_jsonl, drop_torn_line, read_jsonl, write_jsonl_atomic
from utils.drgrpo_grader import grade_batch
from utils.grading.faults import fault_of
from utils.grading.outcome import Grade

Row = dict[str, Any]


def grade_rows(rows: Sequence[Row], *, fast: bool = True) -> list[Row]:
    """Return completions of one prompt with their grades, whatever grades they had.

    Args:
        rows: with `problem`, `completion`, `reference`, `truncated` and `form`, where the prompt
            asks for the answer.
    """
    if not rows:
        return []
    form = rows[0]["form"]
    texts = [row["completion"] for row in rows]
    references = [row["reference"] for row in rows]
    problems = [row["problem"] for row in rows]
    grades = grade_batch(texts, references, fast, form=form, problems=problems)
    malformed = [i for i, grade in enumerate(grades) if grade.outcome == "format_failure"]
    anywhere = grade_batch(
        [texts[i] for i in malformed],
        [references[i] for i in malformed],
        fast,
        form="anywhere",
        problems=[problems[i] for i in malformed],
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


LOGGER = logging.getLogger(__name__)


class PartialRows:
    """`<file>.partial`: first what is evaluated, then a row for each completion as it is graded.

    Without a file nothing is kept.

    Args:
        file: where the whole evaluation will be written.
        identity: what makes two evaluations the same; rows of another one are not taken.
        share: which engine of how many, `0 of 1`; each keeps the rows of its own share.
    """

    def __init__(
        self, file: Path | None, identity: Mapping[str, Any], share: str = "0 of 1"
    ) -> None:
        self._file = file
        self._identity = {"evaluation": dict(identity)}
        self._share = "" if share == "0 of 1" else f"-{share.replace(' ', '-')}"

    def begin(self) -> list[Row]:
        """Return the rows that an interrupted evaluation of the same thing left behind."""
        if self._file is None:
            return []
        drop_torn_line(self._partial)
        head, *rows = (self._partial.is_file() and read_jsonl(self._partial)) or [{}]
        rows = rows if head == self._identity else []
        if rows:
            LOGGER.info("%s: going on after %d completions", self._file, len(rows))
        self._file.unlink(missing_ok=True)
        write_jsonl_atomic(self._partial, [self._identity, *rows])
        return rows

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows as they are graded."""
        if self._file is not None:
            append_jsonl(self._partial, rows)

    @property
    def _partial(self) -> Path:
        assert self._file is not None
        return self._file.with_name(f"{self._file.name}.partial{self._share}")


def write_whole(file: Path, rows: Sequence[Row]) -> None:
    """Write a whole evaluation in the place of what was kept while it ran."""
    write_jsonl_atomic(file, rows)
    for partial in file.parent.glob(f"{file.name}.partial*"):
        partial.unlink()
