"""Locks between processes, and machines, that share a folder.

The kernel drops a lock with the process that holds it, however that process ends: nothing is left
behind that somebody would have to clear away.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from src.config.loading import ConfigError


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock inside the block; yield False where somebody else holds it and `wait` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened for writing, which NFS asks of whoever locks exclusively.
    with path.open("a") as file:
        yield _lock(file, wait)


def claim_folder(folder: Path) -> IO[str]:
    """Take a folder for this process alone, until the returned file is closed or the process ends.

    Raises:
        ConfigError: naming the process that works in it.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    if not _lock(file, wait=False):
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise ConfigError(
            f"{folder}: another process ({holder}) is working in this folder; wait for it or end "
            "it, or use another run.name"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _lock(file: IO[str], wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{file.name}: this file system cannot lock files ({error}); set run.output_root to "
            "one that can, such as a local disk or NFSv4"
        ) from None
    return True
