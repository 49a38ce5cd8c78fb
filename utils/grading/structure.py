"""Split normalised answers into lists, unions, relations, tuples, intervals and matrices."""

from __future__ import annotations

import re
from typing import NamedTuple

RELATIONS = "=<>≤≥≠∈≈"
FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
SEPARATORS = ",;∨"
_OPENERS = "([{⦃"
_CLOSERS = ")]}⦄"
_NAME = (
    r"(?:[A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?'*(?:\^\{-1\})?(?:\([A-Za-z](?:,\s*[A-Za-z])*\))?"
    r"|\|?[A-Z]{2,3}\|?|[A-Za-z]{4,}|\\text\{(?!\s*not?\b)[^{}]*\}|\\overline\s*\{[A-Z]{2}\}"
    r"|\\(?:alpha|beta|gamma|delta|theta|phi|lambda|mu|sigma|omega|rho)"
    r"|m?\s*\\angle\s*[A-Z]{1,3}|\([A-Za-z](?:,\s*[A-Za-z])+\))"
)
_NAMES = re.compile(rf"{_NAME}(?:\s*:\s*{_NAME})*")
_SET_BUILDER = re.compile(
    r"⦃\s*(?P<name>[A-Za-z])\s*(?:∈\s*ℝ\s*)?[:|]\s*(?P<condition>(?P=name)\b[^:|⦃⦄]*|[^:|⦃⦄]*"
    r"[<>≤≥≠=]\s*(?P=name)\b[^:|⦃⦄]*)⦄"
)
_MATRIX = re.compile(r"\\begin\{matrix\}((?:(?!\\begin).)*)\\end\{matrix\}")


class Relation(NamedTuple):
    """`parts[0] operators[0] parts[1] ...`, for example 0 < x ≤ 2."""

    parts: tuple[str, ...]
    operators: str


class Sequence(NamedTuple):
    """A tuple or an interval: brackets and elements."""

    brackets: str
    parts: tuple[str, ...]


def elements(text: str) -> list[str]:
    """Return the elements of a list or set; one element where the text is neither.

    >>> elements("1, (2,3)"), elements("⦃1,2⦄"), elements("1 ± 2")
    (['1', '(2,3)'], ['1', '2'], ['1 + 2', '1 - 2'])
    """
    if "⏎" in text and "\\begin" not in text:
        text = text.replace("⏎", ",")
    text = _without_set_braces(bare_condition(text))
    parts = split_top(text, SEPARATORS) if any(sign in text for sign in SEPARATORS) else [text]
    if "±" not in text and "∓" not in text:
        return [part for part in parts if part]
    return [signed for part in parts if part for signed in _both_signs(part)]


def bare_condition(text: str) -> str:
    """Return the condition of a set builder, and any other text as it is.

    >>> bare_condition("⦃x | x>1⦄"), bare_condition("⦃1,2⦄")
    ('x>1', '⦃1,2⦄')
    """
    match = _SET_BUILDER.fullmatch(text)
    return match["condition"].strip() if match else text


def split_top(text: str, separators: str) -> list[str]:
    """Split at the separators that stand outside every bracket."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char in _OPENERS:
            depth += 1
        elif char in _CLOSERS:
            depth -= 1
        elif depth <= 0 and char in separators:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return parts


def as_relation(text: str) -> Relation | None:
    """Read a chain of relations, or return None; an approximation keeps its exact side.

    >>> as_relation("0<x ≤ 2")
    Relation(parts=('0', 'x', '2'), operators='<≤')
    """
    if not any(char in text for char in RELATIONS):
        return None
    parts = tuple(split_top(text, RELATIONS))
    operators = "".join(_top_characters(text, RELATIONS))
    return Relation(parts, operators) if len(parts) > 1 and all(parts) else None


def exact_side(text: str) -> str:
    """Drop what follows ≈, unless only a name stands before it."""
    if "≈" not in text:
        return text
    left, _, right = text.partition("≈")
    left, right = left.strip(), right.strip()
    return right if not left or is_name(left) else left


def is_name(text: str) -> bool:
    """Say whether the text only names a quantity: x, x_1, f(x), AB, |AB|, (x,y), \\\\angle A."""
    return bool(_NAMES.fullmatch(text))


def as_sequence(text: str) -> Sequence | None:
    """Read a tuple or an interval of two or more elements, or return None.

    >>> as_sequence("[0, 1)")
    Sequence(brackets='[)', parts=('0', '1'))
    """
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    if not _encloses(text):
        return None
    parts = split_top(text[1:-1], ",;")
    return Sequence(text[0] + text[-1], tuple(parts)) if len(parts) > 1 else None


def as_matrix(text: str) -> list[list[str]] | None:
    """Read the rows of a matrix, or return None."""
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in match[1].split("⏎") if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def as_interval(relation: Relation) -> str | None:
    """Write an inequality on one name as an interval, or return None.

    >>> as_interval(Relation(("x", "5"), ">")), as_interval(Relation(("0", "x", "2"), "<≤"))
    ('(5,∞)', '(0,2]')
    """
    parts, operators = relation
    if len(parts) == 2 and is_name(parts[1]):
        parts, operators = parts[::-1], _flip(operators[::-1])
    if len(parts) == 2 and is_name(parts[0]) and operators in FLIPPED:
        bracketed = {"<": "(-∞,{})", "≤": "(-∞,{}]", ">": "({},∞)", "≥": "[{},∞)"}
        return bracketed[operators].format(parts[1])
    if len(parts) == 3 and operators[0] in ">≥":
        parts, operators = parts[::-1], _flip(operators[::-1])
    if len(parts) == 3 and is_name(parts[1]) and all(operator in "<≤" for operator in operators):
        opener, closer = "[" if operators[0] == "≤" else "(", "]" if operators[1] == "≤" else ")"
        return f"{opener}{parts[0]},{parts[2]}{closer}"
    return None


def reversed_relation(relation: Relation) -> Relation:
    """Read a relation from right to left."""
    return Relation(relation.parts[::-1], _flip(relation.operators[::-1]))


def _flip(operators: str) -> str:
    """Turn every inequality sign round."""
    return "".join(FLIPPED.get(operator, operator) for operator in operators)


def _encloses(text: str) -> bool:
    """Say whether the first bracket is closed by the last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPENERS) - (char in _CLOSERS)
        if depth == 0:
            return index == len(text) - 1
    return False


def _without_set_braces(text: str) -> str:
    """Drop the braces of a set, and bare ones that enclose the whole text."""
    while len(text) > 1 and text[0] + text[-1] in ("⦃⦄", "{}") and _encloses(text):
        text = text[1:-1].strip()
    return text


def _both_signs(text: str) -> list[str]:
    """Expand ± (and ∓, with the opposite sign) into two expressions."""
    if "±" not in text and "∓" not in text:
        return [text]
    return [text.replace("±", "+").replace("∓", "-"), text.replace("±", "-").replace("∓", "+")]


def _top_characters(text: str, wanted: str) -> list[str]:
    """List the wanted characters that stand outside every bracket."""
    found, depth = [], 0
    for char in text:
        depth += (char in _OPENERS) - (char in _CLOSERS)
        if depth <= 0 and char in wanted:
            found.append(char)
    return found
