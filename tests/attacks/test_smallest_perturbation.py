"""The smallest perturbation size: closed forms on a linear classifier, and what bisection promises."""

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from test_projected_gradient_descent import images

from interp_lib.attacks.balls import bisect, perturbation_size, project
from interp_lib.attacks.interpretability_sneaking import margin, margin_attack
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.attacks.smallest_perturbation import minimal_eps
from interp_lib.models.architectures import build

DOUBLE = torch.float64


def smallest_of_a_linear_classifier(model, x, y):
    """Two classes: the eps at which the margin, lowered by the worst corner of ball and box, reaches zero.

    The worst corner lowers it by sum_i |w_i| min(eps, room_i), concave and piecewise linear in eps: inverted exactly,
    piece by piece, from the sorted room.
    """
    weight = (model.weight[1 - y] - model.weight[y]).detach()
    lead = (model(x).gather(1, y[:, None]) - model(x).gather(1, 1 - y[:, None])).detach()[:, 0]
    flat = x.flatten(1)
    room, order = torch.where(weight > 0, 1 - flat, flat).sort(1)
    slope = weight.abs().gather(1, order)
    left = slope.sum(1, keepdim=True) - slope.cumsum(1) + slope  # slopes of the pixels that still have room
    gained = (torch.diff(room, dim=1, prepend=torch.zeros(len(x), 1, dtype=DOUBLE)) * left).cumsum(1)
    piece = (gained < lead[:, None]).sum(1)
    out_of_reach = piece == room.shape[1]
    piece = piece.clamp(max=room.shape[1] - 1)[:, None]
    eps = (room.gather(1, piece) - (gained.gather(1, piece) - lead[:, None]) / left.gather(1, piece))[:, 0]
    return torch.where(lead < 0, 0.0, torch.where(out_of_reach, torch.inf, eps))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_finds_the_exact_smallest_eps_of_a_linear_classifier(seed):
    model, x, y = toys.Linear(classes=2, seed=seed), images(6, seed=seed), torch.arange(6) % 2
    exact = smallest_of_a_linear_classifier(model, x, y)
    attack = lambda eps: pgd(model, x, y, eps=eps, alpha=1.0, steps=1)
    found = minimal_eps(attack, lambda x_adv: model(x_adv).detach().argmax(1) != y, x, rounds=40)
    reachable = exact <= 1
    assert torch.equal(found.success, reachable)
    assert (found.eps[reachable] - exact[reachable]).abs().max() < 1e-7 if reachable.any() else True
    assert (found.eps[~reachable] == 1).all()
    assert (perturbation_size(found.x_adv, x) <= found.eps + 1e-12).all()


def test_fewer_rounds_give_an_upper_bound_as_near_as_promised():
    model, x, y = toys.Linear(classes=2, seed=4), images(20, seed=1), torch.arange(20) % 2
    exact = smallest_of_a_linear_classifier(model, x, y)
    attack = lambda eps: pgd(model, x, y, eps=eps, alpha=1.0, steps=1)
    before = torch.full((20,), 1.0, dtype=DOUBLE)
    for rounds in range(0, 14):
        found = minimal_eps(attack, lambda x_adv: model(x_adv).detach().argmax(1) != y, x, first=0.5, rounds=rounds)
        assert (found.eps <= before).all()
        inside = exact <= 1
        assert (found.eps[inside] >= exact[inside] - 1e-12).all()
        assert (found.eps[inside] - exact[inside]).max() <= 2.0**-rounds + 1e-12  # first = 1/2 is plain bisection
        before = found.eps


def test_the_images_succeed_where_it_says_so_and_the_search_asks_for_what_it_returns():
    model, x = build("small", seed=0).double().eval(), images(6, (1, 28, 28))
    y = model(x).argmax(1)
    target = (y + 1) % 10
    asked = []

    def attack(eps):
        asked.append(eps)
        return margin_attack(model, x, y, target, eps=eps, alpha=0.2 * eps, steps=6)

    found = minimal_eps(attack, lambda x_adv: margin(model(x_adv), target) > 0, x)
    assert torch.equal(margin(model(found.x_adv), target) > 0, found.success)
    assert (torch.stack(asked) == found.eps).any(0)[found.success].all()
    assert len(asked) <= 11 and all(eps.shape == (6,) for eps in asked)
    again = margin_attack(model, x, y, target, eps=found.eps, alpha=0.2 * found.eps, steps=6)
    assert (again - found.x_adv).abs().max() < 1e-12


def test_an_image_that_is_wrong_already_needs_less_and_less():
    x, never = images(3), torch.tensor([False, True, True])
    found = minimal_eps(lambda eps: x, lambda x_adv: ~never, x, rounds=10)
    assert found.eps[0] == pytest.approx(0.05 / 2**9) and found.success.tolist() == [True, False, False]
    assert (found.eps[1:] == 1).all() and torch.equal(found.x_adv, x)


def test_the_search_of_the_released_code_by_hand():
    """eps doubles from 0.05, up to the middle of what is left; then it halves."""
    x, asked = images(2), []
    true = torch.tensor([0.3, 0.9], dtype=DOUBLE)

    def attack(eps):
        asked.append(eps.tolist())
        return x

    minimal_eps(attack, lambda x_adv: torch.tensor(asked[-1], dtype=DOUBLE) >= true, x, rounds=6)
    first, second = zip(*asked, strict=True)
    assert first[:6] == pytest.approx((0.05, 0.1, 0.2, 0.4, 0.3, 0.25))
    assert second[:6] == pytest.approx((0.05, 0.1, 0.2, 0.4, 0.7, 0.85))


@settings(deadline=None, max_examples=60)
@given(
    turns=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    first=st.floats(1e-5, 0.5),
    rounds=st.integers(0, 40),
)
def test_bisection_encloses_the_turn(turns, first, rounds):
    turns = torch.tensor(turns, dtype=DOUBLE)
    low, high = bisect(
        lambda value: value < turns,
        torch.full_like(turns, first),
        torch.zeros_like(turns),
        torch.ones_like(turns),
        rounds,
    )
    assert ((low < turns) | (low == 0)).all() and ((high >= turns) | (high == 1)).all() and (low <= high).all()
    doublings = 18  # from 1e-5 to 1/2 and past it
    assert (high - low <= 2.0 ** (min(doublings, rounds) - rounds) + 1e-12).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"first": 0.0}, r"first must be .* in \(0, 1\]"),
        ({"first": 2.0}, r"first must be .* in \(0, 1\]"),
        ({"rounds": -1}, "rounds must be .* >= 0"),
        ({"high": 0.01}, r"first must be .* in \(0, 0.01\]"),
    ],
)
def test_a_search_without_sense_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        minimal_eps(lambda eps: images(), lambda x_adv: torch.ones(4, dtype=torch.bool), images(), **change)


# Projection


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), eps=st.floats(0, 5), norm=st.sampled_from(["l2", "l1", "linf"]))
def test_a_projection_is_feasible_idempotent_and_nearest(seed, eps, norm):
    """Nearest: the line to any other feasible point leaves at an obtuse angle."""
    generator = torch.Generator().manual_seed(seed)
    x = images(5, seed=seed)
    moved = x + torch.randn(x.shape, generator=generator, dtype=DOUBLE)
    eps = min(eps, 1.0) if norm == "linf" else eps
    nearest = project(moved, x, eps, norm)
    assert (perturbation_size(nearest, x, norm) <= eps + 1e-9).all() and nearest.min() >= 0 and nearest.max() <= 1
    assert (project(nearest, x, eps, norm) - nearest).abs().max() < 1e-9
    for _ in range(10):
        other = project(x + torch.randn(x.shape, generator=generator, dtype=DOUBLE), x, eps, norm)
        assert (((moved - nearest) * (other - nearest)).sum((1, 2, 3)) <= 1e-6).all()
