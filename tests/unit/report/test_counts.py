"""What ran how often, counted from made-up records by hand; what is not as planned is named."""

from __future__ import annotations

import doctest
import json

import pytest

from src.config.loading import dump_yaml, load_config, with_values
from src.report import counts
from src.report.counts import busy_seconds, stage_counts
from src.report.rehearsal import build_rehearsal, cells, show_rehearsal
from src.run.files import append_jsonl
from src.stages.rehearsal import rehearsed

SETTINGS = {
    "step1_sft_hyper": [
        "data.train_rows=64", "search.trials=4", "search.examples=64", "train.batch_size=16",
        "search.rung_examples=[16, 32, 64]", "search.enqueue=[]", "search.startup_trials=2",
        "search.space={train.batch_size: {choices: [8, 16]}}",
    ],
    "step2_sft": ["data.train_rows=64", "train.batch_size=8", "train.epochs=1"],
    "step3_GRPO": ["grpo.steps=4", "grpo.evaluate_every=2", "grpo.save_every=2",
                   "grpo.prompts_per_step=2", "grpo.sample_groups_every=2"],
}  # fmt: skip
FILES = {"step1_sft_hyper": "sft_hyper", "step2_sft": "sft", "step3_GRPO": "grpo"}


def config_of(stage):
    return rehearsed(load_config([f"config/{FILES[stage]}_config.yaml"], SETTINGS[stage]), 2)


def seen(folder, outcome):
    found = stage_counts(folder, config_of(folder.name), outcome)
    return {count.what: (count.plan, count.seen) for count in found}, found


def fine_tuning(folder, steps=8, evaluations=8):
    for step in range(1, steps + 1):
        row = {"step": step, "time_s": 10.0 * step, "train/loss": 2.0, "system/step_s": 4.0}
        append_jsonl(folder / "metrics.jsonl", [row, {"step": step, "system/save_s": 0.1}])
    for step in range(1, evaluations + 1):
        spent = {"swap_s": 1.0, "generate_s": 3.0, "grade_s": 9.0, "grade_wait_s": 1.0}
        row = {f"validation/{name}": value for name, value in spent.items()}
        row |= {"validation/accuracy": 0.5, "validation/probe_gap": 0.0}
        append_jsonl(folder / "metrics.jsonl", [{"step": step, "time_s": 10.0 * step, **row}])
    scores = {f"step_{step:06d}": {"accuracy": 0.5} for step in range(1, evaluations + 1)}
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "scores.json").write_text(json.dumps(scores))
    return {"n": 2500, "training_data": {"examples": 32, "left_out": {"too long": 3}}}


def test_a_fine_tuning_as_planned(tmp_path):
    folder = tmp_path / "step2_sft"
    folder.mkdir()
    found, rows = seen(folder, fine_tuning(folder))
    assert found["optimizer steps of 4 examples"] == ("8", 8)
    assert found["evaluations"] == found["checkpoints saved"] == ("8", 8)
    assert found["verified weight swaps"] == found["checkpoints chosen between"] == ("8", 8)
    assert found["evaluation at which patience would end it (0: none)"] == ("-", 4)
    # 8 steps of 4 s and 8 evaluations of 5 s, from 6 s to 80 s.
    assert found["trainer busy %"][1] == pytest.approx(100 * 32 / 74)
    assert found["engine busy %"][1] == pytest.approx(100 * 40 / 74)
    assert found["test problems"] == ("2,500", 2500)
    assert all(count.holds for count in rows)


def test_of_several_engines_the_mean_is_busy():
    """Two engines at 1 and 3 s on each of two splits, in 10 s."""
    step = {"time_s": 10.0, "train/loss": 2.0, "system/step_s": 5.0}
    scored = {"time_s": 15.0, "validation/accuracy": 0.5, "train_subset/accuracy": 0.5}
    for split in ("validation", "train_subset"):
        scored |= {f"{split}/generate_s": 3.0, f"{split}/swap_s": 0.1}
        scored |= {f"{split}/engine_0_s": 1.0, f"{split}/engine_1_s": 3.0}
    assert busy_seconds([step, scored]) == (5.0, 4.0, 10.0)


def trial(folder, number, state, size, rungs, steps):
    rows = [{"step": size * step, "train/loss": 1.0} for step in range(1, steps + 1)]
    for rung in rungs:
        rows += [{"step": rung, "system/save_s": 0.1}, {"step": rung, "trial/value": 0.1}]
        rows[-1] |= {"validation/probe_gap": 0.0}
    (folder / "trials" / f"trial_{number:03d}").mkdir(parents=True)
    append_jsonl(folder / "trials" / f"trial_{number:03d}" / "metrics.jsonl", rows)
    return f"{number},{state},{max(rungs)},{size}"


def test_a_search_is_counted_by_rung_and_batch_size(tmp_path):
    folder = tmp_path / "step1_sft_hyper"
    lines = [
        trial(folder, 0, "COMPLETE", 4, [8, 16, 32], steps=8),
        trial(folder, 1, "PRUNED", 8, [8], steps=2),
        trial(folder, 2, "PRUNED", 4, [8, 16], steps=4),
        trial(folder, 3, "COMPLETE", 4, [8, 16, 32], steps=8),
    ]
    header = "number,state,examples_seen,train.batch_size"
    (folder / "trials.csv").write_text("\n".join([header, *lines]) + "\n")
    outcome = {"trials": 4, "pruned": 2, "failed": 0, "rescored": [{}, {}]}
    found, rows = seen(folder, outcome | {"busy": {"train": 0.6, "eval": 0.3}})
    assert found["trials scored at 8 examples"] == ("4", 4)
    assert found["trials scored at 32 examples"] == ("1 to 4", 2)
    assert [found[f"trials pruned at {rung} examples"][1] for rung in (8, 16, 32)] == [1, 1, 0]
    assert found["optimizer steps of 4 examples"] == ("18 to 24", 20)
    assert found["optimizer steps of 8 examples"] == ("1 to 4", 2)
    assert found["verified weight swaps"] == ("9", 9)
    assert found["trials scored again"] == ("2", 2)
    assert all(count.holds for count in rows)


def test_busy_shares_of_devices_apart_are_those_that_were_measured(tmp_path):
    folder = tmp_path / "step3_GRPO"
    folder.mkdir()
    rates = {"system/trainer_busy_rate": 0.75, "system/engine_busy_rate": 0.5}
    found, _ = seen(folder, grpo(folder, more=rates))
    assert found["engine busy %"][1] == pytest.approx(50)
    assert found["trainer busy %"][1] == pytest.approx(75)


def grpo(folder, steps=4, more=None):
    for step in range(steps + 1):
        parts = {f"system/{name}_s": 1.0 for name in ("generate", "logprobs", "train")}
        row = {"step": step, "time_s": 1.0, "train/loss": 0.0, "system/step_s": 5.0, **parts}
        row |= more or {}
        row |= {"grpo/drawn_groups": 3.0, "grpo/dropped_groups": 2.0}
        row["system/sync_s"] = float(step % 2 == 0)  # after an evaluation the engine is up to date
        append_jsonl(folder / "metrics.jsonl", [row] if step else [])
        if step % 2 == 0:
            scored = {"step": step, "validation/accuracy": 0.0, "validation/swap_s": 1.0}
            append_jsonl(folder / "metrics.jsonl", [scored])
            append_jsonl(folder / "metrics.jsonl",
                         [{"step": step, "system/saved_states": 1.0}] if step else [])  # fmt: skip
        else:
            append_jsonl(folder / "groups.jsonl", [{"step": step}, {"step": step}])
    names = [f"step_{step:06d}" for step in range(0, steps + 1, 2)]
    (folder / "checkpoints").mkdir()
    scores = {name: {"accuracy": 0.0} for name in names}
    (folder / "checkpoints" / "scores.json").write_text(json.dumps(scores))
    return {"n": 2500, "collapsed": None}


@pytest.mark.parametrize(
    ("device", "sleep", "plan"),
    [("cuda:0", "on", "7"), ("cuda:0", "off", "5"), ("cpu", "auto", "5")],
)
def test_an_engine_that_sleeps_is_synced_after_each_evaluation(tmp_path, device, sleep, plan):
    folder = tmp_path / "step3_GRPO"
    folder.mkdir()
    changes = {"devices.train": device, "devices.eval": "auto", "engine.sleep": sleep}
    config = with_values(config_of("step3_GRPO"), changes)
    counted = stage_counts(folder, config, grpo(folder))
    assert [count.plan for count in counted if count.what == "verified weight syncs"] == [plan]


def test_reinforcement_learning_is_counted(tmp_path):
    folder = tmp_path / "step3_GRPO"
    folder.mkdir()
    found, rows = seen(folder, grpo(folder))
    assert found["optimizer steps of 8 completions"] == ("4", 4)
    assert found["evaluations"] == found["checkpoints chosen between"] == ("3", 3)
    assert found["verified weight syncs"] == ("5 to 7", 5)  # a GPU's engine may sleep
    assert found["resumable states saved"] == ("2", 2)
    assert found["steps with groups written down"] == ("2", 2)
    assert found["groups drawn"] == ("4 to 13", 12)
    assert found["engine busy %"][1] == pytest.approx(20)
    assert found["trainer busy %"][1] == pytest.approx(40)
    assert all(count.holds for count in rows)


def test_what_is_not_as_planned_is_warned_about(tmp_path):
    folder = tmp_path / "step2_sft"
    folder.mkdir()
    outcome = fine_tuning(folder, steps=6, evaluations=1) | {"rehearsal": True}
    outcome["training_data"]["examples"] = 24
    (folder / "config.yaml").write_text(dump_yaml(config_of("step2_sft")))
    found = build_rehearsal(tmp_path, {"step2_sft": outcome})
    assert found["said"].startswith("REHEARSAL: ")
    said = "\n".join(found["warnings"])
    assert "step2_sft: optimizer steps of 4 examples: 8 planned, 6 seen" in said
    assert "training examples: 32 planned, 24 seen (left out: 3 too long)" in said
    assert "evaluations: 8 planned, 1 seen" in said
    text = "\n".join(show_rehearsal(found))
    assert "figures mean nothing" in text
    assert "| step2_sft | evaluations | 8 | 1 | not as planned |" in text
    assert cells(found["counts"][0])[-1] == "not as planned"


def test_a_run_that_counts_is_no_rehearsal(tmp_path):
    assert build_rehearsal(tmp_path, {"step2_sft": {"rehearsal": False}}) is None
    assert build_rehearsal(tmp_path, {"step2_sft": {}}) is None
    assert show_rehearsal(None) == []


def test_docstring_examples():
    assert doctest.testmod(counts).failed == 0
