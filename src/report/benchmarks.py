"""What the report says of benchmarks: a table of their own, below the stages' and apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.benchmarks.table import SAID, read_benchmarks, table
from src.output.markdown import markdown_table
from src.run.directory import SEARCH_STAGE, reported_model

Record = dict[str, Any]


def build_benchmarks(run_folder: Path, outcomes: Mapping[str, Record]) -> Record:
    """Return model -> its benchmarks; a stage's model is called by the stage.

    Args:
        outcomes: of the run's finished stages.
    """
    stage_of = {
        model: stage
        for stage, outcome in outcomes.items()
        if stage != SEARCH_STAGE
        # Where it was, and where it is now if the run was moved.
        for model in (outcome["checkpoint"], reported_model(run_folder / stage, outcome))
    }
    return {
        stage_of.get(found["checkpoint"], name): {
            key: found[key] for key in ("checkpoint", "benchmarks")
        }
        for name, found in read_benchmarks(run_folder).items()
    }


def show_benchmarks(benchmarks: Record) -> list[str]:
    """Return the blocks of report.md; none where no benchmark was run."""
    if not benchmarks:
        return []
    header, *rows = table(benchmarks)
    shown = markdown_table(header, rows, texts=("benchmark", "prompt", "sampling"))
    return ["## Benchmarks", SAID, shown]


def page_benchmarks(benchmarks: Record) -> Record | None:
    """Return what report.html draws; None where no benchmark was run."""
    if not benchmarks:
        return None
    header, *rows = table(benchmarks)
    return {"said": SAID, "header": header, "rows": rows}
