"""Answers that are words: telling them from mathematics, and comparing them."""

from __future__ import annotations

import re

WRAPPER = re.compile(r"\\text\s*\{([^{}]*)\}")
_LETTERS = re.compile(r"[A-Za-z]")
_WORD = re.compile(
    r"(?<![\\A-Za-z])(?:[A-Za-z]{4,}|(?:no|not|yes|the|is|are|all|any|but|only)(?![A-Za-z]))"
)
_NOISE = re.compile(r"(?:[\s.,;:!?'\"~]|(?<=[A-Za-z])-)+")
_CHOICE = re.compile(r"(?:(?i:option|choice|answer)\s+)?\(?\s*([A-J])\s*[).:]?")
_CHOICE_WITH_VALUE = re.compile(r"\\text\s*\{\s*\(([A-J])\)\s*\}\s*(.+)")


def is_text(text: str) -> bool:
    """Say whether normalised text is words rather than mathematics.

    >>> is_text("odd"), is_text("\\\\text{odd}"), is_text("Tuesday"), is_text("2ab")
    (False, True, True, False)
    """
    if (match := WRAPPER.fullmatch(text)) and _LETTERS.search(match[1]):
        return True
    return bool(_WORD.search(unwrapped(text).replace("{matrix}", "")))


def same_text(answer: str, reference: str) -> bool:
    """Compare as words, if either side is words.

    >>> same_text("\\\\text{(B)}", "b"), same_text("Not Tuesday.", "Tuesday")
    (True, False)
    """
    if not (is_text(answer) or is_text(reference)):
        return False
    return _folded(answer) == _folded(reference)


def same_word(answer: str, reference: str) -> bool:
    """Compare two bare words of three letters or more (`Yes`) without case; shorter: products."""
    if not (answer.isalpha() and reference.isalpha() and len(answer) > 2):
        return False
    return answer.casefold() == reference.casefold()


def is_word(text: str) -> bool:
    """Say whether a text is a run of three or more capitals: a name such as ABC, not a product."""
    return len(text) > 2 and text.isascii() and text.isalpha() and text.isupper()


def as_choice(text: str) -> str | None:
    """Return the letter of a multiple-choice answer, or None.

    >>> as_choice("(B)"), as_choice("B)"), as_choice("\\\\text{Option B}"), as_choice("B or C")
    ('B', 'B', 'B', None)
    """
    match = _CHOICE.fullmatch(unwrapped(text).strip())
    return match[1] if match else None


def split_choice(text: str) -> tuple[str, str] | None:
    """Split a reference such as `\\\\text{(A)} 5` into its letter and its value, or return None."""
    match = _CHOICE_WITH_VALUE.fullmatch(text)
    return (match[1], match[2].strip()) if match else None


def unwrapped(text: str) -> str:
    """Replace \\text{...} by what it holds."""
    return WRAPPER.sub(r" \1 ", text).strip() if "\\text" in text else text


def _folded(text: str) -> str:
    """Fold case, punctuation, wrappers and outer parentheses."""
    text = _NOISE.sub(" ", unwrapped(text)).strip().casefold()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return text
