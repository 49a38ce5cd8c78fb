"""Parse JSON, a line or a file; whatever is wrong with it is said with file, line and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SHOWN = 60


class DataError(ValueError):
    """A data file is missing, malformed or empty; the message says where and what to do."""


def parse_line(line: bytes, file: Path, number: int) -> dict[str, Any]:
    """Return the object of one line.

    Raises:
        DataError: for bytes that are not UTF-8, and for all that is not one JSON object whose keys
            stand once and whose texts can be written again.
    """
    where = f"{file}:{number}"
    text = decode(line, where)
    return as_row(parse_json(text, where), where, escapes=has_escapes(text))


def parse_json(text: str, where: str, wanted: str = "one JSON object a line is wanted") -> Any:
    """Return the value that a text holds; what is wrong with it is a DataError that says where."""
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except DataError as error:
        raise DataError(f"{where}: {error}; leave one of them") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be read; leave the row out") from None
    except json.JSONDecodeError as error:
        shown = text[max(0, error.pos - _SHOWN) :] if error.pos > _SHOWN else text
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at character {error.pos + 1}: "
            f"{shown.strip()[:_SHOWN]!r}); {wanted}"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        reason = str(error).partition(";")[0]
        raise DataError(
            f"{where}: a number is too long to be read ({reason}); write it as a text"
        ) from None


def has_escapes(text: str) -> bool:
    """Tell whether a text may hold half of a surrogate pair, which only an escape can write."""
    return "\\ud" in text.lower()


def as_row(value: Any, where: str, *, escapes: bool) -> dict[str, Any]:
    """Return a value that is an object with texts that can be written again."""
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: expected an object, got {type(value).__name__}; each row is one JSON object"
        )
    if escapes:
        _refuse_surrogates(value, where)
    return value


def decode(line: bytes, where: str) -> str:
    """Return a line's text; bytes that are no UTF-8 are a DataError."""
    if b"\0" in line:
        raise DataError(
            f"{where}: byte {line.index(0) + 1} of the line is NUL: UTF-16 text (convert it: iconv "
            "-f UTF-16 -t UTF-8 FILE > NEW.jsonl), or a file that was damaged (copy it again)"
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not "
            "UTF-8; convert the file: iconv -f LATIN1 -t UTF-8 FILE > NEW.jsonl"
        ) from None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; two values of one key would say two things, and the last would win."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"key {repeated!r} stands twice in one object")
    return made


def _refuse_surrogates(row: dict[str, Any], where: str) -> None:
    """Refuse half of a surrogate pair, which no file can hold and no tokenizer takes."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(
            f"{where}: {half} is half of a surrogate pair, no character; write the character "
            "itself or take it out"
        ) from None
