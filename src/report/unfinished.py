"""How far the stages of a run have come that have not finished: running, or stopped on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.config.loading import read_yaml
from src.output.lines import duration
from src.run.directory import GRPO_STAGE, SEARCH_STAGE
from src.run.file_list import OUTCOME
from src.run.files import file_lock, read_jsonl
from src.run.terminal import percent

Record = dict[str, Any]


def unfinished_stages(run_folder: Path, stages: Sequence[str]) -> list[Record]:
    """Return each stage that has begun and not finished, with how far it is, in words."""
    begun = [stage for stage in stages if (run_folder / stage / "config.yaml").is_file()]
    return [
        {"stage": stage, "said": ", ".join(_how_far(run_folder / stage))}
        for stage in begun
        if not (run_folder / stage / OUTCOME).is_file()
    ]


def profile_of(run_folder: Path, stage: str) -> str:
    """Return the profile that a stage was begun with."""
    profile: str = read_yaml(run_folder / stage / "config.yaml")["run"]["profile"]
    return profile


def trial_values(search_folder: Path) -> dict[int, float]:
    """Return the last value of each trial so far."""
    found = {}
    for file in sorted(search_folder.glob("trials/*/metrics.jsonl")):
        for row in read_jsonl(file, growing=True):
            if "trial/value" in row:
                found[int(row["trial"])] = float(row["trial/value"])
    return found


def _how_far(folder: Path) -> Iterator[str]:
    yield "running" if _is_held(folder) else "not running"
    config = read_yaml(folder / "config.yaml")
    if folder.name == SEARCH_STAGE:
        trials = len(list(folder.glob("trials/*/metrics.jsonl")))
        yield f"{trials} of {config['search']['trials']} trials begun"
    rows = read_jsonl(file, growing=True) if (file := folder / "metrics.jsonl").is_file() else []
    if rows and folder.name != SEARCH_STAGE:
        steps = f" of {config['grpo']['steps']}" if folder.name == GRPO_STAGE else ""
        yield f"step {max(row['step'] for row in rows)}{steps}"
    scored = [row for row in rows if "validation/accuracy" in row]
    if scored:
        last = max(scored, key=lambda row: row["step"])
        yield f"validation {percent(last['validation/accuracy'])} % at step {last['step']}"
    for partial in sorted(folder.glob("completions*.jsonl.partial*")):
        done = len(read_jsonl(partial, growing=True)) - 1
        yield f"{done:,} completions in {partial.name.split('.')[0]}"
    files = [*folder.glob("*.jsonl*"), *folder.glob("trials/*/metrics.jsonl")]
    if files:
        newest = max(file.stat().st_mtime for file in files)
        yield f"last figures {duration(max(time.time() - newest, 0))} ago"


def _is_held(folder: Path) -> bool:
    """Tell whether a process works in a stage's folder."""
    lock = folder.with_name(f".{folder.name}.lock")
    if not lock.is_file():
        return False
    with file_lock(lock, wait=False) as free:
        return not free
