"""Read data files row by row: JSON lines, a JSON array or object, CSV and Parquet.

What a file is, is read from its first bytes and not from its name (but for `.csv` and `.tsv`), and
texts may be compressed with gzip, bzip2, xz or zstd. Lines end at "\\n" alone: a text may hold
U+2028 and its like.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from utils.data.hashing import file_sha256
from utils.data.json_lines import DataError, as_row, decode, has_escapes, parse_json, parse_line
from utils.data.separated_values import separated_rows

Lines = Iterator[tuple[int, bytes]]


def _open_zstd(file: Path) -> io.BufferedReader:
    import pyarrow  # noqa: PLC0415 - Python reads zstd from 3.14 on

    return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))


_OPENERS: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"\x28\xb5\x2f\xfd": ("zstd", _open_zstd),
}
_UNREAD = {
    b"PK\x03\x04": ("a zip archive", "unpack it (unzip) and name the file in it"),
    b"\xff\xfe": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW.jsonl"),
    b"\xfe\xff": ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW.jsonl"),
    b"ARROW1": ("an Arrow file", "write it as Parquet or as JSON lines"),
    b"\x80": ("a pickle, which is never loaded", "write it as JSON lines, one object a line"),
    b"version https://git-lfs": ("a Git LFS pointer, not the data", "fetch it: git lfs pull"),
    b"<": ("a page of markup, not data", "download the file itself"),
}
_PARQUET = b"PAR1"
_SETTINGS = "data.train_file and data.test_file"
_ARRAY_KIND, _TABLE_KIND, _LINES_KIND = "JSON array", "separated values", "JSON lines"
_ARRAY = "a JSON array holds objects alone, [{...}, {...}]"
_SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet")
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def read_rows(file: Path, setting: str = _SETTINGS) -> Iterator[tuple[int, dict[str, Any]]]:
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
    rows = _parquet_rows(file) if head.startswith(_PARQUET) else _text_rows(file, head)
    found = False
    for number, row in rows:
        found = True
        yield number, row
    if not found:
        raise DataError(f"{file}: no rows; one JSON object a line is wanted; check {setting}")


def data_files(place: Path, setting: str) -> list[Path]:
    """Return the data files of a folder and of those below it, in the order of their names.

    Anything but a folder is returned as it is.

    Raises:
        DataError: when a folder holds no data file.
    """
    if not place.is_dir():
        return [place]
    files = [file for file in sorted(place.rglob("*")) if _is_data_name(file.relative_to(place))]
    if not files:
        raise DataError(
            f"{place}: a folder without data files ({', '.join(_SUFFIXES)}, also packed: "
            f"{', '.join(_PACKED)}); check {setting}; what `datasets` saved is named hub:{place}"
        )
    return files


def _is_data_name(path: Path) -> bool:
    name = path.name.lower()
    plain = next((name.removesuffix(end) for end in _PACKED if name.endswith(end)), name)
    hidden = any(part.startswith(".") for part in path.parts)
    return plain.endswith(_SUFFIXES) and plain not in _NOT_ROWS and not hidden


def describe_file(place: Path) -> dict[str, Any]:
    """Return a data file's SHA-256 and number of rows; of a folder, the hash of its files'."""
    if not place.is_dir():
        return {"sha256": file_sha256(place), "rows": count_rows(place)}
    listed = "".join(
        f"{file.relative_to(place)} {file_sha256(file)}\n" for file in data_files(place, _SETTINGS)
    )
    return {"sha256": hashlib.sha256(listed.encode()).hexdigest(), "rows": count_rows(place)}


def count_rows(place: Path) -> int:
    """Return the number of rows in a file or a folder of files."""
    return sum(1 for file in data_files(place, _SETTINGS) for _ in read_rows(file))


def file_format(file: Path) -> str:
    """Say what kind of file it is: `JSON lines, gzip`."""
    head = _first_bytes(file, _SETTINGS)
    if head.startswith(_PARQUET):
        return "Parquet"
    packing, opener = _packing(head)
    with opener(file) as stream:
        lines = (line for _, line in _whole_lines(stream, file))
        kind = _layout(next((line for line in lines if line.strip()), b""), file)
    return f"{kind}, {packing}" if packing else kind


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
        batches = pyarrow.parquet.ParquetFile(file).iter_batches()
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: Parquet that cannot be read ({str(error).splitlines()[0]}); the file is "
            "damaged or cut short: copy it again"
        ) from None


def _packing(head: bytes) -> tuple[str, Callable[..., Any]]:
    """Return how a file is compressed, "" for not at all, and what opens it."""
    packed = (opener for magic, opener in _OPENERS.items() if head.startswith(magic))
    return next(packed, ("", lambda file: file.open("rb")))


def _text_rows(file: Path, head: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a text file, whatever its layout; lines without anything are no rows."""
    with _packing(head)[1](file) as stream:
        lines = _whole_lines(stream, file)
        first = next(((number, line) for number, line in lines if line.strip()), None)
        if first is not None:
            read = {_ARRAY_KIND: _array_rows, _TABLE_KIND: separated_rows, _LINES_KIND: _line_rows}
            yield from read[_layout(first[1], file)](chain([first], lines), file)


def _line_rows(lines: Lines, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield an object a line; the object that a whole file of several lines is, is one row."""
    number, first = next(lines)
    try:
        row = parse_line(first, file, number)
    except DataError as error:
        try:
            whole = b"".join([first, *(line for _, line in lines)])
            row = parse_line(whole, file, number)
        except DataError:
            raise error from None
    yield number, row
    for number, line in lines:
        if line.strip():
            yield number, parse_line(line, file, number)


def _array_rows(lines: Lines, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of one array; a row's number is its place in it."""
    text = "".join(decode(line, f"{file}:{number}") for number, line in lines)
    escapes = has_escapes(text)
    for number, value in enumerate(parse_json(text, str(file), _ARRAY), 1):
        yield number, as_row(value, f"{file}:{number}", escapes=escapes)


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


def _layout(first: bytes, file: Path) -> str:
    """Say from its first line how a text file holds its rows."""
    begins = first.lstrip()[:1]
    if begins == b"[":
        return _ARRAY_KIND
    named = not {".csv", ".tsv"}.isdisjoint(map(str.lower, file.suffixes))
    table = begins not in (b"{", b"") and b"\0" not in first and (named or b"," in first)
    return _TABLE_KIND if table else _LINES_KIND
