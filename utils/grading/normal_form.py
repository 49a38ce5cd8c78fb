"""Normal form of an answer's text: one spelling for each symbol.

Symbols become single characters (`π ∞ ∪ ∖ ℝ ∅ ∈ ≤ ≥ ≠ ≈ ± ∓ * °`, `⦃⦄` for set braces, `¤` for the
dollar sign, `∨` for "or", `⏎` for a row break) so that everything after this module reads
characters; `symbolic_client` turns it back into LaTeX. White space is kept where it separates:
digits are never joined across it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from utils.grading.characters import to_plain
from utils.grading.words import WRAPPER

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
    **{"div": "/", "pi": "π", "infty": "∞", "lt": "<", "gt": ">", "in": "∈", "cup": "∪"},
    **{"pm": "±", "mp": "∓", "approx": "≈", "lbrace": "⦃", "rbrace": "⦄", "colon": ":"},
    **{"emptyset": "∅", "varnothing": "∅", "setminus": "∖", "backslash": "∖", "R": "ℝ"},
    **{"cap": "∩", "langle": "(", "rangle": ")", "tilde": " "},
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
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")
_EMPTY_WRAPPER = re.compile(r"\\text\{\s*\}")
_REPEATED_COMMA = re.compile(r"[,∨](?:\s*[,∨])+")
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\w|,\d)")
_SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_E_NOTATION = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d{1,3})(?![\w.])")
_TIMES_LETTER = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_UNION_LETTER = re.compile(r"(?<=[)\]⦄])\s*U\s*(?=[(\[⦃])")
_ELLIPSIS = re.compile(r"\.\s*\.\s*\.[\s.]*|\\[lcdv]?dots(?![A-Za-z])")
_RATIO_WORD = re.compile(r"(?<=\d)\s+to\s+(?=\d)")
_TIE = re.compile(r"~(?=[A-Za-z\\}])")
_DOTTED_PERIOD = re.compile(r"\\dot\s*(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s*(?:\{(\d)\}|(\d)))?")
_REALS = re.compile(r"\\(?:mathbb|Bbb|mathbf|text)\s*\{?\s*R\s*\}?(?![A-Za-z])")
_WHOLE_PHRASES = {
    "all real numbers": "ℝ", "all reals": "ℝ", "empty set": "∅", "the empty set": "∅",
    "no solution": "∅", "no solutions": "∅", "⦃⦄": "∅", "⦃ ⦄": "∅",
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
    text = _ELLIPSIS.sub("…", to_plain(text.strip()))
    if "\\" in text:
        text = _normalise_commands(text)
    text = _strip_dollars(text.replace("{,}", ","))
    text = _ROOT_SIGN.sub(r"\\sqrt{\1}", text).replace("√", r"\sqrt ")
    text = _DEGREE.sub("°", text)
    text = text.replace("<=", "≤").replace(">=", "≥").replace("!=", "≠").replace("**", "^")
    if _LETTERS.search(text):
        text = _normalise_words(text)
    if "]" in text or "[" in text:
        text = _OUTWARD_CLOSE.sub(r"\1)", _OUTWARD_OPEN.sub(r"\1(", text))
    text = " ".join(text.split()).rstrip(_TRAILING)
    if "ℝ" in text:
        text = _REALS_MINUS.sub("ℝ∖", text)
    elif text[:3].casefold() == "all":
        text = _REALS_EXCEPT.sub(r"ℝ∖⦃\1⦄", text)
    return _WHOLE_PHRASES.get(text.casefold(), text)


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
    text = _GLUED_QUAD.sub(" ", _TIE.sub(" ", text).replace("\\right.", " "))
    text = _TEX_THOUSANDS.sub("", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    if "dot" in text:
        text = _DOTTED_PERIOD.sub(_repeating_period, text)
    text = _REALS.sub("ℝ", text)
    text = _ESCAPE.sub(lambda match: _SYMBOLS.get(match[1], match[0]), text)
    return _MATRIX_END.sub(r"\\end{matrix}", _MATRIX_BEGIN.sub(r"\\begin{matrix}", text))


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
    text = _INFINITY_WORD.sub("∞", _PI_WORD.sub("π", text))
    text = _OR.sub("∨", _AND.sub(",", _MERIDIEM.sub(r"\1\2", text)))
    if "\\text" in text:
        text = WRAPPER.sub(_split_wrapper, text)
        text = _EMPTY_WRAPPER.sub("", text)
    return _REPEATED_COMMA.sub(lambda match: "∨" if "∨" in match[0] else ",", text)


def _split_wrapper(match: re.Match[str]) -> str:
    """Wrap each item of a list inside \\text on its own."""
    return "\\text{" + re.sub("([,∨])", r"}\1\\text{", match[1]) + "}"
