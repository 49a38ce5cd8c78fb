"""Read files of training rows: {problem, solution} or {prompt, completion}.

A row with `prompt` or `completion` is of the second kind, whatever else it holds. `answer` and
`unique_id` are taken where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.answers import answer_text, is_answer
from utils.data.json_lines import DataError
from utils.data.row_files import read_rows

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


def load_sft_rows(file: Path) -> list[SolutionRow | CompletionRow]:
    """Read a file of training rows.

    Raises:
        DataError: naming the line of a row with a missing or mistyped key, or an empty file.
    """
    return [_parse(row, file, number) for number, row in read_rows(file, "sft.files")]


def _parse(row: dict[str, Any], file: Path, number: int) -> SolutionRow | CompletionRow:
    where = f"{file}:{number}"
    stated = row.get("unique_id")
    name = f"{file.name}:{number}" if stated in (None, "") else str(stated)
    answer = _answer(row.get("answer"), where)
    if row.keys() & {"prompt", "completion"}:
        prompt = _text(row, "prompt", where)
        # An empty completion is no mistake of the file's: the build counts and leaves it out.
        completion = _text(row, "completion", where, may_be_blank=True)
        return CompletionRow(name, prompt, completion, answer)
    if row.keys() & {"problem", "solution"}:
        problem = _text(row, "problem", where)
        return SolutionRow(name, problem, _text(row, "solution", where), answer)
    raise DataError(f"{where}: {EXPECTED}; this one has the keys {sorted(map(str, row))}")


def _text(row: dict[str, Any], key: str, where: str, *, may_be_blank: bool = False) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        found = type(value).__name__ if key in row else "missing"
        raise DataError(f"{where}: key '{key}' must be a text, got {found}; {EXPECTED}")
    if not (may_be_blank or value.strip()):
        raise DataError(f"{where}: key '{key}' is blank; {EXPECTED}")
    return value


def _answer(value: Any, where: str) -> str | None:
    """Return the reference that a row states; what is no answer ("proof") is none."""
    try:
        text = answer_text(value)
    except TypeError as error:
        raise DataError(f"{where}: key 'answer' {error}") from None
    return text if is_answer(text) else None
