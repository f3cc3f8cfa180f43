"""The paper's claims about Table 1, on rows made by hand."""

from pathlib import Path

import pytest

from interp_lib import records
from interp_lib.claims import claims

RESULTS = Path(__file__).resolve().parent.parent / "results"


def row(interpreter, measure, nds, nsl, *, squared=False, n=30, wobble=0.1):
    """n images of four points; image i has its scores times 1 +- wobble."""
    each = [[4, 4 * nds * (1 + wobble * (-1) ** i), 4 * nsl * (1 - wobble * (-1) ** i)] for i in range(n)]
    return {"interpreter": interpreter, "measure": measure, "squared_score": squared, "nds": nds, "nsl": nsl,
            "each": each}  # fmt: skip


def pick(found, claim, interpreter, score, against, other=None):
    (entry,) = (
        e for e in found
        if (e["claim"], e["interpreter"], e["score"], e["against"]) == (claim, interpreter, score, against)
        and other in (None, e["against_interpreter"])
    )  # fmt: skip
    return entry


def test_two_classes_against_one_and_all():
    scores = {"1-class": (3.0, 0.08), "2-class": (3.4, 0.02), "all-class": (3.5, 0.04)}
    rows = [row("CAM", f"l1:{classes}", *values) for classes, values in scores.items()]
    found = claims(rows)
    assert {e["claim"] for e in found} == {"2-class"} and len(found) == 4
    larger = pick(found, "2-class", "CAM", "NDS", "l1:1-class")
    assert (larger["value"], larger["other"], larger["n"]) == (pytest.approx(3.4), pytest.approx(3.0), 30)
    assert larger["difference"] == pytest.approx(0.4) and larger["as_claimed"] and larger["clear"]
    assert larger["z"] == pytest.approx(larger["difference"] / larger["se"])
    # Paired, the wobble of 10 % is one of the difference: 0.1 * 0.4 / sqrt(30), not 0.1 * 3 / sqrt(30).
    assert larger["se"] == pytest.approx(0.1 * 0.4 / 30**0.5, rel=0.1)
    smaller = pick(found, "2-class", "CAM", "NSL", "l1:all-class")
    assert smaller["difference"] == pytest.approx(-0.02) and smaller["z"] < -2
    assert smaller["as_claimed"] and smaller["clear"]
    against = pick(found, "2-class", "CAM", "NDS", "l1:all-class")
    assert not against["as_claimed"] and not against["clear"]


def test_norms_and_interpreters():
    rows = [row(name, "l1:2-class", nds, nsl) for name, nds, nsl in (
        ("Repr", 2.0, 0.05), ("CAM", 3.0, 0.02), ("IG", 6.0, 0.03), ("GradCAM++", 3.2, 0.02))]  # fmt: skip
    rows += [row("CAM", "l2:2-class", 0.5, 0.01), row("CAM", "l2:2-class", 0.3, 0.06, squared=True)]
    found = claims(rows)
    assert pick(found, "l1", "CAM", "NDS", "l2:2-class")["clear"]
    assert not pick(found, "l1", "CAM", "NSL", "l2:2-class")["as_claimed"]
    assert pick(claims(rows, squared=True), "l1", "CAM", "NSL", "l2:2-class")["as_claimed"]
    assert pick(found, "IG", "IG", "NDS", "l1:2-class", "CAM")["clear"]
    assert not pick(found, "IG", "IG", "NSL", "l1:2-class", "GradCAM++")["as_claimed"]
    worst = [e for e in found if e["claim"] == "Repr"]
    assert [e["against_interpreter"] for e in worst] == ["CAM", "CAM", "GradCAM++", "GradCAM++", "IG", "IG"]
    assert all(e["as_claimed"] and e["clear"] for e in worst)


def test_both_sides_are_cut_to_the_images_that_they_share():
    longer, shorter = row("CAM", "l1:2-class", 3.4, 0.02), row("CAM", "l1:1-class", 3.0, 0.08, n=5)
    for entry in claims([longer, shorter]):
        assert entry["n"] == 5 and entry["value"] - entry["other"] == pytest.approx(entry["difference"])
    assert pick(claims([longer, shorter]), "2-class", "CAM", "NDS", "l1:1-class")["value"] == pytest.approx(3.4 * 1.02)


def test_what_cannot_be_said_is_not_said():
    alone = [row("CAM", "l1:1-class", 3.0, 0.08, n=1), row("CAM", "l1:2-class", 3.4, 0.02, n=1)]
    for entry in claims(alone):
        assert entry["se"] is entry["z"] is entry["clear"] is None and entry["as_claimed"]
    same = [row("CAM", "l1:1-class", 3.0, 0.08), row("CAM", "l1:2-class", 3.0, 0.08)]
    assert all(e["difference"] == 0 and e["z"] is None and not e["as_claimed"] for e in claims(same))
    nothing = {**same[1], "nds": None, "nsl": None, "each": [None]}
    assert claims([same[0], nothing]) == [] and claims([]) == []


@pytest.mark.parametrize("dataset, seeds, larger", [("mnist", (0, 1, 2), False), ("cifar10", (0,), True)])
def test_what_readme_says_of_the_first_claim_on_networks_trained_here(dataset, seeds, larger):
    """Against one class the pair has the smaller NSL on every seed, and the larger NDS on CIFAR-10 only."""
    (record,) = (r for r in records.read_all(RESULTS) if r.family == f"isa-{dataset}-small-ours")
    assert {row["seed"] for row in record.rows} == set(seeds)
    for seed in seeds:
        found = claims(row for row in record.rows if row["seed"] == seed)
        one = [c for c in found if c["claim"] == "2-class" and c["against"].endswith("1-class")]
        assert len(one) == 2 * 2 * 2  # CAM and GradCAM++, two norms, two scores
        assert all(c["as_claimed"] for c in one if c["score"] == "NSL")
        assert all(c["as_claimed"] == larger for c in one if c["score"] == "NDS" and c["against"].startswith("l1"))
