"""What a terminal shows: compact tables, and the progress of long work.

Progress is a bar on a terminal, a plain line now and then elsewhere.
"""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from src.output.lines import duration
from src.output.streams import columns as columns_of
from src.output.streams import draws, err, out
from utils.grading.faults import FAULTS

LOGGER = logging.getLogger(__name__)
_LINE_EVERY_S = 20.0
# What must be done, beyond the first, before the time left is told.
_TELLING_SHARE = 0.05
Record = Mapping[str, Any]
# Cells up to here stay on one line, whatever the terminal's width.
_WHOLE = 24
_BETWEEN = 2
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt}, {rate_noinv_fmt}, {remaining} left{postfix}"
_BY_K = ("pass_at", "majority_at")


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    cells = list(rows)
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        show_edge=False, collapse_padding=True,
    )  # fmt: skip
    needed = 0
    for number, column in enumerate(columns):
        longest = max((len(row[number]) for row in cells), default=0)
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=longest <= _WHOLE)
        needed += max(min(longest, _WHOLE), *map(len, column.split("\n"))) + _BETWEEN
    for row in cells:
        # Plain text: a name may hold [brackets], which rich reads as markup, or control codes.
        table.add_row(*(Text(_printable(cell)) for cell in row))
    # In a narrow terminal lines run over; rich would cut digits off.
    width = max(columns_of(out()), needed)
    Console(file=out(), highlight=False, width=width).print(table, "")


def show_records(title: str, records: Sequence[Record]) -> None:
    """Print records that share their keys, a row each; dotted keys by their last part.

    A key without any value gets no column.
    """
    keys = [key for key in records[0] if any(row[key] is not None for row in records)]
    columns = [key.rpartition(".")[2].replace("_", "\n") for key in keys]
    show(title, columns, [[_plain(row[key]) for key in keys] for row in records])


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


def list_faults(faults: Mapping[str, int], completions: int) -> list[str]:
    """Say what went wrong and how often, most frequent first."""
    ordered = sorted(faults.items(), key=lambda item: -item[1])
    return [f"{count / completions:.1%} {FAULTS[name]}" for name, count in ordered]


def show_faults(title: str, faults: Mapping[str, int], completions: int) -> None:
    """Print what went wrong, most frequent first."""
    ordered = sorted(faults.items(), key=lambda item: -item[1])
    rows = [(FAULTS[name], f"{count:,}", f"{count / completions:.1%}") for name, count in ordered]
    if rows:
        show(title, ["fault", "completions", "share"], rows)


def say(text: str) -> None:
    """Print a paragraph, broken between words."""
    out().write(textwrap.fill(text, columns_of(out()), break_long_words=False) + "\n\n")


def percent(share: float | None) -> str:
    """Write a share in percent with one decimal; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def interval(bounds: Sequence[float]) -> str:
    """Write an interval of shares in percent."""
    return f"[{percent(bounds[0])}, {percent(bounds[1])}]"


def points(change: float, bounds: Sequence[float]) -> str:
    """Write a change in percentage points with its interval.

    >>> points(17.0, [14.9, 19.1])
    '+17.0 [+14.9, +19.1]'
    """
    return f"{change:+.1f} [{bounds[0]:+.1f}, {bounds[1]:+.1f}]"


def p_value(p: float, equals: str = "") -> str:
    """Write a p-value; of one that would read 0.000 no more than that it is below 0.001.

    Args:
        equals: what stands before a value; a column that is headed p needs nothing.

    >>> p_value(0.0421), f"p {p_value(0.0421, '= ')}", f"p {p_value(1e-9, '= ')}"
    ('0.042', 'p = 0.042', 'p < 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


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


class Progress:
    """Count units done; report rate and time left.

    What has come to its end says so itself, so the last unit has no line of its own.

    Args:
        bar: on a terminal; without it lines, as where another process draws one.
    """

    _told_at = 0.0
    """When a line was written last, whichever work's it was."""

    def __init__(
        self, label: str, total: int, unit: str, done: int = 0, *, bar: bool = True
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = done
        self._first: tuple[int, float] | None = None
        """How many were done when the first had come, and when: what was slow was the start."""
        # Of what takes less than half of it nothing is told, however long all was silent.
        Progress._told_at = max(Progress._told_at, time.monotonic() - _LINE_EVERY_S / 2)
        self._bar = _bar(label, total, unit, done) if bar and draws(err()) else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add finished units; `note` shows current figures."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        self._first = self._first or (self._done, now)
        if now - Progress._told_at >= _LINE_EVERY_S and self._done < self._total:
            Progress._told_at = now
            LOGGER.info("%s", ", ".join(filter(None, (self._count(), self._pace(now), note))))

    def _count(self) -> str:
        return f"{self._label}: {self._done:,}/{self._total:,} {self._unit}"

    def _pace(self, now: float) -> str:
        """Say rate and time left, once enough is done to tell."""
        assert self._first is not None
        made = self._done - self._first[0]
        if made < _TELLING_SHARE * self._total:
            return ""
        rate = made / max(now - self._first[1], 1e-9)
        left = duration((self._total - self._done) / rate)
        return f"{rate:,.{1 if rate >= 10 else 2}f}/s, {left} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(label: str, total: int, unit: str, done: int) -> tqdm[Any]:
    return tqdm(
        total=total, initial=done, desc=label, unit=f" {unit}", file=err(),
        dynamic_ncols=True, leave=False, bar_format=_BAR,
    )  # fmt: skip
