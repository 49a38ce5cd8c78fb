"""A prompt's ids: BOS by the tokenizer's own rule, once, the same for trainer and engine."""

from __future__ import annotations

import pytest

from src.data.token_ids import opening_ids, prompt_ids, text_ids
from src.sft.examples import build_examples
from src.sft.rows import SftRow
from tests.family_models import CONVENTIONS, family_tokenizer

PROMPT = "User: What is $34-57$?\nAssistant: <think>"
KINDS = sorted(CONVENTIONS)


@pytest.fixture(scope="module")
def built():
    return {kind: family_tokenizer(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_gets_what_its_tokenizer_puts_before_a_text_and_nothing_behind(built, kind):
    tokenizer, rule = built[kind], CONVENTIONS[kind]
    (ids,) = prompt_ids(tokenizer, [PROMPT])
    assert ids == tokenizer(PROMPT)["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == rule.adds_bos
    assert ids[int(rule.adds_bos) :] == tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert tokenizer.eos_token_id not in ids[1:]


def test_a_text_that_begins_with_bos_gets_no_second_one(built):
    tokenizer = built["llama"]
    (plain,), (marked,) = (
        prompt_ids(tokenizer, [text]) for text in (PROMPT, f"<|begin_of_text|>{PROMPT}")
    )
    assert marked == plain
    assert plain.count(tokenizer.bos_token_id) == 1
    # A tokenizer that adds none keeps the one that a template has written.
    (written,) = prompt_ids(built["olmo2"], [f"<|endoftext|>{PROMPT}"])
    assert written[0] == built["olmo2"].bos_token_id


def test_ids_of_the_tiny_base_are_what_they_were(tokenizer):
    texts = [PROMPT, "", "Q: 1+1"]
    assert opening_ids(tokenizer) == []
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert prompt_ids(tokenizer, texts) == plain == text_ids(tokenizer, texts)
    assert prompt_ids(tokenizer, []) == []


def test_an_end_that_a_tokenizer_adds_by_itself_closes_no_prompt(built):
    inner = built["llama"]

    class Closing:
        eos_token, eos_token_id = inner.eos_token, inner.eos_token_id

        def __call__(self, texts, add_special_tokens):
            rows = inner(texts, add_special_tokens=add_special_tokens)["input_ids"]
            return {"input_ids": [[*row, self.eos_token_id] for row in rows]}

    assert prompt_ids(Closing(), [PROMPT]) == prompt_ids(inner, [PROMPT])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_an_example_begins_as_the_engines_prompt_and_bos_stands_once(built, kind):
    tokenizer = built[kind]
    built_examples = build_examples(
        [SftRow("a", PROMPT, " -23 </think>", None)], tokenizer, 512, "all"
    )
    (example,) = built_examples.examples
    (ids,) = prompt_ids(tokenizer, [PROMPT])
    assert example.ids[: example.prompt_tokens] == tuple(ids)
    assert example.ids[-1] == tokenizer.eos_token_id
    if tokenizer.bos_token_id is not None:
        assert example.ids.count(tokenizer.bos_token_id) == 1
