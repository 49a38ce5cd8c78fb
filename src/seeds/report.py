"""Say what all seeds say together: results/<run>-seeds/report.json, report.md and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.output.markdown import markdown_table
from src.run.files import write_json_atomic, write_text_atomic
from src.run.terminal import interval, percent, show
from src.seeds.figures import SCORED, build_figures
from src.seeds.page import Table, render_page

Record = dict[str, Any]
SAID = (
    "Two different uncertainties, side by side. Over problems: the 95 % interval (bootstrap over "
    "problems, of the mean over seeds) says what other problems of this kind would change, with "
    "these trained models. Between seeds: range and standard deviation say what another seed of "
    "training and sampling changes, on these same problems; from {count} seeds the deviation is "
    "itself only roughly known. Neither holds the other."
)
SHARED = (
    "{stage} of every seed builds on the same {before}, so its spread is that of {stage} alone, "
    "not of the whole pipeline."
)


def write_family(folder: Path, members: Mapping[int, Path], stages: Sequence[str] = SCORED) -> Path:
    """Write the report of a family of runs and show its table; return report.html's path.

    Args:
        folder: to write to.
        members: seed -> folder of its run.
        stages: as `build_figures` takes them.
    """
    figures = build_figures(members, stages)
    tables = family_tables(figures)
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "report.json", figures)
    write_text_atomic(folder / "report.md", render_markdown(figures, tables, folder.name))
    page = render_page(_title(figures, folder.name), said(figures), figures, tables)
    write_text_atomic(folder / "report.html", page)
    for table in tables:
        show(table.title, table.header, table.rows)
    return folder / "report.html"


def render_markdown(figures: Record, tables: Sequence[Table], name: str) -> str:
    """Write the tables and what they mean."""
    blocks = [f"# {_title(figures, name)}", *said(figures)]
    for table in tables:
        blocks += [f"## {table.title}", markdown_table(table.header, table.rows)]
    return "\n\n".join(blocks) + "\n"


def said(figures: Record) -> list[str]:
    """Return what must be known to read the tables."""
    improvements = [(entry["stage"], entry["improvement"]) for entry in figures["stages"]]
    return [
        *(["REHEARSAL: figures mean nothing."] if figures["rehearsal"] else []),
        SAID.format(count=len(figures["seeds"])),
        *(
            SHARED.format(stage=stage, before=found["before"])
            for stage, found in improvements
            if found and found["shared"]
        ),
    ]


def family_tables(figures: Record) -> list[Table]:
    """Return the tables: stages, stage over stage, and each seed by itself."""
    tables = [_stages(figures), _improvements(figures), _seeds(figures)]
    tables += [_searches(figures), _benchmarks(figures)]
    return [table for table in tables if table.rows]


def _stages(figures: Record) -> Table:
    rows = [
        (
            *(entry["stage"], f"{entry['n']:,}", percent(entry["accuracy"]["mean"])),
            *(interval(entry["over_problems"]), _range(entry["accuracy"])),
            *(f"{100 * entry['accuracy']['sd']:.1f}", percent(entry["format_rate"]["mean"])),
            _range(entry["format_rate"]),
        )
        for entry in figures["stages"]
    ]
    header = (
        *("stage", "n", "mean accuracy %", "over problems [95 %]", "between seeds, range"),
        *("SD", "mean format %", "range"),
    )
    return Table(f"Accuracy of {len(figures['seeds'])} seeds", header, rows)


def _improvements(figures: Record) -> Table:
    rows = []
    for entry in figures["stages"]:
        if found := entry["improvement"]:
            gained = sum(one["difference"] > 0 for one in found["each"].values())
            rows.append(
                (
                    *(f"{entry['stage']} over {found['before']}", _points(found["difference"])),
                    *(_bounds(found["over_problems"]), _range(found["difference"], sign=True)),
                    f"{100 * found['difference']['sd']:.1f}",
                    f"{gained} of {len(found['each'])}",
                )
            )
    header = (
        *("over the stage before", "mean points", "over problems [95 %]"),
        *("between seeds, range", "SD", "seeds that gain"),
    )
    return Table("Stage over stage", header, rows)


def _seeds(figures: Record) -> Table:
    rows = []
    for entry in figures["stages"]:
        found = entry["improvement"]
        for seed, one in entry["each"].items():
            paired = found["each"][seed]["said"] if found else "-"
            scored = f"{percent(one['accuracy'])} {interval(one['accuracy_ci95'])}"
            rows.append((entry["stage"], seed, scored, percent(one["format_rate"]), paired))
    header = (
        *("stage", "seed", "accuracy % [95 % over problems]", "format %"),
        "over the stage before, same problems",
    )
    return Table("Each seed", header, rows)


def _searches(figures: Record) -> Table:
    rows = [
        (f"seed {seed}", ", ".join(f"{path} {_short(value)}" for path, value in params.items()))
        for seed, params in figures["search"].items()
    ]
    return Table("What the search chose", ("seed", "best trial"), rows)


def _benchmarks(figures: Record) -> Table:
    rows = [
        (
            *(found["benchmark"], str(found["n"]), str(found["k"])),
            *(percent(found["accuracy"]["mean"]), interval(found["over_problems"])),
            *(_range(found["accuracy"]), f"{100 * found['accuracy']['sd']:.1f}"),
        )
        for found in figures["benchmarks"]
    ]
    header = (
        *("benchmark", "n", "k", "mean avg@k %", "over problems [95 %]"),
        *("between seeds, range", "SD"),
    )
    return Table("Benchmarks of the last stage (other yardsticks)", header, rows)


def _title(figures: Record, name: str) -> str:
    seeds = ", ".join(map(str, figures["seeds"]))
    return f"Runs {name}, seeds {seeds} (profile {figures['profile']})"


def _range(values: Record, *, sign: bool = False) -> str:
    if sign:
        return f"{100 * values['low']:+.1f} to {100 * values['high']:+.1f}"
    return f"{percent(values['low'])} to {percent(values['high'])}"


def _points(values: Record) -> str:
    return f"{100 * values['mean']:+.1f}"


def _bounds(bounds: Sequence[float]) -> str:
    return f"[{100 * bounds[0]:+.1f}, {100 * bounds[1]:+.1f}]"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
