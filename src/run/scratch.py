"""The temporary files of a stage, and where what libraries compile is kept.

The temporary files lie in one short folder for all processes, removed at the end: W&B, vLLM and
torch leave some behind where a process of theirs is killed. Not in the run's own folder: vLLM's and
Python's unix sockets lie here, whose path has at most 107 bytes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from src.config.loading import ConfigError
from src.run.files import file_lock

_PREFIX = "math-stage-"
_LOCK = "alive.lock"
# A folder this young may be about to be locked by whoever has just created it.
_YOUNG_S = 60.0


def compiled_places(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that let what libraries compile outlive the run, where they are needed.

    torch's place is among the temporary files, whose folder is the run's; that of vLLM, Triton and
    FlashInfer is below HOME, which many a container cannot write: their first kernel would end it.

    Raises:
        ConfigError: where the environment names a folder that cannot be written.
    """
    home, kept = Path.home(), _temporary_files() / f"compiled_{os.getuid()}"
    caches = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    own = {
        "TORCHINDUCTOR_CACHE_DIR": None,
        "VLLM_CACHE_ROOT": caches / "vllm",
        "TRITON_CACHE_DIR": home / ".triton" / "cache",
        "FLASHINFER_WORKSPACE_BASE": home / ".cache" / "flashinfer",
    }
    needed = {}
    for name, folder in own.items():
        named = environment.get(name)
        if named and not can_be_written(Path(named).expanduser()):
            raise ConfigError(
                f"{name}={named}: this folder cannot be written, and compiled kernels are kept in "
                "it; name another one, or unset it"
            )
        if not named and (folder is None or not can_be_written(folder)):
            needed[name] = str(kept / name.partition("_")[0].lower())
    return needed


def can_be_written(folder: Path) -> bool:
    """Look at the folder, or at the nearest one above it that exists."""
    found = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK)


def make_scratch() -> Path:
    """Create the folder, have it removed when this process ends, and clear what dead ones left.

    Raises:
        ConfigError: where no folder for temporary files can be written.
    """
    base = _temporary_files()
    for left in base.glob(f"{_PREFIX}*/{_LOCK}"):
        _clear(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    alive = ExitStack()
    alive.enter_context(file_lock(folder / _LOCK))
    atexit.register(_remove, folder, alive, os.getpid())
    return folder


def _temporary_files() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigError(
            f"no folder for temporary files can be written ({error.strerror}); set TMPDIR to one "
            "that can, with a short path"
        ) from None


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
