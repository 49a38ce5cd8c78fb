"""The grader's child processes: deadlines, crashes, threads, forks, event loops, and their end."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.drgrpo_grader import grade, grade_batch, grading_statistics, set_children
from utils.grading.symbolic_client import Unscorable
from utils.grading.symbolic_pool import POOL

REPOSITORY_ROOT = Path(__file__).resolve().parents[3]


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
    result = grade(respond(r"\sec^2 q - 1"), r"\tan^2 q")
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


def identities(count: int) -> tuple[list[str], list[str]]:
    """Return responses, of which the even ones are correct, that need the symbolic child."""
    responses = [respond(rf"\sec^2 {chr(97 + i)} - {1 + i % 2}") for i in range(count)]
    return responses, [rf"\tan^2 {chr(97 + i)}" for i in range(count)]


def expected(count: int) -> list[str]:
    return ["wrong_answer" if i % 2 else "correct" for i in range(count)]


def outcomes(count: int) -> list[str]:
    """Grade in this process; at module level, so that other processes can be sent here."""
    return [found.outcome for found in grade_batch(*identities(count))]


@pytest.mark.parametrize("children", [1, 3])
def test_a_batch_over_children_keeps_order(children):
    set_children(children)
    try:
        seen = []
        grades = grade_batch(*identities(4), on_progress=seen.append)
        assert [found.outcome for found in grades] == expected(4)
        assert seen[-1] == 4
    finally:
        set_children(2)


def test_no_children_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        set_children(0)


def test_beside_an_event_loop():
    async def both() -> list[list[str]]:
        direct = outcomes(3)
        threaded = await asyncio.gather(*(asyncio.to_thread(outcomes, 4) for _ in range(3)))
        return [direct, *threaded]

    direct, *threaded = asyncio.run(both())
    assert direct == expected(3)
    assert threaded == [expected(4)] * 3


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_worker_processes(method):
    outcomes(2)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(outcomes, [4, 6]) == [expected(4), expected(6)]


def test_a_killed_child_is_counted_and_replaced():
    POOL.equal("x", "y", 30.0)
    before = grading_statistics().get("kills", 0)
    os.kill(POOL._clients[0]._child.process.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert grade(respond(r"\csc^2 w - 1"), r"\cot^2 w").outcome == "correct"
    with pytest.raises(Unscorable):
        POOL.equal(r"\sin x", r"\cos x", 1e-6)
    assert grading_statistics()["kills"] == before + 1


def alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "raise SystemExit(3)",
        "os.kill(os.getpid(), 9)",
        # killed while a child computes
        "import threading\n"
        "threading.Thread(target=POOL.equal, args=(r'\\int e^{e^x}\\sin x dx', 'x', 8.0)).start()\n"
        "import time; time.sleep(1); os.kill(os.getpid(), 9)",
    ],
)
def test_children_leave_with_their_parent(ending):
    code = (
        "import os\n"
        "from utils.grading.symbolic_pool import POOL\n"
        "for client in POOL._clients:\n"
        "    client.equal('x', 'y', 5.0)\n"
        "os.write(1, ' '.join(str(c._child.process.pid) for c in POOL._clients).encode())\n"
        + ending
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, timeout=60
    )
    pids = [int(pid) for pid in parent.stdout.split()]
    assert len(pids) == 2, parent.stderr
    deadline = time.monotonic() + 6.0
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.05)
