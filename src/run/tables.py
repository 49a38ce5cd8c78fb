"""Compact tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.grading.faults import FAULTS

Record = Mapping[str, Any]
_LOG_WIDTH = 120
# Cells up to here stay on one line, whatever the terminal's width.
_WHOLE = 24
_BETWEEN = 3
_BY_K = ("pass_at", "majority_at")


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    cells = list(rows)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    needed = 0
    for number, column in enumerate(columns):
        longest = max((len(row[number]) for row in cells), default=0)
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=longest <= _WHOLE)
        needed += max(min(longest, _WHOLE), *map(len, column.split("\n"))) + _BETWEEN
    for row in cells:
        # Plain text: a name may hold [brackets], which rich reads as markup, or control codes.
        table.add_row(*(Text(_printable(cell)) for cell in row))
    # A log file has no width of its own. In a narrow terminal lines run over; rich would cut
    # digits off.
    width = Console().width if sys.stdout.isatty() else _LOG_WIDTH
    Console(highlight=False, width=max(width, needed)).print(table)


def show_records(title: str, records: Sequence[Record]) -> None:
    """Print records that share their keys, a row each; dotted keys by their last part."""
    columns = [key.rpartition(".")[2].replace("_", " ") for key in records[0]]
    show(title, columns, [[_plain(value) for value in row.values()] for row in records])


def show_scores(title: str, scores: Mapping[str, Record]) -> None:
    """Print the figures of some evaluations, one a row; those of many samples in a second table."""
    columns = ["", "n", "accuracy %", "format\n%", "of well-\nformed %", "any-\nwhere %", "tokens"]
    show(title, columns, [_score_row(name, figures) for name, figures in scores.items()])
    several = {name: row for name, row in scores.items() if row["samples_per_problem"] > 1}
    if several:
        rows = [
            (name, str(row["samples_per_problem"]), *(_by_k(row, key) for key in _BY_K))
            for name, row in several.items()
        ]
        show(f"{title}: several samples", ["", "samples", "pass@k %", "maj@k %"], rows)


def show_faults(title: str, faults: Mapping[str, int], completions: int) -> None:
    """Print what went wrong, most frequent first."""
    ordered = sorted(faults.items(), key=lambda item: -item[1])
    rows = [(FAULTS[name], f"{count:,}", f"{count / completions:.1%}") for name, count in ordered]
    if rows:
        show(title, ["fault", "completions", "share"], rows)


def percent(share: float | None) -> str:
    """Write a share in percent with one decimal; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def interval(bounds: Sequence[float]) -> str:
    """Write an interval of shares in percent."""
    return f"[{percent(bounds[0])}, {percent(bounds[1])}]"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _score_row(name: str, figures: Record) -> tuple[str, ...]:
    return (
        name,
        f"{figures['n']:,}",
        f"{percent(figures['accuracy'])} {interval(figures['accuracy_ci95'])}",
        percent(figures["format_rate"]),
        percent(figures["accuracy_well_formed"]),
        percent(figures["accuracy_anywhere"]),
        f"{figures['mean_completion_tokens']:.0f}",
    )


def _by_k(figures: Record, name: str) -> str:
    """Write the figure for the greatest k, with its interval."""
    if not figures[name]:
        return "-"
    k = max(figures[name], key=int)
    return f"@{k} {percent(figures[name][k])} {interval(figures[f'{name}_ci95'][k])}"
