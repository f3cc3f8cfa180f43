"""Compare the accuracies of two methods, with the standard error of their difference and a p-value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from statistics import fmean, pstdev, stdev

from . import intervals
from .compare import Cell
from .records import outcomes_of


def column(cell: Cell, source: str) -> str:
    """Return the name of the `Cell` field with a source's value for the row's real network, `Cell.owner`."""
    return "corrected" if source == "released" and cell.owner != cell.method else source


def accuracy(cell: Cell, source: str) -> float | None:
    """Return a source's accuracy for the network that a printed row really belongs to; None if not measured."""
    return getattr(cell, column(cell, source))


@dataclass(frozen=True)
class Measured:
    """An accuracy on n images; with several seeds, the mean over seeds.

    Attributes:
        accuracy: in [0, 1].
        images: number of images n; the networks of all seeds saw the same images.
        seeds: number of networks.
        spread: standard deviation between the networks; 0 for one network.
        outcomes: the share of the networks that classify each image right, (n,); empty where it is not known.
    """

    accuracy: float
    images: int = 200
    seeds: int = 1
    spread: float = 0.0
    outcomes: tuple[float, ...] = ()

    @classmethod
    def of_cell(cls, cell: Cell, source: str, images: int = 200) -> "Measured":
        """Return a source's measurement of a printed value."""
        # A cell counts the images of ours over all seeds: n_ours / images is the number of seeds.
        seeds = max(1, round(cell.n_ours / images)) if source == "ours" and cell.n_ours else 1
        spread = cell.spread if source == "ours" and seeds > 1 else 0.0
        outcomes = cell.outcomes.get(column(cell, source), ())
        value = accuracy(cell, source)
        assert value is not None  # what was not measured is not compared
        return cls(value, images, seeds, spread or 0.0, outcomes)

    @classmethod
    def of_rows(cls, rows: Sequence[dict]) -> "Measured":
        """Summarise a record's rows of one method and attack, one row per seed."""
        values, n = [row["accuracy"] for row in rows], rows[0]["n"]
        per_seed = [outcomes_of(row["right"], n) for row in rows if "right" in row]
        outcomes = tuple(fmean(image) for image in zip(*per_seed, strict=True)) if len(per_seed) == len(rows) else ()
        return cls(fmean(values), n, len(rows), stdev(values) if len(rows) > 1 else 0.0, outcomes)

    @property
    def image_variance(self) -> float:
        """(p (1 - p) / n + 1 / 4 n^2) / (1 + 1/n)^2, the squared half-width of Wilson's interval; not 0 at p = 0."""
        p, n = self.accuracy, self.images
        return (p * (1 - p) / n + 1 / (2 * n) ** 2) / (1 + 1 / n) ** 2

    @property
    def seed_variance(self) -> float:
        return self.spread**2 / self.seeds


def uncertainty(cell: Cell, source: str = "released", images: int = 200) -> float:
    """Return the standard error of an accuracy on n images, or of a mean over k networks.

    It is the square root of `Measured.image_variance` + s^2 / k, with s the standard deviation between the networks.
    """
    value = Measured.of_cell(cell, source, images)
    return math.sqrt(value.image_variance + value.seed_variance)


def difference_error(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the standard error of the difference of two accuracies on the same images, from outcomes in [0, 1].

    It is sqrt(1/n^2 sum_i (d_i - mean d)^2), with d_i the difference of the outcomes on image i.
    """
    return pstdev(map(sub, one, other)) / math.sqrt(len(one))


@dataclass(frozen=True)
class Comparison:
    """The difference of two accuracies, its standard error, p of no difference, and whether images are paired."""

    difference: float
    error: float
    p: float
    paired: bool


def compared(one: Measured, other: Measured) -> Comparison:
    """Compare one method with another at one level.

    With one network each: McNemar's exact test where the records say which images were right, and Fisher's where they
    do not; Student's test of the differences image by image where outcomes are means over random starts. With several
    seeds: Welch's test of the two means over seeds, each with k - 1 degrees of freedom, and the same test with the
    variance of the images, n - 1 degrees, added (`intervals.t_test`); p is the larger of the two.
    """
    difference = one.accuracy - other.accuracy
    paired = bool(one.outcomes) and len(one.outcomes) == len(other.outcomes)
    image = one.image_variance + other.image_variance
    if paired:
        image = difference_error(one.outcomes, other.outcomes) ** 2
    if max(one.seeds, other.seeds) > 1:
        seeds = [(side.seed_variance, side.seeds - 1) for side in (one, other)]
        # The images' part brings many degrees of freedom, which alone could lower p; the maximum prevents that.
        p = max(intervals.t_test(difference, parts)[0] for parts in (seeds, [*seeds, (image, one.images - 1)]))
    elif paired and not {*one.outcomes, *other.outcomes} <= {0, 1}:  # means over random starts
        p = intervals.t_test(difference, [(image, one.images - 1)])[0] if image else 1.0
    elif paired:
        p = intervals.mcnemar(one.outcomes, other.outcomes)
    else:
        counts = [(round(side.accuracy * side.images), side.images) for side in (one, other)]
        p = intervals.fisher(*counts[0], *counts[1])
    return Comparison(difference, math.sqrt(image + one.seed_variance + other.seed_variance), p, paired)


def compared_rows(one: Sequence[dict], other: Sequence[dict]) -> Comparison:
    """Compare a record's rows of one method and attack with those of another, one row per seed."""
    return compared(Measured.of_rows(one), Measured.of_rows(other))
