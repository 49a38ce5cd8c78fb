"""Compare two models on the same problems: exact test, and the interval of the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from utils.stats.statistics import normal_quantile


def mcnemar_exact(won: int, lost: int) -> float:
    """Return the two-sided exact p-value that winning and losing a problem are equally likely.

    Only problems on which the two disagree tell anything: under the null hypothesis the number won
    is binomial with n = won + lost and p = 1/2. The sum is of exact integers.

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 153-157.

    Raises:
        ValueError: a count is negative.

    >>> mcnemar_exact(9, 2)
    0.0654296875
    """
    disagreements = won + lost
    _check(won, lost, max(disagreements, 1))
    tail = sum(math.comb(disagreements, count) for count in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**disagreements)


def paired_difference_interval(
    won: int, lost: int, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the score interval of the difference of two proportions on the same n problems.

    The estimate is (won - lost) / n. The bounds are the differences d that the score test with its
    variance at the constrained maximum of the likelihood just does not reject; they keep a width
    where nothing was won or lost, and stay inside [-1, 1].

    Source: Tango (1998), "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Stat. Med. 17, 891-908, equations 10 to 13.

    Raises:
        ValueError: counts that no experiment gives.

    >>> tuple(round(bound, 4) for bound in paired_difference_interval(9, 2, 50))
    (0.0117, 0.2779)
    """
    _check(won, lost, n)
    z = normal_quantile(confidence)
    estimate = (won - lost) / n
    return (
        _crossing(won, lost, n, z, estimate, -1.0),
        _crossing(won, lost, n, z, estimate, 1.0),
    )


def within_one_standard_error(values: Sequence[float], highest: Sequence[float]) -> bool:
    """Tell whether a mean lies at most one standard error below another on the same n things.

    The error is that of the difference where there is none to be found, as in McNemar's test: with
    one completion a problem, `(lost - won)^2 <= lost + won`. False where n is 0.

    >>> within_one_standard_error([1, 0, 1, 0], [1, 1, 0, 1])
    True
    >>> within_one_standard_error([0, 0, 0, 0], [1, 1, 0, 1])
    False
    """
    below = [high - value for value, high in zip(values, highest, strict=True)]
    distance = max(0.0, sum(below))
    return bool(below) and distance**2 <= sum(difference**2 for difference in below)


def _crossing(won: int, lost: int, n: int, z: float, near: float, far: float) -> float:
    """Bisect for the difference between the estimate and an end at which |score| is z."""
    for _ in range(200):
        middle = (near + far) / 2
        if abs(_score(won, lost, n, middle)) < z:
            near = middle
        else:
            far = middle
    return (near + far) / 2


def _score(won: int, lost: int, n: int, difference: float) -> float:
    """Return the score statistic for a difference strictly between -1 and 1."""
    # The maximum-likelihood chance of losing a problem, given the difference: a x^2 + b x + c = 0.
    a = 2 * n
    b = -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    # Two forms of the same root; each cancels where the other does not.
    losing = -2 * c / (b + root) if b > 0 else (root - b) / (2 * a)
    variance = n * (2 * losing + difference * (1 - difference))
    distance = won - lost - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def _check(won: int, lost: int, n: int) -> None:
    if min(won, lost) < 0 or n < 1 or won + lost > n:
        raise ValueError(
            f"got {won} problems won and {lost} lost of n={n}: count all over the same problems, "
            "of which there must be at least one"
        )
