"""Binomials and permutations written with letters: `C(10,3)`, `{}_{10}C_3`, `C_{10}^3`, `5P2`.

`C(5,2)` may also be a point, `C_n^2` the square of a number C_n. So the letter is read only where
the other side of the comparison has none of its kind, and `C(5,2)` not beside a tuple.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = r"(\d{1,4}|[a-z])"
_SCRIPT = rf"\s*(?:\{{\s*{_NUMBER}\s*\}}|(\d|[a-z]))\s*"
_LETTER = r"(?:\\text\s*\{\s*([CPA])\s*\}|(?<![A-Za-z\\])([CPA]))\s*"
_ANY_LETTER = _LETTER.replace(r"(?<![A-Za-z\\])", "")
_START = r"(?:\{\s*\}\s*|(?:^|(?<=[-+*/=(,{]))\s*)"
_FORMS = [
    re.compile(rf"{_START}[_^]{_SCRIPT}{_ANY_LETTER}_{_SCRIPT}"),
    re.compile(r"(?<![\w.\\}])(\d{1,4}) ?([CP]) ?(\d{1,4})(?![\w.]|\s*_)"),
    re.compile(
        r"(?<![\w.\\}])(\d{1,4})\s*()(?:\\text\s*\{\s*choose\s*\}|\\?choose(?![a-z]))\s*"
        r"(\d{1,4})(?![\w.])"
    ),
]
_CALL = re.compile(rf"{_LETTER}\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)")
_SUBSCRIPT_FIRST = re.compile(rf"{_LETTER}_{_SCRIPT}\^{_SCRIPT}")
_SUPERSCRIPT_FIRST = re.compile(rf"{_LETTER}\^{_SCRIPT}_{_SCRIPT}")
_OTHER_LETTER = re.compile(r"(?<![A-Za-z\\])[CPA](?![A-Za-z])")
_TUPLE = re.compile(r"[(\[][^()\[\]]*,")
_MARKS = ("C", "P", "A", "choose")


def spelled_out(text: str, other: str = "") -> str:
    """Write binomials with \\binom and permutations with factorials.

    Args:
        other: the side that the text is compared with.

    >>> spelled_out("2C(7,3)", "70"), spelled_out("C(7,3)", "(7,3)"), spelled_out("_5P_2")
    ('2\\\\binom{7}{3}', 'C(7,3)', '(\\\\frac{(5)!}{(5-2)!})')
    """
    if not any(mark in text for mark in _MARKS):
        return text
    for form in _FORMS:
        text = form.sub(lambda match: _written(match, *_three(match.groups())), text)
    if _OTHER_LETTER.search(other):
        return text
    text = _SUBSCRIPT_FIRST.sub(lambda match: _after(match, reverse=False), text)
    text = _SUPERSCRIPT_FIRST.sub(lambda match: _after(match, reverse=True), text)
    return text if _TUPLE.search(other) else _CALL.sub(_call, text)


def _three(groups: Iterable[str | None]) -> list[str]:
    return [group for group in groups if group is not None]


def _after(match: re.Match[str], *, reverse: bool) -> str:
    letter, first, second = _three(match.groups())
    top, bottom = (second, first) if reverse else (first, second)
    return _written(match, top, letter, bottom)


def _call(match: re.Match[str]) -> str:
    letter, top, bottom = _three(match.groups())
    return match[0] if letter == "A" else _written(match, top, letter, bottom)


def _written(match: re.Match[str], top: str, letter: str, bottom: str) -> str:
    if top.isdigit() and bottom.isdigit() and int(bottom) > int(top):
        return match[0]
    if letter in ("C", ""):
        return rf"\binom{{{top}}}{{{bottom}}}"
    return rf"(\frac{{({top})!}}{{({top}-{bottom})!}})"
