"""Log lines: whole in a stage's `run.log`, brief on the terminal.

A record may carry a brief form in parts, the most important first (`extra=brief(...)`); the
terminal shows as many as fit its width. Records of libraries stay in the log, errors apart.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.output.streams import columns, draws, err

IN_LOG: dict[str, Any] = {"brief": ()}
"""`extra` of a record for the log alone."""
FILE_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_OWN = ("src", "utils", "__main__", "run_pipeline")
_CLEAR_LINE = "\r\x1b[K"
_TIME = "%H:%M:%S"
# Between the parts of a line.
_JOINT = ", "


def brief(*parts: str) -> dict[str, Any]:
    """Return the `extra` of a record that the terminal shows in brief."""
    return {"brief": parts}


def log_to_terminal(*, level: int = logging.INFO, verbose: bool = False) -> None:
    """Send this process's log to the terminal, unless it has a way already.

    Args:
        verbose: every record, in its whole length.
    """
    logging.basicConfig(level=level, handlers=[TerminalLines(verbose=verbose)])


def fitted(parts: Sequence[str], width: int) -> str:
    """Join as many parts as fit, the first in any case.

    >>> fitted(["step 1/60: reward 0.352", "accuracy 0.296", "40 tokens"], 40)
    'step 1/60: reward 0.352, accuracy 0.296'
    """
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(_JOINT) + len(part) > width:
            break
        text += _JOINT + part
    return text


def duration(seconds: float) -> str:
    """Write a time roughly.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown_path(path: Path) -> str:
    """Write a path as short as it may be from where the command was given."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class TerminalLines(logging.Handler):
    """Writes records to the terminal, over the line of a bar that may stand there."""

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__()
        self._verbose = verbose
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", _TIME))

    def filter(self, record: logging.LogRecord) -> bool:
        """Let this project's records pass, and errors of others."""
        own = record.name.partition(".")[0] in _OWN or record.levelno >= logging.ERROR
        if not self._verbose and (not own or getattr(record, "brief", None) == ()):
            return False
        return bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            stream = err()
            text = self._text(record, columns(stream))
            stream.write(f"{_CLEAR_LINE if draws(stream) else ''}{text}\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - logging's way: a record that fails ends no run
            self.handleError(record)

    def _text(self, record: logging.LogRecord, width: int) -> str:
        parts = None if self._verbose else getattr(record, "brief", None)
        if parts is None:
            return self.format(record)
        time = self.formatter.formatTime(record, _TIME) if self.formatter else ""
        return fitted((f"{time} {parts[0]}", *parts[1:]), width)


def log_of_rest() -> logging.Handler:
    """Return what writes all records, whole, to where the rest of this process's output leads."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    return handler
