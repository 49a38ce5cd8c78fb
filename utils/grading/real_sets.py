"""Sets of real numbers with exact constant ends: unions, differences and inequalities.

Brought to one form (disjoint pieces in rising order), two descriptions of the same set compare
equal: `x ≠ 1` and `(-∞,1) ∪ (1,∞)`, or `[1,2] ∪ [2,3]` and `[1,3]`. Ends that are not real
constants are outside this module; the caller then compares piece by piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import NamedTuple

from utils.grading import exact_algebra, structure
from utils.grading.exact_algebra import Exact
from utils.grading.parser import parse_exact

MARKS = "∪∩∖ℝ≠∨<>≤≥∅"
MAX_PIECES = 32
_ABSOLUTE = re.compile(r"\|([^|]+)\|")
_SHIFTED = re.compile(r"(?P<name>[A-Za-z])\s*(?P<shift>[+-][^|]+)?")
_INFINITY = Decimal("Infinity")
# Ends are put in order by 40 digits, so that two spellings of one number coincide.
_ORDER = Context(prec=40)


@dataclass(frozen=True, slots=True, order=True)
class Bound:
    """A cut in the line: just below `value` (side 0) or just above it (side 1)."""

    value: Decimal
    side: int
    exact: Exact | None = field(default=None, compare=False)


Piece = tuple[Bound, Bound]
EVERYTHING: list[Piece] = [(Bound(-_INFINITY, 1), Bound(_INFINITY, 0))]


class RealSet(NamedTuple):
    """The name that an inequality bounds ("" for a bare set), and the pieces in rising order."""

    name: str
    pieces: list[Piece]


def read_real_set(text: str) -> RealSet | None:
    """Read a normalised description of a set, or return None.

    >>> read_real_set("x≠1") == RealSet("x", read_real_set("(-∞,1)∪(1,∞)").pieces)
    True
    """
    if len(structure.split_top(text, structure.SEPARATORS)) > MAX_PIECES:
        return None
    alternatives = structure.split_top(structure.bare_condition(text), "∨")
    found = [_read_alternative(part) for part in alternatives]
    if any(item is None for item in found):
        return None
    sets = [item for item in found if item]
    if len({item.name for item in sets}) != 1:
        return None
    if len(sets) > 1 and not sets[0].name and "∞" not in text:
        return None  # (1,2) or (3,4) may be two points
    return RealSet(sets[0].name, _union([piece for item in sets for piece in item.pieces]))


def _read_alternative(text: str) -> RealSet | None:
    """Read one union of intervals, or inequalities that all hold."""
    relation = structure.as_relation(text)
    if relation is None:
        pieces = _read_union(text)
        if pieces is None and "∞" in text:
            # A list of intervals that share nothing is their union.
            listed = [_read_union(part) for part in structure.split_top(text, ",;")]
            pieces = _disjoint_union(listed) if all(listed) else None
        return RealSet("", pieces) if pieces is not None else None
    conditions = [_read_condition(part) for part in structure.split_top(text, ",;∧")]
    sets = [item for item in conditions if item]
    if len(sets) != len(conditions) or len({item.name for item in sets}) != 1:
        return None
    pieces = EVERYTHING
    for item in sets:
        pieces = _intersection(pieces, item.pieces)
    if not pieces and "∧" not in text:
        # `x<1, x>3`: the comma cannot have meant "and".
        pieces = _disjoint_union([item.pieces for item in sets])
        return RealSet(sets[0].name, pieces) if pieces else None
    return RealSet(sets[0].name, pieces)


def _read_condition(text: str) -> RealSet | None:
    """Read an inequality, `x ≠ value` or `x ∈ set` on one name."""
    relation = structure.as_relation(text)
    if relation is None:
        return None
    parts, operators = relation
    if operators == "∈" and structure.is_name(parts[0]):
        pieces = _read_union(parts[1])
        return RealSet(parts[0], pieces) if pieces is not None else None
    if operators == "=" and structure.is_name(parts[0]):
        point = _read_points(parts[1])
        return RealSet(parts[0], point) if point else None
    if operators == "≠" and structure.is_name(parts[0]):
        point = _read_points(parts[1])
        return RealSet(parts[0], _complement(point)) if point else None
    if (inside := _ABSOLUTE.fullmatch(parts[0])) and len(parts) == 2:
        return _read_absolute(inside[1], operators, parts[1])
    interval = structure.as_interval(relation)
    name = next((part for part in parts if structure.is_name(part)), None)
    if interval is None or name is None:
        return None
    pieces = _read_union(interval)
    return RealSet(name, pieces) if pieces is not None else None


def _read_absolute(inside: str, operator: str, distance: str) -> RealSet | None:
    """Read |x - c| against a constant; x has a factor of one."""
    shifted = _SHIFTED.fullmatch(inside)
    if shifted is None or operator not in structure.FLIPPED:
        return None
    centre = f"-({shifted['shift']})" if shifted["shift"] else "0"
    ends = f"{centre}-({distance}),{centre}+({distance})"
    beyond = _read_bound(distance, 0)
    if beyond is None or beyond.value <= 0:
        return None
    pieces = _read_union(f"({ends})" if operator in "<≥" else f"[{ends}]")
    if pieces is None:
        return None
    return RealSet(shifted["name"], pieces if operator in "<≤" else _complement(pieces))


def _read_union(text: str) -> list[Piece] | None:
    """Read intervals, finite sets, ℝ and ∅ joined by ∪, ∩ (which binds closer) and ∖."""
    total: list[Piece] = []
    for index, part in enumerate(structure.split_top(text, "∖")):
        pieces: list[Piece] = []
        for item in structure.split_top(part, "∪"):
            shared = EVERYTHING
            for factor in structure.split_top(item, "∩"):
                piece = _read_piece(factor)
                if piece is None:
                    return None
                shared = _intersection(shared, piece)
            pieces += shared
        total = _intersection(total, _complement(_union(pieces))) if index else _union(pieces)
    return total


def _read_piece(text: str) -> list[Piece] | None:
    """Read one interval, finite set, ℝ or ∅."""
    if text in ("ℝ", "∅"):
        return list(EVERYTHING) if text == "ℝ" else []
    if text.startswith("⦃") and text.endswith("⦄"):
        return _read_points(text[1:-1])
    sequence = structure.as_sequence(text)
    if sequence is None or len(sequence.parts) != 2:
        return None
    low = _read_bound(sequence.parts[0], int(sequence.brackets[0] == "("))
    high = _read_bound(sequence.parts[1], int(sequence.brackets[1] == "]"))
    return [(low, high)] if low and high and low.value < high.value else None


def _read_points(text: str) -> list[Piece] | None:
    """Read the elements of a finite set as pieces of one point."""
    pieces = []
    for part in structure.split_top(text, ",;"):
        low, high = _read_bound(part, 0), _read_bound(part, 1)
        if low is None or high is None or low.exact is None:
            return None
        pieces.append((low, high))
    return _union(pieces)


def _read_bound(text: str, side: int) -> Bound | None:
    """Evaluate a real constant, or an infinity."""
    bare = text.replace(" ", "")
    if bare in ("∞", "+∞"):
        return Bound(_INFINITY, 0) if side == 0 else None
    if bare == "-∞":
        return Bound(-_INFINITY, 1) if side == 1 else None  # no set of reals holds it
    exact = parse_exact(text)
    value = exact_algebra.approximate(exact) if exact is not None else None
    return Bound(_ORDER.plus(value), side, exact) if value is not None else None


def same_pieces(left: list[Piece], right: list[Piece]) -> bool:
    """Compare the pieces of two sets, exactly."""
    return len(left) == len(right) and all(
        _same_bound(a, b) and _same_bound(c, d) for (a, c), (b, d) in zip(left, right, strict=True)
    )


def _same_bound(left: Bound, right: Bound) -> bool:
    if left.exact is None or right.exact is None or left.side != right.side:
        return left == right
    return exact_algebra.same_value(left.exact, right.exact)


def _union(pieces: list[Piece]) -> list[Piece]:
    """Merge pieces that touch or overlap."""
    merged: list[Piece] = []
    for low, high in sorted(pieces):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _disjoint_union(sets: list[list[Piece] | None]) -> list[Piece] | None:
    """Merge sets of which no two overlap or touch; else None."""
    every = [piece for pieces in sets for piece in pieces or []]
    merged = _union(every)
    return merged if len(merged) == len(every) > 1 else None


def _complement(pieces: list[Piece]) -> list[Piece]:
    """Return what of the line a set leaves."""
    ends = [EVERYTHING[0][0], *(bound for piece in pieces for bound in piece), EVERYTHING[0][1]]
    gaps = [(ends[i], ends[i + 1]) for i in range(0, len(ends), 2)]
    return [(low, high) for low, high in gaps if low < high]


def _intersection(left: list[Piece], right: list[Piece]) -> list[Piece]:
    """Return what two sets share."""
    pairs = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return _union([(low, high) for low, high in pairs if low < high])
