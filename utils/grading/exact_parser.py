"""Recursive-descent parser from normalised LaTeX to exact values.

It reads numbers (decimals, repeating decimals, mixed numbers), one-letter variables with
subscripts, + - * / ^, brackets, \\frac, \\sqrt, \\binom and factorials. Whatever is ambiguous
(`x/2y`, `3\\frac{5}{2}`, `f(x)`) or outside this arithmetic raises NotExactError, and the caller
asks the symbolic child instead: a value returned here may be trusted in both directions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from utils.grading import exact_algebra
from utils.grading.exact_algebra import Exact, NotExactError

MAX_DEPTH = 20
MAX_FACTORIAL = 300
MAX_BINOMIAL = 1_000

_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_MIXED_FRACTION = re.compile(r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_MIXED_SLASH = re.compile(r"\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_SUBSCRIPT = re.compile(r"_(?:\{([A-Za-z0-9]+)\}|([A-Za-z0-9]))")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu",
    "nu", "xi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega", "varphi",
}  # fmt: skip
_CLOSERS = {"(": ")", "{": "}", "[": "]"}
_FUNCTION_LETTERS = "fgh"


@lru_cache(maxsize=50_000)
def parse_exact(text: str) -> Exact | None:
    """Parse normalised text to its exact value, or return None where that is not possible.

    >>> parse_exact("2(x+3)") == parse_exact("6+2x")
    True
    """
    try:
        return _Parser(text).parse()
    except (NotExactError, IndexError):
        return None


class _Parser:
    """Position in one text; each method consumes what it names."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = len(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Exact:
        """Parse the whole text."""
        value = self._sum()
        if self._peek():
            raise NotExactError("text left over")
        return value

    def _peek(self) -> str:
        """Skip white space and return the next character, empty at the end."""
        text, at, end = self._text, self._at, self._end
        while at < end and text[at] == " ":
            at += 1
        self._at = at
        return text[at] if at < end else ""

    def _sum(self) -> Exact:
        """Parse terms joined by + and -, the first one with an optional sign."""
        total = self._signed(self._product)
        while (sign := self._peek()) and sign in "+-":
            self._at += 1
            term = self._product()
            total = exact_algebra.add(total, exact_algebra.negate(term) if sign == "-" else term)
        return total

    def _signed(self, inner: Callable[[], Exact]) -> Exact:
        """Parse an optional sign, then `inner`."""
        sign = self._peek()
        if sign and sign in "+-":
            self._at += 1
            value = inner()
            return exact_algebra.negate(value) if sign == "-" else value
        return inner()

    def _product(self) -> Exact:
        """Parse factors joined by *, / or nothing, from left to right.

        `a/b c` is refused unless a and b are literal numbers: people mean both (a/b)c and a/(bc).
        """
        start = self._at
        value = self._factor()
        divided_plainly = divided = False
        while True:
            operator = self._peek()
            if operator and operator in "*/":
                literal = not divided and _is_literal(self._text[start : self._at])
                self._at += 1
                start_of_divisor = self._at
                factor = self._signed(self._factor)
                if operator == "*":
                    value, divided = exact_algebra.multiply(value, factor), False
                    start = start_of_divisor
                    continue
                value, divided = exact_algebra.divide(value, factor), True
                divisor = self._text[start_of_divisor : self._at]
                divided_plainly = literal and _is_literal(divisor)
                continue
            if not self._starts_implicit_factor(operator):
                return value
            if divided and not divided_plainly:
                raise NotExactError("ambiguous division")
            value = exact_algebra.multiply(value, self._factor())

    def _starts_implicit_factor(self, char: str) -> bool:
        """Say whether a factor follows without an operator; a number may not, as in `x 2`."""
        if char and (char.isdigit() or char == "."):
            raise NotExactError("number after a factor")
        return bool(char) and (char.isalpha() or char in "({[\\∞")

    def _factor(self) -> Exact:
        """Parse a primary with its factorials, degree signs and power."""
        value = self._primary()
        while (char := self._peek()) and char in "!°":
            self._at += 1
            if char == "!":
                value = _factorial(value)
        if char == "^":
            self._at += 1
            value = exact_algebra.power(value, self._argument())
            if self._peek() in ("^", "!"):
                raise NotExactError("ambiguous power")
        return value

    def _primary(self) -> Exact:
        """Parse a number, a variable, a bracketed sum or a command."""
        char = self._peek()
        if char.isdigit() or char == ".":
            return self._number()
        if char in _CLOSERS or char == "\\":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise NotExactError("nested too deeply")
            value = self._command() if char == "\\" else self._bracketed(_CLOSERS[char])
            self._depth -= 1
            return value
        if char.isascii() and char.isalpha():
            return self._variable()
        if char and char in "π∞":
            self._at += 1
            return exact_algebra.variable(char)
        raise NotExactError("unexpected character")

    def _bracketed(self, closer: str) -> Exact:
        """Parse a sum between brackets."""
        self._at += 1
        value = self._sum()
        if self._peek() != closer:
            raise NotExactError("unbalanced brackets")
        self._at += 1
        return value

    def _number(self) -> Exact:
        """Parse a decimal, a repeating decimal or a mixed number."""
        if match := _REPEATING.match(self._text, self._at):
            self._at = match.end()
            return exact_algebra.constant(_repeating_decimal(*match.groups()))
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise NotExactError("number")
        self._at = match.end()
        if not match[0].isdigit():
            return exact_algebra.constant(Fraction(match[0]))
        whole = int(match[0])
        mixed = _MIXED_FRACTION.match(self._text, self._at) or _MIXED_SLASH.match(
            self._text, self._at
        )
        if mixed is None:
            return exact_algebra.constant(whole)
        top, bottom = (int(digits) for digits in mixed.groups() if digits)
        if not 0 < top < bottom:
            raise NotExactError("neither a mixed number nor clearly a product")
        self._at = mixed.end()
        return exact_algebra.constant(whole + Fraction(top, bottom))

    def _variable(self) -> Exact:
        """Parse one letter with its subscript and primes."""
        name = self._text[self._at]
        self._at += 1
        if match := _SUBSCRIPT.match(self._text, self._at):
            name = f"{name}_{match[1] or match[2]}"
            self._at = match.end()
        while self._at < self._end and self._text[self._at] == "'":
            name += "'"
            self._at += 1
        if (name[0] in _FUNCTION_LETTERS or name[-1] == "'") and self._peek() == "(":
            raise NotExactError("function application")
        return exact_algebra.variable(name)

    def _command(self) -> Exact:
        """Parse \\frac, \\sqrt, \\binom or a Greek letter."""
        match = _COMMAND.match(self._text, self._at)
        if match is None:
            raise NotExactError("escape")
        self._at = match.end()
        name = match[1]
        if name == "frac":
            top = self._argument(single_digit=True)
            return exact_algebra.divide(top, self._argument(single_digit=True))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            top = self._argument(single_digit=True)
            return _binomial(top, self._argument(single_digit=True))
        if name in _GREEK:
            return exact_algebra.variable(name)
        raise NotExactError(f"command {name}")

    def _root(self) -> Exact:
        """Parse the optional degree and the radicand of \\sqrt."""
        degree: Fraction | int | None = 2
        if self._peek() == "[":
            degree = exact_algebra.as_rational(self._bracketed("]"))
        radicand = self._argument(single_digit=True)
        if not isinstance(degree, int):
            raise NotExactError("degree of a root")
        return exact_algebra.root(radicand, degree)

    def _argument(self, *, single_digit: bool = False) -> Exact:
        """Parse the argument of a command or an exponent.

        TeX takes one digit (`\\frac47`, `\\sqrt23`); people who type `x^10` mean the whole number.
        """
        char = self._peek()
        if char.isdigit():
            match = _NUMBER.match(self._text, self._at)
            digits = char if single_digit or match is None else match[0]
            self._at += len(digits)
            return exact_algebra.constant(int(digits) if digits.isdigit() else Fraction(digits))
        return self._primary() if single_digit else self._signed(self._primary)


def _is_literal(text: str) -> bool:
    """Say whether the text is a plain number such as 3 or 0.5."""
    return bool(_NUMBER.fullmatch(text.strip(" +-")))


def _repeating_decimal(whole: str, fixed: str, period: str) -> Fraction:
    """Return the value of a repeating decimal; 0.1(6) is 1/6."""
    scale = 10 ** len(fixed)
    repeating = Fraction(int(period), scale * (10 ** len(period) - 1))
    return Fraction(int(whole + fixed or "0"), scale) + repeating


def _factorial(value: Exact) -> Exact:
    """Return n! for a small natural number."""
    number = exact_algebra.as_rational(value)
    if not isinstance(number, int) or not 0 <= number <= MAX_FACTORIAL:
        raise NotExactError("factorial")
    return exact_algebra.constant(math.factorial(number))


def _binomial(top: Exact, bottom: Exact) -> Exact:
    """Return the binomial coefficient of two small natural numbers."""
    n, k = exact_algebra.as_rational(top), exact_algebra.as_rational(bottom)
    if n is None or k is None or n.denominator != 1 or k.denominator != 1:
        raise NotExactError("binomial")
    if not 0 <= k <= n <= MAX_BINOMIAL:
        raise NotExactError("binomial")
    return exact_algebra.constant(math.comb(int(n), int(k)))
