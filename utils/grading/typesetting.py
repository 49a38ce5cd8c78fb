"""What people and tools write around an answer that changes nothing of it.

Markdown, colours, fonts and sizes, environments for display, siunitx, a leading `=` or `therefore`,
spacing inside matrices, and backslashes that a JSON reader took for control characters. A system of
equations in braces becomes the list of its rows.
"""

from __future__ import annotations

import re

# `\f` of `\frac` read as a form feed, `\t` of `\times` as a tab, and their like.
_LOST_BACKSLASH = re.compile(
    r"\x0c(?=[a-z])|\x08(?=[a-z])|\x0b(?=[a-z])|\x07(?=[a-z])"
    r"|\t(?=(?:ext|imes|heta|an|frac|riangle|au|ilde|binom|o)(?![a-z]))"
    r"|\n(?=(?:eq|e|u|abla|ot|otin|mid)(?![a-z]))"
    r"|\r(?=(?:ight|angle|ho|m|floor|ceil|brace)(?![a-z]))"
)
_CONTROL_LETTERS = {
    "\x0c": "\\f", "\x08": "\\b", "\x0b": "\\v", "\x07": "\\a",
    "\t": "\\t", "\n": "\\n", "\r": "\\r",
}  # fmt: skip
_FENCE = re.compile(r"```[a-z]*\s*([^`]+?)\s*```|`([^`]+)`", re.DOTALL)
_EMPHASIS = re.compile(r"(\*{1,3}|_{2,3})(?=\S)((?:(?!\1)[^*])+?)(?<=\S)\1")
_BOLD_WORDS = re.compile(r"\*\*([A-Za-z][^*\d]*)\*\*")
_COLOUR = re.compile(r"\\(?:text)?color(?:box)?\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}")
_SIZE = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bfseries|"
    r"itshape|mathstrut|strut|limits|nolimits|scriptstyle|scriptscriptstyle|phantom\{[^{}]*\}|"
    r"hspace\*?\{[^{}]*\}|hfill|hline|centering|noindent|quad|qquad|enspace|thinspace)(?![A-Za-z])"
)
_FONT = re.compile(
    r"\\(?:framebox|fbox|boldsymbol|bm|pmb|underline|underset\{[^{}]*\}|mathop|mathord|mathbin|displaylimits|"
    r"ensuremath|math(?:bf|rm|it|sf|tt|normal)(?=\s*\{[^{}A-Za-z]*(?:\\|\d[^{}A-Za-z]*\})))\s*(?=\{)"
)
_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:equation|align|aligned|alignat|gather|gathered|displaymath|math|split|"
    r"multline|center)\*?\}(?:\s*\{\d+\})?"
)
_SYSTEM = re.compile(
    r"\\begin\s*\{(?:d|r)?cases\}(?P<cases>.*?)\\end\s*\{(?:d|r)?cases\}"
    r"|\\left\s*\\\{\s*\\begin\s*\{(?P<kind>array|matrix|align\*?|aligned|gathered)\}"
    r"\s*(?:\{[clr| ]*\})?"
    r"(?P<rows>.*?)\\end\s*\{(?P=kind)\}\s*\\right\s*\.",
    re.DOTALL,
)
_ROW_BREAK = re.compile(
    r"\\\\(?:\s*\[\s*-?[\d.]+\s*(?:pt|mm|cm|em|ex|in|px)\s*\])?|\\cr(?![A-Za-z])"
)
_ROW_SPACE = re.compile(r"(\\\\)\s*\[\s*-?[\d.]+\s*(?:pt|mm|cm|em|ex|in|px)\s*\]")
_CONTINUED = re.compile(r"\\\\\s*&?\s*=")
_OPERATOR_GROUP = re.compile(r"\{\s*(\\times|\\cdot|[-+*/=<>:])\s*\}")
_DOUBLE_INDEX = re.compile(r"_\s*\{\s*\{\s*([A-Za-z0-9]+)\s*\}\s*\}")
_CONDITION = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*,?\s*(?:if|for|when|where)\s*\}")
_ROW_ENDS = " ,.;\n\t"
_SIUNITX = re.compile(r"\\(?:num|SI|qty)\s*\{([^{}]*)\}(?:\s*\{([^{}]*)\})?")
_LEADING = re.compile(
    r"(?:\s|\$|=(?![=<>])|⇒|⟹|∴|→|⟶|=>|->"
    r"|\\(?:Rightarrow|implies|therefore|Longrightarrow|longrightarrow|to|rightarrow|iff|"
    r"Leftrightarrow|because|leadsto)(?![A-Za-z]))+"
)
# Braces that group nothing: around one letter before its index, or after an operator.
_INDEXED_LETTER = re.compile(r"(?<![\\A-Za-z_^}\]])\{\s*([A-Za-z])\s*\}(?=\s*[_^])")
_LAST_LETTER = re.compile(r"(?<=[\s=+*/(,-])\{\s*([A-Za-z])\s*\}")
_GROUPED_INDEX = re.compile(
    r"(?<![\\A-Za-z_^}\]\d])\{\s*([A-Za-z](?:_(?:\{[A-Za-z0-9+-]+\}|[A-Za-z0-9]))?)\s*\}(?![\w^!'{])"
)
_MIXED = re.compile(
    r"(?<![\w.\\}])(\d+)\s*\{\s*(\\[dt]?frac\s*(?:\{\d+\}\s*\{\d+\}|\d\d))\s*\}(?![\w^])"
)


def restored(text: str) -> str:
    """Give commands back the backslash that was read as part of a control character.

    >>> restored("2\\x0crac{1}{2}"), restored("3\\times 4"), restored("a\\nb")
    ('2\\\\frac{1}{2}', '3\\\\times 4', 'a\\nb')
    """
    if text.isprintable():
        return text
    return _LOST_BACKSLASH.sub(lambda match: _CONTROL_LETTERS[match[0]], text)


def without_typesetting(text: str) -> str:
    """Drop what only sets an answer, and write systems as lists.

    >>> without_typesetting("**73**"), without_typesetting("\\\\color{red}{5}")
    ('73', '{5}')
    >>> without_typesetting("\\\\begin{cases} x = 3, \\\\\\\\ y = 4. \\\\end{cases}")
    'x = 3, y = 4'
    """
    text = without_markdown(text)
    if "\\" in text:
        text = _without_commands(text)
    if text and text[0] in " =-$\\⇒⟹∴→⟶" and (match := _LEADING.match(text)):
        text = _unprefixed(text, match)
    return _without_groups(text) if "{" in text else text


def without_markdown(text: str) -> str:
    """Drop emphasis, code marks and a heading's signs.

    >>> without_markdown("**73**"), without_markdown("**Answer:** 5"), without_markdown("3**2")
    ('73', 'Answer: 5', '3**2')
    """
    if "`" in text:
        text = _FENCE.sub(lambda match: match[1] or match[2], text)
    if text[:1] in ("*", "_") and (match := _EMPHASIS.fullmatch(text)):
        return match[2]
    if text[:1] in ("'", '"') and text[-1:] == text[0] and text.count(text[0]) == 2:
        return text[1:-1].strip()
    if text[:1] == "#":
        text = text.lstrip("# ")
    return _BOLD_WORDS.sub(r"\1", text) if "**" in text else text


def _without_commands(text: str) -> str:
    if "color" in text:
        text = _COLOUR.sub("", text)
    if "begin" in text:
        text = _SYSTEM.sub(_rows, text)
        if "align" in text or "split" in text or "gather" in text:
            text = _CONTINUED.sub("=", text)
        text = _ROW_SPACE.sub(r"\1", _ENVIRONMENT.sub(" ", text))
        if "matrix" not in text and "array" not in text:
            text = text.replace("&", " ")
    text = _SIUNITX.sub(_quantity, _SIZE.sub(" ", text))
    return _FONT.sub("", text)


def _unprefixed(text: str, match: re.Match[str]) -> str:
    """Drop leading signs; a dollar sign among them opens mathematics, and stays."""
    dollars = match[0].count("$")
    return "$" * dollars + text[match.end() :]


def _rows(match: re.Match[str]) -> str:
    """Write a system as the list of its rows, and a function by cases as pairs with conditions."""
    rows = match["cases"] if match["cases"] is not None else match["rows"]
    parts = [part.strip(_ROW_ENDS).lstrip("& ") for part in _ROW_BREAK.split(rows)]
    if any(re.search(r"&(?!\s*=)", part) for part in parts):
        cells = [_CONDITION.sub("", part).split("&") for part in parts if part]
        if any(len(row) != 2 for row in cells):
            return match[0]
        return ", ".join(f"({value.strip(_ROW_ENDS)}; {when.strip(_ROW_ENDS)})"
                         for value, when in cells)  # fmt: skip
    return ", ".join(part.replace("&", " ") for part in parts if part)


def _quantity(match: re.Match[str]) -> str:
    """Write siunitx's quantity as a number and a unit."""
    unit = " ".join(re.sub(r"\\", " ", match[2] or "").split())
    return f"{match[1]} \\text{{ {unit}}}" if unit else match[1]


def _without_groups(text: str) -> str:
    text = _OPERATOR_GROUP.sub(r"\1", _DOUBLE_INDEX.sub(r"_{\1}", text))
    text = _MIXED.sub(r"\1\2", text)
    text = _LAST_LETTER.sub(r"\1", _INDEXED_LETTER.sub(r"\1", text))
    return _GROUPED_INDEX.sub(r"\1", text)
