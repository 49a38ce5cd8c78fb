"""Show the comparison of two runs: tables on the terminal, and a page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from src.output.page_template import fill
from src.run.files import write_text_atomic
from src.run.terminal import interval, p_value, percent, points, say, show

LOGGER = logging.getLogger(__name__)
Record = dict[str, Any]
_TEMPLATE = Path(__file__).with_name("two_runs.html")
_LONGEST = 40


def show_comparison(found: Record) -> None:
    """Print the differing settings and, for each stage, what the runs reached."""
    one, other = found["names"]
    rows = [
        (item["name"], *(_brief(value) for value in item["values"]), str(len(item["stages"])))
        for item in found["settings"]
    ]
    if rows:
        show("settings that differ", ["setting", one, other, "stages"], rows)
    else:
        LOGGER.info("the runs have the same settings")
    for line in (*found["unknown"], *found["alone"]):
        say(line)
    scored = [_row(stage) for stage in found["stages"]]
    if scored:
        header = [
            "stage",
            f"{one}\naccuracy %",
            f"{other}\naccuracy %",
            "difference\nin points",
            "p",
        ]
        show(f"{other} over {one} on test, problem by problem", header, scored)
    for stage in found["stages"]:
        if stage["said"]:
            say(f"{stage['stage']}: {stage['said']}")


def write_page(found: Record, first: Path, second: Path) -> Path:
    """Write the page into the second run's folder; return its path."""
    file = second / f"compared-with-{found['names'][0].replace('/', '-')}.html"
    title = f"{found['names'][1]} beside {found['names'][0]}"
    folders = [str(folder.resolve()) for folder in (first, second)]
    write_text_atomic(file, fill(_TEMPLATE, title, found | {"title": title, "folders": folders}))
    return file


def _row(stage: Record) -> tuple[str, ...]:
    runs = [
        f"{percent(run['accuracy'])} {interval(run['accuracy_ci95'])}" if run else "-"
        for run in stage["runs"]
    ]
    gain = stage["accuracy"]
    if gain is None:
        return stage["stage"], *runs, "-", "-"
    change = points(gain["points"], gain["ci95"])
    return stage["stage"], *runs, change, p_value(gain["p_value"])


def _brief(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
