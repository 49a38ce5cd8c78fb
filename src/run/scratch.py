"""The temporary files of a stage: one short folder for all its processes, removed at its end.

W&B, vLLM and torch leave files and folders behind where a process of theirs is killed. Not in the
run's own folder: vLLM's and Python's unix sockets lie here, whose path has at most 107 bytes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from src.config.loading import ConfigError
from src.run.files import file_lock

_PREFIX = "math-stage-"
_LOCK = "alive.lock"
# A folder this young may be about to be locked by whoever has just created it.
_YOUNG_S = 60.0


def make_scratch() -> Path:
    """Create the folder, have it removed when this process ends, and clear what dead ones left.

    Raises:
        ConfigError: where no folder for temporary files can be written.
    """
    try:
        base = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigError(
            f"no folder for temporary files can be written ({error.strerror}); set TMPDIR to one "
            "that can, with a short path"
        ) from None
    for left in base.glob(f"{_PREFIX}*/{_LOCK}"):
        _clear(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    alive = ExitStack()
    alive.enter_context(file_lock(folder / _LOCK))
    atexit.register(_remove, folder, alive, os.getpid())
    return folder


def _clear(lock: Path) -> None:
    """Remove a folder whose process is gone."""
    if not os.access(lock, os.W_OK) or time.time() - lock.stat().st_mtime < _YOUNG_S:
        return
    with file_lock(lock, wait=False) as gone:
        if gone:
            shutil.rmtree(lock.parent, ignore_errors=True)


def _remove(folder: Path, alive: ExitStack, owner: int) -> None:
    # A forked child may end through here too.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        alive.close()
