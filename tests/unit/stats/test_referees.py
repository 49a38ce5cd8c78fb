"""Every statistic against an independent source: statsmodels, scipy, or counting by hand."""

from __future__ import annotations

import doctest
import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from utils.stats import bootstrap, paired, votes
from utils.stats.bootstrap import bootstrap_interval
from utils.stats.paired import mcnemar_exact, paired_difference_interval
from utils.stats.statistics import newcombe_difference_interval, wilson_interval
from utils.stats.votes import group_equal, majority_at_k

CLOSE = 1e-9


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (1, 1), (408, 1000), (3, 24), (2342, 5000)])
def test_wilson_is_statsmodels(k, n):
    for confidence in (0.9, 0.95, 0.99):
        theirs = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
        assert wilson_interval(k, n, confidence) == pytest.approx(theirs, abs=CLOSE)


@pytest.mark.parametrize("counts", [(56, 70, 48, 80), (408, 1000, 33, 1000), (3, 20, 1, 9)])
def test_newcombe_is_statsmodels(counts):
    theirs = confint_proportions_2indep(*counts, method="newcomb", compare="diff")
    assert newcombe_difference_interval(*counts) == pytest.approx(theirs, abs=CLOSE)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (9, 2), (2, 9), (1, 1), (1021, 170), (40, 44)])
def test_mcnemar_is_statsmodels_and_scipys_binomial(won, lost):
    ours = mcnemar_exact(won, lost)
    assert ours == pytest.approx(mcnemar([[5, won], [lost, 5]], exact=True).pvalue, abs=CLOSE)
    if won + lost:
        assert ours == pytest.approx(stats.binomtest(won, won + lost).pvalue, abs=CLOSE)


@pytest.mark.parametrize(
    ("won", "lost", "n"), [(9, 2, 50), (1, 0, 30), (1021, 170, 5000), (7, 25, 60), (12, 12, 40)]
)
def test_the_paired_interval_inverts_the_score_test_found_by_maximising_the_likelihood(
    won, lost, n
):
    """The constrained maximum is found numerically here, in closed form there."""
    z = stats.norm.ppf(0.975)

    def score(d):
        def minus_log_likelihood(losing):
            same = 1 - d - 2 * losing
            terms = [(won, losing + d), (lost, losing), (n - won - lost, same)]
            return -sum(c * math.log(max(p, 1e-300)) for c, p in terms if c)

        low, high = max(0.0, -d) + 1e-12, (1 - d) / 2 - 1e-12
        best = optimize.minimize_scalar(
            minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
        ).x
        return (won - lost - n * d) / math.sqrt(n * (2 * best + d - d * d))

    for bound in paired_difference_interval(won, lost, n):
        assert abs(score(bound)) == pytest.approx(z, abs=2e-4)


def test_the_paired_interval_covers_the_truth_and_turns_with_the_models():
    draw, covered, repetitions, n = random.Random(5), 0, 3000, 80
    for _ in range(repetitions):
        kinds = draw.choices(["won", "lost", "same"], [0.2, 0.1, 0.7], k=n)
        low, high = paired_difference_interval(kinds.count("won"), kinds.count("lost"), n)
        covered += low <= 0.1 <= high
    assert covered / repetitions == pytest.approx(0.95, abs=0.015)
    low, high = paired_difference_interval(9, 2, 50)
    assert paired_difference_interval(2, 9, 50) == pytest.approx((-high, -low), abs=CLOSE)
    none = paired_difference_interval(0, 0, 50)
    assert none[0] == pytest.approx(-none[1])
    assert none[1] > 0.05


@pytest.mark.parametrize("call", [lambda: mcnemar_exact(-1, 2)] + [
    lambda counts=counts: paired_difference_interval(*counts)
    for counts in [(1, 1, 1), (0, 0, 0), (-1, 0, 5)]
])  # fmt: skip
def test_counts_that_no_experiment_gives_are_refused(call):
    with pytest.raises(ValueError, match="count all over the same problems"):
        call()


def test_the_bootstrap_is_scipys_within_its_monte_carlo_error():
    values = list(np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], size=300))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    error = np.std(values) / math.sqrt(len(values))
    for seed in range(3):
        assert bootstrap_interval(values, seed=seed) == pytest.approx(theirs, abs=0.1 * error)
    assert bootstrap_interval([0.0] * 50) == pytest.approx(wilson_interval(0, 50))
    with pytest.raises(ValueError, match="at least one problem"):
        bootstrap_interval([])


def test_majority_counts_every_subset():
    draw = random.Random(7)
    for _ in range(60):
        cast = [draw.choice(["right", "a", "b", "c", None]) for _ in range(draw.randint(1, 7))]
        for k in range(1, len(cast) + 1):
            assert majority_at_k(cast, "right", k) == pytest.approx(by_hand(cast, k), abs=CLOSE)


def by_hand(cast, k):
    """Vote in each subset; a tie gives the right answer its share."""
    shares = []
    for subset in itertools.combinations(cast, k):
        counts = Counter(vote for vote in subset if vote is not None)
        top = [vote for vote, count in counts.items() if count == max(counts.values())]
        shares.append(Fraction(int("right" in top), max(len(top), 1)))
    return float(sum(shares) / len(shares))


@pytest.mark.parametrize(
    ("cast", "k", "expected"),
    [
        (["right"] * 4, 4, 1.0),
        (["right", "a", "a"], 3, 0.0),
        (["right", "a", None], 3, 0.5),  # a tie is drawn by lot
        ([None, None, "right"], 3, 1.0),  # who says nothing does not vote
        ([None, None], 2, 0.0),
        (["right", "right", "a", "b", "c"], 5, 1.0),
    ],
)
def test_majorities_made_by_hand(cast, k, expected):
    assert majority_at_k(cast, "right", k) == expected


def test_majority_refuses_more_than_was_sampled_and_never_overflows():
    with pytest.raises(ValueError, match="k=3 and n=2"):
        majority_at_k(["right", "a"], "right", 3)
    assert majority_at_k(["right"] * 600 + ["a"] * 500, "right", 1100) == 1.0


def test_answers_are_grouped_by_the_first_that_equals_them():
    same = {"1/2": "half", "0.5": "half"}
    equal = lambda one, other: same.get(one, one) == same.get(other, other)  # noqa: E731
    assert group_equal(["7", "1/2", None, "0.5", "7"], equal) == [0, 1, None, 1, 0]


@pytest.mark.parametrize("module", [paired, votes, bootstrap])
def test_the_worked_examples_hold(module):
    assert doctest.testmod(module).failed == 0
