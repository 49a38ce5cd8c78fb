"""The r1_zero grader: the answer's mathematics by category, the format grammar, and the limits."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.drgrpo_grader import (
    grade,
)
from utils.grading.symbolic_client import Unscorable
from utils.grading.symbolic_pool import POOL

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def respond(answer: str) -> str:
    """Make a well-formed response."""
    return f"some reasoning</think> <answer>{answer}</answer>"


def test_deadline_is_unscorable_and_the_next_call_works():
    with pytest.raises(Unscorable, match="deadline"):
        POOL.equal(r"\sin x", r"\cos x", 1e-6)
    assert grade(respond(r"\cot x"), r"\frac{1}{\tan x}").outcome == "correct"


def test_crash_of_the_child_is_unscorable(monkeypatch):
    def crash(*_, **__):
        raise Unscorable("symbolic child died")

    monkeypatch.setattr(POOL, "equal", crash)
    result = grade(respond(r"\sin q"), r"\cos q")
    assert (result.outcome, result.reward) == ("unscorable", 0.0)


def test_threads_share_one_child():
    outcomes: dict[int, str] = {}

    def work(index: int) -> None:
        outcomes[index] = grade(respond(rf"\sec^2 t - {index}"), r"\tan^2 t").outcome

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {0: "wrong_answer", 1: "correct", 2: "wrong_answer", 3: "wrong_answer"}


def test_unguarded_script_from_another_folder_and_after_a_fork(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import os\n"
        "from utils.drgrpo_grader import grade\n"
        "from utils.grading.symbolic_pool import POOL\n"
        r"R, G = '</think> <answer>\\sec^2 x - 1</answer>', r'\tan^2 x'" "\n"
        "outcomes = [grade(R, G).outcome]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    verdict, _ = POOL.equal(r'\\cot x', r'\\frac{1}{\\tan x}', 5.0)\n"
        "    POOL.close()\n"
        "    os._exit(int(not verdict))\n"
        "outcomes.append(os.waitpid(pid, 0)[1])\n"
        "outcomes.append(POOL.equal(r'\\csc x', r'\\frac{1}{\\sin x}', 5.0)[0])\n"
        "assert outcomes == ['correct', 0, True], outcomes\n"
    )  # fmt: skip
    command = ["/usr/bin/env", f"PYTHONPATH={REPOSITORY_ROOT}", sys.executable, str(script)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)


def test_child_leaves_with_its_parent():
    code = (
        "import os\n"
        "from utils.grading.symbolic_pool import POOL\n"
        "POOL.equal('x', 'y', 5.0)\n"
        "os.write(1, str(POOL._clients[0]._child.process.pid).encode())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, timeout=60
    )
    stat = Path(f"/proc/{int(parent.stdout)}/stat")
    deadline = time.monotonic() + 8.0
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
