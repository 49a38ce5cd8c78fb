"""The one table of benchmarks: avg@k and pass@k, each with its interval over problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.run.directory import BENCHMARKS
from src.run.file_list import OUTCOME
from src.run.files import read_record
from src.run.terminal import interval, percent

Record = Mapping[str, Any]
COLUMNS = (
    *("benchmark", "n", "k", "avg@k %", "pass@k %", "maj@k %"),
    *("format %", "cut %", "prompt", "sampling"),
)
SAID = (
    "Other yardsticks than the table of stages: each benchmark has its own problems, prompt and "
    "sampling. avg@k is the mean over k completions a problem, pass@k whether one of k is right, "
    "maj@k whether their vote is; intervals are bootstrapped over problems, whose completions are "
    "alike. An answer without the format that the prompt asks for counts as wrong; cut: by the "
    "token limit."
)


def rows_of(benchmarks: Mapping[str, Record]) -> list[tuple[str, ...]]:
    """Return the cells of each benchmark's row, matching `COLUMNS`."""
    return [_row(name, figures) for name, figures in benchmarks.items()]


def read_benchmarks(run_folder: Path) -> dict[str, dict[str, Any]]:
    """Return the outcome of each model that benchmarks were run on, by its folder's name."""
    found = {
        file.parent.name: read_record(file)
        for file in sorted((run_folder / BENCHMARKS).glob(f"*/{OUTCOME}"))
        if ".previous-" not in file.parent.name
    }
    return {name: found[name] for name in sorted(found, key=lambda name: _order(found[name]))}


def table(outcomes: Mapping[str, Record]) -> list[tuple[str, ...]]:
    """Return the rows of several models, header first; a benchmark's models stand together."""
    names = dict.fromkeys(name for one in outcomes.values() for name in one[BENCHMARKS])
    return [("model", *COLUMNS), *(row for name in names for row in _models(name, outcomes))]


def _models(name: str, outcomes: Mapping[str, Record]) -> Iterator[tuple[str, ...]]:
    for model, outcome in outcomes.items():
        if name in outcome[BENCHMARKS]:
            yield (model, *_row(name, outcome[BENCHMARKS][name]))


def _row(name: str, figures: Record) -> tuple[str, ...]:
    k, sampling = str(figures["samples_per_problem"]), figures["sampling"]
    several = k != "1"
    n, published = figures["n"], figures["published"]
    return (
        *(name, f"{n}" if n == published else f"{n} of {published}", k),
        _with_interval(figures, "pass_at", "1"),
        _with_interval(figures, "pass_at", k) if several else "-",
        _with_interval(figures, "majority_at", k) if several else "-",
        *(percent(figures["format_rate"]), percent(figures["truncated_rate"])),
        figures["prompt"],
        f"T {sampling['temperature']:g}, top-p {sampling['top_p']:g}, "
        f"{sampling['max_completion_tokens']:,} tokens",
    )


def _with_interval(figures: Record, name: str, k: str) -> str:
    """Write a figure with its interval; the mean over all completions is pass@1, without bias."""
    if k not in figures[name]:
        return "-"
    return f"{percent(figures[name][k])} {interval(figures[f'{name}_ci95'][k])}"


def _order(outcome: Record) -> tuple[int, str]:
    """Put base models, which lie in no run's folder, before checkpoints."""
    checkpoint = str(outcome["checkpoint"])
    return "/checkpoints/" in checkpoint, checkpoint
