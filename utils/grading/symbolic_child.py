"""The child process that holds sympy and math-verify's parser: JSON lines in, JSON lines out.

Started by `utils.grading.symbolic_client` as `python -m utils.grading.symbolic_child`. It reads one
request a line, `{"answer": latex, "reference": latex, "deadline_s": seconds, "patient": bool}`, and
replies `{"equal": bool}` or `{"error": text}`. Only the LaTeX grammar of math-verify is used: its
plain-expression extraction runs sympy's `parse_expr`, which evaluates text. It leaves on end of
input, when its parent is gone, or, if a computation outlives its deadline, by SIGALRM: no child
outlives its parent for long.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse
from sympy.core.function import AppliedUndef

MEMORY_LIMIT_BYTES = 1536 * 2**20
ORPHAN_CHECK_S = 1.0
GRACE_S = 2.0
# Digits beyond the length of the two texts: no decimal or fraction that fits into a text of n
# characters comes closer than some 10^-2n to an irrational number, other than by design of both.
VETO_DIGITS = 60
VETO_MARGIN = 20
_MOST_TO_FACTOR = 10**9
_SAMPLE_POINTS = (sympy.Rational(37, 29), sympy.Rational(113, 71))
_SMALLEST_SIZE = sympy.Rational(83, 59)
# |x+3| = x+3 also holds at -1.
_SCALES = (1, sympy.Rational(1, 53), 1_009)
_MOST_SYMBOLS_WITH_SIGNS = 4

Point = dict[sympy.Symbol, sympy.Rational]
_EXTRACTION = [
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True,
            units=False,
            malformed_operators=True,
            nits=True,
            boxed="none",
            equations=False,
        )
    )
]


def main() -> None:
    """Serve requests until the input ends or the parent is gone."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Replies go through a private copy of stdout, so that a stray print cannot corrupt them.
    reply_fd = os.dup(1)
    os.dup2(2, 1)
    _reply(reply_fd, {"ready": True})
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    for line in _lines():
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["deadline_s"] + GRACE_S)
        _reply(reply_fd, _answer(request))
        signal.setitimer(signal.ITIMER_REAL, 0)
    # Nothing is left to flush, and sympy takes a while to tear down.
    os._exit(0)


def equal(answer: str, reference: str, *, patient: bool = False) -> bool:
    """Compare two LaTeX expressions: digits to refute, then simplification to prove.

    The digits go first because they settle nearly every wrong answer without simplification. They
    never prove anything: 10^-50 and its sine agree to 100 of them. What cannot be proved is not
    equal. `patient` also accepts an identity that holds only where the expressions are real, such
    as ln(x^2) = 2 ln x; otherwise both have to be real in the same places.
    """
    parsed_answer, parsed_reference = _parsed(answer), _parsed(reference)
    if parsed_answer is None or parsed_reference is None:
        return False
    digits = VETO_DIGITS + 2 * max(len(answer), len(reference))
    if not _agree_numerically(parsed_answer, parsed_reference, digits):
        return False
    if _proven(parsed_answer, parsed_reference):
        return True
    return _equal_on_domain(parsed_answer, parsed_reference, digits, patient=patient)


def _answer(request: dict) -> dict:
    """Answer one request; whatever the symbolic code raises becomes an error reply."""
    try:
        patient = request["patient"]
        return {"equal": equal(request["answer"], request["reference"], patient=patient)}
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        return {"error": type(error).__name__}


def _parsed(latex: str) -> sympy.Expr | sympy.MatrixBase | None:
    """Parse LaTeX with decimals as exact rationals, or return None."""
    found = parse(
        f"${latex}$",
        _EXTRACTION,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if not found or not isinstance(found[0], sympy.Expr | sympy.MatrixBase):
        return None  # sets, tuples and relations are taken apart before they get here
    expression = found[0]
    exact = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    # math-verify assumes real symbols only where no i occurs, which would make x differ from x.
    same = {symbol: sympy.Symbol(symbol.name, real=True) for symbol in expression.free_symbols}
    same |= {symbol: sympy.I for symbol in same if symbol.name == "i"}
    expression = expression.xreplace(exact | same)
    applied = expression.atoms(AppliedUndef)
    return expression.xreplace({call: sympy.Symbol(str(call), real=True) for call in applied})


def _agree_numerically(left: sympy.Expr, right: sympy.Expr, digits: int) -> bool:
    """Say whether two expressions agree at the sample points, but for the last few digits."""
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        same_shape = getattr(left, "shape", None) == getattr(right, "shape", None)
        return same_shape and all(
            _agree_numerically(a, b, digits) for a, b in zip(left.flat(), right.flat(), strict=True)
        )
    difference = left - right
    points = _SAMPLE_POINTS if difference.free_symbols else _SAMPLE_POINTS[:1]
    return all(_is_small(_value(difference, point, digits), digits) for point in points)


def _proven(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Say whether the difference of two expressions simplifies to zero."""
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(
            _proven(a, b) for a, b in zip(left.flat(), right.flat(), strict=True)
        )
    difference = left.doit() - right.doit()
    if difference == 0 or sympy.simplify(difference) == 0:
        return True
    if difference.has(sympy.log) and not difference.free_symbols:
        small = all(abs(number) < _MOST_TO_FACTOR for number in difference.atoms(sympy.Integer))
        return small and sympy.simplify(sympy.expand_log(difference, factor=True)) == 0
    # By a minimal polynomial, where the difference is an algebraic number.
    return not difference.free_symbols and difference.equals(0) is True


def _equal_on_domain(left: sympy.Expr, right: sympy.Expr, digits: int, *, patient: bool) -> bool:
    """Prove an identity for positive variables, unless both are real and differ elsewhere."""
    symbols = (left - right).free_symbols if isinstance(left, sympy.Expr) else set()
    if not 0 < len(symbols) <= _MOST_SYMBOLS_WITH_SIGNS:
        return False
    for point in _points_of_other_signs(sorted(symbols, key=str)):
        here, there = (_evaluated(side, point, digits) for side in (left, right))
        if (
            here.is_real
            and there.is_real
            and not _is_small((here - there) / (1 + abs(here)), digits)
        ):
            return False
        if not patient and bool(here.is_real) != bool(there.is_real):
            return False
    positive = {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in symbols}
    difference = sympy.expand_log((left - right).xreplace(positive), force=True)
    return sympy.simplify(difference) == 0


def _value(expression: sympy.Expr, point: sympy.Rational, digits: int) -> sympy.Expr:
    """Evaluate at variables that step up from `point`, in alphabetical order."""
    symbols = sorted(expression.free_symbols, key=str)
    values = {symbol: point + index for index, symbol in enumerate(symbols)}
    return _evaluated(expression, values, digits)


def _evaluated(expression: sympy.Expr, values: Point, digits: int) -> sympy.Expr:
    return expression.evalf(digits, subs=values, maxn=digits + VETO_DIGITS)


def _points_of_other_signs(symbols: list[sympy.Symbol]) -> Iterator[Point]:
    """Yield points at which variables are negative, in every pattern of signs, near 0 and far away.

    Sizes go up and down, so that neither |x+y| = |x|+|y| nor |x-y| = y-x passes for an identity.
    """
    patterns = itertools.product((-1, 1), repeat=len(symbols))
    for (number, signs), scale in itertools.product(enumerate(patterns), _SCALES):
        sizes = [scale * (index + _SMALLEST_SIZE) for index in range(len(symbols))]
        if number % 2:
            sizes.reverse()
        yield {s: sign * size for s, sign, size in zip(symbols, signs, sizes, strict=True)}


def _is_small(value: sympy.Expr, digits: int) -> bool:
    """Say whether a difference vanishes; what cannot be evaluated does not."""
    threshold = sympy.Float(10, digits) ** (VETO_MARGIN - digits)
    return bool(value.is_number and value.is_finite and abs(value) < threshold)


def _lines() -> Iterator[bytes]:
    """Yield lines of standard input until it ends."""
    buffer = b""
    while chunk := os.read(0, 65_536):
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        yield from lines


def _leave_with(parent_pid: int) -> None:
    """End this process soon after its parent, also amid a computation."""
    while os.getppid() == parent_pid:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(0)


def _reply(fd: int, message: dict) -> None:
    """Write one JSON line."""
    os.write(fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
