"""Every method against a loss written out here, on the plain network: value, weights' gradient, what x' climbs."""

import pytest
import torch
import torch.nn.functional as F
import toys
from conftest import images

from interp_lib import models, paper
from interp_lib.attacks.ascent import input_gradient
from interp_lib.fast.fold import fold_for_training
from interp_lib.models.architectures import build
from interp_lib.training import methods

SHAPES = {"small": (1, 28, 28), "pool": (1, 8, 8), "wresnet": (3, 8, 8)}


def case(architecture="small", classes=5):
    """A network in double precision with biases, a batch, and a point near it."""
    model = toys.biased(architecture, SHAPES[architecture], classes, seed=1, spread=0.2)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.classifier.weight.mul_(4)  # logits that differ
    x = images(IMAGES, SHAPES[architecture], seed=3)
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).clamp(0, 1)
    return model, x, torch.randint(classes, (IMAGES,), generator=generator), x_adv


def test_the_names_that_need_no_pytorch_are_those_that_there_are():
    assert tuple(methods.METHODS)[: len(paper.METHODS)] == paper.METHODS
    assert tuple(models.ARCHITECTURES) == tuple(paper.ARCHITECTURE_TITLES)


# The methods, image by image and class by class, on the plain network


def cross_entropy(model, x, t):
    return -model(x[None])[0].log_softmax(0)[t]


def plain_cams(model, x):
    """The CAMs of the release: plain sums, u times eq. (1)."""
    return torch.einsum("ck,khw->chw", model.classifier.weight, model.features(x[None])[0])


def first_norm(model, x, x_adv, t):
    return (plain_cams(model, x)[t] - plain_cams(model, x_adv)[t]).abs().sum()


def int_norms(model, x, x_adv, t):
    maps, maps_adv = plain_cams(model, x), plain_cams(model, x_adv)
    e = model(x_adv[None])[0].exp()
    others = [i for i in range(len(e)) if i != t]
    weighted = sum(e[i] / e[others].sum() * (maps[i] - maps_adv[i]).abs().sum() for i in others)
    return first_norm(model, x, x_adv, t) + weighted


def divergence(model, x, x_adv, t):
    p, q = model(x[None])[0].softmax(0), model(x_adv[None])[0].softmax(0)
    return (p * (p / q).log()).sum()


def ig_norm(model, x, x_adv, t):
    gradients = []
    for s in range(1, 6):
        point = x + s / 5 * (x_adv - x)
        if not point.requires_grad:
            point.requires_grad_()
        gradients.append(torch.autograd.grad(cross_entropy(model, point, t), point, create_graph=True)[0])
    return ((x_adv - x) * sum(gradients) / 5).abs().sum()


def alp(model, x, x_adv, t):
    logits, logits_adv = model(x[None])[0], model(x_adv[None])[0]
    both = cross_entropy(model, x, t) + cross_entropy(model, x_adv, t)
    return both / 2 + 0.5 * sum((a - b) ** 2 for a, b in zip(logits, logits_adv, strict=True)) / len(logits)


GAMMA = 0.03
IMAGES = 6  # of a batch: the weight of IG-Norm is 1 over it
# method -> (its loss of one image, what x' climbs of it)
PLAIN = {
    "Normal": (lambda m, x, a, t: cross_entropy(m, x, t), None),
    "Adv": (lambda m, x, a, t: cross_entropy(m, a, t),) * 2,
    "TRADES": (lambda m, x, a, t: cross_entropy(m, x, t) + divergence(m, x, a, t), divergence),
    "IG-Norm": (lambda m, x, a, t: cross_entropy(m, x, t) + ig_norm(m, x, a, t) / IMAGES, ig_norm),
    "IG-Norm-Sum": (lambda m, x, a, t: cross_entropy(m, a, t) + ig_norm(m, x, a, t) / IMAGES,) * 2,
    "Chen-IG-Norm": (lambda m, x, a, t: cross_entropy(m, x, t) + ig_norm(m, x, a, t), ig_norm),
    "Chen-IG-Sum-Norm": (lambda m, x, a, t: cross_entropy(m, a, t) + 0.1 * ig_norm(m, x, a, t),) * 2,
    "Int-1-class": (lambda m, x, a, t: cross_entropy(m, x, t) + GAMMA * first_norm(m, x, a, t), first_norm),
    "Int": (lambda m, x, a, t: cross_entropy(m, x, t) + GAMMA * int_norms(m, x, a, t), int_norms),
    "Int-Adv": (lambda m, x, a, t: cross_entropy(m, a, t) + GAMMA * int_norms(m, x, a, t),) * 2,
}
PLAIN["ALP"] = alp, PLAIN["Adv"][0]
PLAIN["Int2"] = PLAIN["Int"][0], PLAIN["Adv"][0]
PLAIN["Int2-Adv"] = PLAIN["Int-Adv"][0], PLAIN["Adv"][0]


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("method", ["IG-Norm", "IG-Norm-Sum"])
def test_ig_norm_is_the_graph_of_the_release(method, size):
    """The batch's graph as the released code builds it: it differentiates the mean cross-entropy of the batch.

    One image at a time cannot see the weight 1/N that this gives the penalty.
    """
    model = build("small", (1, 8, 8), 5, seed=1).double()
    x = images(size, (1, 8, 8), seed=3)
    generator = torch.Generator().manual_seed(4)
    y = torch.randint(5, (size,), generator=generator)
    inputs_adv = (x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).clamp(0, 1).requires_grad_()
    grad_sum = torch.zeros_like(x)
    for k in range(5):
        z = x + (inputs_adv - x) * (k + 1) / 5
        f = F.cross_entropy(model(z), y)  # reduce_mean, over the batch
        grad_sum = grad_sum + torch.autograd.grad(f, z, create_graph=True)[0]
    ig = (inputs_adv - x) * grad_sum / 5
    release = F.cross_entropy(model(x if method == "IG-Norm" else inputs_adv), y) + ig.abs().flatten(1).sum(1).mean()
    problem = methods.METHODS[method](model, x, y)
    assert problem.loss(inputs_adv).mean().item() == pytest.approx(release.item(), rel=1e-12)
    weights = tuple(model.parameters())
    expected = torch.autograd.grad(release, (inputs_adv, *weights), retain_graph=True, allow_unused=True)
    ours = torch.autograd.grad(problem.loss(inputs_adv).mean(), weights, allow_unused=True)
    for gradient, other in zip(ours, expected[1:], strict=True):
        assert gradient is other is None or torch.allclose(gradient, other, rtol=1e-9, atol=1e-14)
    climbed = input_gradient(problem.objective, inputs_adv.detach())  # of IG-Norm without its constant factor 1/N^2
    factor = size if method == "IG-Norm-Sum" else size * size
    assert torch.allclose(climbed, factor * expected[0], rtol=1e-9, atol=1e-14)


def test_every_method_of_the_tables_is_written_out_here():
    assert set(paper.METHODS) <= set(PLAIN) <= set(methods.METHODS)


def slope(function, tensors, seed=5, step=1e-6):
    """The derivative of a function without arguments along a random direction of its tensors, which stay as they are:
    the central difference, and the direction."""
    generator = torch.Generator().manual_seed(seed)
    moves, ends = [torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in tensors], []
    for sign in (1, -2, 1):  # to z + hv, to z - hv, and back to z
        with torch.no_grad():
            for tensor, move in zip(tensors, moves, strict=True):
                tensor.add_(move, alpha=sign * step)
        ends.append(function().sum().item())
    return (ends[0] - ends[1]) / (2 * step), moves


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_keeps_the_contract(method):
    """A loss per image, whose gradient trains the weights; an objective per image, whose gradient x' climbs."""
    model, x, y, x_adv = case("pool")
    x_adv, weights, make = x_adv.clone(), tuple(model.parameters()), methods.METHODS[method]
    problem = make(model, x, y, GAMMA)
    at = x if problem.objective is None else x_adv
    loss = problem.loss(at)
    assert loss.shape == (len(x),) and loss.isfinite().all()
    gradients = torch.autograd.grad(loss.sum(), weights, allow_unused=True)
    numeric, moves = slope(lambda: make(model, x, y, GAMMA).loss(at), weights)
    analytic = sum((g * m).sum() for g, m in zip(gradients, moves, strict=True) if g is not None)
    assert float(analytic) == pytest.approx(numeric, rel=1e-4)
    if problem.objective:
        climbed = input_gradient(problem.objective, x_adv)
        numeric, (move,) = slope(lambda: problem.objective(x_adv), [x_adv])
        assert float((climbed * move).sum()) == pytest.approx(numeric, rel=1e-4)
        value = problem.objective(x_adv)
        assert value.shape == (len(x),) and climbed.abs().amax((1, 2, 3)).min() > 0
        assert torch.allclose(problem.objective(torch.cat([x_adv[:1], x[1:]]))[0], value[0], rtol=1e-10)


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("method", PLAIN)
def test_loss_and_weights_gradient(method, architecture):
    model, x, y, x_adv = case(architecture)
    weights = tuple(model.parameters())
    loss = methods.METHODS[method](model, x, y, GAMMA).loss(x_adv if PLAIN[method][1] else x).mean()
    plain = sum(PLAIN[method][0](model, x[n], x_adv[n], y[n]) for n in range(len(x))) / len(x)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-10)
    ours = torch.autograd.grad(loss, weights, allow_unused=True)
    theirs = torch.autograd.grad(plain, weights, allow_unused=True)
    for gradient, expected in zip(ours, theirs, strict=True):
        if expected is None:  # a last bias does not move IG's cross-entropy by itself
            assert gradient is None or gradient.abs().max() < 1e-12
        else:
            assert (gradient - expected).abs().max() < 1e-9 * max(expected.abs().max().item(), 1)


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("method", [m for m in PLAIN if PLAIN[m][1]])
def test_objective_and_its_gradient(method, architecture):
    model, x, y, x_adv = case(architecture)
    objective = methods.METHODS[method](model, x, y, GAMMA).objective
    with torch.enable_grad():
        plain = torch.stack([PLAIN[method][1](model, x[n], x_adv[n], y[n]) for n in range(len(x))])
    value = objective(x_adv)
    assert value.shape == (len(x),) and torch.allclose(value, plain, rtol=1e-10)
    z = x_adv.clone().requires_grad_()
    total = sum(PLAIN[method][1](model, x[n], z[n], y[n]) for n in range(len(x)))
    (expected,) = torch.autograd.grad(total, z)
    assert expected.abs().max() > 1e-6
    assert (input_gradient(objective, x_adv) - expected).abs().max() < 1e-9 * expected.abs().max()


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "Normal"])
def test_objectives_know_no_weights(method, architecture):
    model, x, y, x_adv = case(architecture)
    objective = methods.METHODS[method](model, x, y, GAMMA).objective
    if objective is None:
        pytest.skip("no inner maximisation")
    value = objective(x_adv.requires_grad_()).sum()
    got = torch.autograd.grad(value, tuple(model.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in got)


@pytest.mark.parametrize("method, same", [("Int", "Normal"), ("Int-1-class", "Normal"), ("Int-Adv", "Adv")])
def test_without_gamma_the_discrepancy_is_gone(method, same):
    model, x, y, x_adv = case()
    without = methods.METHODS[method](model, x, y, 0.0).loss(x_adv).mean()
    plain = methods.METHODS[same](model, x, y).loss(x if same == "Normal" else x_adv).mean()
    assert without.item() == pytest.approx(plain.item(), rel=1e-12)


@pytest.mark.parametrize("method", PLAIN)
def test_without_a_ball_the_methods_written_out_here_are_normal_training(method):
    model, x, y, _ = case()
    each = methods.METHODS[method](model, x, y).loss(x)
    assert torch.allclose(each, F.cross_entropy(model(x), y, reduction="none"))


def test_gamma_of_the_release_in_units_of_the_text():
    """gamma_text D~ of eq. (8) = gamma_release times a plain sum without 1/2: gamma_text = 2 u gamma_release."""
    from interp_lib.discrepancies import target_free_discrepancy
    from interp_lib.interpreters.class_activation_maps import cam

    model, x, y, x_adv = case()
    u = 49
    every = torch.arange(5).expand(len(x), -1)
    text = target_free_discrepancy(cam(model, x, every), cam(model, x_adv, every), y, model(x_adv)).mean()
    difference = methods.METHODS["Int"](model, x, y, 0.01).loss(x_adv).mean() - F.cross_entropy(model(x), y)
    assert difference.item() == pytest.approx(2 * u * 0.01 * text.item(), rel=1e-9)


def test_a_path_of_many_steps_sums_to_the_difference_of_losses():
    model, x, y, x_adv = case()
    integral, logits_adv = methods.path_integral(model, x, x_adv, y, steps=400)
    gained = F.cross_entropy(model(x_adv), y, reduction="none") - F.cross_entropy(model(x), y, reduction="none")
    assert gained.abs().max() > 1e-3
    assert torch.allclose(integral.flatten(1).sum(1), gained, rtol=0.02, atol=1e-4)
    assert torch.allclose(logits_adv, model(x_adv))


def test_gradient_of_ig_norm_is_a_finite_difference():
    model, x, y, x_adv = case()
    objective = methods.METHODS["IG-Norm"](model, x, y).objective
    gradient = input_gradient(objective, x_adv)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    h = 1e-7
    numeric = (objective(x_adv + h * direction) - objective(x_adv - h * direction)).detach() / (2 * h)
    assert torch.allclose((gradient * direction).flatten(1).sum(1), numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", SHAPES)
def test_folds_for_training_are_the_network(architecture):
    model, x, _, _ = case(architecture)
    for folded in fold_for_training(model):
        logits, maps = folded.logits(x), folded.cam(x)
        assert (logits - model(x)).abs().max() < 1e-10
        assert (maps.sum((2, 3)) - model(x)).abs().max() < 1e-10
    free, fixed = fold_for_training(model)
    weights = tuple(model.parameters())
    ours = torch.autograd.grad(free.logits(x).logsumexp(1).sum(), weights)
    theirs = torch.autograd.grad(model(x).logsumexp(1).sum(), weights)
    assert all((a - b).abs().max() < 1e-9 * b.abs().max() for a, b in zip(ours, theirs, strict=True))
    assert not fixed.logits(x).requires_grad and not fixed.cam(x).requires_grad


@pytest.mark.parametrize("architecture", SHAPES)
def test_folds_in_bfloat16_are_the_network_with_products_of_8_bits(architecture):
    model, x, _, _ = case(architecture)
    model, x = model.float(), x.float()
    plain, weights = model(x), tuple(model.parameters())
    theirs = torch.autograd.grad(plain.logsumexp(1).sum(), weights)
    free, fixed = fold_for_training(model, torch.bfloat16)
    for folded in (free, fixed):
        logits, maps = folded.logits(x), folded.cam(x)
        assert logits.dtype == maps.dtype == torch.float32
        assert 0 < (logits - plain).abs().max() < 0.05 * plain.abs().max()
        assert (maps.sum((2, 3)) - logits).abs().max() < 0.02 * plain.abs().max()
    ours = torch.autograd.grad(free.logits(x).logsumexp(1).sum(), weights)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32 and F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.995
    assert not fixed.logits(x).requires_grad and not fixed.cam(x).requires_grad


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("method", ["Adv", "IG-Norm"])
def test_objectives_in_bfloat16_point_the_same_way(method, architecture):
    model, x, y, x_adv = case(architecture)
    model, x, x_adv = model.float(), x.float(), x_adv.float()
    low, full = (methods.METHODS[method](model, x, y, dtype=dtype).objective for dtype in (torch.bfloat16, None))
    ours, theirs = input_gradient(low, x_adv), input_gradient(full, x_adv)
    assert not torch.equal(ours, theirs) and F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.95
