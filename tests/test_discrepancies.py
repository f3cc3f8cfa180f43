"""Discrepancies by hand, against a literal reading of the released loop, and Proposition 1, which is to be broken."""

import math

import numpy as np
import pytest
import torch
import toys
from conftest import RELEASED, RELEASED_FOLDER, images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import randn

from interp_lib import discrepancies as D
from interp_lib import interpreters as I
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import released

DOUBLE = torch.float64
A = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 3.0]]]], dtype=DOUBLE)
B = torch.tensor([[[[3.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 3.0]]]], dtype=DOUBLE)  # differ by 3, -4; -1


@pytest.mark.parametrize(
    ("p", "squared", "each"), [(1, False, (7, 1)), (2, False, (5, 1)), (2, True, (25, 1)), (1, True, (49, 1))]
)
def test_eq_3_by_hand(p, squared, each):
    assert D.distances(A, B, p, squared).tolist() == [list(map(float, each))]
    assert D.discrepancy(A, B, p, squared).tolist() == [sum(each) / 2]
    assert D.discrepancy(A[:, :1], B[:, :1], p, squared).tolist() == [each[0]]
    factor = 9 if squared else 3
    assert D.discrepancy(A, B, p, squared, scale=3).tolist() == [factor * sum(each) / 2]


def test_eq_4_is_eq_3_for_two_classes():
    assert D.two_class_discrepancy(A, B).tolist() == [4]
    with pytest.raises(ValueError, match="two classes"):
        D.two_class_discrepancy(A[:, :1], B[:, :1])


def test_eq_8_by_hand():
    """Three classes with distances 7, 1, 2 and e^f = 1, 2, 5: by the release p = 2/7, 5/7; as printed 2/8, 5/8."""
    maps = torch.cat([A, torch.zeros(1, 1, 2, 2, dtype=DOUBLE)], 1)
    maps_adv = torch.cat([B, torch.full((1, 1, 2, 2), 0.5, dtype=DOUBLE)], 1)
    logits = torch.tensor([[1.0, 2.0, 5.0]], dtype=DOUBLE).log()
    for y, renormalised, printed in (
        (0, 7 / 2 + (2 / 7 * 1 + 5 / 7 * 2) / 2, 7 / 2 + (2 / 8 * 1 + 5 / 8 * 2) / 2),
        (2, 2 / 2 + (1 / 3 * 7 + 2 / 3 * 1) / 2, 2 / 2 + (1 / 8 * 7 + 2 / 8 * 1) / 2),
    ):
        label = torch.tensor([y])
        assert abs(float(D.target_free_discrepancy(maps, maps_adv, label, logits)) - renormalised) < 1e-14
        plain = D.target_free_discrepancy(maps, maps_adv, label, logits, renormalise=False)
        assert abs(float(plain) - printed) < 1e-14
        doubled = D.target_free_discrepancy(maps, maps_adv, label, logits, scale=2)
        assert abs(float(doubled) - 2 * renormalised) < 1e-14


def test_eq_8_is_eq_4_when_the_attack_is_certain_of_its_target():
    maps, maps_adv, logits = randn(4, 5, 3, 3), randn(4, 5, 3, 3, seed=1), torch.zeros(4, 5, dtype=DOUBLE)
    t, target = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 1, 2])
    logits[torch.arange(4), target] = 800.0  # does not overflow either
    pair = torch.stack([t, target], 1)[..., None, None].expand(-1, -1, 3, 3)
    expected = D.two_class_discrepancy(maps.gather(1, pair), maps_adv.gather(1, pair))
    for renormalise in (True, False):
        value = D.target_free_discrepancy(maps, maps_adv, t, logits, renormalise=renormalise)
        assert (value - expected).abs().max() < 1e-12


@pytest.mark.parametrize("renormalise", [True, False])
def test_derivative_of_eq_8_goes_through_the_weights(renormalise):
    maps, y = randn(3, 4, 2, 2), torch.tensor([0, 3, 1])
    maps_adv, logits = randn(3, 4, 2, 2, seed=1).requires_grad_(), randn(3, 4, seed=2).requires_grad_()
    function = lambda maps_adv, logits: D.target_free_discrepancy(maps, maps_adv, y, logits, renormalise=renormalise)
    assert torch.autograd.gradcheck(function, (maps_adv, logits))
    gradient = torch.autograd.grad(function(maps_adv, logits).sum(), logits)[0]
    assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("p", [1, 2])
def test_equal_maps_have_discrepancy_and_subgradient_zero(p):
    for squared in (False, True):
        maps = A.clone().requires_grad_()
        value = D.discrepancy(maps, A, p, squared)
        assert value.tolist() == [0] and not torch.autograd.grad(value.sum(), maps)[0].any()


def test_nds_by_hand():
    """The ranges are those of the natural maps: 4 and 2."""
    assert D.normalised_discrepancy(A, B).tolist() == [(7 / 4 + 1 / 2) / 2]
    assert D.normalised_discrepancy(A, B, 2).tolist() == [(5 / 4 + 1 / 2) / 2]
    assert D.normalised_discrepancy(A, B, 2, squared=True).tolist() == [(25 / 16 + 1 / 4) / 2]
    assert D.normalised_discrepancy(B, A).tolist() == [(7 / 3 + 1 / 3) / 2], "not symmetric"
    assert torch.equal(D.normalised_discrepancy(49 * A, 49 * B), D.normalised_discrepancy(A, B))
    constant = torch.ones_like(A)
    assert math.isnan(D.normalised_discrepancy(constant, constant)) and math.isinf(
        D.normalised_discrepancy(constant, B)
    )


def test_nsl_by_hand():
    """From .5 to .4 over eps* to 1.6 eps*: a fifth over six tenths."""
    slope = D.normalised_slope(torch.tensor([[0.5, 0.45, 0.4]]), torch.tensor([[0.1, 0.12, 0.16]]))
    assert abs(float(slope) - 0.2 / 0.6) < 1e-6


def brute_force_tau(a, b):
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(len(a)) for j in range(i)]
    s, t = np.array(signs).T
    return (s * t).sum() / math.sqrt((s * s).sum() * (t * t).sum())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20))
def test_kendall_tau_is_its_definition(seed, pixels):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 6, (2, 1, 1, pixels)).astype("float64")  # ties included
    a[0, 0, :2], b[0, 0, -2:] = (0, 1), (0, 1)  # not constant
    tau = float(D.kendall_tau(torch.from_numpy(a), torch.from_numpy(b)))
    assert abs(tau - brute_force_tau(a.ravel(), b.ravel())) < 1e-12


def test_kendall_tau_of_orders():
    maps = randn(3, 1, 7, 7)
    assert D.kendall_tau(maps, maps.exp()).tolist() == pytest.approx([1, 1, 1])
    assert D.kendall_tau(maps, -maps).tolist() == pytest.approx([-1, -1, -1])
    assert D.kendall_tau(maps, torch.zeros_like(maps)).isnan().all()
    assert D.kendall_tau(maps.float().requires_grad_(), maps.float()).dtype == DOUBLE


def test_bad_maps_are_refused():
    for function in (D.discrepancy, D.normalised_discrepancy, D.two_class_discrepancy):
        with pytest.raises(ValueError, match=r"\(N, k, h, w\)"):
            function(A, B[:, :1])
        with pytest.raises(ValueError, match=r"maps\[:, None\]"):
            function(A[0, 0], B[0, 0])
    with pytest.raises(ValueError, match="p must be one of 1, 2; got 3"):
        D.discrepancy(A, B, 3)
    with pytest.raises(ValueError, match="all classes"):
        D.target_free_discrepancy(A, B, torch.tensor([0]), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="one shape"):
        D.kendall_tau(A, B[:, :1])


# Proposition 1 -----------------------------------------------------------------------------------------------------


def test_bound_by_hand():
    logits = torch.tensor([[5.0, 1.0, 2.0], [0.0, 4.0, 7.0]])
    assert D.proposition1_bound(logits, torch.tensor([0, 1]), torch.tensor([2, 2])).tolist() == [1.5, -1.5]
    with pytest.raises(ValueError, match="t_prime"):
        D.proposition1_bound(logits, torch.tensor([0, 1]), torch.tensor([3, 2]))


def random_network(name, seed, scale):
    model = toys.biased(name, (1, 8, 8), 5, seed=seed, spread=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def margins(interpreter, model, x, x_adv, logits=None):
    """D - bound for every pair (t, t') of every image with f_t'(x') >= f_t(x'): all that Proposition 1 speaks of."""
    f, f_adv = (logits or model)(x), (logits or model)(x_adv)
    found = []
    for t in range(f.shape[1]):
        for t_prime in range(f.shape[1]):
            pair = torch.tensor([[t, t_prime]]).expand(len(x), -1)
            success = f_adv[:, t_prime] >= f_adv[:, t]
            value = D.two_class_discrepancy(interpreter(model, x, pair), interpreter(model, x_adv, pair))
            found.append((value - D.proposition1_bound(f, pair[:, 0], pair[:, 1]))[success])
    return torch.cat(found).detach()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["small", "pool"]),
    st.integers(0, 10**6),
    st.floats(0.2, 4),
    st.floats(0, 1),
    st.sampled_from(["noise", "attack", "other image"]),
    st.sampled_from([I.cam, I.gradcam]),
)
def test_proposition_1_holds(name, seed, scale, eps, kind, interpreter):
    model, x = random_network(name, seed, scale), images(3, (1, 8, 8), seed=seed)
    other = images(3, (1, 8, 8), seed=seed + 1)
    if kind == "attack":
        target = (model(x).argmax(1) + 1) % 5
        other = pgd(model, x, target, eps=eps, alpha=eps / 4, steps=8, targeted=True)
    elif kind == "noise":
        other = (x + eps * (2 * other - 1)).clamp(0, 1)
    slack = 1e-12 * max(1, float(model(x).detach().abs().max()), float(model(other).detach().abs().max()))
    assert margins(interpreter, model, x, other).min() > -slack


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 4), st.integers(1, 30), st.sampled_from(["left", "midpoint", "right"]))
def test_proposition_1_holds_up_to_the_gaps_of_completeness(seed, scale, steps, rule):
    """For any interpreter, D >= bound - (the four gaps) / 2; for IG with many steps they vanish."""
    model, x = random_network("small", seed, scale), images(3, (1, 8, 8), seed=seed)
    other = images(3, (1, 8, 8), seed=seed + 1)
    pair = torch.tensor([[0, 1], [2, 3], [4, 0]])
    f, f_adv, f_black = (model(z).detach() for z in (x, other, torch.zeros_like(x)))
    # Of the pair, t' is the class that x' prefers.
    pair = torch.where(f_adv.gather(1, pair).diff(dim=1) >= 0, pair, pair.flip(1))
    maps = [I.integrated_gradients(model, z, pair, steps=steps, rule=rule) for z in (x, other)]
    gaps = [I.completeness_gap(m, g, pair, f_black).abs().sum(1) for m, g in zip(maps, (f, f_adv), strict=True)]
    bound = D.proposition1_bound(f, *pair.T) - (gaps[0] + gaps[1]) / 2
    assert (D.two_class_discrepancy(*maps) - bound).min() > -1e-12 * max(1, float(f.abs().max()))


def pixel(value):
    return torch.full((1, 1, 1, 1), value, dtype=DOUBLE)


@pytest.mark.parametrize("interpreter", [I.gradcam_pp, I.gradcam_pp_release])
def test_proposition_1_can_break_for_gradcam_pp(interpreter):
    """f = (-x, -2x) from x = 1 to 0: both maps ignore negative weights, so D = 0 where the bound is 1/2."""
    model = toys.OnePixel(-1.0, -2.0)
    assert margins(interpreter, model, pixel(1.0), pixel(0.0)).min() == -0.5
    assert margins(I.cam, model, pixel(1.0), pixel(0.0)).min() >= 0


def test_proposition_1_can_break_for_integrated_gradients_of_few_steps():
    """f = (4 relu(x - 1/2), 0): the left rule sees nothing of the slope in one step, and all of it in many."""
    model = toys.OnePixel(4.0, 0.0, threshold=0.5)
    few, many = (lambda m, x, c, s=s: I.integrated_gradients(m, x, c, steps=s, rule="left") for s in (1, 1000))
    assert margins(few, model, pixel(1.0), pixel(0.0)).min() == -1
    assert margins(many, model, pixel(1.0), pixel(0.0)).min() > -0.01


def test_proposition_1_survives_a_constant_bias_and_not_one_that_depends_on_x():
    """Completeness fails with either. But only differences of logits enter: what is constant in x drops out of the
    changes f(x') - f(x) that the proof bounds; it can move which attacks succeed, and not break the bound."""
    bias = nn.Parameter(torch.tensor([3.0, -2.0], dtype=DOUBLE))
    model, x, x_adv = toys.OnePixel(1.0, 6.0), pixel(0.1), pixel(1.0)
    constant = lambda z: model(z) + bias
    assert (
        I.completeness_gap(I.cam(model, x, torch.tensor([[0, 1]])), constant(x), torch.tensor([[0, 1]])).abs().min() > 1
    )
    assert (constant(x_adv) - constant(x)).diff().item() > 0
    assert constant(x).argmax() == 0 and constant(x_adv).argmax() == 0
    bias.data[0] = 1.5
    assert constant(x).argmax() == 0 and constant(x_adv).argmax() == 1
    assert margins(I.cam, model, x, x_adv, constant).min() > -1e-15
    around = lambda z: model(z) + bias * (1 - z.flatten(1)) * 4  # a path around the maps
    assert around(x).argmax() == 0 and around(x_adv).argmax() == 1
    assert margins(I.cam, model, x, x_adv, around).min() < -1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 4), st.floats(0, 10))
def test_proposition_1_holds_with_any_constant_bias(seed, scale, size):
    model, x, other = (
        random_network("small", seed, scale),
        images(3, (1, 8, 8), seed=seed),
        images(3, (1, 8, 8), seed=1),
    )
    bias = size * randn(5, seed=seed)
    logits = lambda z: model(z) + bias
    assert margins(I.cam, model, x, other, logits).min() > -1e-12 * max(1, float(logits(x).detach().abs().max()))


@pytest.mark.skipif(("mnist", "small", "Normal") not in RELEASED, reason="needs the authors' networks")
def test_proposition_1_on_a_released_network(released_folder, mnist_subset):
    """Targeted PGD on the paper's images: never below the bound, and close to it."""
    model = released.read_network(released.find("mnist", "small", "Normal", RELEASED_FOLDER))
    x, y = mnist_subset.x[:60], mnist_subset.y[:60]
    target = (y + 1) % 10
    x_adv = pgd(model, x, target, eps=0.15, alpha=0.01, steps=40, targeted=True)
    pair = torch.stack([y, target], 1)
    with torch.no_grad():
        f, f_adv = model(x), model(x_adv)
        value = D.two_class_discrepancy(I.cam(model, x, pair), I.cam(model, x_adv, pair))
        bound = D.proposition1_bound(f, y, target)
    success = (f_adv.gather(1, pair).diff(dim=1) >= 0).squeeze(1) & (bound > 0)
    assert success.sum() > 20
    ratio = (value / bound)[success]
    assert ratio.min() > 1 and ratio.median() < 3
