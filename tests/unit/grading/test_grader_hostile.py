"""Hostile completions: no code runs, nothing is rewarded, everything ends in time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.grading.hostile import FAMILIES, GOLDS, TAG_GAMES, code, responses
from utils.drgrpo_grader import grade, grade_batch, grading_statistics
from utils.grading.symbolic_pool import POOL

REPOSITORY_ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 3.0
FORBIDDEN = (
    "os.system os.exec os.posix_spawn os.spawn subprocess.Popen socket.connect ctypes.dlopen"
)


def test_there_are_enough_of_them():
    families = responses("canary")
    assert len(families) >= 12
    assert len({text for texts in families.values() for text in texts}) >= 300


@pytest.mark.parametrize("family", list(responses("canary")))
def test_hostile_responses_are_never_rewarded_and_end_in_time(family, tmp_path):
    POOL.equal("x", "y", 30.0)  # starting a child is no part of the bound
    canary = tmp_path / "canary"
    for response in responses(str(canary))[family]:
        for reference in GOLDS:
            started = time.monotonic()
            found = grade(response, reference)
            assert found.reward == 0.0, (response[:120], reference)
            assert time.monotonic() - started < LIMIT_S, (response[:120], reference)
            if family == "tag games":
                assert found.outcome in ("format_failure", "wrong_answer")
    assert not canary.exists()
    assert POOL.equal(r"\sec^2 x - 1", r"\tan^2 x", 10.0)[0], "the pool is whole afterwards"


def test_a_bomb_as_reference_is_harmless():
    for answers in FAMILIES.values():
        for reference in answers:
            started = time.monotonic()
            assert grade("</think> <answer>17</answer>", reference).reward == 0.0
            assert time.monotonic() - started < LIMIT_S, reference[:120]


def test_a_batch_of_bombs_keeps_order_and_length():
    bombs = [f"</think> <answer>{answer}</answer>" for answer in FAMILIES["towers"]] + TAG_GAMES
    mixed = [text for bomb in bombs for text in (bomb, "</think> <answer>5</answer>")]
    outcomes = [found.outcome for found in grade_batch(mixed, ["5"] * len(mixed))]
    assert outcomes[1::2] == ["correct"] * len(bombs)
    assert "correct" not in outcomes[::2]


def test_no_code_runs_in_parent_or_child(tmp_path):
    """An audit hook in both processes records what must not happen while payloads are graded."""
    canary, log = tmp_path / "canary", tmp_path / "events"
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import sys\n"
        f"FORBIDDEN, LOG, CANARY = {FORBIDDEN.split()!r}, {str(log)!r}, {str(canary)!r}\n"
        "busy = False\n"
        "def watch(event, arguments):\n"
        "    global busy\n"
        "    if busy:\n"
        "        return\n"
        "    text = ''\n"
        "    if event in ('compile', 'exec', 'open', 'import'):\n"
        "        text = repr(arguments)\n"
        "    if event in FORBIDDEN or CANARY in text:\n"
        "        busy = True\n"
        "        with open(LOG, 'a') as file:\n"
        "            print(event, repr(arguments)[:200], file=file)\n"
        "        busy = False\n"
    )
    child = tmp_path / "child.py"
    child.write_text(
        "import sys\nfrom utils.grading import symbolic_child\nfrom hook import watch\n"
        "sys.addaudithook(watch)\nsymbolic_child.main()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\nfrom hook import watch\nfrom tests.unit.grading.hostile import code\n"
        "from utils.drgrpo_grader import grade, grading_statistics\n"
        "from utils.grading import symbolic_client\nfrom utils.grading.symbolic_pool import POOL\n"
        f"symbolic_client._COMMAND = (*symbolic_client._COMMAND[:-2], {str(child)!r})\n"
        "POOL.equal('x', 'y', 30.0)\nsys.addaudithook(watch)\n"
        f"for payload in code({str(canary)!r}):\n"
        "    for gold in ('5', r'\\sin x', payload):\n"
        "        grade(f'</think> <answer>{payload}</answer>', gold)\n"
        "for payload in code('c'):\n"  # the child itself, past every guard
        "    try:\n        POOL.equal(payload[:200], 'x', 3.0)\n"
        "    except symbolic_client.Unscorable:\n        pass\n"
        "print(grading_statistics()['symbolic_calls'])\n"
    )
    command = [
        "/usr/bin/env", f"PYTHONPATH={REPOSITORY_ROOT}:{tmp_path}", sys.executable, str(script),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > len(code("c"))
    assert not canary.exists()
    assert not (tmp_path / "c").exists()
    events = log.read_text() if log.exists() else ""
    allowed = "subprocess.Popen ('/usr/bin/env'"  # a child that was killed is started again
    assert [line for line in events.splitlines() if not line.startswith(allowed)] == []


def test_statistics_tell_what_happened():
    before = grading_statistics()
    for answer in ("5", "5", "6", "9^{9^{9^9}}"):
        grade(f"</think> <answer>{answer} + q</answer>", "5 + q + 0")
    after = grading_statistics()
    change = {key: after[key] - before.get(key, 0) for key in after}
    assert change["exact/correct"] == 2
    assert change["cache_hits"] == 1
    assert change["guard_hits"] == 1
