"""Decide whether an answer equals a reference, cheapest test first and without any tolerance.

Stages: caps on length and nesting (`guard`), normal form and identical text (`text`), exact values
(`exact`), structure (`structure`: lists, sets of reals, tuples, intervals, matrices, relations,
compared element by element), for what exact arithmetic leaves open 80 digits at one point, only to
refute (`numeric`), and at last a symbolic child process (`symbolic`). A verdict of the exact stage
is final. Words are compared as text; a sentence is read only by the closed grammar of `prose`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from utils.grading import normal_form, prose, words
from utils.grading.comparison import Comparison
from utils.grading.expressions import NeedsSymbols
from utils.grading.symbolic_client import Unscorable
from utils.grading.tally import TALLY
from utils.grading.typesetting import restored, without_markdown

MAX_ANSWER_CHARACTERS = 500
BLANK = " \t\r\n"

# Control characters, marks that reorder or hide text, and halves of surrogate pairs.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u034f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufe00-\ufe0f\ufffe\uffff\U000e0000-\U000e007f]"
)
# What data sets write where a problem has no final answer (NuminaMath and its descendants).
NO_ANSWERS = frozenset(
    ("notfound", "not found", "proof", "nan", "null", "n/a", "no answer", r"\text{proof}",
     r"\text{notfound}", "see solution")
)  # fmt: skip
_INTEGER = re.compile(r"-?[1-9][0-9]{0,17}|0")


class Verdict(NamedTuple):
    """Whether two answers are equal, the stage that decided, and why none could."""

    equal: bool
    stage: str
    failure: str = ""


def compare(answer: str, reference: str, fast: bool = True, *, symbolic: bool = True) -> Verdict:
    """Decide whether `answer` equals `reference`.

    Args:
        fast: give symbolic work 2 s rather than 10 s, and leave out the wider equivalences (column
            vectors as tuples, equations up to symbolic identity, identities on the domain alone).
        symbolic: False raises NeedsSymbols where the child would have to be asked.

    >>> compare("0.5", "\\\\frac{1}{2}")
    Verdict(equal=True, stage='exact', failure='')
    """
    answer, reference = restored(answer).strip(BLANK), restored(reference).strip(BLANK)
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(reference):
        return Verdict(answer == reference, "text")
    if max(len(answer), len(reference)) > MAX_ANSWER_CHARACTERS or _INVISIBLE.search(answer):
        TALLY.add("guard_hits")
        return Verdict(bool(answer) and answer == reference, "guard")
    hits = _cached_verdict.cache_info().hits
    verdict = _cached_verdict(answer, reference, fast, symbolic)
    if _cached_verdict.cache_info().hits > hits:
        TALLY.add("cache_hits")
    if verdict is None:
        raise NeedsSymbols
    return verdict


def explain(answer: str, reference: str, fast: bool = True) -> tuple[Verdict, list[str]]:
    """Compare without the cache and say what was tried, one line a step."""
    trace: list[str] = []
    verdict = _verdict(answer.strip(BLANK), reference.strip(BLANK), Comparison(fast, True, trace))
    return verdict, trace


def is_scorable(reference: str) -> bool:
    """Say whether a reference states anything: not blank, balanced, no `notfound` or `proof`."""
    if reference.strip(BLANK).casefold() in NO_ANSWERS:
        return False
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", reference):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    symbols = normal_form.normalise(reference[:MAX_ANSWER_CHARACTERS])
    return depth == 0 and any(symbol.isalnum() or symbol in "∞∅ℝ" for symbol in symbols)


@lru_cache(maxsize=50_000)
def _cached_verdict(answer: str, reference: str, fast: bool, symbolic: bool) -> Verdict | None:
    try:
        return _verdict(answer, reference, Comparison(fast, symbolic, None))
    except NeedsSymbols:
        return None


def _verdict(answer: str, reference: str, comparison: Comparison) -> Verdict:
    """Compare an answer, and failing that what it states as a sentence."""
    try:
        equal = comparison.equal_texts(answer, reference)
        bare = words.unwrapped(without_markdown(answer))
        if not equal and (value := prose.stated_value(bare)) is not None:
            comparison.note("text", f"reads the sentence as {value!r}")
            equal = comparison.equal_texts(value, reference)
    except Unscorable as error:
        return Verdict(False, "symbolic", str(error))
    return Verdict(equal, comparison.stage)
