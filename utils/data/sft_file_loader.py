"""Read training rows: {prompt, completion}, or problems with solutions as of any data set.

A row with `completion` is of the first kind: its texts are taught as they are. `answer` and
`unique_id` are taken where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.data.answers import answer_text, is_answer
from utils.data.columns import Columns, read_text, read_texts
from utils.data.json_lines import DataError
from utils.data.sources import DataRow, Source, describe_reading

EXPECTED = "each row needs the texts {problem, solution} or {prompt, completion}"


@dataclass(frozen=True, slots=True)
class SolutionRow:
    """A problem and its worked solution; `answer` is None where the row states none."""

    id: str
    problem: str
    solution: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """The exact texts of a prompt and of its completion."""

    id: str
    prompt: str
    completion: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class SftRows:
    """The rows of a source, and what it was found to be."""

    rows: list[SolutionRow | CompletionRow]
    recognised: str


def load_sft_rows(source: Source) -> SftRows:
    """Read the training rows of a file, a folder or a data set of the hub.

    Raises:
        DataError: naming the line of a row with a missing or mistyped key, or an empty file.
    """
    rows = list(source.rows())
    plain = [row for row in rows if "completion" not in row.content]
    columns = source.recognised(plain) if plain else Columns("prompt", "completion")
    read = [
        _solution_row(row, columns) if "completion" not in row.content else _completion_row(row)
        for row in rows
    ]
    solved = sum(isinstance(row, CompletionRow) or bool(row.solution) for row in read)
    return SftRows(read, describe_reading(source, len(rows), columns, solved))


def _solution_row(row: DataRow, columns: Columns) -> SolutionRow:
    texts = read_texts(row.content, columns, row.where)
    if not texts.solution and columns.solution:  # missing, unless a flag says that it is wrong
        read_text(row.content, "solution", columns.solution, row.where)
    return SolutionRow(_id(row), texts.problem, texts.solution, _reference(texts.answer))


def _completion_row(row: DataRow) -> CompletionRow:
    prompt = _text(row, "prompt")
    # An empty completion is no mistake of the file's: the build counts and leaves it out.
    completion = _text(row, "completion", may_be_blank=True)
    try:
        stated = answer_text(row.content.get("answer"))
    except TypeError as error:
        raise DataError(f"{row.where}: key 'answer' {error}") from None
    return CompletionRow(_id(row), prompt, completion, _reference(stated))


def _text(row: DataRow, key: str, *, may_be_blank: bool = False) -> str:
    value: Any = row.content.get(key)
    if not isinstance(value, str):
        found = type(value).__name__ if key in row.content else "missing"
        raise DataError(f"{row.where}: key '{key}' must be a text, got {found}; {EXPECTED}")
    if not (may_be_blank or value.strip()):
        raise DataError(f"{row.where}: key '{key}' is blank; {EXPECTED}")
    return value


def _id(row: DataRow) -> str:
    stated = row.content.get("unique_id")
    return f"{row.name}:{row.number}" if stated in (None, "") else str(stated)


def _reference(stated: str) -> str | None:
    """Return the reference that a row states; what is no answer ("proof") is none."""
    return stated if is_answer(stated) else None
