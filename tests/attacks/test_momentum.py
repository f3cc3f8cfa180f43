"""MI-FGSM against its formula written out, and against PGD; test_attack_contract.py has what every attack promises."""

import pytest
import torch
import torch.nn.functional as F
from conftest import images

from interp_lib.attacks import mifgsm, pgd
from interp_lib.models.architectures import build

LABELS = torch.tensor([0, 1, 2, 0])
STEPS = {"eps": 0.1, "alpha": 0.03, "steps": 5}


@pytest.fixture
def case():
    return build("small", (1, 8, 8), 3, seed=0).double().eval(), images(4, (1, 8, 8))


@pytest.mark.parametrize("decay", [0.5, 1.0])
@pytest.mark.parametrize("targeted", [False, True])
def test_is_algorithm_1_image_by_image(case, decay, targeted):
    model, x = case
    expected = []
    for image, label in zip(x, LABELS, strict=True):
        point, g = image[None], torch.zeros_like(image[None])
        for _ in range(STEPS["steps"]):
            leaf = point.clone().requires_grad_()
            loss = F.cross_entropy(model(leaf), label[None]) * (-1 if targeted else 1)
            (gradient,) = torch.autograd.grad(loss, leaf)
            g = decay * g + gradient / gradient.abs().sum()
            point = point + STEPS["alpha"] * g.sign()
            point = image + (point - image).clamp(-STEPS["eps"], STEPS["eps"])
            point = point.clamp(0, 1)
        expected.append(point)
    x_adv = mifgsm(model, x, LABELS, decay=decay, targeted=targeted, **STEPS)
    assert (x_adv - torch.cat(expected)).abs().max() < 1e-12
    assert not torch.equal(x_adv, pgd(model, x, LABELS, targeted=targeted, **STEPS))


def test_without_momentum_is_pgd_and_runs_share_no_state(case):
    model, x = case
    assert torch.equal(mifgsm(model, x, LABELS, decay=0, **STEPS), pgd(model, x, LABELS, **STEPS))
    assert torch.equal(mifgsm(model, x, LABELS, **STEPS), mifgsm(model, x, LABELS, **STEPS))


def test_a_gradient_of_zero_moves_nothing(case):
    _, x = case
    assert torch.equal(mifgsm(lambda z: 0 * z.flatten(1)[:, :3], x, LABELS, **STEPS), x)


@pytest.mark.parametrize("decay", [-0.1, float("nan"), "1"])
def test_a_wrong_decay_is_refused(case, decay):
    with pytest.raises((TypeError, ValueError), match="decay must.*got"):
        mifgsm(*case, LABELS, decay=decay, **STEPS)
