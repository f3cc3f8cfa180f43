"""Noise in the place of another processor's rounding: as large as it says, gone afterwards, and one record."""

import pytest
import torch

from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.study import records, rounding, sweep


@pytest.mark.parametrize("architecture", ["small", "pool"])
@torch.no_grad()
def test_noise_is_of_the_size_that_is_asked_for_and_goes(architecture, make_images):
    model, x = build(architecture, seed=0).double(), make_images(4)
    plain, clean = model(x), model.conv1(x)
    with rounding.rounded_differently(model, torch.Generator().manual_seed(0), 1e-3):
        noise = (model.conv1(x) - clean) / clean.abs().mean()
        assert 0 < (model(x) - plain).abs().max() < 0.05 * plain.abs().max()
    assert float(noise.std()) == pytest.approx(1e-3, rel=0.05)
    assert torch.equal(model(x), plain)


def test_a_record_has_every_draw_and_goes_on(tmp_path, tiny_dataset):
    trained.save(
        build("small", (1, 8, 8), 3, seed=0), tmp_path / "x.safetensors", {"dataset": "digits", "method": "Int"}
    )
    networks, folder = list(sweep.find_networks("ours", tmp_path)), tmp_path / "results"
    part = sweep.Part(tiny_dataset, "small", networks, "ours", folder)
    run = lambda cells: sweep.grow(*rounding.rounding_plan(part, cells=cells, steps=(2, 3), draws=2), part)
    first = records.read(run([("Int", 0.1)]))
    assert [(r["steps"], r["draw"]) for r in first.rows] == [(2, 0), (3, 0), (2, 1), (3, 1)]
    both = records.read(run([("Int", 0.1), ("Int", 0.2)]))
    assert both.rows[:4] == first.rows and [r["eps"] for r in both.rows[4:]] == [0.2] * 4
