"""Load the problems a configuration asks for."""

from __future__ import annotations

import logging
from dataclasses import replace

from src.config.loading import ConfigError, resolve_path
from src.config.schema import Config, DataConfig
from src.config.training import ColumnNames
from src.data.held_out import find_repeats
from utils.data.columns import Columns
from utils.data.json_lines import DataError
from utils.data.sources import HUB, Source, is_hub
from utils.dataset_loader import ProblemSet, SplitSizes, load_sources, load_synthetic

LOGGER = logging.getLogger(__name__)


def load_problems(config: Config) -> ProblemSet:
    """Return disjoint train, validation and test problems; say what was left out.

    Raises:
        DataError: for a missing, malformed or empty file.
    """
    data = config.data
    seed = config.run.seed if data.seed is None else data.seed
    sizes = SplitSizes(data.train_rows, data.validation_rows, data.test_rows)
    if data.source == "synthetic":
        problems = load_synthetic(sizes, seed)
    else:
        # MATH-500 of the hub is a data set of its own; local rows are marked.
        marked = data.test_set if data.source == "files" else "all"
        problems = load_sources(
            _sources(data, "train"), _sources(data, "test"), sizes, seed, test_set=marked
        )
    for line in problems.recognised:
        LOGGER.info("data: %s", line)
    if data.source != "synthetic":  # generated problems share their wording on purpose
        problems = without_duplicates(problems, data.remove_duplicates)
    counts = [f"{len(problems.split(name)):,} {name}" for name in ("train", "validation", "test")]
    LOGGER.info("data: %s problems", ", ".join(counts))
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


def named_source(
    place: str,
    columns: ColumnNames,
    split: str = "train",
    *,
    setting: str,
    columns_setting: str = "data.columns",
) -> Source:
    """Return what a setting names: a path from the repository root, or a data set of the hub."""
    named = Columns(**columns.model_dump())
    if not is_hub(place):
        return Source(resolve_path(place), split, named, setting, columns_setting)
    name, colon, rest = place.removeprefix(HUB).partition(":")
    local = resolve_path(name)
    if local.is_dir():  # else a name on the hub
        place = f"{HUB}{local}{colon}{rest}"
    return Source(place, split, named, setting, columns_setting)


def _sources(data: DataConfig, split: str) -> list[Source]:
    """Return where the training or the test problems come from."""
    columns, setting = data.columns, "data.columns"
    if split == "test" and data.test_columns is not None:
        columns, setting = data.test_columns, "data.test_columns"
    if data.source == "files":
        places = [data.train_file if split == "train" else data.test_file]
    else:
        places = [HUB + place for place in data.hub_places(split)]
    if None in places:
        raise ConfigError("data.train_file and data.test_file: both are needed")
    return [
        named_source(
            str(place), columns, split, setting=f"data.{split}_file", columns_setting=setting
        )
        for place in places
    ]


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
