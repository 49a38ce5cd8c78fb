"""Where a study keeps what in its run folder."""

from __future__ import annotations

import uuid
from pathlib import Path

from src.artifacts import write_text_atomic


def trial_folder(folder: Path, number: int) -> Path:
    """Return where a trial of a run keeps its metrics and checkpoints."""
    return folder / "trials" / f"trial_{number:03d}"


def study_name(folder: Path, run_name: str) -> str:
    """Return the study's name in its storage, new for each run folder; needs the queue's lock.

    A database outlives the run folder: under the plain run name, a run that starts over would find
    the finished study of the one before.
    """
    file = folder / "study_name.txt"
    if not file.is_file():
        write_text_atomic(file, f"{run_name}-{uuid.uuid4().hex[:8]}\n")
    return file.read_text(encoding="utf-8").strip()
