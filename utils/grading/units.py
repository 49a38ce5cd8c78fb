"""Split a value from its unit, and bring units to one name. Units are never converted."""

from __future__ import annotations

import re
from functools import lru_cache

# Words that scale, negate or hedge the number, or make a clause of it.
_NO_UNIT = re.compile(
    r"(?i:\b(?:hundred|thousand|[mbt]r?illion|dozen|not|no|or|and|is|are|was|if|when|where|wrong|"
    r"false|incorrect|times|mod|minus|plus|less|more|than|but|maybe|perhaps|about)\b)|.{40}"
)
_UNIT_ALIASES = {
    "mph": "mile per hour", "ft": "foot", "feet": "foot",
    "in": "inch", "inches": "inch", "cm": "centimeter",
    "mm": "millimeter", "m": "meter", "km": "kilometer", "centimetre": "centimeter",
    "metre": "meter", "kilometre": "kilometer", "yd": "yard", "mi": "mile", "kg": "kilogram",
    "g": "gram", "mg": "milligram", "lb": "pound", "oz": "ounce", "hr": "hour", "h": "hour",
    "min": "minute", "sec": "second", "s": "second", "ml": "milliliter", "l": "liter",
    "litre": "liter", "pct": "percent", "sq": "square", "deg": "degree", "usd": "dollar",
}  # fmt: skip
_UNIT_WORDS = {
    "foot", "inch", "centimeter", "millimeter", "meter", "kilometer", "yard", "mile", "kilogram",
    "gram", "milligram", "pound", "ounce", "hour", "minute", "second", "day", "week", "month",
    "year", "milliliter", "liter", "percent", "degree", "dollar", "cent", "square", "cubic",
    "unit", "mph", "kph", "gallon", "quart", "pint", "cup", "ton", "point", "radian", "per", "ft",
    "in", "cm", "mm", "km", "yd", "mi", "kg", "mg", "lb", "oz", "hr", "min", "sec", "ml", "pct",
    "people", "student", "way", "am", "pm",
}  # fmt: skip
_POWER = r"(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?"
_WRAPPED_UNIT = re.compile(
    rf"(?P<core>.*\S)\s*\\text\s*\{{(?P<unit>[^{{}}]*[A-Za-z][^{{}}]*)\}}\s*{_POWER}"
)
_PLAIN_UNIT = re.compile(
    r"(?P<core>.*[\d})π])\s*(?<![A-Za-z])"
    rf"(?P<unit>[A-Za-z]+\.?(?:(?:\s+|\s*/\s*)[A-Za-z]+\.?)*)\s*{_POWER}"
)
_TEMPERATURE = re.compile(r"(?P<core>.*\S)\s*°\s*(?:\\text\s*\{\s*)?(?P<scale>[CF])(?:\s*\})?")
_CURRENCIES = {"¤": "dollar", "€": "euro", "£": "pound sterling"}
_CURRENCY_PREFIX = re.compile(
    r"(?:\\text\s*\{\s*)?(?P<code>USD|US(?=\s*¤)|EUR|GBP|Rs\.?)(?:\s*\})?\s*(?=[\d.¤])"
)
_CURRENCY_CODES = {"EUR": "euro", "GBP": "pound sterling", "Rs": "rupee"}
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DIGIT = re.compile(r"[\dπ]")
_LETTERS = re.compile(r"[A-Za-z]+")
# `9.8 m/s`: single letters are units only in a quotient after a space.
_RATE = re.compile(r".*\s(?:k?m|cm|mi|ft|g|kg|L)\s*/\s*(?:h|s|hr|min|sec|L|m|cm)")
# `21 dogs`: what is counted. Words that change the number are none: 5 tens, 5 thirds, 5 times.
_COUNTED = re.compile(r"[a-z]{3,}(?<!s)s")
_CHANGES_THE_NUMBER = re.compile(
    r"(?:ten|hundred|thousand|million|billion|trillion|dozen|pair|couple|score|half|halve|third|"
    r"quarter|\w+th|one|two|three|four|five|six|seven|eight|nine|zero|twice|time|minu|plu|les|"
    r"square|cube|root|power|factorial|inverse|negative|percent|percentage|degree|radian|base|mod|"
    r"unknown|variable|other|perhap|alway|digit|decimal)s"
)


@lru_cache(maxsize=50_000)
def split_unit(text: str, known: str = "") -> tuple[str, str]:
    """Split normalised text into a value and the canonical name of its unit ("" for none).

    Plain words are a unit where they are in the list of units, name what is counted (`21 dogs`) or
    name the `known` one of the other side; a single letter (`20m`) may be a variable, so it needs
    the latter.

    >>> split_unit("135 square feet"), split_unit("28%"), split_unit("¤5"), split_unit("60 km/h")
    (('135', 'square foot'), ('28', 'percent'), ('5', 'dollar'), ('60', 'kilometer per hour'))
    """
    if currency := _split_currency(text, known):
        return currency
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if text.endswith("°") and not _TRIGONOMETRIC.search(text):
        return text[:-1].strip(), "degree"
    if match := _TEMPERATURE.fullmatch(text):
        return match["core"], f"degree {match['scale']}"
    if (match := _WRAPPED_UNIT.fullmatch(text)) and _DIGIT.search(match["core"]):
        unit = _canonical_name(match["unit"], match["power"])
        letters = _LETTERS.findall(match["unit"])
        if letters in (["i"], ["e"]) or _NO_UNIT.search(match["unit"]):
            return text, ""
        return match["core"].rstrip("* "), unit
    if match := _PLAIN_UNIT.fullmatch(text):
        unit = _canonical_name(match["unit"], match["power"])
        if unit == known or _is_listed(unit, match) or _is_counted(match):
            return match["core"], unit
    return text, ""


def _split_currency(text: str, known: str) -> tuple[str, str] | None:
    """Split off a currency's sign or code."""
    if match := _CURRENCY_PREFIX.match(text):
        name = _CURRENCY_CODES.get(match["code"].rstrip("."), "dollar")
        return text[match.end() :].replace("¤", " ").strip(), name
    for sign, name in _CURRENCIES.items():
        if sign in text:
            core, unit = split_unit(text.replace(sign, " ").strip(), known)
            return core, unit or name
    return None


def _is_listed(unit: str, match: re.Match[str]) -> bool:
    """Say whether plain words are in the list of units; a lone letter never is."""
    if "/" in match["unit"]:
        return bool(_RATE.fullmatch(match.string[: match.end("unit")]))
    return len(match["unit"]) > 1 and all(word in _UNIT_WORDS for word in unit.split())


def _is_counted(match: re.Match[str]) -> bool:
    """Say whether one plain word names what a plain number counts."""
    word = match["unit"]
    return bool(
        re.fullmatch(r"[\d,. ]+", match["core"])
        and match.string[match.start("unit") - 1] == " "
        and _COUNTED.fullmatch(word)
        and not _CHANGES_THE_NUMBER.fullmatch(word)
        and not match["power"]
    )


def _canonical_name(words: str, power: str | None) -> str:
    """Bring singular, plural, abbreviations and powers of a unit to one name."""
    names = []
    for word in words.replace(".", "").replace("/", " per ").lower().split():
        if word in ("squared", "cubed"):
            power = "2" if word == "squared" else "3"
            continue
        singular = _UNIT_ALIASES.get(word, word)
        if singular == word and len(word) > 3 and word.endswith("s"):
            singular = _UNIT_ALIASES.get(word[:-1], word[:-1])
        names.append(singular)
    prefix = {"2": "square ", "3": "cubic "}.get(power or "", "")
    return prefix + " ".join(names)
