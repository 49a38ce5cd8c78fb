"""Normal form of an answer's text: one spelling for each symbol.

Symbols become single characters (`π ∞ ∪ ∖ ℝ ∅ ∈ ≤ ≥ ≠ ≈ ± ∓ * °`, `⦃⦄` for set braces, `¤` for the
dollar sign, `∨` for "or", `⏎` for a row break) so that everything after this module reads
characters; `symbolic_client` turns it back into LaTeX. White space is kept where it separates:
digits are never joined across it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from utils.grading.characters import to_plain
from utils.grading.counting import with_period
from utils.grading.measures import joined_measures
from utils.grading.number_words import in_digits
from utils.grading.typesetting import restored, without_typesetting
from utils.grading.words import WRAPPER, unwrapped

_SYMBOLS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "flatfrac"), r"\frac"),
    **dict.fromkeys(("tg", "tan"), r"\tan"),
    **dict.fromkeys(("ctg", "cotg", "cot"), r"\cot"),
    **dict.fromkeys(("arctg", "arctan"), r"\arctan"),
    **{"cosec": r"\csc", "lg": r"\log_{10}", "permil": "/1000"},
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("quad", "qquad", "displaystyle", "textstyle", "rm", "bf"), " "),
    **dict.fromkeys(("left", "right", "middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr"), ""),
    **dict.fromkeys(("text", "textbf", "textit", "textrm", "textnormal"), r"\text"),
    **dict.fromkeys(("mathrm", "mathbf", "mathit", "mathsf", "mbox", "hbox"), r"\text"),
    **dict.fromkeys(("textsf", "emph", "operatorname", "texttt"), r"\text"),
    **dict.fromkeys(("degree", "textdegree"), "°"),
    **dict.fromkeys(("overline", "bar"), r"\overline"),
    **{
        "equiv": "≡",
        "div": "/",
        "pi": "π",
        "infty": "∞",
        "lt": "<",
        "gt": ">",
        "in": "∈",
        "cup": "∪",
    },
    **{"pm": "±", "mp": "∓", "approx": "≈", "lbrace": "⦃", "rbrace": "⦄", "colon": ":"},
    **{"emptyset": "∅", "varnothing": "∅", "setminus": "∖", "backslash": "∖", "R": "ℝ"},
    **{"cap": "∩", "langle": "(", "rangle": ")"},
    **{"circ": "∘", "$": "¤", "%": "%", "{": "⦃", "}": "⦄", "!": "", "\\": "⏎"},
    **dict.fromkeys(tuple(",;: ()[]"), " "),
}
_ESCAPE = re.compile(r"\\([A-Za-z]+|.)")
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z{}])")
_OPERATOR_NAME = re.compile(
    r"\\(?:operatorname|mathrm|text|rm|mathop)\s*\*?\s*\{\s*(arcsin|arccos|arctan|arctg|arcctg|sin|cos|"
    r"tan|tg|ctg|cotg|cot|csc|cosec|ln|lg|log|exp|gcd|lcm|max|mod|bmod|(?<=operatorname\{)(?:sec|min))"
    r"\s*\}"
)
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
_GLUED_QUAD = re.compile(r"\\q?quad(?=[A-Za-z])")
_TEX_THOUSANDS = re.compile(r"(?<=\d)(?:,\s*\\!\s*|\{,\}\s*|\\,)(?=\d{3}(?!\d))")
_ROOT_SIGN = re.compile(r"√\s*(\d+)")
_DEGREE = re.compile(r"\^\s*(?:\{\s*[∘°]\s*\}|[∘°])|∘")
_FUNCTION_WORD = re.compile(
    r"(?<![A-Za-z\\])(sqrt|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|"
    r"(?:gcd|lcm|max|min)(?=\s*[({⦃]))(?![A-Za-z])"
)
_PI_WORD = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_INFINITY_WORD = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf)(?![A-Za-z])")
_MERIDIEM = re.compile(r"(?<![A-Za-z\\])([AaPp])\.\s?([Mm])(?:\.|(?![A-Za-z]))")
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")
_EMPTY_WRAPPER = re.compile(r"\\text\{\s*\}")
_REPEATED_COMMA = re.compile(r"[,∨∧](?:\s*[,∨∧])+")
_INEQUALITY = re.compile("[<>≤≥≠]")
_JOIN = re.compile(r"\\(?:(lor|vee)|(?:land|wedge)|(bigcup)(?!\s*_))(?![A-Za-z])")
# Vectors: one spelling, and a cross product that is not their dot product.
_VECTOR = re.compile(
    r"\\(?:vec|overrightarrow|hat(?=\s*\{?\s*(?:\\math(?:bf|rm)\s*)?\{?\s*\\?[ijk]))\s*"
    r"(?:\{\s*(?:\\math(?:bf|rm)\s*)?\{?\s*(?:\\([ij])math|([A-Za-z]))\s*\}?\s*\}|\\([ij])math|(?<=\s)([A-Za-z]))"
)
_CROSS = re.compile(
    r"(\\(?:mathbf|overrightarrow)\s*\{[A-Za-z]+\})\s*\\times\s*(?=\\(?:mathbf|overr))"
)
_ONE_DIGIT_PERIOD = re.compile(r"(?<=[.\d])\\overline\s*(\d)")
_BASE_WORD = re.compile(
    r"(?<=[\dA-F)])_\s*\{\s*(?:\(\s*(\d+)\s*\)|(?:\\text\s*\{)?\s*([a-z]+)\s*\}?)\s*\}"
)
_ANGLE_BRACKETS = re.compile(r"(^|=\s*)<([^<>=≤≥]+,[^<>=≤≥]+)>$")
_BUILDER = re.compile(r"\{([^{}|:]*[|:](?:[^{}]|\{[^{}]*\})*[<>≤≥≠](?:[^{}]|\{[^{}]*\})*)\}")
_CIS = re.compile(r"(?:\\text\s*\{\s*cis\s*\}|\\?cis(?![A-Za-z]))\s*([^+-]+|\([^()]*\))$")
_SEVERAL = re.compile(r"(\\(?:gcd|lcm|max|min))\s*[({⦃]([^(){}⦃⦄]*,[^(){}⦃⦄]*)[)}⦄]")
_THOUSANDS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?!\w|,\d)")
_SPACED_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_E_NOTATION = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d{1,3})(?![\w.])")
_TIMES_LETTER = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_UNION_LETTER = re.compile(r"(?<=[)\]⦄])\s*U\s*(?=[(\[⦃])")
_ELLIPSIS = re.compile(r"\.\s*\.\s*\.[\s.]*|\\[lcdv]?dots[bcimo]?(?![A-Za-z])")
_RATIO_WORD = re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\s+to\s+)\s*(?=\d)")
_TIE = re.compile(r"~(?=[A-Za-z\\}]|\d{3}(?!\d))")
_DOTTED_PERIOD = re.compile(r"\\dot\s*(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s*(?:\{(\d)\}|(\d)))?")
_REALS = re.compile(r"\\(?:mathbb|Bbb|mathbf|text)\s*\{?\s*R\s*\}?(?![A-Za-z])")
_BRACED_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d(?!\d\d(?!\d)))")
_NUMBER_SETS = re.compile(r"\\(?:mathbb|Bbb|mathbf)\s*\{?\s*([ZNQ])\s*\}?(?![A-Za-z])")
_SETS = {"Z": "ℤ", "N": "ℕ", "Q": "ℚ", "R": "ℝ"}
_NUMBER_SET_LETTERS = re.compile(r"(?<=∈)\s*([ZNQR])(?![A-Za-z])")
_MODULO = re.compile(
    r"\\p?mod\s*(?:\{([^{}]*)\}|(\w+))|\(\s*(?:\\text\s*\{\s*mod\s*\}|\\?b?mod)\s*([^()]*)\)"
    r"|(?<=\s)mod\s*(\w+)$"
)
_PER_CENT = re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*per ?cent\s*\}|per cent(?![A-Za-z]))")
_TEXT_WITHOUT_WORDS = re.compile(r"\\text\s*\{\s*([-+\d:.,/ ()\[\]]+(?: [a-z]+)?)\s*\}")
_PRIME = re.compile(r"\^\s*\{?\s*(?:\\prime\s*){1,2}\}?")
_MINUTES = re.compile(
    r"(\d+(?:\.\d+)?)\s*°\s*(\d{1,2}(?:\.\d+)?)\s*'(?!')(?:\s*(\d{1,2}(?:\.\d+)?)\s*(?:''|\"))?"
)
# 1,00,000 in India; 115,000, which is no list, for no element begins with a nought.
_MORE_THOUSANDS = re.compile(
    r"(?<![\w.,])[1-9]\d?(?:,\d{2})+,\d{3}(?![\w,])"
    r"|(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})*,0\d\d(?:,\d{3})*(?!\w|,\d)"
)
_DOTS_AND_COMMA = re.compile(r"(?<![\w.,])(\d{1,3}(?:[. ]\d{3})+),(\d{1,2}|\d{4,})(?![\w.,])")
_DOTTED_THOUSANDS = re.compile(
    r"(?<![\w.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\w.])"
    r"|(?<![\w.,])[1-9]\d{0,2}(?:'\d{3})+(?![\w'])"
)
_PAIRS = re.compile(r"\)\s*;\s*\(")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_UNIT_QUOTIENT = re.compile(
    r"\\text\s*\{\s*([A-Za-z. ]+?)\s*\}\s*/\s*\\text\s*\{\s*([A-Za-z. ]+?)\s*\}"
    r"|\\frac\s*\{\s*\\text\s*\{\s*([A-Za-z ]+?)\s*\}\s*\}"
    r"\s*\{\s*\\text\s*\{\s*([A-Za-z ]+?)\s*\}\s*\}"
)
_RELATION_IN_TEXT = re.compile(r"\\text\s*\{([^{}]*[=<>≤≥][^{}]*)\}")
_WHOLE_PHRASES = {
    "all real numbers": "ℝ", "all reals": "ℝ", "empty set": "∅", "the empty set": "∅",
    "no solution": "∅", "no solutions": "∅", "⦃⦄": "∅", "⦃ ⦄": "∅",
    "there is no solution": "∅", "there are no solutions": "∅",
}  # fmt: skip
_REALS_EXCEPT = re.compile(r"all (?:real numbers|reals)(?: [a-z])? except (\S+)", re.IGNORECASE)
_REALS_MINUS = re.compile(r"ℝ\s*-\s*(?=⦃)")
# Intervals written with outward brackets: ]0,1[ is (0,1).
_OUTWARD_OPEN = re.compile(r"(^|[∪∖∈])\s*\](?=[^\[\]]*,[^\[\]]*[\[\]])")
_OUTWARD_CLOSE = re.compile(r"([(\[][^()\[\]]*,[^()\[\]]*)\[(?=\s*(?:$|[∪∖]))")
_MATRIX_BEGIN = re.compile(
    r"[(\[]?\s*\\begin\s*\{(?:[pbB]|small)?(?:matrix|array)\}\s*(?:\{[clr| ]*\})?"
)
_MATRIX_END = re.compile(r"\\end\s*\{(?:[pbB]|small)?(?:matrix|array)\}\s*[)\]]?")
_TRAILING = " .,;:\\⏎"

_LETTERS = re.compile(r"[A-Za-z]")


@lru_cache(maxsize=50_000)
def normalise(text: str) -> str:
    """Rewrite an answer into its normal form; empty where nothing is left.

    >>> normalise("$\\\\dfrac{1}{2}$."), normalise("3 × 10⁴"), normalise("]0, 1] U (2, 3)")
    ('\\\\frac{1}{2}', '3 * 10^{4}', '(0, 1]∪(2, 3)')
    """
    text = without_typesetting(to_plain(restored(text).strip()))
    text = _ELLIPSIS.sub("…", in_digits(joined_measures(text)))
    if "~" in text:
        text = _TIE.sub(" ", text)
    if "\\" in text:
        text = _normalise_commands(text)
    text = _strip_dollars(_BRACED_COMMA.sub(".", text).replace("{,}", ","))
    text = _ROOT_SIGN.sub(r"\\sqrt{\1}", text).replace("√", r"\sqrt ")
    text = _DEGREE.sub("°", text)
    if "mod" in text:
        text = _MODULO.sub(lambda match: f"(\\bmod {next(filter(None, match.groups()))})", text)
    elif "≡" in text:
        text = text.replace("≡", "=")
    if "°" in text:
        text = _MINUTES.sub(_in_degrees, text)
    if "." in text or "," in text or "'" in text:
        text = _one_separator(text)
    text = text.replace("<=", "≤").replace(">=", "≥").replace("!=", "≠").replace("**", "^")
    if _LETTERS.search(text):
        text = _normalise_words(_PER_CENT.sub("%", text))
    if "∈" in text:
        text = _NUMBER_SET_LETTERS.sub(lambda match: _SETS[match[1]], text)
    if "]" in text or "[" in text:
        text = _OUTWARD_CLOSE.sub(r"\1)", _OUTWARD_OPEN.sub(r"\1(", text))
    if "_" in text:
        text = _BASE_WORD.sub(_base, text)
    text = " ".join(text.split()).rstrip(_TRAILING)
    if text[-1:] == ">":
        text = _ANGLE_BRACKETS.sub(r"\1(\2)", text)
    elif text[:1] == "{" and (builder := _BUILDER.fullmatch(text)):
        text = f"⦃{builder[1]}⦄"
    if "ℝ" in text:
        text = _REALS_MINUS.sub("ℝ∖", text)
    elif text[:3].casefold() == "all":
        text = _REALS_EXCEPT.sub(r"ℝ∖⦃\1⦄", text)
    return _WHOLE_PHRASES.get(unwrapped(text).casefold().replace("\\ ", " "), text)


def without_thousands(text: str) -> str:
    """Drop the separators of 1,234,567 outside brackets, where no tuple can be meant.

    >>> without_thousands("1,234"), without_thousands("(1,234)"), without_thousands("1, 234")
    ('1234', '(1,234)', '1, 234')
    >>> without_thousands("12 345"), without_thousands("1 2")
    ('12345', '1 2')
    """
    if any(bracket in text for bracket in "([⦃"):
        return text
    if _SPACED_THOUSANDS.fullmatch(text):
        return text.replace(" ", "")
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def _normalise_commands(text: str) -> str:
    """Rewrite LaTeX commands, each into one spelling."""
    if "begin" not in text:
        text = _DOUBLED_BACKSLASH.sub(r"\\", text)
    text = _GLUED_QUAD.sub(" ", text.replace("\\right.", " "))
    text = _TEX_THOUSANDS.sub("", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    if "dot" in text:
        text = _DOTTED_PERIOD.sub(_repeating_period, text)
    if "\\operatorname" in text or "\\mathrm" in text or "\\text" in text:
        text = _OPERATOR_NAME.sub(r"\\\1 ", text)
    if "vec" in text or "arrow" in text or "hat" in text or "mathbf" in text:
        text = _CROSS.sub(r"\1\\cross ", _VECTOR.sub(_bold, text))
    if "\\l" in text or "\\vee" in text or "\\wedge" in text or "\\big" in text:
        text = _JOIN.sub(_joined, text)
    text = _NUMBER_SETS.sub(lambda match: _SETS[match[1]], _REALS.sub("ℝ", text))
    if "prime" in text:
        text = _PRIME.sub(lambda match: "'" * match[0].count("prime"), text)
    text = _ESCAPE.sub(lambda match: _SYMBOLS.get(match[1], match[0]), text)
    if "overline" in text:
        text = _ONE_DIGIT_PERIOD.sub(r"\\overline{\1}", text)
    if "\\text" in text:
        text = _UNIT_QUOTIENT.sub(_unit_quotient, text)
        text = _TEXT_WITHOUT_WORDS.sub(r"\1", _RELATION_IN_TEXT.sub(r"\1", text))
    return _MATRIX_END.sub(r"\\end{matrix}", _MATRIX_BEGIN.sub(r"\\begin{matrix}", text))


def _bold(match: re.Match[str]) -> str:
    return rf"\mathbf{{{next(filter(None, match.groups()))}}}"


def _joined(match: re.Match[str]) -> str:
    """Read the signs of logic between relations; `p \\vee q` is left alone."""
    if match[2]:
        return r"\cup "
    if not re.search(r"[<>=≤≥≠]|\\(?:[lg]eq?|[lg]t|neq?|in)(?![A-Za-z])", match.string):
        return match[0]
    return " or " if match[1] else " and "


def _base(match: re.Match[str]) -> str:
    """Write the base of a number in digits."""
    digits = match[1] or in_digits(match[2])
    return f"_{{{digits}}}" if digits.isdigit() else match[0]


def _in_degrees(match: re.Match[str]) -> str:
    """Write degrees, minutes and seconds as degrees.

    >>> normalise("12° 30' 36''"), normalise("10°20'")
    ('12.51°', '\\\\frac{31}{3}°')
    """
    whole, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    value = whole + minutes / 60 + seconds / 3600
    decimal = format(Decimal(value.numerator) / value.denominator, "f")
    if Fraction(decimal) == value:
        return f"{decimal}°"
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}°"


def _one_separator(text: str) -> str:
    """Write periods, thousands and decimal commas of other countries as ours.

    >>> normalise("0.(3)"), normalise("1,00,000"), normalise("1.234.567"), normalise("(0,5; 1)")
    ('0.\\\\overline{3}', '100000', '1234567', '(0.5; 1)')
    """
    text = with_period(text)
    text = _DOTS_AND_COMMA.sub(lambda match: re.sub("[. ]", "", match[1]) + "." + match[2], text)
    if not any(bracket in text for bracket in "([⦃"):
        text = _MORE_THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _DOTTED_THOUSANDS.sub(lambda match: re.sub("[.']", "", match[0]), text)
    if (
        ";" in text
        and not _PAIRS.search(text)
        and _DECIMAL_COMMA.search(text)
        and not re.search(r",\s|\.", text)
    ):
        text = _DECIMAL_COMMA.sub(".", text)
    return text


def _unit_quotient(match: re.Match[str]) -> str:
    above, below = match[1] or match[3], match[2] or match[4]
    return rf"\text{{{above}/{below}}}"


def _repeating_period(match: re.Match[str]) -> str:
    """Write a period marked by dots above its ends as one marked by a line."""
    return rf"\overline{{{''.join(digits for digits in match.groups() if digits)}}}"


def _strip_dollars(text: str) -> str:
    """Drop math delimiters; a lone dollar sign means money and becomes `¤`."""
    count = text.count("$")
    if count % 2:
        text = text.replace("$", "¤", 1)
    return text.replace("$", " ") if count else text


def _normalise_words(text: str) -> str:
    """Give function words their backslash, and turn the words of lists into their signs."""
    text = _E_NOTATION.sub(r"\1*10^{\2}", text)
    text = _UNION_LETTER.sub("∪", _RATIO_WORD.sub(":", _TIMES_LETTER.sub("*", text)))
    text = _FUNCTION_WORD.sub(r"\\\1", text)
    if "cis" in text:
        text = _CIS.sub(r"(\\cos(\1)+i\\sin(\1))", text)
    if "m" in text or "gcd" in text:
        text = _SEVERAL.sub(_in_order, text)
    text = _INFINITY_WORD.sub("∞", _PI_WORD.sub("π", text))
    # Between inequalities a comma may mean either.
    both = "∧" if _INEQUALITY.search(text) else ","
    text = _OR.sub("∨", _AND.sub(both, _MERIDIEM.sub(r"\1\2", text)))
    if "\\text" in text:
        text = WRAPPER.sub(_split_wrapper, text)
        text = _EMPTY_WRAPPER.sub("", text)
    return _REPEATED_COMMA.sub(_strongest, text)


def _in_order(match: re.Match[str]) -> str:
    """Write the arguments of `\\max(b,a)` in order."""
    return f"{match[1]}({','.join(sorted(part.strip() for part in match[2].split(',')))})"


def _strongest(match: re.Match[str]) -> str:
    return next((sign for sign in "∨∧" if sign in match[0]), ",")


def _split_wrapper(match: re.Match[str]) -> str:
    """Wrap each item of a list inside \\text on its own."""
    return "\\text{" + re.sub("([,∨∧])", r"}\1\\text{", match[1]) + "}"
