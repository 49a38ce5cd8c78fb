"""Write, read and lock the files of a run directory, so that no reader ever sees half of one.

All that a run writes by itself goes through this module. A full disk ends in one paragraph; what a
killed process left of a last line is taken for what it is. The kernel drops a lock with the process
that holds it, however that process ends: nobody has to clear one away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from src.config.loading import ConfigError

LOGGER = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How libraries that write by themselves (safetensors, torch in a stream and in a file) say it.
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large",
               "PytorchStreamWriter failed writing", "unexpected pos", "iostream error",
)  # fmt: skip
_MIB = 2**20


class DiskFullError(ConfigError):
    """A file could not be written for lack of space; the message says which and what to do."""


@contextmanager
def room_for(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn what the block raises where the disk is full into one paragraph.

    Args:
        path: what the block writes.
        size: bytes it needs, where that is known.

    Raises:
        DiskFullError: naming the file, what is free and what is needed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not says_full(error):
            raise
        raise DiskFullError(_describe_full(path, size, error)) from error


def says_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk, or a quota, is full."""
    by_number = isinstance(error, OSError) and error.errno in _FULL
    return by_number or any(words in str(error) for words in _FULL_WORDS)


def disk_full(error: BaseException, folder: Path) -> str | None:
    """Return the paragraph about a full disk; None where an error is about something else.

    Args:
        error: one of this process, or one with the traceback of another as its text.
        folder: what was being written to, where the error does not say.
    """
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return None
        if isinstance(seen, DiskFullError):
            return str(seen)
        if found := re.search(rf"{DiskFullError.__name__}: (.+)", str(seen)):
            return found[1]
        if says_full(seen):
            return _describe_full(folder / "...", None, seen)
        seen = seen.__cause__ or seen.__context__
    return None


def _describe_full(path: Path, size: int | None, error: BaseException) -> str:
    free = shutil.disk_usage(path.parent).free
    needed = "" if size is None else f", {size / _MIB:,.1f} MiB are needed"
    missing = f", {(size - free) / _MIB:,.1f} MiB are missing" if size and size > free else ""
    quoted = " ".join(str(error).split())[:160]
    return (
        f"the disk is full: {path} could not be written ({quoted}); {free / _MIB:,.1f} MiB are "
        f"free on {path.parent}{needed}{missing}. What was there before is untouched: free space "
        "there (or raise the quota), then start the same command again with --resume, which goes on"
    )


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Replace the file in one step; a failure leaves the old one and no temporary file.

    Raises:
        DiskFullError: where there is no space for it.
    """
    # The same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path, len(content)), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file with UTF-8 text, line endings as given."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, obj: Any) -> None:
    """Replace the file with indented JSON.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
        TypeError: a value has no JSON form.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def move_folder(source: Path, target: Path) -> None:
    """Put a folder that was written whole in the place of another, or of none."""
    shutil.rmtree(target, ignore_errors=True)
    os.replace(source, target)


def append_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add records, one a line; all of them or, where the disk is full, none.

    NaN and infinity are written as Python's `NaN` and `Infinity`: the log of a run that diverges
    should show it.

    Raises:
        DiskFullError: where there is no space for them.
    """
    content = _lines(records)
    # Unbuffered: one write for all lines, so that a killed run seldom leaves half of one.
    with room_for(path, len(content)), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            written = 0
            while written < len(content):  # a disk that fills up takes a part
                written += file.write(content[written:])
        except OSError:
            file.truncate(end)
            raise


def write_jsonl_atomic(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace the file with records, one a line."""
    write_bytes_atomic(path, _lines(records))


def _lines(records: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode("utf-8")


def drop_torn_line(path: Path) -> None:
    """Take an unfinished last line off a file that grows by lines: its writer was killed."""
    if not path.is_file() or _ends_whole(path):
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
        LOGGER.warning(
            "%s: dropped the last %d bytes, a line that was not written to its end",
            *(path, len(content) - whole),
        )


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def read_jsonl(path: Path, *, growing: bool = False) -> list[dict[str, Any]]:
    """Return the records of all lines.

    Args:
        growing: another process may be writing the last line, which is left out then.

    Raises:
        ConfigError: a line is no JSON object (an empty one included), with file and line number.
    """
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1] if growing else content
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Parse one line, or say where and what is wrong with it."""
    advice = "restore or delete the line"
    try:
        record = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}:{number}: {error} in {_shown(line)}; {advice}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path}:{number}: expected a JSON object, got {_shown(line)}; {advice}")
    return record


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", errors="replace"))


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        ConfigError: naming the file, when it is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # the text's, or of bytes that are none
        raise ConfigError(f"{path}: not valid JSON ({error}); the file is damaged") from None


def read_record(path: Path) -> dict[str, Any]:
    """Read one JSON file that holds an object.

    Raises:
        ConfigError: naming the file, when it is missing or holds anything else.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: missing")
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(found).__name__}; damaged")
    return found


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
