"""Losses of attacks against their formulas, written out or taken from the modules that define their parts."""

import pytest
import torch
import torch.nn.functional as F
from conftest import images

from interp_lib.attacks import dlr, loss_objective
from interp_lib.attacks.ascent import value_and_gradient
from interp_lib.attacks.losses import LOSSES
from interp_lib.discrepancies import target_free_discrepancy
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import build
from interp_lib.training.methods import METHODS

LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture(params=["small", "pool"])
def case(request):
    model = build(request.param, (1, 8, 8), 5, seed=0).double().eval()
    return model, images(4, (1, 8, 8)), images(4, (1, 8, 8), seed=1)


def written_out(model, x, x_adv, loss, gamma):
    logits, every = model(x_adv), torch.arange(5).expand(4, 5)
    entropy = -logits.log_softmax(1)[range(4), LABELS]
    ordered = [row.sort(descending=True).values.tolist() for row in logits.detach()]
    others = [torch.cat([row[:t], row[t + 1 :]]).max() for row, t in zip(logits, LABELS, strict=True)]
    ahead = logits[range(4), LABELS] - torch.stack(others)
    clean, maps = (cam(model, z, every, create_graph=True) for z in (x, x_adv))
    pixels = clean.shape[2] * clean.shape[3]
    moved = target_free_discrepancy(clean, maps, LABELS, logits, scale=2 * pixels)
    return {
        "cross-entropy": entropy,
        "margin": -ahead,
        "DLR": torch.stack([-a / (row[0] - row[2]) for a, row in zip(ahead, ordered, strict=True)]),
        "D~": moved,
        "cross-entropy + γ D~": entropy + gamma * moved,
        "cross-entropy − γ D~": entropy - gamma * moved,
    }[loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_its_formula(case, loss):
    model, x, x_adv = case
    value = loss_objective(model, x, LABELS, loss, gamma=0.3)(x_adv)
    assert torch.allclose(value, written_out(model, x, x_adv, loss, 0.3), atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_its_gradient_is_the_networks_also_where_it_is_compiled(loss):
    model = build("small", seed=0).eval()
    x, x_adv = (images(4, seed=seed, dtype=torch.float32) for seed in (0, 1))
    objective = loss_objective(model, x, LABELS, loss, gamma=0.3)
    value, gradient = value_and_gradient(objective, x_adv)
    double, at = model.double(), x_adv.double().requires_grad_()
    plain = loss_objective(double, x.double(), LABELS, loss, gamma=0.3)(at)
    (expected,) = torch.autograd.grad(plain.sum(), at)
    assert torch.allclose(value.double(), plain, rtol=1e-4, atol=1e-5)
    assert (gradient - expected).norm() < 1e-3 * expected.norm()  # float32; a ReLU near 0 may open or shut


@pytest.mark.parametrize("method, loss", [("Int", "D~"), ("Int-Adv", "cross-entropy + γ D~")])
def test_the_adaptive_losses_are_what_training_climbs(case, method, loss):
    model, x, x_adv = case
    trained_on = METHODS[method](model, x, LABELS, 0.3).objective
    assert torch.allclose(loss_objective(model, x, LABELS, loss, gamma=0.3)(x_adv), trained_on(x_adv))


def test_the_discrepancy_has_no_gradient_at_x(case):
    model, x, _ = case
    value, gradient = value_and_gradient(loss_objective(model, x, LABELS, "D~"), x)
    assert value.abs().max() == 0 and gradient.abs().max() == 0


def test_dlr_without_a_target_by_hand():
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0, -2.0]])
    value = [dlr(logits, torch.tensor([t])).item() for t in (0, 1, 3)]
    assert value == pytest.approx([-(5 - 3) / (5 - 1), -(3 - 5) / (5 - 1), -(0 - 5) / (5 - 1)])
    assert torch.allclose(dlr(1e4 * logits, torch.tensor([0])), dlr(logits, torch.tensor([0])))


def test_cross_entropy_of_a_sure_network_has_no_gradient_where_dlr_has_one():
    model = build("small", (1, 8, 8), 5, seed=0).eval()
    x = images(4, (1, 8, 8), dtype=torch.float32)
    with torch.no_grad():
        y = model(x).argmax(1)
        model.classifier.weight *= 1e5
    size = {loss: value_and_gradient(loss_objective(model, x, y, loss), x)[1].abs().amax() for loss in LOSSES[:3]}
    assert size["cross-entropy"] == 0 < size["DLR"] < 1e3 < size["margin"]
    assert F.cross_entropy(model(x), y) == 0


@pytest.mark.parametrize("wrong", [{"loss": "hinge"}, {"gamma": -1.0}])
def test_wrong_settings_are_refused_by_name(case, wrong):
    model, x, _ = case
    with pytest.raises(ValueError, match=next(iter(wrong))):
        loss_objective(model, x, LABELS, **{"loss": "D~", **wrong})
