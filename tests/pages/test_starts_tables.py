"""The tables on other starts, from records of a few images; and what the chapter says of the committed ones."""

import pytest
from conftest import ROOT, record, row

from interp_lib.pages import starts_tables
from interp_lib.study import records


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in cells] for cells in table.rows]


def counted(method, eps, correct, n=100, **labels):
    return row(correct, method=method, eps=eps, n=n, **{"accuracy": correct / n, "se": 0.01 * correct, **labels})


def stored(measurement, *rows, **labels):
    return record(rows, measurement=measurement, **labels)


@pytest.fixture
def released():
    """Int keeps 40 images of 100 from x at 0.4, 3 from a random point and 1 from five; Adv keeps 2, 2 and 0."""
    from_x = [counted("Int", 0.4, 40), counted("Adv", 0.4, 2), counted("Int", 0.4, 45, steps=100)]
    from_x += [counted("Adv", 0.4, 9, steps=100), counted("TRADES", 0.4, 7)]
    random = [counted(m, 0.4, k, starts=s) for m, s, k in (("Int", 1, 3), ("Int", 5, 1), ("Adv", 1, 2), ("Adv", 5, 0))]
    return [stored("pgd", *from_x), stored("starts", *random), stored("pgd", counted("Int", 0.4, 99), model="pool")]


@pytest.fixture
def ours():
    """Two seeds of Int, 30 and 40 images from x, and one with another gamma; one seed of Adv."""
    seeds = [("Int", 0, 0.01, 30), ("Int", 1, 0.01, 40), ("Int", 0, 0.02, 99), ("Adv", 0, 0.01, 50)]
    from_x = [counted(m, 0.4, k, seed=seed, gamma=g) for m, seed, g, k in seeds]
    random = [counted(m, 0.4, k - 10, seed=seed, gamma=g, starts=5) for m, seed, g, k in seeds]
    return [stored("pgd", *from_x, source="ours"), stored("starts", *random, source="ours")]


def test_accuracies_from_other_starts(released):
    table = starts_tables.from_other_starts(released, "released", (0.4,))
    # In the order of the paper's tables; TRADES was not attacked from random points.
    assert texts(table) == [["Adv", "0.020 0.020 0.000"], ["Int", "0.400 0.030 0.010"]]
    assert table.note.endswith("n = 100.") and "released networks" in table.caption
    with pytest.raises(KeyError, match="no record of pgd on MNIST Small, networks 'ours'"):
        starts_tables.from_other_starts(released, "ours", (0.4,))


def test_networks_of_several_seeds_are_averaged(ours):
    found = starts_tables.by_start(ours, "ours")
    assert found["x"]["Int", 0.4] == pytest.approx({"accuracy": 0.35, "se": 0.35, "n": 100})
    assert found["5"]["Int", 0.4]["accuracy"] == pytest.approx(0.25) and not found["1"]


def test_rows_of_the_figure(released):
    rows = starts_tables.curves(released, "released", ("Int",))
    assert [tuple(r) for r in rows[["method", "eps", "accuracy", "se", "source"]].values] == [
        ("Int", 0.4, 0.4, 0.4, "from x"),
        ("Int", 0.4, 0.01, 0.01, "five random starts"),
    ]


def test_leads_of_int(released, ours):
    # Released: 0.40 - 0.02 and 0.01 - 0. Trained here: 0.35 - 0.50 and 0.25 - 0.40.
    assert texts(starts_tables.leads([*released, *ours], (0.4,))) == [
        ["released", "0.4", "+0.380", "+0.010"],
        ["trained here", "0.4", "−0.150", "−0.150"],
    ]


def test_what_more_steps_take(released):
    table = starts_tables.more_steps(released, 0.4, ("Int", "Adv"), (100, 200))
    assert texts(table) == [["Int", "0.450", "0.400", "−0.050"], ["Adv", "0.090", "0.020", "−0.070"]]
    assert table.columns[1:3] == ["100 steps", "200 steps"]


def test_the_largest_change_by_a_start():
    levels = (("Adv", 2 / 255, 50, 51), ("Adv", 8 / 255, 20, 17), ("Int", 8 / 255, 30, 30))
    from_x = stored("pgd", *(counted(m, e, k) for m, e, k, _ in levels), dataset="cifar10")
    random = stored("starts", *(counted(m, e, k, starts=1) for m, e, _, k in levels), dataset="cifar10")
    table = starts_tables.changes_by_start([from_x, random], "cifar10")
    assert texts(table) == [["Adv", "−0.030"], ["Int", "+0.000"]]
    assert "2 released networks, ε up to 8/255" in table.note and table.note.endswith("at most 0.030.")


def test_finer_steps_beside_those_of_the_table():
    where = {"dataset": "cifar10", "model": "wresnet"}
    usual = stored("pgd", counted("Int", 8 / 255, 30), counted("Int", 8 / 255, 90, steps=10), **where)
    fine = stored("fine", *(counted("Int", e / 255, k, steps=40, starts=1) for e, k in ((8, 32), (12, 20))), **where)
    table = starts_tables.finer_steps([usual, fine], ("Int",))
    assert table.columns == ["method", "8/255, from x", "8/255, random", "12/255, from x", "12/255, random"]
    assert texts(table) == [["Int", "0.300", "0.320", "–", "0.200"]]
    assert "n = 100, standard error at most 0.050" in table.note
    assert "take at most 0.000 of the images, and leave up to 0.020 more" in table.note


def test_the_chapter_says_what_the_records_say():
    found = records.read_all(ROOT / "results")
    # 'Beyond it, what the tables show is the start and not the network.'
    leads = texts(starts_tables.leads(found, (0.35, 0.4)))
    assert len(leads) == 4 and all(abs(float(line[3].replace("−", "-"))) < 0.05 for line in leads)
    # 'an attack that has found its maximum gains nothing, and on these two networks this one goes on gaining'
    lost = {line[0]: line[3] for line in texts(starts_tables.more_steps(found, 0.35, ("Adv", "TRADES"), (100, 200)))}
    more = {line[0]: line[3] for line in texts(starts_tables.more_steps(found, 0.35, ("Int", "Int-Adv"), (100, 200)))}
    size = lambda change: -float(change.replace("−", "-"))
    assert min(map(size, more.values())) > max(map(size, lost.values()))
    # 'On CIFAR-10 Small random starts were tried up to the training radius and change nothing.'
    changes = texts(starts_tables.changes_by_start(found, "cifar10"))
    assert len(changes) == 8 and all(abs(size(line[1])) <= 0.01 for line in changes)
    # 'On WResnet neither a random point nor finer steps change the picture'
    adv, ours = (line[1:] for line in texts(starts_tables.finer_steps(found, ("Adv", "Int"))))
    assert len(adv) == 6 and all(float(b) > float(a) for a, b in zip(adv[1::2], ours[1::2], strict=True))
    for line in (adv, ours):
        pairs = [pair for pair in zip(line[::2], line[1::2], strict=True) if "–" not in pair]
        assert len(pairs) == 2 and all(float(x) - float(random) <= 0.01 for x, random in pairs)
