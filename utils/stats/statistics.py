"""Intervals for proportions and the unbiased pass@k estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial proportion.

    The bounds are the p that solve |p - successes/n| = z sqrt(p (1 - p) / n). They stay inside
    [0, 1] and keep a width when every or no trial succeeds, where the Wald interval has none.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    J. Am. Stat. Assoc. 22, 209-212.

    Raises:
        ValueError: a count or the confidence is outside its range.

    >>> tuple(round(bound, 4) for bound in wilson_interval(81, 263))
    (0.2553, 0.3662)
    """
    _check_counts(successes, n)
    z = normal_quantile(confidence)
    proportion = successes / n
    centre = proportion + z**2 / (2 * n)
    spread = z * math.sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # At the ends a bound equals the proportion; rounding would leave it a hair to the wrong side.
    lower = 0.0 if successes == 0 else (centre - spread) / scale
    upper = 1.0 if successes == n else (centre + spread) / scale
    return lower, upper


def clustered_interval(problem_means: Sequence[float], samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean over problems, each with a mean over its own samples.

    Samples of one problem are alike, so Wilson's interval is taken at the effective sample size:
    the number of independent trials whose proportion varies as the mean over problems does. Where
    that is not defined (every or no sample right) each problem counts once.

    Args:
        samples: of each problem; there are never more independent trials than these.

    Source: Korn and Graubard (1998), "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Surv. Methodol. 24, 193-201.

    >>> tuple(round(bound, 4) for bound in clustered_interval([0.0, 1.0, 0.5, 0.5], 2))
    (0.1876, 0.8124)
    """
    n = len(problem_means)
    mean = sum(problem_means) / n
    variance = sum((value - mean) ** 2 for value in problem_means) / max(n - 1, 1) / n
    effective = mean * (1 - mean) / variance if variance > 0 else float(n)
    effective = min(effective, float(n * samples))
    return wilson_interval(mean * effective, effective)


def newcombe_difference_interval(
    successes_1: float, n_1: int, successes_2: float, n_2: int
) -> tuple[float, float]:
    """Return the 95 % interval of p1 - p2 for two independent proportions.

    It combines the distances from each proportion to its own Wilson bounds. Two checkpoints scored
    on the same problems are usually positively correlated, and then this interval is wider than one
    from the paired outcomes: it errs towards caution.

    Source: Newcombe (1998), "Interval estimation for the difference between independent
    proportions: comparison of eleven methods", Stat. Med. 17, 873-890, method 10.

    >>> tuple(round(bound, 4) for bound in newcombe_difference_interval(56, 70, 48, 80))
    (0.0524, 0.3339)
    """
    lower_1, upper_1 = wilson_interval(successes_1, n_1)
    lower_2, upper_2 = wilson_interval(successes_2, n_2)
    p_1, p_2 = successes_1 / n_1, successes_2 / n_2
    difference = p_1 - p_2
    return (
        difference - math.hypot(p_1 - lower_1, upper_2 - p_2),
        difference + math.hypot(upper_1 - p_1, p_2 - lower_2),
    )


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Estimate, without bias, the chance that at least one of k completions is correct.

    1 - C(n - correct, k) / C(n, k): the share of k-subsets of the n completions sampled for a
    problem that hold a correct one. The counts are exact integers, so no n overflows.

    Source: Chen et al. (2021), "Evaluating large language models trained on code", equation 1.

    >>> pass_at_k(n=4, correct=1, k=2)
    0.5
    """
    _check_counts(correct, n)
    if not 1 <= k <= n:
        raise ValueError(
            f"pass@k needs 1 <= k <= n, got k={k} and n={n}: sample at least k times a problem"
        )
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - correct, k)) / subsets


def _check_counts(successes: float, n: float) -> None:
    """Refuse counts that no experiment gives."""
    if n <= 0:
        raise ValueError(
            f"a proportion of n={n} trials is not defined: score at least one item before asking"
        )
    if not 0 <= successes <= n:
        raise ValueError(
            f"got {successes} successes of n={n}, expected 0 to n: count both over the same items"
        )


def normal_quantile(confidence: float) -> float:
    """Return z with P(|Z| <= z) = confidence.

    >>> round(normal_quantile(0.95), 3)
    1.96
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence={confidence} is not between 0 and 1: write 95 % as confidence=0.95"
        )
    return NormalDist().inv_cdf((1 + confidence) / 2)
