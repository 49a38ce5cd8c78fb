"""Majority vote over the answers of one problem: maj@k without sampling error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from math import comb


def majority_at_k(votes: Sequence[Hashable | None], right: Hashable, k: int) -> float:
    """Return the chance that the answer most voted for among k of the n samples is the right one.

    Averaged over all k-subsets of the samples; a tie is broken by lot. A sample that states no
    answer (None) does not vote, and where nobody votes nothing is right. Subsets are counted, not
    drawn: for each number m of right votes, the ways in which no other answer gets more than m,
    by how many answers tie with it. The counts are exact integers.

    Source: Wang et al. (2023), "Self-consistency improves chain of thought reasoning in language
    models" (the vote); the count is the multivariate hypergeometric distribution's.

    Raises:
        ValueError: k is not between 1 and the number of samples.

    >>> majority_at_k(["5", "5", "7"], right="5", k=3), majority_at_k(["5", "7"], right="5", k=2)
    (1.0, 0.5)
    """
    n = len(votes)
    if not 1 <= k <= n:
        raise ValueError(
            f"maj@k needs 1 <= k <= n, got k={k} and n={n}: sample at least k times a problem"
        )
    counts = Counter(vote for vote in votes if vote is not None)
    right_votes, silent = counts.pop(right, 0), sum(vote is None for vote in votes)
    won = Fraction(0)
    for m in range(1, min(right_votes, k) + 1):
        ways = _ways(list(counts.values()), silent, k - m, m)
        won += comb(right_votes, m) * sum(Fraction(count, ties + 1) for ties, count in ways.items())
    return float(won / comb(n, k))


def group_equal(
    answers: Sequence[str | None], equal: Callable[[str, str], bool]
) -> list[int | None]:
    """Number each answer by the first one before it that equals it; None stays None.

    >>> group_equal(["1/2", "7", None, "0.5"], lambda a, b: {a, b} == {"1/2", "0.5"})
    [0, 1, None, 0]
    """
    groups: dict[str, int] = {}
    first_of: list[str] = []
    for answer in answers:
        if answer is None or answer in groups:
            continue
        group = next((i for i, first in enumerate(first_of) if equal(answer, first)), None)
        if group is None:
            group = len(first_of)
            first_of.append(answer)
        groups[answer] = group
    return [None if answer is None else groups[answer] for answer in answers]


def _ways(others: Sequence[int], silent: int, drawn: int, most: int) -> Counter[int]:
    """Count the ways to draw from the other answers and the silent, none above `most` votes.

    Returns:
        Number of answers with exactly `most` votes -> number of ways.
    """
    # (samples drawn so far, answers that tie) -> ways
    ways: Counter[tuple[int, int]] = Counter({(0, 0): 1})
    for votes in others:
        longer: Counter[tuple[int, int]] = Counter()
        for (used, ties), count in ways.items():
            for taken in range(min(votes, most, drawn - used) + 1):
                longer[used + taken, ties + (taken == most)] += count * comb(votes, taken)
        ways = longer
    found: Counter[int] = Counter()
    for (used, ties), count in ways.items():
        found[ties] += count * comb(silent, drawn - used)
    return found
