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
_SHORT_SCRIPT = re.compile(r"([\^_])\s*\{\s*([A-Za-z0-9])\s*\}(?![A-Za-z0-9])")
_NEUTRAL, _ESCAPED = r"\xi ", r"\\xi "


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
    if match is None or _NEUTRAL.strip() in text:
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
