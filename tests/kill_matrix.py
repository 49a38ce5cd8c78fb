"""Kill steps 0 and 2 at their writes, resume, and compare every file with the undisturbed run's.

    python -m tests.kill_matrix --every 2 --folder DIR

Prints a line for each moment: the write before which all processes were killed, and what differs
after --resume. Times, speeds and memory are left out of the comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, small_overrides

SCRIPTS = {
    "step0_baseline": ("step0_baseLineModelEval.py", "baseline_config.yaml"),
    "step2_sft": ("step2_sft.py", "sft_config.yaml"),
}
LESS = {
    "data.test_rows": 12, "data.validation_rows": 8, "train.validation_rows": 8,
    "data.train_rows": 32, "train.evaluate_every": 2, "train.epochs": 1, "train.batch_size": 8,
    "train.keep": 1, "evaluation.prompts": "[]",
}  # fmt: skip
_VARIES = re.compile(r"_s$|_per_s$|^time_s$|^seconds$|memory|mfu|^started$|^ended$|files_sha256")
_NOT_COMPARED = re.compile(
    r"\.log$|\.lock$|files\.json$|manifest\.json$|checkpoint\.json$|training_state\.pt$|config\.yaml$"
)
"""What holds times, paths and hashes of those."""


def run(stage: str, root: Path, at: int = 0, *, torn: bool = False, resume: bool = False) -> Any:
    """Run a stage with the stand-in engine; kill it at a write, if any."""
    script, config = SCRIPTS[stage]
    root.mkdir(parents=True, exist_ok=True)
    log = root / f"writes-{at}.txt"
    environment = {
        **os.environ, "KILL_LOG": str(log), "KILL_AT": str(at), "WANDB_MODE": "disabled",
        **({"KILL_TORN": "1"} if torn else {}),
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "tests.kill_point", str(ROOT / stage / script)),
        *("--config", f"config/tiny/{config}", *small_overrides(root, **LESS)),
        *(["--resume"] if resume else []),
    ]
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, check=False,
        capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip
    return done, log.read_text().splitlines() if log.is_file() else []


def differences(one: Path, other: Path) -> Iterator[str]:
    """Name the files of two runs of a stage that differ by more than times."""
    mine, theirs = described(one), described(other)
    yield from sorted(f"{name}: only in one" for name in mine.keys() ^ theirs.keys())
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name] != theirs[name]:
            yield f"{name}: differs"


def described(folder: Path) -> dict[str, Any]:
    files = (file for file in folder.rglob("*") if file.is_file())
    named = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: _content(file) for name, file in named.items() if not _NOT_COMPARED.search(name)}


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        return _steady(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        lines = file.read_bytes().split(b"\n")
        return [_steady(json.loads(line)) for line in lines if line]
    return file.read_bytes()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if not _VARIES.search(key)}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return re.sub(r"^.*?/small/", "", value) if isinstance(value, str) else value


def moment(stage: str, root: Path, whole: Path, at: int, *, torn: bool = False) -> list[str]:
    """Kill at a write, resume, and return what differs from the undisturbed run."""
    run(stage, root, at, torn=torn)
    done, _ = run(stage, root, resume=True)
    if done.returncode:
        return [f"--resume ended with {done.returncode}: {done.stderr[-600:]}"]
    return list(differences(root / "small" / stage, whole / "small" / stage))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--stages", nargs="+", default=["step0_baseline", "step2_sft"])
    given, failed = options.parse_args(), 0
    for stage in given.stages:
        whole = given.folder / stage / "whole"
        done, writes = run(stage, whole)
        if done.returncode:
            sys.exit(done.stderr)
        for at in range(1, len(writes) + 1, given.every):
            torn = writes[at - 1].startswith("append")
            found = moment(stage, given.folder / stage / str(at), whole, at, torn=torn)
            failed += bool(found)
            said = "; ".join(found) or "the same"
            kind = "in half of" if torn else "before"
            print(f"{stage} {at:3}/{len(writes)} {kind} {writes[at - 1]}: {said}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
