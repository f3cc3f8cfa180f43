"""The tables of statements, from cells of a few images; and what the chapter says of the committed records."""

import nbformat
import pytest
from conftest import ROOT

from interp_lib.pages import ordering_tables
from interp_lib.study import compare, records
from interp_lib.study.compare import Cell

ABOVE, UP_TO = "Int is above Adv beyond the training ε", "Adv is above Int up to the training ε"


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in cells] for cells in table.rows]


def cells_of(outcomes, **more):
    """Cells of Table 3, MNIST, from {(method, level): outcomes}: '1101' is four images, three of them right."""
    clean = {(method, "0"): "1" for method, _ in outcomes}
    made = []
    for (method, level), digits in {**clean, **outcomes}.items():
        right = tuple(float(digit) for digit in digits)
        measured = {"released": sum(right) / len(right), "outcomes": {"released": right}} if digits else {}
        made.append(Cell("3", "MNIST", "Small", method, "ATA", "eps", level, "0.500", **measured, **more))
    return made


def part_of(outcomes, measurement="many"):
    return ordering_tables.tested(cells_of(outcomes), "MNIST Small", measurement)


def test_statements_with_their_verdicts():
    beyond = {(m, e): digits for e in ("0.35", "0.4") for m, digits in (("Int", "11111111"), ("Adv", "00000000"))}
    up_to = {("Adv", "0.3"): "11111110", ("Int", "0.3"): "00000001"}
    table = ordering_tables.statements(part_of({**beyond, **up_to, ("TRADES", "0.4"): ""}))
    assert table.columns == ["statement", "ε", "released", "trained here"]
    # Eight images for Int alone: 2 / 2^8, times the four of the column. One of eight is against Adv at 0.3, where
    # p = 2 (1 + 8) / 2^8 and the error sqrt(1 - 0.75^2) / sqrt(8).
    yes = "+1.000 ± 0.000 p = 0.031"
    assert texts(table) == [
        [ABOVE, "0.35", f"yes {yes}", "–"],
        [ABOVE, "0.4", f"yes {yes}", "–"],
        ["Int is above TRADES, IG-Norm-Sum and Adv", "0.4", f"not measured {yes}", "–"],
        [UP_TO, "0.3", "not settled +0.750 ± 0.234 p = 0.070", "–"],
    ]
    assert table.note.endswith(
        "2,000 images; trained here: not yet. Image by image: released. Not measured: TRADES (released)."
    )
    assert table.caption == "Statements of section 5, tested on MNIST Small: from x, 2,000 images."


def test_print_is_tested_under_the_attack_of_the_tables_alone():
    cells = cells_of({("Int", "0.35"): "11", ("Adv", "0.35"): "11"}, ours=0.5, schedule="quick", n_ours=200)
    as_in_print, random = (ordering_tables.tested(cells, "MNIST Small", kind) for kind in ("pgd", "starts"))
    # Print has 0.500 for both, without outcomes: 2 (0.5^2 / 200 + 1 / 400^2) / (1 + 1 / 200)^2 = 0.0498^2.
    (line,) = texts(ordering_tables.statements(as_in_print))
    assert line[2:] == [
        "not settled +0.000 ± 0.050 p = 1.000",
        "not settled +0.000 ± 0.000 p = 1.000",
        "not settled +0.000 ± 0.050 p = 1.000",
    ]
    table = ordering_tables.statements(random)
    assert table.columns[2:] == ["released", "trained here"] and "trained here: quick." in table.note
    assert ": from five random starts, 200 images." in table.caption


@pytest.fixture
def parts():
    """Of eight images: two statements by six images each, then one by six, one by all twelve, and one by five."""
    six, five = ("11111100", "00000000"), ("11111000", "00000000")

    def beyond(right, wrong):
        return {("Int", "0.35"): right, ("Adv", "0.35"): wrong}

    return [
        part_of({**beyond(*six), ("Adv", "0.3"): six[0], ("Int", "0.3"): six[1]}),
        part_of(beyond(*reversed(six)), "starts"),
        part_of(beyond(12 * "1", 12 * "0")),
        part_of(beyond(*five)),
    ]


def test_what_is_settled_depends_on_the_correction(parts):
    # Six images have p = 2 / 2^6 = 0.031, twice that in a column of two, and four times that on the page; twelve have
    # 2 / 2^12; five have 2 / 2^5 = 0.0625, beyond two errors of sqrt(5/8 3/8) / sqrt(8) all the same.
    assert ordering_tables.settled(parts) == {"all": 5, "two errors": 5, "uncorrected": 4, "column": 2, "page": 1}
    assert ordering_tables.lost_to_correction(parts) == [
        f"  MNIST Small, from five random starts, 200, released, 0.35: {ABOVE}"
    ]


def test_what_is_refuted(parts):
    assert ordering_tables.not_borne_out(parts) == [
        "MNIST Small, 200 images, from five random starts, released: not borne out at 0.35: "
        f"{ABOVE}; Adv has 0.750 against 0.000"
    ]
    said = [ordering_tables.tally(part) for part in parts]
    assert said[0] == "0 of 2 statements about MNIST Small, released, are borne out, none refuted"
    assert said[1].startswith("0 of 1 ") and said[1].endswith(", 1 refuted") and said[2].startswith("1 of 1 ")


@pytest.fixture(scope="module")
def of_page():
    found = records.read_all(ROOT / "results")
    cells = {kind: compare.compare(found, kind) for kind in ordering_tables.ATTACKS}
    return ordering_tables.tested_on_the_page(cells)


def verdicts(part, source):
    return {(f.statement.text, f.level): f.verdict for f in part.columns[source]}


def test_the_chapter_says_what_the_records_say_of_mnist(of_page):
    few, more, random = (of_page["MNIST Small", kind] for kind in ("pgd", "many", "starts"))
    # 'The released networks bear out eight of the nine statements ..., and the ninth leans as the paper says.'
    assert ordering_tables.tally(few).startswith("8 of 9 ") and ordering_tables.tally(few).endswith("none refuted")
    assert all(f.difference > 0 for f in few.columns["released"])
    # 'every yes that the released networks give with 200 images stands with 2,000'
    later = verdicts(more, "released")
    assert all(later[key] == "yes" for key, verdict in verdicts(few, "released").items() if verdict == "yes")
    # 'up to the training ε [they] still hold on the released networks. Beyond it none of them does'
    for source in ("released", "ours"):
        beyond = [v for (_, level), v in verdicts(random, source).items() if float(level) > 0.3]
        assert beyond and "yes" not in beyond
    assert {v for (_, level), v in verdicts(random, "released").items() if float(level) <= 0.3} == {"yes"}


def test_the_chapter_says_what_the_records_say_of_cifar(of_page):
    wresnet = of_page["CIFAR-10 WResnet", "pgd"]
    against = {(f.source, f.level): f for f in wresnet.findings if f.statement.worse == ("Adv",)}
    # 'settled at 9/255 and 10/255, not at 8/255', where it would be without a correction
    assert [against["released", e].verdict for e in ("8/255", "9/255", "10/255")] == ["not settled", "yes", "yes"]
    assert against["released", "8/255"].p < 0.05
    ours = [f for (source, _), f in against.items() if source == "ours"]
    assert len(ours) == 3 and all(f.verdict == "not settled" and f.difference < 0 for f in ours)
    many = of_page["CIFAR-10 Small", "many"]
    assert list(verdicts(many, "released").values()) == ["no", "yes", "yes", "yes"]
    assert list(verdicts(many, "ours").values())[:3] == ["no", "not settled", "not settled"]
    leads = {f.statement.text[:11]: f.difference for f in many.columns["released"]}
    # 'Int-Adv is the best there ..., but only by two hundredths', 'Int-1-class ... is below Int by less than that'
    assert 0.015 < leads["Int-1-class"] < leads["Int-Adv is "] < 0.025


def test_the_chapter_says_how_much_the_correction_matters(of_page):
    count = ordering_tables.settled(of_page.values())
    # 'about as many differences as the rule of two standard errors', 'a few verdicts away', 'those that are listed'
    assert abs(count["two errors"] - count["uncorrected"]) < 8
    assert count["uncorrected"] - 10 < count["column"] < count["uncorrected"]
    assert len(ordering_tables.lost_to_correction(of_page.values())) == count["column"] - count["page"] > 0
    text = "".join(c.source for c in nbformat.read(ROOT / "book/24_orderings.ipynb", 4).cells)
    assert "settle about as many differences as" in text and "takes a few verdicts away" in text
