"""Make the tables of the chapter on Table 1: the paper's claims about NDS and NSL, and what the values rest on."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ..study.claims_table1 import PAIR, cell, claims, printed_claims, tally, with_verdicts
from ..study.compare import Cell, compare
from ..study.records import Record, having
from .comparison_tables import number
from .tables import Table, of_dataset, signed


def scores_by_network(records: Sequence[Record], networks: str) -> dict[str, list[dict]]:
    """Return the rows of the records of `measure table1` by network: 'MNIST', or 'MNIST, seed 0' with seeds.

    Args:
        networks: 'released' or 'ours'.
    """
    found: dict[str, list[dict]] = {}
    for record in having(records, measurement="isa", networks=networks):
        for row in record.rows:
            network = of_dataset(record) + (f", seed {row['seed']}" if "seed" in row else "")
            found.setdefault(network, []).append(row)
    return found


def judged(records: Sequence[Record], networks: str) -> list[dict]:
    """Evaluate the paper's claims about Table 1 on every network of a kind, corrected for all comparisons together.

    Args:
        networks: 'released' or 'ours'.

    Returns:
        Rows of `claims_table1.with_verdicts` with one more column, `network`, as in `scores_by_network`.
    """
    by_network = scores_by_network(records, networks).items()
    return with_verdicts({"network": network, **claim} for network, rows in by_network for claim in claims(rows))


def _claim_of(comparison: dict) -> str:
    """Return the claim that a comparison belongs to; the first one without IG and of IG by themselves."""
    if comparison["claim"] != PAIR:
        return comparison["claim"]
    return f"{PAIR}, {'IG' if comparison['interpreter'] == 'IG' else 'CAM and GradCAM++'}"


def outcomes(comparisons: Sequence[dict], *, caption: str) -> Table:
    """Make the table of how many comparisons exceed two standard errors, and how many are settled, claim by claim.

    Args:
        comparisons: from `judged`; those without an error or a content do not count.
        caption: the table's caption.
    """
    groups = {"all": list(comparisons)}
    for comparison in comparisons:
        groups.setdefault(_claim_of(comparison), []).append(comparison)
    lines = []
    for claim, group in groups.items():
        found = tally(group)
        counts = (found[key] for key in ("beyond", "beyond_other", "yes", "no", "not settled"))
        lines.append([claim, found["compared"], f"{found['by_chance']:.1f}", *counts])
    return Table(
        ["claim", "comparisons", "by chance", "beyond", "opposite", "settled", "settled opposite", "not settled"],
        lines,
        "Comparisons with an error and a content. By chance: how many would be beyond two standard errors if nothing "
        "differed. Beyond two errors and settled: the paper's way and the opposite way.",
        caption=caption,
    )


def claims_by_network(comparisons: Sequence[dict], note: str, *, caption: str, printed: bool = False) -> Table:
    """Make the table of the paper's claims: a line for each claim and score, a column for each network.

    Args:
        comparisons: from `judged`.
        note: which networks these are.
        caption: the table's caption.
        printed: put the paper's own values before those of each network.
    """
    columns: dict[str, list[dict]] = {}
    for network in dict.fromkeys(c["network"] for c in comparisons):
        if printed:
            columns[f"{network}, printed"] = printed_claims(network)
        columns[network] = [c for c in comparisons if c["network"] == network]
    name = lambda c: f"{c['claim']}, {c['score']}"
    lines = [
        [line, *(cell([c for c in column if name(c) == line]) for column in columns.values())]
        for line in dict.fromkeys(name(c) for column in columns.values() for c in column)
    ]
    return Table(["claim", *columns], lines, f"The sign, by two errors, settled. {note}", caption=caption)


def gains_of_the_pair(comparisons: Sequence[dict], *, caption: str, against: Sequence[str]) -> Table:
    """Make the table of how much larger NDS in l1 is with the pair of classes than with other classes.

    Args:
        comparisons: from `judged`.
        caption: the table's caption.
        against: '1-class', 'all-class' or both.
    """
    measures = {f"l1:{classes}" for classes in against}
    lines = [
        [
            f"{c['network']}, {c['interpreter']}, {c['against'].partition(':')[2]}",
            f"{c['value']:.3f}",
            f"{c['other']:.3f}",
            f"{signed(c['difference'])} ± {c['se']:.3f}",
            c["n"],
            c["verdict"],
        ]
        for c in comparisons
        if c["se"] and (c["claim"], c["score"]) == (PAIR, "NDS") and c["against"] in measures
    ]
    return Table(
        ["NDS, ℓ1, against", PAIR, "other", "difference ± s.e.", "images", "settled?"],
        lines,
        "On the images that both measures keep.",
        caption=caption,
    )


def not_as_claimed(comparisons: Sequence[dict], *, caption: str) -> Table:
    """Make the table of the comparisons that are settled against the paper, and of those not settled, but for IG's.

    Args:
        comparisons: from `judged`.
        caption: the table's caption.
    """
    of_ig = lambda c: "IG" in (c["interpreter"], c["against_interpreter"])
    lines = [
        [
            [f"{c['network']}, {c['score']}, {c['interpreter']}", f"{c['measure']} against {c['against']}"],
            f"{signed(c['difference'], 4)} ± {c['se']:.4f}",
            number(abs(c["z"]), digits=1),
            c["n"],
            c["verdict"],
        ]
        for c in comparisons
        if c["verdict"] == "no" or (c["verdict"] == "not settled" and not of_ig(c))
    ]
    return Table(
        ["network and measures", "difference ± s.e.", "in errors", "images", "settled?"],
        lines,
        "No: settled, with the sign opposite to the paper's.",
        caption=caption,
    )


def other_images(records: Sequence[Record], cells: Sequence[Cell]) -> Table:
    """Make the table of how far Table 1 on one draw of images is from print, and from that on another draw.

    Args:
        records: those of `measure table1` count.
        cells: their cells, from `study.compare.compare`.
    """
    (again,) = having(records, measurement="isa-again")
    first, *_ = having(records, measurement="isa", networks="released", dataset=again.settings["dataset"])
    seeds = [f"seed {record.settings['subset']['seed']}" for record in (first, again)]
    # compare knows the measurement of Table 1 alone by the name isa.
    as_isa = replace(again, settings={**again.settings, "measurement": "isa"})
    both = list(zip(cells, compare([as_isa]), strict=True))
    lines = []
    for score in ("NDS", "NSL"):
        values = [
            (a.printed, a.released, b.released)
            for a, b in both
            if a.metric == score and a.released is not None and b.released is not None
        ]
        shifts = ([abs(v[one] / v[other] - 1) for v in values] for one, other in ((1, 0), (2, 0), (2, 1)))
        text = (f"{fmean(shift):.1%}, at most {max(shift):.1%}" for shift in shifts)
        lines.append([f"{score}, {len(values)} cells", *text])
    pair = tally(c for c in with_verdicts(claims(again.rows)) if c["claim"] == PAIR)
    return Table(
        [of_dataset(again), *(f"{seed} from print" for seed in seeds), f"{seeds[1]} from {seeds[0]}"],
        lines,
        f"CAM, GradCAM++, Repr: how far a cell is off, mean and largest. First claim, images of {seeds[1]}: "
        f"{pair['yes']} of {pair['compared']} comparisons settled.",
        caption="Two measurements of Table 1 of the paper, with two seeds.",
    )


def with_softplus(records: Sequence[Record]) -> Table:
    """Make the table of how many images of Table 1 a network classifies right with softplus, and with ReLU.

    Args:
        records: those of `study.softplus` count.
    """
    right = {
        of_dataset(record): {row["activation"]: f"{row['correct']} of {row['n']}" for row in record.rows}
        for record in having(records, measurement="softplus")
    }
    return Table(
        ["released Normal", "softplus", "ReLU"],
        [[network, by["softplus"], by["relu"]] for network, by in right.items()],
        caption="Images of Table 1 classified right with softplus in the place of every ReLU, and with ReLU.",
    )


def capped_searches(records: Sequence[Record], network: str) -> Table:
    """Make the table of IG in Table 1: images that are kept, searches for the weight that end at its cap, scores.

    Args:
        records: those of `measure table1` count.
        network: a released network, as in `scores_by_network`.
    """
    rows = [
        row
        for row in scores_by_network(records, "released")[network]
        if row["interpreter"] == "IG" and not row["squared_score"]
    ]
    (measured,) = {row["measured"] for row in rows}
    return Table(
        [f"IG, {network}", "images kept", "searches at the cap", "NDS ± s.e.", "NSL ± s.e."],
        [
            [
                row["measure"],
                row["n"],
                f"{row['at_cap']:.0%}",
                number(row["nds"], row["nds_se"]),
                number(row["nsl"], row["nsl_se"], 4),
            ]
            for row in rows
        ],
        f"{measured} images; kept are those whose score falls as the ball grows.",
        caption="The IG maps of Table 1: searches that end at their cap.",
    )
