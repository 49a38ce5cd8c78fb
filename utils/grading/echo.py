"""Answers that echo the problem: its own expression, with the operation it asks for still to do.

An unevaluated form such as `2^{10}-1` is a right answer. One that stands in the problem itself is
the question again: rewarded, it would be learnt. An answer is an echo where

- it is written otherwise than the reference,
- an operation is still to do in it (`utils.grading.operations.to_do`) of a kind that the reference
  does not leave to do either; or it has variables and is written with more operations than the
  reference; or it is a sum where the problem asks for a product and the reference is none; or it is
  all that the problem states and another form of it is asked for (`\\frac{3}{20}` as a decimal),
- and it stands in the problem: whole, or if it has no variables as a part of an expression there;
  or it is such an expression decorated without changing its value, as by `+0`.

An answer of several parts is an echo if one part is; `3+4 = 7` states the value and is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from utils.grading import arcs, arrangements, prose, structure, units
from utils.grading.equality import compare
from utils.grading.exact_algebra import NotExactError, same_value
from utils.grading.expression_trees import (
    Tree,
    has_letters,
    read_tree,
    stands_in,
    subtrees,
    value_of,
)
from utils.grading.normal_form import normalise
from utils.grading.operations import operations, to_do
from utils.grading.words import WRAPPER

ECHOED_PROBLEM = "echoed_problem"
MAX_ANSWER_CHARACTERS = 500

# What has none of these has nothing to do: most answers are plain numbers.
_OPERATION = re.compile(
    r"[+*/^!|×·⋅÷√²³⁴-⁹%:\\.]|\d\s*[(\[{]|\)\s*\(|[^\s$({\[].*[-−–]|[-−–].*[-−–]"
    r"|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|choose|[CPA]"
)
_MATHS = re.compile(
    r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]"
    r"|\\begin\{((?:align|equation|gather|eqnarray)\*?)\}(.+?)\\end\{\5\}",
    re.DOTALL,
)
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_AFTER_BRACKET = re.compile(r"\)\s*(?=\d)")
_RATIO = re.compile(r"(?<=\d)\s*:\s*(?=\d)")
_BETWEEN = structure.RELATIONS + structure.SEPARATORS + "⏎&:?…%"
_EQUALS = "=≈"
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
# Arithmetic among words.
_RUN = re.compile(r"(?:\\(?:frac|sqrt|binom)(?![A-Za-z])|[\d.+*/^(){}\[\]!π° -])+")
_FORM = re.compile(
    r"\b(?:fractions?|decimals?|mixed numbers?|percent(?:age)?|scientific notation|ratio)\b",
    re.IGNORECASE,
)
_FACTOR = re.compile(
    r"\bfactor(?:i[sz]e|ed|i[sz]ed|i[sz]ation)?\b|\bas (?:a|the) product\b", re.IGNORECASE
)
# What the parser of trees does not read, but leaves something to do all the same.
_MARK = re.compile(
    r"[+*^!|∩∪∖]|(?<=[\d)}])-(?=[\d(\\-])|\\(?:int|sum|prod|lim|[lr]floor|[lr]ceil|log|ln|lg|exp|sin|cos|tan|cot|sec|csc|"
    r"arcsin|arccos|arctan|gcd|lcm|det|binom|frac|sqrt|[bp]?mod|overline)(?![A-Za-z])"
)


class Posed(NamedTuple):
    """What stands in a problem: whole expressions, its text without white space, its formulas."""

    whole: tuple[Tree, ...]
    text: str
    formulas: tuple[str, ...]


def echoes(answer: str, reference: str, problem: str) -> bool:
    """Say whether an answer that equals the reference only repeats the problem's expression.

    >>> echoes("-61+2-69+33", "-95", "What is $-61+2-69+33$?"), echoes("-95", "-95", "$-90-5$?")
    (True, False)
    """
    if len(answer) > MAX_ANSWER_CHARACTERS or not _OPERATION.search(answer):
        return False
    wanted = posed(reference)
    return any(
        all(
            _echoes_side(side, wanted, problem)
            or _unconverted(side, reference, problem)
            or _decorated_text(side, reference, problem)
            for side in sides
        )
        for sides in _statements(answer)
    )


@lru_cache(maxsize=4_000)
def posed(text: str) -> Posed:
    """Read every expression of a text: what stands between its relations and separators.

    >>> len(posed("Compute $2+3$ and $x^2 = 4$, or 6*7.").whole)
    4
    """
    text = _DRAWING.sub(" ", text)
    found = [tree for part in _regions(text) for tree in _expressions(part)]
    formulas = [piece for match in _MATHS.finditer(text)
                for piece in structure.split_top(_clean(_inside(match)), _BETWEEN)]  # fmt: skip
    return Posed(tuple(dict.fromkeys(found)), _compact(_normal(text)), tuple(formulas))


def _statements(answer: str) -> Iterator[list[str]]:
    """Yield each part of an answer as the sides of its equation, without the name it is given."""
    text = _clean(prose.stated_value(answer) or answer)
    for element in structure.elements(text):
        sequence = structure.as_sequence(element)
        for part in sequence.parts if sequence else (element,):
            for piece in structure.split_top(part, "<>≤≥≠∈"):
                sides = [side.strip(" ⏎?") for side in structure.split_top(piece, _EQUALS)]
                sides = [side for side in sides if side and not structure.is_name(side)]
                if sides:
                    yield sides


def _echoes_side(side: str, wanted: Posed, problem: str) -> bool:
    trees = _expressions(units.split_unit(side)[0])
    if any(_echoes_tree(tree, wanted, problem) for tree in trees):
        return True
    return read_tree(side) is None and _echoes_text(side, wanted, problem)


def _echoes_tree(tree: Tree, wanted: Posed, problem: str) -> bool:
    if tree in wanted.whole or not wanted.whole:
        return False
    unfinished = _unfinished(tree, wanted.whole, problem)
    if not unfinished and not has_letters(tree):
        return False  # nor is any part of it unfinished; the problem need not be read
    given = posed(problem).whole
    if unfinished and _stands(tree, given):
        return True
    return any(
        stands_in(part, tree) and _unfinished(part, wanted.whole, problem) and _same(part, tree)
        for whole in given
        for part in (subtrees(whole) if not has_letters(tree) else (whole,))
        if part.kind not in ("number", "name", "inverse")
    )


def _stands(tree: Tree, given: tuple[Tree, ...]) -> bool:
    """Say whether a problem holds an expression: with variables whole, else anywhere."""
    if has_letters(tree):
        return tree in given
    return any(stands_in(tree, whole) for whole in given)


def _unfinished(tree: Tree, wanted: tuple[Tree, ...], problem: str) -> bool:
    """Say whether an operation is still to do which the reference does not leave to do."""
    if to_do(tree).difference(*map(to_do, wanted)):
        return True
    if not has_letters(tree):
        return False
    if tree.kind == "sum" and _FACTOR.search(problem):
        return all(other.kind != "sum" for other in wanted)
    return operations(tree) > max(map(operations, wanted))


def _unconverted(side: str, reference: str, problem: str) -> bool:
    """Say whether a number, all that the problem states, is to be written in another form."""
    if not _FORM.search(problem) or _shape(side) == _shape(reference):
        return False
    given, trees = posed(problem).whole, _expressions(units.split_unit(side)[0])
    if len(given) != 1 or len(trees) != 1 or has_letters(given[0]):
        return False
    return stands_in(given[0], trees[0]) and _same(given[0], trees[0])


def _shape(text: str) -> str:
    """Return how a number is written, whatever its digits.

    >>> [_shape(text) for text in ("0.15", "0.150", "3/20", "\\\\frac{3}{20}", "1\\\\frac{3}{20}")]
    ['.', '.', '/', '/', '+/']
    """
    text = re.sub(r"(?<=\d)\s*\\frac", "+/", normalise(text)).replace("\\frac", "/")
    return re.sub(r"[\d\s{}()$]", "", text)


def _same(one: Tree, other: Tree) -> bool:
    try:
        return same_value(value_of(one), value_of(other))
    except NotExactError:
        return False


def _echoes_text(side: str, wanted: Posed, problem: str) -> bool:
    """Decide by the text alone where there is no tree: `\\lfloor 3.7 \\rfloor`, `|2-5|`."""
    text = _compact(side)
    return _text_unfinished(text, wanted) and text in posed(problem).text


def _decorated_text(side: str, reference: str, problem: str) -> bool:
    """Say whether a formula with the reference's value stands in a text without tree: `|2-5|+0`."""
    if read_tree(side) is not None:
        return False
    text, wanted = _compact(side), posed(reference)
    return any(
        _compact(formula) in text
        and _text_unfinished(_compact(formula), wanted)
        and compare(formula, reference).equal
        for formula in posed(problem).formulas
    )


def _text_unfinished(text: str, wanted: Posed) -> bool:
    if not any(sign.isdigit() or sign == "π" for sign in text) or text in wanted.text:
        return False
    return bool(set(_MARK.findall(text)) - set(_MARK.findall(wanted.text)))


def _regions(text: str) -> Iterator[str]:
    """Yield the maths of a text, then its words."""
    yield from map(_inside, _MATHS.finditer(text))
    yield from _MATHS.split(text)[:: _MATHS.groups + 1]


def _inside(match: re.Match[str]) -> str:
    return next(filter(None, reversed(match.groups())))


def _expressions(text: str) -> list[Tree]:
    """Read the expressions of a piece of text; of one that is no mathematics, its arithmetic."""
    found = []
    for piece in structure.split_top(_clean(text), _BETWEEN):
        sequence = structure.as_sequence(piece)
        if sequence:
            found += [tree for part in sequence.parts for tree in _expressions(part)]
        elif (tree := read_tree(piece)) and not _WORD.search(piece):
            found.append(tree)
        else:
            found += [tree for run in _RUN.findall(piece) if (tree := _read_run(run))]
    return found


def _read_run(run: str) -> Tree | None:
    """Read arithmetic that stands among words, and so among their punctuation."""
    run = run.strip(" .+*/^")
    for opener, closer in ("()", "[]", "{}"):
        if run.count(opener) != run.count(closer):
            run = run.strip(opener + closer + " .")
    return read_tree(run) if any(map(str.isdigit, run)) else None


def _clean(text: str) -> str:
    text = WRAPPER.sub(_opened, _THOUSANDS.sub("", _normal(text)))
    text = _AFTER_BRACKET.sub(")*", text)
    return _RATIO.sub("/", text.replace("¤", " "))


def _normal(text: str) -> str:
    return arcs.with_arcs(arrangements.spelled_out(normalise(text)))


def _opened(match: re.Match[str]) -> str:
    """Open \\text around arithmetic; words end an expression."""
    return match[1] if any(map(str.isdigit, match[1])) else "⏎"


def _compact(text: str) -> str:
    return re.sub(r"[\s{}()]", "", text)
