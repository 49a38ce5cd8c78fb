"""Answers wrapped in a sentence: a closed grammar of openings, and nothing else.

A sentence is read only where it is a plain statement of the answer: "The answer is 5.", "Thus
$x>5$ is our answer.", "Answer: 5", "The number of ways is $5$.". What stands for the value is then
graded like any answer, so that "The answer is 5 or 6" is two values and "The answer is not 5" is no
value. No number is ever looked for inside a sentence: that also finds the one in "not 5", in an
echo of the problem, and in a list of guesses.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 300

_ADJECTIVE = (
    r"(?:(?:final|correct|required|desired|simplified|simplest|exact|numerical|total|resulting|"
    r"maximum|minimum|greatest|least|largest|smallest|smaller|larger|positive|identity|inverse|"
    r"common|expected|real|surface|average|shaded|missing|unknown|ordered|complete|full|general)\s)*+"
)
_NOUN = (
    r"(?:answer|ans|solution|solutions|result|value|values|number|sum|product|difference|quotient|"
    r"ratio|area|volume|perimeter|circumference|length|width|height|radius|diameter|distance|"
    r"probability|expression|equation|inequality|interval|set|function|matrix|vector|point|"
    r"polynomial|coordinates|pair|triple|angle|measure|slope|limit|integral|derivative|remainder|"
    r"total|average|mean|median|mode|range|domain|cost|price|amount|speed|time|age|digit|root|"
    r"roots|vertex|center|centre|focus|midpoint|intercept|minimum|maximum|hypotenuse|sides?|"
    r"circumradius|inradius|inverse|period|amplitude|order|rank|trace|norm|modulus|rate|profit|"
    r"determinant|projection|coefficient|degree|percentage|factor|divisor|multiple)"
)
# Any of these may turn the statement into another one.
_TURNS = re.compile(
    r"\b(?:not|no|never|none|neither|nor|either|or|but|except|than|about|approximately|roughly|"
    r"around|between|unless|if|without|wrong|incorrect|false|maybe|perhaps|possibly|probably|might|"
    r"could|would|cannot|opposite|half|twice|double|other|guess|instead|was|were)\b|n't|\?",
    re.IGNORECASE,
)
_ANOTHER_CLAUSE = re.compile(r"\b(?:answer|result|say|find|compute|what|which|whether)\b", re.I)
# Possessive (`*+`): a long run of such words must not be tried in every way.
_INTRO = r"(?:(?:so|thus|therefore|hence|then|and|finally|consequently|in conclusion)\b,? ?)*+"
_VERB = r" ?(?:(?:is|are|equals|is equal to|is given by|must be|is thus|is therefore)\b|=|:) ?:?"
_VARIABLE = r"(?:\$ ?[A-Za-z](?:_\w)? ?\$|\\\( ?[A-Za-z] ?\\\)|[A-Za-z])"
_OF = rf"(?P<of> (?:of|for|to|that|in) (?:[A-Za-z-]+ ){{0,6}}?(?:[A-Za-z-]+|{_VARIABLE}))?"
_DELIMITED = r"(?:\$\$?[^$]+\$?\$|\\\([^$]+?\\\)|\\\[[^$]+?\\\])"
_IS_THE_ANSWER = rf" is (?:the|our|my) {_ADJECTIVE}(?:answer|solution|result)"
_END = r" ?(?:\.|(?<![\d)\]}])!)?(?: I hope it is correct\.)?"  # 5! is 120
_STATEMENTS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # The (value, noun, ...) (of ...) is VALUE
        rf"{_INTRO}(?:(?:the|our|my|its) )?"
        rf"(?:{_ADJECTIVE}{_NOUN}|maximum|minimum|total|average)"
        rf"{_OF}{_VERB} ?(?P<value>\S.*?){_END}",
        # We find that VALUE; it is VALUE; x is VALUE
        rf"{_INTRO}we (?:find|get|have|obtain|conclude|see)(?: that)? ?(?P<value>\S.*?){_END}",
        rf"{_INTRO}(?:it|{_VARIABLE}) (?:is|equals)\b ?(?P<value>\S.*?){_END}",
        # Answer $VALUE$; thus $VALUE$; thus x = VALUE
        rf"{_INTRO}(?:(?:the|our|my) )?(?:final )?(?:answer )?(?P<value>{_DELIMITED}){_END}",
        rf"{_INTRO}(?P<value>[A-Za-z] ?=[^A-Za-z]+?){_END}",
        # VALUE is the answer
        rf"{_INTRO}(?P<value>{_DELIMITED}|[^A-Za-z]+?){_IS_THE_ANSWER}{_END}",
    )
]


def stated_value(sentence: str) -> str | None:
    """Return what a plain statement of an answer states, or None for any other text.

    >>> stated_value("The answer is $5$."), stated_value("The number of ways is 5")
    ('$5$', '5')
    >>> stated_value("not 5"), stated_value("The sum of the wrong answers is 5")
    (None, None)
    """
    if len(sentence) > MAX_CHARACTERS:
        return None
    sentence = " ".join(sentence.split())
    for statement in _STATEMENTS:
        match = statement.fullmatch(sentence)
        if match is None:
            continue
        if (of := match.groupdict().get("of")) and (turns(of) or _ANOTHER_CLAUSE.search(of)):
            return None
        return match["value"]
    return None


def turns(words: str) -> bool:
    """Say whether words around a value may negate, hedge or replace it.

    >>> turns("so we get"), turns("not"), turns("5 or")
    (False, True, True)
    """
    return bool(_TURNS.search(words))
