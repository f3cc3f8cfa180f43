"""Average NDS and NSL over images as Table 1 does, with standard errors, and compare measures image by image.

Both scores need only three numbers per image: how many points count, the sum of their D_norm, and the slope. Records
store these numbers, so that any two measures of the same images can be compared in pairs.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..discrepancies import normalised_slope

DRAWS = 2000

Each = Sequence[Sequence[float] | None]


class IsaScores(NamedTuple):
    """NDS and NSL of many images, see `isa_scores`.

    nds, nds_se: mean over points, and its standard error with images as the sampling unit.
    nsl, nsl_se: sum of slopes divided by the number of points, as in the released code, and its standard error.
    nsl_per_image, nsl_per_image_se: mean of slopes over images, as in Appendix D, and its standard error.
    images, points: numbers of images and of points kept.
    """

    nds: float
    nds_se: float
    nsl: float
    nsl_se: float
    nsl_per_image: float
    nsl_per_image_se: float
    images: int
    points: int


class Difference(NamedTuple):
    """One measure's scores minus another's on the images that both keep, see `difference`.

    nds, nds_se, nsl, nsl_se: the differences with their standard errors.
    images: how many images both keep.
    measured: how many images both were measured on.
    """

    nds: float
    nds_se: float
    nsl: float
    nsl_se: float
    images: int
    measured: int


def image_scores(scores: Tensor, eps: Tensor, counts: Tensor) -> Tensor:
    """Compute what each image contributes to NDS and NSL: number of points, sum of D_norm, slope.

    The scores of the points that count, in the order of eps, are replaced by their running minimum, because an attack
    in a small ball also lies in every larger ball. Images whose score never falls are dropped; so are images with
    fewer than two points, or with a score that is not finite. Appendix D says none of this; the released code does it.

    Args:
        scores: D_norm, (N, E); the first column is the plain attack at eps*, the others follow by ascending eps.
        eps: perturbation sizes, (N, E), ascending along each row. The released code takes the largest change of a pixel
            that the attack made, not the radius that it was allowed.
        counts: bool (N, E): f_t'(x') >= f_t(x') and not f_t'(x) > f_t(x).

    Returns:
        float64 (N, 3); zeros for an image that is dropped.

    Raises:
        ValueError: the shapes differ, or are not (N, E).

    Source: Appendix D and the released code of Table 1.
    """
    if not scores.shape == eps.shape == counts.shape or scores.dim() != 2:
        raise ValueError(
            "scores, eps and counts must have one shape (N, E); got "
            f"{tuple(scores.shape)}, {tuple(eps.shape)} and {tuple(counts.shape)}."
        )
    scores, eps = scores.detach().double(), eps.detach().double()
    # A point that does not count is infinite, so that the running minimum passes over it.
    lowest = torch.where(counts, scores, torch.inf).cummin(1).values
    # Columns of the first and the last point that counts; arbitrary for images without one, which are dropped below.
    order = torch.arange(counts.shape[1], device=counts.device).expand_as(counts)
    first = torch.where(counts, order, counts.shape[1] - 1).amin(1, keepdim=True)
    last = torch.where(counts, order, 0).amax(1, keepdim=True)
    ends = torch.cat([first, last], 1)
    drop = lowest.gather(1, ends)
    totals = torch.where(counts, lowest, 0).sum(1)
    slopes = normalised_slope(drop, eps.gather(1, ends))
    contributions = torch.stack([counts.sum(1).double(), totals, slopes], 1)
    kept = counts.any(1) & (drop[:, 0] > drop[:, 1]) & contributions.isfinite().all(1)
    return torch.where(kept[:, None], contributions, 0)


def ratios(sums: Tensor) -> Tensor:
    """Compute NDS and NSL from sums over images of (points, total, slope): (..., 3) -> (..., 2)."""
    return sums[..., 1:] / sums[..., :1]


@lru_cache(maxsize=8)
def _times(n: int, draws: int) -> Tensor:
    """Draw n of n images with replacement, `draws` times: how often each draw has each image, float64 (draws, n)."""
    drawn = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(0))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def resampled(per_image: Tensor, draws: int = DRAWS) -> Tensor:
    """Sum over images drawn with replacement, for each draw of the bootstrap: (N, ...) -> (draws, ...).

    All numbers in `per_image` use the same drawn images; the seed is fixed, so every table of N images uses them too.
    """
    # How often each draw has each image makes the sums one matrix product, without a (draws, N, ...) tensor.
    times = _times(len(per_image), draws).to(per_image.dtype)
    return (times @ per_image.flatten(1)).unflatten(1, per_image.shape[1:])


def spread(values: Tensor) -> Tensor:
    """Return the standard deviation over draws, skipping draws without any kept image: (draws, ...) -> (...)."""
    return values[values.flatten(1).isfinite().all(1)].std(0)


def isa_scores(contributions: Tensor) -> IsaScores:
    """Compute NDS and NSL of Table 1, with standard errors from a bootstrap over images.

    NDS is the mean over all points of all kept images. The released code divides the sum of slopes by the number of
    points, where Appendix D averages over images: both are returned. All three are ratios of two sums over images. The
    sampling unit is the image, so the bootstrap draws whole images with replacement and takes both sums over the same
    draw.

    Args:
        contributions: from `image_scores`, (N, 3) on the CPU; zeros for images that are not kept.

    Returns:
        An `IsaScores`; its scores are NaN where no image is kept, and its errors are NaN where only one image is kept.

    Source: Appendix D and Table 1.
    """
    kept = contributions[:, :1] > 0
    both = torch.cat([contributions, kept.to(contributions)], 1)
    scores = lambda sums: torch.cat([ratios(sums[..., :3]), sums[..., 2:3] / sums[..., 3:]], -1)
    values, images = scores(both.sum(0)), int(kept.sum())
    errors = spread(scores(resampled(both))) if images > 1 else torch.full_like(values, torch.nan)
    (nds, nsl, per_image), (nds_se, nsl_se, per_image_se) = values.tolist(), errors.tolist()
    return IsaScores(nds, nds_se, nsl, nsl_se, per_image, per_image_se, images, int(contributions[:, 0].sum()))


def common(one: Tensor, other: Tensor) -> Tensor:
    """Stack two measures on the images that both keep: (N, 3), (M, 3) -> (min(N, M), 2, 3), zeros for other images."""
    n = min(len(one), len(other))
    both = torch.stack([one[:n], other[:n]], 1)
    return torch.where((both[..., :1] > 0).all(1, keepdim=True), both, 0)


def difference(one: Tensor, other: Tensor) -> Difference:
    """Subtract another measure's NDS and NSL on the images that both keep, with paired standard errors.

    An image whose score never falls is dropped, and two measures drop different images. Scores over each measure's own
    images would differ because the images differ, so an image counts only where both measures keep it. In each draw of
    the bootstrap both measures see the same images, and what an image adds to both cancels, as in a paired test.
    Images are drawn from all images that both were measured on, because which of them both keep is also random.

    Args:
        one, other: from `image_scores`, (N, 3) and (M, 3); the first min(N, M) images are the same, in the same order.

    Returns:
        A `Difference`; its scores are NaN where both keep no common image, its errors where they keep fewer than two.
    """
    both = common(one, other)
    images = int((both[:, 0, 0] > 0).sum())
    subtract = lambda sums: ratios(sums[..., 0, :]) - ratios(sums[..., 1, :])
    values = subtract(both.sum(0))
    errors = spread(subtract(resampled(both))) if images > 1 else torch.full_like(values, torch.nan)
    (nds, nsl), (nds_se, nsl_se) = values.tolist(), errors.tolist()
    return Difference(nds, nds_se, nsl, nsl_se, images, len(both))


def to_record(contributions: Tensor) -> list[list[float] | None]:
    """Convert (N, 3) to a record's list: six significant digits, None for an image that is not kept."""
    return [
        [int(row[0]), *(float(f"{value:.6g}") for value in row[1:])] if row[0] else None
        for row in contributions.tolist()
    ]


def from_record(entries: Each) -> Tensor:
    """Convert a record's list to float64 (N, 3)."""
    # reshape keeps the shape (0, 3) for an empty list.
    return torch.tensor([row or (0, 0, 0) for row in entries], dtype=torch.float64).reshape(-1, 3)
