"""Normal form of an answer's text: one spelling for each symbol, units and prose told apart.

Symbols become single characters (`π ∞ ∪ ∈ ≤ ≥ ≠ ≈ ± ∓ * °`, `⦃⦄` for set braces, `¤` for the dollar
sign, `⏎` for a row break) so that everything after this module reads characters; `symbolic_client`
turns it back into LaTeX. White space is kept where it separates: digits are never joined across it.
"""

from __future__ import annotations

import re
from functools import lru_cache

_CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": "*",
        "·": "*",
        "⋅": "*",
        "∗": "*",
        "÷": "/",
        "º": "°",
        "’": "'",
        "′": "'",
        "²": "^{2}",
        "³": "^{3}",
        "½": r"\frac{1}{2}",
        "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}",
        "θ": r"\theta ",
        "\u00a0": " ",
        "\u2009": " ",
        "\n": " ",
        "\t": " ",
        "\r": " ",
    }
)
_SYMBOLS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("quad", "qquad", "displaystyle", "textstyle", "rm", "bf"), " "),
    **dict.fromkeys(("left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr"), ""),
    **dict.fromkeys(("text", "textbf", "textit", "textrm", "textnormal"), r"\text"),
    **dict.fromkeys(("mathrm", "mathbf", "mathit", "mathsf", "mbox", "hbox"), r"\text"),
    **dict.fromkeys(("textsf", "emph", "operatorname", "texttt"), r"\text"),
    **dict.fromkeys(("degree", "textdegree"), "°"),
    **dict.fromkeys(("overline", "bar"), r"\overline"),
    **{"div": "/", "pi": "π", "infty": "∞", "cup": "∪", "lt": "<", "gt": ">", "in": "∈"},
    **{"pm": "±", "mp": "∓", "approx": "≈", "lbrace": "⦃", "rbrace": "⦄", "colon": ":"},
    **{"circ": "∘", "$": "¤", "%": "%", "{": "⦃", "}": "⦄", "!": "", "\\": "⏎"},
    **dict.fromkeys(tuple(",;: ()[]"), " "),
}
_ESCAPE = re.compile(r"\\([A-Za-z]+|.)")
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z{}])")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
_GLUED_QUAD = re.compile(r"\\q?quad(?=[A-Za-z])")
_TEX_THOUSANDS = re.compile(r"(?<=\d)(?:,\s*\\!\s*|\{,\}\s*|\\,)(?=\d{3}(?!\d))")
_ROOT_SIGN = re.compile(r"√\s*(\d+)")
_DEGREE = re.compile(r"\^\s*(?:\{\s*[∘°]\s*\}|[∘°])|∘")
_FUNCTION_WORD = re.compile(
    r"(?<![A-Za-z\\])(sqrt|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log)(?![A-Za-z])"
)
_PI_WORD = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_INFINITY_WORD = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf)(?![A-Za-z])")
_MERIDIEM = re.compile(r"(?<![A-Za-z\\])([AaPp])\.\s?([Mm])(?:\.|(?![A-Za-z]))")
_CONJUNCTION = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_WRAPPER = re.compile(r"\\text\s*\{([^{}]*)\}")
_EMPTY_WRAPPER = re.compile(r"\\text\{\s*\}")
_REPEATED_COMMA = re.compile(r",(?:\s*,)+")
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\w|,\d)")
_MATRIX_BEGIN = re.compile(
    r"[(\[]?\s*\\begin\s*\{(?:[pbB]|small)?(?:matrix|array)\}\s*(?:\{[clr| ]*\})?"
)
_MATRIX_END = re.compile(r"\\end\s*\{(?:[pbB]|small)?(?:matrix|array)\}\s*[)\]]?")
_TRAILING = " .,;:\\⏎"

_SCALE_WORDS = {
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "not", "no", "or", "and",
}  # fmt: skip
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
_WRAPPED_UNIT = re.compile(
    r"(?P<core>.*\S)\s*\\text\s*\{(?P<unit>[^{}]*[A-Za-z][^{}]*)\}\s*"
    r"(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?"
)
_PLAIN_UNIT = re.compile(
    r"(?P<core>.*[\d})π])\s*(?<![A-Za-z])(?P<unit>[A-Za-z]+\.?(?:\s+[A-Za-z]+\.?)*)\s*"
    r"(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?"
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DIGIT = re.compile(r"[\dπ]")
_LETTERS = re.compile(r"[A-Za-z]+")
_WORD = re.compile(
    r"(?<![\\A-Za-z])(?:[A-Za-z]{4,}|(?:no|not|yes|the|is|are|all|any|but|only)(?![A-Za-z]))"
)
_TEXT_NOISE = re.compile(r"[\s.,;:!?'\"~-]+")


@lru_cache(maxsize=50_000)
def normalise(text: str) -> str:
    """Rewrite an answer into its normal form; empty where nothing is left.

    >>> normalise("$\\\\dfrac{1}{2}$.")
    '\\\\frac{1}{2}'
    """
    text = text.strip().translate(_CHARACTERS)
    if "\\" in text:
        if "begin" not in text:
            text = _DOUBLED_BACKSLASH.sub(r"\\", text)
        text = _GLUED_QUAD.sub(" ", text.replace("\\right.", " "))
        text = _TEX_THOUSANDS.sub("", text)
        text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
        text = _ESCAPE.sub(lambda match: _SYMBOLS.get(match[1], match[0]), text)
        text = _MATRIX_END.sub(r"\\end{matrix}", _MATRIX_BEGIN.sub(r"\\begin{matrix}", text))
    text = _strip_dollars(text.replace("{,}", ","))
    text = _ROOT_SIGN.sub(r"\\sqrt{\1}", text).replace("√", r"\sqrt ")
    text = _DEGREE.sub("°", text)
    text = text.replace("<=", "≤").replace(">=", "≥").replace("!=", "≠").replace("**", "^")
    if _LETTERS.search(text):
        text = _normalise_words(text)
    return " ".join(text.split()).rstrip(_TRAILING)


def without_thousands(text: str) -> str:
    """Drop the commas of 1,234,567 outside brackets, where no tuple can be meant.

    >>> without_thousands("1,234"), without_thousands("(1,234)"), without_thousands("1, 234")
    ('1234', '(1,234)', '1, 234')
    """
    if any(bracket in text for bracket in "([⦃"):
        return text
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


@lru_cache(maxsize=50_000)
def split_unit(text: str, known: str = "") -> tuple[str, str]:
    """Split normalised text into a value and the canonical name of its unit ("" for none).

    Plain words are a unit where they are in the list of units or name the `known` one of the other
    side; a single letter (`20m`) may be a variable, so it needs the latter.

    >>> split_unit("135 square feet"), split_unit("28%"), split_unit("¤5")
    (('135', 'square foot'), ('28', 'percent'), ('5', 'dollar'))
    """
    if "¤" in text:
        core, unit = split_unit(text.replace("¤", " ").strip(), known)
        return core, unit or "dollar"
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if text.endswith("°") and not _TRIGONOMETRIC.search(text):
        return text[:-1].strip(), "degree"
    if (match := _WRAPPED_UNIT.fullmatch(text)) and _DIGIT.search(match["core"]):
        unit = _canonical_unit(match["unit"], match["power"])
        letters = _LETTERS.findall(match["unit"])
        if letters == ["i"] or letters == ["e"] or _SCALE_WORDS.intersection(unit.split()):
            return text, ""
        return match["core"].rstrip("* "), unit
    if match := _PLAIN_UNIT.fullmatch(text):
        unit = _canonical_unit(match["unit"], match["power"])
        listed = len(match["unit"]) > 1 and all(word in _UNIT_WORDS for word in unit.split())
        if listed or unit == known:
            return match["core"], unit
    return text, ""


def is_text(text: str) -> bool:
    """Say whether normalised text is words rather than mathematics.

    >>> is_text("odd"), is_text("\\\\text{odd}"), is_text("Tuesday"), is_text("2ab")
    (False, True, True, False)
    """
    if (match := _WRAPPER.fullmatch(text)) and _LETTERS.search(match[1]):
        return True
    return bool(_WORD.search(unwrapped(text).replace("{matrix}", "")))


def folded(text: str) -> str:
    """Fold case, punctuation, wrappers and outer parentheses of a text answer.

    >>> folded("\\\\text{(B)}"), folded("Not  Tuesday.")
    ('b', 'not tuesday')
    """
    text = _TEXT_NOISE.sub(" ", unwrapped(text)).strip().casefold()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return text


def unwrapped(text: str) -> str:
    """Replace \\text{...} by what it holds."""
    return _WRAPPER.sub(r" \1 ", text).strip() if "\\text" in text else text


def _strip_dollars(text: str) -> str:
    """Drop math delimiters; a lone dollar sign means money and becomes `¤`."""
    count = text.count("$")
    if count % 2:
        text = text.replace("$", "¤", 1)
    return text.replace("$", " ") if count else text


def _normalise_words(text: str) -> str:
    """Give function words their backslash, and turn `and` and `or` into commas."""
    text = _FUNCTION_WORD.sub(r"\\\1", text)
    text = _INFINITY_WORD.sub("∞", _PI_WORD.sub("π", text))
    text = _CONJUNCTION.sub(",", _MERIDIEM.sub(r"\1\2", text))
    if "\\text" in text:
        text = _WRAPPER.sub(_split_wrapper, text)
        text = _EMPTY_WRAPPER.sub("", text)
    return _REPEATED_COMMA.sub(",", text)


def _split_wrapper(match: re.Match[str]) -> str:
    """Wrap each item of a list inside \\text on its own."""
    return "\\text{" + match[1].replace(",", "},\\text{") + "}"


def _canonical_unit(words: str, power: str | None) -> str:
    """Bring singular, plural, abbreviations and powers of a unit to one name."""
    names = []
    for word in words.replace(".", "").lower().split():
        singular = _UNIT_ALIASES.get(word, word)
        if singular == word and len(word) > 3 and word.endswith("s"):
            singular = _UNIT_ALIASES.get(word[:-1], word[:-1])
        names.append(singular)
    prefix = {"2": "square ", "3": "cubic "}.get(power or "", "")
    return prefix + " ".join(names)
