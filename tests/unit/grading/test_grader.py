"""The r1_zero grader: the answer's mathematics by category, the format grammar, and the limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.drgrpo_grader import grade, grade_batch, r1_zero_reward_fn
from utils.grading.answer_forms import extract_boxed, format_problem
from utils.grading.outcome import Grade

REPOSITORY_ROOT = Path(__file__).resolve().parents[3]


def respond(answer: str) -> str:
    """Make a well-formed response."""
    return f"some reasoning</think> <answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        ("why</think> <answer>5</answer>", None),
        ("why</think> <answer>5</answer>\n ", None),
        ("<think>why</think> <answer>5</answer>", None),
        ("a </think> b</think> <answer>5</answer>", None),
        ("</think> <answer></answer>", None),
        ("", "missing_close_think"),
        ("<answer>5</answer>", "missing_close_think"),
        ("why</think> 5", "missing_open_answer"),
        ("why</think> 5</answer>", "missing_open_answer"),
        ("why</think><answer>5</answer>", "missing_open_answer"),
        ("why</think>\n<answer>5</answer>", "missing_open_answer"),
        ("why</think>  <answer>5</answer>", "missing_open_answer"),
        ("why</think> <answer>5", "missing_close_answer"),
        ("<answer>5</answer></think>", "wrong_order"),
        ("5</answer></think> <answer>", "wrong_order"),
        ("why</think> <answer>5</answer> or 6", "trailing_text"),
        ("why</think> <answer>5</answer><answer>6</answer>", "repeated_tags"),
        ("why</think> <answer>5</answer></think> <answer>6</answer>", "repeated_tags"),
        ("why</think> <answer><answer>5</answer></answer>", "repeated_tags"),
        ("why</think> <answer>5</answer></answer>", "repeated_tags"),
        ("why</think> <ANSWER>5</ANSWER>", "missing_open_answer"),
    ],
)
def test_format_grammar(response, problem):
    result = grade(response, "5")
    assert format_problem(response) == problem
    assert (result.outcome == "format_failure") == (problem is not None)
    assert result.format_reward == (problem is None)
    if problem is not None:
        assert (result.reward, result.answer, result.reason) == (0.0, None, problem)


def test_boxes_in_the_answer():
    assert grade(respond(r"so it is \boxed{5}"), "5").outcome == "correct"
    assert grade(respond(r"\boxed{4} or \boxed{5}"), "5").outcome == "wrong_answer"
    assert grade(respond(r"\boxed{4}, \boxed{5}"), "4,5").outcome == "correct"
    assert grade(respond(r"\boxed{}"), "5").outcome == "wrong_answer"
    assert grade(respond(r"$x = \boxed{5}$"), "5").outcome == "correct"
    for around in (r"-\boxed{5}", r"\boxed{5}0", r"not \boxed{5}", r"4, \boxed{5}", r"\boxed{5}^2"):
        assert grade(respond(around), "5").outcome == "wrong_answer"


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}.", "2"),
        (r"\fbox{3}", "3"),
        (r"is \boxed 2", "2"),
        (r"$\boxed 2$", "2"),
        (r"\boxed{}", None),
        (r"\boxed{1", None),
        (r"\boxed", None),
        ("none", None),
    ],
)
def test_extract_boxed(text, boxed):
    assert extract_boxed(text) == boxed


@pytest.mark.parametrize(
    "reference", [r"We get \boxed{4}, so \boxed{\frac{1}{2}}.", "0.5", 0.5, ["7", "1/2"], [0.5]]
)
def test_kinds_of_reference(reference):
    assert grade(respond("1/2"), reference).outcome == "correct"
    assert grade(respond("1/3"), reference).outcome == "wrong_answer"


def test_number_references():
    assert grade(respond("7"), 7).outcome == "correct"
    assert grade(respond("0.0000001"), 1e-7).outcome == "correct"


@pytest.mark.parametrize(
    "reference",
    [None, "", "  ", "$$", r"\boxed{}", r"\boxed{5", "\\frac{1}{", [], [None], float("nan")],
)
def test_reference_that_states_nothing_is_unscorable(reference):
    for answer in ("5", "", r"\boxed{}", "None", "nan", "\\frac{1}{"):
        result = grade(respond(answer), reference)
        assert (result.outcome, result.reward, result.format_reward) == ("unscorable", 0.0, 1.0)
    assert grade("no tags", reference).outcome == "format_failure"


def test_reward_dictionary():
    keys = ("format_reward", "answer_reward", "reward")
    rewards = [
        r1_zero_reward_fn(respond("5"), "5"),
        r1_zero_reward_fn(respond("6"), "5"),
        r1_zero_reward_fn("5", "5"),
        r1_zero_reward_fn(respond("5"), "", fast=False),
    ]
    expected = [(1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)]
    assert [tuple(reward[key] for key in keys) for reward in rewards] == expected


def test_batch_keeps_order_and_length():
    responses = [respond("1"), "broken", respond(r"\sec^2 x - 1"), respond("2"), respond("1")]
    grades = grade_batch(responses, ["1", "1", r"\tan^2 x", "1", None])
    outcomes = ["correct", "format_failure", "correct", "wrong_answer", "unscorable"]
    assert [result.outcome for result in grades] == outcomes
    assert grade_batch([], []) == []
    assert grades[0] == Grade("correct", "1", "", "text")
