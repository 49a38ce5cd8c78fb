"""The r1_zero grader: the answer's mathematics by category, the format grammar, and the limits."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from utils.answer_equality import answers_equal
from utils.drgrpo_grader import (
    Grade,
    extract_boxed,
    format_problem,
    grade,
    grade_batch,
    r1_zero_reward_fn,
)
from utils.symbolic_client import CLIENT, Unscorable

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

EQUAL = {
    "integers": [("004", "4"), ("-0", "0"), ("+7", "7"), ("−3", "-3"), ("12.0", "12")],
    "fractions": [
        ("3/4", r"\frac{3}{4}"),
        ("6/8", r"\dfrac34"),
        (r"\frac{-3}{4}", r"-\frac{3}{4}"),
        (r"\frac 97", "9/7"),
        (r"\frac{625}4", "156.25"),
        (r"\frac{1}{2}+\frac{1}{3}", r"\frac{5}{6}"),
    ],
    "mixed numbers": [
        (r"1\frac{1}{2}", r"\frac{3}{2}"),
        ("1 1/2", "1.5"),
        (r"8\frac47", r"\frac{60}{7}"),
        (r"-2\frac{1}{4}", "-2.25"),
        ("2½", "5/2"),
    ],
    "decimals": [
        (".5", "0.5"),
        ("0.125", r"\frac18"),
        (r"0.\overline{3}", r"\frac13"),
        (r"0.1\overline{6}", "1/6"),
        (r"1.2 \times 10^5", "120,000"),
    ],
    "thousands": [
        ("1,234,567", "1234567"),
        (r"12{,}000", "12000"),
        (r"371,\!043,\!400", "371043400"),
        (r"1\,000", "1000"),
        ("70, 110", "70,110"),
    ],
    "percent": [("28%", r"28\%"), ("28", r"28\%"), ("0.28", r"28\%"), ("28 percent", "28%")],
    "money": [(r"\$36", "36"), ("$1,000.50", "1000.5"), ("36 dollars", r"\$36"), ("$36$", r"\$36")],
    "degrees": [("90", r"90^\circ"), ("90°", r"90^{\circ}"), ("90 degrees", r"90^\circ")],
    "units": [
        (r"5\text{ cm}", "5"),
        ("5 cm", r"5\text{ centimeters}"),
        ("135 square feet", r"135\text{ ft}^2"),
        ("21 dogs", r"21\text{ dogs}"),
    ],
    "radicals": [
        (r"\sqrt{12}", r"2\sqrt{3}"),
        (r"\frac{2}{\sqrt{2}}", r"\sqrt2"),
        ("sqrt(8)", r"2\sqrt{2}"),
        (r"\frac{1+\sqrt5}{2}", r"\frac{2}{\sqrt5-1}"),
        (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"),
        (r"\sqrt{-4}", "2i"),
        ("√15", r"\sqrt{3}\sqrt{5}"),
    ],
    "pi": [("2π", r"2\pi"), ("pi/2", r"\frac{\pi}{2}"), (r"\frac{3}{4}\pi", r"\frac{3\pi}{4}")],
    "powers": [
        ("2^{10}", "1024"),
        ("x^10", "x^{10}"),
        ("27^{2/3}", "9"),
        ("10^{-3}", "0.001"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"(2+3i)^2", "-5+12i"),
    ],
    "intervals": [
        (r"\left(-\infty, \frac12\right]", "(-∞, 0.5]"),
        (r"x \in [0,1)", "[0,1)"),
        (r"(3,\infty)\cup(-\infty,2)", r"(-\infty,2) \cup (3,+\infty)"),
        ("x > 5", r"(5,\infty)"),
        (r"-1 \le x < 2", "[-1,2)"),
    ],
    "sets and lists": [
        (r"\{1,2,3\}", "3, 2, 1"),
        (r"\pm 2", "2, -2"),
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        ("1, 2 and 3", "1,2,3"),
        ("x = 1 or x = 2", "1, 2"),
    ],
    "tuples": [
        (r"\left( \frac12, 3 \right)", "(0.5,3)"),
        ("(x,y)=(1,2)", "(1,2)"),
        ("(5,8), (8,5)", "(8,5),(5,8)"),
    ],
    "matrices": [
        (r"\begin{bmatrix} 1/2 \\ 0 \end{bmatrix}", r"\begin{pmatrix}0.5\\0\end{pmatrix}"),
        (r"\left(\begin{array}{c} 1 & 2 \end{array}\right)", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ],
    "equations": [
        ("x = 5", "5"),
        ("y = 2x + 3", "2x - y + 3 = 0"),
        (r"\frac{x^2}{4}+\frac{y^2}{3}=1", "3x^2+4y^2=12"),
        ("f(x) = x+1", "x+1"),
        ("3 < x", "x > 3"),
        ("-2x < 4", "x > -2"),
        (r"\frac{\sqrt3}{3} \approx 0.577", r"\frac{\sqrt3}{3}"),
    ],
    "expressions": [
        ("2(x+3)", "6+2x"),
        ("2x+6", "6 + 2x"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        ("(a+b)(a-b)", "a^2-b^2"),
        ("x^2 + 2*x + 1", "(x+1)^2"),
        ("x_1+x_{2}", "x_{2} + x_{1}"),
    ],
    "text": [
        (r"\text{Yes}", "yes"),
        ("Tuesday", r"\textbf{Tuesday}"),
        ("(B)", r"\text{B}"),
        ("9 a.m.", r"9\text{ a.m.}"),
        (r"204_{\text{5}}", "204_5"),
    ],
    "wrappers": [("$5$", "5"), (r"\(5\)", "5"), (r"\[5\]", "5"), ("5.", "5"), (r"\boxed{5}", "5")],
    "malformed": [("185\\", "185"), (r"\\left( 3, \\frac{\\pi}{2} \\right)", r"(3, \pi/2)")],
    "symbolic": [
        (r"\tan^2 y + 1", r"\sec^2 y"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\sin 30^\circ", r"\frac12"),
        (r"2\cos 15", r"2\cos 15^\circ"),
        (r"2 \cdot 2^n", "2^{n+1}"),
        (r"\log_2 8", "3"),
        (r"x\sqrt{4y}", r"2x\sqrt{y}"),
    ],
}  # fmt: skip
DIFFERENT = {
    "no tolerance": [
        ("0.3333", r"\frac13"),
        ("3.14159265358979", r"\pi"),
        ("1.41421356237309504880", r"\sqrt2"),
        ("355/113", r"\pi"),
        ("1.0000000001", "1"),
        (r"\ln 2", "0.69314718056"),
    ],
    "digits": [("1 2", "12"), ("12 0", "120"), ("32, 349", "32349"), ("(1,234)", "1234")],
    "sign and inverse": [("2", "-2"), (r"\sqrt4", "-2"), (r"\frac ab", r"\frac ba")],
    "percent and units": [("28%", "2800"), (r"5\text{ cm}", r"5\text{ m}"), ("80 cents", r"\$80")],
    "scale words": [(r"5\text{ million}", "5"), ("5 million", "5")],
    "brackets": [("[0,1)", "(0,1)"), ("(0,1]", "(0,1)"), ("[1,2]", r"\{1,2\}"), ("1,2", "(1,2)")],
    "order and count": [
        ("(2,1)", "(1,2)"),
        ("(1,2,0)", "(1,2)"),
        ("1,2", "1,2,3"),
        ("5 or 6", "5"),
        (r"\pm 5", "5"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    ],
    "equations": [
        ("x=5", "y=5"),
        ("2x = 10", "10"),
        ("x^2 = 4", "4"),
        ("11a+c", "7 = 11a+c"),
        ("x < 5", "x > 5"),
        (r"x \ge 5", "x > 5"),
        ("2x > 4", "x < 2"),
        ("x + 1 = 2y", "x + 1 = 3y"),
    ],
    "expressions": [
        ("x", "X"),
        ("2x+1", "2x+2"),
        ("f(2x)", "2f(x)"),
        ("x/2y", r"\frac{x}{2}y"),
        (r"\sqrt2+\sqrt3", r"\sqrt5"),
        (r"\sqrt{x^2}", "x"),
        ("20x", "20"),
        ("664_7", "664_8"),
        ("3", "11_2"),
    ],
    "prose": [
        ("The answer is 5", "5"),
        ("not 5", "5"),
        (r"\text{not }0", "0"),
        ("5 apples or so", "5"),
        (r"\text{not Tuesday}", r"\text{Tuesday}"),
        ("oddd", r"\text{odd}"),
        ("all real numbers", "5"),
    ],
    "malformed": [(r"\frac{1}{2", "1/2"), ("", "5"), ("$", "5"), ("5}", "5"), ("1/0", "0")],
}


def respond(answer: str) -> str:
    """Make a well-formed response."""
    return f"some reasoning</think> <answer>{answer}</answer>"


def pairs(table: dict[str, list[tuple[str, str]]]) -> list:
    """Name every pair by its category."""
    return [
        pytest.param(*pair, id=f"{name}-{index}")
        for name, rows in table.items()
        for index, pair in enumerate(rows)
    ]


@pytest.mark.parametrize(("answer", "reference"), pairs(EQUAL))
def test_equal_answers_are_correct_both_ways(answer, reference):
    assert grade(respond(answer), reference).outcome == "correct"
    assert grade(respond(reference), answer).outcome == "correct"


@pytest.mark.parametrize(("answer", "reference"), pairs(DIFFERENT))
def test_different_answers_are_wrong(answer, reference):
    assert grade(respond(answer), reference).outcome == "wrong_answer"


def test_random_rationals_agree_with_fractions():
    generator = random.Random(0)
    for _ in range(300):
        first, second = (
            Fraction(generator.randint(-9, 9), generator.randint(1, 6)) for _ in range(2)
        )
        written = rf"\frac{{{first.numerator}}}{{{first.denominator}}}"
        assert answers_equal(written, str(second)) == (first == second)


def test_random_polynomials_agree_with_their_expansion():
    generator = random.Random(1)
    for _ in range(100):
        a, b, c, d = (generator.randint(-9, 9) for _ in range(4))
        factored = f"({a}x+{b})({c}x+{d})".replace("+-", "-")
        expanded = f"{a * c}x^2+{a * d + b * c}x+{b * d}".replace("+-", "-")
        assert answers_equal(factored, expanded)
        assert not answers_equal(factored, expanded + "+1")


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
    assert grades[0] == Grade("correct", "1", "")


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^9}}",
        "9^9^9^9",
        "(9^{9999})^{9999}",
        "((9!)!)!",
        "(a+b+c+d)^{99}",
        r"(\sin x + 1)^{99999}",
        "(" * 900,
        r"\frac" * 190,
        "2^" + "-" * 900,
        "{" * 50_000,
        "9" * 50_000,
        r"\binom{9999}{4999}",
        "\x00\ud800",
    ],
)
def test_bombs_are_refused_in_bounded_time(bomb):
    CLIENT.equal("x", "y", 5.0)  # starting the process is no part of the bound
    started = time.monotonic()
    for reference in ("5", r"\sin x"):
        assert grade(respond(bomb), reference).reward == 0.0
    assert time.monotonic() - started < 10.0


def test_deadline_is_unscorable_and_the_next_call_works():
    with pytest.raises(Unscorable, match="deadline"):
        CLIENT.equal(r"\sin x", r"\cos x", 1e-6)
    assert grade(respond(r"\cot x"), r"\frac{1}{\tan x}").outcome == "correct"


def test_crash_of_the_child_is_unscorable(monkeypatch):
    def crash(*_):
        raise Unscorable("symbolic child died")

    monkeypatch.setattr(CLIENT, "equal", crash)
    result = grade(respond(r"\sin q"), r"\cos q")
    assert (result.outcome, result.reward) == ("unscorable", 0.0)


def test_threads_share_one_child():
    outcomes: dict[int, str] = {}

    def work(index: int) -> None:
        outcomes[index] = grade(respond(rf"\sec^2 t - {index}"), r"\tan^2 t").outcome

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {0: "wrong_answer", 1: "correct", 2: "wrong_answer", 3: "wrong_answer"}


def test_unguarded_script_from_another_folder_and_after_a_fork(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import os\n"
        "from utils.drgrpo_grader import grade\n"
        "from utils.symbolic_client import CLIENT\n"
        r"R, G = '</think> <answer>\\sec^2 x - 1</answer>', r'\tan^2 x'" "\n"
        "outcomes = [grade(R, G).outcome]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    verdict, _ = CLIENT.equal(r'\\cot x', r'\\frac{1}{\\tan x}', 5.0)\n"
        "    CLIENT.close()\n"
        "    os._exit(int(not verdict))\n"
        "outcomes.append(os.waitpid(pid, 0)[1])\n"
        "outcomes.append(CLIENT.equal(r'\\csc x', r'\\frac{1}{\\sin x}', 5.0)[0])\n"
        "assert outcomes == ['correct', 0, True], outcomes\n"
    )  # fmt: skip
    command = ["/usr/bin/env", f"PYTHONPATH={REPOSITORY_ROOT}", sys.executable, str(script)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)


def test_child_leaves_with_its_parent():
    code = (
        "import os\n"
        "from utils.symbolic_client import CLIENT\n"
        "CLIENT.equal('x', 'y', 5.0)\n"
        "os.write(1, str(CLIENT._child.process.pid).encode())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, timeout=60
    )
    stat = Path(f"/proc/{int(parent.stdout)}/stat")
    deadline = time.monotonic() + 8.0
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
