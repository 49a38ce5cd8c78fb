"""Split normalised answers into lists, unions, relations, tuples, intervals and matrices."""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.grading import prose

RELATIONS = "=<>≤≥≠∈≈≡"
FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
SEPARATORS = ",;∨∧"
_OPENERS = "([{⦃"
_CLOSERS = ")]}⦄"
_NAME = (
    r"(?:[A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?'*(?:(?<=[fghA-Z])\^\{-1\})?(?:\([A-Za-z](?:,\s*[A-Za-z])*\))?"
    r"|\|?[A-Z]{2,3}\|?|[A-Za-z]{4,}|\\text\{(?!\s*not?\b)[^{}]*\}|\\overline\s*\{[A-Z]{2}\}"
    r"|\\(?:alpha|beta|gamma|delta|theta|phi|lambda|mu|sigma|omega|rho)"
    r"|m?\s*\\angle\s*[A-Z]{1,3}|\([A-Za-z](?:,\s*[A-Za-z])+\))"
)
_SHORTEST_WORDS = 4
_OPERATES = re.compile(
    r"^(?:square|cube|sqrt|triple|thrice|root|log|factorial|power)d?$|"
    r"\b(?:minus|negative|(?:square|cube)d? (?:of|root)|root of|reciprocal|inverse|times|"
    r"of the (?:\w+ )?answer)\b",
    re.I,
)
_LETTER = r"[A-Za-z](?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?"
_LETTERS_ALONE = re.compile(rf"{_LETTER}(?:\s*[+*-]?\s*{_LETTER})+")
_RATIO_OF_ANGLE = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\\angle\s*)?(?:[A-Z]{1,3}|[a-z]|\\[a-z]+)"
)
_QUANTITY = re.compile(
    r"(?:[fghFGPESTVN]|\\text\{(?:P|Pr|E|Var)\}|\\Pr|\\mathbb\{[PE]\})(?:_\{?\w+\}?)?"
    r"\s*[(\[][^()\[\]]*(?:\([^()]*\)[^()\[\]]*)?[)\]]"
    r"|\|[A-Z]\||\\det\s*(?:[A-Z]|\([A-Z]\)|\\mathbf\{[A-Z]\})|\\(?:lim|int|sum|prod)\s*_[^=<>]*"
    r"|\\(?:max|min)(?:\s*_\{[^{}]*\})?\s*(?:[a-z](?:\([a-z]\))?)?"
    r"|\\frac\{d(?:\^2)?\s*[A-Za-z]?\}\{d\s*[A-Za-z](?:\^2)?\}"
    r"|[A-Za-z]_\{\s*(?:\\(?:max|min|text\{[^{}]*\})|(?:\\triangle)?\s*[A-Z]{3,4})\s*\}"
    r"|(?:\\text\{[^{}]*\}\s*)?\\triangle\s*[A-Z]{3}|\[[A-Z]{3,4}\]"
    rf"|{_RATIO_OF_ANGLE.pattern}"
)
_MEMBERSHIP = re.compile(
    r"\s*(?:[A-Za-z](?:_\{?\w+\}?)?|\([A-Za-z](?:,\s*[A-Za-z])+\))"
    r"\s*(?:[∈=]\s*(?P<set>⦃[^⦃⦄|:<>≤≥=]*⦄)|(?P<point>\([^()]*,[^()]*\)))"
)
_NAMES = re.compile(rf"{_NAME}(?:\s*:\s*{_NAME})*")
_SET_BUILDER = re.compile(
    r"⦃\s*(?P<name>[A-Za-z])\s*(?:∈\s*ℝ\s*)?[:|]\s*(?P<condition>(?P=name)\b[^:|⦃⦄]*|[^:|⦃⦄]*"
    r"[<>≤≥≠=]\s*(?P=name)\b[^:|⦃⦄]*)⦄"
)
_MATRIX = re.compile(
    r"(?P<factor>[^,;&=<>≤≥≠∈⏎]*?)\\begin\{matrix\}(?P<rows>(?:(?!\\begin).)*)\\end\{matrix\}\s*"
    r"(?P<transposed>\^\s*\{?\s*(?:T|\\top|\\intercal|\\text\{T\})\s*\}?)?"
)


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
    """Say whether the text only names a quantity: x, x_1, f(x), AB, |AB|, (x,y), \\\\angle A.

    Words do, unless they turn it into another one: half of the answer.
    """
    if not _NAMES.fullmatch(text):
        return False
    return len(text) < _SHORTEST_WORDS or not (prose.turns(text) or _OPERATES.search(text))


def names_a_quantity(text: str) -> bool:
    """Say whether the text names what is asked for: a name, P(X=2), f(3), or m+n of letters alone.

    An expression with a number in it is an equation's side, and states no value: x-1 = 4.

    >>> names_a_quantity("m+n"), names_a_quantity("f(3)"), names_a_quantity("2x"), is_name("2x")
    (True, True, False, False)
    """
    if is_name(text):
        return True
    if text.isalpha() and len(text) >= _SHORTEST_WORDS:
        return False  # words that are no name: triple = 5
    if is_letters_alone(text):
        letters = re.findall(_LETTER, text)
        return len(set(letters)) == len(letters)  # x+x = 4 says something of x
    return bool(_QUANTITY.fullmatch(text))


def is_letters_alone(text: str) -> bool:
    """Say whether a text is a sum, difference or product of letters: `m+n`, `xy`."""
    return bool(_LETTERS_ALONE.fullmatch(text))


def is_ratio_of_angle(text: str) -> bool:
    """Say whether a text is a trigonometric ratio of a named angle: `\\\\sin A`."""
    return bool(_RATIO_OF_ANGLE.fullmatch(text))


def members(text: str) -> str:
    """Return what is said of a name, in `x ∈ ⦃3, 8⦄`, `A = ⦃2, 5⦄`, `P(3, -1)`; else the text."""
    match = _MEMBERSHIP.fullmatch(text) if text[-1:] in ("⦄", ")") else None
    if match is None:
        return text
    if match["set"]:
        return match["set"] if _encloses(match["set"]) else text
    return match["point"] if text[0].isupper() else text


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


def without_brackets(text: str) -> str:
    """Drop brackets around a whole ratio or number with its base.

    >>> without_brackets("(1:2)"), without_brackets("(101_2)"), without_brackets("(1,2)")
    ('1:2', '101_2', '(1,2)')
    """
    if text[:1] != "(" or not (":" in text or "_" in text) or not _encloses(text):
        return text
    return text if as_sequence(text) else text[1:-1].strip()


def as_matrix(text: str) -> list[list[str]] | None:
    """Read the rows of a matrix, times a number and transposed where that is written; or None.

    >>> as_matrix(r"2\\begin{matrix}1&2\\end{matrix}^T")
    [['(2)(1)'], ['(2)(2)']]
    """
    match = _MATRIX.fullmatch(text) if "matrix" in text else None
    if match is None:
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in match["rows"].split("⏎")
            if row.strip()]  # fmt: skip
    if factor := match["factor"].strip(" *"):
        factor = "-1" if factor == "-" else factor
        rows = [[f"({factor})({cell})" for cell in row] for row in rows]
    if match["transposed"] and len({len(row) for row in rows}) == 1:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return rows


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
        if text[1:-1].strip() == "∅":
            break  # the set that holds the empty set
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
