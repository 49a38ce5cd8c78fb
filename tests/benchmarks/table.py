"""What every benchmark reports: one row a comparison, printed as a table and kept as JSON.

Takes no more than the standard library, so that `gpu_sft` runs beside torch and transformers alone.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    `ratio` is None where nothing was measured; `goal` is what it should be, such as `>= 1.5`, and
    empty where there is none.
    """

    name: str
    against: str
    ratio: float | None
    goal: str
    detail: str

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a measurement."""
        if self.ratio is None or not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)

    def values(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "name": self.name,
            "against": self.against,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "goal": self.goal,
            "holds": self.holds,
            "detail": self.detail,
        }


def alternate(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure the sides in turn, A B A B, so that a machine that slows down slows them all."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def listed(values: Sequence[float], form: str = ".2f") -> str:
    """Write the single measurements behind a median: `[1.02, 0.98]`."""
    return f"[{', '.join(format(value, form) for value in values)}]"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the command line that all benchmarks share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="JSONL, may be gzipped, of problem, solution and answer (default: generated problems)",
    )
    made.add_argument("--quick", action="store_true", help="smallest sizes: does it run at all?")
    made.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON here")
    return made


def report(rows: Sequence[Row], output: Path | None) -> None:
    """Print the rows; write them where an output is asked for."""
    print_rows(rows)
    if output is not None:
        write_rows(rows, output)


def write_rows(rows: Sequence[Row], output: Path, **about: str) -> None:
    """Write the rows as JSON, after what is said `about` all of them."""
    output.parent.mkdir(parents=True, exist_ok=True)
    written = {**about, "rows": [row.values() for row in rows]}
    output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def read_rows(file: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return [Row(**{key: row[key] for key in Row.__slots__}) for row in rows]


def print_rows(rows: Sequence[Row]) -> None:
    """Print one line a comparison, and below it what was measured."""
    print(f"\n{'benchmark':<48}{'ratio':>9}{'goal':>12}  holds")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        holds = {True: "yes", False: "NO", None: "-"}[row.holds]
        print(f"{row.name:<48}{ratio:>9}{row.goal or '-':>12}  {holds}")
        told = f"against {row.against}: {row.detail}" if row.against else row.detail
        print(textwrap.fill(told, _WIDTH, initial_indent="    ", subsequent_indent="    "))
