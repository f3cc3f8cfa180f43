"""Test the paper's claims about Table 1, on the printed values and by paired comparisons with standard errors."""

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist

from .. import paper
from . import intervals
from .nds_nsl import common, difference, from_record, ratios

PAIR = "2-class"

SINGLE_CLASS_SETS = ("1-class", "all-class")

LARGER, SMALLER = {"NDS": 1, "NSL": -1}, {"NDS": -1, "NSL": 1}

NO_CONTENT = ("l1", "NDS")  # claim and score; it always holds: the l1 norm of a vector is never below its l2 norm

Side = tuple[str, str]  # interpreter, measure


def statements(sides: set[Side]) -> Iterator[tuple[str, Side, Side, dict[str, int]]]:
    """Yield the comparisons that make up the three claims: claim, one side, the other, and the sign of each score.

    1. "2-class": the pair (t, t') has the largest NDS and the smallest NSL, against 1-class and all-class.
    2. "l1": it has a larger NDS and often a smaller NSL than l2, with the same classes.
    3. "IG" with l1 and 2-class has a relatively high NDS and low NSL, here against CAM and GradCAM++; "Repr" is the
       worst of all. ("Relatively high NDS and low ISA" in print: NSL is meant.)

    Args:
        sides: the pairs (interpreter, measure) that have scores; statements about other pairs are left out.

    Source: the text on Table 1.
    """
    interpreters = [name for name in ("CAM", "GradCAM++", "IG", "Repr") if name in {side[0] for side in sides}]
    comparisons: list[tuple[str, Side, Side, dict[str, int]]] = []
    for name in interpreters:
        for p in (1, 2):
            for other in SINGLE_CLASS_SETS:
                comparisons.append(("2-class", (name, f"l{p}:{PAIR}"), (name, f"l{p}:{other}"), LARGER))
    for name in interpreters:
        for classes in ("1-class", PAIR, "all-class"):
            comparisons.append(("l1", (name, f"l1:{classes}"), (name, f"l2:{classes}"), LARGER))
    for name, others, signs in (("IG", ("CAM", "GradCAM++"), LARGER), ("Repr", ("CAM", "GradCAM++", "IG"), SMALLER)):
        for other in others:
            comparisons.append((name, (name, f"l1:{PAIR}"), (other, f"l1:{PAIR}"), signs))
    yield from (entry for entry in comparisons if entry[1] in sides and entry[2] in sides)


def _entry(claim: str, one: Side, other: Side, score: str) -> dict:
    """Return the first columns of a row, which say what is compared with what."""
    return {
        "claim": claim,
        "interpreter": one[0],
        "measure": one[1],
        "against_interpreter": other[0],
        "against": other[1],
        "score": score,
    }


def printed_claims(dataset: str) -> list[dict]:
    """Evaluate the paper's claims about Table 1 on the printed values.

    Args:
        dataset: as the paper writes it, 'MNIST', 'CIFAR-10' or 'R-ImageNet'.

    Returns:
        Rows as from `claims`, without the columns that a single value cannot have: se, z, p, clear, n.
    """
    table: dict[Side, dict[str, float]] = {}
    for row in paper.paper_tables():
        if (row["table"], row["dataset"]) == ("1", dataset):
            table.setdefault((row["method"], row["level"]), {})[row["metric"]] = float(row["value"])
    rows = []
    for claim, one, other, signs in statements(set(table)):
        for score, sign in signs.items():
            value, against = table[one][score], table[other][score]
            gap = value - against
            entry = _entry(claim, one, other, score)
            rows.append({**entry, "value": value, "other": against, "difference": gap, "as_claimed": gap * sign > 0})
    return rows


def claims(rows: Iterable[dict], *, squared: bool = False) -> list[dict]:
    """Evaluate the paper's claims about Table 1 on measured rows, image by image.

    Both sides are compared on the images that both keep, see `nds_nsl.difference`. A side's value here can therefore
    differ from its value in Table 1, which is over all images that this side keeps. In claim 2 the half about NDS has
    no content, as the paper says itself: the l1 norm of a difference of maps is never below its l2 norm.

    Args:
        rows: rows of ISA records of one network, see `isa_scores.isa_rows`.
        squared: score l2 by the square of the norm, in place of the norm of Appendix D.

    Returns:
        One row for each comparison and score: claim, interpreter, measure, against_interpreter, against, score
        ('NDS' or 'NSL'), value and other on the n images that both keep, their difference, se, z = difference / se
        and p of Student's t test with n - 1 degrees of freedom, two-sided (None without an error), as_claimed (whether
        the difference has the sign that the paper claims), clear (whether it has this sign by more than two standard
        errors; None without an error), n. A comparison without an image that both keep is left out.
    """
    table = {
        (row["interpreter"], row["measure"]): row
        for row in rows
        if row["squared_score"] == (squared and row["measure"].startswith("l2")) and row["nds"] is not None
    }
    claim_rows = []
    for claim, one, other, signs in statements(set(table)):
        pair = [from_record(table[side]["each"]) for side in (one, other)]
        paired = difference(*pair)
        sides = zip(*ratios(common(*pair).sum(0)).tolist(), strict=True)
        for (score, sign), (value, against) in zip(signs.items(), sides, strict=True):
            gap, se = (getattr(paired, score.lower() + end) for end in ("", "_se"))
            if not math.isfinite(gap):
                continue
            known = math.isfinite(se) and se > 0
            z = gap / se if known else None
            # The bootstrap's variance divides by n; the t test needs the unbiased one, which divides by n - 1.
            variance = se**2 * paired.images / (paired.images - 1) if known else None
            p = intervals.t_test(gap, [(variance, paired.images - 1)])[0] if variance is not None else None
            claim_rows.append(
                {
                    **_entry(claim, one, other, score),
                    "value": value,
                    "other": against,
                    "difference": gap,
                    "se": se if known else None,
                    "z": z,
                    "p": p,
                    "as_claimed": gap * sign > 0,
                    "clear": None if z is None else z * sign > 2,
                    "n": paired.images,
                }
            )
    return claim_rows


def with_verdicts(rows: Iterable[dict]) -> list[dict]:
    """Add verdicts to rows of `claims`, of one network or of several, corrected for the number of comparisons.

    Where nothing differs, one in twenty of many comparisons is beyond two standard errors all the same. Holm's
    correction, for the number of comparisons in `rows` that have an error and a content, keeps the probability that
    any of them is settled wrongly at 0.05 at most.

    Returns:
        The rows with two more columns: adjusted, p after the correction (None where a row takes no part in it), and
        verdict: 'yes' or 'no' where the comparison is settled as the paper claims or the other way; 'not settled' if
        the images are too few to tell; 'one image', which gives no error; 'no content', see `NO_CONTENT`.
    """
    rows = list(rows)
    tested = [row for row in rows if row["p"] is not None and (row["claim"], row["score"]) != NO_CONTENT]
    # Keyed by id, because rows are dictionaries, which are not hashable.
    adjusted = dict(zip(map(id, tested), intervals.holm([row["p"] for row in tested]), strict=True))

    def verdict(row: dict) -> str:
        if (row["claim"], row["score"]) == NO_CONTENT:
            return "no content"
        if id(row) not in adjusted:
            return "one image" if row["n"] == 1 else "not settled"
        if adjusted[id(row)] > intervals.LEVEL:
            return "not settled"
        return "yes" if row["as_claimed"] else "no"

    return [{**row, "adjusted": adjusted.get(id(row)), "verdict": verdict(row)} for row in rows]


def tally(judged: Iterable[dict]) -> dict[str, float]:
    """Count the outcomes of the comparisons that have an error and a content, in rows of `with_verdicts`.

    Returns:
        compared, the number of these comparisons; by_chance, how many of them would be beyond two standard errors if
        nothing differed; beyond and beyond_other, how many are, with the paper's sign and with the opposite sign; and
        the counts of the verdicts yes, no and 'not settled'.
    """
    tested = [row for row in judged if row["adjusted"] is not None]
    beyond = [row["as_claimed"] for row in tested if abs(row["z"]) > 2]
    verdicts = [row["verdict"] for row in tested]
    return {
        "compared": len(tested),
        "by_chance": 2 * NormalDist().cdf(-2) * len(tested),
        "beyond": sum(beyond),
        "beyond_other": len(beyond) - sum(beyond),
        **{name: verdicts.count(name) for name in ("yes", "no", "not settled")},
    }


def cell(group: Sequence[dict]) -> str:
    """Format comparisons as a table cell: '10, 8, 6 of 12' have the paper's sign, by two standard errors, settled.

    The cell has only the first of these numbers where no comparison has an error and a content, and '–' where there is
    no comparison.
    """
    signs = sum(row["as_claimed"] for row in group)
    if all(row.get("adjusted") is None for row in group):
        return f"{signs} of {len(group)}" if group else "–"
    clear, settled = sum(bool(row["clear"]) for row in group), sum(row["verdict"] == "yes" for row in group)
    return f"{signs}, {clear}, {settled} of {len(group)}"
