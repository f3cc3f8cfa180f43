"""Intervals and tests against closed forms, tables by hand and SciPy's tests of the same."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from interp_lib.study.intervals import discordant, fisher, holm, mcnemar, proportion, t_test


@pytest.mark.parametrize("n", [7, 200, 2000])
def test_none_of_n_has_an_interval(n):
    """No success of n: the upper end u has (1 - u)^n = 2.5 %."""
    low, high = proportion(0, n)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / n))
    assert proportion(n, n) == pytest.approx((1 - high, 1))


def test_an_interval_holds_the_true_value_as_often_as_it_says():
    """Over all outcomes of 30 images, weighted by their probability, for several true accuracies."""
    ends = [proportion(k, 30) for k in range(31)]
    for p in (0.01, 0.1, 0.3, 0.5, 0.9):
        held = sum(stats.binom.pmf(k, 30, p) for k, (low, high) in enumerate(ends) if low <= p <= high)
        assert held >= 0.95


def test_mcnemar_counts_the_images_that_tell_two_networks_apart():
    one, other = (1, 1, 1, 1, 1, 1, 0, 0), (1, 1, 0, 0, 0, 0, 0, 0)
    assert discordant(one, other) == (4, 0) and discordant(other, one) == (0, 4)
    assert mcnemar(one, other) == mcnemar(other, one) == pytest.approx(2 * 0.5**4)
    assert mcnemar(one, one) == 1
    assert mcnemar((1, 1, 1, 0), (0, 0, 0, 1)) == pytest.approx(2 * (1 + 4) / 16)
    with pytest.raises(ValueError, match="shorter"):
        mcnemar((1, 0), (1,))


def test_mcnemar_is_right_by_enumeration():
    """Every way in which five discordant images can fall, as likely as every other."""
    falls = [sum(way) for way in product((0, 1), repeat=5)]
    expected = sum(abs(k - 2.5) >= 1.5 for k in falls) / len(falls)
    assert mcnemar((1, 1, 1, 1, 0), (0, 0, 0, 0, 1)) == pytest.approx(expected)


def test_fisher_is_the_hypergeometric_sum():
    chance = stats.hypergeom(20, 9, 10)
    expected = sum(chance.pmf(k) for k in range(10) if chance.pmf(k) <= chance.pmf(7) * (1 + 1e-9))
    assert fisher(7, 10, 2, 10) == pytest.approx(expected)


def test_two_parts_are_the_test_of_welch():
    one, other = (0.90, 0.88, 0.93), (0.81, 0.86, 0.84, 0.79)
    parts = [(stats.tvar(group) / len(group), len(group) - 1) for group in (one, other)]
    expected = stats.ttest_ind(one, other, equal_var=False)
    p, degrees = t_test(sum(one) / 3 - sum(other) / 4, parts)
    assert (p, degrees) == pytest.approx((expected.pvalue, expected.df))


def test_one_part_keeps_its_degrees_of_freedom_and_no_part_leaves_nothing_to_chance():
    assert t_test(0.3, [(0.01, 2)]) == pytest.approx((2 * stats.t.sf(3, 2), 2))
    assert t_test(0.3, [(0.01, 2), (0.0, 5)]) == t_test(0.3, [(0.01, 2)])
    assert t_test(0.1, []) == (0, math.inf) and t_test(0.0, [(0.0, 2)]) == (1, math.inf)


def test_holm_multiplies_the_smallest_by_all():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1] and holm([]) == [] and holm([0.04]) == [0.04]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(values):
    """Reject the smallest while p <= level / (tests left)."""
    adjusted = holm(values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if (len(values) - rank) * values[index] > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
