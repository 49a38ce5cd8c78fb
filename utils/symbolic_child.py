"""The child process that holds math-verify: JSON lines in, JSON lines out.

Started by `utils.symbolic_client` as `python -m utils.symbolic_child`. It reads one request a line,
`{"answer": latex, "reference": latex, "deadline_s": seconds}`, and replies `{"equal": bool}` or
`{"error": text}`. Only the LaTeX grammar of math-verify is used: its plain-expression extraction
runs sympy's `parse_expr`, which evaluates text. It leaves on end of input, when its parent is gone,
or, if a computation outlives its deadline, by SIGALRM: no child outlives its parent for long.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
from collections.abc import Iterator

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.function import AppliedUndef

MEMORY_LIMIT_BYTES = 1536 * 2**20
ORPHAN_CHECK_S = 5.0
GRACE_S = 2.0
VETO_DIGITS = 60
VETO_THRESHOLD = sympy.Float("1e-40", VETO_DIGITS)
_SAMPLE_POINTS = (sympy.Rational(37, 29), sympy.Rational(113, 71))
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
    for line in _lines(os.getppid()):
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["deadline_s"] + GRACE_S)
        _reply(reply_fd, _answer(request))
        signal.setitimer(signal.ITIMER_REAL, 0)
    # Nothing is left to flush, and sympy takes a while to tear down.
    os._exit(0)


def equal(answer: str, reference: str) -> bool:
    """Compare two LaTeX expressions: 60 digits to refute, then math-verify to prove.

    The digits go first because they settle nearly every wrong answer without simplification, and
    because math-verify alone would accept what agrees to 6 or 15 digits.
    """
    parsed_answer, parsed_reference = _parsed(answer), _parsed(reference)
    if parsed_answer is None or parsed_reference is None:
        return False
    if not _agree_numerically(parsed_answer, parsed_reference):
        return False
    return verify(parsed_reference, parsed_answer, strict=True, timeout_seconds=None)


def _answer(request: dict) -> dict:
    """Answer one request; whatever the symbolic code raises becomes an error reply."""
    try:
        return {"equal": equal(request["answer"], request["reference"])}
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


def _agree_numerically(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Say whether two expressions agree to 40 of 60 digits at the sample points."""
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        same_shape = getattr(left, "shape", None) == getattr(right, "shape", None)
        return same_shape and all(map(_agree_numerically, left.flat(), right.flat()))
    difference = left - right
    symbols = sorted(difference.free_symbols, key=str)
    return all(
        _is_small(difference, {symbol: point + index for index, symbol in enumerate(symbols)})
        for point in (_SAMPLE_POINTS if symbols else _SAMPLE_POINTS[:1])
    )


def _is_small(difference: sympy.Expr, values: dict[sympy.Symbol, sympy.Rational]) -> bool:
    """Say whether the difference vanishes at a point; what cannot be evaluated does not."""
    value = difference.evalf(VETO_DIGITS, subs=values)
    return bool(value.is_number and value.is_finite and abs(value) < VETO_THRESHOLD)


def _lines(parent_pid: int) -> Iterator[bytes]:
    """Yield lines of standard input, waking up now and then to see whether the parent lives."""
    buffer = b""
    while True:
        while b"\n" not in buffer:
            if not select.select([0], [], [], ORPHAN_CHECK_S)[0]:
                if os.getppid() != parent_pid:
                    return
                continue
            chunk = os.read(0, 65_536)
            if not chunk:
                return
            buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        yield line


def _reply(fd: int, message: dict) -> None:
    """Write one JSON line."""
    os.write(fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
