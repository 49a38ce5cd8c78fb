"""Refute equality by 80-digit numbers at one point, before the symbolic child is asked.

Nearly every wrong answer that exact arithmetic cannot read ends here, within a fraction of a
millisecond. Agreement proves nothing and is left to the child; so does whatever this arithmetic
cannot evaluate safely.
"""

from __future__ import annotations

import os
import threading
import zlib
from fractions import Fraction
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import mpmath

from utils.grading.exact_algebra import NotExactError
from utils.grading.parser import Parser

DIGITS = 80
MAX_MAGNITUDE_BITS = 10**12
MAX_EXPONENT = 10**9
# Reducing an argument modulo π takes as many digits of π as the argument has.
MAX_ARGUMENT_BITS = 5_000
# Cancellation may cost digits: a difference has to be far larger than what rounding leaves.
_RELATIVE_DIFFERENCE = mpmath.mpf(10) ** -30

_CONTEXT = mpmath.MPContext()
_CONTEXT.dps = DIGITS
_CONSTANTS = {"π": _CONTEXT.pi, "e": _CONTEXT.e, "i": _CONTEXT.mpc(0, 1)}

# mpmath raises its working precision inside functions, for all threads.
_STATE = SimpleNamespace(lock=threading.Lock())
os.register_at_fork(after_in_child=lambda: setattr(_STATE, "lock", threading.Lock()))

Number = Any  # mpmath's mpf or mpc


def differ(left: str, right: str) -> bool:
    """Say whether two normalised expressions certainly differ; False where that is not known.

    >>> differ("\\\\sin x", "\\\\cos x"), differ("\\\\sin 2x", "2\\\\sin x\\\\cos x")
    (True, False)
    """
    first, second = evaluate(left), evaluate(right)
    if first is None or second is None:
        return False
    scale = max(1, abs(first), abs(second))
    return bool(abs(first - second) > scale * _RELATIVE_DIFFERENCE)


@lru_cache(maxsize=50_000)
def evaluate(text: str) -> Number | None:
    """Evaluate normalised text with every letter at a positive value of its own, or return None."""
    try:
        with _STATE.lock:
            return Parser(text, _ALGEBRA).parse()
    except (NotExactError, IndexError, ArithmeticError, ValueError):
        return None


def _bounded(value: Number) -> Number:
    """Refuse what is not finite, or beyond any number that an answer could mean."""
    if not _CONTEXT.isfinite(value) or (value and abs(_CONTEXT.mag(value)) > MAX_MAGNITUDE_BITS):
        raise NotExactError("magnitude")
    return value


def _constant(value: Fraction | int) -> Number:
    return _bounded(_CONTEXT.mpf(value.numerator) / value.denominator)


def _variable(name: str) -> Number:
    if name == "∞":
        raise NotExactError("infinity")
    if name in _CONSTANTS:
        return +_CONSTANTS[name]
    return _CONTEXT.mpf(1) + _CONTEXT.mpf(zlib.crc32(name.encode()) % 9_973) / 8_191


def _divide(left: Number, right: Number) -> Number:
    if not right:
        raise NotExactError("division by zero")
    return _bounded(left / right)


def _power(base: Number, exponent: Number) -> Number:
    if _CONTEXT.im(exponent) or abs(exponent) > MAX_EXPONENT:
        raise NotExactError("exponent")
    if not base:
        raise NotExactError("power of zero")
    whole = exponent == int(_CONTEXT.re(exponent))
    if not whole and (_CONTEXT.im(base) or base < 0):
        raise NotExactError("branch of a power")
    if abs(_CONTEXT.mag(base) * exponent) > MAX_MAGNITUDE_BITS:
        raise NotExactError("magnitude")
    return _bounded(base ** int(exponent) if whole else base**exponent)


def _root(value: Number, degree: int) -> Number:
    if not 2 <= degree <= 100 or _CONTEXT.im(value):
        raise NotExactError("root")
    value = _CONTEXT.re(value)
    if value >= 0:
        return _CONTEXT.root(value, degree)
    if degree == 2:
        return _CONTEXT.mpc(0, _CONTEXT.sqrt(-value))
    if degree % 2 == 0:
        raise NotExactError("even root of a negative number")
    return -_CONTEXT.root(-value, degree)


def _as_rational(value: Number) -> int | None:
    whole = not _CONTEXT.im(value) and value == int(_CONTEXT.re(value))
    return int(_CONTEXT.re(value)) if whole and abs(value) < 10**9 else None


def _function(name: str, argument: Number, base: Number | None) -> Number:
    """Apply a function, on its principal branch as sympy does."""
    if argument and abs(_CONTEXT.mag(argument)) > MAX_ARGUMENT_BITS:
        raise NotExactError("magnitude")
    if name in ("ln", "log"):
        if base is None:
            base = _CONTEXT.e if name == "ln" else _CONTEXT.mpf(10)
        return _bounded(_divide(_CONTEXT.ln(argument), _CONTEXT.ln(base)))
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return _bounded(getattr(_CONTEXT, names.get(name, name))(argument))


_ALGEBRA = SimpleNamespace(
    constant=_constant,
    variable=_variable,
    degrees=lambda value: value * _CONTEXT.pi / 180,
    add=lambda left, right: _bounded(left + right),
    negate=lambda value: -value,
    multiply=lambda left, right: _bounded(left * right),
    divide=_divide,
    power=_power,
    root=_root,
    factorial=lambda value: _bounded(_CONTEXT.factorial(value)),
    as_rational=_as_rational,
    function=_function,
)
