"""Transfer between networks: the diagonal is each network's own attack, and a record knows what it was made on."""

import pytest
import torch
from conftest import images

from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import count_correct, fingerprint
from interp_lib.study import records, sweep, transfer
from interp_lib.study.accuracy import pgd_accuracy


@pytest.fixture
def networks():
    return {method: build("small", (1, 8, 8), 3, seed=seed) for seed, method in enumerate(("Normal", "Adv", "Int"))}


def measure(networks, folder, dataset):
    for method, model in networks.items():
        how = {"dataset": "digits", "method": method, "seed": 0, "schedule": "digits"}
        trained.save(model, folder / f"networks/{method}.safetensors", how)
    part = sweep.Part(dataset, "small", list(sweep.find_networks("ours", folder / "networks")), "ours", folder)
    (plan,) = transfer.transfer_plan(part, eps=[0.1], n=50, steps=3)
    return records.read(sweep.grow(plan, part))


def test_every_pair_is_measured_and_the_diagonal_is_the_white_box(networks, tmp_path, tiny_dataset):
    record, subset = measure(networks, tmp_path, tiny_dataset), tiny_dataset.evaluation_subset(50)
    found = {(row["method"], row["attack"]): row["correct"] for row in record.rows}
    for source, made_on in networks.items():
        x_adv = pgd(made_on, subset.x, subset.y, eps=0.1, alpha=0.01, steps=3)
        for method, model in networks.items():
            assert found[method, source] == count_correct(model, x_adv, subset.y)
        (own,) = pgd_accuracy(made_on, subset.x, subset.y, eps=[0.1], steps=[3])
        assert found[source, source] == own["correct"]
    assert len(found) == 9 and len(set(found.values())) > 1
    assert record.settings["sources"] == {method: fingerprint(model) for method, model in networks.items()}


def test_another_network_makes_another_record(networks, tmp_path, tiny_dataset):
    first = measure(networks, tmp_path, tiny_dataset)
    networks["Adv"] = build("small", (1, 8, 8), 3, seed=9)
    second = measure(networks, tmp_path, tiny_dataset)
    assert first.name != second.name and len(second.rows) == 9


def test_rows_count_what_the_network_sees():
    model, x = build("small", (1, 8, 8), 3, seed=0), images(12, (1, 8, 8), dtype=torch.float32)
    y = model(x).argmax(1)
    (row,) = transfer.transfer_rows(model, {"itself": x}, y, eps=0.1)
    assert (row["attack"], row["eps"], row["correct"], row["n"]) == ("itself", 0.1, 12, 12)
    with pytest.raises(ValueError, match="eps"):
        transfer.transfer_rows(model, {"itself": x}, y, eps=2.0)
