"""Every command that README and docs/ show exists and resolves; long ones by --dry-run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT, run_script

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
]
COMMANDS = {
    command
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if (command := line.split("#")[0].strip().removesuffix(" --dry-run"))
}
ON_A_RUN = {
    command for command in COMMANDS if {"--verify", "--compare"} & {*command.split()}
    and "results/full" not in command
}  # fmt: skip
# What has a test of its own, on runs that it makes: here only that the script takes the option.
ELSEWHERE = {
    command for command in COMMANDS
    if {"--report", "--compare-runs", "MODEL"} & {*command.split()} or "results/full" in command
}  # fmt: skip
# What installs or enters an environment, or is no part of this one, is not tried.
NAMED = {
    *("uv sync --extra vllm", "source .venv/bin/activate", "pre-commit install"),
    "tensorboard --logdir results/tiny",
    *(command for command in COMMANDS if command.startswith("lm_eval ")),
}


def test_commands_are_shown():
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("command", sorted(ON_A_RUN))
def test_command_on_a_finished_run_works(command, pipeline_run, tmp_path):
    words = [word.replace("results/tiny", str(pipeline_run.folder)) for word in command.split()]
    if "--compare" in words:
        words += ["--set", f"run.output_root={tmp_path}"]
    done = run_script(*words[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(ELSEWHERE - NAMED))
def test_options_of_a_command_exist(command):
    script, *words = command.split()[1:]
    said = run_script(script, "--help").stdout
    assert all(word in said for word in words if word.startswith("--"))


@pytest.mark.parametrize("command", sorted(COMMANDS - ON_A_RUN - ELSEWHERE - NAMED))
def test_command_resolves(command, tmp_path):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if words[0] == "docker":
        assert "-f" not in words or (ROOT / words[words.index("-f") + 1]).is_file()
        return
    if words[:2] == ["python", "-m"] and words[2] != "utils.grade":
        assert find_spec(words[2])
        made = ("results/", "user/")  # by a run, or somewhere else
        paths = [word for word in words[3:] if "/" in word and not word.startswith(made)]
        assert all((ROOT / path).exists() for path in paths)
        return
    if words[0] == "python":
        words[0] = sys.executable
    grades = "utils.grade" in words
    if not grades:
        words += ["--dry-run", "--set", f"run.output_root={tmp_path}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    wrong = grades and "wrong_answer" in done.stdout
    assert done.returncode == int(wrong), done.stderr
    assert grades or "plan of" in done.stdout
