"""Expressions as trees, as they are written.

The parser of answers builds the trees, as it builds exact values: brackets, spacing and the
spelling of a quotient leave no trace, operands of + and * stand in one order, nothing is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from utils.grading import counting, exact_algebra
from utils.grading.exact_algebra import Exact, NotExactError
from utils.grading.parser import Parser


class Tree(NamedTuple):
    """A node: `kind` is number, name, sum, product, inverse, power, root or a function's name."""

    kind: str
    parts: tuple[Any, ...]


MINUS_ONE = Tree("number", (Fraction(-1),))
_ONE = Tree("number", (Fraction(1),))
_CONSTANTS = {"π", "°", "i", "∞"}


@lru_cache(maxsize=10_000)
def read_tree(text: str) -> Tree | None:
    """Read normalised text, or return None where the parser does not reach.

    >>> read_tree("33 + 2") == read_tree("(2+33)"), read_tree("2+33") == read_tree("35")
    (True, False)
    """
    try:
        return _TreeParser(text, _TreeAlgebra()).parse()
    except (NotExactError, IndexError):
        return None


def subtrees(tree: Tree) -> Iterator[Tree]:
    """Yield a tree and all that stands in it."""
    yield tree
    for part in children(tree):
        yield from subtrees(part)


def stands_in(part: Tree, whole: Tree) -> bool:
    """Say whether an expression, or all its terms or factors side by side, stand in another one.

    >>> stands_in(read_tree("5+3"), read_tree("2*(3+4+5)"))
    True
    """
    return any(part == node or _joins(part, node) for node in subtrees(whole))


def has_letters(tree: Tree) -> bool:
    """Say whether a variable stands in a tree."""
    return any(node.kind == "name" and node.parts[0] not in _CONSTANTS for node in subtrees(tree))


@lru_cache(maxsize=10_000)
def value_of(tree: Tree) -> Exact:
    """Return the exact value; what exact arithmetic cannot compute stands for itself."""
    try:
        return _compute(tree)
    except NotExactError:
        return exact_algebra.variable(repr(tree))


def children(tree: Tree) -> list[Tree]:
    """Return the nodes directly below one."""
    return [part for part in tree.parts if isinstance(part, Tree)]


def _joins(part: Tree, node: Tree) -> bool:
    if part.kind != node.kind or node.kind not in ("sum", "product"):
        return False
    return Counter(part.parts) <= Counter(node.parts)


class _TreeAlgebra:
    """Builds trees (`utils.grading.algebra`)."""

    def constant(self, value: Fraction | int) -> Tree:
        return Tree("number", (Fraction(value),))

    def variable(self, name: str) -> Tree:
        return Tree("name", (name,))

    def degrees(self, value: Tree) -> Tree:
        return _product((value, Tree("name", ("°",))))

    def add(self, left: Tree, right: Tree) -> Tree:
        terms = [part for side in (left, right) for part in operands("sum", side)]
        return Tree("sum", tuple(sorted(terms, key=repr)))

    def negate(self, value: Tree) -> Tree:
        return _negated(value)

    def multiply(self, left: Tree, right: Tree) -> Tree:
        return _product((*_sign_apart(left), *_sign_apart(right)))

    def divide(self, left: Tree, right: Tree) -> Tree:
        return _product((left, _inverse(right)))

    def power(self, base: Tree, exponent: Tree) -> Tree:
        return Tree("power", (base, exponent))

    def root(self, value: Tree, degree: int) -> Tree:
        return Tree("root", (value, degree))

    def factorial(self, value: Tree) -> Tree:
        return Tree("factorial", (value,))

    def as_rational(self, value: Tree) -> Fraction | int | None:
        if value.kind != "number":
            return None
        number: Fraction = value.parts[0]
        return number.numerator if number.denominator == 1 else number

    def function(self, name: str, argument: Tree, base: Tree | None) -> Tree:
        return Tree(name, (argument,) if base is None else (argument, base))


class _TreeParser(Parser[Tree]):
    """Leaves factorials and binomials as they are written."""

    def _factorial(self, value: Tree) -> Tree:
        return Tree("factorial", (value,))

    def _binomial(self, top: Tree, bottom: Tree) -> Tree:
        return Tree("binomial", (top, bottom))


def operands(kind: str, tree: Tree) -> tuple[Tree, ...]:
    """Return the parts of a node of this kind; another one is its own only part."""
    return tree.parts if tree.kind == kind else (tree,)


def _negated(tree: Tree) -> Tree:
    if tree.kind == "sum":
        return Tree("sum", tuple(sorted(map(_negated, tree.parts), key=repr)))
    return _product((MINUS_ONE, tree))


def _product(factors: Iterable[Tree]) -> Tree:
    """Multiply, with one sign in front; a sign alone goes into a number or through a sum."""
    flat = [part for factor in factors for part in operands("product", factor)]
    negative = sum(part.kind == "number" and part.parts[0] < 0 for part in flat) % 2
    kept = [_magnitude(part) for part in flat if part != MINUS_ONE]
    if len(kept) > 1:
        sign = (MINUS_ONE,) if negative else ()
        return Tree("product", (*sign, *sorted(kept, key=repr)))
    single = kept[0] if kept else _ONE
    if not negative:
        return single
    if single.kind == "number":
        return Tree("number", (-single.parts[0],))
    return _negated(single) if single.kind == "sum" else Tree("product", (MINUS_ONE, single))


def _sign_apart(factor: Tree) -> tuple[Tree, ...]:
    """Keep the one of a factor -1, so that a product with it stays one."""
    return (MINUS_ONE, _ONE) if factor == MINUS_ONE else (factor,)


def _magnitude(tree: Tree) -> Tree:
    return Tree("number", (abs(tree.parts[0]),)) if tree.kind == "number" else tree


def _inverse(tree: Tree) -> Tree:
    if tree.kind == "inverse":
        inner: Tree = tree.parts[0]
        return inner
    if tree.kind == "product":
        return _product(map(_inverse, tree.parts))
    if tree == MINUS_ONE:
        return tree
    if tree.kind == "number" and tree.parts[0] < 0:
        return _product((MINUS_ONE, Tree("inverse", (_magnitude(tree),))))
    return Tree("inverse", (tree,))


def _compute(tree: Tree) -> Exact:
    if tree.kind == "number":
        return exact_algebra.constant(tree.parts[0])
    if tree.kind == "name":
        return exact_algebra.variable(tree.parts[0])
    values = [value_of(part) for part in children(tree)]
    if tree.kind == "sum":
        return _folded(exact_algebra.add, values)
    if tree.kind == "product":
        return _folded(exact_algebra.multiply, values)
    if tree.kind == "inverse":
        return exact_algebra.divide(exact_algebra.constant(1), values[0])
    if tree.kind == "power":
        return exact_algebra.power(*values)
    if tree.kind == "root":
        inner, degree = tree.parts
        if inner.kind == "power" and inner.parts[1] == Tree("number", (Fraction(degree),)):
            return value_of(inner.parts[0])  # a decoration; of the sign nobody asks here
        return exact_algebra.root(values[0], tree.parts[1])
    if tree.kind == "factorial":
        return counting.factorial(exact_algebra, values[0])
    if tree.kind == "binomial":
        return counting.binomial(exact_algebra, *values)
    raise NotExactError(tree.kind)


def _folded(operation: Callable[[Exact, Exact], Exact], values: list[Exact]) -> Exact:
    total = values[0]
    for value in values[1:]:
        total = operation(total, value)
    return total
