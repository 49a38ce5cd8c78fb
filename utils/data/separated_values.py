"""Read a table of separated values (CSV, TSV): every value is a text, an empty one is absent."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from utils.data.json_lines import DataError, decode

_SEPARATORS = (",", "\t", ";")
_LONGEST_VALUE = 2**31 - 1


def separated_rows(
    lines: Iterator[tuple[int, bytes]], file: Path
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield the rows below a header, each with the line that it begins on.

    Raises:
        DataError: for a row with more or fewer values than the header, and for quotes that do not
            close.
    """
    csv.field_size_limit(_LONGEST_VALUE)
    start, first = next(lines)
    header_text = decode(first, f"{file}:{start}")
    separator = max(_SEPARATORS, key=header_text.count)
    texts = (decode(line, f"{file}:{number}") for number, line in lines)
    reader = csv.reader(chain([header_text], texts), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        number = start + reader.line_num
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{file}:{number}: no table of separated values ({error}); write quotes within a "
                "quoted text twice, or write the rows as JSON lines"
            ) from None
        if values is None:
            return
        if not header:
            header = _checked(values, file, number)
        elif values:
            yield number, _row(header, values, f"{file}:{number}")


def _checked(header: list[str], file: Path, number: int) -> list[str]:
    """Return the names of the columns; two columns of one name would say two things."""
    names = [name.strip() for name in header]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{file}:{number}: column {repeated!r} stands twice; leave one of them")
    return names


def _row(header: list[str], values: list[str], where: str) -> dict[str, str | None]:
    if len(values) != len(header):
        raise DataError(
            f"{where}: {len(values)} values in a table of {len(header)} columns "
            f"({', '.join(header)}); quote a text that holds the separator"
        )
    return {name: value or None for name, value in zip(header, values, strict=True)}
