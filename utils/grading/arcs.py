"""Identities between values of arctan, arcsin and arccos, proved: `arctan 1/2 + arctan 1/3 = π/4`.

Two rational combinations of arcs of real numbers and of π differ by D. With M a common
denominator, exp(2iMD) is a product of powers of (1+ia)/(1-ia) for arctan a, of ((1-a²)^½+ia)² for
arcsin a and of (a+i(1-a²)^½)² for arccos a, all within exact arithmetic. Where it is 1, D is a
multiple of π/M; and where the digits say that D is smaller than that, it is 0.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

from utils.grading import exact_algebra, numeric
from utils.grading.exact_algebra import Exact, NotExactError
from utils.grading.parser import Parser

_INVERSE = re.compile(r"\\(sin|cos|tan)\s*\^\s*\{\s*-\s*1\s*\}")
_ARCS = ("arctan", "arcsin", "arccos")
_MOST_ARCS = 8
_NOTHING = exact_algebra.constant(0)
_ONE = exact_algebra.constant(1)
_PI, _I = exact_algebra.variable("π"), exact_algebra.variable(exact_algebra.IMAGINARY_UNIT)


class Arc(NamedTuple):
    """A rational multiple of the arc of a number."""

    factor: Fraction
    function: str
    argument: Exact


class Combination(NamedTuple):
    """A number and multiples of arcs, added."""

    number: Exact
    arcs: tuple[Arc, ...] = ()


def same_angle(left: str, right: str) -> bool:
    """Say whether two normalised sums of arcs and of multiples of π are proved equal.

    >>> same_angle("\\\\arctan 2", "π/2-\\\\arctan(1/2)"), same_angle("\\\\arctan 2", "π/3")
    (True, False)
    """
    left, right = with_arcs(left), with_arcs(right)
    if "\\arc" not in left + right:
        return False
    try:
        difference = Parser(f"({left})-({right})", _ALGEBRA).parse()
        digits = numeric.evaluate(f"({left})-({right})")
        return digits is not None and _vanishes(difference, digits)
    except (NotExactError, IndexError):
        return False


def with_arcs(text: str) -> str:
    """Write `\\tan^{-1}` as `\\arctan`."""
    return _INVERSE.sub(r"\\arc\1", text) if "^" in text else text


def _vanishes(difference: Combination, digits: numeric.Number) -> bool:
    number, arcs = difference
    turns = exact_algebra.rational_ratio(number, _PI) if number.numerator else Fraction(0)
    if turns is None or len(arcs) > _MOST_ARCS:
        return False
    common = math.lcm(turns.denominator, *(arc.factor.denominator for arc in arcs))
    if abs(digits) * common > 1:
        return False
    product = _ONE
    for factor, function, argument in arcs:
        power = exact_algebra.constant(factor * common)
        product = exact_algebra.multiply(
            product, exact_algebra.power(_twice_on_circle(function, argument), power)
        )
    return exact_algebra.same_value(product, _ONE)


def _twice_on_circle(function: str, argument: Exact) -> Exact:
    """Return exp(2i f(a)) for a real number a of which f(a) is real."""
    size = exact_algebra.approximate(argument)
    if size is None or (function != "arctan" and abs(size) > 1):
        raise NotExactError("no real angle")
    turned = exact_algebra.multiply(_I, argument)
    if function == "arctan":
        above, below = exact_algebra.add(_ONE, turned), exact_algebra.negate(turned)
        return exact_algebra.divide(above, exact_algebra.add(_ONE, below))
    square = exact_algebra.negate(exact_algebra.multiply(argument, argument))
    other = exact_algebra.root(exact_algebra.add(_ONE, square), 2)
    if function == "arccos":
        turned, other = exact_algebra.multiply(_I, other), argument
    point = exact_algebra.add(other, turned)
    return exact_algebra.multiply(point, point)


def _scaled(value: Combination, factor: Exact) -> Combination:
    rational = exact_algebra.as_rational(factor)
    if value.arcs and rational is None:
        raise NotExactError("an arc times an irrational number")
    arcs = (arc._replace(factor=arc.factor * (rational or 0)) for arc in value.arcs)
    return Combination(exact_algebra.multiply(value.number, factor), tuple(arcs))


def _plain(value: Combination) -> Exact:
    if value.arcs:
        raise NotExactError("an arc in an operation")
    return value.number


def _multiply(left: Combination, right: Combination) -> Combination:
    if left.arcs:
        left, right = right, left
    return _scaled(right, _plain(left))


def _function(name: str, argument: Combination, base: Combination | None) -> Combination:
    if name not in _ARCS:
        raise NotExactError(f"function {name} to base {base}")
    return Combination(_NOTHING, (Arc(Fraction(1), name, _plain(argument)),))


def _refused(value: Combination) -> Combination:
    raise NotExactError(f"degrees or factorial of {value}")


_ALGEBRA: Any = SimpleNamespace(
    constant=lambda value: Combination(exact_algebra.constant(value)),
    variable=lambda name: Combination(exact_algebra.variable(name)),
    degrees=_refused,
    factorial=_refused,
    add=lambda a, b: Combination(exact_algebra.add(a.number, b.number), a.arcs + b.arcs),
    negate=lambda value: _scaled(value, exact_algebra.constant(-1)),
    multiply=_multiply,
    divide=lambda a, b: _scaled(a, exact_algebra.divide(_ONE, _plain(b))),
    power=lambda a, b: Combination(exact_algebra.power(_plain(a), _plain(b))),
    root=lambda value, degree: Combination(exact_algebra.root(_plain(value), degree)),
    as_rational=lambda value: None if value.arcs else exact_algebra.as_rational(value.number),
    function=_function,
)
