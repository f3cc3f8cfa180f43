"""The tables on models and datasets: layers against closed forms, and what the chapter says of the records."""

import pytest
from conftest import ROOT, record, row

from interp_lib.pages import network_tables
from interp_lib.study import records

SMALL, POOL = ("small", "mnist"), ("pool", "mnist")
WIDE = [("wresnet", "cifar10"), ("wresnet", "restricted_imagenet")]


def texts(table):
    return [[line[0][0] for line in cells] for cells in table.rows]


def test_sizes_are_those_of_the_layers():
    # Small: 16 filters of 4×4, 32 of 4×4, 100 of 7×7, their biases, and a last layer of 10 × 100 without one.
    small = (16 * 16 + 16) + (32 * 16 * 16 + 32) + (100 * 32 * 49 + 100) + 1000
    pool = (32 * 25 + 32) + (64 * 32 * 25 + 64) + 640
    assert texts(network_tables.sizes([SMALL, POOL])) == [
        ["small", "mnist", "3", "100", "7 × 7", "49", f"{small:,}"],
        ["pool", "mnist", "2", "64", "7 × 7", "49", f"{pool:,}"],
    ]
    assert texts(network_tables.filters([SMALL]))[0][2] == (
        "16 of 4×4, stride 2; 32 of 4×4, stride 2; 100 of 7×7, stride 1"
    )


def test_the_last_layers_have_no_bias_and_the_wresnets_differ_by_one_row_of_it():
    built = network_tables.networks_of([SMALL, POOL, ("small", "cifar10"), *WIDE])
    assert all(network.classifier.bias is None for network in built.values())
    cifar10, imagenet = (sum(p.numel() for p in built[key].parameters()) for key in WIDE)
    # '64 weights more: the last layer has a row of 64 for a tenth class'
    assert cifar10 < 0.5e6 and cifar10 - imagenet == built[WIDE[0]].classifier.in_features == 64


def test_gamma_is_2_u_gamma():
    table = network_tables.gamma_of_equation_8([SMALL, ("small", "cifar10")])
    assert texts(table) == [["small", "mnist", "49", "0.98"], ["small", "cifar10", "64", "1.28"]]


def test_settings_of_training_are_the_papers():
    settings = {line[0]: line[1:] for line in texts(network_tables.settings_of_training())}
    assert settings["epochs"] == ["100", "200", "text"] and settings["batch"] == ["50", "128", "text"]
    assert settings["rate ÷ 10 after step"] == ["–", "40,000, 60,000", "text"]
    assert settings["ε at the end"] == ["0.3", f"{8 / 255:.4g}", "text"]
    assert settings["ε in full from step"] == ["10,000", "70,000", "code only"] and len(settings) == 9


def test_the_values_of_all_datasets_are_those_of_the_paper():
    table = network_tables.values_by_dataset()
    lines = texts(table)
    assert sum(int(line[1]) for line in lines) == 743 and table.note == "743 values."
    mnist, cifar10 = (line[2].split(", ") for line in lines[:2])
    assert lines[2] == ["R-ImageNet", "28", "1"] and "5" in cifar10 and "5" not in mnist  # Table 5 is on CIFAR-10


def test_networks_of_restricted_imagenet_beside_its_largest_class():
    def clean(*rows, n=203):
        return record([row(k, method="Normal", n=n, **more) for k, more in rows], dataset="restricted_imagenet")

    made = [clean((100, {})), clean((50, {"epochs": 20})), clean((7, {}))]
    for one in made[:2]:
        one.settings["measurement"] = "clean"
    # ImageNet's classes 151 to 268 are dogs: 118.
    assert texts(network_tables.restricted_imagenet(made)) == [
        ["Normal, 20 epochs", "50", "0.246"],
        ["Normal, 35 epochs", "100", "0.493"],
        ["always 'dog'", "118", "0.581"],
    ]
    made[0].rows[0]["n"] = 200
    with pytest.raises(ValueError, match=r"expected 203 images, one of each class; got \[200, 203\]"):
        network_tables.restricted_imagenet(made)


def test_the_chapter_says_what_the_records_say():
    found = records.read_all(ROOT / "results")
    right = {line[0]: int(line[1]) for line in texts(network_tables.restricted_imagenet(found))}
    tabled, dogs = right["Normal, 35 epochs"], right["always 'dog'"]
    # 'right on fewer images than the answer "dog" would be'; 'of 100 epochs ... fewer than one in nine'
    assert max(k for name, k in right.items() if name.startswith("Normal")) == tabled < dogs
    assert right["Normal, 100 epochs"] < 203 / 9 and len(right) == 4
    # 'measured here on one image of this network'
    (isa,) = (r for r in found if r.family.startswith("isa-restricted_imagenet-wresnet-released"))
    assert {row["n"] for row in isa.rows} <= {0, 1} and max(row["n"] for row in isa.rows) == 1
