"""Benchmarks at the end of a pipeline run: read before anything starts, run when all has."""

from __future__ import annotations

import logging
import sys

from src.benchmarks.loading import load_benchmarks, missing_files
from src.config.loading import ConfigError
from src.config.schema import Config
from src.run.directory import pipeline_folder, read_outcome, reported_model
from src.run.stopping import run_command

LOGGER = logging.getLogger(__name__)


def check_benchmarks(config: Config, *, dry_run: bool) -> None:
    """Read the benchmarks that run at the end, before anything starts; a plan reads none.

    Raises:
        ConfigError: naming what cannot be read.
    """
    if not config.evaluation.benchmarks:
        return
    if not dry_run:
        load_benchmarks(config)
    elif missing := missing_files(config):
        raise ConfigError("\n".join(missing))


def run_benchmarks(config: Config, options: list[str], *, dry_run: bool) -> int:
    """Run the benchmarks on the models of `evaluation.benchmark_stages`; return the exit code.

    Args:
        options: what every stage script of the run is given.
    """
    if not config.evaluation.benchmarks:
        return 0
    for stage in config.evaluation.benchmark_stages:
        folder = pipeline_folder(config)
        outcome = read_outcome(folder, stage)
        if outcome is None and not dry_run:
            LOGGER.warning("benchmarks: %s has not finished, so its model is left out", stage)
            continue
        model = reported_model(folder / stage, outcome) if outcome else config.model.path
        command = [sys.executable, "step0_baseline/evaluate_model.py", model, "--benchmarks"]
        LOGGER.info("benchmarks of %s's model", stage)
        if code := run_command([*command, *options]):
            return code
    return 0
