"""The engine behind `vllm serve`, on a client that answers from a table."""

from __future__ import annotations

import threading
from typing import Any

import pytest
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
    pool = ServerRolloutPool(client, tokenizer, SAMPLING, context=64, min_tokens=4)
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
    engine = ServerEngine(client, tokenizer, 64, torch.device("cpu"))
    prompts = ["one", "two"]
    assert dict(engine.stream([], SAMPLING, [])) == {}  # all were there before a run was killed
    completions = dict(engine.stream(prompts, SAMPLING, [11, 14]))
    assert not completions[0].truncated
    assert completions[1].truncated
    assert engine.prompt_logprobs([[5, 6, 7]]) == [[-6.0, -7.0]]
    save_policy(two_layer_model(tokenizer, tied=True), tokenizer, tmp_path)
    engine.swap(tmp_path)
    assert "model.embed_tokens.weight" in client.received
    assert client.resets == 1


class TextClient(FakeClient):
    """Completes everything with one text."""

    def __init__(self, tokenizer, text: str) -> None:
        super().__init__(tokenizer)
        self._text = text

    def generate(self, prompts: list[list[int]], **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        ids = self._tokenizer(self._text, add_special_tokens=False)["input_ids"]
        return {"completion_ids": [ids], "logprobs": [[[-0.5]] * len(ids)]}


@pytest.mark.parametrize("tail", ["\n", "\n\n", ". ", ""])
def test_a_last_token_that_reaches_beyond_the_stop_text_is_no_cut(tokenizer, tail):
    """vLLM cuts its text at the stop text and keeps the whole last token, such as `>` + newline."""
    client = TextClient(tokenizer, f" 5 </think> <answer> 5 </answer>{tail}")
    pool = ServerRolloutPool(client, tokenizer, SAMPLING, context=64)
    pool.add(0, [7], seed=1)
    ((_, rollout),) = pool.ended()
    assert rollout.finished
    assert rollout.text.endswith("<answer> 5 </answer>")


def test_a_text_without_the_stop_text_was_cut(tokenizer):
    pool = ServerRolloutPool(TextClient(tokenizer, " 5 </answer"), tokenizer, SAMPLING, context=64)
    pool.add(0, [7], seed=1)
    ((_, rollout),) = pool.ended()
    assert not rollout.finished


def test_prompts_get_the_room_that_the_context_leaves_them(tokenizer):
    """`vllm serve` refuses a prompt beside which max_tokens have no room."""
    client = TextClient(tokenizer, " 1")
    pool = ServerRolloutPool(client, tokenizer, SAMPLING, context=10, min_tokens=4)
    for key, length in enumerate((2, 7, 10, 11)):
        pool.add(key, [5] * length, seed=key)
    ended = dict(pool.ended())
    assert sorted(asked["max_tokens"] for asked in client.asked) == [3, 8]
    assert sorted(asked["generation_kwargs"]["min_tokens"] for asked in client.asked) == [3, 4]
    for key in (2, 3):
        assert (ended[key].ids, ended[key].finished) == ([], False)
