"""Exact arithmetic on quotients of polynomials over the rationals, real radicals and i.

A polynomial maps a monomial to its rational coefficient. A monomial is a sorted tuple of
(generator, exponent): variables with natural exponents, primes with fractional exponents in (0, 1)
(so that sqrt(12) is 2 * 3^(1/2)), and `i` with exponent 1. Distinct monomials are linearly
independent over the rationals (Besicovitch 1940 for the radicals), so two values are equal if and
only if their cross products have the same coefficients: no tolerance, no search.
"""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

Monomial = tuple[tuple[str | int, Fraction | int], ...]
Polynomial = dict[Monomial, Fraction | int]

IMAGINARY_UNIT = "i"
MAX_COEFFICIENT_BITS = 40_000
MAX_POWER_BITS = 16_000
MAX_TERMS = 2_000
MAX_POLYNOMIAL_POWER = 20
MAX_RADICAND = 10**10
_MOST_SHIFTS = 12
_ONE: Polynomial = {(): 1}
_CONTEXT = Context(prec=60)
_CONSTANTS = {"π": Decimal("3.14159265358979323846264338327950288419716939937510582097494459")}


class NotExactError(Exception):
    """The text or the value lies outside what this arithmetic decides."""


class Exact(NamedTuple):
    """A quotient of two polynomials; the denominator is never the zero polynomial."""

    numerator: Polynomial
    denominator: Polynomial


def constant(value: Fraction | int) -> Exact:
    """Make the value of a rational number."""
    return Exact({(): value} if value else {}, _ONE)


def variable(name: str) -> Exact:
    """Make the value of one free variable, or of the imaginary unit."""
    return Exact({((name, 1),): 1}, _ONE)


def degrees(value: Exact) -> Exact:
    """Leave a number of degrees as it is; the caller compares like with like."""
    return value


def factorial(value: Exact) -> Exact:
    """Make the factorial of a polynomial: (n+2)! is (n+2)(n+1) n!, with n! a generator.

    Two that differ by more than a whole number are taken for independent, so that equal values may
    be missed, and none found that is not there.
    """
    whole = value.numerator.get((), 0)
    if value.denominator is not _ONE or not isinstance(whole, int) or abs(whole) > _MOST_SHIFTS:
        raise NotExactError("factorial")
    rest = {key: factor for key, factor in value.numerator.items() if key}
    name = " ".join(f"{factor}*{key}" for key, factor in sorted(rest.items(), key=str))
    result = variable(f"({name})!")
    shape = Exact(rest, _ONE)
    for step in range(1, whole + 1):
        result = multiply(result, add(shape, constant(step)))
    for step in range(whole + 1, 1):
        result = divide(result, add(shape, constant(step)))
    return result


def function(name: str, argument: Exact, base: Exact | None) -> Exact:
    """Refuse: the values of elementary functions are outside this arithmetic."""
    raise NotExactError(f"function {name} of {argument} to base {base}")


def add(left: Exact, right: Exact) -> Exact:
    """Add two values."""
    if left.denominator is _ONE and right.denominator is _ONE:
        return Exact(_add(left.numerator, right.numerator), _ONE)
    return Exact(
        _add(
            _multiply(left.numerator, right.denominator),
            _multiply(right.numerator, left.denominator),
        ),
        _multiply(left.denominator, right.denominator),
    )


def negate(value: Exact) -> Exact:
    """Change the sign of a value."""
    return Exact({key: -factor for key, factor in value.numerator.items()}, value.denominator)


def multiply(left: Exact, right: Exact) -> Exact:
    """Multiply two values."""
    return Exact(
        _multiply(left.numerator, right.numerator),
        _multiply(left.denominator, right.denominator),
    )


def divide(left: Exact, right: Exact) -> Exact:
    """Divide two values; a divisor of zero is outside this arithmetic."""
    if not right.numerator:
        raise NotExactError("division by zero")
    rational = as_rational(right)
    if rational is not None:
        return multiply(left, constant(1 / Fraction(rational)))
    return multiply(left, Exact(right.denominator, right.numerator))


def power(base: Exact, exponent: Exact) -> Exact:
    """Raise a value to a rational constant; roots need a positive constant base."""
    rational = as_rational(exponent)
    if rational is None:
        raise NotExactError("variable exponent")
    rational = Fraction(rational)
    if rational.denominator == 1:
        return _integer_power(base, rational.numerator)
    if _single_constant(base)[1] < 0:
        raise NotExactError("fractional power of a negative number")
    return _integer_power(root(base, rational.denominator), rational.numerator)


def root(value: Exact, degree: int) -> Exact:
    """Take the real root of a constant (i times it for the square root of a negative one)."""
    if not 2 <= degree <= 100:
        raise NotExactError("degree of a root")
    if not value.numerator:
        return value
    monomial, coefficient = _single_constant(value)
    sign = constant(1)
    if coefficient < 0:
        if degree % 2 == 0 and degree != 2:
            raise NotExactError("even root of a negative number")
        sign = variable(IMAGINARY_UNIT) if degree == 2 else constant(-1)
    magnitude = abs(Fraction(coefficient))
    exponents: dict[int, Fraction] = {int(p): Fraction(e) for p, e in monomial}
    for number, direction in ((magnitude.numerator, 1), (magnitude.denominator, -1)):
        for prime, count in _factors(number).items():
            exponents[prime] = exponents.get(prime, Fraction(0)) + direction * count
    result = sign
    for prime, exponent in exponents.items():
        result = multiply(result, _prime_power(prime, exponent / degree))
    return result


def as_rational(value: Exact) -> Fraction | int | None:
    """Return the rational number that a value is (an int where it is integral), or None."""
    if value.denominator is not _ONE or len(value.numerator) > 1:
        return None
    number = value.numerator.get(()) if value.numerator else 0
    return number.numerator if number is not None and number.denominator == 1 else number


def same_value(left: Exact, right: Exact) -> bool:
    """Decide whether two values are equal."""
    if left.denominator is _ONE and right.denominator is _ONE:
        return left.numerator == right.numerator
    return _multiply(left.numerator, right.denominator) == _multiply(
        right.numerator, left.denominator
    )


def rational_ratio(left: Exact, right: Exact) -> Fraction | None:
    """Return the nonzero rational c with left = c * right, or None where there is none."""
    first = _multiply(left.numerator, right.denominator)
    second = _multiply(right.numerator, left.denominator)
    if not first or first.keys() != second.keys():
        return None
    key = next(iter(first))
    ratio = Fraction(first[key]) / second[key]
    return ratio if all(first[k] == ratio * second[k] for k in first) else None


def approximate(value: Exact) -> Decimal | None:
    """Evaluate a real constant to some 50 digits, or return None where it is not one.

    >>> round(approximate(root(constant(2), 2)), 5)
    Decimal('1.41421')
    """
    top, bottom = (_approximate(part) for part in value)
    return _CONTEXT.divide(top, bottom) if top is not None and bottom else None


def _approximate(polynomial: Polynomial) -> Decimal | None:
    """Evaluate a polynomial in π and radicals."""
    total = Decimal(0)
    for monomial, coefficient in polynomial.items():
        term = _CONTEXT.divide(Decimal(coefficient.numerator), Decimal(coefficient.denominator))
        for generator, exponent in monomial:
            base = _CONSTANTS.get(generator) if isinstance(generator, str) else Decimal(generator)
            if base is None:
                return None
            power_of = _CONTEXT.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
            term = _CONTEXT.multiply(term, _CONTEXT.power(base, power_of))
        total = _CONTEXT.add(total, term)
    return total


def _add(left: Polynomial, right: Polynomial) -> Polynomial:
    """Add two polynomials, dropping the terms that cancel."""
    total = dict(left)
    for key, coefficient in right.items():
        new = total.get(key, 0) + coefficient
        if new:
            total[key] = new
        else:
            del total[key]
    return total


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """Multiply two polynomials within the limits on size."""
    if left is _ONE:
        return right
    if right is _ONE:
        return left
    if len(left) * len(right) > MAX_TERMS:
        raise NotExactError("too many terms")
    product: Polynomial = {}
    for left_key, left_factor in left.items():
        for right_key, right_factor in right.items():
            key, scale = _multiply_monomials(left_key, right_key)
            coefficient = scale * left_factor * right_factor
            size = coefficient.numerator.bit_length() + coefficient.denominator.bit_length()
            if size > MAX_COEFFICIENT_BITS:
                raise NotExactError("coefficient too large")
            product[key] = product.get(key, 0) + coefficient
    return {key: coefficient for key, coefficient in product.items() if coefficient}


def _multiply_monomials(left: Monomial, right: Monomial) -> tuple[Monomial, int]:
    """Multiply two monomials into one and the integer that reduction sets free."""
    if not left:
        return right, 1
    if not right:
        return left, 1
    exponents = dict(left)
    scale = 1
    for generator, exponent in right:
        total = exponents.get(generator, 0) + exponent
        if generator == IMAGINARY_UNIT and total == 2:
            total, scale = 0, -scale
        elif isinstance(generator, int) and total >= 1:
            total, scale = total - 1, scale * generator
        exponents[generator] = total
    kept = [item for item in exponents.items() if item[1]]
    return tuple(sorted(kept, key=lambda item: str(item[0]))), scale


def _integer_power(base: Exact, exponent: int) -> Exact:
    """Raise to an integer by repeated squaring, refusing results that would be huge."""
    if exponent < 0:
        return _integer_power(divide(constant(1), base), -exponent)
    terms = max(len(base.numerator), len(base.denominator))
    if terms > 1 and exponent > MAX_POLYNOMIAL_POWER:
        raise NotExactError("power of a polynomial")
    if not base.numerator and exponent == 0:
        raise NotExactError("0^0")
    if exponent * _bits(base) > MAX_POWER_BITS:
        raise NotExactError("power too large")
    result, square = constant(1), base
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result


def _bits(value: Exact) -> int:
    """Bound the bits that one multiplication by this value adds to a coefficient."""
    coefficients = [*value.numerator.values(), *value.denominator.values()]
    bits = (c.numerator.bit_length() + c.denominator.bit_length() for c in coefficients)
    return max(bits, default=1) - 1


def _single_constant(value: Exact) -> tuple[Monomial, Fraction | int]:
    """Return the only term of a constant such as -3 or 2*5^(1/2), free of variables and i."""
    if value.denominator is not _ONE or len(value.numerator) != 1:
        raise NotExactError("root of a sum")
    ((monomial, coefficient),) = value.numerator.items()
    if any(isinstance(generator, str) for generator, _ in monomial):
        raise NotExactError("root of a variable")
    return monomial, coefficient


def _prime_power(prime: int, exponent: Fraction) -> Exact:
    """Write prime^exponent as an integer power times a monomial with exponent in (0, 1)."""
    whole, rest = divmod(exponent, 1)
    if abs(whole) * prime.bit_length() > MAX_POWER_BITS:
        raise NotExactError("power too large")
    monomial: Monomial = ((prime, rest),) if rest else ()
    return Exact({monomial: Fraction(prime) ** whole}, _ONE)


def _factors(number: int) -> dict[int, int]:
    """Factor a natural number by trial division, within MAX_RADICAND."""
    if number > MAX_RADICAND:
        raise NotExactError("radicand too large to factor")
    factors: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            number //= divisor
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        factors[number] = factors.get(number, 0) + 1
    return factors
