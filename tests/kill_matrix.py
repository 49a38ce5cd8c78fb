"""Kill a stage at its writes, resume, and compare every file with the undisturbed run's.

    python -m tests.kill_matrix --every 5 --folder DIR [--stages step1_sft_hyper step3_GRPO]
    python -m tests.kill_matrix --every 7 --folder DIR --stages step3_GRPO --set grpo.steps=4 \\
        --set grpo.mode=split --set devices.train=cpu:0 --set devices.eval=cpu:1

Prints a line for each moment: the write before which, or in half of which, all processes were
killed, and what differs after --resume. Times, speeds and memory are left out of the comparison.
In step 1 a killed trial runs again as the last one and the others meet another history, so trials
are compared by their values: none lost, none twice, the same score wherever both runs finished it.
Steps 0 to 2 run with a stand-in for the engine, step 3 with the real one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tests.conftest import ROOT, TINY_BASE, small_overrides, two_layer_model

SCRIPTS = {
    "step0_baseline": ("step0_baseLineModelEval.py", "baseline_config.yaml"),
    "step1_sft_hyper": ("step1_sft_hyper.py", "sft_hyper_config.yaml"),
    "step2_sft": ("step2_sft.py", "sft_config.yaml"),
    "step3_GRPO": ("train_trl.py", "grpo_config.yaml"),
}
# All of them given, because what TPE proposes depends on the order in which trials end.
POINTS = [
    {"train.learning_rate": rate, "train.batch_size": 16, "train.weight_decay": 0.0}
    for rate in (1e-5, 3e-5, 1e-4)
]
LESS = {
    "data.test_rows": 12, "data.validation_rows": 8, "train.validation_rows": 8,
    "data.train_rows": 128, "train.evaluate_every": 4, "train.epochs": 1, "train.batch_size": 8,
    "train.keep": 1, "evaluation.prompts": "[]", "search.examples": 128, "search.trials": 3,
    "search.rung_examples": "[64, 128]", "search.startup_trials": 1, "search.validation_rows": 8,
    "search.enqueue": POINTS, "search.rescore_top": 1, "grpo.init": "base", "grpo.steps": 2,
    "grpo.warmup_steps": 0, "grpo.validation_rows": 8, "grpo.evaluate_every": 1,
}  # fmt: skip
_VARIES = re.compile(
    r"_s$|_per_s$|busy_rate$|^time_s$|^seconds$|memory|mfu|^started$|^ended$|files_sha256|^commit$"
)
_NOT_COMPARED = re.compile(
    r"\.log$|\.lock$|files\.json$|manifest\.json$|checkpoint\.json$|training_state\.pt$|config\.yaml$"
    r"|/trl/|^trl/"
)
"""What holds times, paths and hashes of those."""


def run(
    stage: str,
    root: Path,
    at: int = 0,
    *,
    torn: bool = False,
    resume: bool = False,
    more: Sequence[str] = (),
) -> Any:
    """Run a stage with `more` settings; kill it at a write, if any."""
    script, config = SCRIPTS[stage]
    root.mkdir(parents=True, exist_ok=True)
    log = root / f"writes-{at}.txt"
    environment = {
        **os.environ, "KILL_LOG": str(log), "KILL_AT": str(at), "WANDB_MODE": "disabled",
        **({"KILL_TORN": "1"} if torn else {}),
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "tests.kill_point", str(ROOT / stage / script)),
        *("--config", f"config/tiny/{config}"),
        *small_overrides(root, **LESS, **{"model.path": model_folder(root.parent.parent)}),
        *(part for setting in more for part in ("--set", setting)),
        *(["--resume"] if resume else []),
    ]
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, check=False,
        capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip
    return done, log.read_text().splitlines() if log.is_file() else []


def model_folder(folder: Path) -> Path:
    """Return a model of two layers, which trains in no time; made once."""
    model = folder / "model"
    if not model.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
        two_layer_model(tokenizer, tied=True).save_pretrained(model)
        tokenizer.save_pretrained(model)
    return model


def differences(one: Path, other: Path) -> Iterator[str]:
    """Name the files of two runs of a stage that differ by more than times."""
    mine, theirs = described(one), described(other)
    yield from sorted(f"{name}: only in one" for name in mine.keys() ^ theirs.keys())
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name] != theirs[name]:
            yield f"{name}: differs"


def study_differences(one: Path, other: Path) -> Iterator[str]:
    """Say how the finished trials of two runs of a study differ, whatever their order."""
    mine, theirs = _trials(one), _trials(other)
    lost, new = theirs.keys() - mine.keys(), mine.keys() - theirs.keys()
    yield from (f"trial with {values} lost" for values in sorted(lost))
    yield from (f"trial with {values} is new" for values in sorted(new))
    for values in sorted(mine.keys() & theirs.keys()):
        if len(mine[values]) > 1:
            yield f"trial with {values} ran to its end {len(mine[values])} times"
        (state, score), (before, due) = mine[values][0], theirs[values][0]
        if state == before and score != due:
            yield f"trial with {values}: {score} instead of {due}"
    for log in sorted(one.glob("trials/*/metrics.jsonl")):
        steps = [json.loads(line)["step"] for line in log.read_text().split("\n")[:-1]]
        if steps != sorted(steps):
            yield f"{log.parent.name}: steps {steps}"


def _trials(folder: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    with (folder / "trials.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["state"] in ("COMPLETE", "PRUNED"):
                values = ", ".join(f"{k}={v}" for k, v in row.items() if k.startswith("train."))
                found.setdefault(values, []).append((row["state"], row["value"]))
    return found


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


def moment(
    stage: str, root: Path, whole: Path, at: int, *, torn: bool = False, more: Sequence[str] = ()
) -> list[str]:
    """Kill at a write, resume, and return what differs from the undisturbed run."""
    run(stage, root, at, torn=torn, more=more)
    done, _ = run(stage, root, resume=True, more=more)
    if done.returncode:
        return [f"--resume ended with {done.returncode}: {done.stderr[-600:]}"]
    compare = study_differences if stage == "step1_sft_hyper" else differences
    return list(compare(root / "small" / stage, whole / "small" / stage))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--stages", nargs="+", default=list(SCRIPTS))
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given, failed = options.parse_args(), 0
    more = given.set
    for stage in given.stages:
        whole = given.folder / stage / "whole"
        done, writes = run(stage, whole, more=more)
        if done.returncode:
            sys.exit(done.stderr)
        for at in range(1, len(writes) + 1, given.every):
            torn = writes[at - 1].startswith("append")
            place = given.folder / stage / str(at)
            found = moment(stage, place, whole, at, torn=torn, more=more)
            failed += bool(found)
            said = "; ".join(found) or "the same"
            kind = "in half of" if torn else "before"
            print(f"{stage} {at:3}/{len(writes)} {kind} {writes[at - 1]}: {said}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
