"""Decide whether an answer equals a reference, cheapest test first and without any tolerance.

Stages: length cap, normal form, identical text, exact values (`utils.exact_parser`), structure
(lists, unions, tuples, intervals, matrices, relations, compared element by element), and for what
exact arithmetic leaves open the symbolic child (`utils.symbolic_client`). A verdict of the exact
stage is final. Words are compared as text; prose such as "The answer is 5" equals only itself,
because looking for a number inside a sentence also finds the one in "not 5".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from utils import answer_structure, answer_text, exact_algebra, symbolic_client
from utils.answer_structure import Relation
from utils.exact_parser import parse_exact
from utils.symbolic_client import CLIENT, Unscorable

MAX_ANSWER_CHARACTERS = 1_000
MAX_NESTING = 20
MAX_ELEMENTS = 64
FAST_DEADLINE_S = 3.0
PATIENT_DEADLINE_S = 10.0

_INTEGER = re.compile(r"-?[1-9]\d{0,17}|0")
_BASE_NUMBER = re.compile(r"(-?)\s*\(?([0-9A-F][0-9A-F.]*)\)?\s*_\s*\{?\s*(\d+)\s*\}?")
# 12°6 must not become 126.
_DEGREE = re.compile(r"°(?!\s*\d)")

__all__ = ["Unscorable", "answers_equal", "is_scorable"]


def answers_equal(answer: str, reference: str, fast: bool = True) -> bool:
    """Decide whether `answer` equals `reference`.

    `fast` gives symbolic work 3 s rather than 10 s; both decide the same way.
    Raises Unscorable when that deadline passes or the symbolic process fails.

    >>> answers_equal("0.5", "\\\\frac{1}{2}"), answers_equal("0.3333", "\\\\frac{1}{3}")
    (True, False)
    """
    answer, reference = answer.strip(), reference.strip()
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(reference):
        return answer == reference
    if len(answer) > MAX_ANSWER_CHARACTERS or len(reference) > MAX_ANSWER_CHARACTERS:
        return bool(answer) and answer == reference
    return _cached_verdict(answer, reference, FAST_DEADLINE_S if fast else PATIENT_DEADLINE_S)


def is_scorable(reference: str) -> bool:
    """Say whether a reference states anything: not blank, and its braces balance."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", reference):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    symbols = answer_text.normalise(reference)
    return depth == 0 and any(symbol.isalnum() or symbol in "∞∅" for symbol in symbols)


@lru_cache(maxsize=50_000)
def _cached_verdict(answer: str, reference: str, deadline_s: float) -> bool:
    """Compare the normal forms; a comma as in 70,110 is read as a separator, then as thousands."""
    answer, reference = answer_text.normalise(answer), answer_text.normalise(reference)
    if not answer or not reference:
        return False
    if answer == reference:
        return True
    if max(_nesting(answer), _nesting(reference)) > MAX_NESTING:
        return False
    comparison = _Comparison(deadline_s)
    if comparison.equal(answer, reference):
        return True
    whole = answer_text.without_thousands(answer), answer_text.without_thousands(reference)
    return whole != (answer, reference) and comparison.equal(*whole)


class _Comparison:
    """One comparison, with the seconds of symbolic work that it may still spend."""

    def __init__(self, budget_s: float) -> None:
        self._left_s = budget_s

    def equal(self, answer: str, reference: str) -> bool:
        """Compare two normal forms of any structure."""
        if answer == reference:
            return True
        found, wanted = answer_structure.elements(answer), answer_structure.elements(reference)
        if len(found) == len(wanted) == 1:
            return self._equal_element(found[0], wanted[0])
        return self._equal_unordered(found, wanted)

    def _equal_unordered(self, found: list[str], wanted: list[str]) -> bool:
        """Match the elements of two lists one to one, in any order."""
        if len(found) != len(wanted) or not 1 < len(found) <= MAX_ELEMENTS:
            return False
        remaining = list(found)
        for element in wanted:
            # Cheap test first: an identical element needs no comparison with the others.
            position = remaining.index(element) if element in remaining else None
            if position is None:
                matches = (i for i, other in enumerate(remaining) if self.equal(other, element))
                position = next(matches, None)
            if position is None:
                return False
            del remaining[position]
        return True

    def _equal_ordered(self, found: Sequence[str], wanted: Sequence[str]) -> bool:
        """Compare element by element."""
        return len(found) == len(wanted) and all(map(self.equal, found, wanted))

    def _equal_element(self, answer: str, reference: str) -> bool:
        """Compare two texts that are not lists."""
        answer = answer_structure.exact_side(answer)
        reference = answer_structure.exact_side(reference)
        if answer == reference or not answer or not reference:
            return bool(answer) and answer == reference
        left, right = (answer_structure.as_relation(text) for text in (answer, reference))
        if left and right:
            return self._equal_relations(left, right)
        if left:
            return self._equal_to_relation(reference, left)
        if right:
            return self._equal_to_relation(answer, right)
        pieces = [answer_structure.split_top(text, "∪") for text in (answer, reference)]
        if len(pieces[0]) > 1 or len(pieces[1]) > 1:
            return self._equal_unordered(pieces[0], pieces[1])
        return self._equal_bracketed(answer, reference)

    def _equal_bracketed(self, answer: str, reference: str) -> bool:
        """Compare tuples, intervals, matrices and ratios, or else single expressions."""
        found, wanted = (answer_structure.as_sequence(text) for text in (answer, reference))
        if found or wanted:
            if not found or not wanted or found.brackets != wanted.brackets:
                return False
            return self._equal_ordered(found.parts, wanted.parts)
        rows, wanted_rows = (answer_structure.as_matrix(text) for text in (answer, reference))
        if rows or wanted_rows:
            if not rows or not wanted_rows or len(rows) != len(wanted_rows):
                return False
            return all(map(self._equal_ordered, rows, wanted_rows))
        ratio, wanted_ratio = (
            answer_structure.split_top(text, ":") for text in (answer, reference)
        )
        if len(ratio) > 1 and len(wanted_ratio) > 1:
            return self._equal_ordered(ratio, wanted_ratio)
        return self._equal_expressions(answer, reference)

    def _equal_relations(self, answer: Relation, reference: Relation) -> bool:
        """Compare two equations, inequalities or memberships."""
        for candidate in (answer, answer_structure.reversed_relation(answer)):
            if candidate.operators == reference.operators and self._equal_ordered(
                candidate.parts, reference.parts
            ):
                return True
        if len(answer.parts) != 2 or len(reference.parts) != 2:
            return False
        ratio = _ratio_of_differences(answer, reference)
        if ratio is None:
            return False
        if ratio < 0:
            answer = answer_structure.reversed_relation(answer)
        return answer.operators == reference.operators

    def _equal_to_relation(self, bare: str, relation: Relation) -> bool:
        """Compare a bare value with `x = value`, `x ∈ set` or an inequality's interval."""
        if set(relation.operators) == {"="}:
            stated = list(relation.parts)
            while len(stated) > 1 and answer_structure.is_name(stated[0]):
                del stated[0]
            return all(self.equal(part, bare) for part in stated)
        if relation.operators == "∈":
            name, members = relation.parts
            return answer_structure.is_name(name) and self.equal(members, bare)
        interval = answer_structure.as_interval(relation)
        return interval is not None and bare.startswith(("(", "[")) and self.equal(interval, bare)

    def _equal_expressions(self, answer: str, reference: str) -> bool:
        """Compare two single expressions: units, words, base numbers, exact values, symbols."""
        if _is_same_text(answer, reference):
            return True
        reference, wanted_unit = answer_text.split_unit(reference)
        answer, unit = answer_text.split_unit(answer, wanted_unit)
        if unit and not wanted_unit:
            reference, wanted_unit = answer_text.split_unit(reference, unit)
        if unit and wanted_unit and unit != wanted_unit:
            return False
        if answer_text.is_text(answer) or answer_text.is_text(reference):
            return _is_same_text(answer, reference)
        answer, reference = answer_text.unwrapped(answer), answer_text.unwrapped(reference)
        if _DEGREE.sub("", answer) == _DEGREE.sub("", reference) or _same_word(answer, reference):
            return True
        based, wanted_based = _BASE_NUMBER.fullmatch(answer), _BASE_NUMBER.fullmatch(reference)
        if based or wanted_based:
            return bool(based and wanted_based and based.groups() == wanted_based.groups())
        verdict = _exact_verdict(answer, reference)
        if verdict is None:
            return self._equal_symbolically(answer, reference)
        if not verdict and unit != wanted_unit and "percent" in (unit, wanted_unit):
            # 28% is 28 where the question asks for per cent, and 0.28 by its meaning.
            fraction, percentage = (answer, reference) if wanted_unit else (reference, answer)
            return bool(_exact_verdict(f"100({fraction})", percentage))
        return verdict

    def _equal_symbolically(self, answer: str, reference: str) -> bool:
        """Ask the symbolic child about two expressions that are safe to give it."""
        if not symbolic_client.is_safe(answer) or not symbolic_client.is_safe(reference):
            return False
        if self._left_s <= 0:
            raise Unscorable("symbolic comparisons overran their deadline")
        verdict, seconds = CLIENT.equal(answer, reference, self._left_s)
        self._left_s -= seconds
        return verdict


def _exact_verdict(answer: str, reference: str) -> bool | None:
    """Decide by exact arithmetic, or return None where it does not reach."""
    value, wanted = parse_exact(answer), parse_exact(reference)
    if value is None or wanted is None:
        return None
    try:
        return exact_algebra.same_value(value, wanted)
    except exact_algebra.NotExactError:
        return None


def _ratio_of_differences(answer: Relation, reference: Relation) -> Fraction | None:
    """Return c where (left - right) of the answer is c times that of the reference."""
    difference, wanted = (
        parse_exact("({})-({})".format(*relation.parts)) for relation in (answer, reference)
    )
    if difference is None or wanted is None:
        return None
    try:
        return exact_algebra.rational_ratio(difference, wanted)
    except exact_algebra.NotExactError:
        return None


def _is_same_text(answer: str, reference: str) -> bool:
    """Compare as words, if either side is words."""
    if not (answer_text.is_text(answer) or answer_text.is_text(reference)):
        return False
    return answer_text.folded(answer) == answer_text.folded(reference)


def _same_word(answer: str, reference: str) -> bool:
    """Compare two bare words of three letters or more (`Yes`) without case; shorter: products."""
    if not (answer.isalpha() and reference.isalpha() and len(answer) > 2):
        return False
    return answer.casefold() == reference.casefold()


def _nesting(text: str) -> int:
    """Count the deepest nesting of brackets."""
    depth = deepest = 0
    for char in text:
        if char in "([{⦃":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}⦄":
            depth -= 1
    return deepest
