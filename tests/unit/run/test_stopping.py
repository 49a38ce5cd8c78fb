"""What signals do to a process: one line, an exit code, an end, whatever it was about."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAD = """
import logging, os, signal, sys, threading, time
from src.run.stopping import stoppable
logging.basicConfig(format="%(message)s")
def here(name): os.kill(os.getpid(), getattr(signal, name))
"""
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def run(body: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    # Whatever runs the tests may itself be run in the background, where Ctrl-C is ignored.
    command = ["env", "--default-signal", *prefix, sys.executable, "-c", HEAD + body]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_unwinds_the_stack_and_leaves_one_line(number):
    done = run(
        f"""
with stoppable(lambda: "all is kept"):
    try:
        here("{number.name}")
        time.sleep(10)
    finally:
        print("put away")
"""
    )
    assert done.returncode == ENDS[number], done.stderr
    assert done.stdout == "put away\n"
    assert done.stderr == f"stopped by {number.name}; all is kept\n"


def test_a_second_signal_does_not_disturb_the_end_and_later_failures_are_not_told():
    done = run(
        """
with stoppable(lambda: "all is kept"):
    try:
        here("SIGINT")
    finally:
        here("SIGINT"), here("SIGTERM")
        print("put away")
        raise RuntimeError("the pipe is closed")
"""
    )
    assert (done.returncode, done.stdout) == (130, "put away\n")
    assert done.stderr == "stopped by SIGINT; all is kept\n"


def test_what_hangs_is_ended_all_the_same():
    """The lock stands for a driver's call, in which Python takes no notice of signals."""
    done = run(
        """
with stoppable(lambda: None, grace_s=0.2):
    try:
        here("SIGTERM")
    finally:
        threading.Event().wait()
"""
    )
    assert done.returncode == 143


def test_other_failures_and_good_ends_are_left_alone():
    failed = run('with stoppable(lambda: ""): raise ValueError("wrong")')
    assert failed.returncode == 1
    assert "ValueError: wrong" in failed.stderr
    fine = run('with stoppable(lambda: ""): pass\nprint(signal.getsignal(signal.SIGTERM) == 0)')
    assert (fine.returncode, fine.stdout) == (0, "True\n")


def test_nohup_is_respected():
    done = run('with stoppable(lambda: ""): here("SIGHUP")\nprint("went on")', "nohup")
    assert (done.returncode, done.stdout) == (0, "went on\n")
