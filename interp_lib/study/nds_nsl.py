"""NDS and NSL of many images, as Table 1 averages them: with standard errors, and compared image by image.

Three numbers an image are all that both scores need: how many points count, the sum of their D_norm, and the slope.
Records keep them, so that any two measures of the same images can be compared in pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..discrepancies import normalised_slope

DRAWS = 2000

Each = Sequence[Sequence[float] | None]


class IsaScores(NamedTuple):
    """NDS and NSL of many images, see `isa_scores`.

    nds, nds_se: mean over points, and its standard error with images as the sampling unit.
    nsl, nsl_se: sum of slopes over the number of points, as the released code divides.
    nsl_per_image, nsl_per_image_se: mean of slopes over images, as Appendix D says.
    images, points: how many were kept.
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
    """What each image contributes to NDS and NSL: number of points, sum of D_norm, slope.

    Of each image the points that count are put in the order of eps and replaced by their running minimum: an attack
    stays available in a larger ball. Images whose score never falls are dropped, and with them those of fewer than
    two points, or of a score that is not finite. Appendix D says none of this; it is what the released code does.

    Args:
        scores: D_norm, (N, E); the first column is the plain attack at eps*, then rising eps.
        eps: perturbation sizes, (N, E), rising along each row. The released code takes the largest change of a pixel
            that the attack made, not the radius that it was allowed.
        counts: bool (N, E): f_t'(x') >= f_t(x') and not f_t'(x) > f_t(x).

    Returns:
        float64 (N, 3); zeros for an image that is dropped.

    Raises:
        ValueError: for other shapes.

    Source: Appendix D and the released code of Table 1.
    """
    if not scores.shape == eps.shape == counts.shape or scores.dim() != 2:
        raise ValueError(
            "scores, eps and counts must have one shape (N, E); got "
            f"{tuple(scores.shape)}, {tuple(eps.shape)} and {tuple(counts.shape)}."
        )
    scores, eps = scores.detach().double(), eps.detach().double()
    lowest = torch.where(counts, scores, torch.inf).cummin(1).values
    order = torch.arange(counts.shape[1], device=counts.device).expand_as(counts)
    first = torch.where(counts, order, counts.shape[1] - 1).amin(1, keepdim=True)
    last = torch.where(counts, order, 0).amax(1, keepdim=True)
    ends = torch.cat([first, last], 1)
    drop = lowest.gather(1, ends)
    totals = torch.where(counts, lowest, 0).sum(1)
    slopes = normalised_slope(drop, eps.gather(1, ends))
    each = torch.stack([counts.sum(1).double(), totals, slopes], 1)
    kept = counts.any(1) & (drop[:, 0] > drop[:, 1]) & each.isfinite().all(1)
    return torch.where(kept[:, None], each, 0)


def ratios(sums: Tensor) -> Tensor:
    """NDS and NSL from sums over images of (points, total, slope): (..., 3) -> (..., 2)."""
    return sums[..., 1:] / sums[..., :1]


def resampled(each: Tensor, draws: int = DRAWS) -> Tensor:
    """Sums over images, each of which was drawn with replacement: (N, ...) -> (draws, ...).

    The same images for all numbers in `each`, and, as the seed is fixed, for every table of N images.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(each), (draws, len(each)), generator=generator)
    times = torch.zeros(draws, len(each), dtype=each.dtype).scatter_add_(1, drawn, torch.ones_like(drawn).to(each))
    return (times @ each.flatten(1)).unflatten(1, each.shape[1:])


def spread(values: Tensor) -> Tensor:
    """Standard deviation over draws, without those draws that hit no image that is kept: (draws, ...) -> (...)."""
    return values[values.flatten(1).isfinite().all(1)].std(0)


def isa_scores(each: Tensor) -> IsaScores:
    """NDS and NSL of Table 1, with the standard errors of a bootstrap over images.

    NDS is the mean over all points of all kept images. The released code divides the sum of slopes by the number of
    points, where Appendix D averages over images: both are returned. All three are ratios of two sums over images,
    and images are what was sampled, so that whole images are drawn with replacement and both sums taken of the same.

    Args:
        each: of `image_scores`, (N, 3) on the CPU; zeros for images that are not kept.

    Returns:
        An `IsaScores`; its numbers are NaN where no image is kept, its errors where only one is.

    Source: Appendix D and Table 1.
    """
    kept = each[:, :1] > 0
    both = torch.cat([each, kept.to(each)], 1)
    scores = lambda sums: torch.cat([ratios(sums[..., :3]), sums[..., 2:3] / sums[..., 3:]], -1)
    values, images = scores(both.sum(0)), int(kept.sum())
    errors = spread(scores(resampled(both))) if images > 1 else torch.full_like(values, torch.nan)
    (nds, nsl, per_image), (nds_se, nsl_se, per_image_se) = values.tolist(), errors.tolist()
    return IsaScores(nds, nds_se, nsl, nsl_se, per_image, per_image_se, images, int(each[:, 0].sum()))


def common(one: Tensor, other: Tensor) -> Tensor:
    """Two measures on the images that both keep: (N, 3) and (M, 3) -> (min(N, M), 2, 3), zeros for other images."""
    n = min(len(one), len(other))
    both = torch.stack([one[:n], other[:n]], 1)
    return torch.where((both[..., :1] > 0).all(1, keepdim=True), both, 0)


def difference(one: Tensor, other: Tensor) -> Difference:
    """NDS and NSL of one measure minus those of another on the images that both keep, with paired standard errors.

    An image whose score never falls is dropped, and two measures drop different images. Scores over the images of
    each would differ because the images do, so that an image counts only where both measures keep it. In each draw
    of the bootstrap both see the same images, and what an image adds to both cancels, as in the paired test. Images
    are drawn from all that both were measured on, because which of them both keep is chance as well.

    Args:
        one, other: of `image_scores`, (N, 3) and (M, 3), the same images in the same order as far as both go.

    Returns:
        A `Difference`; its numbers are NaN where there is no image that both keep, its errors where there is one.
    """
    both = common(one, other)
    images = int((both[:, 0, 0] > 0).sum())
    apart = lambda sums: ratios(sums[..., 0, :]) - ratios(sums[..., 1, :])
    values = apart(both.sum(0))
    errors = spread(apart(resampled(both))) if images > 1 else torch.full_like(values, torch.nan)
    (nds, nsl), (nds_se, nsl_se) = values.tolist(), errors.tolist()
    return Difference(nds, nds_se, nsl, nsl_se, images, len(both))


def to_record(each: Tensor) -> list[list[float] | None]:
    """(N, 3) as it stands in a record: six significant digits, None for an image that is not kept."""
    return [[int(row[0]), *(float(f"{value:.6g}") for value in row[1:])] if row[0] else None for row in each.tolist()]


def from_record(each: Each) -> Tensor:
    """A record's list as float64 (N, 3)."""
    return torch.tensor([row or (0, 0, 0) for row in each], dtype=torch.float64).reshape(-1, 3)
