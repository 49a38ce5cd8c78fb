"""A child process that answers messages and shows that it lives, as its client sees it.

The client waits without end for none of its doings: a process that has died is seen, and so is one
that shows no sign of life for longer than it was allowed, which is killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import psutil

from src.output.streams import Handed

LOGGER = logging.getLogger(__name__)
# A process without work shows this often that it lives.
_IDLE_BEAT_S = 1.0
_LOOK_EVERY_S = 1.0
# Between two looks at a process no more than this counts as its silence: a run that was suspended
# as a whole has looked at nothing, and its worker could show nothing.
_LONGEST_LOOK_S = 10.0
_WARN_AT_SHARE = 0.5


class Mailbox:
    """The child's side: requests to take, answers to send, signs of life to show, a terminal."""

    def __init__(self, requests: Connection, answers: Connection, beats: Any) -> None:
        self._requests, self._answers, self._beats = requests, answers, beats
        self._terminal = Handed()

    def beat(self) -> None:
        """Show that the loop that does the work goes on."""
        self._beats.value += 1

    def take(self) -> Any:
        """Wait for a request.

        Raises:
            EOFError: the client is gone.
        """
        while not self._requests.poll(_IDLE_BEAT_S):
            self.beat()
        return self._requests.recv()

    def send(self, answer: Any) -> None:
        """Send an answer."""
        self.beat()
        self._answers.send(answer)


class Silence:
    """Counts the seconds since the last sign of life, of those in which somebody looked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sign, self._looked = 0, clock()
        self.seconds = 0.0

    def look(self, sign: int) -> float:
        """Take the present sign of life; return the seconds for which it has not changed."""
        now = self._clock()
        if sign == self._sign:
            self.seconds += min(now - self._looked, _LONGEST_LOOK_S)
        else:
            self._sign, self.seconds = sign, 0.0
        self._looked = now
        return self.seconds


class WorkerProcess:
    """A process started to run `serve(*arguments, mailbox)`.

    Two threads carry the messages, so that a process that does not read or stops amid an answer
    keeps nobody waiting.

    Args:
        name: said in messages, such as `the evaluation worker`.
        allowed_s: longest silence.
        setting: that `allowed_s` is the value of.
        bell: set whenever an answer has come, or the last one; for who waits for several processes.
        has_children: the process will start some itself; they end when it does.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[..., None],
        arguments: tuple[Any, ...],
        allowed_s: float,
        setting: str,
        *,
        bell: threading.Event | None = None,
        has_children: bool = False,
    ) -> None:
        self.gone: str | None = None
        """Why the process is there no more, as the end of a sentence."""
        self._name, self._bell = name, bell or threading.Event()
        self._has_children, self._children = has_children, list[psutil.Process]()
        self.allow(allowed_s, setting)
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        context = multiprocessing.get_context("spawn")
        (taken, given), (answers, answered) = context.Pipe(False), context.Pipe(False)
        self._beats = context.RawValue("Q", 0)
        self._silence, self._warned = Silence(), False
        mailbox = Mailbox(taken, answered, self._beats)
        self.process = context.Process(
            target=serve,
            args=(*arguments, mailbox),
            name=name,
            daemon=not has_children,  # multiprocessing lets a daemon have none
        )
        # Ctrl-C in a terminal reaches the child too, which would say so by a traceback. Starting
        # the tracker, which a first child needs, would lift the mask.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        taken.close()
        answered.close()
        for work, connection in ((self._carry_out, given), (self._carry_in, answers)):
            threading.Thread(target=work, args=(connection,), daemon=True).start()

    def allow(self, seconds: float, setting: str) -> None:
        """Say how long the process may be silent from now on."""
        self._allowed_s, self._setting = seconds, setting

    def send(self, message: Any) -> None:
        """Hand a message over, without waiting for the process to take it."""
        self._outbox.put(ForkingPickler.dumps(message))

    def has_news(self) -> bool:
        """Tell whether `receive` would return at once: an answer, or that the process is gone."""
        return not self._inbox.empty() or self._ended() or self._silent()

    def receive(self) -> Any | None:
        """Wait for an answer; None when the process is gone."""
        every = min(_LOOK_EVERY_S, self._allowed_s / 4)
        while True:
            try:
                return ForkingPickler.loads(self._inbox.get(timeout=every))
            except queue.Empty:
                if self._ended() or self._silent():
                    return None

    def stop(self, grace_s: float = 0.0) -> None:
        """End the process, which may take `grace_s` to do so itself once nobody asks any more."""
        self._outbox.put(None)
        if grace_s:
            self.process.join(grace_s)
        if self.process.is_alive() or self._children:
            self._kill()

    def _ended(self) -> bool:
        if self.gone is None:
            code = self.process.exitcode
            if code is None:
                return False
            self.gone = (
                f"was killed by {signal.Signals(-code).name}"
                if code < 0
                else f"ended with exit code {code}"
            )
        return True

    def _silent(self) -> bool:
        """Tell whether the process has been silent for too long; then it is killed."""
        self._look_for_children()
        seconds = self._silence.look(self._beats.value)
        if self.gone is not None or seconds < _WARN_AT_SHARE * self._allowed_s:
            self._warned = False
            return self.gone is not None
        told = f"no answer for {seconds:.0f} s"
        if seconds < self._allowed_s:
            if not self._warned:
                self._warned = True
                LOGGER.warning(
                    "%s (process %d): %s; at %g s it is killed (%s)",
                    self._name, self.process.pid, told, self._allowed_s, self._setting,
                )  # fmt: skip
            return False
        self.gone = f"gave {told} and was killed ({self._setting})"
        LOGGER.error("%s (process %d): %s; it is killed", self._name, self.process.pid, told)
        self._kill()
        return True

    def _kill(self) -> None:
        """End the process and its children, which may hang with it and hold a GPU each."""
        self._look_for_children()
        self.process.kill()
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._children = []
        self.process.join()

    def _look_for_children(self) -> None:
        """Remember who is to end with the process: once it is gone nothing tells any more."""
        if self._has_children and self.process.is_alive():
            with suppress(psutil.NoSuchProcess):
                self._children = psutil.Process(self.process.pid).children(recursive=True)

    def _carry_out(self, connection: Connection) -> None:
        with connection:
            while (message := self._outbox.get()) is not None:
                try:
                    connection.send_bytes(message)
                except OSError:
                    return  # the process is gone, which `receive` sees

    def _carry_in(self, connection: Connection) -> None:
        with connection:
            try:
                while True:
                    self._inbox.put(connection.recv_bytes())
                    self._bell.set()
            except (EOFError, OSError):
                self._bell.set()  # the process is gone, which `receive` sees
