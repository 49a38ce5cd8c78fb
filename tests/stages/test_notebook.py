"""The notebook's cells, run in their order in one Python, on the finished run that tests share."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

from tests.conftest import ROOT

NOTEBOOK = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
# What a notebook has that plain Python has not: `!command`, `%cd folder`, IPython's display.
PRELUDE = """
import os, subprocess, sys, types
def _shell(command):
    done = subprocess.run(command, shell=True, text=True, capture_output=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, command
shown = types.ModuleType("IPython.display")
shown.Markdown = shown.Image = str
shown.display = print
sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": shown}
"""


def _plain(cell: str) -> str:
    """Return a cell as plain Python.

    >>> _plain("if x:\\n    !ls {x}")
    'if x:\\n    _shell(f"ls {x}")'
    """
    cell = re.sub(r"^( *)!(.*)$", r'\1_shell(f"\2")', cell, flags=re.M)
    return re.sub(r"^( *)%cd (.*)$", r'\1os.chdir("\2")', cell, flags=re.M)


def test_the_file_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert {"cell_type", "id", "metadata", "source"} <= set(cell)
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_cells_run_in_their_order(pipeline_run):
    settings = shlex.join(pipeline_run.command[3:])
    given = f"SETTINGS = {settings!r}\nRUN = Path({str(pipeline_run.folder)!r})"
    cells = [given if cell.startswith("SETTINGS = ") else cell for cell in CODE]
    assert given in cells
    script = PRELUDE + "\n".join(_plain(cell) for cell in cells if "make setup" not in cell)
    script = script.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "| step3_GRPO | 48 |" in done.stdout
    assert "reference:" in done.stdout
    assert "all holds" in done.stdout
