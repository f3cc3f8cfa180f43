"""The tables of the chapter on Table 1, from records of thirty images that are made by hand."""

import re

import pytest
from conftest import ROOT, record
from scipy import stats

from interp_lib import paper
from interp_lib.pages import nds_nsl_tables
from interp_lib.study import records
from interp_lib.study.compare import compare

N = 30


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in line] for line in table.rows]


def scored(interpreter, measure, nds, nsl, *, n=N, wobble=0.1, squared=False, at_cap=0.0, **labels):
    """n images of four points; an image has its two scores times 1 + wobble, the next one times 1 - wobble."""
    each = [[4, 4 * nds * (1 + wobble * (-1) ** i), 4 * nsl * (1 + wobble * (-1) ** i)] for i in range(n)]
    scores = {"nds": nds, "nds_se": nds / 10, "nsl": nsl, "nsl_se": nsl / 10, "n": n, "measured": N, "at_cap": at_cap}
    names = {"method": "Normal", "interpreter": interpreter, "measure": measure, "squared_score": squared}
    return names | labels | scores | {"each": each}


def stored(*rows, measurement="isa", seed=99, **settings):
    return record(list(rows), measurement=measurement, subset={"n": N, "seed": seed}, **settings)


def three(interpreter, nds, **labels):
    """l1 with one class, the pair and all: the pair's NDS is 3.4, and NSL is as claimed."""
    scores = zip(("1-class", "2-class", "all-class"), nds, (0.08, 0.02, 0.04), strict=True)
    return [scored(interpreter, f"l1:{classes}", *values, **labels) for classes, *values in scores]


@pytest.fixture
def released():
    """CAM as claimed. GradCAM++ on MNIST has a larger NDS with all classes. IG is the same throughout."""
    same = [scored("IG", f"l1:{classes}", 9.0, 0.01, wobble=0) for classes in ("1-class", "2-class")]
    mnist = [*three("CAM", (3.0, 3.4, 2.0)), *three("GradCAM++", (3.0, 3.4, 3.8)), *same]
    cifar10 = stored(*three("CAM", (3.0, 3.4, 2.0)), dataset="cifar10", title="CIFAR-10, JPEG copy")
    ours = stored(*three("CAM", (1.0, 9.0, 1.0), seed=0), source="ours")
    other = stored(scored("CAM", "l2:1-class", 1.0, 1.0), measurement="isa-beyond")
    return [cifar10, stored(*mnist), ours, other]


def test_networks_are_named_by_dataset_and_seed(released):
    found = nds_nsl_tables.scores_by_network(released, "released")
    assert {name: len(rows) for name, rows in found.items()} == {"CIFAR-10": 3, "MNIST": 8}
    assert list(nds_nsl_tables.scores_by_network(released, "ours")) == ["MNIST, seed 0"]


def test_outcomes_are_counted_by_claim(released):
    table = nds_nsl_tables.outcomes(nds_nsl_tables.judged(released, "released"), caption="c")
    # Three maps against two sets of classes in two scores, one of twelve the other way. IG without any difference, and
    # IG against CAM and GradCAM++: the larger NDS and the smaller NSL.
    lines = {line[0]: line[1:] for line in texts(table)}
    chance = lambda n: f"{2 * stats.norm.sf(2) * n:.1f}"
    assert lines["2-class, CAM and GradCAM++"] == ["12", chance(12), "11", "1", "11", "1", "0"]
    assert lines["2-class, IG"] == ["0", "0.0", "0", "0", "0", "0", "0"]
    assert lines["IG"] == ["4", chance(4), "4", "0", "4", "0", "0"]
    assert lines["all"] == ["16", chance(16), "15", "1", "15", "1", "0"]


def test_claims_beside_print(released):
    judged = nds_nsl_tables.judged(released, "released")
    table = nds_nsl_tables.claims_by_network(judged, "Thirty images.", caption="c", printed=True)
    assert table.columns == ["claim", "CIFAR-10, printed", "CIFAR-10", "MNIST, printed", "MNIST"]
    lines = {line[0]: line[1:] for line in texts(table)}
    # The paper prints 12 of these comparisons a dataset; here those of IG with itself differ by nothing.
    assert lines["2-class, NDS"] == ["12 of 12", "2, 2, 2 of 2", "12 of 12", "3, 3, 3 of 5"]
    assert lines["Repr, NDS"] == ["3 of 3", "–", "3 of 3", "–"]
    assert table.note.endswith("settled. Thirty images.")
    alone = nds_nsl_tables.claims_by_network(judged, "", caption="c")
    assert alone.columns == ["claim", "CIFAR-10", "MNIST"] and "Repr, NDS" not in {line[0] for line in texts(alone)}


def test_gains_of_the_pair(released):
    judged = nds_nsl_tables.judged(released, "released")
    table = nds_nsl_tables.gains_of_the_pair(judged, caption="c", against=("all-class",))
    # Paired, the differences wobble by a tenth of themselves: 0.1 * 1.4 / sqrt(30) and 0.1 * 0.4 / sqrt(30).
    assert texts(table) == [
        ["CIFAR-10, CAM, all-class", "3.400", "2.000", "+1.400 ± 0.026", "30", "yes"],
        ["MNIST, CAM, all-class", "3.400", "2.000", "+1.400 ± 0.026", "30", "yes"],
        ["MNIST, GradCAM++, all-class", "3.400", "3.800", "−0.400 ± 0.007", "30", "no"],
    ]
    both = nds_nsl_tables.gains_of_the_pair(judged, caption="c", against=("1-class", "all-class"))
    assert len(both.rows) == 6


def test_what_is_not_as_claimed(released):
    table = nds_nsl_tables.not_as_claimed(nds_nsl_tables.judged(released, "released"), caption="c")
    ((measures, difference, errors, images, settled),) = texts(table)
    assert measures == "MNIST, NDS, GradCAM++ l1:2-class against l1:all-class"
    assert (difference[:7], images, settled) == ("−0.4000", "30", "no")
    assert float(errors) == pytest.approx(10 * N**0.5, rel=0.05)
    doubtful = [*three("CAM", (3.0, 3.4, 2.0), n=2), *three("IG", (3.0, 3.4, 2.0), n=2)]
    judged = nds_nsl_tables.judged([stored(*doubtful)], "released")
    shown = texts(nds_nsl_tables.not_as_claimed(judged, caption="c"))
    assert {c["verdict"] for c in judged} == {"not settled"} and {line[0].split()[2] for line in shown} == {"CAM"}


def printed(interpreter, measure, score):
    wanted = {"table": "1", "dataset": "MNIST", "method": interpreter, "level": measure, "metric": score}
    (row,) = (row for row in paper.paper_tables() if wanted.items() <= row.items())
    return float(row["value"])


def test_other_images_beside_the_first():
    print_ = [(m, printed("CAM", m, "NDS"), printed("CAM", m, "NSL")) for m in ("l1:1-class", "l1:2-class")]
    shift = lambda factors: [scored("CAM", m, f * nds, nsl) for (m, nds, nsl), f in zip(print_, factors, strict=True)]
    found = [stored(*shift((1.02, 0.96))), stored(*shift((1.02 * 1.1, 0.96)), measurement="isa-again", seed=123)]
    table = nds_nsl_tables.other_images(found, compare(found))
    assert table.columns == ["MNIST", "seed 99 from print", "seed 123 from print", "seed 123 from seed 99"]
    nds, nsl = texts(table)
    # 2 % and 4 %; 12.2 % and 4 %; 10 % and 0.
    assert nds == ["NDS, 2 cells", "3.0%, at most 4.0%", "8.1%, at most 12.2%", "5.0%, at most 10.0%"]
    assert nsl == ["NSL, 2 cells", *3 * ["0.0%, at most 0.0%"]]
    # On the other images the pair has the smaller NDS, 3.1365 against 3.4471, and the smaller NSL.
    assert table.note.endswith("images of seed 123: 1 of 2 comparisons settled.")


def test_softplus_and_the_capped_search():
    counts = [{"method": "Normal", "activation": a, "correct": k, "n": N} for a, k in (("relu", 29), ("softplus", 2))]
    title = {"dataset": "cifar10", "title": "CIFAR-10, JPEG copy"}
    table = nds_nsl_tables.with_softplus([record(counts, measurement="softplus", **title)])
    assert texts(table) == [["CIFAR-10", "2 of 30", "29 of 30"]] and table.columns[1:] == ["softplus", "ReLU"]
    rows = [scored("IG", "l2:2-class", 0.5, 0.02, n=7, at_cap=0.9), scored("IG", "l2:2-class", 1, 1, squared=True)]
    capped = nds_nsl_tables.capped_searches([stored(*rows, scored("CAM", "l2:2-class", 1, 1))], "MNIST")
    assert texts(capped) == [["l2:2-class", "7", "90%", "0.50 ± 0.05", "0.0200 ± 0.0020"]]
    assert capped.columns[0] == "IG, MNIST" and capped.note.startswith("30 images; kept are")


def test_the_chapter_says_what_the_records_say():
    found = records.read_all(ROOT / "results")
    chapter = (ROOT / "book/30_table_1.ipynb").read_text(encoding="utf-8")
    judged = nds_nsl_tables.judged(found, "released")
    lines = {line[0]: list(map(float, line[1:])) for line in texts(nds_nsl_tables.outcomes(judged, caption="c"))}
    # The claims are all comparisons, in parts.
    whole = lines.pop("all")
    assert [sum(column) for column in zip(*lines.values(), strict=True)] == pytest.approx(whole, abs=0.2)
    # 'larger by 2.1 and 2.0 standard errors'
    shown = texts(nds_nsl_tables.not_as_claimed(judged, caption="c"))
    doubtful = [line[2] for line in shown if line[0].startswith("MNIST, NDS, GradCAM++ ")]
    assert "larger by {} and {} standard errors".format(*doubtful) in chapter
    # 'nearly all of these searches end at the cap', 'in l2 next to no image is kept'
    capped = texts(nds_nsl_tables.capped_searches(found, "MNIST"))
    assert len(capped) == 6 and all(float(line[2].rstrip("%")) > 90 for line in capped)
    assert all(float(line[1]) < 10 for line in capped if line[0].startswith("l2"))
    right = {line[0]: line[1] for line in texts(nds_nsl_tables.with_softplus(found))}
    assert f"classifies {right['MNIST'].replace('100', 'the hundred')} images" in chapter
    # 'On the images of seed 123 all 16 comparisons of the first claim are settled the paper's way'
    again = nds_nsl_tables.other_images(found, compare(found)).note
    assert re.search(r"seed 123: (\d+) of \1 comparisons", again).group(1) == "16"
