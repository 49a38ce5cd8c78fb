"""Read files of training rows: {problem, solution} or {prompt, completion}.

A row with `prompt` or `completion` is of the second kind, whatever else it holds. `answer` and
`unique_id` are taken where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.row_files import DataError, read_rows

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
    """Read a JSONL, JSONL.gz or Parquet file of training rows.

    Raises:
        DataError: naming the line of a row with a missing or mistyped key, or an empty file.
    """
    rows = [_parse(row, file, number) for number, row in read_rows(file, "sft.files")]
    if not rows:
        raise DataError(f"{file}: no rows; {EXPECTED}, or take the file out of sft.files")
    return rows


def _parse(row: Any, file: Path, number: int) -> SolutionRow | CompletionRow:
    where = f"{file}:{number}"
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {type(row).__name__}; {EXPECTED}")
    name = str(row.get("unique_id") or f"{file.name}:{number}")
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
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise DataError(
            f"{where}: key 'answer' must be a text or a number, got {type(value).__name__}; leave "
            "it out where there is no reference answer"
        )
    text = "" if value is None else str(value).strip()
    return text or None
