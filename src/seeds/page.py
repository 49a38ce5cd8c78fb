"""A family of runs as one HTML file that needs no network: tables, and each seed as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from src.output.page_template import shared_style
from src.run.terminal import percent

Record = dict[str, Any]
_STYLE = """
.over { stroke: var(--c0); stroke-width: 8; opacity: .45; } .dot { fill: var(--c1); }
"""
# Of the drawing: where 0 and 100 % are, and the height of a stage's row.
_LEFT, _RIGHT, _ROW = 130, 700, 34


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' names, and the cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_page(title: str, said: Sequence[str], figures: Record, tables: Sequence[Table]) -> str:
    """Return the whole page.

    Args:
        said: paragraphs below the title.
        figures: as `build_figures` returns them.
    """
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in said)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{shared_style()}{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{paragraphs}{_drawing(figures)}"
        f"{''.join(map(_table, tables))}</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _drawing(figures: Record) -> str:
    """Draw each stage's interval over problems as a bar, and its seeds as dots on it."""
    height = _ROW * len(figures["stages"]) + 24
    parts = [
        f'<line class="axis" x1="{_x(share):.1f}" x2="{_x(share):.1f}" y1="0" y2="{height - 18}"/>'
        f'<text x="{_x(share):.1f}" y="{height - 4}" text-anchor="middle">{100 * share:g} %</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    for place, entry in enumerate(figures["stages"]):
        parts += _stage(entry, _ROW * place + _ROW / 2)
    return (
        f'<figure><svg viewBox="0 0 {_RIGHT + 30} {height}" role="img" '
        f'aria-label="Accuracy by stage and seed">{"".join(parts)}</svg><figcaption>Bars: 95 % '
        "interval over problems, of the mean over seeds. Dots: the seeds.</figcaption></figure>"
    )


def _stage(entry: Record, y: float) -> list[str]:
    low, high = entry["over_problems"]
    dots = [
        f'<circle class="dot" cx="{_x(one["accuracy"]):.1f}" cy="{y}" r="4"><title>'
        f"seed {escape(seed)}: {percent(one['accuracy'])} %</title></circle>"
        for seed, one in entry["each"].items()
    ]
    return [
        f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(entry["stage"])}</text>',
        f'<line class="over" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y}" y2="{y}"/>',
        *dots,
    ]


def _x(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share
