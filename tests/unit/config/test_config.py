"""Configuration: sources, YAML 1.2, suggestions, and no key that nobody reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from src.config.loading import ConfigError, load_config, with_values
from src.config.schema import Config, GrpoConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "config").rglob("*_config.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_shipped_config_loads(file):
    load_config([file])


def test_full_scale_defaults_are_the_originals():
    config = load_config(["config/sft_hyper_config.yaml"])
    space = config.search.space
    assert config.search.trials == 20
    assert (config.train.patience, config.train.min_delta) == (3, 0.001)
    rate = space["train.learning_rate"]
    assert (rate.low, rate.high, rate.log) == (5e-6, 1e-4, True)
    assert space["train.batch_size"].choices == [32, 64, 128, 256]
    decay = space["train.weight_decay"]
    assert (decay.low, decay.high) == (0.0, 0.1)
    assert config.wandb.project == "math-sft-optuna-asha"
    sft = load_config(["config/sft_config.yaml"])
    assert len(sft.train.checkpoint_steps(7000)) == 10
    assert min(sft.train.validation_rows, sft.data.validation_rows) == 500
    assert sft.wandb.project == "math-sft"
    assert load_config(["config/grpo_config.yaml"]).wandb.project == "math-grpo"


def test_later_sources_win(tmp_path):
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    base.write_text("train: {learning_rate: 2e-5, batch_size: 32}\n")
    over.write_text("extends: base.yaml\ntrain: {batch_size: 64}\n")
    config = load_config([over], ["train.batch_size=128"])
    assert (config.train.learning_rate, config.train.batch_size) == (2e-5, 128)
    assert load_config([over]).train.batch_size == 64


def test_yaml_1_2_scalars():
    config = load_config([], ["train.learning_rate=2e-5", "run.name=no"])
    assert (config.train.learning_rate, config.run.name) == (2e-5, "no")


def test_all_problems_in_one_message_with_suggestions():
    with pytest.raises(ConfigError) as caught:
        load_config([], ["train.micro_batchsize=4", "train.learning_rate=fast", "rnu.name=x"])
    message = str(caught.value)
    assert "train.micro_batchsize: unknown key; did you mean 'train.micro_batch_size'?" in message
    assert "train.learning_rate" in message
    assert "'fast'" in message
    assert "rnu" in message


def test_a_renamed_key_is_told_by_its_new_name():
    with pytest.raises(ConfigError, match=r"bf16_autocast: is now train.compute_dtype: bfloat16"):
        load_config([], ["train.bf16_autocast=true"])


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("grpo.micro_batch_size=7", "grpo.micro_batch_size"),
        ("data.source=files", "data.train_file"),
        ("sampling.max_completion_tokens=4096", "engine.max_model_tokens"),
    ],
)
def test_bad_combinations_are_refused(override, names):
    with pytest.raises(ConfigError, match=re.escape(names)):
        load_config(["config/sft_hyper_config.yaml"], [override])


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("cuda:1", "cuda:1"),
        ("[cuda:1]", "cuda:1"),
        ("[cuda:1, cuda:2]", ["cuda:1", "cuda:2"]),
        ("['cpu:0,2', 'cpu:1,3']", ["cpu:0,2", "cpu:1,3"]),
    ],
)
def test_evaluation_has_one_device_or_several(value, read):
    config = load_config([], [f"devices.eval={value}"])
    assert config.devices.eval == read
    assert with_values(config, {}).devices.eval == read


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["devices.eval=[]"], "names no device; use auto"),
        (["devices.eval=[cuda:1, cuda:2, cuda:1]"], "devices.eval: cuda:1 twice"),
        (["devices.eval=[auto, cuda:1]"], "auto stands alone"),
        (["devices.eval=[cpu:0, cuda:1]"], "use the GPUs alone, or groups of cores alone"),
        (
            ["engine.tensor_parallel=2", "devices.eval=[cuda:1, cuda:2, cuda:3]"],
            "2 GPUs an engine do not divide the 3 of devices.eval; name 2 or a multiple",
        ),
        (["engine.tensor_parallel=2", "devices.eval=cuda:1"], "do not divide the 1"),
        (["engine.tensor_parallel=2", "devices.eval=cpu"], "2 is for GPUs, and evaluation runs on"),
        (["engine.tensor_parallel=2", "devices.train=cpu"], "evaluation runs on cpu; use 1"),
    ],
)
def test_engines_that_cannot_be_are_told(overrides, says):
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rungs", "says"), [("[1024, 512]", "must rise and end"), ("[100, 4096]", "unequal data")]
)
def test_rungs_that_compare_unequal_data_are_named(rungs, says):
    config = load_config(["config/sft_hyper_config.yaml"], [f"search.rung_examples={rungs}"])
    assert any(says in problem for problem in config.search_problems())


def test_missing_file_and_loop(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config([tmp_path / "absent.yaml"])
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_config([tmp_path / "a.yaml"])


@pytest.mark.parametrize("steps", [1, 7, 10, 11, 19, 81, 99, 329, 656])
def test_checkpoints_are_scored_ten_times_unless_said_otherwise(steps):
    train = TrainConfig(batch_size=4, epochs=1)
    scored = train.checkpoint_steps(4 * steps)
    assert len(scored) == min(10, steps)
    assert scored[-1] == steps
    apart = [after - before for before, after in zip([0, *scored], scored, strict=False)]
    assert max(apart) - min(apart) <= 1
    every = train.model_copy(update={"evaluate_every": 4}).checkpoint_steps(4 * steps)
    assert every == [*range(4, steps, 4), steps]


def test_derived_numbers():
    assert TrainConfig(micro_batch_size=8, max_tokens=512).micro_batch_tokens == 4096
    assert TrainConfig(batch_size=64, epochs=2).steps(1000) == 32
    grpo = GrpoConfig(prompts_per_step=32, group_size=8, micro_batch_size=8)
    assert grpo.completions_per_step == 256
    assert [grpo.accumulation(processes) for processes in (1, 2, 4)] == [32, 16, 8]


def test_dotted_values_replace_and_are_checked():
    config = with_values(Config(), {"train.batch_size": 32, "train.weight_decay": 0.05})
    assert (config.train.batch_size, config.train.weight_decay) == (32, 0.05)
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        with_values(Config(), {"train.batch_size": -1})


def _sections(model: type[BaseModel]):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def test_every_field_is_documented_and_read():
    files = [*(ROOT / "src").rglob("*.py"), *ROOT.glob("step*/*.py"), ROOT / "run_pipeline.py"]
    code = "\n".join(file.read_text() for file in files)
    for section, model in _sections(Config):
        for name, field in model.model_fields.items():
            assert field.description, f"{section}.{name} has no docstring"
            read = re.search(rf"\.{name}\b", code) or name == "eval"
            assert read, f"{section}.{name} is read nowhere"
