"""What a configuration promises and never does: each case named, with a value that works."""

from __future__ import annotations

import doctest
import random

import optuna
import pytest

from src.config import training
from src.config.loading import load_config
from src.config.training import SearchConfig
from src.data import row_counts
from src.run import processes
from src.stages.plan import describe_plan
from src.stages.promises import broken_promises
from src.stages.start import run_stage

CONFIGS = {
    "step0_baseline": "config/baseline_config.yaml",
    "step1_sft_hyper": "config/sft_hyper_config.yaml",
    "step2_sft": "config/sft_config.yaml",
    "step3_GRPO": "config/grpo_config.yaml",
}


def warnings(stage, *overrides):
    return broken_promises(stage, load_config([CONFIGS[stage]], overrides))


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_full_profile_keeps_its_promises(stage):
    assert warnings(stage) == []


@pytest.mark.parametrize(
    ("stage", "overrides", "says", "remedy"),
    [
        ("step2_sft", ["train.evaluate_every=1000"], "only the last checkpoint", 32),
        ("step2_sft", ["train.evaluate_every=329"], "only the last checkpoint", 32),
        ("step2_sft", ["train.batch_size=21000"], "in one step", 10500),
        ("step2_sft", ["train.patience=10"], "never end training early", 8),
        ("step2_sft", ["train.evaluate_every=100"], "never end training early", 2),
        ("step2_sft", ["train.warmup_share=1.0"], "never falls", 0.05),
        ("step1_sft_hyper", ["search.trials=1", "search.enqueue=[]"], "none to be compared", 8),
        ("step1_sft_hyper", ["search.rung_examples=[4096]"], "ever pruned", [2048, 4096]),
        (
            "step1_sft_hyper",
            ["search.rung_examples=[512, 768, 1024, 4096]"],
            "nothing can be pruned at 768",
            [512, 1024, 2048, 4096],
        ),
        ("step1_sft_hyper", ["search.trials=7"], "nothing is compared from there on", 8),
        ("step1_sft_hyper", ["search.startup_trials=20"], "so it never does", 10),
        ("step3_GRPO", ["grpo.evaluate_every=300"], "no checkpoint is scored", 20),
        ("step3_GRPO", ["grpo.save_every=300"], "no checkpoint can be resumed", 20),
        ("step3_GRPO", ["grpo.warmup_steps=200"], "never reaches", 20),
        ("step3_GRPO", ["grpo.draw_limit=1.0"], "dynamic sampling does nothing", 3.0),
        ("step3_GRPO", ["data.train_rows=40"], "meets some twice", 13),
    ],
)
def test_each_warning_names_the_setting_and_a_value_that_works(stage, overrides, says, remedy):
    found = [line for line in warnings(stage, *overrides) if says in line]
    assert len(found) == 1, warnings(stage, *overrides)
    setting = found[0].partition(":")[0]
    shown = f"{remedy:g}" if isinstance(remedy, float) else str(remedy)
    assert shown in found[0].rpartition("use ")[2]
    repaired = warnings(stage, *overrides, f"{setting}={remedy}")
    assert not [line for line in repaired if line.startswith(f"{setting}:")]


def test_a_recipe_that_cuts_ratios_wants_several_updates_a_batch():
    spaced = ["grpo.save_every=20", "grpo.evaluate_every=20"]
    (said,) = warnings("step3_GRPO", "grpo.recipe=gspo", *spaced)
    assert "the ratio of probabilities that gspo cuts is always 1; use 4" in said
    assert not warnings("step3_GRPO", "grpo.recipe=gspo", "grpo.updates_per_batch=4", *spaced)


def test_points_that_are_all_trials_leave_nothing_to_search():
    point = "{train.learning_rate: 2e-5, train.batch_size: 64, train.weight_decay: 0.01}"
    points = f"search.enqueue=[{', '.join([point] * 8)}]"
    assert any("nothing of search.space" in line
               for line in warnings("step1_sft_hyper", "search.trials=8", points))  # fmt: skip
    assert warnings("step1_sft_hyper", "search.trials=16", points) == []


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("rungs", [[8, 16, 32, 64], [10, 15, 25, 100], [9, 27, 30, 81], [5, 40]])
def test_optuna_prunes_at_these_rungs_and_at_no_other(factor, rungs):
    search = SearchConfig(rung_examples=rungs, examples=rungs[-1], reduction_factor=factor)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(rungs[0], factor)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    drawn, pruned = random.Random(3), set()
    for _ in range(200):
        trial = study.ask()
        for rung in rungs[:-1]:
            trial.report(drawn.random(), step=rung)
            if trial.should_prune():
                pruned.add(rung)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, drawn.random())
    assert pruned == set(search.pruning_rungs())


def test_the_plan_counts_evaluations_and_shows_warnings():
    config = load_config([CONFIGS["step2_sft"]])
    assert "10 in training, about every 33 steps and at the end, each on 500" in describe_plan(
        "step2_sft", config
    )
    config = load_config([CONFIGS["step2_sft"]], ["train.evaluate_every=1000"])
    assert "  WARNING train.evaluate_every: 1000 of 329 steps" in describe_plan("step2_sft", config)


def test_a_real_run_warns_as_it_starts(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr("src.stages.start.prepare_main_process", lambda config: None)
    settings = [f"run.output_root={tmp_path}", "train.evaluate_every=300"]
    run_stage(
        "step2_sft",
        lambda config, run: None,
        default_config="config/tiny/sft_config.yaml",
        description="",
        arguments=[part for setting in settings for part in ("--set", setting)],
    )
    config = load_config(["config/tiny/sft_config.yaml"])
    steps = config.train.steps(row_counts.sft_rows(config))
    told = f"train.evaluate_every: 300 of {steps} steps: only the last checkpoint"
    assert told in caplog.text


def test_rows_are_counted_where_the_files_are(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "1+1", "solution": "2"}\n' * 90)
    settings = ["data.source=files", f"data.train_file={file}", f"data.test_file={file}"]
    config = load_config([CONFIGS["step2_sft"]], [*settings, "data.validation_rows=30"])
    assert (row_counts.train_rows(config), row_counts.test_rows(config)) == (60, 90)
    weighted = f"sft.files=[{{file: {file}, weight: 2.0}}, {{file: {file}, weight: 0.5}}]"
    assert row_counts.sft_rows(load_config([], [weighted])) == 225
    absent = load_config([], [*settings[:1], "data.train_file=no", "data.test_file=no"])
    assert (row_counts.train_rows(absent), row_counts.test_rows(absent)) == (7000, 5000)


def test_docstring_examples():
    assert doctest.testmod(training).failed == 0


@pytest.mark.parametrize(
    ("stage", "settings", "planned"),
    [
        ("step0_baseline", [], ["0.85 of cuda:0", "0.85 of cuda:1", "0.85 of cuda:2"]),
        ("step2_sft", [], ["0.85 of cuda:1", "0.85 of cuda:2"]),
        ("step2_sft", ["devices.eval=cuda:0"], ["0.425 of cuda:0, half of engine.memory_fraction"]),
        ("step0_baseline", ["engine.tensor_parallel=3"],
         ["0.85 of cuda:0 and of cuda:1 and of cuda:2"]),
        ("step0_baseline", ["devices.train=cpu", "devices.eval=[cpu:0, cpu:1]"],
         ["1 GiB of KV cache", "1 GiB of KV cache"]),
    ],
)  # fmt: skip
def test_the_plan_says_what_each_engine_takes(monkeypatch, stage, settings, planned):
    monkeypatch.setattr(processes, "present_gpus", lambda: 3)
    monkeypatch.setattr(processes, "_VISIBLE_AT_START", None)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    plan = describe_plan(stage, load_config(["config/sft_config.yaml"], settings))
    said = [line.partition("; it takes ")[2] for line in plan.splitlines() if "engine: w" in line]
    assert said == planned
    assert plan.count("  eval device") == sum(1 + text.count(" and of ") for text in planned)
    every = f"engines       {len(planned)}, which share the problems out"
    assert (every in plan) is (len(planned) > 1)
