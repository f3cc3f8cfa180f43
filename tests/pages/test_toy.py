"""The toy of two pixels against numbers worked out by hand."""

import itertools
import math

import pytest
import torch

from interp_lib import interpreters
from interp_lib.pages import toy
from interp_lib.training.methods import METHODS

X, Y, EPS = toy.two_pixels(0.7, 0.55), torch.tensor([0]), 0.15
ASCENT = {"eps": EPS, "alpha": 0.03, "steps": 10}


@pytest.fixture
def network():
    return toy.TwoPixels([[4, 8], [-4, -8], [0, 0]])


def corners():
    return torch.cat([X + EPS * toy.two_pixels(*signs) for signs in itertools.product((-1, 1), repeat=2)])


def test_a_map_is_what_each_pixel_contributes_and_sums_to_the_logit(network):
    maps = interpreters.cam(network, X, torch.tensor([[0, 1, 2]]))
    assert torch.allclose(maps[0, :, 0], torch.tensor([[0.4, 0.2], [-0.4, -0.2], [0, 0]], dtype=torch.float64))
    assert torch.allclose(network(X), torch.tensor([[0.6, -0.6, 0]], dtype=torch.float64))


def test_discrepancy_of_the_corners(network):
    """All maps move by 0.9 but the bystander's, which stays; p of the rival is a logistic function of its logit."""
    expected = [0.45 * (1 + 1 / (1 + math.exp(-rival))) for rival in (0.3, -0.9, -0.3, -1.5)]
    found = toy.discrepancy_at(network, X, Y, corners())
    assert found.tolist() == pytest.approx(expected)
    assert toy.discrepancy_at(network, X, Y, X).item() == 0


def test_margins_are_differences_of_logits(network):
    assert toy.margin_at(network, corners(), Y).tolist() == pytest.approx([-0.6, 0.9, 0.3, 1.5])


def test_the_grid_is_the_ball():
    points = toy.grid(X, EPS, side=3)
    assert points.shape == (9, 1, 1, 2)
    assert torch.allclose(points[4:5], X) and torch.allclose((points - X).abs().amax(0), torch.full_like(X[0], EPS))
    assert points[1, 0, 0, 0] == X[0, 0, 0, 0], "the first pixel varies fastest"


@pytest.mark.parametrize("signs", [(-1, -1), (-1, 1), (1, -1), (1, 1)])
def test_an_ascent_ends_at_the_corner_of_its_quadrant(network, signs):
    start = X + 0.02 * toy.two_pixels(*signs)
    path = toy.climb(network, X, Y, start, **ASCENT)
    assert path.shape == (11, 2) and torch.equal(path[:1], start.view(1, 2))
    assert torch.allclose(path[-1], (X + EPS * toy.two_pixels(*signs)).flatten())
    assert (toy.discrepancy_at(network, X, Y, path.view(-1, 1, 1, 2)).diff() > -1e-12).all()


def test_the_landscape_is_the_discrepancy_and_the_margin_on_the_grid(network):
    values, margins, paths = toy.landscape(network, X, Y, [X + 0.02], side=5, **ASCENT)
    assert values.shape == margins.shape == (5, 5) and len(paths) == 1
    assert values[0, 0].item() == pytest.approx(0.45 * (1 + 1 / (1 + math.exp(-0.3)))) == values.max().item()
    assert margins[-1, -1].item() == pytest.approx(1.5) and values[2, 2] == 0


def test_first_descent_by_hand(network):
    """w_i -> w_i + 8 (1/2 (1 - p_t) (x_i - 1/2) - 1/4 |x'_i - x_i|), gamma = 1 in the units of eq. (8)."""
    before = network.classifier.weight.detach().clone()
    path = toy.descend(network, X, Y, X - 0.02, gamma=1.0, rate=8.0, updates=1, **ASCENT)
    p = math.exp(0.6) / (math.exp(0.6) + math.exp(-0.6) + 1)
    expected = [w + 8 * (0.5 * (1 - p) * z - 0.25 * EPS) for w, z in ((4, 0.2), (8, 0.05))]
    assert path[1].classifier.weight[0].tolist() == pytest.approx(expected)
    assert torch.equal(path[0].classifier.weight, before) and torch.equal(network.classifier.weight, before)


def test_without_gamma_the_descent_is_normal_training(network):
    path = toy.descend(network, X, Y, X - 0.02, gamma=0.0, rate=2.0, updates=3, **ASCENT)
    for before, after in itertools.pairwise(path):
        (gradient,) = torch.autograd.grad(METHODS["Normal"](before, X, Y).loss(X).mean(), before.classifier.weight)
        assert torch.allclose(after.classifier.weight, before.classifier.weight - 2.0 * gradient)


def test_int_holds_on_the_whole_ball_and_normal_does_not(network):
    last = {
        gamma: toy.descend(network, X, Y, X - 0.02, gamma=gamma, rate=8.0, updates=50, **ASCENT)[-1]
        for gamma in (0.0, 1.0)
    }
    worst = {gamma: toy.margin_at(n, toy.grid(X, EPS), Y).min().item() for gamma, n in last.items()}
    assert worst[1.0] > 0.1 and worst[0.0] < -0.1
