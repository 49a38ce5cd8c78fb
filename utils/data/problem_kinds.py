"""The kinds of generated problems: question, worked steps and answer for each level.

Every step's result passes through a `Hand`, which may slip; the steps after it go on from what was
written.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from utils.data.number_text import (
    fraction,
    fraction_sum,
    linear,
    lowest_terms,
    plus,
    sum_text,
    tenths,
    term,
)


class ErrorProneHand:
    """Compute intermediate integers, slipping with probability `error_rate` a step.

    A slip is carried forward: later steps go on from the wrong value, as a person's would.
    """

    def __init__(self, rng: random.Random, error_rate: float) -> None:
        self._rng = rng
        self._error_rate = error_rate

    def write(self, value: int) -> int:
        """Return `value`, or a plausible wrong neighbour of it."""
        if self._rng.random() >= self._error_rate:
            return value
        slips = [value + 1, value - 1, value + 2, value - 2, value + 10, value - 10, -value]
        swapped = int(str(abs(value))[::-1])
        slips.append(swapped if value >= 0 else -swapped)
        return self._rng.choice([slip for slip in slips if slip != value])


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem before it has an id: question, solution steps (math mode) and answer."""

    question: str
    steps: list[str]
    answer: str


# --- arithmetic -----------------------------------------------------------------------------


def _arithmetic(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    top = (20, 50, 99, 99, 99)[level - 1]
    terms = [_signed(rng, 2, top) for _ in range(level + 1)]
    expression = sum_text(terms)
    question = rng.choice(("Compute ${}$.", "Find the value of ${}$.", "What is ${}$?"))
    steps, total = _running_total(terms, hand, str)
    return Draft(question.format(expression), steps, str(total))


def _decimals(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    top = (60, 99, 99, 199, 299)[level - 1]
    terms = [_signed(rng, 3, top) for _ in range((2, 2, 3, 3, 4)[level - 1])]
    expression = sum_text(terms, tenths)
    question = rng.choice(("Compute ${}$.", "Write ${}$ as a decimal."))
    steps, total = _running_total(terms, hand, tenths)
    return Draft(question.format(expression), steps, tenths(total))


def _running_total(
    terms: list[int], hand: ErrorProneHand, show: Callable[[int], str]
) -> tuple[list[str], int]:
    total, steps = terms[0], []
    for value in terms[1:]:
        after = hand.write(total + value)
        steps.append(f"{sum_text([total, value], show)}={show(after)}")
        total = after
    return steps, total


# --- fractions ------------------------------------------------------------------------------


def _fractions(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    count = 3 if level in (2, 5) else 2
    if level <= 2:
        denominators = [rng.randint(3, 9 if level == 1 else 12)] * count
    else:
        pool = {3: (2, 3, 4, 5, 6), 4: (2, 3, 4, 5, 6, 7, 8, 9), 5: (2, 3, 4, 6, 12)}[level]
        denominators = [rng.choice(pool) for _ in range(count)]
    numerators = [rng.randint(1, max(denominator - 1, 1)) for denominator in denominators]
    signs = [1] + [rng.choice((1, -1)) for _ in range(count - 1)]
    parts = list(zip(signs, numerators, denominators, strict=True))
    question = "Compute ${}$. Give a fraction in lowest terms."
    common = math.lcm(*denominators)
    steps = []
    if len(set(denominators)) > 1:
        parts = [(sign, hand.write(n * common // d), common) for sign, n, d in parts]
    else:
        parts = [(sign, n, common) for sign, n, _ in parts]
    written = fraction_sum(list(zip(signs, numerators, denominators, strict=True)))
    if len(set(denominators)) > 1:
        steps.append(f"{written}={fraction_sum(parts)}")
    total = hand.write(sum(sign * n for sign, n, _ in parts))
    steps.append(f"{fraction_sum(parts)}={fraction(total, common)}")
    answer = lowest_terms(total, common)
    if answer != fraction(total, common):
        steps.append(f"{fraction(total, common)}={answer}")
    return Draft(question.format(written), steps, answer)


# --- equations and expressions --------------------------------------------------------------


def _equations(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    x, a = _signed(rng, 1, 12), rng.randint(2, 9)
    b = _signed(rng, 1, 30)
    question = rng.choice(("Solve for $x$: ${}$.", "Find $x$ if ${}$."))
    if level == 1:
        total = x + b
        found = hand.write(total - b)
        steps = [f"x={sum_text([total, -b])}={found}"]
        return Draft(question.format(f"{linear(1, b)}={total}"), steps, str(found))
    c = rng.randint(1, a - 1) if level >= 4 else 0
    inner = _signed(rng, 1, 9) if level == 5 else 0
    constant = a * inner if level == 5 else b * (level >= 3)
    right_constant = (a - c) * x + constant
    left = f"{a}({linear(1, inner)})" if level == 5 else linear(a, constant)
    right = linear(c, right_constant)
    steps = []
    if level == 5:
        constant = hand.write(constant)
        steps.append(f"{linear(a, constant)}={right}")
    coefficient = a - c
    if level >= 4:
        coefficient = max(hand.write(a - c), 1)
    if level >= 3:
        moved = hand.write(right_constant - constant)
        steps.append(f"{term(coefficient)}={sum_text([right_constant, -constant])}={moved}")
    else:
        moved = right_constant
    found = hand.write(round(moved / coefficient))
    steps.append(f"x={moved}/{coefficient}={found}")
    return Draft(question.format(f"{left}={right}"), steps, str(found))


def _expressions(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    question = rng.choice(("Simplify ${}$.", "Write ${}$ in simplest form."))
    if level <= 3:
        xs = [_signed(rng, 1, 12) for _ in range(2)]
        constants = [_signed(rng, 1, 30) for _ in range(level - 1)]
        written = linear(xs[0], constants[0] if constants else 0)
        written += plus(term(xs[1])) + ("" if level < 3 else plus(str(constants[1])))
        steps = []
    else:
        a, c = rng.randint(2, 9), _signed(rng, 2, 9)
        b, d = _signed(rng, 1, 9), _signed(rng, 1, 9)
        written = f"{a}({linear(1, b)})"
        xs, constants = [a, c], [hand.write(a * b)]
        if level == 4:
            written += plus(term(c))
            opened = linear(a, constants[0]) + plus(term(c))
        else:
            written += plus(f"{c}({linear(1, d)})")
            constants.append(hand.write(c * d))
            opened = linear(a, constants[0]) + plus(term(c)) + plus(str(constants[1]))
        steps = [f"{written}={opened}"]
    slope = hand.write(sum(xs))
    steps.append(f"{term(xs[0])}{plus(term(xs[1]))}={term(slope)}")
    constant = sum(constants)
    if len(constants) > 1:
        constant = hand.write(constant)
        steps.append(f"{sum_text(constants)}={constant}")
    return Draft(question.format(written), steps, linear(slope, constant))


# --- pairs ----------------------------------------------------------------------------------


def _pairs(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    if level == 3:
        return _midpoint(rng, hand)
    if level == 4:
        return _sum_and_difference(rng, hand)
    top = 9 if level == 1 else 40
    a, b, c, d = (_signed(rng, 1, top if level < 5 else 9) for _ in range(4))
    k, m = (1, 1 if level == 1 else -1) if level < 5 else (rng.randint(2, 6), rng.randint(2, 6))
    steps = []
    if level == 5:
        question = f"Find the point ${k}({a},{b})+{m}({c},{d})$."
        scaled = [hand.write(k * a), hand.write(k * b), hand.write(m * c), hand.write(m * d)]
        a, b, c, d = scaled
        m = 1
        steps.append(f"({a},{b})+({c},{d})")
    else:
        question = f"Find the point $({a},{b}){'+' if m == 1 else '-'}({c},{d})$."
    x, y = hand.write(a + m * c), hand.write(b + m * d)
    steps += [f"{sum_text([a, m * c])}={x}", f"{sum_text([b, m * d])}={y}"]
    return Draft(question, steps, f"({x},{y})")


def _midpoint(rng: random.Random, hand: ErrorProneHand) -> Draft:
    x, y = _signed(rng, 1, 15), _signed(rng, 1, 15)
    dx, dy = _signed(rng, 1, 9), _signed(rng, 1, 9)
    a, b, c, d = x - dx, y - dy, x + dx, y + dy
    sum_x, sum_y = hand.write(a + c), hand.write(b + d)
    mid_x, mid_y = hand.write(round(sum_x / 2)), hand.write(round(sum_y / 2))
    steps = [
        f"{sum_text([a, c])}={sum_x}",
        f"{sum_text([b, d])}={sum_y}",
        f"{sum_x}/2={mid_x}",
        f"{sum_y}/2={mid_y}",
    ]
    question = f"Find the midpoint of $({a},{b})$ and $({c},{d})$."
    return Draft(question, steps, f"({mid_x},{mid_y})")


def _sum_and_difference(rng: random.Random, hand: ErrorProneHand) -> Draft:
    x, y = _signed(rng, 1, 30), _signed(rng, 1, 30)
    total, difference = x + y, x - y
    double = hand.write(total + difference)
    found_x = hand.write(round(double / 2))
    found_y = hand.write(total - found_x)
    steps = [
        f"2x={sum_text([total, difference])}={double}",
        f"x={double}/2={found_x}",
        f"y={sum_text([total, -found_x])}={found_y}",
    ]
    question = f"Solve $x+y={total}$ and $x-y={difference}$. Answer as $(x,y)$."
    return Draft(question, steps, f"({found_x},{found_y})")


# --- remainders and stories -----------------------------------------------------------------


def _remainders(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    modulus = rng.randint(3, 6 if level == 1 else 9)
    steps = []
    if level <= 2:
        number = rng.randint(modulus + 1, 30 if level == 1 else 89)
        written = str(number)
    elif level == 3:
        terms = [rng.randint(5, 45), rng.randint(5, 45)]
        written, number = sum_text(terms), hand.write(sum(terms))
    else:
        a, b = rng.randint(3, 9), rng.randint(3, 12)
        c = _signed(rng, 3, 30) if level == 5 else 0
        c = abs(c) if a * b + c < modulus else c
        written = f"{a}\\cdot{b}" + (plus(str(c)) if c else "")
        number = product = hand.write(a * b)
        steps.append(f"{a}\\cdot{b}={product}")
        if c:
            number = hand.write(product + c)
            steps.append(f"{sum_text([product, c])}={number}")
    if level == 3:
        steps.append(f"{written}={number}")
    multiple = hand.write(number // modulus * modulus)
    remainder = hand.write(number - multiple)
    steps += [
        f"{modulus}\\cdot{multiple // modulus}={multiple}",
        f"{sum_text([number, -multiple])}={remainder}",
    ]
    question = rng.choice(
        (
            "Find the remainder when ${}$ is divided by ${}$.",
            "What is the remainder of ${}$ modulo ${}$?",
        )
    )
    return Draft(question.format(written, modulus), steps, str(remainder))


_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_THINGS = ("apples", "coins", "books", "cards", "shells", "stamps")
_GAINS = ("finds {} more", "buys {} more", "is given {}")
_LOSSES = ("loses {}", "sells {}", "gives away {}")


def _stories(rng: random.Random, level: int, hand: ErrorProneHand) -> Draft:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    start = rng.randint(5, 60)
    events, terms, total = [], [start], start
    for _ in range(level):
        times = rng.random() < 0.15 and total <= 30
        if times:
            change = total
            events.append(f"doubles the {things}")
        else:
            change = rng.randint(2, 40)
            if total > change and rng.random() < 0.5:
                change = -change
            events.append(rng.choice(_GAINS if change > 0 else _LOSSES).format(abs(change)))
        terms.append(change)
        total += change
    question = (
        f"{name} has {start} {things}. {name} {', then '.join(events)}. "
        f"How many {things} does {name} have now?"
    )
    steps, running = [], start
    for event, change in zip(events, terms[1:], strict=True):
        doubled = event.startswith("doubles")
        after = hand.write(2 * running if doubled else running + change)
        written = f"2\\cdot{running}" if doubled else sum_text([running, change])
        steps.append(f"{written}={after}")
        running = after
    return Draft(question, steps, str(running))


def _signed(rng: random.Random, low: int, high: int) -> int:
    value = rng.randint(low, high)
    return -value if rng.random() < 0.4 else value


KINDS: dict[str, Callable[[random.Random, int, ErrorProneHand], Draft]] = {
    "Arithmetic": _arithmetic,
    "Decimals": _decimals,
    "Fractions": _fractions,
    "Equations": _equations,
    "Expressions": _expressions,
    "Pairs": _pairs,
    "Remainders": _remainders,
    "Word Problems": _stories,
}
"""Type name -> how a problem of a level is drafted."""
