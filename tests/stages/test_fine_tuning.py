"""Step 2 beyond one straight run, on the real vLLM: killed and resumed, and on its own traces."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from src.run.files import read_jsonl
from tests.conftest import ROOT, run_script, small_overrides

pytestmark = pytest.mark.engine
SCRIPT = ("step2_sft/step2_sft.py", "--config", "config/tiny/sft_config.yaml")


def losses(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_a_step_2_that_was_killed_goes_on_to_the_same_bits(pipeline_run, tmp_path):
    whole = pipeline_run.folder / "step2_sft"
    search = "step1_sft_hyper/best.yaml"
    (tmp_path / "small" / "step1_sft_hyper").mkdir(parents=True)
    shutil.copy(pipeline_run.folder / search, tmp_path / "small" / search)
    command = [*SCRIPT, *small_overrides(tmp_path)]
    folder = tmp_path / "small" / "step2_sft"
    running = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoints/step_*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.kill()
    running.wait()
    done = run_script(*command, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step" in done.stderr
    assert losses(folder) == losses(whole)
    last = sorted(path.name for path in whole.glob("checkpoints/step_*"))[-1]
    ours, theirs = (
        load_file(run / "checkpoints" / last / "model.safetensors") for run in (folder, whole)
    )
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_expert_iteration_trains_on_its_own_correct_completions(tmp_path):
    more = {
        "sft.source": "rejection_sampling", "sft.rounds": 2, "sft.samples": 8,
        "sft.max_per_problem": 2, "sampling.samples": 4, "data.test_rows": 16,
        "train.evaluate_every": 100,
    }  # fmt: skip
    done = run_script(*SCRIPT, *small_overrides(tmp_path, **more))
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "small" / "step2_sft"
    outcome = json.loads((folder / "outcome.json").read_text())
    assert "round_2" in outcome["checkpoint"]
    traces = outcome["training_data"]["traces"]
    assert traces["drawn"] == 2 * 96 * 8
    assert traces["kept"] == outcome["training_data"]["examples"] > 0
    assert traces["correct"] == traces["kept"] + traces["duplicates"] + traces["over_limit"]
    assert {row[0] for row in losses(folder)} >= {1}
    rounds = {json.loads(line).get("round") for line in (folder / "metrics.jsonl").open()}
    assert rounds == {1, 2, None}  # None: the test evaluation
    assert outcome["samples_per_problem"] == 4
    assert outcome["pass_at"]["4"] >= outcome["pass_at"]["1"] == pytest.approx(outcome["accuracy"])
    assert sum(outcome["outcomes"].values()) == 16 * 4
