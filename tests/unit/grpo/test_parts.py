"""Rewards, problem order, importance weights, collapse: each against a computation by hand."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.config.grpo import CollapseConfig, GrpoConfig
from src.config.loading import ConfigError, load_config
from src.grpo.callback import _as_it_was
from src.grpo.collapse import CollapseWatch
from src.grpo.problem_stream import ProblemStream, RolloutProblem, informative
from src.grpo.trainer import PolicyTrainer
from src.objective.importance import Agreement, importance_weights
from src.rewards.batch import RewardBatch
from src.rewards.built_in import BUILT_IN
from src.training.throughput import StepClock
from utils.grading.outcome import Grade


def graded(outcome: str) -> Grade:
    return Grade(outcome, None, "", "text")


def rewards(outcome: str, tokens: int, finished: bool):
    row = {"tokens": tokens, "finished": finished, "token_limit": 100, "overlong_tokens": 20}
    batch = RewardBatch([""], ["1"], [row], [graded(outcome)])
    return {name: reward(*batch.arguments())[0] for name, reward in BUILT_IN.items()}


@pytest.mark.parametrize(
    ("tokens", "finished", "penalty"),
    [(10, True, 0.0), (80, True, 0.0), (90, True, -0.5), (100, True, -1.0), (100, False, -1.0)],
)
def test_overlong_penalty(tokens, finished, penalty):
    """DAPO, equation 13, with a limit of 100 tokens and a cache of 20."""
    assert rewards("correct", tokens, finished)["overlong"] == pytest.approx(penalty)


def test_rewards_of_each_outcome():
    assert rewards("correct", 50, True) == {
        "accuracy": 1.0, "format": 1.0, "overlong": 0.0, "brevity": -0.5,
    }  # fmt: skip
    assert rewards("format_failure", 50, True)["format"] == 0.0
    assert rewards("wrong_answer", 50, True)["accuracy"] == 0.0


def problems(count: int) -> list[RolloutProblem]:
    return [RolloutProblem(f"p{i}", "", [i], "1", 1 + i % 5, "") for i in range(count)]


def test_each_pass_of_the_stream_is_a_fresh_permutation():
    stream = ProblemStream(problems(20), seed=3)
    passes = [[stream.at(20 * n + i).unique_id for i in range(20)] for n in range(3)]
    assert all(sorted(names) == sorted(passes[0]) for names in passes)
    assert passes[0] != passes[1] != passes[2]
    again = ProblemStream(problems(20), seed=3)
    assert [again.at(i).unique_id for i in range(20, 40)] == passes[1]
    assert [ProblemStream(problems(20), seed=4).at(i).unique_id for i in range(20)] != passes[0]


def test_curricula():
    by_level = ProblemStream(problems(20), 3, "level")
    levels = [by_level.at(i).level for i in range(20)]
    assert levels == sorted(levels)
    rates = {f"p{i}": i / 19 for i in range(20)}
    by_rate = ProblemStream(problems(20), 3, "pass_rate", rates)
    assert [by_rate.at(i).unique_id for i in range(20)] == [f"p{i}" for i in range(19, -1, -1)]


def test_the_filter_leaves_out_what_is_always_or_never_solved():
    rates = {"p0": 0.0, "p1": 0.125, "p2": 1.0, "p3": 0.875}
    rows = problems(4)
    kept = informative(rows, rates, GrpoConfig(problem_filter="pass_rate"))
    assert [row.unique_id for row in kept] == ["p1", "p3"]
    assert informative(rows, {}, GrpoConfig()) == rows


@pytest.mark.parametrize("mode", ["off", "token_truncate", "token_mask", "sequence_truncate",
                                  "sequence_mask"])  # fmt: skip
def test_importance_weights_against_float64(mode):
    generator = torch.Generator().manual_seed(0)
    policy = -torch.rand(3, 7, generator=generator)
    engine = policy + 0.6 * torch.randn(3, 7, generator=generator)
    mask = (torch.rand(3, 7, generator=generator) > 0.3).long()
    weights, agreement = importance_weights(policy, engine, mask, mode, cap=1.5)
    p, e, m = (tensor.double().numpy() for tensor in (policy, engine, mask))
    total = corrected = 0.0
    for row in range(3):
        product = math.exp(sum((p[row] - e[row]) * m[row]))
        for column in range(7):
            if not m[row, column]:
                continue
            own = math.exp(p[row, column] - e[row, column])
            ratio = product if mode.startswith("sequence") else own
            wanted = 1.0 if mode == "off" else ratio
            if mode != "off" and ratio > 1.5:
                wanted, corrected = (1.5 if mode.endswith("truncate") else 0.0), corrected + 1
            assert weights[row, column].item() == pytest.approx(wanted, rel=1e-5)
            total += own
    assert agreement.tokens == m.sum()
    assert agreement.ratio == pytest.approx(total, rel=1e-5)
    assert agreement.gap == pytest.approx(np.abs((p - e) * m).sum(), rel=1e-5)
    assert agreement.corrected == corrected


def test_agreement_of_several_processes_is_a_mean_over_tokens():
    both = Agreement(10, 11.0, 0.2, 1, 3.0) + Agreement(30, 29.0, 0.6, 0, 5.0)
    assert both.metrics() == {
        "grpo/importance_ratio": 1.0,
        "grpo/logprob_gap": pytest.approx(0.02),
        "grpo/importance_corrected_rate": 0.025,
        "grpo/entropy": 0.2,
    }


def watched(steps):
    watch = CollapseWatch(CollapseConfig(patience=3))
    return [
        watch.see({"grpo/completion_tokens": n, "grpo/entropy": h, "train/grad_norm": g})
        for n, h, g in steps
    ]


@pytest.mark.parametrize(
    ("sick", "names"),
    [
        ((5, 0.3, 1.0), "shrank"),
        ((100, 1e-5, 1.0), "entropy"),
        ((100, 0.3, 1e4), "gradient norm"),
        ((100, 0.3, math.nan), "gradient norm"),
    ],
)
def test_collapse_is_named_after_patience_steps_in_a_row(sick, names):
    healthy = (100, 0.3, 1.0)
    said = watched([healthy] * 6 + [sick] * 2 + [healthy] + [sick] * 3)
    assert said[:-1] == [None] * 11
    assert names in said[-1]


def test_steps_that_overflow_are_no_yardstick_for_later_ones():
    begun = [(100, 0.3, math.inf)] * 3 + [(100, 0.3, 1.0)] * 3
    said = watched([*begun, (100, 0.3, math.inf), (100, 0.3, 1.0), *[(100, 0.3, 1e4)] * 3])
    assert said[:-1] == [None] * 10
    assert "gradient norm rose to 1e+04 from 1" in said[-1]


@pytest.mark.parametrize("gap", [math.nan, math.inf])
def test_numbers_that_overflow_are_not_called_stale_weights(gap):
    with pytest.raises(FloatingPointError, match=r"not finite.*float16's 65,504"):
        Agreement(tokens=2, gap=gap).check(0.1)


@pytest.mark.parametrize("inside", [False, True])
def test_a_probe_computes_without_the_autocast_of_a_forward_pass(inside):
    layer = torch.nn.Linear(4, 4)
    plain = layer.forward
    if inside:  # as accelerate does it
        layer._original_forward = plain
        layer.forward = torch.autocast("cpu", torch.float16)(plain)
    with _as_it_was(layer):
        assert layer(torch.ones(1, 4)).dtype == torch.float32
    assert layer(torch.ones(1, 4)).dtype == (torch.float16 if inside else torch.float32)


@pytest.mark.parametrize(("device", "order"), [("cuda", ["wait", "send"]), ("cpu", ["send"])])
def test_a_server_is_sent_weights_that_an_update_has_finished_with(monkeypatch, device, order):
    """TRL reads them on streams that do not wait for the one of the update."""
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    trainer = SimpleNamespace(
        split=None,
        vllm_generation=None,
        clock=StepClock(),
        accelerator=SimpleNamespace(device=torch.device(device)),
        _server=SimpleNamespace(answers=nullcontext),
        _sync_in_trl=lambda: done.append("send"),
    )
    PolicyTrainer.sync_weights(trainer)
    assert done == order


def test_a_healthy_run_is_left_alone():
    assert not any(watched([(100 - i, 0.3 - i * 0.002, 1 + i % 3) for i in range(60)]))


def test_recipes_fill_in_what_the_configuration_leaves_open():
    def settings(*overrides):
        return load_config(["config/grpo_config.yaml"], overrides).grpo

    assert settings().recipe == "dapo"
    assert settings().dynamic_sampling
    assert settings().clip_high == 0.28
    dr = settings("grpo.recipe=dr_grpo")
    assert (dr.loss, dr.scale_rewards, dr.dynamic_sampling) == ("dr_grpo", False, False)
    assert settings("grpo.recipe=dr_grpo", "grpo.scale_rewards=true").scale_rewards
    assert settings("grpo.recipe=reinforce_baseline").clip_high > 1e3
    assert settings("grpo.recipe=gspo").ratio == "sequence"
    assert settings("grpo.recipe=maxrl").advantage == "max_likelihood"
    with pytest.raises(ConfigError, match=r"grpo\.recipe"):
        settings("grpo.recipe=ppo")


@pytest.mark.parametrize(
    ("values", "processes", "says"),
    [
        ({"micro_batch_size": 7}, 1, "choose a divisor"),
        ({"prompts_per_step": 3, "micro_batch_size": 4}, 2, "shared evenly"),
        ({"iterations": 2, "save_every": 25}, 1, "multiples of grpo.iterations"),
        ({"recipe": "reinforce_baseline", "iterations": 5}, 1, "one update a batch"),
        ({"recipe": "rft", "updates_per_batch": 2}, 1, "grpo.updates_per_batch: rft takes one"),
        ({"updates_per_batch": 5}, 1, "x 5 updates does not divide"),
        ({"updates_per_batch": 2, "save_every": 25}, 1, "no rollouts are cut in two"),
        ({"ratio": "sequence", "loss": "dapo"}, 1, "use loss: grpo, or ratio: token"),
        (
            {"advantage": "max_likelihood", "rewards": {"brevity": 0.1}},
            1,
            "grpo.rewards.brevity: grpo.advantage: max_likelihood divides",
        ),
    ],
)
def test_bad_combinations(values, processes, says):
    assert any(says in problem for problem in GrpoConfig(**values).problems(processes))
