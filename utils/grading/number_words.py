"""Numbers written in words: `twenty-one` for 21, `2.5 million` for 2500000, `9 dozen` for 108."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "  # noqa: SIM905
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2
    )
}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6,
    "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100,
}  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MULTIPLES = {"hundred": 100, "dozen": 12, "lakh": 10**5, "crore": 10**7, **_SCALES}
_DOZENS = {"a": 12, "half a": 6}
NUMBER_WORDS = frozenset((*_UNITS, *_TENS, *_MULTIPLES, "fourty", "gross", "score", "half"))
"""Words that are numbers or multiply one; with a plural `s` or `ies` too they count nothing."""

_SPELLED = re.compile(r"(?:\\text\s*\{\s*)?([A-Za-z]+(?:(?:\s+|-)[A-Za-z]+)*)(?:\s*\})?")
_NEGATIVE = re.compile(r"(?:negative|minus)\s+(?=\S)", re.IGNORECASE)
# Not after a stroke or an index: 1/2 dozen is not 1/24.
_MULTIPLIED = re.compile(
    r"(?<![\w.,/^])(?<![\^_]\{)(?<![/^] )(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*"
    r"(?P<open>\\text\s*\{)?\s*"
    rf"(?P<word>{'|'.join(_MULTIPLES)})s?\b"
)


def in_digits(text: str) -> str:
    """Write numbers in words as digits; any other text stays as it is.

    >>> in_digits("Twenty-one"), in_digits("one hundred and five"), in_digits("one or two")
    ('21', '105', 'one or two')
    >>> in_digits("negative five"), in_digits("minus 40"), in_digits("minus x")
    ('-5', '-40', 'minus x')
    >>> in_digits("three-fourths"), in_digits("half")
    ('\\\\frac{3}{4}', 'half')
    >>> in_digits("2.5 million"), in_digits("9 dozen eggs"), in_digits("3 dogs")
    ('2500000', '108 eggs', '3 dogs')
    """
    if not text or not (text[0].isalpha() or text[0] in "-\\0123456789¤$"):
        return text
    if negative := _NEGATIVE.match(text):
        size = in_digits(text[negative.end() :])
        return f"-{size}" if size.replace(".", "", 1).isdigit() else text
    if match := _SPELLED.fullmatch(text):
        spelled = match[1].casefold().replace("-", " ").split()
        if spelled[-1] in ("dozen", "dozens"):
            count = _spelled(spelled[:-1])
            dozens = _DOZENS.get(" ".join(spelled[:-1]), 12 * count if count else None)
            return text if dozens is None else str(dozens)
        part = _PARTS.get(spelled[-1]) or _PARTS.get(spelled[-1].removesuffix("s"))
        value = _spelled(spelled[:-1] if part else spelled)
        if value is None:
            return text
        return f"\\frac{{{value}}}{{{part}}}" if part else str(value)
    return _MULTIPLIED.sub(_multiplied, text) if text.count(" ") or "\\text" in text else text


def _multiplied(match: re.Match[str]) -> str:
    number = Decimal(match["number"].replace(",", "")) * _MULTIPLES[match["word"]]
    digits = format(number, "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return digits + (match["open"] or "")


def _spelled(words: list[str]) -> int | None:
    """Return the number that English words spell, or None.

    `and` may stand after a hundred or a thousand alone.
    """
    total = group = 0
    least = last = None
    for index, word in enumerate(words):
        if word == "and" and last in ("hundred", "thousand") and index < len(words) - 1:
            continue
        if word in _UNITS:
            if last in _UNITS or (last in _TENS and not 0 < _UNITS[word] < 10):
                return None
            group += _UNITS[word]
        elif word in _TENS:
            if last in _UNITS or last in _TENS:
                return None
            group += _TENS[word]
        elif word == "hundred":
            if last not in _UNITS or not 0 < group < 10:
                return None
            group *= 100
        elif word in _SCALES:
            if not group or (least is not None and _SCALES[word] >= least):
                return None
            least = _SCALES[word]
            total, group = total + group * least, 0
        else:
            return None
        last = word
    return total + group if last is not None else None
