"""The problems of the benchmarks that a configuration asks for, read before anything starts."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from src.config.loading import ConfigError, resolve_path
from src.config.schema import Config
from src.data.problems import named_source
from utils.data.json_lines import DataError
from utils.data.sources import Source, is_hub
from utils.dataset_loader import ProblemSet, load_test_set

LOGGER = logging.getLogger(__name__)


def load_benchmarks(config: Config) -> dict[str, ProblemSet]:
    """Return the problems of each benchmark; say what was found, and where a set is not whole.

    Raises:
        ConfigError: when none is asked for, or naming all that cannot be read and what to do.
    """
    names: list[str] = [*config.evaluation.benchmarks]
    if not names:
        raise ConfigError(
            "evaluation.benchmarks: none is asked for; name some, as --benchmarks math500 aime24"
        )
    loaded: dict[str, ProblemSet] = {}
    refused: list[str] = []
    for name in names:
        source = benchmark_source(config, name)
        try:
            loaded[name] = _first(load_test_set(source, name), config.evaluation.benchmark_rows)
        except DataError as error:
            refused.append(_not_here(name, source, error))
    if refused:
        raise ConfigError("\n".join(refused))
    for name, problems in loaded.items():
        _say(config, name, problems)
    return loaded


def missing_files(config: Config) -> list[str]:
    """Say which benchmarks are to be read from a file that is not there; the hub is not asked."""
    sources = {name: benchmark_source(config, name) for name in config.evaluation.benchmarks}
    return [
        f"evaluation.benchmark_files.{name}: {source.place}: no such file or folder"
        for name, source in sources.items()
        if not is_hub(source.place) and not resolve_path(source.place).exists()
    ]


def provenance(loaded: dict[str, ProblemSet]) -> dict[str, Any]:
    """Return what was read, for the manifest."""
    each = [problems.provenance() for problems in loaded.values()]
    return {
        "files": {place: found for one in each for place, found in one["files"].items()},
        "rows_left_out": {
            key: sum(one["rows_left_out"][key] for one in each)
            for key in ("without_answer", "repeated")
        },
        "duplicates": {},
        "splits": {name: one["splits"]["test"] for name, one in zip(loaded, each, strict=True)},
    }


def benchmark_source(config: Config, name: str) -> Source:
    """Return where a benchmark's problems are."""
    return named_source(
        config.evaluation.benchmark(name).source,
        config.evaluation.settings_of(name).columns,
        "test",
        setting=f"evaluation.benchmark_files.{name}",
        columns_setting=f"evaluation.benchmark_settings.{name}.columns",
    )


def _first(problems: ProblemSet, rows: int | None) -> ProblemSet:
    return replace(problems, test=problems.test[:rows])


def _not_here(name: str, source: Source, error: DataError) -> str:
    """Say that a benchmark cannot be run, why, and what would help."""
    if not is_hub(source.place):
        return f"benchmark {name}: {error}"
    cause = error.__cause__
    reason = " ".join(str(cause).split()) if cause is not None else str(error)
    return (
        f"benchmark {name}: {source.name} cannot be read from here ({reason[:200]}); name a copy, "
        f"--set evaluation.benchmark_files.{name}=FILE (or hub:FOLDER), or leave {name} out of "
        "evaluation.benchmarks"
    )


def _say(config: Config, name: str, problems: ProblemSet) -> None:
    for line in problems.recognised:
        LOGGER.info("benchmark %s: %s", name, line)
    found, published = len(problems.test), config.evaluation.benchmark(name).problems
    if found != published:
        LOGGER.warning(
            "benchmark %s: %d problems, and the published set has %d: not the figure that others "
            "report", name, found, published,
        )  # fmt: skip
