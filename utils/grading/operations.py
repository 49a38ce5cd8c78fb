"""Which operations of an expression are still to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from utils.grading import exact_algebra
from utils.grading.exact_algebra import NotExactError
from utils.grading.expression_trees import (
    MINUS_ONE,
    Tree,
    children,
    has_letters,
    operands,
    subtrees,
    value_of,
)


def to_do(tree: Tree) -> set[str]:
    """Name the kinds of operation that are still to do somewhere in a tree.

    None is left in a number, a name, a fraction in lowest terms, a reduced root, and in sums and
    products of unlike ones: `\\frac{3}{7}`, `2\\sqrt{3}`, `\\pi/4`, `3+4i`, `x^2+1`.

    >>> from utils.grading.expression_trees import read_tree
    >>> [sorted(to_do(read_tree(text))) for text in ("2+3x", "2+3", "2(x+1)", "\\\\sqrt{12}")]
    [[], ['add'], ['expand'], ['root']]
    """
    find = _FINDERS.get(tree.kind, _function)
    found = set(find(tree))
    return found.union(*(to_do(part) for part in children(tree)))


def operations(tree: Tree) -> int:
    """Count the operations that a tree is written with.

    >>> from utils.grading.expression_trees import read_tree
    >>> operations(read_tree("2x+\\\\frac{1}{3}"))
    3
    """
    inner = sum(map(operations, children(tree)))
    if tree.kind in ("sum", "product"):
        return inner + len(tree.parts) - 1
    return inner + (tree.kind not in ("number", "name", "inverse"))


def _is_rational(tree: Tree) -> bool:
    """Say whether a tree holds nothing but numbers, +, -, *, /, whole powers and factorials."""
    if tree.kind in ("number", "sum", "product", "inverse", "factorial", "binomial"):
        return all(map(_is_rational, children(tree)))
    return tree.kind == "power" and _is_rational(tree.parts[0]) and _is_whole(tree.parts[1])


def _is_whole(tree: Tree) -> bool:
    return tree.kind == "number" and tree.parts[0].denominator == 1


def _in_sum(tree: Tree) -> Iterator[str]:
    """Like terms: two rational numbers, 7x+10x, 2√3-√3."""
    alike = Counter(
        tuple(part for part in operands("product", term) if not _is_rational(part))
        for term in tree.parts
    )
    if max(alike.values()) > 1:
        yield "add"


def _in_product(tree: Tree) -> Iterator[str]:
    factors = [part for part in tree.parts if part != MINUS_ONE]
    divisors = [part.parts[0] for part in factors if part.kind == "inverse"]
    numbers = [part for part in factors if part.kind != "inverse" and _is_rational(part)]
    divided = [part for part in divisors if _is_rational(part)]
    if len(numbers) > 1 or len(divided) > 1 or (divided and not _lowest(numbers, divided[0])):
        yield "multiply"
    rest = [part for part in (*factors, *divisors) if part.kind not in ("inverse", "sum")]
    bases = Counter(part.parts[0] if part.kind == "power" else part for part in rest
                    if not _is_rational(part))  # fmt: skip
    roots = sum(part.kind == "root" and not has_letters(part) for part in rest)
    if max(bases.values(), default=0) > 1 or roots > 1:
        yield "multiply"
    whole = [part for part in factors if part.kind != "inverse"]
    if len(whole) > 1 and any(_is_sum(part) for part in whole):
        yield "expand"
    yield from (kind for divisor in divisors for kind in _in_divisor(divisor))


def _in_divisor(tree: Tree) -> Iterator[str]:
    if has_letters(tree):
        yield "divide"
    elif any(node.kind == "root" or node == ("name", ("i",)) for node in subtrees(tree)):
        yield "rationalize"


def _is_sum(tree: Tree) -> bool:
    return tree.kind == "sum" or (tree.kind == "power" and tree.parts[0].kind == "sum")


def _lowest(numbers: list[Tree], divisor: Tree) -> bool:
    """Say whether a fraction of two plain numbers is in lowest terms."""
    if not _is_whole(divisor) or divisor.parts[0] == 1 or not all(map(_is_whole, numbers)):
        return False
    return all(math.gcd(int(n.parts[0]), int(divisor.parts[0])) == 1 for n in numbers)


def _in_power(tree: Tree) -> Iterator[str]:
    base, exponent = tree.parts
    if base.kind in ("product", "inverse", "power", "root") or base == ("name", ("i",)):
        yield "power"
    elif _is_rational(base) and _is_rational(exponent):
        yield "power" if _is_whole(exponent) else "root"
    elif base.kind == "sum" and _is_whole(exponent):
        yield "expand"
    elif base.kind == "sum" and _is_rational(exponent) and not has_letters(base):
        yield "root"


def _in_root(tree: Tree) -> Iterator[str]:
    """Yield "root" for a rational number of which a factor, or the whole, has a root.

    A root of roots is "nested": whether it can be written without is not asked.
    """
    radicand, degree = tree.parts
    if not _is_rational(radicand):
        if not has_letters(radicand) and any(node.kind == "root" for node in subtrees(radicand)):
            yield "nested"
        return
    try:
        value = exact_algebra.root(value_of(radicand), degree)
    except NotExactError:  # too large to take apart
        yield "root"
        return
    if not _is_whole(radicand) or list(value.numerator.values()) != [1]:
        yield "root"


def _function(tree: Tree) -> Iterator[str]:
    """Yield the name of a function of constants."""
    if not has_letters(tree):
        yield tree.kind


_FINDERS = {
    **dict.fromkeys(("number", "name", "inverse"), lambda tree: iter(())),
    **{"sum": _in_sum, "product": _in_product, "power": _in_power, "root": _in_root},
}
