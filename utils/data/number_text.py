"""Write numbers, fractions, sums and linear terms the way worked solutions do (math mode)."""

from __future__ import annotations

import math
from collections.abc import Callable


def plus(term: str) -> str:
    """Write a term as it continues a sum: `+3` or `-3`."""
    return term if term.startswith("-") else f"+{term}"


def sum_text(terms: list[int], show: Callable[[int], str] = str) -> str:
    """Write a sum of signed terms, such as 3-5+2."""
    return show(terms[0]) + "".join(plus(show(term)) for term in terms[1:])


def tenths(value: int) -> str:
    """Write a number of tenths as a decimal.

    >>> tenths(-75)
    '-7.5'
    """
    sign = "-" if value < 0 else ""
    whole, tenth = divmod(abs(value), 10)
    return f"{sign}{whole}.{tenth}" if tenth else f"{sign}{whole}"


def term(coefficient: int) -> str:
    """Write coefficient times x, such as -x or 3x."""
    return {1: "x", -1: "-x"}.get(coefficient, f"{coefficient}x")


def linear(slope: int, constant: int) -> str:
    """Write slope*x + constant in lowest form.

    >>> linear(-1, 4)
    '-x+4'
    """
    if slope == 0:
        return str(constant)
    return term(slope) + (plus(str(constant)) if constant else "")


def fraction(numerator: int, denominator: int) -> str:
    """Write a fraction with its sign in front."""
    sign = "-" if numerator < 0 else ""
    return f"{sign}\\frac{{{abs(numerator)}}}{{{denominator}}}"


def lowest_terms(numerator: int, denominator: int) -> str:
    """Write a fraction reduced; a whole number without a denominator."""
    divisor = math.gcd(numerator, denominator)
    numerator, denominator = numerator // divisor, denominator // divisor
    return str(numerator) if denominator == 1 else fraction(numerator, denominator)


def fraction_sum(parts: list[tuple[int, int, int]]) -> str:
    """Write a sum of (sign, numerator, denominator) parts."""
    text = ""
    for sign, numerator, denominator in parts:
        piece = fraction(sign * numerator, denominator)
        text += piece if not text or piece.startswith("-") else f"+{piece}"
    return text
