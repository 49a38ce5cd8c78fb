"""A rehearsal's configuration: smaller rows and batches, the very same schedule."""

from __future__ import annotations

import re

import pytest

from src.config.loading import ConfigError, load_config
from src.data import row_counts
from src.data.row_counts import sft_rows
from src.sft.examples import BuiltExamples
from src.sft.rehearsal import rows_needed
from src.sft.rows import SftRow
from src.stages.rehearsal import describe_rehearsal, devices_here, rehearsed

FULL = "config/sft_hyper_config.yaml"
FACTORS = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("rows", [7000, 6996])
def test_steps_and_evaluations_of_fine_tuning_stay(factor, rows):
    config = load_config([FULL], [f"data.train_rows={rows}"])
    small = rehearsed(config, factor)
    for size in config.search.space["train.batch_size"].choices:
        train = config.train.model_copy(update={"batch_size": size})
        scaled = small.train.model_copy(update={"batch_size": size // factor})
        examples = sft_rows(small)
        if factor == 32:  # batches of one or two: a row more is a step or two more
            assert abs(scaled.steps(examples) - train.steps(rows)) < 3
            continue
        assert scaled.steps(examples) == train.steps(rows)
        assert scaled.checkpoint_steps(examples) == train.checkpoint_steps(rows)
    assert small.train.batch_size * factor == 64


@pytest.mark.parametrize("factor", FACTORS)
def test_rungs_trials_and_steps_of_trials_stay(factor):
    config = load_config([FULL])
    small = rehearsed(config, factor)
    assert [rung * factor for rung in small.search.rung_examples] == config.search.rung_examples
    assert [r * factor for r in small.search.pruning_rungs()] == config.search.pruning_rungs()
    assert small.search.examples * factor == config.search.examples
    assert list(small.search_problems()) == []
    sizes = config.search.space["train.batch_size"].choices
    scaled = small.search.space["train.batch_size"].choices
    assert [size * factor for size in scaled] == sizes
    for path in ("train.learning_rate", "train.weight_decay"):
        assert small.search.space[path] == config.search.space[path]
    for name in ("trials", "startup_trials", "reduction_factor", "rescore_top"):
        assert getattr(small.search, name) == getattr(config.search, name)


@pytest.mark.parametrize("factor", FACTORS)
def test_grpo_keeps_its_steps_with_fewer_prompts(factor):
    config = load_config(["config/grpo_config.yaml"])
    small = rehearsed(config, factor).grpo
    assert small.prompts_per_step * factor == 32
    assert small.evaluation_steps == config.grpo.evaluation_steps
    assert small.save_steps == config.grpo.save_steps
    same = config.grpo.model_dump()
    changed = {name for name, value in small.model_dump().items() if value != same[name]}
    assert changed <= {"prompts_per_step", "micro_batch_size", "validation_rows"}


def test_rows_and_tokens_are_smaller_and_the_run_has_a_name_of_its_own():
    config = load_config(["config/baseline_config.yaml"])
    small = rehearsed(config, 16)
    assert (sft_rows(small), small.data.validation_rows, row_counts.test_rows(small)) == (
        438,
        32,
        313,
    )
    assert small.sampling.max_completion_tokens < small.engine.max_model_tokens == 1024
    assert small.train.max_tokens <= small.engine.max_model_tokens
    assert small.run.name == "full-rehearsal"
    assert small.wandb.mode == "offline"
    assert (small.run.rehearsal.factor, small.run.rehearsal.patience) == (16, 3)
    assert "divided by 16" in describe_rehearsal(small)
    assert "figures mean nothing" in describe_rehearsal(small)


def test_scores_that_mean_nothing_do_not_end_training():
    config = load_config(["config/sft_config.yaml"])
    small = rehearsed(config, 16)
    assert small.train.patience > len(small.train.checkpoint_steps(sft_rows(small)))


def test_files_of_training_rows_keep_a_share_of_their_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "1+1", "solution": "2"}\n' * 160)
    config = load_config([FULL], [f"sft.files=[{{file: {file}, weight: 2.0}}]"])
    assert (sft_rows(config), sft_rows(rehearsed(config, 16))) == (320, 20)


@pytest.mark.parametrize(
    ("overrides", "factor", "names"),
    [
        ([], 64, "use 4 or 8 or 16 or 32"),
        ([], 12, "search.space: train.batch_size"),
        (["grpo.prompts_per_step=12"], 16, "grpo.prompts_per_step, so that"),
    ],
)
def test_a_factor_that_would_change_the_schedule_is_refused(overrides, factor, names):
    with pytest.raises(ConfigError, match=re.escape(names)):
        rehearsed(load_config([FULL], overrides), factor)


def test_a_rehearsal_is_not_rehearsed():
    with pytest.raises(ConfigError, match="already"):
        rehearsed(rehearsed(load_config([FULL]), 2), 2)


@pytest.mark.parametrize(
    ("cores", "side_by_side", "devices"),
    [
        ([0, 1], True, ("cpu:0", "cpu:1")),
        ([0, 1], False, ("cpu", "cpu")),
        ([3], True, ("cpu", "cpu")),
        ([0, 2, 4, 6, 8], True, ("cpu:0,2", "cpu:4,6,8")),
    ],
)
def test_trainer_and_worker_get_cores_of_their_own(monkeypatch, cores, side_by_side, devices):
    monkeypatch.setattr("src.stages.rehearsal.gpu_count", lambda: 0)
    monkeypatch.setattr("src.stages.rehearsal.available_cores", lambda: cores)
    found = devices_here(side_by_side=side_by_side)
    assert (found["devices.train"], found["devices.eval"]) == devices


def test_gpus_are_used_where_they_are(monkeypatch):
    monkeypatch.setattr("src.stages.rehearsal.gpu_count", lambda: 2)
    monkeypatch.setattr("src.stages.rehearsal.computes_on_gpus", lambda: False)
    assert devices_here(side_by_side=True)["devices.train"].startswith("cpu")
    monkeypatch.setattr("src.stages.rehearsal.computes_on_gpus", lambda: True)
    assert devices_here(side_by_side=True) == {
        "devices.train": "cuda:0",
        "devices.eval": "auto",
        "engine.tensor_parallel": 1,  # of a model that is small
    }


def test_as_many_rows_as_give_the_examples_of_the_schedule():
    rows = [SftRow(str(number), "", "", None) for number in range(6)]
    built = BuiltExamples(left_out={"too long": ["1"], "empty target": ["2"]})
    assert [rows_needed(rows, built, wanted) for wanted in (1, 2, 4)] == [1, 4, 6]
    assert rows_needed(rows, built, 5) == 6
