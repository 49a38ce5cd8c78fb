"""The curves that a run has logged, as points by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from src.run.files import read_jsonl

Points = list[tuple[int, float]]


def read_curves(stage_folder: Path, metrics: Sequence[str]) -> dict[str, Points]:
    """Return metric -> its points by step, of those that were logged.

    A stage that goes on after an interruption logs some steps again; the later value counts.
    """
    file = stage_folder / "metrics.jsonl"
    rows = read_jsonl(file, growing=True) if file.is_file() else []
    found = {}
    for name in metrics:
        logged = [row for row in rows if row.get(name) is not None]
        points = {row["step"]: row[name] for row in logged if math.isfinite(row[name])}
        if points:
            found[name] = sorted(points.items())
    return found
