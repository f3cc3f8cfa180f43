"""The tables of the chapter on today's attacks, from records of a few images."""

import pytest
from conftest import ROOT, record

from interp_lib.pages import strong_tables
from interp_lib.study.records import by_dataset, outcome_digits, read_all


def counted(right, **labels):
    """A row with an outcome for each image: '1101' is four images, three of them right."""
    outcomes = [digit == "1" for digit in right]
    share = sum(outcomes) / len(outcomes)
    return {"correct": sum(outcomes), "n": len(outcomes), "accuracy": share, "right": outcome_digits(outcomes)} | labels


def texts(table):
    return [[cell[0][0] for cell in row] for row in table.rows]


@pytest.fixture
def strong():
    """Two networks, eight images: APGD-T leaves seven and one at 0.3, Square sees the first four."""
    rows = [
        counted("11111110", method="Int", attack="APGD-T", eps=0.3),
        counted("0111", method="Int", attack="Square", eps=0.3),
        counted("00000001", method="Adv", attack="APGD-T", eps=0.3),
        counted("0000", method="Adv", attack="Square", eps=0.3),
        counted("00000000", method="Int", attack="APGD-T", eps=0.4),
        counted("00000000", method="Adv", attack="APGD-T", eps=0.4),
    ]
    return record(rows, measurement="strong")


def test_accuracies_over_radii(strong):
    made = strong_tables.over_radii(strong, (0.3, 0.4))
    assert made.columns == ["method", "ε = 0.3", "ε = 0.4"] and "n = 8" in made.note
    assert texts(made) == [["Int", "0.875", "0.000"], ["Adv", "0.125", "0.000"]]
    with pytest.raises(KeyError, match=r"has 0 rows of Int, APGD-T, eps 0.5"):
        strong_tables.over_radii(strong, (0.5,))


def test_differences_are_paired_and_corrected_together(strong):
    pairs = [("mnist", "Int", "Adv", 0.3, "0.3"), ("mnist", "Int", "Adv", 0.4, "0.4")]
    (first, second) = texts(strong_tables.differences({"mnist": strong}, pairs))
    # Seven images are right for Int alone, one for Adv alone: 2 (1 + 8) / 2^8 = 0.070, twice that by Holm.
    assert first == ["Int − Adv", "MNIST, 0.3", "+0.750 ± 0.234", "0.141"]
    assert second == ["Int − Adv", "MNIST, 0.4", "+0.000 ± 0.000", "1.000"]


def test_square_is_counted_on_the_images_that_it_saw(strong):
    made = strong_tables.taken_by_square(strong, 0.3, ("Int", "Adv"))
    assert texts(made) == [["Int", "4", "1", "3"], ["Adv", "0", "0", "0"]] and "first 4 images" in made.note


def test_two_codes_are_compared_image_by_image():
    rows = [
        counted("1110", method="Int", attack="APGD-CE", code="here", seconds=2.0),
        counted("1101", method="Int", attack="APGD-CE", code="torchattacks", seconds=9.6),
        counted("1100", method="Int", attack="FAB-T", code="torchattacks", seconds=5.0),
    ]
    made = record(rows, measurement="peer")
    made.settings |= {"eps": 0.3, "subset": {"n": 4}, "steps": 100, "queries": 5000, "torchattacks": "3.5.1"}
    table = strong_tables.by_two_codes(made)
    assert texts(table) == [
        ["Int", "APGD-CE", "3", "3", "2 of 4", "2", "10"],
        ["Int", "FAB-T", "", "2", "", "", "5"],
    ]
    assert "5,000 queries; torchattacks 3.5.1" in table.note


def test_what_the_chapter_says_of_the_other_code():
    """'The same images of Int and of adversarial training, three fewer of Int-Adv. FAB-T takes none of them.'"""
    peer = by_dataset(read_all(ROOT / "results"), "peer")["mnist"]
    lines = {(method, attack): rest for method, attack, *rest in texts(strong_tables.by_two_codes(peer))}
    assert lines["Int", "Square"][2] == lines["Adv", "Square"][2] == "200 of 200"
    assert int(lines["Int-Adv", "Square"][0]) - int(lines["Int-Adv", "Square"][1]) == 3
    for method in ("Int", "Adv", "Int-Adv"):
        assert lines[method, "FAB-T"][1] == min(lines[method, "Square"][:2], key=int)


def test_restarts_and_what_they_take():
    counts = {
        ("Table 3", 1): (7, 5),
        ("margin", 1): (7, 4),
        ("margin", 5): (6, 2),
        ("DLR", 1): (7, 5),
        ("DLR", 5): (7, 4),
    }
    rows = [
        {"method": method, "attack": attack, "starts": starts, "eps": 0.3, "correct": correct, "n": 8}
        for k, method in enumerate(("Adv", "Int"))
        for (attack, starts), pair in counts.items()
        for correct in pair[k : k + 1]
    ]
    made = record(rows, measurement="restarts")
    made.settings["attack"] = {"starts": [1, 5]}
    shown = strong_tables.restarts(made, "0.3")
    assert texts(shown) == [["Table 3", "7", "5"], ["margin", "7, 6", "4, 2"], ["DLR", "7, 7", "5, 4"]]
    assert shown.note.endswith("images right of 8, after 1 and 5 runs.")
    taken = strong_tables.taken_by_restarts(made)
    assert texts(taken) == [["margin", "1", "3"], ["DLR", "0", "1"]] and taken.caption.startswith("Images that 5 runs")


def test_the_strongest_of_the_attacks_made_on_others():
    accuracies = {("A", "A"): 0.2, ("A", "B"): 0.5, ("A", "C"): 0.4, ("B", "A"): 0.1, ("B", "B"): 0.3, ("B", "C"): 0.9}
    rows = [{"method": m, "attack": s, "eps": 0.3, "accuracy": a, "n": 100} for (m, s), a in accuracies.items()]
    made = strong_tables.strongest_sources(record(rows, measurement="transfer"))
    assert texts(made) == [["A", "0.200", "0.400", "C"], ["B", "0.300", "0.100", "A"]]
    assert "at most 0.050" in made.note
