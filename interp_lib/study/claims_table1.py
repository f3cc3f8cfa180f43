"""What the paper reads off Table 1, as paired comparisons with standard errors, and as it is printed."""

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist

from .. import paper
from . import intervals
from .nds_nsl import common, difference, from_record, ratios

PAIR = "2-class"

SINGLE_CLASS_SETS = ("1-class", "all-class")

LARGER, SMALLER = {"NDS": 1, "NSL": -1}, {"NDS": -1, "NSL": 1}

NO_CONTENT = ("l1", "NDS")  # claim and score: of one difference of maps the l1 norm is never below the l2 norm

Side = tuple[str, str]  # interpreter, measure


def statements(sides: set[Side]) -> Iterator[tuple[str, Side, Side, dict[str, int]]]:
    """The comparisons that the three claims are made of: claim, one side, the other, and the sign of each score.

    1. "2-class": the pair (t, t') has the largest NDS and the smallest NSL, against 1-class and all-class.
    2. "l1": it has a larger NDS and often a smaller NSL than l2, with the same classes.
    3. "IG" with l1 and 2-class has a relatively high NDS and low NSL, here against CAM and GradCAM++; "Repr" is the
       worst of all. ("Relatively high NDS and low ISA" in print: NSL is meant.)

    Args:
        sides: (interpreter, measure) that have scores; a statement about another is left out.

    Source: the text on Table 1.
    """
    interpreters = [name for name in ("CAM", "GradCAM++", "IG", "Repr") if name in {side[0] for side in sides}]
    found = []
    for name in interpreters:
        for p in (1, 2):
            for other in SINGLE_CLASS_SETS:
                found.append(("2-class", (name, f"l{p}:{PAIR}"), (name, f"l{p}:{other}"), LARGER))
    for name in interpreters:
        for classes in ("1-class", PAIR, "all-class"):
            found.append(("l1", (name, f"l1:{classes}"), (name, f"l2:{classes}"), LARGER))
    for name, others, signs in (("IG", ("CAM", "GradCAM++"), LARGER), ("Repr", ("CAM", "GradCAM++", "IG"), SMALLER)):
        for other in others:
            found.append((name, (name, f"l1:{PAIR}"), (other, f"l1:{PAIR}"), signs))
    yield from (entry for entry in found if entry[1] in sides and entry[2] in sides)


def _entry(claim: str, one: Side, other: Side, score: str) -> dict:
    """The first columns of a row: what is compared with what."""
    return {"claim": claim, "interpreter": one[0], "measure": one[1], "against_interpreter": other[0],
            "against": other[1], "score": score}  # fmt: skip


def printed_claims(dataset: str) -> list[dict]:
    """The paper's claims about Table 1 on the values that it prints.

    Args:
        dataset: as the paper writes it, 'MNIST', 'CIFAR-10' or 'R-ImageNet'.

    Returns:
        Rows as of `claims`, without what a single value does not have: se, z, p, clear, n.
    """
    table: dict[Side, dict[str, float]] = {}
    for row in paper.paper_tables():
        if (row["table"], row["dataset"]) == ("1", dataset):
            table.setdefault((row["method"], row["level"]), {})[row["metric"]] = float(row["value"])
    found = []
    for claim, one, other, signs in statements(set(table)):
        for score, sign in signs.items():
            value, against = table[one][score], table[other][score]
            gap = value - against
            entry = _entry(claim, one, other, score)
            found.append({**entry, "value": value, "other": against, "difference": gap, "as_claimed": gap * sign > 0})
    return found


def claims(rows: Iterable[dict], *, squared: bool = False) -> list[dict]:
    """The paper's claims about Table 1 on measured rows, image by image.

    Both sides are compared on the images that both keep, see `nds_nsl.difference`, so that a side's value here need
    not be the one of Table 1, which is over the images that this side keeps. In claim 2 the half about NDS has no
    content, as the paper says itself: of one difference of maps the l1 norm is never below the l2 norm.

    Args:
        rows: of ISA records of one network, `isa_scores.isa_rows`.
        squared: l2 with the square of the norm as score, in place of the norm of Appendix D.

    Returns:
        A row for every comparison and score: claim, interpreter, measure, against_interpreter, against, score
        ('NDS' or 'NSL'), value and other on the n images that both keep, their difference, se, z = difference / se
        and p of Student's t test with n - 1 degrees of freedom, two-sided (None without an error), as_claimed (the
        difference has the sign that the paper says), clear (it has, by two standard errors; None without an error),
        n. A comparison without an image that both keep is left out.
    """
    table = {
        (row["interpreter"], row["measure"]): row
        for row in rows
        if row["squared_score"] == (squared and row["measure"].startswith("l2")) and row["nds"] is not None
    }
    found = []
    for claim, one, other, signs in statements(set(table)):
        pair = [from_record(table[side]["each"]) for side in (one, other)]
        apart = difference(*pair)
        sides = zip(*ratios(common(*pair).sum(0)).tolist(), strict=True)
        for (score, sign), (value, against) in zip(signs.items(), sides, strict=True):
            gap, se = (getattr(apart, score.lower() + end) for end in ("", "_se"))
            if not math.isfinite(gap):
                continue
            known = math.isfinite(se) and se > 0
            z = gap / se if known else None
            # A bootstrap of n images spreads as s / sqrt(n) with n in the place of n - 1 in s.
            variance = se**2 * apart.images / (apart.images - 1) if known else None
            p = intervals.t_test(gap, [(variance, apart.images - 1)])[0] if known else None
            found.append(
                {**_entry(claim, one, other, score), "value": value, "other": against, "difference": gap,
                 "se": se if known else None, "z": z, "p": p, "as_claimed": gap * sign > 0,
                 "clear": None if z is None else z * sign > 2, "n": apart.images}
            )  # fmt: skip
    return found


def with_verdicts(found: Iterable[dict]) -> list[dict]:
    """Rows of `claims`, of one network or of several, with what they say when all of them are read together.

    Where nothing differs, one in twenty of many comparisons is beyond two standard errors all the same. Holm's
    correction, for the number of comparisons in `found` that have an error and a content, lets any of them be settled
    wrongly with probability 0.05 at most.

    Returns:
        The rows with two columns more: adjusted, p after the correction (None where it has no part in it), and
        verdict: 'yes' and 'no' where the comparison is settled, the paper's way or the other; 'not settled' by this
        many images; 'one image', of which there is no error; 'no content', see `NO_CONTENT`.
    """
    found = list(found)
    tested = [row for row in found if row["p"] is not None and (row["claim"], row["score"]) != NO_CONTENT]
    adjusted = dict(zip(map(id, tested), intervals.holm([row["p"] for row in tested]), strict=True))

    def verdict(row: dict) -> str:
        if (row["claim"], row["score"]) == NO_CONTENT:
            return "no content"
        if id(row) not in adjusted:
            return "one image" if row["n"] == 1 else "not settled"
        if adjusted[id(row)] > intervals.LEVEL:
            return "not settled"
        return "yes" if row["as_claimed"] else "no"

    return [{**row, "adjusted": adjusted.get(id(row)), "verdict": verdict(row)} for row in found]


def tally(judged: Iterable[dict]) -> dict[str, float]:
    """How the comparisons that have an error and a content come out, of the rows of `with_verdicts`.

    Returns:
        compared, how many these are; by_chance, how many would be beyond two standard errors if nothing differed;
        beyond and beyond_other, how many are, with the paper's sign and the other; yes, no and 'not settled'.
    """
    tested = [row for row in judged if row["adjusted"] is not None]
    beyond = [row["as_claimed"] for row in tested if abs(row["z"]) > 2]
    verdicts = [row["verdict"] for row in tested]
    return {"compared": len(tested), "by_chance": 2 * NormalDist().cdf(-2) * len(tested), "beyond": sum(beyond),
            "beyond_other": len(beyond) - sum(beyond),
            **{name: verdicts.count(name) for name in ("yes", "no", "not settled")}}  # fmt: skip


def cell(group: Sequence[dict]) -> str:
    """Comparisons as a cell of a table: '10, 8, 6 of 12' have the paper's sign, by two standard errors, settled.

    Only the first of these numbers where there is no error or no content, '–' for no comparison at all.
    """
    signs = sum(row["as_claimed"] for row in group)
    if all(row.get("adjusted") is None for row in group):
        return f"{signs} of {len(group)}" if group else "–"
    clear, settled = sum(bool(row["clear"]) for row in group), sum(row["verdict"] == "yes" for row in group)
    return f"{signs}, {clear}, {settled} of {len(group)}"
