"""What a terminal shows: compact tables, and the progress of long work.

Progress is a bar on a terminal, a plain line now and then elsewhere.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from utils.grading.faults import FAULTS

LOGGER = logging.getLogger(__name__)
_LINE_EVERY_S = 20.0
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


class Progress:
    """Count units done; report rate and time left.

    Args:
        bar: on a terminal; without it lines, as where another process draws one.
    """

    def __init__(
        self, label: str, total: int, unit: str, done: int = 0, *, bar: bool = True
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = self._first = done
        self._started = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=label, unit=f" {unit}", dynamic_ncols=True)
            if bar and _is_terminal()
            else None
        )

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add finished units; `note` shows current figures."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S or self._done >= self._total:
            self._last_line = now
            rate = (self._done - self._first) / max(now - self._started, 1e-9)
            left = (self._total - self._done) / rate if rate else float("inf")
            LOGGER.info(
                "%s: %d/%d %s, %.2f/s, %.0f s left %s",
                self._label, self._done, self._total, self._unit, rate, left, note,
            )  # fmt: skip

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


def _is_terminal() -> bool:
    """Say whether a bar can be drawn; some terminals, such as a container's, have no width."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
