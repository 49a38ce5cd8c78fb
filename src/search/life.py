"""Where a study keeps its trials, and whether the process behind a running one lives.

A process shows that by a lock it holds, or by heartbeats.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from src.run.files import file_lock, write_text_atomic

_TAKEN = "taken"


class TrialLife(Protocol):
    """How processes see of one another's trials that they are being worked on.

    Both methods are called by whoever holds the queue's lock.
    """

    def shown(self, trial: Any) -> AbstractContextManager[None]:
        """Give signs of life inside the block, the first one before it begins."""

    def is_gone(self, trial: Any) -> AbstractContextManager[bool]:
        """Say whether no process works on a running trial, and keep it so inside the block."""


class LockedLife:
    """A lock in the trial's folder, for a study kept in a file.

    Args:
        folder: of the run; all processes see the same one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def shown(self, trial: Any) -> Iterator[None]:
        """Hold the trial's lock."""
        file = self._file(trial.number)
        with file_lock(file):
            yield
            file.unlink(missing_ok=True)

    def is_gone(self, trial: Any) -> AbstractContextManager[bool]:
        """Take the trial's lock; that succeeds only where no process holds it."""
        return file_lock(self._file(trial.number), wait=False)

    def _file(self, number: int) -> Path:
        return trial_folder(self._folder, number) / "alive.lock"


class HeartbeatLife:
    """Heartbeats in the database, which Optuna's own thread repeats.

    Optuna fails the trials whose heartbeat stopped, but none without any heartbeat.

    Args:
        record: stores a heartbeat of the trial with the given id.
    """

    def __init__(self, record: Any) -> None:
        self._record = record

    @contextmanager
    def shown(self, trial: Any) -> Iterator[None]:
        """Store the first heartbeat, then mark the trial."""
        self._record(trial._trial_id)
        trial.set_user_attr(_TAKEN, True)
        yield

    @contextmanager
    def is_gone(self, trial: Any) -> Iterator[bool]:
        """Say whether the mark is missing: then the process ended before its first heartbeat."""
        yield _TAKEN not in trial.user_attrs


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
