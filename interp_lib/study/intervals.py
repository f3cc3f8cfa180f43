"""Intervals and tests for accuracies: how certain a count, a difference or several verdicts are.

SciPy computes them where it can; it is imported only when a function is called.
"""

import math
from collections.abc import Iterable, Sequence

LEVEL = 0.05  # significance level of a test; an interval contains the true value with probability 1 - LEVEL


def proportion(correct: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact confidence interval of a proportion (Clopper and Pearson): for 0 of 200 it is [0, 0.018].

    Args:
        correct: successes, 0 to n.
        n: trials, at least 1.
        level: how often such intervals may miss the true value.

    Returns:
        The two ends of the interval, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(1 - level, method="exact")
    return float(interval.low), float(interval.high)


def discordant(one: Sequence[float], other: Sequence[float]) -> tuple[int, int]:
    """Count the images on which only the first of two networks is right, and those on which only the second is.

    Args:
        one, other: the outcomes of the two networks on the same images, 1 or True where a network is right.
    """
    pairs = list(zip(one, other, strict=True))
    return sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)


def mcnemar(one: Sequence[float], other: Sequence[float]) -> float:
    """Return p of the exact two-sided McNemar test that two networks are equally accurate on the same images.

    Under the null hypothesis, an image that only one network classifies right is equally likely to be either's.

    Args:
        one, other: see `discordant`.

    Returns:
        p; 1 where the networks are right on the same images.
    """
    from scipy.stats import binomtest

    first, second = discordant(one, other)
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def fisher(correct: int, n: int, other_correct: int, other_n: int) -> float:
    """Return p of Fisher's exact two-sided test that two proportions are equal, for independent trials.

    For two networks that saw the same images, and mostly classify the same ones right, this p is too large: a verdict
    that it supports stands.
    """
    from scipy.stats import fisher_exact

    return float(fisher_exact([[correct, n - correct], [other_correct, other_n - other_correct]]).pvalue)


def t_test(difference: float, parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return p of Student's two-sided t test that a difference is 0, with a variance that sums several estimates.

    With v_k a part of the variance and m_k its degrees of freedom, the sum has m degrees of freedom (Welch and
    Satterthwaite),

        m = (sum_k v_k)^2 / sum_k v_k^2 / m_k

    Two parts s^2/n and s'^2/n' with n - 1 and n' - 1 degrees of freedom make Welch's test.

    Args:
        difference: difference of two means.
        parts: pairs (v_k, m_k), m_k > 0.

    Returns:
        p and m. A variance of 0 gives p = 0 and infinite m; p = 1 where the difference is 0 too.
    """
    from scipy.stats import t

    parts = [(variance, degrees) for variance, degrees in parts if variance]
    if not parts:
        return float(difference == 0), math.inf
    total = math.fsum(variance for variance, _ in parts)
    degrees = total**2 / math.fsum(variance**2 / degrees for variance, degrees in parts)
    return float(2 * t.sf(abs(difference) / math.sqrt(total), degrees)), degrees


def holm(values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests, so that the probability of any wrong verdict is `LEVEL` at most.

    The smallest of m values is multiplied by m, the next by m - 1 and so on, and none becomes smaller than the one
    before it.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted
