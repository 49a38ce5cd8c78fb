"""What the rollout engine's process answers: stale layers and failures are told."""

from __future__ import annotations

import pytest
import torch

from src.config.loading import load_config
from src.engine.shared_weights import SharedWeights
from src.grpo.rollout_source import DrawRequest
from src.grpo.rollout_worker import RolloutWorker, TakeWeights
from src.grpo.rollouts import Drawing


class Engine:
    """Takes weights, or leaves some layers as they were."""

    def __init__(self, stale: list[str]) -> None:
        self.stale, self.swapped = stale, []

    def swap(self, folder) -> None:
        self.swapped.append(folder)

    def differing_layers(self, folder) -> list[str]:
        return self.stale

    def rollouts(self, sampling, min_tokens):
        raise ValueError("no room")


@pytest.fixture
def taken(tmp_path):
    memory = SharedWeights(tmp_path, torch.bfloat16)
    yield TakeWeights(tmp_path, memory.write({"a.weight": torch.ones(3, 2)}))
    memory.close()


def worker(stale: list[str]) -> RolloutWorker:
    config = load_config(["config/tiny/grpo_config.yaml"], [])
    return RolloutWorker(config, Engine(stale), lambda: None)


def test_weights_that_arrived_are_no_trouble(taken):
    answer = worker([]).answer(taken)
    assert (answer.value, answer.trouble, answer.stale) == (None, None, False)
    assert answer.seconds > 0


def test_a_layer_that_stayed_old_is_named(taken):
    answer = worker(["lm_head"]).answer(taken)
    assert answer.stale
    assert answer.trouble.told == (
        "after the weight sync 1 layers of the rollout engine hold other weights than the policy: "
        "lm_head"
    )


def test_memory_that_holds_another_policy_is_named(taken):
    answer = worker([]).answer(TakeWeights(taken.folder, {"a.weight": 1}))
    assert answer.stale
    assert answer.trouble.told.endswith("a.weight")


def test_what_fails_becomes_an_answer():
    answer = worker([]).answer(DrawRequest(Drawing(1, 1, 2), [], seed=0))
    assert (answer.trouble.told, answer.stale) == ("ValueError: no room", False)
    assert "in rollouts" in answer.trouble.trace
