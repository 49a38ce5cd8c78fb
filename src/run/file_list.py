"""What a finished stage consists of: every file with its size and hash, or named as not covered.

`files.json` is written as a stage ends. Its own hash stands in `outcome.json`, and that one's in
the run's `files.json`, written with the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from src.run.files import read_record
from utils.data.hashing import file_sha256

FILES = "files.json"
DESCRIPTION = "checkpoint.json"
"""Lies in each checkpoint; holds the hashes of its files, taken as they were written."""
OUTCOME = "outcome.json"
_NOT_COVERED = {
    FILES: "its hash stands in outcome.json",
    OUTCOME: "its hash stands in the run's files.json",
    "run*.log": "what was said; no figure comes from it",
    "wandb*": "W&B's own copies",
    "tensorboard*": "copies of what metrics.jsonl holds",
    "trl/*": "TRL's state for --resume; the checkpoints are covered",
    "trials/*/*step_*": "checkpoints of trials, deleted when the search has ended",
    "*.lock": "empty",
    ".*": "temporary",
}
_SHARED = {
    "manifest-*.json": "of a process that shared the study",
    "study.journal": "processes that share the study write to it after its end",
}


def list_files(folder: Path, *, shared: bool = False) -> dict[str, Any]:
    """Return what `files.json` holds; a checkpoint's hashes are those that were written with it.

    Args:
        shared: other processes may still write in the folder.
    """
    not_covered = _NOT_COVERED | (_SHARED if shared else {})
    names = [name for name, _ in _covered(folder, not_covered)]
    return describe_files(folder, names, _hashed_already(folder)) | {"not_covered": not_covered}


def describe_files(
    folder: Path, names: Iterable[str], known: Mapping[Path, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the sizes and hashes of named files.

    Args:
        known: hashes that need not be taken again.
    """
    return {
        "files": {
            name: {"size": file.stat().st_size, "sha256": known.get(file) or file_sha256(file)}
            for name in names
            for file in [folder / name]
        }
    }


def differing_files(folder: Path, files_sha256: str | None) -> Iterator[str]:
    """Say which files of a finished stage are not those that it ended with, one line each.

    Args:
        files_sha256: of `files.json`, as `outcome.json` states it.

    Raises:
        ConfigError: when `files.json` is missing or damaged.
    """
    listed = read_record(folder / FILES)
    if file_sha256(folder / FILES) != files_sha256:
        yield f"{FILES}: not the list whose hash {OUTCOME} states"
    yield from changed_files(folder)
    for name, _ in _covered(folder, listed["not_covered"]):
        if name not in listed["files"]:
            yield f"{name}: added since the run ended"


def changed_files(folder: Path) -> Iterator[str]:
    """Say which of the files that a folder's list names are not what it states.

    Raises:
        ConfigError: when the list is missing or damaged.
    """
    for name, recorded in read_record(folder / FILES)["files"].items():
        file = folder / name
        if not file.is_file():
            yield f"{name}: missing after the run ended"
        elif (size := file.stat().st_size) != recorded["size"]:
            yield f"{name}: changed since the run ended ({recorded['size']:,} bytes, now {size:,})"
        elif file_sha256(file) != recorded["sha256"]:
            yield f"{name}: changed since the run ended (same size, other content)"


def not_covered(folder: Path) -> Iterator[str]:
    """Yield the names and patterns of what no hash covers in a stage's folder, as its list states.

    Raises:
        ConfigError: when the list is missing or damaged.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    for pattern in read_record(folder / FILES)["not_covered"]:
        if pattern not in (FILES, OUTCOME) and any(_matches(name, [pattern]) for name in names):
            yield pattern


def _covered(folder: Path, not_covered: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not _matches(name, not_covered):
            yield name, file


def _matches(name: str, patterns: Mapping[str, str] | list[str]) -> bool:
    # A pattern stands for a file of that name at any depth, and for all below a folder of it.
    parts = name.split("/")
    return any(
        fnmatch(name, pattern) or any(fnmatch(part, pattern) for part in parts)
        for pattern in patterns
    )


def _hashed_already(folder: Path) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for description in folder.rglob(DESCRIPTION):
        written = read_record(description)
        named = written["sha256"]
        if "state_sha256" in written:
            named |= {"training_state.pt": written["state_sha256"]}
        found |= {description.parent / name: sha256 for name, sha256 in named.items()}
    return found
