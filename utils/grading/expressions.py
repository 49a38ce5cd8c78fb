"""Compare two single expressions: words, units, base numbers, exact values, symbols."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from utils.grading import arcs, exact_algebra, normal_form, numeric, units, words
from utils.grading.exact_algebra import Exact
from utils.grading.parser import parse_exact
from utils.grading.symbolic_client import Unscorable, is_safe
from utils.grading.symbolic_pool import POOL
from utils.grading.tally import TALLY

T = TypeVar("T")

FAST_DEADLINE_S = 2.0
PATIENT_DEADLINE_S = 10.0

_BASE_NUMBER = re.compile(r"(-?)\s*\(?([0-9A-Fa-f][0-9A-Fa-f.]*)\)?\s*_\s*\{?\s*(\d+)\s*\}?")
# 12°6 must not become 126.
_DEGREE = re.compile(r"°(?!\s*\d)")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*°")
_TURN = 6.29
# Products of matrices: one in bold beside another, or an inverse that is no quotient.
_MATRICES = re.compile(
    r"\\text\{\s*[A-Z]\s*\}(?:\^\{?-1\}?)?\s*\\text\{\s*[A-Z]\s*\}"
    r"|(?<![A-Za-z\\])[A-Z](?:\}|\s)*\^\s*\{\s*-\s*1\s*\}\s*[A-Z]|[A-Z]\s*[A-Z]\s*\^\s*\{\s*-\s*1\s*\}"
)
_INVERSE_FUNCTION = re.compile(r"(?<![A-Za-z\\])[fgh]\s*\^\s*\{\s*-\s*1\s*\}")
_MODULUS = re.compile(r"\|[^|]*z[^|]*\|")


class NeedsSymbols(Exception):  # noqa: N818 - a request to the caller, not an error
    """The comparison needs the symbolic child, which the caller asked not to use yet."""


class ExpressionComparison:
    """One comparison: the symbolic seconds it may still spend, and the stage that last decided."""

    def __init__(self, fast: bool, symbolic: bool, trace: list[str] | None) -> None:
        self.fast = fast
        self._symbolic = symbolic
        self._trace = trace
        self._left_s = FAST_DEADLINE_S if fast else PATIENT_DEADLINE_S
        self.stage = "text"

    def note(self, stage: str, what: str) -> None:
        """Add a line to the explanation, if one was asked for."""
        if self._trace is not None:
            self._trace.append(f"{stage}: {what}")

    def decide(self, stage: str, verdict: bool, answer: str, reference: str) -> bool:
        """Record which stage decided, and return the verdict."""
        self.stage = stage
        self.note(stage, f"{answer!r} {'equals' if verdict else 'is not'} {reference!r}")
        return verdict

    def equal_expressions(self, answer: str, reference: str) -> bool:
        """Compare two single expressions: words, units, base numbers, exact values, symbols."""
        if words.same_text(answer, reference):
            return self.decide("text", True, answer, reference)
        if (letter := words.as_choice(reference)) and letter == words.as_choice(answer):
            return self.decide("text", True, answer, reference)
        reference, wanted_unit = units.split_unit(reference, trusted=True)
        answer, unit = units.split_unit(answer, wanted_unit)
        if unit and not wanted_unit:
            reference, wanted_unit = units.split_unit(reference, unit, trusted=True)
        if unit and wanted_unit and unit != wanted_unit:
            return self.decide("text", False, f"unit {unit}", f"unit {wanted_unit}")
        if words.is_text(answer) or words.is_text(reference):
            return self.decide("text", words.same_text(answer, reference), answer, reference)
        if order_counts(answer, reference):
            return self.decide("text", _bare(answer) == _bare(reference), answer, reference)
        answer, reference = words.unwrapped(answer), words.unwrapped(reference)
        if unit == "percent" and not wanted_unit and _is_small_share(answer):
            share = bool(exact_verdict(f"({answer})/100", reference))
            return self.decide("exact", share, answer, reference)
        if _same_but_for_degrees(answer, reference):
            return self.decide("text", True, answer, reference)
        if words.same_word(answer, reference):
            return self.decide("text", True, answer, reference)
        if words.is_word(answer) or words.is_word(reference):
            return self.decide("text", False, answer, reference)
        answer, reference = (normal_form.without_thousands(side) for side in (answer, reference))
        return self._equal_values(answer, reference, (unit, wanted_unit))

    def _equal_values(self, answer: str, reference: str, units_of: tuple[str, str]) -> bool:
        """Compare two values without their units; per cent and degrees have two readings."""
        based, wanted_based = _BASE_NUMBER.fullmatch(answer), _BASE_NUMBER.fullmatch(reference)
        if based or wanted_based:
            same = bool(based and wanted_based and _same_digits(based, wanted_based))
            return self.decide("structure", same, answer, reference)
        verdict = exact_verdict(answer, reference)
        if verdict is None:
            return self.equal_symbolically(answer, reference)
        unit, wanted_unit = units_of
        if verdict and "π" in reference and "degree" in units_of and unit != wanted_unit:
            return self.decide("exact", False, answer, reference)
        if not verdict and unit != wanted_unit:
            scales = {"percent": "({})/100", "degree": "({})π/180"}
            if scale := scales.get(unit):
                verdict = bool(exact_verdict(scale.format(answer), reference))
            elif scale := scales.get(wanted_unit):
                verdict = bool(exact_verdict(answer, scale.format(reference)))
        return self.decide("exact", verdict, answer, reference)

    def equal_symbolically(self, answer: str, reference: str) -> bool:
        """Ask the symbolic child about two expressions that are safe to give it."""
        if not all(is_safe(text, patient=not self.fast) for text in (answer, reference)):
            TALLY.add("guard_hits")
            return self.decide("guard", False, answer, reference)
        for mark in (_MODULUS, _INVERSE_FUNCTION):  # |z|^2 is no z^2, and f^{-1} no 1/f
            if bool(mark.search(answer)) != bool(mark.search(reference)):
                return self.decide("guard", False, answer, reference)
        if numeric.differ(answer, reference):
            return self.decide("numeric", False, answer, reference)
        if arcs.same_angle(answer, reference):
            return self.decide("exact", True, answer, reference)
        if not self._symbolic:
            raise NeedsSymbols
        if self._left_s <= 0:
            raise Unscorable("symbolic comparisons overran their deadline")
        verdict, seconds = POOL.equal(answer, reference, self._left_s, patient=not self.fast)
        self._left_s -= seconds
        return self.decide("symbolic", verdict, answer, reference)


def _same_but_for_degrees(answer: str, reference: str) -> bool:
    """Say whether two texts differ in degree signs alone.

    In a function they count: cos 1 is not cos 1°. But cos 15 may stand for the reference's cos 15°:
    nobody means more than a full turn of radians.
    """
    if _DEGREE.sub("", answer) != _DEGREE.sub("", reference):
        return False
    if "π" in reference:
        return False  # π/4 in degrees is another angle
    if not units.TRIGONOMETRIC.search(reference):
        return True
    angles = _ANGLE.findall(reference)
    return "°" not in answer and bool(angles) and all(float(angle) > _TURN for angle in angles)


def order_counts(answer: str, reference: str) -> bool:
    """Say whether a product of matrices stands on one side, and no quotient on either."""
    if "\\text" not in answer + reference and "1" not in answer + reference:
        return False
    both = f"{answer} {reference}"
    return bool(_MATRICES.search(both)) and "\\frac" not in both and "/" not in both


def _bare(text: str) -> str:
    return re.sub(r"[\s*{}]", "", words.unwrapped(text))


def _is_small_share(text: str) -> bool:
    """Say whether a value lies between -1 and 1, so that 0.25 % can hardly mean 0.25."""
    value = parse_exact(text)
    size = exact_algebra.approximate(value) if value is not None else None
    return size is not None and 0 < abs(size) < 1


def exact_verdict(answer: str, reference: str) -> bool | None:
    """Decide by exact arithmetic, or return None where it does not reach."""
    return apply_exactly(exact_algebra.same_value, answer, reference)


def apply_exactly(function: Callable[[Exact, Exact], T], left: str, right: str) -> T | None:
    """Apply a function to two exact values, or return None where a text has none."""
    first, second = parse_exact(left), parse_exact(right)
    if first is None or second is None:
        return None
    try:
        return function(first, second)
    except exact_algebra.NotExactError:
        return None


def _same_digits(based: re.Match[str], wanted: re.Match[str]) -> bool:
    """Compare sign, digits and base of two numbers written with their base."""
    return [group.upper() for group in based.groups()] == [
        group.upper() for group in wanted.groups()
    ]
