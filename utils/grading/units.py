"""Split a value from its unit, and bring units to one name. Units are never converted.

On the answer's side only what is known to be a unit, or plainly names what is counted, is split
off: any other word may change the number, so it stays, and the answer is another one. A reference
is trusted: words that change nothing are its unit.
"""

from __future__ import annotations

import re
from functools import lru_cache

from utils.grading.measures import split_compound
from utils.grading.number_words import NUMBER_WORDS

# Words that scale, negate or hedge the number, or make a clause of it.
_NO_UNIT = frozenset(
    "not no or and is are was were if when where wrong false incorrect times mod modulo minus plus "  # noqa: SIM905
    "less more fewer extra than but maybe perhaps about over under below above between to the base "
    "roughly approximately exactly nearly almost around factorial squared cubed square cube root "
    "power half halves third quarter double twice triple negative inverse reciprocal "
    "opposite pair couple trio duo quartet zero unknown variable other always never percentile "
    "conjugate complement myriad googol ream quire "
    "digit decimal log th st nd rd mil grand bn k this thus its has does guess by divided "
    "multiplied raised choose out".split()
)  # fmt: skip
# As they are written: case tells megawatts from milliwatts.
_SYMBOLS = {
    **dict.fromkeys(("m", "metre"), "meter"), **dict.fromkeys(("s", "sec"), "second"),
    **dict.fromkeys(("h", "hr"), "hour"), **dict.fromkeys(("L", "l", "litre"), "liter"),
    **dict.fromkeys(("mL", "ml"), "milliliter"), **dict.fromkeys(("ft", "feet"), "foot"),
    **dict.fromkeys(("in", "inches"), "inch"), **dict.fromkeys(("lb", "lbs"), "pound"),
    **dict.fromkeys(("kph", "kmh"), "kilometer per hour"), "mph": "mile per hour",
    "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "yd": "yard", "mi": "mile",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "oz": "ounce", "min": "minute",
    "pct": "percent", "deg": "degree", "rad": "radian", "USD": "dollar", "usd": "dollar",
    "N": "newton", "J": "joule", "kJ": "kilojoule", "W": "watt", "kW": "kilowatt",
    "MW": "megawatt", "mW": "milliwatt", "V": "volt", "Pa": "pascal", "kPa": "kilopascal",
    "Hz": "hertz", "kHz": "kilohertz", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "kb": "kilobit", "Mb": "megabit", "dm": "decimeter", "gm": "gram", "cc": "cubic centimeter",
    "sq": "square", "cu": "cubic", "pts": "point",
    "centimetre": "centimeter", "millimetre": "millimeter", "kilometre": "kilometer",
    "millilitre": "milliliter", "cms": "centimeter", "kms": "kilometer", "yds": "yard",
    "hrs": "hour", "mins": "minute", "secs": "second", "men": "man", "women": "woman",
    "children": "child", "mice": "mouse",
}  # fmt: skip
_ANY_CASE = {"cm", "mm", "km", "kg", "ft", "in", "yd", "mi", "lb", "lbs", "oz", "hr", "hrs", "min",
             "sec", "mph", "kph", "am", "pm"}  # fmt: skip
_NAMES = {
    *_SYMBOLS.values(), "day", "week", "month", "year", "cent", "euro", "rupee", "unit", "gallon",
    "quart", "pint", "cup", "ton", "tonne", "point", "people", "person", "student", "way",
    "yuan", "am", "pm", "fish", "sheep", "mouse", "child", "man", "woman",
    "decade", "century", "acre",
    "hectare", "degree", "nickel", "dime", "penny", "knot", "byte", "bit", "nanometer",
    "micrometer", "calorie", "kelvin", "ampere", "ohm",
}  # fmt: skip
_MEASURES = ("square", "cubic")
_ADJECTIVES = frozenset(
    "red blue green yellow white black brown orange purple pink grey gray small large big tall "  # noqa: SIM905
    "long short right distinct different possible total whole full new old equal prime even odd "
    "real integer lattice unit math test chocolate fair single minor extra-large paper "
    "square cubic nautical metric light us positive nonzero complex rational".split()
)
# After what is counted: 5 apples left, 12 years old.
_AFTER_A_NOUN = frozenset(("left", "remaining", "old", "total", "altogether"))
_SHORTEST_NOUN = 3
_COUNTED = re.compile(r"[a-z]{2,}(?<!s)s")
_CHANGES_THE_NUMBER = re.compile(r"\w+ths|\w+nths|\w*minus|\w*plus|unless|versus|besides|sums?")
_MOST_WORDS = 6

_POWER = r"(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?"
_WRAPPED_UNIT = re.compile(
    rf"(?P<core>.*\S)\s*\\text\s*\{{(?P<unit>[^{{}}]*[A-Za-z][^{{}}]*)\}}\s*{_POWER}"
)
_PLAIN_UNIT = re.compile(
    r"(?P<core>.*[\d})π!.])\s*(?<![A-Za-z])"
    rf"(?P<unit>[A-Za-z]+\.?(?:(?:\s+|\s*/\s*)[A-Za-z]+\.?)*)\s*{_POWER}"
)
_INNER_POWER, _POWERS = re.compile(r"\^\s*\{?([23])\}?"), {"2": " squared", "3": " cubed"}
_TEMPERATURE = re.compile(r"(?P<core>.*\S)\s*°\s*(?:\\text\s*\{\s*)?(?P<scale>[CF])(?:\s*\})?")
_CURRENCIES = {"¤": "dollar", "€": "euro", "£": "pound sterling"}
_CURRENCY_PREFIX = re.compile(
    r"(?:\\text\s*\{\s*)?(?P<code>USD|US(?=\s*¤)|EUR|GBP|Rs\.?)(?:\s*\})?\s*(?=[\d.¤])"
)
_CURRENCY_CODES = {"EUR": "euro", "GBP": "pound sterling", "Rs": "rupee"}
TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DIGIT = re.compile(r"[\dπ]")
# `9.8 m/s`: single letters are units only in a quotient after a space.
_RATE = re.compile(r".*\s(?:k?m|cm|mi|ft|g|kg|L)\s*/\s*(?:h|s|hr|min|sec|L|m|cm)")
_PLAIN_NUMBER = re.compile(r"[-\d,. ]+")


@lru_cache(maxsize=50_000)
def split_unit(text: str, known: str = "", *, trusted: bool = False) -> tuple[str, str]:
    """Split normalised text into a value and the canonical name of its unit ("" for none).

    Words are a unit where all of them are in the lists of units, name what is counted (`21 dogs`)
    or name the `known` one of the other side; a single letter (`20m`) may be a variable, so
    outside of \\text it needs the latter.

    Args:
        trusted: the text is a reference, whose words are a unit unless they change the number.

    >>> split_unit("135 square feet"), split_unit("28%"), split_unit("¤5"), split_unit("60 km/h")
    (('135', 'square foot'), ('28', 'percent'), ('5', 'dollar'), ('60', 'kilometer per hour'))
    >>> split_unit("9 dozens"), split_unit(r"5 \\text{ squared}"), split_unit(r"5 \\text{ y}")
    (('9 dozens', ''), ('5 \\\\text{ squared}', ''), ('5 \\\\text{ y}', ''))
    """
    if currency := _split_currency(text, known, trusted):
        return currency
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if text.endswith("°") and not TRIGONOMETRIC.search(text):
        return text[:-1].strip(), "degree"
    if match := _TEMPERATURE.fullmatch(text):
        return match["core"], f"degree {match['scale']}"
    if compound := split_compound(text):
        return compound
    if (match := _WRAPPED_UNIT.fullmatch(text)) and _DIGIT.search(match["core"]):
        unit = _canonical_name(match["unit"], match["power"])
        if unit == known or _is_unit(match["unit"], match["core"], trusted):
            return match["core"].rstrip("* "), unit
        return text, ""
    if match := _PLAIN_UNIT.fullmatch(text):
        unit = _canonical_name(match["unit"], match["power"])
        if unit == known or _is_plain_unit(match):
            return match["core"], unit
    return text, ""


def _split_currency(text: str, known: str, trusted: bool) -> tuple[str, str] | None:
    """Split off a currency's sign or code."""
    if match := _CURRENCY_PREFIX.match(text):
        name = _CURRENCY_CODES.get(match["code"].rstrip("."), "dollar")
        return text[match.end() :].replace("¤", " ").strip(), name
    for sign, name in _CURRENCIES.items():
        if sign in text:
            core, unit = split_unit(text.replace(sign, " ").strip(), known, trusted=trusted)
            return core, unit or name
    return None


def _is_plain_unit(match: re.Match[str]) -> bool:
    """Say whether words outside \\text are a unit; a lone letter never is."""
    words = match["unit"]
    if "/" in words:
        return bool(_RATE.fullmatch(match.string[: match.end("unit")]))
    if len(words) == 1:
        return False
    if all(_known_name(word) for word in words.split()):
        return True
    counts = match.string[match.start("unit") - 1] in " ." and not match["power"]
    return counts and bool(_PLAIN_NUMBER.fullmatch(match["core"])) and _counts(words.split(), "")


def _is_unit(phrase: str, core: str, trusted: bool) -> bool:
    """Say whether the words of a phrase are units, or what the number before them counts."""
    spelled = _spelled_powers(phrase).strip()
    words = [word for word in re.split(r"\s+per\s+|[\s/]+", spelled) if word]
    if not words or len(words) > _MOST_WORDS or not all(word.isalpha() for word in words):
        return False
    if all(_known_name(word) or _after_a_unit(words, index) for index, word in enumerate(words)):
        return words[-1] not in _MEASURES
    if any(_changes(word) for word in words):
        return False
    if trusted:
        return words not in (["i"], ["e"]) and (len(words) > 1 or len(words[0]) > 1)
    return _counts(words, core)


def _after_a_unit(words: list[str], index: int) -> bool:
    """Say whether a word is `squared` or `cubed` after a unit, as in `meters squared`."""
    squared = words[index] in ("squared", "cubed")
    return squared and index > 0 and _canonical_word(words[index - 1]).endswith(
        ("meter", "foot", "inch", "yard", "mile", "second", "unit")
    )  # fmt: skip


def _counts(words: list[str], core: str) -> bool:
    """Say whether words name what is counted: `dogs`, `red marbles`, `cups of flour`."""
    if "of" in words[1:-1] and not any(map(_changes, words)):
        words = words[: words.index("of")]
    if len(words) > 1 and words[-1] in _AFTER_A_NOUN:
        words = words[:-1]
    *adjectives, noun = words
    if any(_changes(word) for word in words) or not noun.islower():
        return False
    if not all(word in _ADJECTIVES for word in adjectives):
        return False
    if core.strip() == "1" and len(noun) >= _SHORTEST_NOUN:
        return True
    return _known_name(noun) or bool(len(noun) >= _SHORTEST_NOUN and _COUNTED.fullmatch(noun))


def _changes(word: str) -> bool:
    """Say whether a word changes the number before it, as `dozens` and `sixes` do."""
    folded = word.casefold()
    stems = {folded, folded.removesuffix("s"), folded.removesuffix("es")}
    if folded.endswith("ies"):
        stems.add(f"{folded[:-3]}y")
    if folded == "roots":
        return False  # 3 real roots, but never 3 root 2
    if stems & _NO_UNIT or stems & NUMBER_WORDS:
        return True
    return bool(_CHANGES_THE_NUMBER.fullmatch(folded))


def _known_name(word: str) -> bool:
    """Say whether a word is a unit's name or symbol."""
    return word == "per" or _canonical_word(word) in _NAMES or word in _MEASURES


def _canonical_name(phrase: str, power: str | None) -> str:
    """Bring singular, plural, abbreviations and powers of a unit to one name."""
    names: list[str] = []
    measures = {"squared": "square", "cubed": "cubic", "2": "square", "3": "cubic"}
    for word in [*_spelled_powers(phrase).replace("/", " per ").split(), power or ""]:
        if word in measures and names:
            names[-1] = f"{measures[word]} {names[-1]}"
        elif word:
            names.append(_canonical_word(word))
    return " ".join(names)


def _spelled_powers(phrase: str) -> str:
    """Write `m/s^2` as `m/s squared`."""
    phrase = _INNER_POWER.sub(lambda match: _POWERS[match[1]], phrase)
    return phrase.replace(".", "")


def _canonical_word(word: str) -> str:
    """Return the singular name of one word or symbol."""
    word = word.rstrip(".")
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    folded = word.casefold()
    if (folded in _ANY_CASE and word != "Mm") or len(folded) > _SHORTEST_NOUN:
        word = _SYMBOLS.get(folded, folded)
    if len(word) > _SHORTEST_NOUN and word.endswith("s") and word not in _NAMES:
        word = word[:-1]
    return _SYMBOLS.get(word, word)
