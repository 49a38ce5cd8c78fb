"""GRPO through the real TRL and vLLM: seeds, weight syncs, agreement of engine and policy."""

from __future__ import annotations

import math

import pytest

from src.config.loading import load_config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.grpo.problems import starting_pass_rates
from src.training.policy import save_policy
from tests.conftest import TINY_BASE, two_layer_model
from tests.engine.engine_process import BFLOAT16, in_engine_process
from tests.engine.grpo_process import observe_runs

pytestmark = pytest.mark.engine
ADAPTER = ["grpo.recipe=grpo", "grpo.adapter=lora", "grpo.learning_rate=2e-3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Some short runs from the tiny base, on one engine, in the full profile's types."""
    asked = {
        "first": [],
        "same seed": [],
        "other seed": ["run.seed=18"],
        "without refills": ["grpo.recipe=grpo"],
        "again with KL": ["grpo.recipe=grpo", "grpo.iterations=2", "grpo.kl_beta=0.05"],
        "adapter": [*ADAPTER, "grpo.kl_beta=0.05"],
        "adapter, base given": [*ADAPTER, "plant=the engine gets the base"],
        "adapter, changed": [*ADAPTER, "plant=the adapter changes after the merge"],
        "stale": ["plant=the sync does nothing", "grpo.learning_rate=0.01"],
    }
    types = [BFLOAT16, "train.compute_dtype=bfloat16"]
    asked = {name: [*types, *overrides] for name, overrides in asked.items()}
    return in_engine_process(observe_runs, TINY_BASE, tmp_path_factory.mktemp("runs"), asked)


@pytest.fixture(scope="module")
def float16_runs(tmp_path_factory):
    """The same in float16, engine and policy; one with a loss scaled so that gradients overflow."""
    types = ["engine.dtype=float16", "train.compute_dtype=float16", "grpo.recipe=grpo"]
    asked = {"plain": types, "overflow": [*types, "plant=the scale is too large"]}
    return in_engine_process(observe_runs, TINY_BASE, tmp_path_factory.mktemp("float16"), asked)


def test_engine_and_policy_are_closer_in_float16_than_in_bfloat16(runs, float16_runs):
    """Three more bits are a factor of 8 in rounding (Qi et al. 2025, arXiv 2510.26788)."""
    for coarse, fine in zip(runs["without refills"], float16_runs["plain"], strict=True):
        assert fine["grpo/importance_ratio"] == pytest.approx(1.0, abs=1e-3)
        assert 4 * fine["grpo/logprob_gap"] < coarse["grpo/logprob_gap"]
        assert math.isfinite(fine["grad_norm"])
    first, second = float16_runs["plain"]
    assert first["weights"] != second["weights"]


def test_a_float16_step_whose_gradients_overflow_is_left_out(float16_runs):
    first, second = float16_runs["overflow"]
    assert not math.isfinite(first["grad_norm"])
    assert first["weights"] == second["weights"]
    assert first["texts"] == float16_runs["plain"][0]["texts"]
    assert second["grpo/importance_ratio"] == pytest.approx(1.0, abs=1e-3)


def test_the_same_seed_samples_the_same_and_another_does_not(runs):
    assert [step["texts"] for step in runs["first"]] == [
        step["texts"] for step in runs["same seed"]
    ]
    losses = [[step["loss"] for step in runs[name]] for name in ("first", "same seed")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert runs["first"][0]["texts"] != runs["other seed"][0]["texts"]


def test_members_of_a_group_differ(runs):
    for name in ("first", "other seed", "without refills"):
        for step in runs[name]:
            groups = step["texts"]  # of an easy problem four samples may well be alike
            assert sum(len(set(texts)) > 1 for texts in groups) > len(groups) / 2


def test_engine_and_policy_agree_after_every_sync(runs):
    for name in ("first", "without refills"):
        for step in runs[name]:
            assert step["grpo/importance_ratio"] == pytest.approx(1.0, abs=0.01)
            assert step["grpo/logprob_gap"] < 0.01


def test_a_sync_that_does_nothing_is_caught(runs):
    assert "layers of the rollout engine hold other weights" in runs["stale"]


def test_a_second_pass_over_the_same_rollouts_with_a_reference_policy(runs):
    first, second = runs["again with KL"]
    assert first["texts"] == second["texts"]
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert second["kl"] > first["kl"]
    assert first["seconds"]["logprobs"] > 0  # of the policy that sampled, and of the reference
    assert second["seconds"].get("generate", 0.0) == 0.0


def test_the_engine_gets_an_adapter_merged_and_agrees_with_the_policy_that_has_it(runs):
    for step in runs["adapter"]:
        assert step["grpo/importance_ratio"] == pytest.approx(1.0, abs=0.01)
        assert step["grpo/logprob_gap"] < 0.01
        matrices = 2 * 192 + 2 * (192 + 64) + 2 * 192 + 3 * (192 + 512)
        assert step["optimised"] == 4 * 16 * matrices


def test_the_reference_of_an_adapter_is_the_policy_without_it(runs):
    first, second = runs["adapter"]
    assert first["reference"] is None
    assert first["kl"] == 0.0
    assert second["kl"] > 0.0


def test_an_engine_that_holds_another_adapter_than_the_policy_is_caught(runs):
    for name in ("adapter, base given", "adapter, changed"):
        assert "layers of the rollout engine hold other weights than the policy" in runs[name]


def test_only_completions_cut_by_length_count_as_truncated(runs):
    for step in runs["without refills"]:
        members = [
            (text, finished)
            for texts, ends in zip(step["texts"], step["finished"], strict=True)
            for text, finished in zip(texts, ends, strict=True)
        ]
        assert any("</answer>" in text for text, _ in members)
        assert all(finished for text, finished in members if text.endswith("</answer>"))
        cut = sum(not finished for _, finished in members) / len(members)
        assert step["completions/clipped_ratio"] == pytest.approx(cut)


def test_an_untied_output_layer_is_synced_too(tokenizer, tmp_path):
    model = two_layer_model(tokenizer, tied=False)
    save_policy(model, tokenizer, tmp_path / "model")
    # Random weights answer nothing, so every group is dull; the engine must agree all the same.
    overrides = ["grpo.recipe=grpo", "sampling.max_completion_tokens=40"]
    asked = {"untied": overrides}
    seen = in_engine_process(observe_runs, tmp_path / "model", tmp_path, asked)["untied"]
    assert len(seen) == 2
    for step in seen:
        assert step["grpo/importance_ratio"] == pytest.approx(1.0, abs=0.01)


def test_pass_rates_of_the_starting_model_are_measured_once(tmp_path, monkeypatch):
    config = load_config(
        ["config/tiny/grpo_config.yaml"],
        [
            *("grpo.problem_filter=pass_rate", "grpo.pass_rate_samples=4", "data.train_rows=24"),
            f"run.output_root={tmp_path}",
        ],
    )
    problems = load_problems(config).train
    prompt = load_prompt(config.data.prompt)
    rates = starting_pass_rates(config, str(TINY_BASE), problems, prompt)
    assert set(rates) == {problem.unique_id for problem in problems}
    assert set(rates.values()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert 0 < sum(rates.values()) < len(rates)
    monkeypatch.setattr("src.grpo.problems.EvalWorker", None)  # would be an error if it were asked
    assert starting_pass_rates(config, str(TINY_BASE), problems, prompt) == rates
    (file,) = (tmp_path / "pass_rates").iterdir()
    assert "model.safetensors" in file.read_text()
