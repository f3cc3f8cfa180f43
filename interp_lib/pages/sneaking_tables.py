"""Make the tables of the chapter on attacks that hide from maps: what a larger ball hides, and which map tells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from ..attacks.sneaking_settings import CLASS_SETS
from ..paper import PRINTED_FIGURE2
from ..study.records import Record
from ..study.sneaking_over_eps import falls
from ..study.stored_maps import read_curves, read_versions
from .comparison_tables import number
from .tables import Table, of_dataset

PAIR = "2-class"

Shares = Sequence[Mapping[str, float]]  # an image each: the share of its first discrepancy that each line loses


def beyond_the_pair(shares: Shares) -> dict[str, tuple[float, float, int]]:
    """Compare how much the lines of Figure 2 fall with how much that of the pair of classes does, image by image.

    Args:
        shares: `sneaking_over_eps.falls` of each image, two at least.

    Returns:
        The other sets of classes -> the mean difference, its standard error, and on how many images it is positive.
    """
    found = {}
    for name in CLASS_SETS:
        if name != PAIR:
            more = [share[name] - share[PAIR] for share in shares]
            found[name] = (fmean(more), stdev(more) / math.sqrt(len(more)), sum(value > 0 for value in more))
    return found


def lost_on_average(shares: Shares, data: str, eps: float) -> Table:
    """Make the table of the mean share of its first discrepancy that each line of Figure 2 loses.

    Args:
        shares: see `beyond_the_pair`.
        data: title of the dataset.
        eps: size of the largest ball.
    """
    more, lines = beyond_the_pair(shares), []
    for name in CLASS_SETS:
        line = [name, f"{fmean(share[name] for share in shares):.0%}", "–", "–"]
        if name in more:
            mean, error, count = more[name]
            line[2:] = [f"{mean:+.0%} ± {error:.0%}".replace("-", "−"), f"{count} of {len(shares)}"]
        lines.append(line)
    return Table(
        ["line, ℓ1", "share that is lost", f"more than {PAIR}", "on so many images"],
        lines,
        f"{data}, {len(shares)} images: from the smallest ball with a success to ε = {eps:g}.",
        caption="Share of its first discrepancy that each line of Figure 2 loses as the ball grows.",
    )


def lost_on_stored(records: Iterable[Record]) -> Table:
    """Make the table of the share that each line of Figure 2 loses on one image of each dataset.

    Args:
        records: of `measure figure2`.
    """
    lines = []
    for record in records:
        curves, _ = read_curves(record)
        for p in record.settings["p"]:
            fall = falls(curves, p)
            norm = {1: "ℓ1", 2: "squared ℓ2"}[p]
            lines.append([f"{of_dataset(record)}, {norm}", *(f"{fall[name]:.0%}" for name in CLASS_SETS)])
    return Table(
        ["share that is lost", *CLASS_SETS],
        lines,
        "One image each; released Normal networks.",
        caption="Share that each line of Figure 2 loses on the released networks.",
    )


def correlations(records: Iterable[Record]) -> dict[str, Mapping[str, Sequence[float]]]:
    """Return Kendall's tau of the CAMs of t and of t' with those of x, for each attack of Figure 2 (c).

    Args:
        records: of `measure figure2`.

    Returns:
        'as printed' and the datasets -> attack -> (tau of the map of t, tau of the map of t').
    """
    stored = {of_dataset(record): read_versions(record) for record in records}
    attacks = tuple(PRINTED_FIGURE2)
    measured = {title: {name: versions[name].tau["CAM"] for name in attacks} for title, versions in stored.items()}
    return {"as printed": PRINTED_FIGURE2, **measured}


def correlation_table(records: Iterable[Record]) -> Table:
    """Make the table of `correlations`, a line for each map."""
    return Table(
        ["map of", *(name if name == "PGD" else f"{name} ISA" for name in PRINTED_FIGURE2)],
        [
            [f"{title}, {of}", *(number(tau[j]) for tau in found.values())]
            for title, found in correlations(records).items()
            for j, of in enumerate(("t", "t′"))
        ],
        "Kendall's τ with the map of x; one image each, first the paper's.",
        caption="Kendall's τ of the maps in Figure 2 (c) of the paper, as printed and on the released networks.",
    )


def what_is_said(records: Iterable[Record]) -> Table:
    """Make the table of what the paper says of the maps of its image, and whether it is so of others."""
    lines = []
    for title, found in correlations(records).items():
        one, two, plain = found["1-class"], found[PAIR], found["PGD"]
        holds = one[0] > plain[0], one[1] < two[1], one[1] < plain[1]
        lines.append([title, *("yes" if it else "no" for it in holds)])
    return Table(
        ["the 1-class ISA keeps", "t better than PGD", "t′ worse than 2-class", "t′ worse than PGD"],
        lines,
        caption="What the paper says of its image in Figure 2, and whether it is so of others.",
    )
