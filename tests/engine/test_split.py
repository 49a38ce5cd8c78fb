"""Split mode through the real engine in a process of its own: the same as colocated, and its ends.

Trainer and engine have one core each, as a colocated engine and its trainer share one: then not
even rounding differs.
"""

from __future__ import annotations

import pytest

from src.config.loading import load_config
from tests.conftest import TINY_BASE
from tests.engine.engine_process import in_engine_process
from tests.engine.grpo_process import observe_runs, observe_split

pytestmark = pytest.mark.engine
# Lengths always differ, so each step has a gradient.
RUN = ["grpo.rewards.brevity=1", "grpo.recipe=grpo", "grpo.steps=3", "grpo.learning_rate=1e-3"]
ONE_CORE = [*RUN, "devices.train=cpu:0", "devices.eval=cpu:0"]
APART = [*RUN, "devices.train=cpu:0", "devices.eval=cpu:1", "grpo.mode=split"]
AHEAD = [*APART, "grpo.one_step_off=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    core = load_config(["config/tiny/grpo_config.yaml"], ["devices.eval=cpu:0"])
    asked = {
        "apart": APART,
        "ahead": AHEAD,
        "killed": [*AHEAD, "plant=the engine is killed"],
        "stale": [*APART, "plant=weights stay in the trainer"],
    }
    colocated = {"colocated": ONE_CORE}
    return {
        **in_engine_process(observe_runs, TINY_BASE, folder, colocated, config=core),
        **in_engine_process(observe_split, TINY_BASE, folder, asked, config=core),
    }


def figures(steps):
    names = ("texts", "lag", "loss", "grad_norm", "grpo/logprob_gap", "grpo/importance_ratio")
    return [{name: step[name] for name in names} for step in steps]


def test_the_engine_draws_what_a_colocated_one_draws_and_the_policy_learns_the_same(runs):
    assert figures(runs["apart"]) == figures(runs["colocated"])
    assert all(step["loss"] for step in runs["apart"])


def test_one_step_off_trains_on_what_older_weights_drew(runs):
    apart, ahead = runs["apart"], runs["ahead"]
    assert [step["lag"] for step in ahead] == [0, 1, 1]
    assert ahead[0]["texts"] == apart[0]["texts"]
    assert ahead[1]["texts"] != apart[1]["texts"]
    assert ahead[1]["grpo/logprob_gap"] > 2 * apart[1]["grpo/logprob_gap"]


def test_an_engine_that_is_killed_is_replaced_and_draws_the_same(runs):
    assert figures(runs["killed"]) == figures(runs["ahead"])


def test_weights_that_stay_in_the_trainer_are_caught(runs):
    assert "layers of the rollout engine hold other weights than the policy" in runs["stale"]
