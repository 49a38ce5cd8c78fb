"""Examples of supervised fine-tuning: what verifies, what is left out and why, where texts end."""

from __future__ import annotations

import logging

import pytest

from src.config.loading import ConfigError
from src.data.prompts import load_prompt
from src.sft.examples import build_examples, log_left_out
from src.sft.rows import SftRow, rows_from_problems
from utils.data.problem import Problem


@pytest.fixture
def tagged():
    return load_prompt("prompts/rl_zero.prompt")


def problem(text, solution="It is $\\boxed{2}$.", name="p"):
    return Problem(text, solution, "2", 1, "a", name)


def failing_rows(tagged):
    made = rows_from_problems(
        [
            problem("1+1?", solution="It is 2.", name="good"),
            problem("1+1?", solution="See </think> <answer> 3 </answer>", name="bad"),
            problem("1+1?", solution="2 " * 400, name="long"),
        ],
        tagged,
    )
    unknown = SftRow("unknown", made[0].prompt, made[0].target, None)
    return [*made, unknown, SftRow("empty", "p", " \n", "2")]


def test_rows_that_fail_are_left_out_by_reason(tagged, tokenizer):
    built = build_examples(failing_rows(tagged), tokenizer, 400, "verified")
    assert [example.id for example in built.examples] == ["good"]
    assert built.left_out == {
        "target does not grade as correct": ["bad"],
        "too long": ["long"],
        "no reference answer to verify against": ["unknown"],
        "empty target": ["empty"],
    }
    assert built.unverified == {}


def test_keep_all_keeps_what_does_not_verify_and_counts_it(tagged, tokenizer):
    built = build_examples(failing_rows(tagged), tokenizer, 400, "all")
    assert [example.id for example in built.examples] == ["good", "bad", "unknown"]
    assert built.outcome() == {
        "examples": 3,
        "left_out": {"too long": 1, "empty target": 1},
        "kept_unverified": {
            "target does not grade as correct": 1,
            "no reference answer to verify against": 1,
        },
    }


@pytest.mark.parametrize(
    ("prompt", "target", "verifies"),
    [
        ("Q:", " first \\boxed{3}, then \\boxed{\\frac{4}{2}}.", True),
        ("Q:", " \\boxed{3}", False),
        ("Q:", " it is 2", False),
        ("Q:", "think </think> <answer> 2 </answer>", True),
        ("Q: <think>\n", " so </think> <answer>2</answer>\n", True),
        ("Q: <think>", " \\boxed{2}", False),
    ],
)
def test_a_target_verifies_by_its_tags_or_else_by_its_last_box(tokenizer, prompt, target, verifies):
    built = build_examples([SftRow("r", prompt, target, "2")], tokenizer, 512, "verified")
    assert len(built.examples) == verifies


def test_copies_of_a_row_become_copies_of_an_example_and_count_once(tokenizer):
    good, bad = SftRow("good", "Q:", " \\boxed{2}", "2"), SftRow("bad", "Q:", " \\boxed{1}", "2")
    built = build_examples([good, bad, good, bad, good], tokenizer, 512, "verified")
    assert [example.id for example in built.examples] == ["good"] * 3
    assert built.left_out == {"target does not grade as correct": ["bad"]}


def test_an_example_is_prompt_then_target_then_one_end_of_text(tagged, tokenizer):
    end = tokenizer.eos_token
    plain = " 2 </think> <answer> 2 </answer>"
    prompt = tagged.render(problem("1+1?"))
    targets = [plain, plain + end, f"{plain}{end} {end}\n"]
    rows = [SftRow(str(i), prompt, target, "2") for i, target in enumerate(targets)]
    built = build_examples(rows, tokenizer, 512, "verified")
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(plain, add_special_tokens=False)["input_ids"]
    assert len(built.examples) == 3
    for example in built.examples:
        assert example.ids == (*head, *tail, tokenizer.eos_token_id)
        assert example.prompt_tokens == len(head)


def test_no_tokenizer_doubles_the_end_of_text(tokenizer):
    """An end-of-text token that the prompt itself holds stays, as the engine will see it."""
    end = tokenizer.eos_token
    rows = [SftRow("a", "Q:", " \\boxed{2}", "2"), SftRow("b", f"Q:{end}", " x", "2")]
    for chosen in (tokenizer, ClosingTokenizer(tokenizer)):
        examples = build_examples(rows, chosen, 512, "all").examples
        assert [tokenizer.decode(item.ids) for item in examples] == [
            f"Q: \\boxed{{2}}{end}", f"Q:{end} x{end}",
        ]  # fmt: skip


class ClosingTokenizer:
    """A tokenizer that appends end-of-text to every text."""

    def __init__(self, tokenizer):
        self._inner = tokenizer
        self.eos_token, self.eos_token_id = tokenizer.eos_token, tokenizer.eos_token_id

    def __call__(self, texts, add_special_tokens):
        rows = self._inner(texts, add_special_tokens=add_special_tokens)["input_ids"]
        return {"input_ids": [[*row, self.eos_token_id] for row in rows]}


def test_what_was_left_out_is_one_line_and_nothing_left_is_refused(tokenizer, caplog):
    bad = [SftRow(f"b{i}", "Q:", " \\boxed{1}", "2") for i in range(12)]
    good = SftRow("good", "Q:", " \\boxed{2}", "2")
    with caplog.at_level(logging.INFO):
        log_left_out(build_examples([good, *bad], tokenizer, 512, "verified"))
    assert [record.getMessage() for record in caplog.records] == [
        "1 training examples; left out: 12 target does not grade as correct (b0, b1, b2, b3, b4, "
        "b5, b6, b7, b8, b9, ...); kept unverified: none"
    ]
    with pytest.raises(ConfigError, match=r"12 target does not grade.*sft\.keep=all"):
        log_left_out(build_examples(bad, tokenizer, 512, "verified"))
    with pytest.raises(ConfigError, match="no training example is left"):
        log_left_out(build_examples([], tokenizer, 512, "verified"))
