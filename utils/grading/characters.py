"""Bring Unicode to the few symbols and LaTeX spellings that the rest of grading reads."""

from __future__ import annotations

import re
import unicodedata

from utils.grading.chinese import in_english

_GREEK_NAMES = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon",
    "phi", "chi", "psi", "omega",
]  # fmt: skip
_GREEK = {
    chr(0x3B1 + index): rf"\{name} "
    for index, name in enumerate(_GREEK_NAMES)
    if name not in ("pi", "omicron")  # π is kept as one character, omicron is an o
}
_VULGAR_FRACTIONS = {
    char: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", char).split("\u2044"))
    for char in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
# What NFKC would fold into something else, or would leave alone.
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–‐‑‒﹣－", "-"),
        **dict.fromkeys("×·⋅∗∙", "*"),
        **dict.fromkeys("’′", "'"),
        **dict.fromkeys("\u00a0\u2009\u202f\n\t\r", " "),
        # Invisible and harmless; marks that reorder the text are left in, and never match.
        **dict.fromkeys("\u200b\u2060\ufeff", None),
        **_GREEK,
        **_VULGAR_FRACTIONS,
        "÷": "/",
        "\u2044": "/",
        "∕": "/",
        "º": "°",
        "˚": "°",
        "′": "'",
        "″": "''",
        "、": ",",
        "或": " or ",
        "∨": " or ",
        **dict.fromkeys("和与且及∧", " and "),
        "∣": "|",
        "。": ".",
        "∠": r"\angle ",
        "⌊": r"\lfloor ",
        "⌋": r"\rfloor ",
        "⌈": r"\lceil ",
        "⌉": r"\rceil ",
        "¢": " cents",
        "∛": r"\sqrt[3]",
        "∜": r"\sqrt[4]",
        "‰": r"\permil ",
        "⩽": "≤",
        "⩾": "≥",
        "∶": ":",
        "ℝ": r"\mathbb{R}",
        "∖": r"\setminus ",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "∅": r"\emptyset ",
    }
)
_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+|ⁿ")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
# ①③ names two statements; digits alone would make 13 of it.
_CIRCLED = re.compile(r"[①-⑳⑴-⒇](?:[\s,]*[①-⑳⑴-⒇])*")


def to_plain(text: str) -> str:
    """Rewrite Unicode look-alikes, scripts, fractions and Greek letters.

    >>> to_plain("2·10⁻³ − x₁"), to_plain("1⅓"), to_plain("５")
    ('2*10^{-3} - x_{1}', '1\\\\frac{1}{3}', '5')
    >>> to_plain("①③"), to_plain("3厘米")
    ('(1), (3)', '3\\\\text{ cm}')
    """
    text = text.translate(_CHARACTERS)
    if text.isascii():
        return text
    text = _CIRCLED.sub(_listed, in_english(text))
    text = _SUPERSCRIPT.sub(lambda match: f"^{{{_folded(match[0])}}}", text)
    text = _SUBSCRIPT.sub(lambda match: f"_{{{_folded(match[0])}}}", text)
    return _folded(text).translate(_CHARACTERS)


def _listed(match: re.Match[str]) -> str:
    numbers = (
        unicodedata.numeric(sign) for sign in match[0] if not (sign.isspace() or sign == ",")
    )
    return ", ".join(f"({number:.0f})" for number in numbers)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")
