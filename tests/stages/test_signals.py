"""Ctrl-C and SIGTERM amid a stage: one line, the signal's exit code, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, small_overrides

pytestmark = pytest.mark.engine
MARK = "STOPPED_BY_TEST"
STAGE = (
    "step0_baseline/step0_baseLineModelEval.py",
    "--config",
    "config/tiny/baseline_config.yaml",
)
PIPELINE = ("run_pipeline.py", "--profile", "tiny", "--steps", "0")


def ctrl_c_twice(process: subprocess.Popen[str]) -> None:
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


@pytest.mark.parametrize(
    ("command", "end", "name", "code"),
    [(STAGE, ctrl_c_twice, "SIGINT", 130), (PIPELINE, terminate, "SIGTERM", 143)],
)
def test_one_line_and_nothing_left_running(command, end, name, code, tmp_path):
    # Whatever runs the tests may itself be run in the background, where Ctrl-C is ignored.
    start = ["env", "--default-signal", f"{MARK}={tmp_path}", sys.executable]
    process = subprocess.Popen(
        [*start, *command, *small_overrides(tmp_path)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said = iter(process.stderr.readline, "")
    assert any("writing to" in line for line in said)
    worker = None
    while worker is None:  # the evaluation worker, as soon as it starts
        assert process.poll() is None
        worker = next((p for p, what in family(tmp_path).items() if "spawn_main" in what), None)
        time.sleep(0.02)
    os.kill(worker, signal.SIGSTOP)  # SIGTERM alone would not end it
    end(process)
    left = [line for line in said if line.strip()]
    assert process.wait() == code
    assert len(left) == 1, left
    assert f"stopped by {name}; --resume goes on with what is in {tmp_path}" in left[0]
    deadline = time.monotonic() + 10  # the grader's processes look once a second
    while family(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert family(tmp_path) == {}


def family(mark: Path) -> dict[int, str]:
    """Processes that came of a command, by the environment they were given."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
        except OSError:
            continue  # it has ended, or is somebody else's
    return found
