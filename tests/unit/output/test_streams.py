"""What libraries write goes to a file, what this project says to the terminal; a worker's too."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

SCRIPT = """
import logging, os, sys, warnings
from multiprocessing import get_context
from pathlib import Path
from src.output.lines import IN_LOG, brief, log_of_rest, log_to_terminal
from src.output.streams import err, is_apart, lead_rest_to, out, restored
from src.evaluation.worker_process import Mailbox

LOGGER = logging.getLogger("src.made_up")

def noise(who):
    os.write(1, f"native out of {who}\\n".encode())
    os.write(2, f"native err of {who}\\n".encode())
    print(f"print of {who}", file=sys.stderr)
    warnings.warn(f"warning of {who}")
    logging.getLogger("library").warning("log of a library of %s", who)

def work(mailbox):
    log_to_terminal()
    logging.getLogger().addHandler(log_of_rest())
    assert is_apart()
    noise("worker")
    LOGGER.info("the worker speaks")

if __name__ == "__main__":
    log_to_terminal()
    logging.getLogger().addHandler(logging.FileHandler(sys.argv[1]))
    with restored():
        lead_rest_to(Path(sys.argv[1]))
        noise("trainer")
        LOGGER.info("the whole line", extra=brief("a brief line"))
        LOGGER.info("for the log", extra=IN_LOG)
        logging.getLogger("library").error("an error of a library")
        print("a table", file=out())
        child = get_context("spawn").Process(target=work, args=(Mailbox(None, None, None),))
        child.start(); child.join()
        assert child.exitcode == 0, child.exitcode
    if sys.argv[2] == "fails":
        raise ValueError("seen by all")
    print("the end")
"""
NOISE = ["native out of", "native err of", "print of", "warning of", "log of a library of"]


def run(folder, how):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    log = folder / "run.log"
    done = subprocess.run(
        [sys.executable, str(script), str(log), how],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, log.read_text()


def test_noise_goes_to_the_log_and_own_lines_to_the_terminal(tmp_path):
    done, log = run(tmp_path, "ends")
    assert done.returncode == 0, done.stderr + log
    assert done.stdout == "a table\nthe end\n"
    said = [line.partition(" ")[2] for line in done.stderr.splitlines()]
    assert said == ["a brief line", "an error of a library", "the worker speaks"]
    assert all(f"{text} {who}" in log for text in NOISE for who in ("trainer", "worker"))
    for line in ("the whole line", "for the log", "the worker speaks"):
        assert line in log
    assert "\r" not in done.stderr + done.stdout


def test_a_traceback_is_seen(tmp_path):
    done, _ = run(tmp_path, "fails")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: seen by all\n")
