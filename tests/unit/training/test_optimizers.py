"""AdamW that takes less memory: how near it stays to float32's, and what it keeps."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from src.config.loading import ConfigError, load_config
from src.stages.memory import GIB, grpo_memory_gib, training_memory_gib
from src.stages.start import optimizer_problems
from src.training.optimization import build_optimizer
from src.training.parallel import ParallelPolicy
from tests.unit.training.test_training import make_examples, settings, trained

STEPS = 400


def descend(name, dtype):
    """Fit a linear map by steps that bfloat16 rounds away; return its weights and the optimizer."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(64, 96, generator=generator)
    goal = inputs @ torch.randn(96, 96, generator=generator)
    layer = torch.nn.Linear(96, 96, bias=False)
    torch.nn.init.ones_(layer.weight)
    layer.to(dtype)
    config = settings(optimizer=name, learning_rate=1e-3)
    optimizer = build_optimizer(layer, config)
    for _ in range(STEPS):
        loss = (layer(inputs.to(dtype)).float() - goal).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return layer.weight.detach().float(), optimizer


def test_kahan_summation_keeps_the_steps_that_bfloat16_rounds_away():
    exact, _ = descend("adamw", torch.float32)
    rounded, _ = descend("adamw", torch.bfloat16)
    compensated, _ = descend("adamw_bf16_kahan", torch.bfloat16)
    moved = (exact - 1).abs().mean()
    assert (compensated - exact).abs().mean() < 0.05 * moved
    assert (rounded - exact).abs().mean() > 5 * (compensated - exact).abs().mean()


def test_moments_in_8_bits_stay_near_the_exact_ones():
    exact, _ = descend("adamw", torch.float32)
    quantised, _ = descend("adamw_8bit", torch.float32)
    assert (quantised - exact).abs().mean() < 0.05 * (exact - 1).abs().mean()


@pytest.mark.parametrize(
    ("name", "dtype"), [("adamw_8bit", torch.float32), ("adamw_bf16_kahan", torch.bfloat16)]
)
def test_a_resumed_run_ends_in_the_same_weights(tokenizer, tmp_path, name, dtype):
    examples, config = make_examples(tokenizer), settings(optimizer=name)
    given = (tokenizer, examples)
    whole = trained(*given, tmp_path / "whole", config, dtype=dtype)
    trained(*given, tmp_path / "cut", config, stop_after=1, dtype=dtype)
    resumed = trained(*given, tmp_path / "cut", config, resume=True, dtype=dtype)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("adamw", torch.float32),
        ("adamw", torch.bfloat16),
        ("adamw_8bit", torch.float32),
        ("adamw_8bit", torch.bfloat16),
        ("adamw_bf16_kahan", torch.bfloat16),
    ],
)
def test_the_plan_counts_the_bytes_that_an_optimizer_keeps(name, dtype):
    weights, optimizer = descend(name, dtype)
    # Not the steps taken, nor the tables of what each of the 256 codes means.
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and value.ndim and not key.startswith("qmap")
    )
    count = 1_543_714_304
    given = (f"model.weight_dtype={str(dtype).removeprefix('torch.')}", f"train.optimizer={name}")
    config = load_config(["config/sft_config.yaml"], given)
    planned = training_memory_gib(config)["optimizer"] * GIB / count
    assert kept / weights.numel() == pytest.approx(planned)


def test_each_stage_plans_with_its_own_optimizer():
    config = load_config(["config/grpo_config.yaml"], ["train.optimizer=adamw_8bit"])
    assert grpo_memory_gib(config, 1, "ddp")["optimizer"] == pytest.approx(
        4 * training_memory_gib(config)["optimizer"], rel=0.02
    )


def test_kahan_summation_wants_bfloat16_weights():
    with pytest.raises(ConfigError, match=r"grpo.optimizer: .* model.weight_dtype is float32"):
        load_config(["config/grpo_config.yaml"], ["grpo.optimizer=adamw_bf16_kahan"])


@pytest.mark.parametrize(
    ("strategy", "name", "words"),
    [
        ("ddp", "adamw_8bit", None),
        ("fsdp2", "adamw_bf16_kahan", None),
        ("fsdp2", "adamw_8bit", "cannot be sharded"),
        ("zero2", "adamw_8bit", "DeepSpeed keeps"),
        ("zero3", "adamw_bf16_kahan", "DeepSpeed keeps"),
    ],
)
def test_optimizers_that_a_strategy_cannot_have(strategy, name, words):
    given = ["model.weight_dtype=bfloat16", f"grpo.optimizer={name}"]
    config = load_config(["config/grpo_config.yaml"], given)
    said = " ".join(optimizer_problems("step3_GRPO", strategy, config))
    assert (words in said) if words else not said


def test_a_sharded_policy_is_not_handed_to_kernels_that_know_no_shards(monkeypatch):
    """On a GPU optimi takes Triton by itself for DTensors, whose pointer is null."""
    importlib.import_module("optimi")
    monkeypatch.setattr(sys.modules["optimi.adam"], "_default_to_triton", lambda _: True)
    layer = torch.nn.Linear(4, 4).bfloat16()
    optimizer = build_optimizer(layer, settings(optimizer="adamw_bf16_kahan"))
    layer(torch.ones(2, 4).bfloat16()).sum().backward()
    optimizer.step()
    assert [group["triton"] for group in optimizer.param_groups] == [False, False]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_stored_count_of_steps_stays_while_training_goes_on(device):
    layer = torch.nn.Linear(4, 4).bfloat16()
    optimizer = build_optimizer(layer, settings(optimizer="adamw_bf16_kahan"))
    policy = ParallelPolicy(layer, optimizer, torch.device("cpu"), 1.0)
    counts = []
    for _ in range(2):
        policy.backward(layer(torch.ones(2, 4).bfloat16()).float().sum())
        policy.update()
        policy.device = torch.device(device)  # its weights would be copied by being moved
        stored = policy.state(optimizer=True)["optimizer"]["param_groups"]
        policy.device = torch.device("cpu")
        counts.append([group["step"] for group in stored])
    assert [int(step) for steps in counts for step in steps] == [1, 1, 2, 2]


def test_gradients_in_bfloat16_and_a_scaled_loss_are_refused_together():
    given = ["model.weight_dtype=bfloat16", "train.compute_dtype=float16"]
    config = load_config(["config/grpo_config.yaml"], given)
    for stage, section in (("step3_GRPO", "grpo"), ("step2_sft", "train")):
        (said,) = optimizer_problems(stage, "ddp", config)
        assert f"use model.weight_dtype=float32, with {section}.optimizer=adamw" in said
    adapted = load_config(["config/grpo_config.yaml"], [*given, "grpo.adapter=lora"])
    assert not list(optimizer_problems("step3_GRPO", "ddp", adapted))
