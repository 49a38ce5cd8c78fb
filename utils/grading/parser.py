"""Recursive-descent parser from normalised LaTeX to the values of an algebra.

It reads numbers (decimals, repeating decimals, mixed numbers), one-letter variables with
subscripts, + - * / ^, brackets, \\frac, \\sqrt, \\binom, factorials and elementary functions.
Whatever is ambiguous (`x/2y`, `3\\frac{5}{2}`, `f(x)`, `\\sin x/2`) or outside the algebra raises
NotExactError. Algebras: `exact_algebra` proves and refutes, `numeric` refutes, `arcs` proves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Generic

from utils.grading import counting, exact_algebra
from utils.grading.algebra import Algebra, V
from utils.grading.exact_algebra import Exact, NotExactError

MAX_DEPTH = 20

_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_MIXED_FRACTION = re.compile(r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_MIXED_SLASH = re.compile(r"\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_SUBSCRIPT = re.compile(r"_(?:\{([A-Za-z0-9]+)\}|([A-Za-z0-9]))")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu",
    "nu", "xi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega", "varphi", "Gamma", "Delta",
    "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
}  # fmt: skip
_FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp",
}  # fmt: skip
_OF_SEVERAL: dict[str, Callable[..., Fraction | int]] = {
    "gcd": math.gcd, "lcm": math.lcm, "max": max, "min": min,
}  # fmt: skip
_JOINED = re.compile(r"(?<=\d)\{\s*[\d.]")  # 1{5}: TeX sets 15, and nobody means 1 times 5
_MODULO = re.compile(r"\s*\\b?mod(?![A-Za-z])")
_INFINITE = re.compile(r"\s*[+-]?\s*∞\s*")
_CLOSERS = {"(": ")", "{": "}", "[": "]"}
_FUNCTION_LETTERS = "fgh"


@lru_cache(maxsize=50_000)
def parse_exact(text: str) -> Exact | None:
    """Parse normalised text to its exact value, or return None where that is not possible.

    >>> parse_exact("2(x+3)") == parse_exact("6+2x")
    True
    """
    if "∞" in text and not _INFINITE.fullmatch(text):
        return None  # ∞/∞ is no number
    try:
        return Parser(text, exact_algebra).parse()
    except (NotExactError, IndexError):
        return None


class Parser(Generic[V]):
    """Position in one text; each method consumes what it names."""

    def __init__(self, text: str, algebra: Algebra[V]) -> None:
        self._algebra = algebra
        self._text = text
        self._end = len(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> V:
        """Parse the whole text."""
        value = self._sum()
        if modulo := _MODULO.match(self._text, self._at):
            self._at = modulo.end()
            value = counting.remainder(self._algebra, value, self._sum())
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

    def _sum(self) -> V:
        """Parse terms joined by + and -, the first one with an optional sign."""
        total = self._signed(self._product)
        while (sign := self._peek()) and sign in "+-":
            self._at += 1
            term = self._product()
            total = self._algebra.add(total, self._algebra.negate(term) if sign == "-" else term)
        return total

    def _signed(self, inner: Callable[[], V]) -> V:
        """Parse an optional sign, then `inner`."""
        sign = self._peek()
        if sign and sign in "+-":
            self._at += 1
            value = inner()
            return self._algebra.negate(value) if sign == "-" else value
        return inner()

    def _product(self) -> V:
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
                    value, divided = self._algebra.multiply(value, factor), False
                    start = start_of_divisor
                    continue
                value, divided = self._algebra.divide(value, factor), True
                divisor = self._text[start_of_divisor : self._at]
                divided_plainly = literal and _is_literal(divisor)
                continue
            if not self._starts_implicit_factor(operator):
                return value
            if divided and not divided_plainly:
                raise NotExactError("ambiguous division")
            value = self._algebra.multiply(value, self._factor())

    def _starts_implicit_factor(self, char: str) -> bool:
        """Say whether a factor follows without an operator; a number may not, as in `x 2`."""
        if char and (char.isdigit() or char == "." or _JOINED.match(self._text, self._at)):
            if self._text[: self._at].rstrip().endswith("!"):
                return True
            raise NotExactError("number after a factor")
        if char == "\\" and _MODULO.match(self._text, self._at):
            return False
        return bool(char) and (char.isalpha() or char in "({[\\∞")

    def _factor(self) -> V:
        """Parse a primary with its factorials, degree signs and power."""
        value = self._primary()
        while (char := self._peek()) and char in "!°":
            self._at += 1
            if char == "!" and self._text.startswith("!", self._at):
                self._at += 1
                value = counting.double_factorial(self._algebra, value)
            elif char == "!":
                value = self._factorial(value)
            else:
                value = self._algebra.degrees(value)
        if char == "^":
            self._at += 1
            value = self._algebra.power(value, self._argument())
            if self._peek() in ("^", "!"):
                raise NotExactError("ambiguous power")
        return value

    def _primary(self) -> V:
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
            return self._algebra.variable(char)
        raise NotExactError("unexpected character")

    def _bracketed(self, closer: str) -> V:
        """Parse a sum between brackets."""
        self._at += 1
        value = self._sum()
        if self._peek() != closer:
            raise NotExactError("unbalanced brackets")
        self._at += 1
        return value

    def _number(self) -> V:
        """Parse a decimal, a repeating decimal or a mixed number."""
        if match := _REPEATING.match(self._text, self._at):
            self._at = match.end()
            return self._algebra.constant(counting.repeating_decimal(*match.groups()))
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise NotExactError("number")
        self._at = match.end()
        if not match[0].isdigit():
            return self._algebra.constant(Fraction(match[0]))
        whole = int(match[0])
        mixed = _MIXED_FRACTION.match(self._text, self._at) or _MIXED_SLASH.match(
            self._text, self._at
        )
        if mixed is None:
            return self._algebra.constant(whole)
        top, bottom = (int(digits) for digits in mixed.groups() if digits)
        if not 0 < top < bottom:
            raise NotExactError("neither a mixed number nor clearly a product")
        self._at = mixed.end()
        return self._algebra.constant(whole + Fraction(top, bottom))

    def _variable(self) -> V:
        """Parse one letter with its subscript and primes."""
        name = self._text[self._at]
        self._at += 1
        name = self._indexed(name)
        while self._at < self._end and self._text[self._at] == "'":
            name += "'"
            self._at += 1
        if (name[0] in _FUNCTION_LETTERS or name[-1] == "'") and self._peek() == "(":
            raise NotExactError("function application")
        return self._algebra.variable(name)

    def _indexed(self, name: str) -> str:
        """Add the subscript of a letter to its name."""
        if match := _SUBSCRIPT.match(self._text, self._at):
            self._at = match.end()
            return f"{name}_{match[1] or match[2]}"
        return name

    def _command(self) -> V:
        """Parse \\frac, \\sqrt, \\binom or a Greek letter."""
        match = _COMMAND.match(self._text, self._at)
        if match is None:
            raise NotExactError("escape")
        self._at = match.end()
        name = match[1]
        if name == "frac":
            top = self._argument(single_digit=True)
            return self._algebra.divide(top, self._argument(single_digit=True))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            top = self._argument(single_digit=True)
            return self._binomial(top, self._argument(single_digit=True))
        if name in _GREEK:
            return self._algebra.variable(self._indexed(name))
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _OF_SEVERAL:
            return self._of_several(_OF_SEVERAL[name])
        raise NotExactError(f"command {name}")

    def _root(self) -> V:
        """Parse the optional degree and the radicand of \\sqrt."""
        degree: Fraction | int | None = 2
        if self._peek() == "[":
            degree = self._algebra.as_rational(self._bracketed("]"))
        radicand = self._argument(single_digit=True)
        if not isinstance(degree, int):
            raise NotExactError("degree of a root")
        return self._algebra.root(radicand, degree)

    def _function(self, name: str) -> V:
        """Parse the base, the power and the argument of \\sin, \\log and the like."""
        base = exponent = None
        if name == "log" and self._peek() == "_":
            self._at += 1
            base = self._argument(single_digit=True)
        if self._peek() == "^":
            self._at += 1
            exponent = self._argument()
            power = self._algebra.as_rational(exponent)
            if not isinstance(power, int) or power < 1:
                raise NotExactError("a power that may mean the inverse function")
        closer = _CLOSERS.get(self._peek())
        argument = self._bracketed(closer) if closer else self._bare_argument()
        if self._peek() == "°":
            self._at += 1
            argument = self._algebra.degrees(argument)
        if self._peek() in ("^", "!", "°", "_"):
            raise NotExactError("ambiguous power of a function")
        value = self._algebra.function(name, argument, base)
        return value if exponent is None else self._algebra.power(value, exponent)

    def _of_several(self, function: Callable[..., Fraction | int]) -> V:
        """Apply gcd, lcm, max or min to rational numbers in brackets."""
        closer = {"(": ")", "⦃": "⦄", "{": "}", "[": "]"}.get(self._peek())
        if closer is None:
            raise NotExactError("no list of numbers")
        numbers: list[Fraction | int] = []
        while self._peek() != closer:
            self._at += 1
            number = self._algebra.as_rational(self._sum())
            if number is None or (self._peek() not in (",", closer)):
                raise NotExactError("no list of numbers")
            numbers.append(number)
        self._at += 1
        if function in (math.gcd, math.lcm) and not all(isinstance(n, int) for n in numbers):
            raise NotExactError("not whole numbers")
        return self._algebra.constant(function(*numbers) if len(numbers) > 1 else numbers[0])

    def _bare_argument(self) -> V:
        """Parse an argument without brackets: `2x`, `\\frac{x}{2}`, `30°`; at most one letter."""
        value: V | None = None
        letters = 0
        while (char := self._peek()) and (char.isalnum() or char in ".\\π"):
            command = _COMMAND.match(self._text, self._at)
            if command and command[1] in _FUNCTIONS:
                break
            if value is not None and (char.isdigit() or char == "."):
                raise NotExactError("number after a factor")
            letters += bool(command and command[1] in _GREEK) or (char.isalpha() and char != "π")
            factor = self._factor()
            value = factor if value is None else self._algebra.multiply(value, factor)
        if value is None or letters > 1 or self._peek() in ("/", "("):
            raise NotExactError("ambiguous argument of a function")
        return value

    def _factorial(self, value: V) -> V:
        """Make n!."""
        return counting.factorial(self._algebra, value)

    def _binomial(self, top: V, bottom: V) -> V:
        """Make a binomial coefficient."""
        return counting.binomial(self._algebra, top, bottom)

    def _argument(self, *, single_digit: bool = False) -> V:
        """Parse the argument of a command or an exponent.

        TeX takes one digit (`\\frac47`, `\\sqrt23`); people who type `x^10` mean the whole number.
        """
        char = self._peek()
        if char.isdigit():
            match = _NUMBER.match(self._text, self._at)
            digits = char if single_digit or match is None else match[0]
            self._at += len(digits)
            return self._algebra.constant(int(digits) if digits.isdigit() else Fraction(digits))
        return self._primary() if single_digit else self._signed(self._primary)


def _is_literal(text: str) -> bool:
    """Say whether the text is a plain number such as 3 or 0.5."""
    return bool(_NUMBER.fullmatch(text.strip(" +-")))
