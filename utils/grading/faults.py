"""What went wrong in a completion that is not correct: one fault each, the first that applies."""

from __future__ import annotations

import re

from utils.grading import normal_form, structure
from utils.grading.echo import ECHOED_PROBLEM
from utils.grading.equality import is_scorable
from utils.grading.outcome import Grade

FAULTS = {
    "repetition_loop": "repeats itself to the end",
    "truncated": "cut by the token limit",
    "right_answer_wrong_place": "right answer, wrong format",
    "missing_close_think": "no </think>",
    "missing_open_answer": "no <answer> right after </think>",
    "missing_close_answer": "no </answer>",
    "repeated_tags": "answer tags more than once",
    "wrong_order": "tags in the wrong order",
    "trailing_text": "text after the answer",
    "missing_box": "no box",
    "empty_or_open_box": "box empty or never closed",
    "empty_answer": "empty answer",
    "unparseable_answer": "answer cannot be read",
    "echoed_problem": "the problem's expression, not worked out",
    "several_answers": "several answers where one is asked for",
    "wrong_value": "another value",
    "unscorable": "could not be compared",
}
"""Fault -> what it means, in the order in which they are looked for."""

_LOOP_CHARACTERS = 120
_LOOP_TIMES = 3
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_MOST_WORDS = 4
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def fault_of(
    completion: str, reference: str, grade: Grade, *, truncated: bool, found: bool
) -> str | None:
    """Name what went wrong, or None for a correct completion.

    Args:
        truncated: the token limit cut it.
        found: the right answer stands in it somewhere (`answer_anywhere`).

    >>> fault_of("5", "5", Grade("format_failure", None, "missing_close_think", "format"),
    ...          truncated=False, found=False)
    'missing_close_think'
    """
    if grade.outcome == "correct":
        return None
    if ends_in_loop(completion):
        return "repetition_loop"
    if truncated:
        return "truncated"
    if grade.outcome == "unscorable":
        return "unscorable"
    if grade.outcome == "format_failure":
        return "right_answer_wrong_place" if found else grade.reason
    if grade.reason == ECHOED_PROBLEM:
        return ECHOED_PROBLEM
    return _answer_fault(grade.answer or "", reference)


def ends_in_loop(text: str) -> bool:
    """Say whether a text ends in one phrase over and over: thrice at least, 120 characters in all.

    >>> ends_in_loop("so x = 1. " * 20), ends_in_loop("so x = 1.")
    (True, False)
    """
    tail = text.rstrip()
    for period in range(1, len(tail) // _LOOP_TIMES + 1):
        length = max(_LOOP_TIMES * period, _LOOP_CHARACTERS)
        if length > len(tail):
            return False
        # A text repeats with a period where it equals itself, moved by it.
        if tail[-length:-period] == tail[period - length :]:
            return True
    return False


def _answer_fault(answer: str, reference: str) -> str:
    """Name what is wrong with the answer of a well-formed completion."""
    if not answer.strip():
        return "empty_answer"
    words = len(_WORD.findall(answer))
    if not is_scorable(answer) or words >= _MOST_WORDS > len(_WORD.findall(reference)):
        return "unparseable_answer"
    return "several_answers" if _parts(answer) > _parts(reference) == 1 else "wrong_value"


def _parts(text: str) -> int:
    """Count the values that a text lists; `1,200` is one."""
    return len(structure.elements(normal_form.normalise(_THOUSANDS.sub("", text))))
