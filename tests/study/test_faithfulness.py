"""Deletion and insertion: closed forms, an independent writing pixel by pixel, and which orders are good."""

import numpy as np
import pytest
import torch
from conftest import bands, images
from torch import nn

from interp_lib.models.architectures import build
from interp_lib.study import faithfulness
from interp_lib.study.maps_compared import inputs_of

DOUBLE = torch.float64


class LinearProbability(nn.Module):
    """Two classes of probability w . x and 1 - w . x: what each pixel adds is known."""

    num_classes = 2

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        share = (x.flatten(1) @ self.w).clamp(1e-12, 1 - 1e-12)
        return torch.stack([share, 1 - share], 1).log()


def linear(pixels=16):
    w = torch.rand(pixels, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    return LinearProbability(w / w.sum()), torch.zeros(3, dtype=torch.long)


def test_the_curve_of_a_linear_probability_in_closed_form():
    model, y = linear()
    x = images(3, (1, 4, 4))
    added = (x.flatten(1) * model.w).sort(1, descending=True).values
    places = faithfulness.ranks((x.flatten(1) * model.w).view(3, 4, 4))
    removed = torch.cat([torch.zeros(3, 1, dtype=DOUBLE), added.cumsum(1)], 1)
    deletion = faithfulness.curve(model, x, torch.zeros_like(x), places, y, steps=16)
    insertion = faithfulness.curve(model, torch.zeros_like(x), x, places, y, steps=16)
    assert (deletion - (added.sum(1, keepdim=True) - removed)).abs().max() < 1e-9
    assert (insertion - removed).abs().max() < 1e-9
    # The trapezoidal area of deletion: every contribution counts for as long as its pixel is there.
    weights = (torch.arange(16, dtype=DOUBLE) + 0.5) / 16
    assert (faithfulness.area(deletion) - (added * weights).sum(1)).abs().max() < 1e-9
    assert (faithfulness.area(deletion) + faithfulness.area(insertion) - added.sum(1)).abs().max() < 1e-9


def test_no_order_has_a_smaller_area_of_deletion_than_the_contributions_themselves():
    model, y = linear()
    x, black = images(3, (1, 4, 4)), torch.zeros(3, 1, 4, 4, dtype=DOUBLE)
    area = lambda by: faithfulness.area(faithfulness.curve(model, x, black, faithfulness.ranks(by), y, steps=16))
    best = area((x.flatten(1) * model.w).view(3, 4, 4))
    worst = area(-(x.flatten(1) * model.w).view(3, 4, 4))
    for seed in range(20):
        other = area(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(seed)))
        assert (best <= other + 1e-12).all() and (other <= worst + 1e-12).all()


def test_ranks_count_from_the_largest_and_keep_ties_in_place():
    assert faithfulness.ranks(torch.tensor([[[3.0, 5.0], [5.0, 1.0]]])).tolist() == [[[2, 0], [1, 3]]]


@pytest.mark.parametrize("steps", [7, 64])
def test_batches_and_folded_networks_are_a_loop_over_pixels(steps, monkeypatch):
    """Written again with numpy, image by image; 64 pixels and 7 steps do not divide evenly."""
    model, x = build("small", (3, 8, 8), 4, seed=2), images(5, (3, 8, 8), dtype=torch.float32)
    y, other = torch.tensor([0, 1, 2, 3, 0]), images(5, (3, 8, 8), seed=9, dtype=torch.float32)
    values = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(faithfulness, "IN_CACHE", 2 * (steps + 1))
    curves = faithfulness.curve(model, x, other, faithfulness.ranks(values), y, steps=steps).numpy()
    for i in range(5):
        order, expected = np.argsort(-values[i].numpy().ravel(), kind="stable"), []
        for k in range(steps + 1):
            z = x[i].numpy().copy().reshape(3, -1)
            gone = order[: int(np.ceil(k * 64 / steps))]
            z[:, gone] = other[i].numpy().reshape(3, -1)[:, gone]
            logits = model(torch.from_numpy(z.reshape(1, 3, 8, 8))).detach().numpy()[0]
            expected.append(np.exp(logits[y[i]]) / np.exp(logits).sum())
        assert np.abs(curves[i] - expected).max() < 1e-5
        assert faithfulness.area(torch.from_numpy(curves[i : i + 1])).item() == pytest.approx(
            np.trapezoid(expected, np.linspace(0, 1, steps + 1)), abs=1e-5
        )


def test_rows_explain_the_predicted_class_and_count_gains_from_chance():
    model, subset = build("small", (1, 8, 8), 3, seed=1), bands().evaluation_subset(6)
    seen = []
    rows = faithfulness.faithfulness_rows(
        model, subset, eps=0.1, names=["CAM", "gradient"], inputs=("x", "PGD"), steps=8, attack_steps=6,
        progress=seen.append,
    )  # fmt: skip
    at = {(r["input"], r["rule"], r["interpreter"]): r for r in rows}
    assert len(at) == len(rows) == 4 + 6 and seen == [1, 1]
    z = inputs_of(model, subset, eps=0.1, steps=6)["PGD"]
    y = model(z).argmax(1)
    first = model(z).softmax(1).gather(1, y[:, None]).mean().item()
    last = model(torch.zeros_like(z)).softmax(1).gather(1, y[:, None]).mean().item()
    for row in (r for r in rows if r["input"] == "PGD"):
        assert row["deletion_curve"][0] == row["insertion_curve"][-1] == pytest.approx(first, abs=1e-4)
        assert row["deletion_curve"][-1] == row["insertion_curve"][0] == pytest.approx(last, abs=1e-4)
        chance = at["PGD", "own", "random"]
        assert row["deletion_gain"] == pytest.approx(chance["deletion"] - row["deletion"])
        assert row["insertion_gain"] == pytest.approx(row["insertion"] - chance["insertion"])
    of_x = faithfulness.ranks(faithfulness.orders_of(model, subset.x, y, ["gradient"])["gradient"])
    stale = faithfulness.area(faithfulness.curve(model, z, torch.zeros_like(z), of_x, y, steps=8))
    assert at["PGD", "of x", "gradient"]["deletion"] == pytest.approx(stale.mean().item(), abs=1e-6)


@pytest.mark.parametrize("wrong", [{"names": ["cam"]}, {"inputs": ["FGSM"]}, {"eps": 0.0}])
def test_wrong_settings_are_refused_by_name(wrong):
    model, subset = build("small", (1, 8, 8), 3, seed=1), bands().evaluation_subset(2)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        faithfulness.faithfulness_rows(model, subset, **{"eps": 0.1, "names": ["CAM"], "attack_steps": 1} | wrong)
