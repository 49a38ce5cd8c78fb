"""The client's view of a worker: answers, deaths, silence; with children that do what they must."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from src.evaluation.worker_process import Mailbox, Silence, WorkerProcess

SETTING = "engine.no_answer_timeout_s"


def started(serve, allowed_s: float = 20.0, *, has_children: bool = False) -> WorkerProcess:
    return WorkerProcess("the worker", serve, (), allowed_s, SETTING, has_children=has_children)


def echoes(mailbox: Mailbox) -> None:
    with suppress(EOFError):
        while True:
            mailbox.send(mailbox.take())


def answers_and_exits(mailbox: Mailbox) -> None:
    mailbox.send("cannot start")
    os._exit(3)


def is_killed(mailbox: Mailbox) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(mailbox: Mailbox) -> None:
    mailbox.send(mailbox.take())
    os.kill(os.getpid(), signal.SIGSTOP)


def hangs_with_a_child(mailbox: Mailbox) -> None:
    children = [subprocess.Popen(["sleep", seconds]) for seconds in ("600", "0.01", "600")]
    children[1].wait()
    mailbox.send([child.pid for child in children])
    time.sleep(600)


def works_long(mailbox: Mailbox) -> None:
    mailbox.send("begun")
    for _ in range(40):
        time.sleep(0.02)
        mailbox.beat()
    mailbox.send("done")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_silence_is_counted_since_the_last_sign_of_life():
    clock = Clock()
    silence = Silence(clock)
    for clock.now, sign, expected in [(1, 1, 0), (3, 1, 2), (9, 1, 8), (10, 2, 0), (15, 2, 5)]:
        assert silence.look(sign) == expected


def test_time_in_which_nobody_looked_is_not_silence():
    """A run suspended by Ctrl-Z and its worker go on together; the worker is not to blame."""
    clock = Clock()
    silence = Silence(clock)
    clock.now = 3600
    assert silence.look(0) == 10


def test_answers_of_any_size_come_in_order():
    worker = started(echoes)
    messages = ["a", "b" * 3_000_000, "c"]
    for message in messages:
        worker.send(message)
    assert [worker.receive() for _ in messages] == messages
    worker.stop(5.0)
    assert worker.process.exitcode == 0  # by itself, as nobody asks any more


def test_a_last_answer_is_read_though_requests_wait():
    worker = started(answers_and_exits)
    worker.send("r" * 1_000_000)
    assert worker.receive() == "cannot start"
    assert worker.receive() is None
    assert worker.gone == "ended with exit code 3"
    assert worker.receive() is None
    assert worker.has_news()


def test_a_killed_process_is_told_by_its_signal():
    worker = started(is_killed)
    assert worker.receive() is None
    assert worker.gone == "was killed by SIGKILL"


def test_a_process_that_hangs_is_killed_at_its_deadline(caplog):
    worker = started(hangs)
    worker.send("ready")
    assert worker.receive() == "ready"
    worker.allow(0.4, SETTING)
    worker.send("r" * 1_000_000)  # which nobody will take
    assert worker.receive() is None
    assert worker.gone.startswith("gave no answer for ")
    assert worker.gone.endswith(f"s and was killed ({SETTING})")
    assert not worker.process.is_alive()
    assert "at 0.4 s it is killed" in caplog.text
    worker.stop(5.0)


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.parametrize("way", ["silence", "stop", "its own death"])
def test_children_are_killed_with_their_process(way):
    """Those of an engine on several GPUs hold one each."""
    worker = started(hangs_with_a_child, has_children=True)
    first, gone, last = worker.receive()
    assert (lives(first), lives(gone), lives(last)) == (True, False, True)
    if way == "silence":
        worker.allow(0.5, SETTING)
        assert worker.receive() is None
    elif way == "its own death":
        assert not worker.has_news()  # it looks
        os.kill(worker.process.pid, signal.SIGKILL)
        assert worker.receive() is None
    worker.stop()
    ends = time.monotonic() + 5
    while (lives(first) or lives(last)) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not lives(first)
    assert not lives(last)


def test_a_process_that_shows_signs_of_life_is_waited_for():
    worker = started(works_long)
    assert worker.receive() == "begun"
    worker.allow(0.4, SETTING)
    assert worker.receive() == "done"


def test_ctrl_c_of_the_terminal_leaves_it_alone():
    worker = started(echoes)
    os.kill(worker.process.pid, signal.SIGINT)  # while it starts
    worker.send("a")
    assert worker.receive() == "a"
    os.kill(worker.process.pid, signal.SIGINT)
    worker.send("b")
    assert worker.receive() == "b"
    worker.stop()
