"""What `run_pipeline.py` does with runs that are there: report, compare, verify.

Each says what it found and returns an exit code.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from src.config.schema import Config
from src.output.lines import shown_path
from src.report.publish import publish
from src.report.report import write_report
from src.report.unfinished import unfinished_stages
from src.report.verification import is_family, uncovered, verify_family, verify_run
from src.run.directory import STAGES, pipeline_folder
from src.run.files import read_json
from src.run.wandb_sink import log_report
from src.viewing.results_table import show_results
from src.viewing.two_runs import compare_runs
from src.viewing.two_runs_view import show_comparison, write_page

LOGGER = logging.getLogger(__name__)


def report(config: Config, *, verbose: bool) -> int:
    """Write the report, show its table, and send it to W&B (offline without a key)."""
    folder = pipeline_folder(config)
    found = report_on(folder)
    if found is not None:
        log_report(config, folder, found, silent=not verbose)
    if config.hub.repo is None or config.run.rehearsal is not None:
        return 0
    try:
        publish(config, folder)
    except ValueError as error:
        LOGGER.error("%s", error)
        return 2
    return 0


def look_at(*runs: Path) -> int:
    """Report on a run, or compare two; return 2 where there is none."""
    try:
        if len(runs) == 1:
            report_on(*runs)
        else:
            compare(*runs)
    except ValueError as error:
        LOGGER.error("%s", error)
        return 2
    return 0


def report_on(folder: Path) -> dict[str, Any] | None:
    """Write the report of what a run has so far, and show it; return it if a stage has finished.

    Raises:
        ValueError: when nothing has begun, or the stages cannot stand in one table.
    """
    file = write_report(folder)
    found: dict[str, Any] | None = read_json(file) if file.suffix == ".json" else None
    if found is not None:
        show_results(found)
        for line in found.get("rehearsal", {}).get("warnings", []):
            LOGGER.warning("%s", line)
    for item in unfinished_stages(folder, STAGES):
        LOGGER.info("%s has not finished: %s", item["stage"], item["said"])
    LOGGER.info("report: %s", shown_path(file.with_name("report.html")))
    return found


def compare(first: Path, second: Path) -> None:
    """Compare two runs: a table, and a page.

    Raises:
        ValueError: when one of them is no run.
    """
    found = compare_runs(first, second)
    show_comparison(found)
    LOGGER.info("page: %s", shown_path(write_page(found, first, second)))


def verify(folder: Path) -> int:
    """Say what in a finished run does not match; return 1 if anything does not, 2 without a run."""
    try:
        family = is_family(folder)
        mismatches = verify_family(folder) if family else verify_run(folder)
    except ValueError as error:
        LOGGER.error("%s", error)
        return 2
    for line in mismatches:
        LOGGER.error("%s", line)
    if not family:
        LOGGER.info("not covered: %s", ", ".join(uncovered(folder)) or "nothing")
        for item in unfinished_stages(folder, STAGES):
            LOGGER.info("%s has not finished, so nothing of it is checked", item["stage"])
    LOGGER.info("%s: %s", folder, f"{len(mismatches)} mismatches" if mismatches else "all holds")
    return int(bool(mismatches))
