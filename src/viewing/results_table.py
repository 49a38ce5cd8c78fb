"""The report's table as a terminal shows it: as many columns as fit its width."""

from __future__ import annotations

from typing import Any

from src.output.streams import columns, out
from src.report.rehearsal import HEADER as COUNTS
from src.report.rehearsal import cells
from src.report.search import describe_search
from src.run.directory import SEARCH_STAGE
from src.run.terminal import interval, p_value, percent, points, say, show

Record = dict[str, Any]
_WIDE = 110


def show_results(report: Record) -> None:
    """Print the evaluated stages in one table, and the search in a line below.

    Args:
        report: what report.json states.
    """
    rehearsal = report.get("rehearsal")
    if rehearsal:
        say(rehearsal["said"])
        show("what ran how often", COUNTS, map(cells, rehearsal["counts"]))
    scored = [entry for entry in report["stages"] if entry["stage"] != SEARCH_STAGE]
    wide = columns(out()) >= _WIDE
    if scored:
        title = f"results on {scored[0]['n']:,} test problems, with 95 % intervals"
        show(title, _header(wide=wide), [_row(entry, wide=wide) for entry in scored])
    for entry in report["stages"]:
        if entry["stage"] == SEARCH_STAGE:
            say(describe_search(entry))


def _header(*, wide: bool) -> list[str]:
    names = ["stage", "accuracy %", "format\n%", "any-\nwhere %", "points over the\nstage before"]
    return [*names, *(["of well-\nformed %", "won", "lost", "p"] if wide else []), "min"]


def _row(entry: Record, *, wide: bool) -> tuple[str, ...]:
    gain = entry["improvement"]
    more = ("-", "-", "-")
    if gain:
        more = (f"{gain['won']:,}", f"{gain['lost']:,}", p_value(gain["p_value"]))
    return (
        entry["stage"],
        f"{percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}",
        percent(entry["format_rate"]),
        percent(entry["accuracy_anywhere"]),
        points(gain["points"], gain["ci95"]) if gain else "-",
        *((percent(entry["accuracy_well_formed"]), *more) if wide else ()),
        f"{entry['wall_s'] / 60:.1f}",
    )
