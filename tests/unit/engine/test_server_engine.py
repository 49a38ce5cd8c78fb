"""The engine behind `vllm serve`, on a client that answers from a table."""

from __future__ import annotations

import threading
from typing import Any

import torch

from src.config.schema import SamplingConfig
from src.engine.server_engine import ServerEngine, ServerRolloutPool
from src.training.policy import save_policy
from tests.conftest import two_layer_model

SAMPLING = SamplingConfig(max_completion_tokens=8)


class FakeClient:
    """Answers a prompt [p] under seed s with a text that names both."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.received: dict[str, torch.Tensor] = {}
        self.resets = 0

    def generate(self, prompts: list[list[int]], **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self.asked.append(arguments)
        (prompt,) = prompts
        seed = arguments["generation_kwargs"]["seed"]
        text = f" {prompt[0]} {seed}" + (" </answer>" if seed % 2 else "")
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if seed % 3 == 0:
            ids = [*ids, self._tokenizer.eos_token_id]
        return {"completion_ids": [ids], "logprobs": [[[-0.5]] * len(ids)]}

    def get_sequence_logprobs(self, sequences, prompt_lengths, top_logprobs):
        assert prompt_lengths == [1] * len(sequences)
        return {"actual_logprobs": [[[-float(token)] for token in row[1:]] for row in sequences]}

    def update_named_params(self, metadata, named_params) -> None:
        self.received = dict(named_params)
        assert [name for name, _, _ in metadata] == list(self.received)
        for name, dtype, shape in metadata:
            assert dtype == "bfloat16"
            assert shape == list(self.received[name].shape)

    def reset_prefix_cache(self) -> None:
        self.resets += 1


def test_rollouts_keep_their_keys_seeds_and_ends(tokenizer):
    client = FakeClient(tokenizer)
    pool = ServerRolloutPool(client, tokenizer, SAMPLING, min_tokens=4)
    for key in range(6):
        pool.add(key, [key], seed=10 + key)
    seen = {}
    for key, rollout in pool.ended():
        seen[key] = rollout
        if key == 0:
            pool.add(6, [6], seed=16)  # another may join while others run
    assert sorted(seen) == list(range(7))
    for key, rollout in seen.items():
        seed = 10 + key
        assert rollout.text.split()[:2] == [str(key), str(seed)]
        assert rollout.finished == (seed % 2 == 1 or seed % 3 == 0)
        assert len(rollout.ids) == len(rollout.logprobs)
    asked = client.asked[0]["generation_kwargs"]
    assert (asked["min_tokens"], asked["stop"]) == (4, ["</answer>"])
    assert asked["include_stop_str_in_output"]


def test_the_engine_evaluates_scores_and_swaps(tokenizer, tmp_path):
    client = FakeClient(tokenizer)
    engine = ServerEngine(client, tokenizer, torch.device("cpu"))
    prompts = ["one", "two"]
    completions = dict(engine.stream(prompts, SAMPLING, [11, 14]))
    assert not completions[0].truncated
    assert completions[1].truncated
    assert engine.prompt_logprobs([[5, 6, 7]]) == [[-6.0, -7.0]]
    save_policy(two_layer_model(tokenizer, tied=True), tokenizer, tmp_path)
    engine.swap(tmp_path)
    assert "model.embed_tokens.weight" in client.received
    assert client.resets == 1
