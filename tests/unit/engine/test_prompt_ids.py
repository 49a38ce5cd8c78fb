"""Whoever cuts a prompt cuts it alike: trainer, engine, server, probe, GRPO and evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from src.config.loading import load_config
from src.data.prompts import load_prompt
from src.data.token_ids import prompt_ids
from src.engine.server_engine import ServerEngine, ServerRolloutPool
from src.engine.vllm_engine import VllmEngine
from src.engine.weight_probe import PROBE_TEXTS, measure_probe
from src.grpo.problems import problem_stream, usable_problems
from src.sft.examples import build_examples
from src.sft.rows import rows_from_problems
from tests.conftest import two_layer_model
from tests.family_models import family_tokenizer
from tests.unit.engine.test_server_engine import SAMPLING, TextClient
from utils.data.problem_generator import generate_problems

CPU = torch.device("cpu")
PROMPT = load_prompt("rl_zero")


class RecordingEngine:
    """vLLM's engine as far as requests reach it; nothing ends."""

    def __init__(self) -> None:
        self.asked = []
        self.output_processor = SimpleNamespace(request_states={})

    def add_request(self, name, prompt, parameters) -> str:
        self.asked.append((prompt["prompt_token_ids"], parameters))
        self.output_processor.request_states[name] = SimpleNamespace(logprobs_processor=None)
        return name

    def has_unfinished_requests(self) -> bool:
        return False

    def abort_request(self, names) -> None:
        pass


def around(tokenizer, own_tokenizer):
    """Return our engine around one of vLLM's that has a tokenizer of its own, and its requests."""
    inner = RecordingEngine()
    llm = SimpleNamespace(
        llm_engine=inner,
        get_tokenizer=lambda: own_tokenizer,
        model_config=SimpleNamespace(max_model_len=512),
    )
    return VllmEngine.around(llm, tokenizer), inner


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen2", "olmo2"])
def test_all_see_the_same_ids(kind):
    tokenizer = family_tokenizer(kind)
    config = load_config(["config/tiny/grpo_config.yaml"])
    problems = generate_problems(3, "train", 1)
    texts = [PROMPT.render(problem) for problem in problems]
    wanted = prompt_ids(tokenizer, texts)

    engine, requests = around(tokenizer, tokenizer)
    list(engine.stream(texts, config.sampling, [1, 2, 3]))
    assert [ids for ids, _ in requests.asked] == wanted
    assert ServerEngine(None, tokenizer, 512, CPU).token_ids(texts) == wanted
    rows = rows_from_problems(problems, PROMPT)
    examples = build_examples(rows, tokenizer, 512, "all").examples
    assert [list(item.ids[: item.prompt_tokens]) for item in examples] == wanted
    usable = usable_problems(problems, PROMPT, tokenizer, config)
    stream = problem_stream("", usable, PROMPT, tokenizer, config)
    assert sorted(stream.at(place).prompt_ids for place in range(3)) == sorted(wanted)
    probe = measure_probe(two_layer_model(tokenizer, tied=True), tokenizer, CPU)
    assert probe.ids == engine.token_ids(PROBE_TEXTS)
    opens = kind in ("llama", "gemma2")
    assert all((ids[0] == tokenizer.bos_token_id) == opens for ids in [*wanted, *probe.ids])


def test_an_engine_stops_at_the_end_of_a_turn_that_it_does_not_know_by_itself():
    plain, chatting = family_tokenizer("gemma2"), family_tokenizer("gemma2")
    chatting.eos_token = "<end_of_turn>"
    for tokenizer, ends in ((plain, []), (chatting, [chatting.eos_token_id])):
        engine, requests = around(tokenizer, plain)
        list(engine.stream(["1+1?"], SAMPLING, [1]))
        engine.rollouts(SAMPLING, 4).add(0, [5], seed=1)
        assert [parameters.stop_token_ids for _, parameters in requests.asked] == [ends, ends]


def test_a_server_is_told_the_end_of_a_turn(tokenizer):
    client = TextClient(tokenizer, " 1")
    pool = ServerRolloutPool(client, tokenizer, SAMPLING, context=64)
    pool.add(0, [5], seed=1)
    list(pool.ended())
    assert client.asked[0]["generation_kwargs"]["stop_token_ids"] == [tokenizer.eos_token_id]
