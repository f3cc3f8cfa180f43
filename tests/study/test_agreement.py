"""Rank correlations of maps: an independent writing with scipy, by hand, and who agrees with whom."""

import pytest
import torch
from conftest import bands, images
from scipy.stats import kendalltau

from interp_lib.discrepancies import kendall_tau
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import build
from interp_lib.study import agreement, maps_compared
from interp_lib.study.agreement import EVERY, ITSELF

DETERMINISTIC = ("CAM", "gradient", "x · gradient")


@pytest.fixture(scope="module")
def case():
    return build("small", (1, 8, 8), 3, seed=1), bands().evaluation_subset(6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_all_pairs_are_those_of_scipy(levels):
    """With three levels most pairs of pixels are tied."""
    maps = torch.randint(0, levels, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).double()
    taus = agreement.rank_correlations(maps)
    for i in range(4):
        for a in range(5):
            for b in range(5):
                expected = kendalltau(maps[i, a].flatten(), maps[i, b].flatten()).statistic
                assert taus[i, a, b].item() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(taus[:, 0, 1].sign(), kendall_tau(maps[:, 0], maps[:, 1]).sign())


def test_a_map_agrees_with_itself_and_with_no_constant():
    maps = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taus = agreement.rank_correlations(torch.cat([maps, 2 * maps + 1, -maps.exp(), torch.ones_like(maps)], 1))
    assert (taus[:, 0, :3] - torch.tensor([1.0, 1.0, -1.0])).abs().max() < 1e-12 and taus[:, 0, 3].isnan().all()


def test_more_pixels_than_float32_counts():
    a = torch.arange(4100.0)[None]
    taus = agreement.rank_correlations(torch.stack([a, a.flip(1)], 1))
    assert (taus[0] - torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).abs().max() < 1e-12


def test_sizes_are_changed_by_means_over_blocks_and_by_interpolation():
    maps = torch.arange(16.0).view(1, 4, 4)
    assert maps_compared.to_size(maps, (2, 2)).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert torch.equal(maps_compared.to_size(maps, (4, 4)), maps)
    # A plane stays a plane where bilinear interpolation does not run over the edge.
    grown = maps_compared.to_size(maps, (8, 8))[0, 1:-1, 1:-1]
    assert (grown.diff(dim=1) - 0.5).abs().max() < 1e-6 and (grown.diff(dim=0) - 2).abs().max() < 1e-6


@pytest.mark.parametrize("name", maps_compared.FUNCTIONS)
def test_every_map_is_of_one_class_without_colours_and_drawn_again_alike(name):
    model, x, y = build("small", (3, 8, 8), 3, seed=1), images(2, (3, 8, 8), dtype=torch.float32), torch.tensor([0, 2])
    maps = maps_compared.map_of(name, model, x, y)
    cams = cam(model, x, y[:, None]).shape[2:]
    assert maps.shape == (2, *(cams if "CAM" in name else (8, 8))) and not maps.requires_grad
    assert torch.equal(maps, maps_compared.map_of(name, model, x, y))
    other = maps_compared.map_of(name, model, x, (y + 1) % 3)
    assert not torch.equal(maps, other)


def test_inputs_are_in_the_ball_and_noise_is_as_large_as_an_attack(case):
    model, subset = case
    made = maps_compared.inputs_of(model, subset, eps=0.1, steps=12)
    assert tuple(made) == maps_compared.INPUTS and torch.equal(made["x"], subset.x)
    for name in ("noise", "PGD", "AAI"):
        moved = (made[name] - subset.x).abs()
        assert 0.09 < moved.max() <= 0.1 + 1e-6 and made[name].min() >= 0 and made[name].max() <= 1
    inner = (subset.x > 0.1) & (subset.x < 0.9)
    signs = (made["noise"] - subset.x)[inner]
    assert (signs.abs() - 0.1).abs().max() < 1e-6 and 0.3 < (signs > 0).double().mean() < 0.7


def test_rows_are_the_means_of_pairs_written_out(case):
    model, subset = case
    seen = []
    rows = agreement.agreement_rows(
        model, subset, eps=0.1, names=DETERMINISTIC, inputs=("x", "PGD"), steps=6, progress=seen.append
    )
    at = {(r["input"], r["grid"], r["interpreter"], r["other"]): r for r in rows}
    assert len(at) == len(rows) == 2 * (2 * 4 + 3) and seen == [1, 1]
    x_adv = maps_compared.inputs_of(model, subset, eps=0.1, steps=6)["PGD"]
    taus = {}
    for kind, x in (("x", subset.x), ("PGD", x_adv)):
        coarse = maps_compared.to_size(maps_compared.map_of("gradient", model, x, subset.y), (2, 2))
        of_cam = cam(model, x, subset.y[:, None])[:, 0]
        taus[kind] = kendall_tau(of_cam, coarse)
        row = at[kind, "CAM", "CAM", "gradient"]
        assert row["tau"] == pytest.approx(taus[kind].mean().item()) and row["n"] == 6
        assert row["se"] == pytest.approx(taus[kind].std().item() / 6**0.5)
    change = taus["PGD"] - taus["x"]
    assert at["PGD", "CAM", "CAM", "gradient"]["change"] == pytest.approx(change.mean().item())
    assert at["x", "CAM", EVERY, EVERY]["change"] == 0
    pairs = [r["tau"] for key, r in at.items() if key[:2] == ("x", "image") and key[2] != EVERY]
    assert at["x", "image", EVERY, EVERY]["tau"] == pytest.approx(sum(pairs) / 3)
    own = kendall_tau(*(maps_compared.map_of("gradient", model, x, subset.y) for x in (x_adv, subset.x)))
    assert at["PGD", "image", "gradient", ITSELF]["tau"] == pytest.approx(own.mean().item())


@pytest.mark.parametrize(
    "wrong, message",
    [({"names": ["CAM", "cam"]}, "names"), ({"inputs": ["PGD"]}, "begin with 'x'"), ({"grids": ["x"]}, "grids")],
)
def test_wrong_settings_are_refused_by_name(case, wrong, message):
    with pytest.raises(ValueError, match=message):
        agreement.agreement_rows(*case, eps=0.1, **wrong)
