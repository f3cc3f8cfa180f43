"""The folded tail against the network that it stands for."""

import pytest
import torch
import toys
from conftest import RELEASED, RELEASED_FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interp_lib import interpreters as I
from interp_lib.attacks.logits_and_maps import explain
from interp_lib.fast.convolution import FixedConv2d
from interp_lib.fast.fold import fold_after_first, fold_cam, fold_for_training, fold_logits
from interp_lib.models import proof, released
from interp_lib.models.architectures import GlobalPoolNetwork, SameConv2d, Small, build
from interp_lib.training import methods

DOUBLE = torch.float64
SMALL = [name for name in RELEASED if name[1] == "small"]


def derivative(function, x, weight):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((function(x) * weight).sum(), x)[0]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 9, 11)])
def test_logits_and_gradients_are_the_plain_networks(shape, classes, make_images):
    model, x = toys.biased("small", shape, classes), make_images(5, shape)
    folded = fold_logits(model)
    assert folded is not model
    assert (folded(x) - model(x)).abs().max() < 1e-10
    weight = torch.randn(5, classes, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    plain = derivative(model, x, weight)
    assert plain.abs().max() > 1e-3
    assert (derivative(folded, x, weight) - plain).abs().max() < 1e-10


def test_second_derivatives_are_the_plain_networks(make_images):
    model, x = toys.biased("small"), make_images(2)
    direction = torch.randn(2, 1, 28, 28, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))

    def second(function):
        z = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(z).logsumexp(1).sum(), z, create_graph=True)
        return torch.autograd.grad((first * direction).sum(), z)[0]

    assert (second(fold_logits(model)) - second(model)).abs().max() < 1e-10


@pytest.mark.parametrize("name", SMALL or [None], ids=lambda n: "-".join(n) if n else "none")
def test_released_networks_in_single_precision(name, released_folder, make_images):
    model = released.read_network(released.find(*name, RELEASED_FOLDER))
    x = make_images(20, model.input_shape, dtype=torch.float32)
    with torch.no_grad():
        plain, folded = model(x), fold_logits(model)(x)
    assert (folded - plain).abs().max() < 1e-4 * plain.abs().max()
    assert torch.equal(folded.argmax(1), plain.argmax(1))


def test_networks_without_an_affine_tail_come_back_as_they_are():
    for model in (build("pool", seed=0), build("wresnet", (3, 32, 32), seed=0), toys.Linear()):
        assert fold_logits(model) is model


def test_a_tail_of_ones_own_comes_back_as_it_is():
    model = toys.Negated()
    assert fold_logits(model) is model


@pytest.mark.parametrize("size", [(4, 5), (5, 5), None])
def test_a_class_of_ones_own_declares_an_affine_tail(size, make_images):
    """With a `trunk_size` that is wrong, or not defined, it is used as it is."""

    class Own(GlobalPoolNetwork):
        affine_tail = "last"

        def __init__(self):
            super().__init__((1, 10, 13), 6, 3)
            self.first, self.last = SameConv2d(1, 4, 3, stride=3), SameConv2d(4, 6, (3, 5), stride=(1, 2))

        def trunk(self, x):
            return self.first(x).sigmoid()

        def tail(self, z):
            return self.last(z)

        def trunk_size(self):
            return size or super().trunk_size()

    model, x = Own().double(), make_images(3, (1, 10, 13))
    logits, (free, _) = fold_logits(model), fold_for_training(model)
    assert (logits is model) == (size != (4, 5))
    assert (logits(x) - model(x)).abs().max() < 1e-10 and (free.logits(x) - model(x)).abs().max() < 1e-10
    every = torch.arange(3).expand(3, -1)
    for maps in (free.cam(x), fold_cam(model)(x)):
        assert (maps - I.cam(model, x, every)).abs().max() < 1e-10


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "classifier", ""])
@pytest.mark.parametrize("folding", [fold_logits, fold_after_first])
def test_what_a_hook_changes_is_changed_in_the_fold(folding, layer, make_images):
    model, x = toys.biased("small"), make_images(2)
    before = model(x)
    model.get_submodule(layer).register_forward_hook(lambda _, __, out: 2 * out)
    assert (model(x) - before).abs().max() > 1e-3
    folded = folding(model)
    logits = folded if folding is fold_logits else lambda z: folded[1](folded[0](z))
    weight = torch.randn(2, 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    assert (logits(x) - model(x)).abs().max() < 1e-10
    assert (derivative(logits, x, weight) - derivative(model, x, weight)).abs().max() < 1e-10


def test_folding_leaves_the_network_as_it_was(small, make_images):
    small.train()
    small.conv1.weight.requires_grad_(False)
    flags = [p.requires_grad for p in small.parameters()]
    weights = [p.detach().clone() for p in small.parameters()]
    with torch.no_grad():
        folded = fold_logits(small)
    folded(make_images(2).requires_grad_()).sum()
    assert small.training and flags == [p.requires_grad for p in small.parameters()]
    assert all(p.grad is None for p in small.parameters())
    assert all(torch.equal(p, w) for p, w in zip(small.parameters(), weights, strict=True))


def test_folding_under_no_grad_is_the_same(small, make_images):
    x = make_images(2)
    with torch.no_grad():
        inside = fold_logits(small)
    assert torch.equal(inside(x), fold_logits(small)(x))


def test_weights_get_no_gradient(small, make_images):
    logits = fold_logits(small)(make_images(2).requires_grad_())
    weights = tuple(small.parameters())
    assert torch.autograd.grad(logits.sum(), weights, allow_unused=True, retain_graph=True) == (None,) * 7
    logits.sum().backward()
    assert all(p.grad is None for p in weights)


def test_other_weights_of_a_trunk_get_no_gradient_either(make_images):
    model, x = toys.Louder().double(), make_images(2).requires_grad_()
    logits = fold_logits(model)(x)
    assert (logits - model(x)).abs().max() < 1e-10
    logits.sum().backward()
    assert model.volume.grad is None and x.grad.abs().max() > 0


def test_a_fold_keeps_the_weights_of_its_moment(small, make_images):
    x = make_images(2)
    folded = fold_logits(small)
    before, gradient = folded(x), derivative(folded, x, torch.eye(10, dtype=DOUBLE)[:2])
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert torch.equal(folded(x), before)
    assert torch.equal(derivative(folded, x, torch.eye(10, dtype=DOUBLE)[:2]), gradient)


@settings(deadline=None, max_examples=60)
@given(
    channels=st.sampled_from([1, 2, 3, 16]),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    seed=st.integers(0, 10**6),
)
def test_convolutions_of_any_shape_have_the_derivative_of_autograd(channels, kernel, stride, size, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = SameConv2d(channels, 2, kernel, stride=stride).double()
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
    x = torch.randn(2, channels, *size, dtype=DOUBLE, generator=generator)
    fixed = FixedConv2d(conv)
    assert (fixed(x) - conv(x)).abs().max() < 1e-12
    weight = torch.randn(conv(x).shape, dtype=DOUBLE, generator=generator)
    assert (derivative(fixed, x, weight) - derivative(conv, x, weight)).abs().max() < 1e-11


# What is folded proves itself


@pytest.mark.parametrize("architecture", ["small", "pool"])
def test_a_bias_of_the_linear_layer_is_carried_through_everything(architecture, make_images):
    model = toys.with_bias(build(architecture, (1, 9, 11), 4, seed=0).double())
    x, y = make_images(3, (1, 9, 11)), torch.tensor([0, 1, 3])
    logits, bias = model(x), model.classifier.bias
    first, rest = fold_after_first(model)
    for made in (fold_logits(model)(x), rest(first(x)), *(f.logits(x) for f in fold_for_training(model))):
        assert (made - logits).abs().max() < 1e-10
    for folded in fold_for_training(model):
        maps = folded.cam(x)
        assert (maps.sum((2, 3)) + bias - logits).abs().max() < 1e-10
        assert (folded.logits_of(maps) - logits).abs().max() < 1e-10
    for interpreter in (I.cam, I.gradcam_pp_release, I.representation):
        said, maps = explain(model, interpreter)(x, y[:, None])
        assert (said - logits).abs().max() < 1e-10
        assert (maps - interpreter(model, x, y[:, None])).abs().max() < 1e-10
    gap = I.completeness_gap(I.cam(model, x, y[:, None]), logits - bias, y[:, None])
    assert gap.abs().max() < 1e-10
    for method in ("Normal", "Int-Adv"):
        loss = methods.METHODS[method](model, x, y, 0.0).loss(x).mean()
        assert (loss - torch.nn.functional.cross_entropy(logits, y)).abs() < 1e-10
        assert torch.autograd.grad(loss, bias)[0].abs().max() > 1e-3  # it is trained


def padded(model):
    model.conv3 = nn.Conv2d(32, 100, 7, padding=2).double()


def doubled(model):
    model.forward = lambda x: 2 * Small.forward(model, x)


def halved_gradient(model):
    model.conv2.register_full_backward_hook(lambda _, gradients, __: (gradients[0] / 2,))


CHANGES = {
    "conv3 with another padding": padded,
    "conv3 without bias": lambda m: setattr(m, "conv3", SameConv2d(32, 100, 7, bias=False).double()),
    "a strided conv3": lambda m: setattr(m, "conv3", SameConv2d(32, 100, 7, stride=2).double()),
    "a dilated conv3": lambda m: setattr(m, "conv3", nn.Conv2d(32, 100, 3, dilation=2, padding=2).double()),
    "classifier with a ReLU": lambda m: setattr(m, "classifier", nn.Sequential(m.classifier, nn.ReLU())),
    "a scaled tail": lambda m: setattr(m, "tail", lambda z: 2 * m.conv3(z)),
    "a changed forward": doubled,
    "normalised before": lambda m: m.register_forward_pre_hook(lambda _, given: ((given[0] - 0.1) / 0.3,)),
    "a hook on the gradient": halved_gradient,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_fold_to_another_function_is_used_as_it_is(change, make_images):
    model, x, y = toys.biased("small"), make_images(2), torch.tensor([3, 7])
    CHANGES[change](model)
    weight = torch.randn(2, 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    first, rest = fold_after_first(model)
    free, fixed = fold_for_training(model)
    for logits in (fold_logits(model), lambda z: rest(first(z)), free.logits, fixed.logits):
        assert (logits(x) - model(x)).abs().max() < 1e-10
        assert (derivative(logits, x, weight) - derivative(model, x, weight)).abs().max() < 1e-10
    loss = methods.METHODS["Adv"](model, x, y).loss(x).sum()
    weights = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(loss, weights, allow_unused=True)
    theirs = torch.autograd.grad(nn.functional.cross_entropy(model(x), y, reduction="sum"), weights)
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(ours, theirs, strict=True))
    if change in ("classifier with a ReLU", "a changed forward", "normalised before"):
        for made in (lambda: I.cam(model, x, y[:, None]), lambda: fold_cam(model), lambda: free.cam(x)):
            with pytest.raises((TypeError, ValueError), match="interp_lib.adapt"):
                made()
    else:
        assert (
            fold_cam(model)(x).gather(1, y[:, None, None, None].expand(-1, 1, *free.cam(x).shape[2:]))
            - I.cam(model, x, y[:, None])
        ).abs().max() < 1e-10


def test_a_proof_is_made_once_for_a_structure_and_changes_nothing(make_images, monkeypatch):
    tried = []
    monkeypatch.setattr(proof, "_verdicts", {})
    monkeypatch.setattr(proof, "_try", lambda *a, own=proof._try: tried.append(1) or own(*a))
    before = torch.get_rng_state()
    for seed in range(3):
        model = build("small", (1, 9, 11), 4, seed=seed)
        model.classifier.weight.data.mul_(0)  # weights that would hide a mistake
        fold_for_training(model), fold_logits(model)
    assert len(tried) == 1 and torch.equal(before, torch.get_rng_state())
    toys.with_bias(model)
    fold_logits(model)
    assert len(tried) == 2


def test_a_fold_is_proven_where_nothing_is_differentiated():
    model = build("small", (1, 12, 10), 3, seed=0)  # a structure that no other test has
    with torch.no_grad():
        assert fold_logits(model) is not model
