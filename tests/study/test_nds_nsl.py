"""NDS and NSL of many images: against the released loop, closed forms, repeated samples and cases by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib.study.nds_nsl import (
    common,
    difference,
    from_record,
    image_scores,
    isa_scores,
    ratios,
    resampled,
    to_record,
)


def released_loop(scores, eps, counts):
    """The loop over images of the released `isa_cam`, in its own manner."""
    total_discrepancy = total_nslope = 0.0
    num_pts = images_ = 0
    for i in range(len(scores)):
        xs = [s for s, c in zip(scores[i], counts[i], strict=True) if c]
        ys = [e for e, c in zip(eps[i], counts[i], strict=True) if c]
        if len(xs) >= 1:
            new_is = [0]
            for j in range(1, len(xs)):
                new_is.append(new_is[-1] if xs[new_is[-1]] < xs[j] else j)
            xs = [xs[j] for j in new_is]
            if xs[0] != xs[-1]:
                total_discrepancy += sum(xs)
                total_nslope += ((xs[0] - xs[-1]) * ys[0]) / ((ys[-1] - ys[0]) * xs[0])
                num_pts += len(xs)
                images_ += 1
    return total_discrepancy, total_nslope, num_pts, images_


def scored(*arrays):
    return isa_scores(image_scores(*map(torch.from_numpy, arrays)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6), st.floats(0, 1))
def test_scores_are_those_of_the_released_loop(seed, n, e, share):
    generator = np.random.default_rng(seed)
    scores = generator.integers(1, 8, (n, e)) / 4  # ties included
    eps = generator.uniform(0.01, 0.1, (n, e)).cumsum(1)
    counts = generator.uniform(size=(n, e)) < share
    ours = scored(scores, eps, counts)
    total, slopes, points, kept = released_loop(scores, eps, counts)
    assert (ours.points, ours.images) == (points, kept)
    if kept:
        assert abs(ours.nds - total / points) < 1e-12
        assert abs(ours.nsl - slopes / points) < 1e-12
        assert abs(ours.nsl_per_image - slopes / kept) < 1e-12
    else:
        assert math.isnan(ours.nds) and math.isnan(ours.nsl)
    assert math.isnan(ours.nds_se) == (kept < 2)


def test_an_image_by_hand():
    """.5, .6, .3 and a point that does not count: running minimum .5, .5, .3; from .5 to .3 over 1 to 1.4."""
    scores = torch.tensor([[0.5, 0.6, 0.3, 0.1], [0.5, 0.5, 0.5, 0.5], [0.5, torch.inf, 0.3, torch.inf]])
    eps = torch.tensor([[0.1, 0.12, 0.14, 0.16]]).expand(3, 4)
    counts = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()
    each = image_scores(scores, eps, counts)
    assert each[0].tolist() == pytest.approx([3, 1.3, 0.4 / 0.4])
    assert each[1].tolist() == [0, 0, 0]  # never falls
    assert each[2].tolist() == pytest.approx([4, 1.6, 0.4 / 0.6])
    assert to_record(each) == [[3, 1.3, pytest.approx(1)], None, [4, 1.6, 0.666667]]
    both = isa_scores(each)
    assert both.nds == pytest.approx(2.9 / 7) and both.nsl == pytest.approx((1 + 2 / 3) / 7)
    assert (both.images, both.points) == (2, 7) and both.nsl_per_image == pytest.approx(5 / 6)
    assert image_scores(torch.tensor([[torch.nan, 1.0]]), eps[:1, :2], counts[:1, :2]).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match=r"\(N, E\)"):
        image_scores(torch.ones(2, 3), torch.ones(2, 2), torch.ones(2, 3, dtype=torch.bool))


def sample(n, seed=0, kept=1.0):
    """Images with one to five points; a share of them kept."""
    generator = np.random.default_rng(seed)
    points = generator.integers(1, 6, n)
    each = np.stack([points, points * generator.lognormal(0, 0.5, n), generator.lognormal(-1, 0.3, n)], 1)
    each[generator.uniform(size=n) > kept] = 0
    return torch.from_numpy(each)


def test_records_keep_six_digits_and_come_back():
    each = sample(50, kept=0.7)
    kept = to_record(each)
    assert [row is None for row in kept] == (each[:, 0] == 0).tolist() and None in kept
    assert torch.allclose(from_record(kept), each, rtol=1e-5, atol=0)
    assert to_record(from_record(kept)) == kept
    assert from_record([]).shape == (0, 3)


def test_a_mean_has_its_textbook_error():
    """As many points in every image: NDS is a mean of totals, and its error s / sqrt(n) up to (n - 1) / n."""
    totals = torch.randn(150, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 5
    each = torch.stack([torch.full_like(totals, 4), totals, totals.exp()], 1)
    found = isa_scores(each)
    assert found.nds == pytest.approx(float(totals.mean()) / 4)
    for values, se in (
        (totals, found.nds_se),
        (totals.exp(), found.nsl_se),
        (4 * totals.exp(), found.nsl_per_image_se),
    ):
        assert se == pytest.approx(float(values.std(correction=0)) / 4 / math.sqrt(150), rel=0.05)


def test_standard_errors_are_those_of_repeated_samples():
    """Ratio estimates from 300 draws of 60 images: their spread is what one draw says of itself."""
    generator, draws = np.random.default_rng(0), []
    for _ in range(300):
        scores = generator.lognormal(0, 0.3, (60, 4)) * generator.lognormal(0, 0.5, (60, 1))
        eps = np.array([1, 1.2, 1.4, 1.6]) * generator.uniform(0.05, 0.2, (60, 1))
        counts = generator.uniform(size=(60, 4)) < 0.8
        draws.append(scored(scores, eps, counts))
    for name in ("nds", "nsl", "nsl_per_image"):
        spread = np.std([getattr(d, name) for d in draws])
        said = np.mean([getattr(d, f"{name}_se") for d in draws])
        assert abs(said / spread - 1) < 0.15, name


def test_images_are_drawn_together_and_as_many_as_there_are():
    each = torch.stack([torch.ones(20), torch.arange(20.0), 3 * torch.arange(20.0)], 1).double()
    sums = resampled(each, 500)
    assert (sums[:, 0] == 20).all() and torch.allclose(sums[:, 2], 3 * sums[:, 1])
    assert sums[:, 1].mean() == pytest.approx(190, rel=0.02)
    assert torch.equal(sums, resampled(each, 500))


def test_a_measure_does_not_differ_from_itself():
    each = sample(40, kept=0.8)
    kept = int((each[:, 0] > 0).sum())
    assert difference(each, each) == (0, 0, 0, 0, kept, 40) and 20 < kept < 40


def test_differences_by_hand_and_cut_to_common_images():
    one = torch.tensor([[2.0, 4.0, 1.0], [2.0, 8.0, 1.0], [5.0, 5.0, 5.0]]).double()
    other = torch.tensor([[4.0, 4.0, 2.0], [4.0, 8.0, 2.0]]).double()
    found = difference(one, other)
    assert (found.nds, found.nsl, found.images, found.measured) == (3 - 1.5, 0.5 - 0.5, 2, 2)
    # Two images, four equally likely draws: the same twice (two ways), or both.
    nds = np.array([2 - 1, 4 - 2, 1.5, 1.5])
    assert found.nds_se == pytest.approx(nds.std(), rel=0.05) and found.nsl_se == 0
    assert difference(other, one).nds == -found.nds
    alone = difference(one[:1], other[:1])
    assert alone.nds == 1 and math.isnan(alone.nds_se)
    nothing = difference(one, torch.zeros(3, 3).double())
    assert math.isnan(nothing.nds) and (nothing.images, nothing.measured) == (0, 3)


def test_an_image_counts_only_where_both_measures_keep_it():
    """The same scores on images 0 and 1; one drops 2, which is large, the other drops 3, which is small."""
    one = torch.tensor([[2, 6, 1], [2, 8, 1], [0, 0, 0], [2, 1, 9]]).double()
    other = torch.tensor([[2, 6, 1], [2, 8, 1], [2, 90, 1], [0, 0, 0]]).double()
    assert difference(one, other) == (0, 0, 0, 0, 2, 4)
    # Each over the images that it keeps: 15 / 6 against 104 / 6, and 11 / 6 against 3 / 6.
    (nds, nsl), (other_nds, other_nsl) = ratios(torch.stack([one.sum(0), other.sum(0)])).tolist()
    assert (nds, other_nds) == (15 / 6, 104 / 6) and (nsl, other_nsl) == (11 / 6, 3 / 6)
    assert common(one, other)[:, 0].tolist() == [[2, 6, 1], [2, 8, 1], [0, 0, 0], [0, 0, 0]]
    apart = difference(one[2:], other[2:])
    assert math.isnan(apart.nds) and math.isnan(apart.nds_se) and apart.images == 0


def test_differences_are_those_of_a_loop_over_images():
    one, other = sample(70, 3, 0.7), sample(60, 4, 0.8)
    pairs = [(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=False) if a[0] and b[0]]
    score = lambda side, column: sum(pair[side][column] for pair in pairs) / sum(pair[side][0] for pair in pairs)
    found = difference(one, other)
    assert (found.images, found.measured) == (len(pairs), 60) and 20 < len(pairs) < 60
    assert found.nds == pytest.approx(score(0, 1) - score(1, 1), abs=1e-12)
    assert found.nsl == pytest.approx(score(0, 2) - score(1, 2), abs=1e-12)


def test_pairing_takes_out_what_images_share():
    """Two measures that differ by a constant on images of very different size: no error, where each has a large one."""
    each = sample(80)
    more = each.clone()
    more[:, 1] += 0.5 * each[:, 0]
    found = difference(more, each)
    assert found.nds == pytest.approx(0.5) and found.nds_se < 1e-12 < isa_scores(each).nds_se


def test_paired_errors_are_those_of_repeated_samples():
    gaps, said = [], []
    for seed in range(300):
        one, other = sample(50, seed, 0.8), sample(50, seed, 0.9)
        other[:, 1:] *= torch.from_numpy(np.random.default_rng(seed + 10**6).lognormal(0, 0.2, (50, 2)))
        found = difference(one, other)
        gaps.append((found.nds, found.nsl))
        said.append((found.nds_se, found.nsl_se))
    assert np.abs(np.mean(said, 0) / np.std(gaps, 0) - 1).max() < 0.15


def test_ratios_of_sums():
    assert ratios(torch.tensor([[4.0, 2.0, 1.0]])).tolist() == [[0.5, 0.25]]
