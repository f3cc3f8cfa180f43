"""Proposition 1 on smallest-eps examples: both sides by hand, on the released networks, and as a record."""

import pytest
import torch
import toys

from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.released import find, read_network
from interp_lib.study import records, sweep, tightness
from interp_lib.study.tightness import tightness_rows


def test_both_sides_by_hand():
    """Logits .6, .4, .1. Sign steps move rows 0 and 1 towards each other: D is the sum of both, over two."""
    x = torch.tensor([0.6, 0.4, 0.1]).reshape(1, 1, 3, 1).expand(1, 1, 3, 2)
    y = torch.tensor([0])
    apart, bound, eps = tightness.tightness(toys.Rows(torch.float32), x, y)
    assert float(eps) == pytest.approx(0.1, abs=0.003) and float(bound) == pytest.approx(0.1)
    # All pixels of a row move by eps: ||L(x, 0) - L(x', 0)||_1 is eps, and so is the other's.
    assert float(apart) == pytest.approx(float(eps), abs=1e-6) and float(apart / bound) >= 1


def test_images_without_a_successful_attack_have_no_ratio():
    x = torch.ones(2, 1, 3, 2) * torch.tensor([1.0, 0.0, 0.0])[:, None]
    model = toys.Rows(torch.float32)
    with torch.no_grad():
        model.classifier.weight[0] = torch.tensor([1.0, 0.0, 9.0])  # class 0 wins wherever row 2 can grow
    x[:, :, 2] = 1.0
    apart, bound, _ = tightness.tightness(model, x, torch.tensor([0, 0]), high=0.1)
    assert apart.isnan().all() and bound.isnan().all()
    (row,) = tightness_rows(model, x, torch.tensor([1, 2]))  # both classified wrong
    assert (row["images"], row["right"], row["n"], row["violations"]) == (2, 0, 0, 0)
    assert row["median"] is row["q05"] is row["smallest"] is None and row["deciles"] == [None] * 11


def test_a_row_summarises_its_ratios(tiny_dataset):
    subset = tiny_dataset.evaluation_subset(60)
    model = build("small", (1, 8, 8), 3, seed=0)
    (row,) = tightness_rows(model, subset.x, subset.y)
    right = model(subset.x).argmax(1) == subset.y
    apart, bound, _ = tightness.tightness(model, subset.x[right], subset.y[right])
    ratio = (apart / bound)[~apart.isnan()]
    assert (row["images"], row["right"], row["n"]) == (60, int(right.sum()), len(ratio)) and len(ratio) > 5
    assert row["median"] == row["deciles"][5] == pytest.approx(float(ratio.median()), rel=0.1)
    assert row["deciles"][0] == row["smallest"] == pytest.approx(float(ratio.min()))
    assert row["largest"] == row["deciles"][-1] >= row["q95"] >= row["q75"] >= row["q25"] >= row["q05"] >= 1
    assert row["violations"] == 0
    (parts,) = tightness_rows(model, subset.x, subset.y, batch_size=7)
    assert parts["median"] == pytest.approx(row["median"], rel=1e-4)


def test_a_violation_would_be_counted(monkeypatch, tiny_dataset):
    subset, model = tiny_dataset.evaluation_subset(30), build("small", (1, 8, 8), 3, seed=0)
    real = tightness.proposition1_bound
    monkeypatch.setattr(tightness, "proposition1_bound", lambda *arguments: 1e6 * real(*arguments))
    (row,) = tightness_rows(model, subset.x, subset.y)
    assert row["violations"] == row["n"] > 0


@pytest.mark.parametrize("method, median, n", [("Normal", 1.13, 100), ("IG-Norm", 2.7, 99), ("Int-1-class", 1.005, 66)])
def test_the_protocols_medians_come_out_with_the_plain_attack_of_isa(real_mnist, released_folder, method, median, n):
    """An independent measurement of 100 images: median and number of successes."""
    subset = real_mnist.evaluation_subset(100)
    model = read_network(find("mnist", "small", method, released_folder))
    (row,) = tightness_rows(model, subset.x, subset.y, subset.target)
    assert row["median"] == pytest.approx(median, rel=0.03) and row["violations"] == 0 and abs(row["n"] - n) <= 1


def test_records_of_tightness(tmp_path, tiny_dataset):
    model = build("small", (1, 8, 8), 3, seed=0)
    trained.save(
        model,
        tmp_path / "a.safetensors",
        {"dataset": "digits", "method": "Normal", "seed": 0, "schedule": "digits", "model": "small"},
    )
    part = sweep.Part(tiny_dataset, "small", list(sweep.find_networks("ours", tmp_path)), "ours", tmp_path / "results")
    (plan,) = tightness.all_tightness_plans(part, n=20)
    record = records.read(sweep.grow(plan, part))
    assert record.family.startswith("tightness-") and record.settings["subset"] == {"n": 20, "seed": 99}
    assert record.rows[0]["images"] == 20 and record.rows[0]["method"] == "Normal"
    assert record.settings["attack"]["alpha"] == "eps / 4"
