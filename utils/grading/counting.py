"""Factorials, binomial coefficients and remainders, in any algebra; repeating decimals."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from utils.grading.algebra import Algebra, V
from utils.grading.exact_algebra import NotExactError

MAX_FACTORIAL = 3_300
MAX_BINOMIAL = 5_000

_PERIOD_IN_BRACKETS = re.compile(r"(?<![\w.])(\d*\.\d*)\((\d+)\)(?![\w.(])")
# One digit three times, or a longer block twice.
_REPEATED_BLOCK = re.compile(
    r"(?<![\w.])(\d*\.\d*?)(?:(\d)\2\2+|(\d{2,20}?)\3+)\s*…(?!\s*[\w.\\(])"
)


def factorial(algebra: Algebra[V], value: V) -> V:
    """Return n! for a natural number that is not huge, and what the algebra makes of others."""
    if algebra.as_rational(value) is None:
        return algebra.factorial(value)
    return algebra.constant(math.factorial(_natural(algebra, value)))


def double_factorial(algebra: Algebra[V], value: V) -> V:
    """Return n!! = n (n-2) (n-4) ... for a natural number that is not huge."""
    return algebra.constant(math.prod(range(_natural(algebra, value), 0, -2)))


def binomial(algebra: Algebra[V], top: V, bottom: V) -> V:
    """Return the binomial coefficient of two natural numbers, or of what stands for them."""
    n, k = algebra.as_rational(top), algebra.as_rational(bottom)
    if n is None or k is None:
        difference = algebra.add(top, algebra.negate(bottom))
        below = algebra.multiply(factorial(algebra, bottom), factorial(algebra, difference))
        return algebra.divide(factorial(algebra, top), below)
    if not isinstance(n, int) or not isinstance(k, int) or not 0 <= k <= n <= MAX_BINOMIAL:
        raise NotExactError("binomial")
    return algebra.constant(math.comb(n, k))


def remainder(algebra: Algebra[V], value: V, modulus: V) -> V:
    """Return the remainder of two whole numbers."""
    number, by = algebra.as_rational(value), algebra.as_rational(modulus)
    if not isinstance(number, int) or not isinstance(by, int) or by <= 0:
        raise NotExactError("remainder")
    return algebra.constant(number % by)


def with_period(text: str) -> str:
    """Mark the period of a decimal that is in brackets, or repeated before dots.

    >>> with_period("0.1(6)"), with_period("0.0909…"), with_period("3.14159…")
    ('0.1\\\\overline{6}', '0.\\\\overline{09}', '3.14159…')
    """
    text = _PERIOD_IN_BRACKETS.sub(r"\1\\overline{\2}", text)
    if "…" not in text:
        return text
    return _REPEATED_BLOCK.sub(
        lambda match: rf"{match[1]}\overline{{{match[2] or match[3]}}}", text
    )


def repeating_decimal(whole: str, fixed: str, period: str) -> Fraction:
    """Return the value of a repeating decimal; 0.1(6) is 1/6."""
    scale = 10 ** len(fixed)
    repeating = Fraction(int(period), scale * (10 ** len(period) - 1))
    return Fraction(int(whole + fixed or "0"), scale) + repeating


def _natural(algebra: Algebra[V], value: V) -> int:
    number = algebra.as_rational(value)
    if not isinstance(number, int) or not 0 <= number <= MAX_FACTORIAL:
        raise NotExactError("factorial")
    return number
