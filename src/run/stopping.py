"""How a process ends before its work does: by a signal, or by a failure that a sentence tells.

Ctrl-C, SIGTERM and a closed terminal (SIGHUP) unwind the stack as an exception does, so that
what is under way is put away; one line and exit code 128 + signal follow.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from src.config.loading import ROOT
from src.output.streams import own_descriptors

LOGGER = logging.getLogger(__name__)
FAILED = 1
GRACE_S = 30.0
"""Seconds that a process has to end after a signal, then it is ended."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunError(RuntimeError):
    """The work cannot go on; the message says all that is to be told, the traceback is logged."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; `told` says that the user has been told so."""

    def __init__(self, number: int) -> None:
        self.name, self.number, self.told = signal.Signals(number).name, number, False
        super().__init__(self.name)


@contextmanager
def stoppable(explain: Callable[[], str | None], *, grace_s: float = GRACE_S) -> Iterator[None]:
    """End the process with one line and exit code 128 + signal if a signal comes in the block.

    The first signal raises `Stopped` where the main thread stands; later ones are ignored. Where
    the process does not end by itself, as in a call that hangs, it is ended after `grace_s`. A
    signal that was ignored at the start, as `nohup` has it, stays so.

    Args:
        explain: returns what follows "stopped by SIGINT; ", or None to say nothing.
    """
    received: list[Stopped] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            return  # on the way out already
        received.append(Stopped(number))
        if number == signal.SIGHUP:
            _leave_terminal()
        raise received[0]

    heard = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in heard}
    ender = _Ender(heard, grace_s)
    try:
        yield
    except BaseException:
        # Whatever the unwinding came to, the signal is why it was.
        if not received:
            raise
    finally:
        if not received:
            ender.close()
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        (stop,) = received
        if not stop.told and (text := explain()) is not None:
            LOGGER.warning("stopped by %s; %s", stop.name, text)
        for number in heard:
            signal.signal(number, signal.SIG_IGN)  # the interpreter's end would undo other handlers
        sys.exit(128 + stop.number)


def run_command(command: Sequence[str]) -> int:
    """Run a script of the project to its end, and hand on the signal that stops this process.

    A process that is killed outright takes what it runs along, as by SIGTERM.
    """
    running = subprocess.Popen(
        command, cwd=ROOT, preexec_fn=partial(end_with_parent, signal.SIGTERM)
    )
    try:
        return running.wait()
    except Stopped as stop:
        running.send_signal(stop.number)
        # It says itself that it was stopped, and what goes on from where.
        stop.told = running.wait() == 128 + stop.number
        raise


def end_told(folder: Path | None, told: str, error: BaseException) -> NoReturn:
    """Say what has failed and end the process with code 1.

    The traceback goes to the log file in `folder`, or to the terminal where there is none yet.
    """
    files = log_files(folder)
    if files:
        told += f"{'' if told.endswith('.') else '.'} The traceback is in {files[0].baseFilename}."
    LOGGER.error("%s", told, exc_info=None if files else error)
    keep_trace(folder, error)
    sys.exit(FAILED)


def keep_trace(folder: Path | None, error: BaseException) -> None:
    """Write the traceback to the log file in a folder, if it has one."""
    trace = (type(error), error, error.__traceback__)
    for handler in log_files(folder):
        handler.handle(
            LOGGER.makeRecord(LOGGER.name, logging.ERROR, __file__, 0, "traceback:", (), trace)
        )


def log_files(folder: Path | None) -> list[logging.FileHandler]:
    """Return what writes this process's log into files of a folder."""
    return [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder
    ]


class _Ender:
    """Ends the process some time after a signal, whatever its main thread does.

    Python's own handlers wait for the main thread, which may hang in a driver's call; the
    interpreter writes the number of every signal into this socket at once.
    """

    def __init__(self, heard: list[signal.Signals], grace_s: float) -> None:
        self._heard, self._grace_s = heard, grace_s
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="ender", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        signal.set_wakeup_fd(self._before)
        self._writer.close()

    def _watch(self) -> None:
        with self._reader:
            while number := self._reader.recv(1):
                if number[0] in self._heard:
                    threading.Event().wait(self._grace_s)
                    os._exit(128 + number[0])


def _leave_terminal() -> None:
    """Write to a terminal that has been closed no more, which would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in own_descriptors():
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends, however that ends.

    Of all signals SIGKILL alone reaches a process that has been stopped.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
