"""A stack against its networks, each by itself: logits, maps, gradients, second derivatives, losses of every method."""

import pytest
import torch
import toys
from conftest import images
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib.attacks.ascent import input_gradient
from interp_lib.fast.stack import GroupedConvolution, Stack
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import Small, build, same_conv2d
from interp_lib.training import methods

DOUBLE = torch.float64
CASES = [("small", (1, 28, 28), 3), ("small", (3, 9, 12), 2), ("pool", (1, 8, 8), 3), ("wresnet", (3, 8, 8), 1)]
every_architecture = pytest.mark.parametrize("architecture, shape, size", CASES)


def networks(architecture, shape, size, classes=5):
    made = [toys.biased(architecture, shape, classes, seed=seed, spread=0.2) for seed in range(size)]
    with torch.no_grad():
        for network in made:
            network.classifier.weight.mul_(4)  # logits that differ
    return made


def derivatives(logits, x, weights=()):
    """Logits, the gradient by x of a function of them, the derivative of that gradient by x; both by each weight."""
    x = x.clone().requires_grad_()
    found, grad = logits(x), torch.autograd.grad
    value = found.logsumexp(1).sum()
    (by_x,) = grad(value, x, create_graph=True)
    product = (by_x * toys.randn(*x.shape[1:], seed=7)).sum()
    second, *mixed = grad(product, (x, *weights), materialize_grads=True, retain_graph=True)
    by_weights = grad(value, weights) if weights else ()
    return (found.detach(), by_x.detach(), second), list(zip(by_weights, mixed, strict=True))


def differ(a, b):
    """The largest difference, of the largest value or of 1: some thousand sums in float64 leave 1e-13 of it."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


@every_architecture
def test_logits_gradients_and_second_derivatives_are_each_networks_own(architecture, shape, size):
    made, x = networks(architecture, shape, size), images(2 * size, shape)
    free, fixed = Stack(made).fold_for_training()
    of_all, by_weights = derivatives(free.logits, x, [p for network in made for p in network.parameters()])
    with_fixed, _ = derivatives(fixed.logits, x)
    by_weights = iter(by_weights)
    for k, network in enumerate(made):
        expected, by_own = derivatives(network, x[k::size], list(network.parameters()))
        for a, b, c in zip(of_all, with_fixed, expected, strict=True):
            assert c.abs().max() > 1e-3 and max(differ(a[k::size], c), differ(b[k::size], c)) < 1e-11
        for pair in by_own:
            assert all(differ(a, b) < 1e-11 for a, b in zip(next(by_weights), pair, strict=True))


@every_architecture
def test_maps_are_each_networks_own(architecture, shape, size):
    made, x = networks(architecture, shape, size), images(2 * size, shape)
    for folded in Stack(made).fold_for_training():
        maps = folded.cam(x)
        assert differ(folded.logits_of(maps), folded.logits(x)) < 1e-11
        for k, network in enumerate(made):
            assert differ(maps[k::size], cam(network, x[k::size], torch.arange(5).expand(2, -1))) < 1e-11


def test_fixed_weights_have_no_graph_and_free_ones_are_the_networks_own():
    made, x = networks(*CASES[1]), images(4, (3, 9, 12)).requires_grad_()
    free, fixed = Stack(made).fold_for_training()
    (fixed.logits(x).sum() + fixed.cam(x).sum()).backward()
    assert all(p.grad is None for network in made for p in network.parameters()) and x.grad.abs().max() > 0
    free.logits(x).sum().backward()
    assert all(p.grad.abs().max() > 0 for network in made for p in network.parameters())


def test_only_the_trunks_are_computed_in_another_precision():
    """With 24 bits in the place of 53, logits are off by some 1e-7 of the largest, and no network is changed."""
    made, x = networks("small", (1, 8, 8), 2), images(4, (1, 8, 8))
    stack = Stack(made)
    for exact, rounded in zip(stack.fold_for_training(), stack.fold_for_training(torch.float32), strict=True):
        logits = rounded.logits(x)
        assert logits.dtype == DOUBLE and 1e-10 < differ(logits, exact.logits(x)) < 1e-5
    assert {p.dtype for network in made for p in network.parameters()} == {DOUBLE}


def test_images_are_repeated_for_each_network_and_values_averaged_by_network():
    stack = Stack(networks("small", (1, 8, 8), 2))
    assert len(stack) == 2 and stack.repeat(torch.tensor([3, 4])).tolist() == [3, 3, 4, 4]
    assert stack.each(torch.tensor([1.0, 10.0, 2.0, 30.0])).tolist() == [1.5, 20]
    x = images(3, (1, 8, 8))
    assert torch.equal(stack.repeat(x)[1::2], x)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    groups=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_grouped_convolution_has_the_derivatives_of_the_plain_one(kernel, stride, size, groups, seed):
    """Of every order, by x alone; also where the stride leaves out pixels at the end."""
    x, weight = toys.randn(2, 2 * groups, *size, seed=seed), toys.randn(3 * groups, 2, *kernel, seed=seed + 1)
    bias = toys.randn(3 * groups, seed=seed + 2)

    def both(convolve):
        z = x.clone().requires_grad_()
        y = convolve(z, weight, bias, stride, groups)
        (first,) = torch.autograd.grad((y**3).sum(), z, create_graph=True)
        return y, first, *torch.autograd.grad((first**2).sum(), z)

    for a, b in zip(both(GroupedConvolution.apply), both(same_conv2d), strict=True):
        assert differ(a, b) < 1e-12


# WResnet is not stacked with others, and slow: two methods, of which one has second derivatives.
PAIRS = [(m, *c) for m in methods.METHODS for c in CASES if c[0] != "wresnet" or m in ("Int-Adv", "IG-Norm")]


@pytest.mark.parametrize("method, architecture, shape, size", PAIRS)
def test_a_method_on_a_stack_is_the_method_on_each_network(method, architecture, shape, size):
    """Loss, gradients of the weights and what x' climbs, network by network."""
    networks_, x = networks(architecture, shape, size), images(4 * size, shape, seed=2)
    x_adv, y = 0.9 * x + 0.1 * images(4 * size, shape, seed=3), torch.arange(4 * size) % 5
    stack, weights = Stack(networks_), [p for n in networks_ for p in n.parameters()]
    gamma = torch.tensor([0.03, 0.0, 0.3][:size], dtype=DOUBLE)
    problem = methods.METHODS[method](stack, x, y, gamma.repeat(4))
    loss = problem.loss(x_adv)
    gradients = iter(torch.autograd.grad(stack.each(loss).sum(), weights, materialize_grads=True))
    for k, single in enumerate(networks_):
        alone = methods.METHODS[method](single, x[k::size], y[k::size], gamma[k].item())
        expected = alone.loss(x_adv[k::size])
        assert torch.allclose(loss[k::size], expected, rtol=1e-10, atol=1e-12)
        theirs = torch.autograd.grad(expected.mean(), tuple(single.parameters()), materialize_grads=True)
        for b, a in zip(theirs, gradients, strict=False):  # theirs first: it ends
            assert (a - b).abs().max() < 1e-10 * max(b.abs().max().item(), 1)
        if problem.objective and (gamma[k] or "Int" not in method):
            climbed = input_gradient(problem.objective, x_adv)[k::size]
            by_itself = input_gradient(alone.objective, x_adv[k::size])
            assert (climbed - by_itself).abs().max() < 1e-9 * by_itself.abs().max()


def small(classes=3, shape=(1, 8, 8)):
    return build("small", shape, classes, seed=0)


def hooked():
    model = small()
    model.conv2.register_forward_hook(lambda *_: None)
    return model


ONE = "networks of one architecture, shape and device can be stacked; got"


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: [], f"{ONE} 0 kinds"),
        (lambda: [small(), build("pool", (1, 8, 8), 3, seed=0)], f"{ONE} 2 kinds"),
        (lambda: [small(), small(), small(classes=4)], f"{ONE} 2 kinds"),
        (lambda: [small(), small(shape=(1, 9, 9)), small(shape=(3, 8, 8))], f"{ONE} 3 kinds"),
        (lambda: [small(), small().to("meta")], f"{ONE} 2 kinds"),
        (lambda: [small(), toys.with_bias(small())], "whose linear layer has a bias cannot be stacked; train each by"),
        (lambda: [small(), hooked()], "networks with hooks cannot be stacked; remove the hooks"),
        (lambda: [build("wresnet", (3, 8, 8), 3, seed=0)] * 2, "a WResnet cannot be stacked; train each by itself"),
    ],
)
def test_what_cannot_be_stacked_is_refused(made, message):
    with pytest.raises(ValueError, match=message):
        Stack(made())


class Shifted(Small):
    def tail(self, z):
        return super().tail(z) + 1


def test_networks_with_a_tail_of_their_own_are_not_stacked():
    with pytest.raises(ValueError, match="a Shifted computes something else than its stack"):
        Stack([Shifted((1, 28, 28), 5), Shifted((1, 28, 28), 5)])
