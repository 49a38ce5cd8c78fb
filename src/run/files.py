"""Write and read the files of a run directory, so that no reader ever sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Replace the file in one step; a failure leaves the old one and no temporary file."""
    # The same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file with UTF-8 text, line endings as given."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, obj: Any) -> None:
    """Replace the file with indented JSON.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
        TypeError: a value has no JSON form.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def append_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add records, one a line.

    NaN and infinity are written as Python's `NaN` and `Infinity`: the log of a run that diverges
    should show it.
    """
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    # Unbuffered: one write for all lines, so that a killed run leaves no half of one.
    with path.open("ab", buffering=0) as file:
        file.write(lines.encode("utf-8"))


def write_jsonl_atomic(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace the file with records, one a line."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_text_atomic(path, lines)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the records of all lines.

    Raises:
        ValueError: a line is no JSON object (an empty one included), with file and line number.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.removesuffix("\n").split("\n") if text else []
    return [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    """Parse one line, or say where and what is wrong with it."""
    advice = "restore or delete the line"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: {error} in {line[:80]!r}; {advice}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}:{number}: expected a JSON object, got {line[:80]!r}; {advice}")
    return record


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        ValueError: naming the file, when it is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # the text's, or of bytes that are none
        raise ValueError(f"{path}: not valid JSON ({error}); the file is damaged") from None
