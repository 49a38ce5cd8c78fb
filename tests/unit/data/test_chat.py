"""Prompts as turns of a chat: every family's template, who is asked so, and where a turn ends."""

from __future__ import annotations

import json

import pytest

from src.config.loading import ConfigError, load_config
from src.data.chat import chat_prompt, chats, end_turns, stage_prompt, turn_end, turns_of
from src.data.prompts import PromptTemplate, load_prompt
from src.data.token_ids import prompt_ids
from src.sft.examples import build_examples
from src.sft.rows import SftRow
from src.training.policy import load_tokenizer, save_policy
from tests.conftest import TINY_BASE, two_layer_model
from tests.family_models import CONVENTIONS, family_tokenizer
from utils.data.problem import Problem

R1_ZERO = load_prompt("rl_zero")
TOLD = R1_ZERO.text.partition("\nUser:")[0]
ASSISTANT = {
    "gemma2": "<start_of_turn>model\n",
    "gemma3_text": "<start_of_turn>model\n",
    "llama": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": " [/INST]",
    "olmo2": "<|assistant|>\n",
    "phi3": "<|assistant|>\n",
}


def set_to(chat: str):
    return load_config(["config/tiny/baseline_config.yaml"], [f"data.chat={chat}"])


@pytest.mark.parametrize("kind", sorted(CONVENTIONS))
def test_the_template_becomes_turns_with_the_thinking_left_open(kind):
    tokenizer, rule = family_tokenizer(kind), CONVENTIONS[kind]
    prompt = chat_prompt(R1_ZERO, tokenizer)
    opened = ASSISTANT.get(kind, "<|im_start|>assistant\n")
    assert prompt.text.endswith(f"{opened}<think>")
    assert prompt.text.count("{question}") == 1
    assert TOLD in prompt.text
    assert "User:" not in prompt.text
    assert "Assistant:" not in prompt.text
    assert prompt.form == "tags"
    asked = prompt.render(Problem("1+1?", "", "2", None, "unknown", "a"))
    assert prompt.asked(asked) == "1+1?"
    (ids,) = prompt_ids(tokenizer, [asked])
    begins = rule.bos is not None and "bos_token" in rule.template
    assert (ids[0] == tokenizer.bos_token_id) == begins
    if begins:
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_system_turn_where_the_family_has_one_and_the_users_head_where_not():
    assert chat_prompt(R1_ZERO, family_tokenizer("qwen2")).text == (
        f"<|im_start|>system\n{TOLD}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n"
        "<|im_start|>assistant\n<think>"
    )
    for kind, user in (("gemma2", "<start_of_turn>user\n"), ("mistral", "[INST] ")):
        text = chat_prompt(R1_ZERO, family_tokenizer(kind)).text
        assert f"{user}{TOLD}\n\n{{question}}" in text


def test_turns_of_a_template():
    assert turns_of(R1_ZERO.text) == turns_of(f"{R1_ZERO.text} ")
    parts = turns_of("Q: {question}\nThe User: waits.")
    assert (parts.system, parts.user) == ("", "Q: {question}\nThe User: waits.")
    few = turns_of("Told.\nUser: 1?\nAssistant: 1\nUser: {question}\nAssistant: <think>")
    assert (few.system, few.user) == ("Told.\nUser: 1?\nAssistant: 1", "{question}")


def test_a_prompt_in_the_tokenizers_own_format_is_kept():
    boxed = load_prompt("qwen_boxed")
    assert chat_prompt(boxed, family_tokenizer("qwen2")) is boxed


def test_a_template_that_opens_the_thinking_itself_opens_it_once():
    tokenizer = family_tokenizer("qwen3")
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n")
    assert chat_prompt(R1_ZERO, tokenizer).text.endswith("<|im_start|>assistant\n<think>\n")


def test_a_template_that_states_the_date_states_the_same_each_day():
    tokenizer = family_tokenizer("smollm3")
    tokenizer.chat_template = "Today: {{ strftime_now('%d %B %Y') }}\n" + tokenizer.chat_template
    assert chat_prompt(R1_ZERO, tokenizer).text.startswith("Today: 26 July 2024\n")


def test_a_template_that_loses_the_question_is_refused():
    tokenizer = family_tokenizer("qwen2")
    tokenizer.chat_template = "<|im_start|>hello<|im_end|>"
    with pytest.raises(ConfigError, match=r"data\.chat: .* 0 times, expected once"):
        chat_prompt(PromptTemplate("{question}"), tokenizer)


@pytest.mark.parametrize("kind", sorted(CONVENTIONS))
def test_auto_is_on_for_models_that_stop_at_a_token_which_ends_turns_alone(kind):
    rule, tokenizer = CONVENTIONS[kind], family_tokenizer(kind)
    document_end = tokenizer.eos_token
    assert turn_end(tokenizer) == (rule.turn_end or document_end)
    stops = tokenizer.convert_tokens_to_ids(list(rule.stops))
    end_turns(tokenizer, set_to("auto"), [tokenizer.eos_token_id, *stops])
    assert chats(set_to("auto"), tokenizer) == (rule.turn_end is not None)
    assert tokenizer.eos_token == (rule.turn_end or document_end)


def test_auto_leaves_a_base_model_alone_that_brings_a_template():
    """Qwen2.5-Math's base does, and its published yardsticks are of the plain prompt."""
    tokenizer = family_tokenizer("qwen2")
    tokenizer.eos_token = "<|endoftext|>"
    config = set_to("auto")
    end_turns(tokenizer, config, [tokenizer.eos_token_id])
    assert tokenizer.eos_token == "<|endoftext|>"
    assert stage_prompt(config, tokenizer) == load_prompt(config.data.prompt)
    # Asked for, it speaks in turns, and what it wrote is read again by the stage that follows.
    end_turns(tokenizer, set_to("on"), [tokenizer.eos_token_id])
    assert tokenizer.eos_token == "<|im_end|>"
    assert stage_prompt(set_to("on"), tokenizer).text.endswith("assistant\n<think>")


def test_the_tiny_base_is_asked_as_it_always_was():
    tokenizer = load_tokenizer(str(TINY_BASE), set_to("auto"))
    assert tokenizer.eos_token == "<|endoftext|>"
    assert not chats(set_to("auto"), tokenizer)
    with pytest.raises(ConfigError, match="data.chat: on, and .* has no chat template"):
        load_tokenizer(str(TINY_BASE), set_to("on"))


def test_off_changes_nothing_of_a_chat_model():
    tokenizer = family_tokenizer("gemma2")
    end_turns(tokenizer, set_to("off"), [tokenizer.convert_tokens_to_ids("<end_of_turn>")])
    assert tokenizer.eos_token == "<eos>"
    assert not chats(set_to("off"), tokenizer)


def test_a_loaded_chat_models_targets_end_as_its_turns_do(tmp_path):
    tokenizer = family_tokenizer("gemma2")
    tokenizer.save_pretrained(tmp_path)
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {ends}}}')
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    config = set_to("auto")
    loaded = load_tokenizer(str(tmp_path), config)
    prompt = stage_prompt(config, loaded)
    rows = [SftRow("a", prompt.text, " 1 </answer><end_of_turn>", None)]
    (example,) = build_examples(rows, loaded, 512, "all").examples
    assert example.ids.count(ends[1]) == prompt.text.count("<end_of_turn>") + 1
    assert example.ids[-1] == ends[1]
    # As written out with a checkpoint and read by the next stage.
    save_policy(two_layer_model(loaded, tied=True), loaded, tmp_path / "next")
    told = json.loads((tmp_path / "next" / "generation_config.json").read_text())
    assert told["eos_token_id"] == ends[1]
    again = load_tokenizer(str(tmp_path / "next"), config)
    assert again.eos_token == "<end_of_turn>"
    assert stage_prompt(config, again) == prompt
    assert prompt_ids(again, [prompt.text]) == prompt_ids(loaded, [prompt.text])


def test_a_base_that_was_taught_turns_stops_at_their_end(tmp_path):
    tokenizer = family_tokenizer("qwen2")
    tokenizer.eos_token = "<|endoftext|>"
    model = two_layer_model(tokenizer, tied=True)
    base = tokenizer.eos_token_id
    tokenizer.eos_token = "<|im_end|>"
    save_policy(model, tokenizer, tmp_path)
    told = json.loads((tmp_path / "generation_config.json").read_text())
    assert told["eos_token_id"] == [tokenizer.eos_token_id, base]
    assert model.generation_config.eos_token_id == base
    assert chats(set_to("auto"), load_tokenizer(str(tmp_path), set_to("auto")))
