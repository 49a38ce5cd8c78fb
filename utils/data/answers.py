"""Which stated answers are references that a completion can be graded against."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from utils.grading.equality import NO_ANSWERS

# What the grader takes for no answer, and what data sets write beside that.
_NO_ANSWER = NO_ANSWERS | {
    *("inf", "qed", "q.e.d", "omitted", "", "-", "?", r"\blacksquare", r"\square"),
}
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|boxed)\s*\{(.*)\}")


def answer_text(value: Any) -> str:
    """Return a stated answer as text, "" where none is stated.

    A number is written out in digits, never as a power of ten.

    >>> answer_text(0), answer_text(0.5), answer_text(" 1/2 "), answer_text(None)
    ('0', '0.5', '1/2', '')

    Raises:
        TypeError: the value is neither a text nor a number.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise TypeError(
            f"must be a text or a number, got {type(value).__name__}; write it as a text, or leave "
            "it out where there is no reference answer"
        )
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}"
    return str(value).strip()


def is_answer(text: str) -> bool:
    r"""Tell whether a text can be a reference: `proof`, `notfound`, NaN and blanks cannot.

    >>> is_answer("0"), is_answer(r"$\text{Proof.}$"), is_answer("None")
    (True, False, True)
    """
    bare = text.strip().strip("$ ")
    while found := _WRAPPED.fullmatch(bare):
        bare = found[1]
    bare = bare.strip().rstrip(".").casefold()
    return bare.removeprefix("-") not in _NO_ANSWER
