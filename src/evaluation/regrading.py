"""Grade saved completions again, without a model, and say what changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError
from src.evaluation.figures import EvalReport, summarise
from src.evaluation.rows import grade_rows
from src.run.files import read_jsonl

_NEEDED = (
    *("unique_id", "problem", "reference", "level", "type", "completion", "form", "truncated"),
    *("tokens", "answer", "outcome", "found", "fault"),
)


@dataclass(frozen=True, slots=True)
class Regraded:
    """Saved completions with their new grades, beside the figures of both."""

    rows: list[dict[str, Any]]
    before: EvalReport
    after: EvalReport
    changed: list[tuple[dict[str, Any], dict[str, Any]]]
    """Rows whose outcome differs: as saved, as graded now."""
    seconds: float


def regrade(file: Path, *, fast: bool = True, ks: Sequence[int] = ()) -> Regraded:
    """Grade the completions of a file again.

    Args:
        fast: the grader's own; False is the patient grader with its wider equivalences.
        ks: of pass@k and maj@k.

    Raises:
        ConfigError: when the file is not one that an evaluation wrote.
    """
    saved = read_completions(file)
    started = time.perf_counter()
    rows = grade_rows(saved, fast=fast)
    seconds = time.perf_counter() - started
    before = summarise(saved, split="as saved", checkpoint=str(file), ks=ks)
    after = summarise(rows, split="graded now", checkpoint=str(file), ks=ks)
    pairs = zip(saved, rows, strict=True)
    changed = [(old, new) for old, new in pairs if old["outcome"] != new["outcome"]]
    return Regraded(rows, before, after, changed, seconds)


def read_completions(file: Path) -> list[dict[str, Any]]:
    """Read the completions that an evaluation wrote.

    Raises:
        ConfigError: when there is no such file, or it holds something else.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; name the completions.jsonl of an evaluation")
    try:
        rows = read_jsonl(file)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not rows:
        raise ConfigError(f"{file}: holds no completion; it was cut short")
    for number, row in enumerate(rows, 1):
        if missing := _missing(row):
            raise ConfigError(
                f"{file}:{number}: {', '.join(missing)} missing; this is no completions.jsonl of "
                "an evaluation (bare answers are graded by python -m utils.grade)"
            )
    return rows


def _missing(row: Mapping[str, Any]) -> list[str]:
    return [key for key in _NEEDED if key not in row]
