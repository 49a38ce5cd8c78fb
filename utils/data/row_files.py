"""Read data files row by row: JSONL, JSONL.gz or Parquet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.data.hashing import file_sha256


class DataError(ValueError):
    """A data file is missing, malformed or empty; the message says where and what to do."""


def read_rows(
    file: Path, setting: str = "data.train_file and data.test_file"
) -> Iterator[tuple[int, Any]]:
    """Yield the line number and content of each row of a JSONL, JSONL.gz or Parquet file.

    Args:
        setting: configuration key that names the file, for the message.

    Raises:
        DataError: for a missing file or a line that is no JSON.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such data file; check {setting}")
    if file.suffix == ".parquet":
        import pyarrow.parquet  # noqa: PLC0415 - only Parquet files need it

        yield from enumerate(pyarrow.parquet.read_table(file).to_pylist(), 1)
        return
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as stream:
        for line_number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                yield line_number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{line_number}: not valid JSON ({error.msg})") from None


def describe_file(file: Path) -> dict[str, Any]:
    """Return a data file's SHA-256 and number of rows."""
    return {"sha256": file_sha256(file), "rows": sum(1 for _ in read_rows(file))}
