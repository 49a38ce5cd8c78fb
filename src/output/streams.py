"""Who writes to the terminal: this project's own lines do, what libraries print goes to a file.

Native libraries write to the descriptors 1 and 2 themselves. So while a stage runs those lead into
its `run.log`, and what is meant for a person goes to duplicates that were taken before. A worker
process inherits 1 and 2 as they are then, and is handed the duplicates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple, TextIO

# Of a log file, which has no width of its own.
_COLUMNS = 100


class Own(NamedTuple):
    """Streams to the terminal that only this project writes to."""

    out: TextIO
    err: TextIO


_own: Own | None = None


def out() -> TextIO:
    """Return where results are written: standard output, or its duplicate."""
    return _own.out if _own else sys.stdout


def err() -> TextIO:
    """Return where progress and messages are written: standard error, or its duplicate."""
    return _own.err if _own else sys.stderr


def is_apart() -> bool:
    """Tell whether descriptors 1 and 2 lead elsewhere than to the terminal."""
    return _own is not None


def own_descriptors() -> tuple[int, ...]:
    """Return the descriptors that lead to the terminal."""
    return (1, 2, *(stream.fileno() for stream in _own or ()))


def lead_rest_to(file: Path) -> None:
    """Let all that is not written through `out` and `err` be added to a file from now on."""
    global _own  # noqa: PLW0603 - a process has one standard output
    if _own is None:
        _flush()
        _own = Own(*(_text_stream(os.dup(descriptor)) for descriptor in (1, 2)))
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)


@contextmanager
def restored() -> Iterator[None]:
    """Let standard output and error lead to the terminal again after the block."""
    global _own  # noqa: PLW0603
    try:
        yield
    finally:
        if _own is not None:
            _flush()
            for descriptor, stream in zip((1, 2), _own, strict=True):
                stream.flush()
                os.dup2(stream.fileno(), descriptor)
                stream.close()
            _own = None


class Handed:
    """The duplicates on their way into a process that is being started, which writes to them."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Have them duplicated for the process that is just being spawned."""
        return _taken_over, tuple(DupFd(stream.fileno()) for stream in _own or ())


def _taken_over(*handed: Any) -> Handed:
    global _own  # noqa: PLW0603
    if handed:
        _own = Own(*(_text_stream(each.detach()) for each in handed))
    return Handed()


def draws(stream: TextIO) -> bool:
    """Say whether a bar can be drawn; some terminals, such as a container's, have no width."""
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0


def columns(stream: TextIO) -> int:
    """Return how wide lines to a stream may be."""
    return os.get_terminal_size(stream.fileno()).columns if draws(stream) else _COLUMNS


def _text_stream(descriptor: int) -> TextIO:
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
