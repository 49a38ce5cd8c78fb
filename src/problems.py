"""Load the problems a configuration asks for."""

from __future__ import annotations

import logging

from src.config_loading import ConfigError, resolve_path
from src.config_schema import Config
from utils.dataset_loader import (
    ProblemSet,
    SplitSizes,
    load_from_files,
    load_from_hub,
    load_synthetic,
)

LOGGER = logging.getLogger(__name__)


def load_problems(config: Config) -> ProblemSet:
    """Return disjoint train, validation and test problems; say what was left out.

    Raises:
        DataError: for a missing, malformed or empty file.
    """
    data, seed = config.data, config.run.seed
    sizes = SplitSizes(data.train_rows, data.validation_rows, data.test_rows)
    if data.source == "synthetic":
        problems = load_synthetic(sizes, seed)
    elif data.source == "files":
        if data.train_file is None or data.test_file is None:
            raise ConfigError("data.train_file and data.test_file: both are needed")
        problems = load_from_files(
            resolve_path(data.train_file), resolve_path(data.test_file), sizes, seed
        )
    else:
        train = data.numina_dataset if data.source == "numina" else None
        problems = load_from_hub(data.hub_dataset, data.subjects, sizes, seed, train)
    for name in ("train", "validation", "test"):
        LOGGER.info("data: %d %s problems", len(problems.split(name)), name)
    if problems.without_answer:
        LOGGER.warning(
            "data: %d rows without a boxed answer left out: %s",
            len(problems.without_answer),
            ", ".join(problems.without_answer[:20]),
        )
    if problems.overlap_removed:
        LOGGER.info(
            "data: %d training rows left out that repeat a test or an earlier problem",
            problems.overlap_removed,
        )
    return problems
