r"""Read what published data sets write around a solution, an answer or a problem.

GSM8K ends a solution in `#### 72` and marks calculations (`<<48/2=24>>`): the marks go, the answer
is split off and stated in a box, so that a solution teaches its answer under any prompt. Reasoning
models' marks (`<think>` and its like) go, what stands between them stays. Sentences that tell a
model how to answer go from the beginning or end of a problem: the project's own prompt says that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.grading.answer_forms import extract_boxed

# The last line of GSM8K's solutions (github.com/openai/grade-school-math).
_HASHES = re.compile(r"(?P<solution>.*?)(?:^|\n)[ \t]*####[ \t]*(?P<answer>[^\n]+)\s*", re.DOTALL)
_CALCULATION = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(\.\d+)?")
_THOUGHT = re.compile(r"\s*(?:(?:</?think>|<\|(?:begin|end)_of_(?:thought|solution)\|>)\s*)+")
_BOX = re.compile(r"\\f?boxed")
_DRESS = re.compile(r"[\s$.,;:()\[\]\\]+")
# Of DAPO-Math-17k, OpenThoughts, verl's examples and Qwen2.5-Math, as published.
INSTRUCTIONS = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
    'Remember to put your answer on its own line after "Answer:".',
    r"Return your final response within \boxed{}.",
    r"Please reason step by step, and put your final answer within \boxed{}.",
    r"Let's think step by step and output the final answer within \boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
)


class Worked(NamedTuple):
    """A worked solution and the answer that it ends in."""

    solution: str
    answer: str


def split_worked(text: str, *, boxed: bool) -> Worked | None:
    r"""Split a text that ends in GSM8K's `#### 72`, or None where it does not.

    Args:
        boxed: split a text too that works towards a box, rather than being one.

    >>> split_worked("48/2 = <<48/2=24>>24 clips.\n#### 1,024", boxed=False)
    Worked(solution='48/2 = 24 clips.\nThe final answer is $\\boxed{1024}$.', answer='1024')
    >>> split_worked(r"$\boxed{7}$", boxed=True) is None
    True
    """
    box = extract_boxed(text)
    if box is None and (found := _HASHES.fullmatch(text)) and "\n####" not in found["solution"]:
        answer = _plain_number(found["answer"].strip())
        steps = _CALCULATION.sub("", found["solution"]).strip()
        return Worked(f"{steps}\nThe final answer is $\\boxed{{{answer}}}$." * bool(steps), answer)
    if boxed and box is not None and _DRESS.sub("", _BOX.split(text)[0]):
        return Worked(text, box)
    return None


def without_marks(solution: str) -> str:
    """Take the marks around a reasoning model's thoughts out; what they enclose stays.

    >>> without_marks("<think>\\nTwo and two.\\n</think>\\n\\nFour.")
    'Two and two.\\n\\nFour.'
    """
    return _THOUGHT.sub("\n\n", solution).strip() if _THOUGHT.search(solution) else solution


def without_instructions(problem: str) -> str:
    """Take known sentences that say how to answer off the ends of a problem.

    >>> without_instructions("Return your final response within \\\\boxed{}. What is 1+1?")
    'What is 1+1?'
    """
    for instruction in INSTRUCTIONS:
        text = problem.strip()
        if text.startswith(instruction):
            problem = text.removeprefix(instruction).lstrip()
        elif text.endswith(instruction):
            problem = text.removesuffix(instruction).rstrip()
    return problem


def _plain_number(answer: str) -> str:
    """Write a number without separators and currency, as graders want it."""
    return re.sub("[,$]", "", answer) if _NUMBER.fullmatch(answer) else answer
