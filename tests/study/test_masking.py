"""The checklist finds masking where it is planted, and only what is planted; a plain network passes every check."""

import pytest
import torch
import toys
from conftest import images
from torch import nn

from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.attacks.squares import square
from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right
from interp_lib.study import masking, records, sweep

SMALL = {"square_images": 8, "queries": 60}


def verdicts(model, x, y, eps=0.2, **settings):
    return {
        row["check"] for row in masking.masking_rows(model, x, y, eps=eps, **SMALL | settings) if masking.flagged(row)
    }


def seen(model, x):
    with torch.no_grad():
        return model(x).argmax(1)


class Loud(nn.Module):
    """Another network's logits times a number."""

    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        return self.scale * self.model(x)


class Quantised(nn.Module):
    """A network that sees images in a few grey levels: the derivative of rounding is 0 everywhere."""

    def __init__(self, model, levels=8):
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, x):
        return self.model((x * self.levels).round() / self.levels)


class Planted(nn.Module):
    """A margin of class 0 that is one function of the mean pixel, with another one for its derivative."""

    num_classes = 2

    def __init__(self, margin, slope):
        super().__init__()
        self.margin, self.slope = margin, slope

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        fixed = mean.detach()
        value = self.margin(fixed) + self.slope(fixed) * (mean - fixed)
        return torch.stack([value / 2, -value / 2], 1)


@pytest.fixture
def plain():
    """A linear network and images near its border, in single precision."""
    model = toys.Linear().float()
    x = 0.25 + images(20, (1, 4, 4), dtype=torch.float32) / 2
    return model, x, seen(model, x)


def test_a_linear_network_masks_nothing(plain):
    model, x, y = plain
    rows = masking.masking_rows(model, x, y, eps=0.05, **SMALL)
    assert [row["check"] for row in rows] == list(masking.CHECKS)
    assert {row["check"]: row["against"] for row in rows} == dict.fromkeys(masking.CHECKS, 0)
    assert {row["n"] for row in rows} == {20, 8}
    left = {row["check"]: row.get("left") for row in rows}
    assert 0 < left["larger ε"][1] < left["larger ε"][0], "an attack that takes some images, not all"


def test_large_logits_are_found_where_the_gradient_is_used(plain):
    model, x, y = plain
    loud = Loud(model, 1e4)
    found = verdicts(loud, x, y)
    assert found >= {"gradient at x", "black box", "whole box", "direction"}
    (row,) = (r for r in masking.masking_rows(loud, x, y, eps=0.2, **SMALL) if r["check"] == "gradient at x")
    assert row["zero"] > 0 and row["against"] >= row["zero"]


def test_a_quantised_network_is_found(plain):
    model, x, _ = plain
    quantised = Quantised(model)
    y = seen(quantised, x)
    assert verdicts(quantised, x, y) >= {"gradient at x", "black box", "whole box", "direction"}
    (row,) = (r for r in masking.masking_rows(quantised, x, y, eps=0.2, **SMALL) if r["check"] == "gradient at x")
    assert row["zero"] == row["against"] == row["n"] == 20 and row["median"] == 0


GREY, ZEROS = torch.full((12, 1, 4, 4), 0.5), torch.zeros(12, dtype=torch.long)
RISING = lambda m: -torch.ones_like(m)  # the margin seems to fall towards white, so that attacks go there


def test_a_pocket_that_a_smaller_budget_hits_and_a_larger_one_passes():
    # Ten steps of a hundredth, or half the radius of 0.2, end at a mean of 0.6.
    pocket = Planted(lambda m: torch.where((m - 0.6).abs() < 0.015, -1.0, 2 - m), RISING)
    found = verdicts(pocket, GREY, ZEROS)
    assert found >= {"more steps", "larger ε", "whole box"} and not found & {"one step", "gradient at x", "direction"}


def test_a_dent_that_stops_small_steps_and_not_one_large_one():
    # Just above 0.52 the slope is turned round; the images are fooled from 0.65 on.
    dent = Planted(lambda m: 0.65 - m, lambda m: torch.where((m > 0.515) & (m < 0.6), 1.0, -1.0))
    assert verdicts(dent, GREY, ZEROS) == {"one step", "whole box"}
    smooth = Planted(lambda m: 0.65 - m, RISING)
    assert not verdicts(smooth, GREY, ZEROS)


def test_a_start_from_which_the_gradient_leads_astray():
    # At 0.5 itself and below the gradient leads down, where nothing is fooled; above, it leads to 0.65.
    ridge = Planted(lambda m: 0.65 - m, lambda m: torch.where(m > 0.5, -1.0, 1.0))
    assert "random start" in verdicts(ridge, GREY, ZEROS)


def test_counts_are_those_of_the_attacks_written_out():
    model = build("small", (1, 8, 8), 5, seed=1)
    x = images(30, (1, 8, 8), dtype=torch.float32)
    y = seen(model, x)
    y[:3] = (y[:3] + 1) % 5  # wrong to begin with: not counted
    rows = {row["check"]: row for row in masking.masking_rows(model, x, y, eps=0.1, square_images=10, queries=40)}
    x, y = x[3:], y[3:]
    right = lambda x_adv: classified_right(model, x_adv, y[: len(x_adv)])
    many = right(pgd(model, x, y, eps=0.1, alpha=0.005, steps=50))
    one = right(pgd(model, x, y, eps=0.1, alpha=0.1, steps=1))
    assert rows["one step"]["left"] == [int(one.sum()), int(many.sum())]
    assert rows["one step"]["against"] == int((many & ~one).sum()) and rows["one step"]["n"] == 27
    few = [right(pgd(model, x, y, eps=0.1, alpha=0.005, steps=k)) for k in (10, 25)]
    assert rows["more steps"]["left"] == [int(r.sum()) for r in (*few, many)]
    black = square(
        model, x[:7][many[:7]], y[:7][many[:7]], eps=0.1, queries=40, generator=torch.Generator().manual_seed(0)
    )
    both = int(classified_right(model, black, y[:7][many[:7]]).sum())
    assert rows["black box"]["left"] == [int(many[:7].sum()), both] and rows["black box"]["n"] == 7


def test_batches_add_up(plain, monkeypatch):
    model, x, y = plain
    once = masking.masking_rows(model, x, y, eps=0.1, **SMALL)
    seen_by_batch = []
    monkeypatch.setattr(masking, "IN_CACHE", 6)
    split = masking.masking_rows(model, x, y, eps=0.1, **SMALL, progress=seen_by_batch.append)
    assert seen_by_batch == [6, 6, 6, 2]
    for one, other in zip(once, split, strict=True):
        assert one["n"] == other["n"]
        if one["check"] in ("one step", "more steps", "larger ε", "whole box", "gradient at x"):
            assert one == other


def test_a_network_without_a_right_image_counts_nothing(plain):
    model, x, y = plain
    rows = masking.masking_rows(model, x, (y + 1) % 3, eps=0.1, **SMALL)
    assert {(row["against"], row["n"]) for row in rows} == {(0, 0)} and not any(map(masking.flagged, rows))


def test_more_than_one_image_and_more_than_a_hundredth_count():
    assert [masking.flagged({"against": k, "n": 50}) for k in (1, 2)] == [False, True]
    assert [masking.flagged({"against": k, "n": 200}) for k in (0, 2, 3)] == [False, False, True]


def test_the_surface_is_the_margin_on_the_plane(plain):
    model, x, y = plain
    grid = masking.surface(model, x[:1], y[:1], eps=0.1, side=5)
    along, random = masking.directions(model, x[:1], y[:1])
    logits = lambda image: model(image[None])[0].detach()
    margin = lambda image: logits(image)[y[0]] - max(v for c, v in enumerate(logits(image)) if c != y[0])
    for b, line in zip((-0.1, -0.05, 0, 0.05, 0.1), grid, strict=True):
        for a, value in zip((-0.1, -0.05, 0, 0.05, 0.1), line, strict=True):
            point = (x[0] + a * along[0] + b * random[0]).clamp(0, 1)
            assert value == pytest.approx((margin(point) / margin(x[0])).item(), abs=2e-3)
    assert grid[2][2] == 1 and grid[2][4] < 1 < grid[2][0] and set(random.unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="got 2 images"):
        masking.surface(model, x[:2], y[:2], eps=0.1)
    with pytest.raises(ValueError, match="misclassified"):
        masking.surface(model, x[:1], (y[:1] + 1) % 3, eps=0.1)


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"eps": 8}, {"square_images": -1}, {"steps": 20}])
def test_wrong_settings_are_refused_by_name(plain, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        masking.masking_rows(*plain, **{"eps": 0.1, **wrong})


def test_the_record_goes_on_radius_by_radius(monkeypatch, tmp_path, tiny_dataset):
    how = {"dataset": "digits", "method": "Int", "seed": 0, "schedule": "digits"}
    trained.save(build("small", (1, 8, 8), 3, seed=0), tmp_path / "networks/one.safetensors", how)
    monkeypatch.setattr(masking, "QUERIES", 5)
    part = sweep.Part(tiny_dataset, "small", list(sweep.find_networks("ours", tmp_path / "networks")), "ours", tmp_path)

    def run():
        (plan,) = masking.masking_plan(part, eps=[0.1, 0.2], n=20, square_images=4)
        return records.read(sweep.grow(plan, part))

    whole = run()
    assert len(whole.rows) == 2 * len(masking.CHECKS)
    grids = [row["surface"] for row in whole.rows if "surface" in row]
    assert len(grids) == 2 and {len(line) for line in grids[0]} == {masking.SIDE} == {len(grids[0])}
    kept = [row for row in whole.rows if row["eps"] == 0.1]
    records.write(records.Record(whole.family, whole.settings, kept, whole.provenance), tmp_path)
    assert run().rows == whole.rows
