"""Load the problems a configuration asks for."""

from __future__ import annotations

import logging
from dataclasses import replace

from src.config.loading import ConfigError, resolve_path
from src.config.schema import Config
from src.data.held_out import find_repeats
from utils.data.json_lines import DataError
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
            resolve_path(data.train_file),
            resolve_path(data.test_file),
            sizes,
            seed,
            test_set=data.test_set,
        )
    else:
        train = data.numina_dataset if data.source == "numina" else None
        problems = load_from_hub(
            data.hub_dataset, data.subjects, sizes, seed, train, test_set=data.test_set
        )
    if data.source != "synthetic":  # generated problems share their wording on purpose
        problems = without_duplicates(problems, data.remove_duplicates)
    for name in ("train", "validation", "test"):
        LOGGER.info("data: %d %s problems", len(problems.split(name)), name)
    if problems.without_answer:
        LOGGER.warning(
            "data: %d rows without a reference answer left out: %s",
            len(problems.without_answer),
            ", ".join(problems.without_answer[:20]),
        )
    if problems.overlap_removed:
        LOGGER.info(
            "data: %d training rows left out that repeat a test or an earlier problem",
            problems.overlap_removed,
        )
    return problems


def without_duplicates(problems: ProblemSet, remove: str) -> ProblemSet:
    """Report which training and validation problems repeat a test problem; leave out some.

    Args:
        remove: as `data.remove_duplicates`; the loader has left out exact copies already.

    Raises:
        DataError: when nothing is left to train on.
    """
    fitted = [*problems.validation, *problems.train]
    repeats = find_repeats(
        [problem.problem for problem in fitted],
        [problem.problem for problem in problems.test],
        remove,
    )
    first_train = len(problems.validation)
    train = [p for i, p in enumerate(problems.train, first_train) if i not in repeats.removed]
    validation = [p for i, p in enumerate(problems.validation) if i not in repeats.removed]
    if not train or not validation:
        raise DataError(
            f"data.remove_duplicates: {remove} leaves {len(train)} training and {len(validation)} "
            "validation problems; give larger files, or remove less"
        )
    repeats.log("training or validation problems", "a test problem")
    found = problems.duplicates | repeats.by_kind
    return replace(problems, train=train, validation=validation, duplicates=found)
