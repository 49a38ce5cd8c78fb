"""Intervals and pass@k against independent computations and published figures."""

from __future__ import annotations

import doctest
import itertools
import math
import random

import pytest

from utils.stats import statistics
from utils.stats.statistics import (
    clustered_interval,
    newcombe_difference_interval,
    pass_at_k,
    wilson_interval,
)

# Two-sided normal quantiles from printed tables, not from the module under test.
Z = {0.90: 1.6448536269514722, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}
COUNTS = [(0, 10), (1, 10), (10, 10), (5, 10), (33, 1000), (408, 1000), (1, 1), (0, 1)]


def solve_score_equation(p_hat: float, n: int, z: float, far_end: float) -> float:
    """Bisect |p - p_hat| = z sqrt(p (1 - p) / n) between p_hat and `far_end` (0 or 1)."""
    near, far = p_hat, far_end
    for _ in range(200):
        middle = (near + far) / 2
        if abs(middle - p_hat) < z * math.sqrt(middle * (1 - middle) / n):
            near = middle
        else:
            far = middle
    return (near + far) / 2


@pytest.mark.parametrize(("successes", "n"), COUNTS)
@pytest.mark.parametrize("confidence", Z)
def test_wilson_bounds_solve_the_score_equation(successes, n, confidence):
    lower, upper = wilson_interval(successes, n, confidence)
    p_hat, z = successes / n, Z[confidence]
    # At an end the bound is the end itself: there is no room on that side to bisect in.
    expected_lower = 0.0 if successes == 0 else solve_score_equation(p_hat, n, z, 0.0)
    expected_upper = 1.0 if successes == n else solve_score_equation(p_hat, n, z, 1.0)
    assert lower == pytest.approx(expected_lower, abs=1e-10)
    assert upper == pytest.approx(expected_upper, abs=1e-10)


@pytest.mark.parametrize(
    ("successes", "n", "published"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_agrees_with_published_intervals(successes, n, published):
    assert wilson_interval(successes, n) == pytest.approx(published, abs=5e-5)


def test_wilson_contains_the_proportion_exactly_at_the_ends():
    for n in range(1, 400):
        assert wilson_interval(0, n)[0] == 0.0
        assert wilson_interval(n, n)[1] == 1.0


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "message"),
    [
        (0, 0, 0.95, r"n=0 .* score at least one item"),
        (0, -1, 0.95, "n=-1"),
        (11, 10, 0.95, "11 successes of n=10"),
        (-1, 10, 0.95, "-1 successes"),
        (5, 10, 95, "confidence=95 .*confidence=0.95"),
    ],
)
def test_impossible_counts_are_refused_with_advice(successes, n, confidence, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(successes, n, confidence)


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        # Newcombe (1998), "Interval estimation for the difference ...", table II, method 10.
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ],
)
def test_newcombe_agrees_with_published_intervals(first, second, published):
    assert newcombe_difference_interval(*first, *second) == pytest.approx(published, abs=5e-5)


def test_newcombe_changes_sign_when_the_samples_change_places():
    lower, upper = newcombe_difference_interval(408, 1000, 33, 1000)
    assert newcombe_difference_interval(33, 1000, 408, 1000) == pytest.approx((-upper, -lower))


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_completion():
    for n in range(1, 8):
        for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
            subsets = list(itertools.combinations(range(n), k))
            hits = sum(any(index < correct for index in subset) for subset in subsets)
            assert pass_at_k(n, correct, k) == pytest.approx(hits / len(subsets), abs=1e-12)


def test_pass_at_k_does_not_overflow():
    assert pass_at_k(10_000, 5_000, 1) == 0.5
    assert pass_at_k(10_000, 1, 5_000) == 0.5


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_more_than_was_sampled(k):
    with pytest.raises(ValueError, match=f"k={k} and n=4"):
        pass_at_k(n=4, correct=1, k=k)


def test_the_worked_examples_hold():
    assert doctest.testmod(statistics).failed == 0


def test_the_clustered_interval_covers_the_truth_as_often_as_it_says():
    """Problems of unequal difficulty, four samples each; 2,000 repetitions."""
    draw, covered, repetitions = random.Random(3), 0, 2000
    for _ in range(repetitions):
        difficulties = [draw.betavariate(0.5, 1.0) for _ in range(60)]  # mean 1/3
        means = [sum(draw.random() < p for _ in range(4)) / 4 for p in difficulties]
        low, high = clustered_interval(means, 4)
        covered += low <= 1 / 3 <= high
    assert covered / repetitions == pytest.approx(0.95, abs=0.015)


def test_the_clustered_interval_is_wilsons_where_samples_of_a_problem_never_differ():
    means = [1.0] * 20 + [0.0] * 40
    low, high = clustered_interval(means, 4)
    expected = wilson_interval(20, 60)
    assert low == pytest.approx(expected[0], abs=2e-3)
    assert high == pytest.approx(expected[1], abs=2e-3)
