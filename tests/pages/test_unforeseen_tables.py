"""The tables of the chapter on Table 5, from values and rows of a few numbers."""

from conftest import record

from interp_lib import paper
from interp_lib.pages import unforeseen_tables
from interp_lib.study.compare import Cell


def texts(table):
    return [[cell[0][0] for cell in row] for row in table.rows]


def cell(value, released, noise, method="Int", level="Snow", **more):
    return Cell("5", "CIFAR-10", "Small", method, "ATA", "attack", level, value, released, noise=noise, **more)


def test_only_values_that_differ_are_listed_and_the_others_counted():
    cells = [
        cell("0.105", 0.105, 0.01),
        cell("0.105", 0.12, 0.01),
        cell("0.105", 0.14, 0.02, "Adv"),
        cell("0.1", None, None),
    ]
    cells.append(cell("0.105", 0.2, 0.03, "TRADES"))
    made = unforeseen_tables.disagreements(cells)
    assert texts(made) == [["TRADES", "Snow", "0.105", "0.200", "± 0.030"]]
    assert made.note.startswith("3 of 4 values agree") and "0.010 to 0.030. These 1 do not." in made.note


def test_both_forms_of_an_attack_are_means_over_their_starts():
    values = {("Gabor", "released"): (0.2, 0.3), ("Gabor", "defined"): (0.4,), ("Snow", "released"): (0.1, 0.1)}
    values[("Snow", "defined")] = (0.15,)
    rows = [
        {"method": "Int", "attack": attack, "form": form, "accuracy": accuracy, "n": 200}
        for (attack, form), given in values.items()
        for accuracy in given
    ]
    made = unforeseen_tables.two_forms(record(rows, title="CIFAR-10, JPEG copy"), ["Int"])
    assert made.columns[1:3] == ["Gabor, public code", "Gabor, as defined"]
    assert texts(made) == [["Int", "0.250", "0.400", "0.100", "0.150"]]
    assert made.note.endswith("means over 2 random starts, as defined over 1.")


def test_each_sentence_stands_beside_its_accuracies():
    pair = {"Int": (0.75, (1, 1, 1, 0)), "IG-Norm": (0.25, (0, 1, 0, 0))}
    cells = [cell("0.105", share, 0.01, m, outcomes={"released": seen}) for m, (share, seen) in pair.items()]
    # Without an attack all are right; some rows of Table A1 stand under the name of another method.
    right = {"released": 1.0, "corrected": 1.0}
    cells += [Cell("A1", "CIFAR-10", "Small", m, "ATA", "eps", "0", "0.700", **right) for m in paper.METHODS]
    made = texts(unforeseen_tables.statements(cells))
    assert [line[:3] for line in made] == [["Int is above IG-Norm", "Snow", "0.750 against 0.250"]]
    assert made[0][3].startswith("not settled")  # two images of four: p = 0.5
