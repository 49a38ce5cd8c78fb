"""Answers that are words: telling them from mathematics, and comparing them."""

from __future__ import annotations

import itertools
import re

WRAPPER = re.compile(r"\\text\s*\{([^{}]*)\}")
_LETTERS = re.compile(r"[A-Za-z]")
_WORD = re.compile(
    r"(?<![\\A-Za-z])(?:[A-Za-z]{4,}|(?:no|not|yes|the|is|are|all|any|but|only)(?![A-Za-z]))"
)
# A prime (point A') is no noise; an apostrophe inside a word is.
_NOISE = re.compile(r"(?:[\s.,;:!\"~]|(?<=[A-Za-z])-|(?<=[a-z])'(?=[a-z])|^'|(?<=[a-z]{2})'$)+")
_CHOICE = re.compile(r"(?:(?i:option|choice|answer)\s+)?\(?\s*([A-J])\s*[).:]?")
_SEVERAL_CHOICES = re.compile(r"\(?[A-J]\)?(?:\s*[,;&]?\s*\(?[A-J]\)?)+")
_SMALL_CHOICE = re.compile(r"\(\s*([a-j])\s*\)")
_CHOICE_WITH_VALUE = re.compile(
    r"(?:\\text\s*\{\s*\(?([A-J])[.)]\s*\}|\(([A-J])\)(?=\s)|([A-J])[.:)](?=\s))\s*(\S.*)"
)
_ANOTHER_CHOICE = re.compile(r"(?<![A-Za-z\\])\(?[A-J](?:[.):]|$)")
_OTHERWISE = re.compile(r"\b(?:not?|wrong|incorrect|false|or|but|maybe|perhaps)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:[Aa]n?|[Tt]he) (?!and |or |not )(?=[a-z]{3,}(?: [a-z]+){0,2}$)")
_LONGEST_NAME = 4
# Words that people write in capitals and mean nothing by it; of others (ABCD, abcd) case is told.
_PLAIN_WORDS = frozenset(
    "yes no true false even odd none both neither always never sometimes am pm monday tuesday "  # noqa: SIM905
    "wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december red blue green yellow white black equal increase "
    "decrease increasing decreasing positive negative zero infinite undefined impossible".split()
)


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
    numbers = any(map(str.isdigit, answer + reference))
    found, wanted = (_folded(text, numbers=numbers) for text in (answer, reference))
    if len(found) == len(wanted) == 1 and len(found[0].strip("()")) == 1:
        found_label, wanted_label = found[0].strip("()"), wanted[0].strip("()")
        if wanted_label.upper() in "ABCDEFGHIJ":  # a label, set in \text
            return found_label.casefold() == wanted_label.casefold()
        return found_label == wanted_label
    return len(found) == len(wanted) and all(map(_same_letters, found, wanted))


def same_word(answer: str, reference: str) -> bool:
    """Compare two bare words of three letters or more (`Yes`, `yes`); shorter: products."""
    if not (answer.isalpha() and reference.isalpha() and len(answer) > 2):
        return False
    return _same_letters(answer, reference)


def is_word(text: str) -> bool:
    """Say whether a text is a run of three or more capitals: a name such as ABC, not a product."""
    return len(text) > 2 and text.isascii() and text.isalpha() and text.isupper()


def as_choice(text: str) -> str | None:
    """Return the letter of a multiple-choice answer, or None.

    >>> as_choice("(B)"), as_choice("B)"), as_choice("\\\\text{Option B}"), as_choice("B or C")
    ('B', 'B', 'B', None)
    """
    bare = unwrapped(text).strip()
    match = _CHOICE.fullmatch(bare) or _SMALL_CHOICE.fullmatch(bare)
    return match[1].upper() if match else None


def same_choices(answer: str, reference: str) -> bool:
    """Say whether both name the same two choices or more, one of them in a run: `A, C` and `AC`.

    >>> same_choices("A, C", "AC"), same_choices("A, B, D", "BAD"), same_choices("(A, C)", "AC")
    (True, False, False)
    """
    found, wanted = (unwrapped(text).strip(" ⦃⦄") for text in (answer, reference))
    run = next((text for text in (wanted, found) if text.isalpha() and text.isascii()), "")
    if len(run) < 2 or any(before >= after for before, after in itertools.pairwise(run)):
        return False
    if not all(map(_SEVERAL_CHOICES.fullmatch, (found, wanted))):
        return False
    listed = found if run is wanted else wanted
    if listed.isalpha():
        return False  # ABCD and ABDC are names
    letters = sorted(re.findall("[A-J]", listed))
    return "".join(letters) == run and listed.count("(") == listed.count(")") in (0, len(letters))


def differ_by_or(answer: str, reference: str) -> bool:
    """Say whether one side names choices with an `or` and the other one without."""
    if ("∨" in answer) == ("∨" in reference):
        return False
    texts = (unwrapped(text).replace("∨", ",").strip() for text in (answer, reference))
    return all(map(_SEVERAL_CHOICES.fullmatch, texts))


def split_choice(text: str) -> tuple[str, str] | None:
    """Split a choice with its text into letter and text, or return None.

    >>> split_choice("\\\\text{(A)} 5"), split_choice("E. a polygon"), split_choice("A or B. 5")
    (('A', '5'), ('E', 'a polygon'), None)
    """
    match = _CHOICE_WITH_VALUE.fullmatch(text)
    if match is None and "\\text" in text:
        match = _CHOICE_WITH_VALUE.fullmatch(unwrapped(text))
    if match is None:
        return None
    letter, value = match[1] or match[2] or match[3], match[4].strip()
    if value[0] in ",;∨+*^/!_" or _ANOTHER_CHOICE.search(value) or _OTHERWISE.search(value):
        return None
    return letter, value


def unwrapped(text: str) -> str:
    """Replace \\text{...} by what it holds."""
    return WRAPPER.sub(r" \1 ", text).strip() if "\\text" in text else text


def _folded(text: str, *, numbers: bool) -> list[str]:
    """Split into words, without punctuation, wrappers and outer parentheses.

    Args:
        numbers: there are digits, beside which punctuation means something; it is kept.
    """
    text = unwrapped(text).strip()
    text = text.rstrip(".") if numbers else _NOISE.sub(" ", text).strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return _ARTICLE.sub("", text, count=1).split()


def _same_letters(found: str, wanted: str) -> bool:
    """Compare two words; case counts, but for a first capital and in the plainest words."""
    if found == wanted:
        return True
    if found.casefold() != wanted.casefold() or len(found) < 2:
        return False
    if found[1:] == wanted[1:] or found.casefold() in _PLAIN_WORDS:
        return True
    # Points have names of their own; a letter that comes twice tells PARABOLA from ABCDE.
    capitals = found.isupper() or wanted.isupper()
    return capitals and len(found) > _LONGEST_NAME and len(set(found.casefold())) < len(found)
