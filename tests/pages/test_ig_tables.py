"""The tables on the baselines with integrated gradients, from records of a few images; and what the chapter says."""

import nbformat
from conftest import ROOT, record, row

from interp_lib.pages import ig_tables
from interp_lib.study import records
from interp_lib.study.records import outcome_digits

CHAPTER = "".join(c.source for c in nbformat.read(ROOT / "book/25_ig_baselines.ipynb", 4).cells)
PAIRS = [
    ("Chen-IG-Norm", "IG-Norm"),
    ("Chen-IG-Norm", "Int"),
    ("IG-Norm-Sum", "Adv"),
    ("Chen-IG-Sum-Norm", "Adv"),
]


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in cells] for cells in table.rows]


def test_losses_are_means_over_seeds_and_released_networks_come_first():
    def penalty(method, size, climbs="penalty"):
        terms = {"cross_entropy": 0.5, "penalty": size, "total": 0.5 + size, "total_over_n": 0.5 + size / 50}
        return {"method": method, "climbs": climbs, "n": 200, **terms}

    ours = record([penalty("IG-Norm", 2.0), penalty("IG-Norm", 3.0), penalty("IG-Norm", 9.0, "cross-entropy")])
    ours.settings |= {"networks": "ours", "measurement": "ig-penalty"}
    released = record([penalty("IG-Norm", 4.0)], model="pool", measurement="ig-penalty")
    table = ig_tables.losses([ours, released, record([row(1)], title="CIFAR-10")])
    assert texts(table) == [
        ["MNIST Pool, IG-Norm released", "0.500", "4.000", "4.500", "0.580"],
        ["MNIST Small, IG-Norm trained here", "0.500", "2.500", "3.000", "0.550"],
    ]
    assert table.note.startswith("200 test images; ") and table.note.endswith("Data: MNIST.")


def ours(measurement, *rows, dataset="mnist"):
    """Rows (method, seed, eps, outcomes) of networks trained here."""
    made = []
    for method, seed, eps, digits in rows:
        right = [digit == "1" for digit in digits]
        share = {"accuracy": sum(right) / len(right), "right": outcome_digits(right), "seed": seed, "gamma": 0.01}
        made.append(row(sum(right), method=method, eps=eps, n=len(right), **share))
    return record(made, source="ours", dataset=dataset, measurement=measurement)


def test_accuracies_from_x_and_from_random_starts():
    found = [
        ours("pgd", ("Int", 0, 0.0, "1111"), ("Int", 1, 0.0, "1110"), ("Int", 0, 0.3, "1000"), ("Int", 1, 0.3, "0000")),
        ours("starts", ("Int", 0, 0.0, "1111")),
        ours("pgd", ("Adv", 0, 0.0, "1111"), dataset="cifar10"),
    ]
    table = ig_tables.accuracies(found, "mnist", (0, 0.3), ("Adv", "Int"))
    assert table.columns == ["method", "seeds", "ε = 0", "0.3"] and "n = 4 a seed" in table.note
    assert texts(table) == [["Int", "2", "0.875 1.000", "0.125 –"]]
    wide = ig_tables.accuracies(found, "cifar10", (0, 8 / 255), ("Adv", "Int"))
    assert wide.columns[2:] == ["ε = 0", "8/255"] and texts(wide) == [["Adv", "1", "1.000 –", "– –"]]


def test_differences_take_the_more_images_of_two_measurements():
    found = [
        ours("pgd", ("Int", 0, 0.3, "1111"), ("Adv", 0, 0.3, "0000"), ("IG-Norm", 0, 0.3, "1000")),
        ours("many", ("Int", 0, 0.3, "11111100"), ("Adv", 0, 0.3, "00000000")),
    ]
    table = ig_tables.differences(found, [("Int", "Adv"), ("Int", "IG-Norm"), ("Int", "Chen-IG-Norm")])
    # Six of eight images, 2 / 2^6 = 0.031; three of four, 2 / 2^3 = 0.25; after Holm the smaller is twice as large.
    assert texts(table) == [
        ["Int against Adv", "MNIST", "1 × 8", "+0.750 ± 0.153", "0.062"],
        ["Int against IG-Norm", "MNIST", "1 × 4", "+0.750 ± 0.217", "0.250"],
    ]


def test_the_chapter_says_what_the_records_say():
    found = records.read_all(ROOT / "results")
    lines = {line[0]: line for line in texts(ig_tables.accuracies(found, "mnist", (0, 0.3), ("IG-Norm", "Int")))}
    lines |= {line[0]: line for line in texts(ig_tables.accuracies(found, "mnist", (0, 0.3), ["Chen-IG-Norm"]))}
    clean, robust = ({m: line[k].split()[0] for m, line in lines.items()} for k in (2, 3))
    assert f"IG-Norm keeps {robust['IG-Norm']} of the images at $0.3$" in CHAPTER
    assert f"like the released network, and {robust['Chen-IG-Norm']} with its authors'" in CHAPTER
    assert f"Int keeps {robust['Int']}: " in CHAPTER
    assert f"clean accuracy, {clean['Chen-IG-Norm']} against {clean['IG-Norm']}." in CHAPTER
    at = {
        row["method"]: f"{row['accuracy']:.3f}"
        for r in found
        if r.family == "many-cifar10-small-ours"
        for row in r.rows
        if abs(row["eps"] - 8 / 255) < 1e-6
    }
    assert f"with its authors', {at['Chen-IG-Norm']} against {at['Int']} of 2,000 images; one seed" in CHAPTER
    verdicts = {}
    for pair, network, _, difference, p in texts(ig_tables.differences(found, PAIRS)):
        settled = p == "< 0.001" or float(p) <= 0.05
        verdicts[pair, network] = difference[0] if settled else "open"
        if pair.endswith("against Adv"):  # 'within 0.02 of Adv at the training radius, and no difference is settled'
            assert not settled and float(difference[1:6]) < 0.02
    assert verdicts["Chen-IG-Norm against IG-Norm", "MNIST"] == "+"
    assert verdicts["Chen-IG-Norm against Int", "MNIST"] == "−"
    assert verdicts["Chen-IG-Norm against Int", "CIFAR-10"] == "+" and len(verdicts) == 8
