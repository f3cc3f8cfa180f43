"""What the paper reads off Table 1, as paired comparisons with standard errors."""

import math
from collections.abc import Iterable, Iterator

from .scores import difference, from_record, ratios

PAIR = "2-class"
SINGLE_CLASS_SETS = ("1-class", "all-class")
LARGER, SMALLER = {"NDS": 1, "NSL": -1}, {"NDS": -1, "NSL": 1}
Side = tuple[str, str]  # interpreter, measure


def statements(sides: set[Side]) -> Iterator[tuple[str, Side, Side, dict[str, int]]]:
    """The comparisons that the three claims are made of: claim, one side, the other, and the sign of each score.

    1. "2-class": the pair (t, t') has the largest NDS and the smallest NSL, against 1-class and all-class.
    2. "l1": it has a larger NDS and a smaller NSL than l2, with the same classes.
    3. "IG" with l1 and 2-class has a relatively high NDS and low NSL, here against CAM and GradCAM++; "Repr" is the
       worst of all. ("Relatively high NDS and low ISA" in print: NSL is meant.)

    Args:
        sides: (interpreter, measure) that were measured; a statement about another is left out.

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


def claims(rows: Iterable[dict], *, squared: bool = False) -> list[dict]:
    """The paper's claims about Table 1 on measured rows, image by image.

    Image by image: both sides were measured on the same ones, see `scores.difference`. In claim 2 the half about NDS
    has no content, as the paper says itself: of one difference of maps the l1 norm is never below the l2 norm.

    Args:
        rows: of ISA records of one network, `evaluation_interpretation.isa_rows`.
        squared: l2 with the square of the norm as score, in place of the norm of Appendix D.

    Returns:
        A row for every comparison and score: claim, interpreter, measure, against_interpreter, against, score
        ('NDS' or 'NSL'), value and other on the n images that both were measured on, their difference, se and
        z = difference / se (None without an error), as_claimed (the difference has the sign that the paper says),
        clear (it has, by two standard errors; None without an error), n.
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
        sides = zip(*(ratios(each[: apart.images].sum(0)).tolist() for each in pair), strict=True)
        for (score, sign), (value, against) in zip(signs.items(), sides, strict=True):
            gap, se = (getattr(apart, score.lower() + end) for end in ("", "_se"))
            if not math.isfinite(gap):
                continue
            z = gap / se if math.isfinite(se) and se > 0 else None
            found.append(
                {"claim": claim, "interpreter": one[0], "measure": one[1], "against_interpreter": other[0],
                 "against": other[1], "score": score, "value": value, "other": against, "difference": gap,
                 "se": None if z is None else se, "z": z, "as_claimed": gap * sign > 0,
                 "clear": None if z is None else z * sign > 2, "n": apart.images}
            )  # fmt: skip
    return found
