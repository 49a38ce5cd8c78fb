"""Every command that README shows exists and resolves; long ones are tried with --dry-run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT, run_script

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
ON_A_RUN = [command for command in COMMANDS if "--verify" in command or "--compare" in command]


def test_readme_shows_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", ON_A_RUN)
def test_command_on_a_finished_run_works(command, pipeline_run, tmp_path):
    words = [word.replace("results/tiny", str(pipeline_run.folder)) for word in command.split()]
    if "--compare" in words:
        words += ["--set", f"run.output_root={tmp_path}"]
    done = run_script(*words[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"", *ON_A_RUN}))
def test_command_resolves(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if words[0] == "uv":
        assert words == ["uv", "sync", "--extra", "vllm"]
        return
    if words[:3] == ["python", "-m", "utils.grade"]:
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return
    folder = ROOT
    if words[0] == "cd":
        folder, words = ROOT / words[1], words[3:]
    if words[0] == "python":
        words[0] = sys.executable
    done = subprocess.run(
        [*words, "--dry-run"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "plan of" in done.stdout
