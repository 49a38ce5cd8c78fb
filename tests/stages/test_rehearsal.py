"""The full configuration, much reduced, rehearsed through the real engines on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import yaml

from tests.conftest import run_script
from utils.data.problem_generator import generate_problems

pytestmark = pytest.mark.engine
POINT = "{train.learning_rate: 2e-5, train.batch_size: 16, train.weight_decay: 0.01}"
REDUCED = {
    "data.train_rows": 160,
    "data.validation_rows": 32,
    "data.test_rows": 32,
    "evaluation.prompts": "[]",
    "train.batch_size": 16,
    "train.epochs": 1,
    "search.trials": 3,
    "search.startup_trials": 2,
    "search.examples": 32,
    "search.rung_examples": "[16, 32]",
    "search.enqueue": f"[{POINT}]",
    "search.space": "{train.learning_rate: {low: 5e-6, high: 1e-4, log: true}, "
    "train.batch_size: {choices: [8, 16]}, train.weight_decay: {low: 0.0, high: 0.1}}",
    "search.rescore_top": 1,
    "grpo.steps": 4,
    "grpo.prompts_per_step": 4,
    "grpo.group_size": 4,
    "grpo.micro_batch_size": 4,
    "grpo.evaluate_every": 2,
    "grpo.save_every": 2,
    "grpo.sample_groups_every": 2,
}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    root = tmp_path_factory.mktemp("rehearsal")
    for split, count in (("train", 240), ("test", 32)):
        rows = [json.dumps(asdict(problem)) for problem in generate_problems(count, split, 17)]
        (root / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    settings = {
        "run.output_root": root,
        "data.source": "files",
        "data.train_file": root / "train.jsonl",
        "data.test_file": root / "test.jsonl",
        **REDUCED,
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["run_pipeline.py", "--profile", "full", "--rehearse", "--rehearse-factor", 4]
    done = run_script(*command, *overrides)
    assert done.returncode == 0, done.stderr[-4000:]
    return root / "full-rehearsal", done


def test_the_table_of_what_ran_how_often(rehearsal):
    folder, _ = rehearsal
    found = json.loads((folder / "report.json").read_text())["rehearsal"]
    seen = {(row["stage"], row["what"]): (row["planned"], row["seen"]) for row in found["counts"]}
    assert seen["step0_baseline", "test evaluations"] == ("1", 1)
    assert seen["step1_sft_hyper", "trials"] == ("3", 3)
    assert seen["step1_sft_hyper", "trials scored at 4 examples"] == ("3", 3)
    pruned = seen["step1_sft_hyper", "trials pruned"][1]
    assert seen["step1_sft_hyper", "trials scored at 8 examples"] == ("1 to 3", 3 - pruned)
    for what in ("evaluations", "checkpoints saved", "verified weight swaps"):
        planned, count = seen["step2_sft", what]
        assert int(planned) == count == 10
    assert seen["step3_GRPO", "optimizer steps of 4 completions"] == ("4", 4)
    assert seen["step3_GRPO", "evaluations"] == ("3", 3)
    assert seen["step3_GRPO", "verified weight syncs"] == ("5", 5)
    assert seen["step3_GRPO", "resumable states saved"] == ("2", 2)
    for stage in ("step1_sft_hyper", "step2_sft", "step3_GRPO"):
        for role in ("trainer", "engine"):
            assert 0 < seen[stage, f"{role} busy %"][1] <= 100


def test_nothing_but_what_chance_decides_is_other_than_planned(rehearsal):
    found = json.loads((rehearsal[0] / "report.json").read_text())["rehearsal"]
    other = [row for row in found["counts"] if not row["holds"]]
    assert [row["what"] for row in other] in ([], ["trials pruned"])


def test_the_schedule_is_the_full_configurations(rehearsal):
    folder, _ = rehearsal
    config = yaml.safe_load((folder / "step2_sft" / "config.yaml").read_text())
    assert config["run"]["rehearsal"]["factor"] == 4
    assert config["train"]["batch_size"] in (2, 4)
    steps = 160 // (4 * config["train"]["batch_size"])
    lines = (folder / "step2_sft" / "metrics.jsonl").read_text().split("\n")[:-1]
    losses = [row["step"] for row in map(json.loads, lines) if "train/loss" in row]
    assert losses == list(range(1, steps + 1))


def test_every_form_of_the_report_says_that_it_is_a_rehearsal(rehearsal):
    folder, done = rehearsal
    assert (folder / "report.md").read_text().count("REHEARSAL: ") == 1
    assert "figures mean nothing" in done.stdout
    assert "optimizer steps of 4 completions" in done.stdout
    page = (folder / "report.html").read_text()
    assert "<title>Rehearsal " in page
    assert "REHEARSAL: " in page
    assert run_script("run_pipeline.py", "--verify", folder).returncode == 0


def test_the_plan_of_a_rehearsal_needs_no_data(tmp_path):
    done = run_script("run_pipeline.py", "--profile", "full", "--rehearse", "--dry-run",
                      "--set", f"run.output_root={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "438 examples x 3 epochs = 329 steps of 4" in done.stdout
    assert "10 in training, about every 33 steps and at the end" in done.stdout
