"""Compare two answers of any structure, element by element."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from utils.grading import (
    arrangements,
    bound_names,
    exact_algebra,
    named_values,
    normal_form,
    progressions,
    real_sets,
    structure,
    words,
)
from utils.grading.expressions import (
    ExpressionComparison,
    apply_exactly,
    exact_verdict,
    order_counts,
)
from utils.grading.parser import parse_exact
from utils.grading.structure import Relation
from utils.grading.tally import TALLY

MAX_NESTING = 10
MAX_ELEMENTS = 64
MAX_ROUNDING = 0.05

_CLOCK = re.compile(r"\d{1,2}\s*:\s*[0-5]\d(?!\d)")
_TWO_DIGITS = re.compile(r":\s*\d\d$")
_INEQUALITY = re.compile("[<>≤≥≠]")
_ENDS_A_CLASS = "ℤ)]⦄"


class Comparison(ExpressionComparison):
    """Lists, sets, tuples, intervals, matrices, ratios and relations of expressions."""

    def equal_texts(self, answer: str, reference: str) -> bool:
        """Compare normal forms; a separator as in 70,110 is read as a list, then as thousands."""
        answer, reference = normal_form.normalise(answer), normal_form.normalise(reference)
        self.note("text", f"normal forms {answer!r} and {reference!r}")
        if not answer or not reference:
            return False
        answer, reference = (
            bound_names.with_capital_constant(bound_names.without_domain(text))
            for text in (answer, reference)
        )
        if answer == reference:
            return self.decide("text", True, answer, reference)
        if max(_nesting(answer), _nesting(reference)) > MAX_NESTING:
            TALLY.add("guard_hits")
            return self.decide("guard", False, answer, reference)
        answer, reference = (
            arrangements.spelled_out(answer, reference),
            arrangements.spelled_out(reference, answer),
        )
        if words.same_choices(answer, reference):
            return self.decide("text", True, answer, reference)
        if words.differ_by_or(answer, reference):
            return self.decide("text", False, answer, reference)
        if (choice := words.split_choice(reference)) and self._equal_choice(answer, choice):
            return True
        letter = words.as_choice(reference)
        if letter and (stated := words.split_choice(answer)):
            return self.decide("text", stated[0] == letter, answer, reference)
        if self._equal_families(answer, reference) or self.equal(answer, reference):
            return True
        whole = normal_form.without_thousands(answer), normal_form.without_thousands(reference)
        return whole != (answer, reference) and self.equal(*whole)

    def _equal_choice(self, answer: str, choice: tuple[str, str]) -> bool:
        """Compare with a choice that has its text: the letter will do, or the text, or both."""
        stated = words.split_choice(answer)
        if stated and stated[0] == choice[0]:
            return True
        return any(self.equal(answer, part) for part in choice)

    def _equal_families(self, answer: str, reference: str) -> bool:
        """Compare what has names of its own: `kπ, k ∈ ℤ`, sums over an index."""
        if bound_names.with_neutral_index(answer) == bound_names.with_neutral_index(reference):
            return self.decide("text", True, answer, reference)
        if (answer[-1] in _ENDS_A_CLASS) and (reference[-1] in _ENDS_A_CLASS):
            runs = [progressions.read_progression(text) for text in (answer, reference)]
            if runs[0] and runs[1]:
                same = progressions.same_progressions(runs[0], runs[1])
                return self.decide("structure", same, answer, reference)
        found, wanted = (bound_names.as_family(text) for text in (answer, reference))
        if not found or not wanted or found.numbers != wanted.numbers:
            return False
        return self.equal(found.body, wanted.body)

    def equal(self, answer: str, reference: str) -> bool:
        """Compare two normal forms of any structure."""
        if named_values.are_in_another_order(answer, reference):
            return self.decide("structure", False, answer, reference)
        answer, reference = structure.members(answer), structure.members(reference)
        if answer == reference:
            return True
        if _INEQUALITY.search(answer) and ("∨" in answer) != ("∨" in reference):
            one_of, both = (answer, reference) if "∨" in answer else (reference, answer)
            if len(structure.elements(both)) > 1 and not real_sets.read_real_set(both):
                return self.decide("structure", False, one_of, both)
        if any(mark in answer or mark in reference for mark in real_sets.MARKS):
            found_set = real_sets.read_real_set(answer)
            wanted_set = real_sets.read_real_set(reference)
            if found_set and wanted_set:
                same_name = len({found_set.name, wanted_set.name} - {""}) <= 1
                same = real_sets.same_pieces(found_set.pieces, wanted_set.pieces)
                return self.decide("structure", same and same_name, answer, reference)
        found, wanted = self._elements(answer), self._elements(reference)
        if len(found) == len(wanted) > 1:
            found, wanted = bound_names.without_numbers(found, wanted)
        if len(found) == len(wanted) == 1:
            return self._equal_element(found[0], wanted[0])
        if len(found) != len(wanted):
            found, wanted = (
                named_values.named_like(found, wanted),
                named_values.named_like(wanted, found),
            )
        for named, bare, text in ((found, wanted, reference), (wanted, found, answer)):
            values = named_values.values_by_name(named)
            if values and ("∨" in answer) != ("∨" in reference):
                return self.decide("structure", False, answer, reference)  # x = 1 or y = 2
            if values and not any(map(structure.as_relation, bare)):
                return self._equal_assignments(values, bare, text)
        return self._equal_unordered(found, wanted)

    def _equal_assignments(self, values: dict[str, str], bare: list[str], text: str) -> bool:
        """Compare `x = 1, y = 2` with a tuple in the order of the names, or a list as it stands."""
        sequence = structure.as_sequence(text)
        if sequence is None:
            return self._equal_ordered([*values.values()], bare)
        if sequence.brackets != "()" or not all(map(str.isalpha, values)):
            return self.decide("structure", False, ", ".join(values), text)
        return self._equal_ordered([values[name] for name in sorted(values)], sequence.parts)

    def _elements(self, text: str) -> list[str]:
        """Return the elements of a list; those of a set once each."""
        parts = structure.elements(text)
        if len(parts) == 1:
            return parts
        if text.startswith("⦃") and len(parts) <= MAX_ELEMENTS:
            kept: list[str] = []
            for part in parts:
                if not any(part == other or exact_verdict(part, other) for other in kept):
                    kept.append(part)
            return kept
        return parts

    def _equal_unordered(self, found: list[str], wanted: list[str]) -> bool:
        """Match the elements of two lists one to one, in any order."""
        if len(found) != len(wanted) or not 1 < len(found) <= MAX_ELEMENTS:
            return self.decide("structure", False, ", ".join(found), ", ".join(wanted))
        remaining = list(found)
        for element in wanted:
            # Cheap test first: an identical element needs no comparison with the others.
            position = remaining.index(element) if element in remaining else None
            if position is None:
                matches = (
                    i
                    for i, other in enumerate(remaining)
                    if (other[0] == "⦃") == (element[0] == "⦃") and self.equal(other, element)
                )
                position = next(matches, None)
            if position is None:
                return False
            del remaining[position]
        return True

    def _equal_ordered(self, found: Sequence[str], wanted: Sequence[str]) -> bool:
        """Compare element by element."""
        if len(found) != len(wanted):
            return self.decide("structure", False, ", ".join(found), ", ".join(wanted))
        return all(map(self.equal, found, wanted))

    def _equal_element(self, answer: str, reference: str) -> bool:
        """Compare two texts that are not lists."""
        answer, reference = _exact_side(answer), _exact_side(reference)
        if answer == reference or not answer or not reference:
            return bool(answer) and answer == reference
        left, right = (structure.as_relation(text) for text in (answer, reference))
        if left and right:
            return self._equal_relations(left, right)
        if left:
            return self._equal_to_relation(reference, left)
        if right:
            return not named_values.is_equation(right) and self._equal_to_relation(answer, right)
        for sign in "∪∩":
            pieces = [structure.split_top(text, sign) for text in (answer, reference)]
            if len(pieces[0]) > 1 or len(pieces[1]) > 1:
                return self._equal_unordered(pieces[0], pieces[1])
        return self._equal_bracketed(answer, reference)

    def _equal_bracketed(self, answer: str, reference: str) -> bool:
        """Compare tuples, intervals, matrices and ratios, or else single expressions."""
        answer, reference = map(structure.without_brackets, (answer, reference))
        found, wanted = (structure.as_sequence(text) for text in (answer, reference))
        rows, wanted_rows = (structure.as_matrix(text) for text in (answer, reference))
        if not self.fast and (found or wanted) and (rows or wanted_rows):
            return self._equal_vector(found or wanted, rows or wanted_rows)
        if found or wanted:
            if not found or not wanted or found.brackets != wanted.brackets:
                return self.decide("structure", False, answer, reference)
            return self._equal_ordered(found.parts, wanted.parts)
        if rows or wanted_rows:
            if not rows or not wanted_rows or len(rows) != len(wanted_rows):
                return self.decide("structure", False, answer, reference)
            return all(map(self._equal_ordered, rows, wanted_rows))
        if ":" in answer + reference and not (words.is_text(answer) or words.is_text(reference)):
            return self._equal_ratios(answer, reference)
        return self.equal_expressions(answer, reference)

    def _equal_vector(
        self, sequence: structure.Sequence | None, rows: list[list[str]] | None
    ) -> bool:
        """Compare a tuple with a matrix of one column."""
        if not sequence or not rows or any(len(row) != 1 for row in rows):
            return False
        return sequence.brackets == "()" and self._equal_ordered(
            [row[0] for row in rows], sequence.parts
        )

    def _equal_ratios(self, answer: str, reference: str) -> bool:
        """Compare times part by part, and ratios such as 3:4 up to a common factor."""
        found, wanted = (structure.split_top(text, ":") for text in (answer, reference))
        if _CLOCK.match(reference) or (_CLOCK.match(answer) and _TWO_DIGITS.search(reference)):
            return len(found) == len(wanted) > 1 and self._equal_ordered(found, wanted)
        if max(len(found), len(wanted)) > 2:
            if len(found) != len(wanted):
                return self.decide("structure", False, answer, reference)
            crossed = [
                exact_verdict(f"({part})*({wanted[0]})", f"({other})*({found[0]})")
                for part, other in zip(found[1:], wanted[1:], strict=True)
            ]
            return self.decide("exact", all(crossed), answer, reference)
        values = ["/".join(f"({part})" for part in parts) for parts in (found, wanted)]
        return self.equal_expressions(*values)

    def _equal_relations(self, answer: Relation, reference: Relation) -> bool:
        """Compare two equations, inequalities or memberships."""
        answer, reference = named_values.with_same_function_name(answer, reference)
        parts, wanted_parts = bound_names.with_one_argument(answer.parts, reference.parts)
        answer, reference = answer._replace(parts=parts), reference._replace(parts=wanted_parts)
        for candidate in (answer, structure.reversed_relation(answer)):
            if candidate.operators == reference.operators and self._equal_ordered(
                candidate.parts, reference.parts
            ):
                return True
        if len(answer.parts) != 2 or len(reference.parts) != 2:
            return False
        if named_values.is_assignment(answer) or named_values.is_assignment(reference):
            return False
        ratio = _ratio_of_differences(answer, reference)
        if ratio is None:
            return not self.fast and self._equal_identically(answer, reference)
        if ratio < 0:
            answer = structure.reversed_relation(answer)
        return self.decide(
            "exact", answer.operators == reference.operators, str(answer), str(reference)
        )

    def _equal_identically(self, answer: Relation, reference: Relation) -> bool:
        """Compare two equations whose differences may be the same up to the sign."""
        if answer.operators != "=" or reference.operators != "=":
            return False
        (left, right), (wanted_left, wanted_right) = answer.parts, reference.parts
        wanted = f"({wanted_left})-({wanted_right})"
        return self.equal_symbolically(f"({left})-({right})", wanted) or (
            self.equal_symbolically(f"({right})-({left})", wanted)
        )

    def _equal_to_relation(self, bare: str, relation: Relation) -> bool:
        """Compare a bare value with `x = value`, `x ∈ set` or an inequality's interval."""
        if set(relation.operators) == {"="}:
            stated = list(relation.parts)
            if structure.is_name(stated[-1]) and not structure.is_name(stated[0]):
                stated.reverse()
            if structure.is_ratio_of_angle(stated[0]) and "°" in bare:
                return False
            while len(stated) > 1 and structure.names_a_quantity(stated[0]):
                del stated[0]
            return all(self.equal(part, bare) for part in stated)
        if relation.operators == "∈":
            name, members = relation.parts
            return structure.is_name(name) and self.equal(members, bare)
        interval = structure.as_interval(relation)
        return interval is not None and bare.startswith(("(", "[")) and self.equal(interval, bare)


def _exact_side(text: str) -> str:
    """Drop the approximation after ≈, unless it is not one: 2/3 ≈ 0.37 states nothing."""
    exact, _, rounded = text.partition("≈")
    value, approximation = (parse_exact(side.replace("¤", "")) for side in (exact, rounded))
    if value is not None and approximation is not None:
        left, right = exact_algebra.approximate(value), exact_algebra.approximate(approximation)
        if left is not None and right is not None:
            last_digit = 10.0 ** -len(rounded.partition(".")[2].strip("¤ "))
            near = math.isclose(left, right, rel_tol=MAX_ROUNDING, abs_tol=min(last_digit, 0.01))
            return exact.strip() if near else text
    return structure.exact_side(text)


def _ratio_of_differences(answer: Relation, reference: Relation) -> Fraction | None:
    """Return c where (left - right) of the answer is c times that of the reference."""
    if order_counts(str(answer.parts), str(reference.parts)):
        return None
    differences = ("({})-({})".format(*relation.parts) for relation in (answer, reference))
    return apply_exactly(exact_algebra.rational_ratio, *differences)


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
