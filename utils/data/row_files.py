"""Read data files row by row: JSON lines, plain or compressed, and Parquet.

What a file is, is read from its first bytes and not from its name. Lines end at "\\n" alone: a text
may hold U+2028 and its like.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from utils.data.hashing import file_sha256
from utils.data.json_lines import DataError, parse_line

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_LOAD = "from datasets import load_dataset as load"
_UNREAD = {
    b"PK\x03\x04": ("a zip archive", "unpack it (unzip) and name the file in it"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it (zstd -d) and name the result"),
    b"\xff\xfe": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW.jsonl"),
    b"\xfe\xff": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW.jsonl"),
    b"ARROW1": ("an Arrow file", "write it as Parquet or as JSON lines"),
    b"\x80": ("a pickle, which is never loaded", "write it as JSON lines, one object a line"),
    b"version https://git-lfs": ("a Git LFS pointer, not the data", "fetch it: git lfs pull"),
    b"<": ("a page of markup, not data", "download the file itself"),
}
_PARQUET = b"PAR1"


def read_rows(
    file: Path, setting: str = "data.train_file and data.test_file"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and content of each row.

    Args:
        setting: configuration key that names the file, for the message.

    Raises:
        DataError: for what is no readable file, holds no rows, or has a line that is no JSON
            object, with file and line and what to do.
    """
    head = _first_bytes(file, setting)
    for magic, (kind, remedy) in _UNREAD.items():
        if head.startswith(magic):
            raise DataError(f"{file}: {kind}, where JSON lines are wanted; {remedy}")
    rows = _parquet_rows(file) if head.startswith(_PARQUET) else _json_rows(file, head)
    found = False
    for number, row in rows:
        found = True
        yield number, row
    if not found:
        raise DataError(f"{file}: no rows; one JSON object a line is wanted; check {setting}")


def describe_file(file: Path) -> dict[str, Any]:
    """Return a data file's SHA-256 and number of rows."""
    return {"sha256": file_sha256(file), "rows": sum(1 for _ in read_rows(file))}


def _first_bytes(file: Path, setting: str) -> bytes:
    """Return the beginning of a file; refuse what cannot be read as one."""
    try:
        mode = os.stat(file).st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{file}: a folder, where a data file is wanted; check {setting}")
        if not stat.S_ISREG(mode):  # a pipe can be read once, and rows are read twice
            raise DataError(f"{file}: no regular file (a pipe or device); write it to a file first")
        with file.open("rb") as stream:
            return stream.read(32)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{file}: no such data file; check {setting}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{file}: cannot be read ({reason}); check {setting} and the file's permissions"
        ) from None


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow  # noqa: PLC0415 - only Parquet files need it
    import pyarrow.parquet  # noqa: PLC0415

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: Parquet that cannot be read ({str(error).splitlines()[0]}); the file is "
            "damaged or cut short: copy it again"
        ) from None
    yield from enumerate(rows, 1)


def _json_rows(file: Path, head: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    with opener(file) if opener else file.open("rb") as stream:
        first = True
        for number, line in _whole_lines(stream, file):
            if line.strip():
                if first:
                    _refuse_other_layout(line, file)
                yield number, parse_line(line, file, number)
                first = False


def _whole_lines(stream: Iterable[bytes], file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines without a byte order mark; say where compressed data breaks off."""
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(
            f"{file}: damaged or cut short after line {number} ({error}); copy or download the "
            "file again"
        ) from None


def _refuse_other_layout(line: bytes, file: Path) -> None:
    """Say of the first line what the file is, where it is a known layout of another kind."""
    kind = ""
    if line.lstrip().startswith(b"["):
        kind = "json"
    elif file.name.lower().partition(".")[2].startswith(("csv", "tsv")) or (
        b"," in line and line.lstrip()[:1] not in (b"{", b"") and b"\0" not in line
    ):
        kind = "csv"
    if kind:
        layout = {"json": "a JSON array", "csv": "a table of separated values"}[kind]
        raise DataError(
            f"{file}:1: {layout}, where one JSON object a line is wanted; convert it: python -c "
            f"\"{_LOAD}; load('{kind}', data_files='{file}', split='train').to_json('NEW.jsonl')\""
        )
