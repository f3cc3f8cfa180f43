"""Other people's networks: torchvision's with random weights, held to its own forward; and what fits no contract."""

import copy
import functools
import inspect

import pytest
import torch
import torch.nn.functional as F
import toys
from torch import nn

import interp_lib
from interp_lib import data, paper
from interp_lib import interpreters as I
from interp_lib.attacks.against_interpretability import aai
from interp_lib.attacks.interpretability_sneaking import isa
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.attacks.smallest_perturbation import minimal_eps
from interp_lib.attacks.sneaking_settings import Search
from interp_lib.interpreters.derivatives import derivative_errors
from interp_lib.schedule import Schedule
from interp_lib.training import methods
from interp_lib.training.loop import fit

models = pytest.importorskip("torchvision.models")
NAMES = ("resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5")
CLASSES = torch.tensor([[0, 3], [1, 2]])


def images(n=2, size=64, dtype=torch.float32, colours=3):
    return torch.rand(n, colours, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@functools.cache
def pair(name):
    """A torchvision network of ten classes with random weights, and what `adapt` makes of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(models, name)(num_classes=10).eval()
    return network, interp_lib.adapt(network)


# What is found -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_torchvisions_networks_are_complete(name):
    network, model = pair(name)
    x = images()
    with torch.no_grad():
        logits = network(x)
        assert (model(x) - logits).abs().max() < 1e-5 * logits.abs().max()
        for maps in (I.cam(model, x, CLASSES), I.gradcam(model, x, CLASSES)):
            gap = I.completeness_gap(maps, logits - model.classifier.bias, CLASSES)
            assert maps.shape == (2, 2, 2, 2) and gap.abs().max() < 1e-5 * logits.abs().max()
        assert I.gradcam_pp(model, x, CLASSES).isfinite().all()
    x_adv = pgd(model, x, torch.tensor([0, 1]), eps=0.01, alpha=0.01, steps=1)
    assert 0 < (x_adv - x).abs().max() <= 0.01 + 1e-6
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), torch.tensor([0, 1]), reduction="sum"), x)
    by_hand = (x + 0.01 * gradient.sign()).clamp(0, 1)
    assert ((x_adv - by_hand).abs() < 1e-6).double().mean() > 0.99  # where it is not 0 but for rounding


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5"])
def test_derivatives_of_an_adapted_networks_maps_are_finite_differences(name):
    model, x = copy.deepcopy(pair(name)[1]).double(), images(1, dtype=torch.float64) * 0.8 + 0.1
    for maps in (lambda m, z, c: I.cam(m, z, c), lambda m, z, c: I.vanilla_gradient(m, z, c, create_graph=True)):
        at_x, at_weights = derivative_errors(maps, model, x, torch.tensor([[3]]), directions=3, step=1e-8)
        assert at_x.median < 1e-4 and at_weights.median < 1e-4


def test_captum_says_the_same_of_a_resnet():
    captum = pytest.importorskip("captum.attr")
    network, model = pair("resnet18")
    x, target = images(), torch.tensor([3, 1])
    theirs = captum.LayerGradCam(network, network.layer4).attribute(x, target=target)[:, 0]
    ours = I.gradcam(model, x, target[:, None])[:, 0]
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    theirs = captum.IntegratedGradients(network).attribute(x, target=target, n_steps=6, method="riemann_right")
    ours = I.integrated_gradients(model, x, target[:, None], steps=6)[:, 0]
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()  # kinks: float32 rounds to either side of some


@pytest.mark.parametrize(
    "name, layer", [("resnet18", "layer4"), ("mobilenet_v2", "features"), ("regnet_y_400mf", "trunk_output")]
)
def test_pytorch_grad_cam_says_the_same(name, layer):
    """It shows a map's positive part, scaled to 0 .. 1, enlarged to the image's size, and scaled again."""
    peer = pytest.importorskip("pytorch_grad_cam")
    network, model = pair(name)
    x, target = images(), [3, 1]
    wanted = [peer.utils.model_targets.ClassifierOutputTarget(t) for t in target]
    with peer.GradCAM(model=network, target_layers=[getattr(network, layer)]) as gradcam:
        theirs = torch.from_numpy(gradcam(input_tensor=x, targets=wanted))

    def scaled(maps):
        maps = maps - maps.amin((2, 3), keepdim=True)
        return maps / (1e-7 + maps.amax((2, 3), keepdim=True))

    ours = scaled(I.gradcam(model, x, torch.tensor(target)[:, None]).relu())
    ours = scaled(F.interpolate(ours, x.shape[2:], mode="bilinear"))[:, 0]
    assert (ours - theirs).abs().max() < 1e-3 and theirs.amax() > 0.5


def test_normalisation_is_found_inside_or_given():
    network, _ = pair("shufflenet_v2_x0_5")
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])

    class Normalise(nn.Module):
        def forward(self, x):
            return (x - mean[:, None, None]) / std[:, None, None]

    x, whole = images(), nn.Sequential(Normalise(), network).eval()
    for model in (interp_lib.adapt(whole), interp_lib.adapt(network, mean=mean.tolist(), std=std.tolist())):
        assert (model(x) - whole(x)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="std must be one number per colour, 3 of them"):
        interp_lib.adapt(network, std=[1, 0, 1])


def test_places_can_be_named_and_are_not_believed():
    network, model = pair("resnet18")
    named = interp_lib.adapt(network, features=network.layer4, classifier="fc")
    assert torch.equal(named(images()), model(images()))
    with pytest.raises(ValueError, match="'4' of the pooled output of '0' misses the logits of Sequential"):
        interp_lib.adapt(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
            features="0",
        )
    dense = pair("densenet121")[0]  # its last ReLU comes after `features`
    with pytest.raises(ValueError, match="interp_lib.adapt"):
        I.cam(dense, images(), CLASSES)
    with pytest.raises(TypeError, match=r"ResNet does not have.*interp_lib.adapt"):
        I.cam(network, images(), CLASSES)
    for wrong, words in (
        ({"classifier": "layer4"}, "must be an nn.Linear that ResNet runs, one of fc"),
        ({"features": "layer9"}, "must name a module"),
        ({"classifier": nn.Linear(2, 2)}, "must be a module of ResNet"),
    ):
        with pytest.raises(ValueError, match=words):
            interp_lib.adapt(network, **wrong)


WITHOUT = {
    "MobileNetV3": lambda: models.mobilenet_v3_small(num_classes=10),
    "SqueezeNet": lambda: models.squeezenet1_1(num_classes=10),
    "VisionTransformer": lambda: models.VisionTransformer(32, 16, 1, 2, 16, 16, num_classes=10),
    "VGG-like": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 10),
    ),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_what_has_no_cam_is_told_what_to_write_and_keeps_the_rest(name):
    torch.manual_seed(0)
    network, x = WITHOUT[name]().eval(), images(size=32)
    if name == "VisionTransformer":
        nn.init.normal_(network.heads.head.weight)  # torchvision starts it at 0
    with pytest.raises(ValueError, match=r"no CAM\. Use gradcam\(model, x, classes, head=\.\.\.\)"):
        interp_lib.adapt(network)
    x_adv = pgd(network, x, torch.tensor([0, 1]), eps=0.01, alpha=0.01, steps=1)
    assert 0 < (x_adv - x).abs().max() <= 0.01 + 1e-6
    assert I.integrated_gradients(network, x, CLASSES, steps=2).shape == (2, 2, 3, 32, 32)
    if name in ("MobileNetV3", "SqueezeNet"):
        rest = (
            (lambda z: network.classifier(z).flatten(1))
            if name == "SqueezeNet"
            else (lambda z: network.classifier(network.avgpool(z).flatten(1)))
        )
        assert I.gradcam(network, x, CLASSES, head=rest).shape[:2] == (2, 2)


def test_a_head_is_checked_before_anything_runs():
    network = WITHOUT["VGG-like"]()
    for model, head, error, words in (
        (network, lambda z: z, TypeError, "has no `features"),
        (pair("resnet18")[1], "fc", TypeError, "head must be a function"),
        (pair("resnet18")[1], lambda z: z, ValueError, r"head must give logits \(2, C\)"),
    ):
        with pytest.raises(error, match=words):
            I.gradcam(model, images(), CLASSES, head=head)


# What works on it --------------------------------------------------------------------------------------------------


def drawn(interpreter):
    """The generator of an interpreter that needs one."""
    takes = inspect.signature(interpreter).parameters
    return {"generator": torch.Generator().manual_seed(0)} if "generator" in takes else {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_map_and_attack_works_in_every_precision(dtype):
    model = interp_lib.adapt(toys.Foreign().eval(), images=images(size=8, colours=1)).to(dtype)
    x, y, target = images(3, 8, dtype, 1), torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    for name, interpreter in I.INTERPRETERS.items():
        maps = interpreter.function(model, x, y[:, None], **drawn(interpreter.function))
        assert maps.dtype == dtype and maps.isfinite().all(), name
    exact = 0.05 if dtype == torch.bfloat16 else 1e-5
    gap = I.completeness_gap(I.cam(model, x, y[:, None]), model(x) - model.classifier.bias, y[:, None])
    assert gap.abs().max() < exact * (1 + (model(x) - model.classifier.bias).abs().max())
    step = {"eps": 0.1, "alpha": 0.05, "steps": 3}
    for x_adv in (
        pgd(model, x, y, **step),
        isa(model, x, y, target, search=Search(rounds=2), **step),
        isa(model, x, y, search=Search(rounds=2), **step),
        aai(model, x, y, top_k=2, **step),
        aai(model, x, y, top_k=2, hinge=0, interpreter=I.representation, **step),
        minimal_eps(
            lambda e: pgd(model, x, y, eps=e, alpha=e / 4, steps=3), lambda z: model(z).argmax(1) != y, x, high=0.1
        ).x_adv,
    ):
        assert x_adv.dtype == dtype and (x_adv - x).abs().max() <= 0.1 + torch.finfo(dtype).eps
        assert x_adv.min() >= 0 and x_adv.max() <= 1


def dataset(size, colours, classes, n=8):
    x = (255 * images(n + 4, size, colours=colours)).to(torch.uint8)
    y = torch.arange(n + 4) % 3
    parts = {"train": slice(0, n), "validation": slice(n, n + 2), "test": slice(n + 2, n + 4)}
    splits = {name: data.Split(x[cut], y[cut]) for name, cut in parts.items()}
    names = tuple(map(str, range(classes)))
    return data.Dataset("digits", "Noise", "original", data.fingerprint(splits["test"]), names, **splits)


def one_step_lowers_the_loss(model, method, size, colours, rate=1e-3, precision="float32"):
    noise = dataset(size, colours, model.num_classes)
    x, y = noise.train.x().to(next(model.parameters()).dtype), noise.train.labels
    x_adv = (x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x)).clamp(0, 1)

    def loss():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return float(methods.METHODS[method](copy.deepcopy(model).train(), x, y).loss(x_adv).mean().detach())

    before = loss()
    fit(model, noise, method, Schedule(1, len(x), rate, 0.02, 0, 0, 1, 0.02), precision=precision)
    assert loss() < before


# `PYTHONPATH=tests python tests/models/test_adapted.py` takes all pairs of networks and methods.
ROTATED = [(NAMES[i % len(NAMES)], method) for i, method in enumerate(methods.METHODS)]


@pytest.mark.parametrize("name, method", ROTATED[: len(NAMES)])
def test_a_step_of_training_lowers_the_loss_of_torchvisions_networks(name, method):
    one_step_lowers_the_loss(copy.deepcopy(pair(name)[1]), method, 32, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_step_of_every_method_lowers_its_loss(method, dtype):
    model = interp_lib.adapt(toys.Foreign(), images=images(size=8, colours=1)).to(dtype)
    one_step_lowers_the_loss(model, method, 8, 1, precision="bfloat16" if dtype == torch.float32 else "float32")


# Training mode -----------------------------------------------------------------------------------------------------


def test_dropout_drops_whole_maps_as_it_would_pooled_features():
    model = interp_lib.adapt(toys.Foreign().train(), images=images(size=8, colours=1))
    torch.manual_seed(0)
    maps = model.features(images(200, 8, colours=1))
    zero = (maps == 0).flatten(2).all(2)
    kept = model.eval().features(images(200, 8, colours=1))
    assert 0.4 < zero[(kept != 0).flatten(2).any(2)].double().mean() < 0.6


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_step_updates_running_statistics_once_and_attacks_in_evaluation_mode(method):
    """From the images that the loss sees first: x, the attack's own where there is no other, or IG-Norm's path."""
    model = interp_lib.adapt(toys.Foreign().train(), images=images(size=8, colours=1))
    norm, x, y = model.network.body[1], images(4, 8, colours=1), torch.tensor([0, 1, 2, 0])
    x_adv = (x + 0.1).clamp(0, 1)
    problem = methods.METHODS[method](model, x, y)
    seen = int(norm.num_batches_tracked)
    if problem.objective:
        torch.manual_seed(0)
        first, second = problem.objective(x_adv), problem.objective(x_adv)
        alone = problem.objective(torch.cat([x_adv[:1], x[1:]]))[:1]
        assert torch.equal(first, second) and torch.allclose(first[:1], alone, rtol=1e-4, atol=1e-6)
        if method in ("Int", "Int-1-class"):
            assert problem.objective(x).abs().max() < 1e-5  # of the same function at both ends
    problem.loss(x if method == "Normal" else x_adv)
    assert int(norm.num_batches_tracked) == 1 and seen in (0, 1) and norm.track_running_stats
    if "Norm" not in method and method in (*paper.METHODS, "Int2", "Int2-Adv", "ALP"):
        means = [0.1 * model.network.body[0](given).mean((0, 2, 3)) for given in (x, x_adv)]
        off = [float((norm.running_mean - mean).abs().max()) for mean in means]
        assert off[method == "Adv"] < 1e-6


@pytest.mark.parametrize("name", I.INTERPRETERS)
def test_maps_in_training_mode_leave_statistics_and_generator_alone(name):
    model = interp_lib.adapt(toys.Foreign().train(), images=images(size=8, colours=1))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    function, x = I.INTERPRETERS[name].function, images(4, 8, colours=1)
    maps = function(model, x, CLASSES.repeat(2, 1) % 3, create_graph=name != "rise", **drawn(function))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state()) and all(m.training for m in model.modules())
    if maps.requires_grad:
        maps.sum().backward()  # the graph is whole


# Wrapped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda m: torch.compile(m, backend="eager"), lambda m: m.__call__],
    ids=["DataParallel", "compile", "function"],
)
def test_wrapped_networks_and_functions_get_maps_and_attacks(wrap):
    model = interp_lib.adapt(toys.Foreign().eval(), images=images(size=8, colours=1))
    wrapped, x, y = wrap(model), images(3, 8, colours=1), torch.tensor([0, 1, 0])
    step = {"eps": 0.1, "alpha": 0.05, "steps": 2}
    assert torch.equal(pgd(wrapped, x, y, **step), pgd(model, x, y, **step))
    ours = I.integrated_gradients(model, x, y[:, None], steps=3)
    assert (I.integrated_gradients(wrapped, x, y[:, None], steps=3) - ours).abs().max() < 1e-6
    if isinstance(wrapped, nn.Module):
        assert torch.equal(I.cam(wrapped, x, y[:, None]), I.cam(model, x, y[:, None]))
        step["search"] = Search(rounds=1)
        assert torch.equal(isa(wrapped, x, y, **step), isa(model, x, y, **step))
        assert interp_lib.adapt(wrapped) is model
    else:
        with pytest.raises(TypeError, match="interp_lib.adapt"):
            I.cam(wrapped, x, y[:, None])


if __name__ == "__main__":
    for name in NAMES:
        test_derivatives_of_an_adapted_networks_maps_are_finite_differences(name)
        for method in methods.METHODS:
            one_step_lowers_the_loss(copy.deepcopy(pair(name)[1]), method, 32, 3)
        print(f"{name}: one step of {', '.join(methods.METHODS)} lowers its loss; derivatives are finite differences")
