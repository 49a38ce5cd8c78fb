"""Where a response states its answer: between the r1_zero tags, in a box, or anywhere.

A form says what is wrong with a response's shape, if anything, and reads the answer out of one
that is well formed. The prompt decides which form is asked for. `anywhere` tells what a model knows
from what it was taught to write; nothing is ever rewarded by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from utils.grading import prose
from utils.grading.equality import BLANK

FormName = Literal["tags", "boxed", "anywhere"]
MAX_ANSWER_CHARACTERS = 10_000

_OPENING = "</think> <answer>"
_CLOSING = "</answer>"
_WORDS = re.compile(r"[A-Za-z\s$.,:;!*#]*")
# Before a box: an opening, or words that end in a verb of stating. `minus` and `square root of` do
# not, and a letter or `log` is part of the answer.
_LEAD = re.compile(
    r"(?:.*\b(?:is|are|equals|be|get|got|have|obtain|find|that|answer|result|solution|therefore|"
    r"thus|hence|so|then|finally|conclude|gives|yields|choose|option|choice|"
    r"(?:equal|simplif\w+|evaluat\w+|reduc\w+|equivalent|comes) to))?[\s$.,:;!*#]*",
    re.IGNORECASE | re.DOTALL,
)
_AFTER = re.compile(
    r"(?!!)[\s$.,:;!*]*(?:is (?:(?:the|our|my) (?:\w+ )?(?:answer|solution|result)|correct|right))?"
    r"[\s$.,:;!*]*",
    re.IGNORECASE,
)
_OF_THE_ANSWER = re.compile(
    r"\bof (?:the|this|that|my|our)\s+(?:\w+\s+)?(?:answer|result|solution)"
)
_JOINS_BEFORE, _JOINS_AFTER = re.compile(r"[\w)}\]]\s*$"), re.compile(r"\s*[\w({\\]")
_BOX_ENDS = re.compile(r"\\(?:boxed|fbox)\s*\{(?:[^{}]|\{[^{}]*\})*\}(?:[\s$]|\\[,;: !])*$")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_STATEMENT = re.compile(r"\banswer(?: is|:)\s*(?P<value>[^\n]+?)\s*(?:\.(?=\s|$)|\n|$)", re.I)


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A grammar of responses: `problem` names what is malformed, `answer` reads the rest."""

    problem: Callable[[str], str | None]
    answer: Callable[[str], str]


def format_problem(response: str) -> str | None:
    """Name the first thing that keeps a response from being well formed, or return None.

    `missing_open_answer` also stands for an `<answer>` not exactly one space after `</think>`.

    >>> format_problem("</think> <answer>2</answer>"), format_problem("2</think> <answer>2")
    (None, 'missing_close_answer')
    """
    if "</think>" not in response:
        return "missing_close_think"
    if "<answer>" not in response:
        return "missing_open_answer"
    if _CLOSING not in response:
        return "missing_close_answer"
    if response.count("<answer>") > 1 or response.count(_CLOSING) > 1:
        return "repeated_tags"
    opened, closed = response.index("<answer>"), response.index(_CLOSING)
    if closed < opened or response.index("</think>") > opened:
        return "wrong_order"
    if _OPENING not in response:
        return "missing_open_answer"
    return "trailing_text" if response[closed + len(_CLOSING) :].strip() else None


def stated_answer(response: str) -> str:
    """Return the text between the answer tags of a well-formed response, with its box opened.

    One box among words states the answer, unless they negate or hedge it ("not \\boxed{5}"). Any
    other box is replaced by what it holds, in place: `-\\boxed{5}` is -5, two boxes two answers.
    """
    opened, closed = response.index(_OPENING) + len(_OPENING), response.index(_CLOSING)
    answer = response[opened:closed].strip(BLANK)
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return answer
    boxes = list(_BOX.finditer(answer))
    if len(boxes) == 1:
        content, end = _box_content(answer, boxes[0].end())
        if _only_states(answer[: boxes[0].start()], answer[end:]):
            return content.strip(BLANK)
    for box in reversed(boxes):
        content, end = _box_content(answer, box.end())
        answer = _in_place(answer[: box.start()], content, answer[end:])
    return answer


def _only_states(before: str, after: str) -> bool:
    """Say whether the words around a box do nothing but state what it holds."""
    around = f"{before} {after}"
    if not _WORDS.fullmatch(around) or prose.turns(around) or _OF_THE_ANSWER.search(around):
        return False
    return bool(_LEAD.fullmatch(before) and _AFTER.fullmatch(after))


def _in_place(before: str, content: str, after: str) -> str:
    """Put what a box holds in its place, never joined with what stands beside it."""
    if _BOX_ENDS.search(before):
        return f"{before}, {content}{after}"  # two boxes in a row are two answers
    if before[-1:].isdigit() and content[:1].isdigit():
        content = f" {content}"  # 1\boxed{5} is neither 15 nor 1 times 5
    elif _JOINS_BEFORE.search(before) or _JOINS_AFTER.match(after):
        content = f"{{{content}}}"
    return before + content + after


def has_box(text: str) -> bool:
    """Say whether a box stands in the text, be it empty."""
    return _BOX.search(text) is not None


def extract_boxed(text: str) -> str | None:
    """Return what the last \\boxed or \\fbox holds, or None where there is none or it is empty.

    >>> extract_boxed(r"so \\boxed{1}, then \\boxed{\\frac{1}{2}}"), extract_boxed(r"\\boxed 2")
    ('\\\\frac{1}{2}', '2')
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    return _box_content(text, boxes[-1].end())[0].strip() or None


def answer_anywhere(response: str) -> str | None:
    """Return the answer a reader would take from a response, whatever its format; None without one.

    The last of what stands after `<answer>`; else in a box; else after "the answer is". No bare
    number is ever guessed at.

    >>> answer_anywhere("so <answer> 5"), answer_anywhere("The answer is 7. Next")
    ('5', '7')
    >>> answer_anywhere("5 + 2 = 7") is None
    True
    """
    tagged = response.rpartition("<answer>")[2] if "<answer>" in response else ""
    tagged = tagged.partition(_CLOSING)[0].strip()
    if tagged:
        return extract_boxed(tagged) or tagged
    if boxed := extract_boxed(response):
        return boxed
    statements = list(_STATEMENT.finditer(response))
    return statements[-1]["value"].strip() if statements else None


def _box_problem(response: str) -> str | None:
    if not has_box(response):
        return "missing_box"
    return None if extract_boxed(response) else "empty_or_open_box"


def _box_content(text: str, start: int) -> tuple[str, int]:
    """Return the argument that begins at `start` and where it ends; "" for an unclosed brace."""
    if start == len(text):
        return "", start
    if text[start] != "{":
        content = re.split(r"[\s$]", text[start:], maxsplit=1)[0]
        return content, start + len(content)
    depth = 0
    for index in range(start, len(text)):
        if text[index - 1] == "\\" and text[index] in "{}":
            continue  # \{ and \} are no braces to TeX
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[start + 1 : index], index + 1
    return "", len(text)


FORMS: dict[FormName, AnswerForm] = {
    "tags": AnswerForm(format_problem, stated_answer),
    "boxed": AnswerForm(_box_problem, lambda response: extract_boxed(response) or ""),
    "anywhere": AnswerForm(
        lambda response: None if answer_anywhere(response) else "no_answer",
        lambda response: answer_anywhere(response) or "",
    ),
}
