"""Properties of grading that hold for any input, searched for counterexamples by hypothesis."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.drgrpo_grader import grade, grade_batch
from utils.grading.characters import to_plain
from utils.grading.equality import compare
from utils.grading.normal_form import normalise
from utils.grading.prose import stated_value

MATHEMATICAL = r"\{}()[]^_$%&,;:.!|<>=+-*/°√π∞∪ 0123456789xyzabsinfractextsqrt"
BOUND_S = 3.5  # a symbolic deadline and the cheap stages, on a busy machine
PROPERTY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

numbers = st.integers(-(10**6), 10**6)
fractions = st.builds(Fraction, st.integers(-500, 500), st.integers(1, 60))
names = st.sampled_from("xyzabn")


def tex(value: Fraction | int) -> str:
    """Write a rational in LaTeX."""
    value = Fraction(value)
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return f"{value.numerator}"
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


expressions = st.recursive(
    st.one_of(fractions.map(tex), names),
    lambda inner: st.one_of(
        st.builds("({}+{})".format, inner, inner),
        st.builds("({}-{})".format, inner, inner),
        st.builds("{{{}}} \\cdot {{{}}}".format, inner, inner),
        st.builds(r"\frac{{{}}}{{7}}".format, inner),
        st.builds("({})^2".format, inner),
        st.builds(r"\sqrt{{{}}}".format, st.integers(2, 50)),
    ),
    max_leaves=4,
)
structures = st.one_of(
    expressions,
    st.builds("({}, {})".format, expressions, expressions),
    st.builds("[{}, {})".format, numbers, st.just(r"\infty")),
    st.builds("{}, {}".format, expressions, expressions),
    st.builds(r"\begin{{pmatrix}} {} \\ {} \end{{pmatrix}}".format, expressions, expressions),
    st.builds("x = {}".format, expressions),
)


def respond(answer: str) -> str:
    return f"why</think> <answer>{answer}</answer>"


@PROPERTY
@given(structures)
def test_reflexive(answer):
    assert grade(respond(answer), answer).outcome == "correct"
    assert grade(respond(f"${answer}$"), answer).outcome == "correct"
    assert grade(respond(rf"\boxed{{{answer}}}"), answer).outcome == "correct"


@PROPERTY
@given(structures, structures)
def test_symmetric(left, right):
    assert compare(left, right).equal == compare(right, left).equal


@PROPERTY
@given(fractions, fractions)
def test_rationals_are_equal_exactly_when_their_fractions_are(left, right):
    assert compare(tex(left), tex(right)).equal == (left == right)
    assert compare(f"{left.numerator}/{left.denominator}", tex(left)).equal


@PROPERTY
@given(numbers, st.data())
def test_one_digit_or_sign_makes_a_difference(number, data):
    text = str(number)
    place = data.draw(st.sampled_from([i for i, char in enumerate(text) if char.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[place]]))
    edited = text[:place] + digit + text[place + 1 :]
    assert compare(edited, text).equal == (int(edited) == number)
    if number:
        assert not compare(str(-number), text).equal


@PROPERTY
@given(numbers, numbers, st.sampled_from(["()", "[]", "(]", "[)"]), st.data())
def test_one_bracket_makes_a_difference(low, high, brackets, data):
    other = data.draw(st.sampled_from([b for b in ("()", "[]", "(]", "[)") if b != brackets]))
    written = f"{brackets[0]}{low},{high}{brackets[1]}"
    assert not compare(f"{other[0]}{low},{high}{other[1]}", written).equal


@settings(PROPERTY, max_examples=400)
@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda b: b.decode("latin-1"))))
def test_any_response_gets_an_answer_in_bounded_time(text):
    started = time.monotonic()
    for response in (text, respond(text)):
        for reference in ("5", r"\sin x", text):
            assert grade(response, reference).reward in (0.0, 1.0)
    assert time.monotonic() - started < 6 * BOUND_S


@settings(PROPERTY, max_examples=400)
@given(st.text(alphabet=MATHEMATICAL, max_size=60))
def test_any_mathematical_looking_answer_gets_a_verdict(text):
    assert grade(respond(text), r"\frac{1}{2}").outcome != "format_failure"


@settings(PROPERTY, max_examples=30)
@given(st.lists(st.tuples(structures, structures), max_size=12), st.randoms(use_true_random=False))
def test_a_batch_changes_no_outcome(pairs, generator):
    alone = {pair: grade(respond(pair[0]), pair[1]).outcome for pair in pairs}
    shuffled = generator.sample(pairs, len(pairs))
    grades = grade_batch(
        [respond(answer) for answer, _ in shuffled], [gold for _, gold in shuffled]
    )
    assert [item.outcome for item in grades] == [alone[pair] for pair in shuffled]


@PROPERTY
@given(st.text(max_size=200))
def test_normal_forms_are_stable(text):
    once = normalise(text)
    assert isinstance(once, str)
    assert to_plain(to_plain(text)) == to_plain(text)
    assert stated_value(text) is None or len(stated_value(text)) <= len(text)


@pytest.mark.parametrize("reference", [None, "", "  ", float("nan"), [], {}, b"5", object()])
def test_a_reference_of_any_type_is_a_counted_error(reference):
    assert grade(respond("5"), reference).outcome == "unscorable"
