"""Arithmetic progressions without an end: `7k+3, k ∈ ℤ`, `x ≡ 3 (mod 7)`, kπ ± π/6."""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.grading import bound_names, exact_algebra, structure
from utils.grading.exact_algebra import Exact
from utils.grading.parser import parse_exact

_CONGRUENCE = re.compile(
    r"(?:(?P<name>[A-Za-z](?:_\{?\w+\}?)?)\s*[≡=]\s*)?"
    r"(?P<firsts>[^()≡=]+)\(\\bmod (?P<step>[^()]+)\)"
)


class Progression(NamedTuple):
    """The name that runs through it ("" for none), one number of each class, and the step."""

    name: str
    firsts: list[Exact]
    step: Exact


def read_progression(text: str) -> Progression | None:
    """Read a congruence, or what is linear in a name of its own that runs through ℤ.

    >>> read_progression("x ≡ 10 (\\\\bmod 7)").name, read_progression("x = 7")
    ('x', None)
    """
    if "mod" in text and (match := _CONGRUENCE.fullmatch(text)):
        step = parse_exact(match["step"])
        firsts = [parse_exact(part) for part in structure.elements(match["firsts"].strip())]
        return _progression(match["name"] or "", firsts, step)
    family = bound_names.as_family(text)
    if family is None or family.numbers != "ℤ":
        return None
    name, _, body = family.body.rpartition("=")
    bodies = structure.elements(body)
    at = [[parse_exact(each.replace(bound_names.NEUTRAL, f"({k})")) for each in bodies]
          for k in (0, 1, 2)]  # fmt: skip
    steps = [_difference(after, before) for pair in zip(at, at[1:], strict=False)
             for before, after in zip(*pair, strict=True)]  # fmt: skip
    if not steps or any(step is None or step != steps[0] for step in steps):
        return None
    return _progression(name.strip(), at[0], steps[0])


def same_progressions(left: Progression, right: Progression) -> bool:
    """Say whether two run through the same numbers: the steps agree, and the classes.

    >>> both = read_progression("x ≡ 10 (\\\\bmod 7)"), read_progression("x=7k+3, k∈ℤ")
    >>> same_progressions(*both), same_progressions(both[0], read_progression("4 (\\\\bmod 7)"))
    (True, False)
    """
    ratio = exact_algebra.rational_ratio(left.step, right.step)
    if ratio not in (1, -1) or len(left.firsts) != len(right.firsts):
        return False
    if left.name and right.name and left.name != right.name:
        return False
    remaining = list(right.firsts)
    for first in left.firsts:
        match = next((other for other in remaining if _congruent(first, other, left.step)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _progression(name: str, firsts: list[Exact | None], step: Exact | None) -> Progression | None:
    known = [first for first in firsts if first is not None]
    if step is None or not step.numerator or not known or len(known) < len(firsts):
        return None
    return Progression(name, known, step)


def _congruent(one: Exact, other: Exact, step: Exact) -> bool:
    difference = _difference(one, other)
    if difference is None or not difference.numerator:
        return difference is not None
    ratio = exact_algebra.rational_ratio(difference, step)
    return ratio is not None and ratio.denominator == 1


def _difference(left: Exact | None, right: Exact | None) -> Exact | None:
    if left is None or right is None:
        return None
    try:
        return exact_algebra.add(left, exact_algebra.negate(right))
    except exact_algebra.NotExactError:
        return None
