"""Bounds on a ball: by hand, against explicit matrices and a peer; no image of the ball leaves them."""

import itertools

import numpy as np
import pytest
import torch
from conftest import images
from torch import nn
from toys import Louder, biased

from interp_lib.attacks.ascent import ascend
from interp_lib.attacks.balls import per_example
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import build, same_conv2d
from interp_lib.models.bounds import KINDS, Ball, map_rows

SHAPES = [(1, 28, 28), (3, 9, 8), (1, 5, 7)]


def inner(model, x):
    """z, the input of the second ReLU."""
    conv = model.conv2
    return same_conv2d(model.conv1(x).relu(), conv.weight, conv.bias, conv.stride)


def random_rows(model, n, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, count, 32, *model.trunk_size(), generator=generator, dtype=torch.float64)


def two_pixels(first, second):
    """A Small on two pixels whose h has units 0 and 1, relu(first . x) and relu(second . x)."""
    model = build("small", (1, 1, 2), 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # The pixels are at columns 1 and 2 of the first kernel, and everything at row 1.
        model.conv1.weight[:2, 0, 1, 1:3] = torch.tensor([first, second], dtype=torch.float64)
        model.conv2.weight[[0, 1], [0, 1], 1, 1] = 1.0
        model.conv3.weight[[0, 1], [0, 1], 3, 3] = 1.0
        model.classifier.weight[[0, 1], [0, 1]] = 1.0
    return model


def unit_row(a, b):
    row = torch.zeros(1, 1, 32, 1, 1, dtype=torch.float64)
    row[0, 0, :2, 0, 0] = torch.tensor([a, b], dtype=torch.float64)
    return row


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_are_the_maps(shape):
    model = biased("small", shape, 5)
    x, other = images(3, shape), images(3, shape, seed=1)
    classes = torch.arange(5).expand(3, 5)
    with torch.no_grad():
        by_rows = torch.einsum("cudhw,ndhw->ncu", map_rows(model), model.trunk(x) - model.trunk(other))
        maps = (cam(model, x, classes) - cam(model, other, classes)).flatten(2)
    assert torch.allclose(by_rows, maps, atol=1e-13)


def test_by_hand_intervals_forget_what_two_units_share():
    # x = (0.5, 0.4), eps = 0.1: x1 + x2 is in [0.7, 1.1], x1 in [0.4, 0.6], both positive; x1 - (x1 + x2) = -x2.
    x = torch.tensor([[[[0.5, 0.4]]]], dtype=torch.float64)
    model = two_pixels((1.0, 1.0), (1.0, 0.0))
    row = unit_row(-1.0, 1.0)
    assert Ball(model, x, 0.1, "IBP").upper(row).item() == pytest.approx(0.6 - 0.7)
    assert Ball(model, x, 0.1, "CROWN").upper(row).item() == pytest.approx(-0.3)


def test_by_hand_lines_can_be_looser_than_intervals():
    # z = x1 - x2 is in [-0.15, 0.25], and relu(z) - relu(-z) = z: at least -0.15, as intervals have it.
    # Lines: relu(z) >= z, and relu(-z) <= 0.15 / 0.4 (-z + 0.25), together >= 1.375 z - 0.09375, which is -0.3.
    x = torch.tensor([[[[0.5, 0.45]]]], dtype=torch.float64)
    model = two_pixels((1.0, -1.0), (-1.0, 1.0))
    row = unit_row(1.0, -1.0)
    assert -Ball(model, x, 0.1, "IBP").upper(-row).item() == pytest.approx(-0.15)
    assert -Ball(model, x, 0.1, "CROWN").upper(-row).item() == pytest.approx(-0.3)


def test_the_ball_ends_at_the_box():
    # x1 = 0.95 rises to 1 and not to 1.05.
    x = torch.tensor([[[[0.95, 0.5]]]], dtype=torch.float64)
    ball = Ball(two_pixels((1.0, 0.0), (0.0, 1.0)), x, 0.1)
    assert ball.upper(unit_row(1.0, 0.0)).item() == pytest.approx(1.0)
    assert -ball.upper(unit_row(-1.0, 0.0)).item() == pytest.approx(0.85)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_image_of_the_ball_leaves_the_bounds(shape, kind):
    model, x = biased("small", shape, 5), images(3, shape)
    rows = random_rows(model, 3, 4)
    generator = torch.Generator().manual_seed(0)
    for eps in (0.02, 0.2):
        ball = Ball(model, x, eps, kind)
        upper, lower = ball.upper(rows), -ball.upper(-rows)
        value = lambda z: (rows.flatten(2) @ model.trunk(z).flatten(1)[:, :, None])[:, :, 0]
        tried = [x + eps * torch.randn(x.shape, generator=generator, dtype=x.dtype).sign() for _ in range(10)]
        climbed = [
            ascend(lambda z, r=r, s=s: s * value(z)[:, r], x, eps=eps, alpha=eps / 5, steps=20)  # noqa: B023
            for r, s in itertools.product(range(4), (-1, 1))
        ]
        for z in (*(z.clamp(0, 1) for z in tried), *climbed):
            with torch.no_grad():
                assert (value(z) <= upper + 1e-9).all() and (value(z) >= lower - 1e-9).all()
                assert (inner(model, z) <= ball.high + 1e-9).all() and (inner(model, z) >= ball.low - 1e-9).all()
        # The attacks come near: a bound that is far from everything would pass the above.
        reached = torch.stack([value(z)[:, r] for r, z in enumerate(climbed[1::2])], 1).detach()
        assert kind == "IBP" or eps > 0.1 or ((upper - reached) < 0.5 * (upper - lower)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_ball_of_radius_0_is_the_image(kind):
    model, x = biased("small", (1, 8, 8), 5), images(4, (1, 8, 8))
    rows, ball = random_rows(model, 4, 3), Ball(model, x, 0.0, kind)
    assert torch.allclose(ball.upper(rows), -ball.upper(-rows), atol=1e-12)
    assert ball.change(rows).abs().max() < 1e-12
    with torch.no_grad():
        assert torch.allclose(ball.low, inner(model, x), atol=1e-12)


def dense_crown(model, x, eps, rows):
    """CROWN of one image, written again with explicit matrices and a loop over units."""
    jacobian = lambda function, at: (
        torch.func.jacrev(function)(at).flatten(0, -1 - at.dim()).flatten(1).detach().numpy()
    )
    first = lambda v: model.conv1(v[None])[0].flatten()
    at = torch.zeros_like(x)
    w1, b1 = jacobian(first, at), first(at).detach().numpy()
    hidden = model.conv1(x[None])[0]
    second = lambda v: same_conv2d(v[None], model.conv2.weight, model.conv2.bias, model.conv2.stride)[0].flatten()
    at = torch.zeros_like(hidden)
    w2, b2 = jacobian(second, at), second(at).detach().numpy()
    low, high = (x - eps).clamp(min=0).flatten().numpy(), (x + eps).clamp(max=1).flatten().numpy()

    def through(a, interval):
        """A linear function of z that is nowhere below <a, relu(z)>, unit by unit."""
        out, constant = np.zeros_like(a), 0.0
        for j, (l, r) in enumerate(zip(*interval, strict=True)):
            if l >= 0:
                out[j] = a[j]
            elif r > 0 and a[j] > 0:
                out[j], constant = a[j] * r / (r - l), constant - a[j] * l * r / (r - l)
            elif r > -l:
                out[j] = a[j]
        return out, constant

    def extreme(a):
        return np.where(a > 0, a * high, a * low).sum()

    one = tuple(np.array([s * (extreme(s * w) + s * b) for w, b in zip(w1, b1, strict=True)]) for s in (-1, 1))

    def second_upper(a):
        c, constant = through(a @ w2, one)
        return a @ b2 + constant + c @ b1 + extreme(c @ w1)

    eye = np.eye(len(b2))
    two = np.array([-second_upper(-e) for e in eye]), np.array([second_upper(e) for e in eye])
    bounds = []
    for row in rows:
        c, constant = through(row, two)
        bounds.append(constant + second_upper(c))
    return two, np.array(bounds)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)], ids=str)
def test_crown_is_crown_with_explicit_matrices(shape):
    model, x = biased("small", shape, 5), images(1, shape)
    rows = random_rows(model, 1, 6)
    ball = Ball(model, x, 0.07)
    (low, high), upper = dense_crown(model, x[0], 0.07, rows[0].flatten(1).numpy())
    assert np.allclose(ball.low.flatten(), low, atol=1e-11) and np.allclose(ball.high.flatten(), high, atol=1e-11)
    assert np.allclose(ball.upper(rows)[0], upper, atol=1e-11)


def test_intervals_are_intervals_with_explicit_signs():
    model, x = biased("small", (1, 8, 8), 5), images(2, (1, 8, 8))
    with torch.no_grad():
        low, high = (x - 0.05).clamp(min=0), (x + 0.05).clamp(max=1)
        for conv in (model.conv1, model.conv2):
            positive, negative = conv.weight.clamp(min=0), conv.weight.clamp(max=0)
            sides = (
                same_conv2d(a, positive, conv.bias, conv.stride) + same_conv2d(b, negative, None, conv.stride)
                for a, b in ((low, high), (high, low))
            )
            z_low, z_high = sides
            low, high = z_low.relu(), z_high.relu()
    ball = Ball(model, x, 0.05, "IBP")
    assert torch.allclose(ball.low, z_low, atol=1e-12) and torch.allclose(ball.high, z_high, atol=1e-12)
    rows = random_rows(model, 2, 3)
    expected = (rows.clamp(min=0) * high[:, None] + rows.clamp(max=0) * low[:, None]).flatten(2).sum(2)
    assert torch.allclose(ball.upper(rows), expected, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_its_own_ball(kind):
    model, x = biased("small", (1, 8, 8), 5), images(3, (1, 8, 8))
    eps, rows = torch.tensor([0.0, 0.05, 0.3], dtype=x.dtype), random_rows(model, 3, 2)
    together = Ball(model, x, eps, kind)
    alone = [Ball(model, x[n : n + 1], eps[n].item(), kind).upper(rows[n : n + 1])[0] for n in range(3)]
    assert torch.allclose(together.upper(rows), torch.stack(alone), atol=1e-12)
    index = torch.tensor([2, 0, 2])
    assert torch.allclose(together.at(index).upper(rows[index]), together.upper(rows)[index], atol=1e-12)
    assert per_example(eps, x).shape == (3, 1, 1, 1)


def test_single_precision_is_near_double():
    model, x = biased("small"), images(2)
    rows = random_rows(model, 2, 3) / 100
    for kind in KINDS:
        exact = Ball(model, x, 0.05, kind).upper(rows)
        single = Ball(biased("small").float(), x.float(), 0.05, kind).upper(rows.float())
        assert torch.allclose(single.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "error, match, changed",
    [
        (TypeError, "Small", {"model": Louder((1, 8, 8), 3)}),
        (TypeError, "Small", {"model": build("pool", (1, 8, 8), 3)}),
        (ValueError, r"eps must lie in \[0, 1\].*Write 8/255", {"eps": 8}),
        (ValueError, "eps must lie", {"eps": torch.tensor([0.1, -0.1])}),
        (ValueError, "kind must be one of", {"kind": "DeepPoly"}),
        (ValueError, "images of shape", {"x": torch.rand(2, 1, 9, 8)}),
        (ValueError, "dtype of the network", {"x": torch.rand(2, 1, 8, 8, dtype=torch.float64)}),
        (ValueError, r"must lie in \[0, 1\]", {"x": 2 * torch.ones(2, 1, 8, 8)}),
    ],
)
def test_what_is_no_ball_is_refused(error, match, changed):
    given = {"model": build("small", (1, 8, 8), 3, seed=0), "x": torch.rand(2, 1, 8, 8), "eps": 0.1, "kind": "CROWN"}
    with pytest.raises(error, match=match):
        Ball(*(given | changed).values())


def test_auto_lirpa_has_the_same_bounds():
    lirpa = pytest.importorskip("auto_LiRPA")
    model, x = biased("small", (1, 8, 8), 10).float(), images(2, (1, 8, 8), dtype=torch.float32)
    rows = map_rows(model).flatten(0, 1)
    plain = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(rows[0].numel(), len(rows), bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for layer, conv in ((plain[0], model.conv1), (plain[2], model.conv2)):
            layer.weight.copy_(conv.weight), layer.bias.copy_(conv.bias)
        plain[5].weight.copy_(rows.flatten(1))
    low, high = (x - 0.05).clamp(min=0), (x + 0.05).clamp(max=1)
    within = lirpa.PerturbationLpNorm(norm=np.inf, eps=0.05, x_L=low, x_U=high)
    peer = lirpa.BoundedModule(plain, x)
    for kind, method in zip(KINDS, ("IBP", "backward"), strict=True):
        lower, upper = peer.compute_bounds(x=(lirpa.BoundedTensor(x, within),), method=method)
        ball, of_both = Ball(model, x, 0.05, kind), rows.expand(2, *rows.shape)
        assert torch.allclose(ball.upper(of_both), upper, atol=1e-5)
        assert torch.allclose(-ball.upper(-of_both), lower, atol=1e-5)
