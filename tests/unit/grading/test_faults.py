"""Where answers stand and what goes wrong: one case a fault, and other ways of asking."""

from __future__ import annotations

import doctest

import pytest

from utils.drgrpo_grader import grade, grade_batch
from utils.grading import answer_forms, faults
from utils.grading.answer_forms import answer_anywhere
from utils.grading.faults import FAULTS, ends_in_loop, fault_of


@pytest.mark.parametrize(
    ("completion", "reference", "truncated", "fault"),
    [
        ("x</think> <answer>5</answer>", "5", False, None),
        ("and so on. " * 40, "5", True, "repetition_loop"),
        ("1" * 300, "5", True, "repetition_loop"),
        ("we begin with the first of", "5", True, "truncated"),
        ("so it is \\boxed{5}.", "5", False, "right_answer_wrong_place"),
        ("so it is \\boxed{6}.", "5", False, "missing_close_think"),
        ("x</think> 6", "5", False, "missing_open_answer"),
        ("x</think> <answer>6", "5", False, "missing_close_answer"),
        ("x</think> <answer>6</answer><answer>7</answer>", "5", False, "repeated_tags"),
        ("<answer>6</answer> x</think>", "5", False, "wrong_order"),
        ("x</think> <answer>6</answer> as we see", "5", False, "trailing_text"),
        ("x</think> <answer> </answer>", "5", False, "empty_answer"),
        ("x</think> <answer>6 or 7</answer>", "5", False, "several_answers"),
        ("x</think> <answer>1,200</answer>", "5", False, "wrong_value"),
        ("x</think> <answer>\\frac{1}{</answer>", "5", False, "unparseable_answer"),
        ("x</think> <answer>it depends upon what you mean</answer>", "5", False,
         "unparseable_answer"),
        ("x</think> <answer>6</answer>", "5", False, "wrong_value"),
        ("x</think> <answer>6, 7</answer>", "5, 8", False, "wrong_value"),
        ("x</think> <answer>6</answer>", "", False, "unscorable"),
    ],
)  # fmt: skip
def test_each_fault_has_its_case(completion, reference, truncated, fault):
    (anywhere,) = grade_batch([completion], [reference], form="anywhere")
    found = anywhere.outcome == "correct"
    graded = grade(completion, reference)
    assert fault_of(completion, reference, graded, truncated=truncated, found=found) == fault
    assert fault is None or fault in FAULTS


def test_working_that_looks_alike_is_no_loop():
    assert not ends_in_loop("\n".join(f"{i} + {i} = {2 * i}" for i in range(40)))
    assert not ends_in_loop("ha ha ha")
    assert ends_in_loop("First we add.\n" + "Then we look again at the whole thing. " * 5)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer> 5 </answer>", "5"),
        ("\\boxed{4} and then <answer>\\boxed{5}", "5"),
        ("\\boxed{4}, no, \\boxed{5}", "5"),
        ("The answer is 4. Wait. The answer is $5$.", "$5$"),
        ("Final answer: 2.5", "2.5"),
        ("2 + 3 = 5", None),
        ("<answer></answer>", None),
        ("", None),
    ],
)
def test_an_answer_is_found_where_a_reader_would_look(response, answer):
    assert answer_anywhere(response) == answer


@pytest.mark.parametrize(
    ("response", "outcome", "reason"),
    [
        ("so \\boxed{5}", "correct", ""),
        ("so \\boxed{6}", "wrong_answer", "not equal to '5'"),
        ("so 5", "format_failure", "missing_box"),
        ("so \\boxed{", "format_failure", "empty_or_open_box"),
    ],
)
def test_a_prompt_that_asks_for_a_box_is_graded_by_the_box(response, outcome, reason):
    (graded,) = grade_batch([response], ["5"], form="boxed")
    assert (graded.outcome, graded.reason) == (outcome, reason)


@pytest.mark.parametrize("module", [answer_forms, faults])
def test_the_worked_examples_hold(module):
    assert doctest.testmod(module).failed == 0
