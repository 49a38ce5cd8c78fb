"""What the parser of answers computes with."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, TypeVar

V = TypeVar("V")


class Algebra(Protocol[V]):
    """What the parser computes with; each raises NotExactError for what it cannot do."""

    def constant(self, value: Fraction | int) -> V:
        """Make the value of a rational number."""

    def variable(self, name: str) -> V:
        """Make the value of a letter, of π or of ∞."""

    def degrees(self, value: V) -> V:
        """Read a value in degrees."""

    def add(self, left: V, right: V) -> V:
        """Add."""

    def negate(self, value: V) -> V:
        """Change the sign."""

    def multiply(self, left: V, right: V) -> V:
        """Multiply."""

    def divide(self, left: V, right: V) -> V:
        """Divide."""

    def power(self, base: V, exponent: V) -> V:
        """Raise to a power."""

    def root(self, value: V, degree: int) -> V:
        """Take a root."""

    def factorial(self, value: V) -> V:
        """Make the factorial of what is no number."""

    def as_rational(self, value: V) -> Fraction | int | None:
        """Return the rational number that a value is, or None."""

    def function(self, name: str, argument: V, base: V | None) -> V:
        """Apply an elementary function; `base` is a logarithm's."""
