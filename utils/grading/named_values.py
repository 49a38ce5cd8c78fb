"""What relations say of names: values that are given to them, tuples of them, functions."""

from __future__ import annotations

import re

from utils.grading import exact_algebra, structure
from utils.grading.expression_trees import has_letters, read_tree
from utils.grading.parser import parse_exact
from utils.grading.structure import Relation

_NAMED_TUPLE = re.compile(r"\(([A-Za-z](?:,\s*[A-Za-z])+)\)\s*=\s*\((.*)\)")
_APPLIED = re.compile(r"[a-z]\([a-z]\)")


def named_like(parts: list[str], others: list[str]) -> list[str]:
    """Write `(p,q) = (2,3)` as `p=2, q=3` where the other side names its values so."""
    match = _NAMED_TUPLE.fullmatch(parts[0]) if len(parts) == 1 else None
    if match is None or not values_by_name(others):
        return parts
    names, values = (structure.split_top(match[group], ",") for group in (1, 2))
    if len(names) != len(values):
        return parts
    return [f"{name}={value}" for name, value in zip(names, values, strict=True)]


def are_in_another_order(answer: str, reference: str) -> bool:
    """Say whether names run backwards before one tuple alone: (y,x) = (1,2) is not (1,2)."""
    if answer[:1] + reference[:1] != "((":
        return False
    found, wanted = _NAMED_TUPLE.fullmatch(answer), _NAMED_TUPLE.fullmatch(reference)
    named = found or wanted
    if named is None or (found and wanted):
        return False
    letters = re.findall("[A-Za-z]", named[1])
    return all(ord(a) - ord(b) == 1 for a, b in zip(letters, letters[1:], strict=False))


def values_by_name(parts: list[str]) -> dict[str, str]:
    """Return the values of `x = 1, y = 2`, two or more of different names; else nothing."""
    values: dict[str, str] = {}
    for relation in map(structure.as_relation, parts):
        if relation is None or relation.operators != "=":
            return {}
        name, value = relation.parts
        if not structure.names_a_quantity(name):
            return {}
        values[name] = value
    return values if 1 < len(values) == len(parts) else {}


def is_assignment(relation: Relation) -> bool:
    """Say whether a relation only gives a constant to a name; 2x = 4 does not state x = 2."""
    sides = relation.parts, relation.parts[::-1]
    return relation.operators == "=" and any(
        structure.is_name(name) and (exact := parse_exact(value)) is not None
        and exact_algebra.approximate(exact) is not None
        for name, value in sides
    )  # fmt: skip


def is_equation(reference: Relation) -> bool:
    """Say whether a reference is an equation, and no value given to a quantity: `x+y = 0`."""
    quantity, *values = reference.parts
    if set(reference.operators) != {"="} or structure.is_name(quantity):
        return False
    if structure.is_letters_alone(quantity):
        return any(value == "0" or _has_variables(value) for value in values)
    return structure.is_ratio_of_angle(quantity) and any(map(_has_variables, values))


def _has_variables(text: str) -> bool:
    tree = read_tree(text)
    return tree is not None and has_letters(tree)


def with_same_function_name(left: Relation, right: Relation) -> tuple[Relation, Relation]:
    """Write y for f(x) where one relation defines y and the other f(x)."""
    first, second = left.parts[0], right.parts[0]
    if first == "y" and _APPLIED.fullmatch(second):
        right = right._replace(parts=("y", *right.parts[1:]))
    elif second == "y" and _APPLIED.fullmatch(first):
        left = left._replace(parts=("y", *left.parts[1:]))
    return left, right
