"""Names that mean nothing outside an answer: k in `kπ, k ∈ ℤ`, the index of a sum, x_1 and x_2."""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.grading import structure

_FAMILY = re.compile(
    r"(?P<body>.+?)[\s,;:(\[]*"
    r"(?:\\text\{\s*(?:for|where|with)(?: (?:some|any|all|every))?\s*\}\s*)?"
    r"(?<![A-Za-z\\])(?P<name>[a-z])\s*∈\s*"
    r"(?P<set>[ℤℕℝ](?:\s*\^\s*\{?\s*[+*]\s*\}?|_\{?[+0]\}?)?)\s*[)\]]?"
)
_BUILDER = re.compile(r"⦃(?P<body>[^⦃⦄|:]+)[|:](?P<member>\s*[a-z]\s*∈\s*[ℤℕℝ][^⦃⦄|:]*)⦄")
_INDEX = re.compile(
    r"\\(?:sum|prod|bigcup|bigcap)\s*_\s*\{\s*(?P<name>[a-z])\s*[=∈]|\\int.*d\s*(?P<of>[a-z])(?![a-z])"
)
_APPLIED = re.compile(r"(?P<function>[A-Za-z])\((?P<name>[a-z])\)")
# A function's domain, or an index that runs as an index does, says nothing new.
_DOMAIN = re.compile(
    r"(?P<function>[a-z]\((?P<x>[a-z])\)\s*=.*?)"
    r"[\s,]*(?:\\text\s*\{\s*for (?:all|every)(?: reals?)?"
    r"(?: numbers?)?\s*\}|for all(?: reals?)?(?: numbers?)?|\\forall)\s*(?P=x)\s*(?:∈\s*ℝ)?"
    r"|(?P<term>[A-Za-z]_\{?n\}?\s*=.*?)[\s,(]*n\s*∈\s*ℕ\s*"
    r"(?:\^?\s*\{?\s*[*+]\s*\}?|_\s*\{?\s*\+\s*\}?)?\s*\)?"
)
# A constant of integration: `+C` at the end, or in the solution y of an equation.
_CONSTANT = re.compile(r"(?<![\\A-Za-z_{])([CcKk])(_\{?[012]\}?)?(?![a-z]{3})")
_SOLUTION = re.compile(
    r"(?:y|[yf]\([a-z]\))\s*=.*|(?=.*(?:(?<![A-Za-z\\])[xtuyz]|\\theta)).*\+\s*[Cc](?:_\{?[01]\}?)?"
)
_SHORT_SCRIPT = re.compile(r"([\^_])\s*\{\s*([A-Za-z0-9])\s*\}(?![A-Za-z0-9])")
NEUTRAL, _ESCAPED = r"\xi ", r"\\xi "


Parts = tuple[str, ...]


class Family(NamedTuple):
    """What is said of every whole number of a set, with its name made neutral."""

    body: str
    numbers: str


def as_family(text: str) -> Family | None:
    """Read `kπ, k ∈ ℤ`, or return None.

    >>> as_family("2kπ, k ∈ ℤ")
    Family(body='2\\\\xi π', numbers='ℤ')
    """
    if not any(numbers in text for numbers in "ℤℕℝ"):
        return None
    if builder := _BUILDER.fullmatch(text):
        text = f"{builder['body']}, {builder['member']}"
    match = _FAMILY.fullmatch(text)
    if match is None or NEUTRAL.strip() in text:
        return None
    body = _renamed(match["body"].rstrip(" ,;("), match["name"])
    return Family(body, "".join(match["set"].split())) if body != match["body"] else None


def with_neutral_index(text: str) -> str:
    """Give the index of a sum or product a name of its own.

    >>> with_neutral_index(r"\\sum_{k=1}^{n} k^2")
    '\\\\sum_{\\\\xi =1}^n \\\\xi ^2'
    """
    match = _INDEX.search(text) if "\\" in text else None
    if match is None:
        return text
    name, text = match["name"] or match["of"], _SHORT_SCRIPT.sub(r"\1\2", text)
    text = re.sub(rf"d\s*{name}(?![A-Za-z])", f"d {name}", text)
    return re.sub(rf"(?<=_){name}(?![A-Za-z])", _ESCAPED, _renamed(text, name))


def without_domain(text: str) -> str:
    """Drop `for all x ∈ ℝ` after f(x) = ..., and `n ∈ ℕ` after a_n = ...

    >>> without_domain("f(x) = 2x for all x"), without_domain("f(x) = x for x>0")
    ('f(x) = 2x', 'f(x) = x for x>0')
    """
    if "all" not in text and "∈" not in text:
        return text
    match = _DOMAIN.fullmatch(text)
    return (match["function"] or match["term"]).strip() if match else text


def with_capital_constant(text: str) -> str:
    """Write constants of integration with a capital; another letter may be a name that is given.

    >>> [with_capital_constant(text) for text in ("x^2+c", "y=ke^x", "a+c")]
    ['x^2+C', 'y=Ke^x', 'a+c']
    """
    found = set(_CONSTANT.findall(text))
    if not found or "\\text" in text or not _SOLUTION.fullmatch(text):
        return text
    indices = {index for _, index in found}
    if len(found) > 1 and ("" in indices or not len(found) == len(indices) == 2):
        return text
    return _CONSTANT.sub(lambda match: match[0].capitalize(), text)


def with_one_argument(left: Parts, right: Parts) -> tuple[Parts, Parts]:
    """Give f(x) = ... and f(t) = ... the same argument.

    >>> with_one_argument(("f(x)", "x^2"), ("f(t)", "t^2"))
    (('f(\\\\xi )', '\\\\xi ^2'), ('f(\\\\xi )', '\\\\xi ^2'))
    """
    first, second = _APPLIED.fullmatch(left[0]), _APPLIED.fullmatch(right[0])
    if not first or not second or first["function"] != second["function"]:
        return left, right
    names = first["name"], second["name"]
    if names[0] == names[1]:
        return left, right
    renamed = [tuple(_renamed(part, name) for part in parts)
               for parts, name in zip((left, right), names, strict=True)]  # fmt: skip
    if any(name in re.sub(r"\\[A-Za-z]+", "", "".join(parts))
           for parts in renamed for name in names):  # fmt: skip
        return left, right  # amid other letters, or free in the other one
    return renamed[0], renamed[1]


def without_numbers(found: list[str], wanted: list[str]) -> tuple[list[str], list[str]]:
    """Return the values of `x_1 = 2, x_2 = -3`, unless both sides are numbered so.

    >>> without_numbers(["x_1=2", "x_2=-3"], ["-3", "2"])
    (['2', '-3'], ['-3', '2'])
    """
    if all(any("_" in part.partition("=")[0] for part in parts) for parts in (found, wanted)):
        return found, wanted  # x_1 and x_2 are two unknowns, each with its value
    return _values(found) or found, _values(wanted) or wanted


def _values(parts: list[str]) -> list[str] | None:
    relations = [structure.as_relation(part) for part in parts]
    if any(item is None or item.operators != "=" for item in relations):
        return None
    named = [item.parts for item in relations if item]
    names = {re.sub(r"_\{?\d+\}?$", "", name) for name, *_ in named}
    if len(names) != 1 or not structure.is_name(named[0][0]):
        return None
    return [value for _, value in named]


def _renamed(text: str, name: str) -> str:
    alone = rf"(?<![A-Za-z\\_]){name}(?![A-Za-z])|(?<=\d){name}(?![A-Za-z])"
    return re.sub(alone, _ESCAPED, text)
