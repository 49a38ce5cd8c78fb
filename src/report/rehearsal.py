"""What a rehearsal's report says before all else: that it is one, and what ran how often."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.config.loading import load_config
from src.output.markdown import markdown_table
from src.report.counts import Count, stage_counts
from src.stages.promises import broken_promises
from src.stages.rehearsal import describe_rehearsal

Record = dict[str, Any]
HEADER = ("step", "what", "planned", "seen", "")


def build_rehearsal(run_folder: Path, outcomes: Mapping[str, Record]) -> Record | None:
    """Return what report.json states of a rehearsal; None of a run that counts.

    Every number comes from the stages' records. A warning names each that is not what was planned,
    and what the configuration promises and never does.
    """
    if not outcomes or not all(outcome.get("rehearsal") for outcome in outcomes.values()):
        return None
    said, counts, warnings = "", [], []
    for stage, outcome in outcomes.items():
        config = load_config([run_folder / stage / "config.yaml"])
        said = describe_rehearsal(config)
        found = stage_counts(run_folder / stage, config, outcome)
        counts += [_row(stage, count) for count in found]
        warnings += [_mismatch(stage, count) for count in found if not count.holds]
        warnings += [f"{stage}: {line}" for line in broken_promises(stage, config)]
    return {"said": said, "counts": counts, "warnings": warnings}


def cells(row: Record) -> tuple[str, ...]:
    """Format a row of counts, matching `HEADER`."""
    seen = f"{row['seen']:,.0f}"
    return row["stage"], row["what"], row["planned"], seen, "" if row["holds"] else "not as planned"


def show_rehearsal(rehearsal: Record | None) -> list[str]:
    """Write the mark, the table of what ran how often, and the warnings in Markdown."""
    if rehearsal is None:
        return []
    rows = map(cells, rehearsal["counts"])
    warnings = [f"- {line}" for line in rehearsal["warnings"]] or ["Everything ran as planned."]
    return [
        f"**{rehearsal['said']}**",
        markdown_table(HEADER, rows, texts=("what", "")),
        "\n".join(warnings),
    ]


def _row(stage: str, count: Count) -> Record:
    return {
        "stage": stage,
        "what": count.what,
        "planned": count.plan,
        "seen": count.seen,
        "holds": count.holds,
    }


def _mismatch(stage: str, count: Count) -> str:
    why = f" ({count.why})" if count.why else ""
    return f"{stage}: {count.what}: {count.plan} planned, {count.seen:,.0f} seen{why}"
