"""The problem's own expression is no answer; whatever is worked out, or is not there, is one."""

from __future__ import annotations

import doctest

import pytest

from utils.drgrpo_grader import grade, grade_batch, r1_zero_reward_fn
from utils.grading import echo, expression_trees, operations
from utils.grading.echo import ECHOED_PROBLEM
from utils.grading.faults import FAULTS, fault_of

SUM = "What is $-61+2-69+33$?"
ECHOES = [
    (r"Compute $\dbinom{8}{4}$.", "70", "C(8,4)"),
    (r"Compute $\dbinom{8}{4}$.", "70", "8C4"),
    (r"How many are ${}_{10}P_3$?", "720", "P(10,3)"),
    (r"Find $\tan^{-1}(1/2)+\tan^{-1}(1/3)$.", r"\frac{\pi}{4}", r"\arctan\frac12+\arctan\frac13"),
    (r"Write $0.\overline{3}$ as a fraction.", r"\frac13", "0.333..."),
    # The expression in other spellings.
    (SUM, "-95", "-61+2-69+33"),
    (SUM, "-95", "$-61 + 2 - 69 + 33$"),
    (SUM, "-95", r"\[-61+2-69+33\]"),
    (SUM, "-95", "\u221261+2\u221269+33"),
    (SUM, "-95", "(-61+2-69+33)"),
    (SUM, "-95", r"\left(-61+2\right)-69+33"),
    (SUM, "-95", "{-61}+2-{69}+33"),
    (SUM, "-95", "x = -61+2-69+33"),
    (SUM, "-95", "The answer is $-61+2-69+33$."),
    ("What is -61+2-69+33?", "-95", "-61+2-69+33"),
    ("Compute -61 + 2 - 69 + 33.", "-95", "-61+2-69+33"),
    (r"\[-61+2-69+33 = \ ?\]", "-95", "-61+2-69+33"),
    ("$-61+2-69+33=x$. Solve for $x$.", "-95", "-61+2-69+33"),
    ("What is $-61+2-69+33$ dollars?", "-95 dollars", "-61+2-69+33 dollars"),
    (r"Compute $3 \times 4$.", "12", r"3 \cdot 4"),
    (r"Compute $3 \cdot 4$.", "12", "3*4"),
    ("Compute 3 \u00d7 4.", "12", r"3\times 4"),
    (r"Compute $84 \div 7$.", "12", r"\dfrac{84}{7}"),
    (r"Compute $\frac{84}{7}$.", "12", "84/7"),
    (r"Compute $\dfrac{1}{2}+\dfrac{1}{3}$.", r"\frac{5}{6}", r"\frac12+\frac13"),
    (r"Compute $-1\cdot 5$.", "-5", r"-1 \cdot 5"),
    ("Compute $1,200+300$.", "1500", "1200+300"),
    # Moved about and decorated.
    (SUM, "-95", "33+2-61-69"),
    (SUM, "-95", "-(61-2+69-33)"),
    (SUM, "-95", "-61+2-69+33+0"),
    (SUM, "-95", "0-61+2-69+33"),
    (SUM, "-95", "1*(-61+2-69+33)"),
    (SUM, "-95", r"\frac{-61+2-69+33}{1}"),
    (SUM, "-95", "(-61+2-69+33)^1"),
    (SUM, "-95", "-61+2-69+33+5-5"),
    (SUM, "-95", r"\frac{2(-61+2-69+33)}{2}"),
    ("Compute $7(3+4)$.", "49", "(4+3)7"),
    ("Compute $5 - -3$.", "8", "5 - -3"),
    # A part of it, and one of several.
    ("Compute $2+3+4-4$.", "5", "2+3"),
    ("Compute $(2+3)^2-20$.", "5", "(2+3)"),
    ("Compute $3+4$ and $5+6$.", "7, 11", "3+4, 5+6"),
    ("Compute $3+4$ and $5+6$.", "7, 11", "7, 5+6"),
    # Other operations.
    ("Evaluate $2^{10}$.", "1024", "2^{10}"),
    ("Evaluate $8^{1/3}$.", "2", r"8^{\frac13}"),
    ("Evaluate $5!$.", "120", "5!"),
    (r"Evaluate $\binom{5}{2}$.", "10", r"\dbinom{5}{2}"),
    (r"Simplify $\sqrt{12}$.", r"2\sqrt{3}", r"\sqrt{12}"),
    (r"Simplify $\sqrt{2}\cdot\sqrt{3}$.", r"\sqrt{6}", r"\sqrt2\sqrt3"),
    (r"Rationalize $\frac{1}{\sqrt{2}}$.", r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"Reduce $\frac{6}{4}$.", r"\frac{3}{2}", r"\frac{6}{4}"),
    ("What is $6:8$ in lowest terms?", "3:4", "6:8"),
    ("Evaluate $i^{13}$.", "i", "i^{13}"),
    ("Simplify $(2+3i)+(4-i)$.", "6+2i", "(2+3i)+(4-i)"),
    (r"Simplify $\sqrt{41+24\sqrt2}$.", r"3+4\sqrt2", r"\sqrt{41+24\sqrt{2}}"),
    (r"Find $(11+4\sqrt7)^{1/2}$.", r"2+\sqrt7", r"(11+4\sqrt7)^{\frac12}"),
    (r"Determine $\sqrt[6]{1061520150601}$.", "101", r"\sqrt[6]{1061520150601}"),
    (r"Evaluate $\lfloor{\pi}\rfloor$.", "3", r"\lfloor \pi \rfloor"),
    # Another form of the same number.
    (r"Write $\frac{3}{20}$ as a decimal.", "0.15", r"\frac{3}{20}"),
    (r"Write $\frac{3}{20}$ as a decimal.", "0.15", r"\frac{3}{20}+0"),
    ("Write 3/20 as a decimal.", "0.15", "3/20"),
    (r"Write $\frac{63}{5}$ as a mixed number.", r"12\frac{3}{5}", "63/5"),
    (r"Express $0.\overline{54}$ as a fraction.", r"\frac{6}{11}", r"0.\overline{54}"),
    ("Express $0.125$ as a common fraction.", r"\frac{1}{8}", "0.125"),
    (r"Write $2\frac{1}{4}$ as a decimal.", "2.25", r"2\frac14"),
    # With variables.
    ("Simplify $7x+12+10x-13$.", "17x-1", "7x+12+10x-13"),
    ("Simplify $7x+12+10x-13$.", "17x-1", "10x+7x+12-13"),
    ("Expand $(x+1)(x+2)$.", "x^2+3x+2", "(x+2)(x+1)"),
    ("Expand $2(x+3)$.", "2x+6", "2(x+3)"),
    ("Factor $x^2-9$.", "(x+3)(x-3)", "x^2-9"),
    ("Write $x^2-9$ as a product.", "(x+3)(x-3)", "x^2-9"),
    (r"Write $\sin 4x + \sin 6x$ as a product.", r"2\sin 5x\cos x", r"\sin 6x+\sin 4x"),
    (r"Simplify $\frac{x^2-1}{x-1}$.", "x+1", r"\frac{x^2-1}{x-1}"),
    ("Simplify $(x^2)^3$.", "x^6", "(x^2)^3"),
    (r"Simplify $t^3\cdot t^4$.", "t^7", "t^3 t^4"),
]
ANSWERS = [
    # Worked out.
    (SUM, "-95", "-95"),
    (SUM, "-95", "x = -95"),
    (SUM, "-95", "-61+2-69+33 = -95"),
    # Unevaluated, but not what stands there.
    (SUM, "-95", "-59-36"),
    (SUM, "-95", "-100+5"),
    ("Ann has 3 apples and buys 4. How many are there?", "7", "3+4"),
    ("How many subsets of 10 things are not empty?", "1023", "2^{10}-1"),
    ("What is the square of $2+3$?", "25", "(2+3)^2"),
    # Nothing left to do, though it stands there.
    ("Which of $-3$ and $5$ is negative?", "-3", "-3"),
    (r"Which is larger, $\frac{3}{7}$ or $\frac{2}{7}$?", r"\frac{3}{7}", "3/7"),
    (r"Write $0.15$ as a decimal.", "0.15", "0.150"),
    (r"Write $\frac{3}{20}$ as a decimal.", "0.15", r"\frac{15}{100}"),
    ("It rains with probability $0.5$. Will it not? Write a fraction.", r"\frac12", "1/2"),
    ("Write $3$ as a fraction.", r"\frac{3}{1}", "3/1"),
    (r"Is the fraction $\frac{1}{2}$ half?", "1/2", r"\frac12"),
    ("It rains with $0.25$ or snows with $0.5$. Dry? Write a fraction.", r"\frac14", "0.25"),
    (r"Which is larger, $\sqrt{2+\sqrt3}$ or $1$?", r"\sqrt{2+\sqrt3}", r"\sqrt{\sqrt3+2}"),
    (r"Simplify $\sqrt{2}$.", r"\sqrt{2}", r"\sqrt{2}"),
    (r"Is $2\sqrt{3}$ larger than $3$? Name the larger.", r"2\sqrt{3}", r"2\sqrt{3}"),
    (r"Is $2\sqrt{3}$ larger than $3$? Name the larger.", r"\sqrt{12}", r"2\sqrt{3}"),
    (r"Is $\pi/4$ or $\pi/3$ larger?", r"\frac{\pi}{3}", r"\pi/3"),
    ("Which is real, $3+4i$ or $(3+4i)(3-4i)$? Give the other.", "3+4i", "3+4i"),
    (r"Is $8-4\sqrt2$ or $2$ larger?", r"8-4\sqrt{2}", r"8-4\sqrt2"),
    ("Which of $x+1$ and $2x$ is odd at $x=2$?", "x+1", "x+1"),
    ("Which of $x^2+1$ and $x$ has no root?", "x^2+1", "1+x^2"),
    ("Simplify $x^2+1$.", "x^2+1", "x^2+1"),
    ("Which of $2(x+3)$ and $x$ is even?", "2(x+3)", "2(x+3)"),
    # As the reference leaves it.
    ("Which is larger, $2^{100}$ or $3^{50}$?", "2^{100}", "2^{100}"),
    (r"Is $\frac{1}{\sqrt{2}}$ positive? Name it.", r"\frac{1}{\sqrt{2}}", r"1/\sqrt{2}"),
    ("Write $10!$ or $9!$, the larger one.", "10!", "10!"),
    # Names, points, sets, intervals, lists, words.
    ("Which letter is first, $x$ or $y$?", "x", "x"),
    ("Which is on the axis, $(3,0)$ or $(1,2)$?", "(3,0)", "(3, 0)"),
    ("Write $-3$ and $4$ as a point.", "(-3,4)", "(-3,4)"),
    (r"Is $\{1,2\}$ or $\{1\}$ larger?", r"\{1,2\}", r"\{1, 2\}"),
    (r"Is $[1,\infty)$ or $(1,2)$ unbounded?", r"[1,\infty)", r"[1, \infty)"),
    (r"Find all $y\in[0,\pi]$ with $\sin y \ge 0$.", r"[0,\pi]", r"[0,\pi]"),
    ("Is 10:30 or 11:30 earlier?", "10:30", "10:30"),
    ("Is it even or non-zero?", r"\text{non-zero}", "non-zero"),
    (r"Is the line $y=2x+3$ or $y=3x$ steep?", "y=2x+3", "y=2x+3"),
]  # fmt: skip


def respond(answer: str) -> str:
    return f"x</think> <answer>{answer}</answer>"


@pytest.mark.parametrize(("problem", "reference", "answer"), ECHOES)
def test_the_problem_echoed_back_is_no_answer(problem, reference, answer):
    found = grade(respond(answer), reference, problem=problem)
    assert (found.outcome, found.reason, found.stage) == ("wrong_answer", ECHOED_PROBLEM, "echo")


@pytest.mark.parametrize(("problem", "reference", "answer"), ECHOES)
def test_without_the_problem_an_unevaluated_form_is_right(problem, reference, answer):
    assert grade(respond(answer), reference).outcome == "correct"


@pytest.mark.parametrize(("problem", "reference", "answer"), ANSWERS)
def test_what_is_worked_out_or_not_there_is_an_answer(problem, reference, answer):
    found = grade(respond(answer), reference, problem=problem)
    assert (found.outcome, found.reason) == ("correct", "")


def test_expressions_outside_the_parser_are_told_by_their_text():
    assert echo.echoes(r"\lfloor 3.7 \rfloor", "3", r"Find $\lfloor 3.7\rfloor$.")
    assert echo.echoes("|2-5|", "3", "Find $|2-5|$.")
    assert not echo.echoes(r"\lfloor 3.7 \rfloor", r"\lfloor 3.7\rfloor", r"$\lfloor 3.7\rfloor$")
    assert not echo.echoes(r"\lfloor 3.7 \rfloor", "3", "Round 3.7 down.")
    for decorated in ("|2-5|+0", r"1 \cdot |2-5|", "|2-5|^1", r"\max(|2-5|, |2-5|)"):
        assert echo.echoes(decorated, "3", "Find $|2-5|$.")
    assert echo.echoes("|2+3|", "5", "Find $2+3$.")
    assert not echo.echoes("|2-5| = 3", "3", "Find $|2-5|$.")


def test_roots_of_powers_and_factorials_are_seen_through():
    assert echo.echoes(r"\sqrt{(\cos 60)^2}", r"\frac12", r"Find $\cos 60$.")
    assert echo.echoes(r"\sqrt{(5! - 4!)^2}", "96", "Find $5! - 4!$.")
    assert not echo.echoes(r"\sqrt{(5! - 4!)^2}", "96", "Find $5!$ and $4!$.")


@pytest.mark.parametrize("asked", ["=", "= ?", r"= \,?", "=?"])
def test_asking_on_makes_no_difference(asked):
    assert echo.echoes(f"-61+2-69+33 {asked}", "-95", SUM)


def test_rewards_batches_and_lists_of_references_know_the_problem():
    echoed = respond("-61+2-69+33")
    assert r1_zero_reward_fn(echoed, "-95")["reward"] == 1.0
    found = r1_zero_reward_fn(echoed, "-95", problem=SUM)
    assert found == {"format_reward": 1.0, "answer_reward": 0.0, "reward": 0.0}
    texts = [echoed, respond("-95"), echoed]
    grades = grade_batch(texts, ["-95"] * 3, problems=[SUM, SUM, None])
    assert [found.reward for found in grades] == [0.0, 1.0, 1.0]
    assert grade(echoed, ["-95", "-61+2-69+33"], problem=SUM).reward == 1.0


def test_an_echo_in_the_wrong_place_is_not_the_right_answer():
    (found,) = grade_batch([r"\boxed{2+3}"], ["5"], form="anywhere", problems=["What is $2+3$?"])
    assert found.reason == ECHOED_PROBLEM


def test_it_is_a_fault_of_its_own():
    found = grade(respond("2+3"), "5", problem="What is $2+3$?")
    fault = fault_of(respond("2+3"), "5", found, truncated=False, found=False)
    assert fault == ECHOED_PROBLEM
    assert fault in FAULTS


@pytest.mark.parametrize("module", [echo, expression_trees, operations])
def test_the_worked_examples_hold(module):
    assert doctest.testmod(module).failed == 0
