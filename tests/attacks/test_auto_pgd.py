"""APGD against closed forms, an independent writing of its schedule, and the paper's attack on a released network."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import images
from torch import nn

from interp_lib import pgd
from interp_lib.attacks.auto_pgd import _Loss, apgd, dlr
from interp_lib.fast.fold import fold_for_attack
from interp_lib.models import released
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right

DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(classes=4, pixels=6):
    weight = torch.randn(classes, pixels, generator=seeded(3), dtype=DOUBLE)
    layer = nn.Linear(pixels, classes, bias=False, dtype=DOUBLE)
    layer.weight.data = weight
    return nn.Sequential(nn.Flatten(), layer), weight


def test_two_classes_of_a_linear_network_are_separated_as_far_as_ball_and_box_allow():
    model, weight = linear(2)
    x = 0.1 + 0.8 * images(5, (1, 2, 3))
    y = torch.tensor([0, 1, 0, 1, 0])
    away = weight[1 - y] - weight[y]
    best = (x + 0.15 * away.sign().view_as(x)).clamp(0, 1)
    # A network without mistakes under attack: then the image of the largest loss is returned.
    model[1].weight.data *= 1e-3
    model = nn.Sequential(model, Lead(y))
    x_adv = apgd(model, x, y, eps=0.15, steps=60, generator=seeded())
    assert torch.allclose(x_adv, best, atol=1e-9)


class Lead(nn.Module):
    """Adds a constant to the true classes' logits, so that no attack changes the prediction."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, logits):
        return logits + F.one_hot(self.y[: len(logits)], logits.shape[1])


def test_dlr_by_hand_and_without_a_scale():
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0, -2.0]])
    value = dlr(logits, torch.tensor([0]), torch.tensor([1]))
    assert float(value) == pytest.approx(-(5 - 3) / (5 - (1 + 0) / 2))
    assert torch.allclose(dlr(100 * logits, torch.tensor([0]), torch.tensor([1])), value)
    overtaken = dlr(logits, torch.tensor([1]), torch.tensor([0]))
    assert float(overtaken) > 0


@pytest.mark.parametrize("target", [None, 1])
def test_the_loss_its_gradient_and_the_prediction(target):
    model = build("small", seed=0).double()
    x, y = images(6), torch.arange(6) % 10
    towards = None if target is None else (y + target) % 10
    value, gradient, right = _Loss(fold_for_attack(model), y, towards)(x)
    at = x.clone().requires_grad_()
    logits = model(at)
    plain = F.cross_entropy(logits, y, reduction="none") if target is None else dlr(logits, y, towards)
    assert torch.allclose(value, plain, atol=1e-9)
    assert torch.allclose(gradient, torch.autograd.grad(plain.sum(), at)[0], atol=1e-9)
    assert torch.equal(right, logits.argmax(1) == y)


def test_right_or_wrong_is_read_off_the_loss_only_where_it_is_certain():
    y = torch.zeros(4, dtype=torch.long)
    # p_y: 0.95, 0.45 and the largest, 0.40 and not the largest, 0.05.
    p = torch.tensor([[0.95, 0.03, 0.02], [0.45, 0.35, 0.2], [0.4, 0.5, 0.1], [0.05, 0.9, 0.05]], dtype=DOUBLE)
    asked = []

    class Table(nn.Module):
        def forward(self, x):
            index = x.flatten(1)[:, 0].round().long()
            asked.append(index.tolist())
            return p.log()[index]

    loss = _Loss(fold_for_attack(Table()), y, None)
    x = torch.arange(4, dtype=DOUBLE).view(4, 1, 1, 1)
    value = F.cross_entropy(p.log(), y, reduction="none")
    assert loss.right(x, value).tolist() == [True, True, False, False]
    assert asked[-1] == [1, 2]


def written_out(loss, x, start, eps, steps):
    """Algorithm 1 for one image, with lists: the iterate, its best point, and the checks."""
    project = lambda z: torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    checks, wait = [0], max(int(0.22 * steps), 1)
    while checks[-1] + wait <= steps:
        checks.append(checks[-1] + wait)
        wait = max(wait - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    points, values = [start], [loss(start)[0]]
    best, eta, halved_before, best_before = 0, 2 * eps, True, values[0]
    current, gradient, rises = start, loss(start)[1], []
    before = start
    for k in range(steps):
        plain = project(current + eta * gradient.sign())
        share = 0.25 if k else 0.0
        moved = project(current + (1 - share) * (plain - current) + share * (current - before))
        value, slope = loss(moved)
        rises.append(value > values[-1])
        before, current, gradient = current, moved, slope
        points.append(moved)
        values.append(value)
        if value > values[best]:
            best = k + 1
        if k + 1 in checks:
            halve = sum(rises) <= 0.75 * len(rises) or (not halved_before and best_before >= values[best])
            if halve:
                eta, current, gradient = eta / 2, points[best], loss(points[best])[1]
            halved_before, best_before, rises = halve, values[best], []
    return points[best]


def test_the_schedule_is_algorithm_1():
    model = build("small", (1, 8, 8), 4, seed=1).double()
    x, y = images(5, (1, 8, 8)), torch.tensor([0, 1, 2, 3, 0])
    y = model(x).argmax(1)
    start = (x + 0.02 * (2 * torch.rand(x.shape, generator=seeded(5), dtype=DOUBLE) - 1)).clamp(0, 1)
    x_adv = apgd(model, x, y, eps=0.02, steps=40, start=start)
    assert (model(x_adv).argmax(1) == y).all(), "choose a smaller eps: a fooled image returns what fooled it"
    for i in range(5):

        def loss(z, i=i):
            z = z.clone().requires_grad_()
            value = F.cross_entropy(model(z), y[i : i + 1])
            return float(value.detach()), torch.autograd.grad(value, z)[0]

        expected = written_out(loss, x[i : i + 1], start[i : i + 1], 0.02, 40)
        assert torch.allclose(x_adv[i : i + 1], expected, atol=1e-9)


def test_an_image_that_fools_once_is_returned_whatever_comes_after():
    model = build("small", (1, 8, 8), 4, seed=1).double()
    x = images(12, (1, 8, 8))
    y = model(x).argmax(1)
    x_adv = apgd(model, x, y, eps=0.5, steps=30, generator=seeded())
    fooled = ~classified_right(model, x_adv, y)
    assert fooled.any()
    again = apgd(model, x, y, eps=0.5, steps=60, generator=seeded())
    assert (~classified_right(model, again, y))[fooled].float().mean() > 0.7


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "either generator"),
        ({"generator": seeded(), "start": torch.zeros(2, 1, 8, 8)}, "either generator"),
        ({"generator": seeded(), "target": torch.tensor([0, 9])}, "target must lie in"),
        ({"generator": seeded(), "steps": -1}, "steps"),
        ({"generator": seeded(), "eps": 8}, "8/255"),
    ],
)
def test_wrong_inputs_are_refused(wrong, message):
    model = build("small", (1, 8, 8), 4, seed=1)
    with pytest.raises(ValueError, match=message):
        apgd(model, torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), **{"eps": 0.1, **wrong})


def test_a_target_needs_four_classes():
    model = build("small", (1, 8, 8), 3, seed=1)
    x, y = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="four classes or more; this one has 3"):
        apgd(model, x, y, eps=0.1, target=y, generator=seeded())


def test_it_is_no_weaker_than_the_papers_attack(mnist_subset, released_folder):
    network = released.load("mnist_smallgap_int_100", released_folder)
    x, y = mnist_subset.x[:60], mnist_subset.y[:60]
    adaptive = classified_right(network, apgd(network, x, y, eps=0.3, generator=seeded()), y).sum()
    fixed = classified_right(network, pgd(network, x, y, eps=0.3, alpha=0.01, steps=100), y).sum()
    assert adaptive <= fixed + 2 and math.isfinite(float(adaptive))
