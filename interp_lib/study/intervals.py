"""How certain a count, a difference or several verdicts are: intervals and tests of accuracies.

SciPy's where it has them; it is loaded when a function is called.
"""

import math
from collections.abc import Iterable, Sequence

LEVEL = 0.05  # of a test; an interval holds the true value with probability 1 - LEVEL


def proportion(correct: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson): of 0 in 200 it is [0, 0.018].

    Args:
        correct: successes, 0 to n.
        n: trials, at least 1.
        level: how often such intervals may miss the true value.

    Returns:
        Its two ends, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(1 - level, method="exact")
    return float(interval.low), float(interval.high)


def discordant(one: Sequence[float], other: Sequence[float]) -> tuple[int, int]:
    """On how many images only the first of two networks is right, and on how many only the second.

    Args:
        one, other: what each network did on the same images, 1 or True where it was right.
    """
    pairs = list(zip(one, other, strict=True))
    return sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)


def mcnemar(one: Sequence[float], other: Sequence[float]) -> float:
    """p of the exact McNemar test that two networks get the same images equally often right, two-sided.

    Under the hypothesis an image on which only one of the two is right is as often the one's as the other's.

    Args:
        one, other: see `discordant`.

    Returns:
        p; 1 where no image tells the two apart.
    """
    from scipy.stats import binomtest

    first, second = discordant(one, other)
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def fisher(correct: int, n: int, other_correct: int, other_n: int) -> float:
    """p of Fisher's exact test that two proportions are one, two-sided, the trials being different ones.

    Of two networks that saw the same images, and mostly have the same right, this p is too large: a verdict that it
    gives would stand.
    """
    from scipy.stats import fisher_exact

    return float(fisher_exact([[correct, n - correct], [other_correct, other_n - other_correct]]).pvalue)


def t_test(difference: float, parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """p of Student's t test that a difference is 0, two-sided, where its variance is a sum of estimated ones.

    With v_k a part of the variance and m_k its degrees of freedom, the sum has those of Welch and Satterthwaite,

        m = (sum_k v_k)^2 / sum_k v_k^2 / m_k

    Two parts s^2/n and s'^2/n' with n - 1 and n' - 1 degrees are Welch's test.

    Args:
        difference: of two means.
        parts: (v_k, m_k), m_k > 0.

    Returns:
        p, and m. A variance of 0 gives p = 0, and m infinite; p = 1 where the difference is 0 too.
    """
    from scipy.stats import t

    parts = [(variance, degrees) for variance, degrees in parts if variance]
    if not parts:
        return float(difference == 0), math.inf
    total = math.fsum(variance for variance, _ in parts)
    degrees = total**2 / math.fsum(variance**2 / degrees for variance, degrees in parts)
    return float(2 * t.sf(abs(difference) / math.sqrt(total), degrees)), degrees


def holm(values: Sequence[float]) -> list[float]:
    """p of several tests, adjusted so that all verdicts together are wrong with probability `level` at most.

    The smallest of m is multiplied by m, the next by m - 1 and so on, and none becomes smaller than one before it.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted
