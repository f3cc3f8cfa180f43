"""Interpreters here and in the libraries in use: seconds, values, and the error of their gradients, in one run.

    python benchmarks/interpreters.py --rounds 5

Integrated gradients against captum, GradCAM++ against pytorch-grad-cam, in turns on the same images of the same
network. Then, for every differentiable interpreter, the gradient of its map against finite differences in double
precision, beside captum's and torch-cam's. The exit status is 1 where integrated gradients differ from captum's, or
where one of our gradients is off.
"""

import argparse
import copy
import statistics
import sys
import warnings
from importlib.metadata import version

import captum
import numpy as np
import pytorch_grad_cam
import torch
import torchcam
from captum.attr import IntegratedGradients
from side_by_side import in_turns, subject
from torchcam.methods import GradCAM as TorchcamGradCAM
from torchcam.methods import GradCAMpp as TorchcamGradCAMpp

from interp_lib import interpreters
from interp_lib.interpreters.activations import ACTIVATIONS, ReplacedRelu
from interp_lib.interpreters.derivatives import derivative_errors
from interp_lib.models import released

IMAGES = 200


def report(title, seconds):
    print(f"\n{title:44}{'median':>9}{'min':>9}{'max':>9}{'/ ours':>8}")
    ours = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:44}{median * 1e3:9.1f}{min(values) * 1e3:9.1f}{max(values) * 1e3:9.1f}{median / ours:8.2f}")


def speed_of_integrated_gradients(model, x, y, steps, rounds):
    """Ours against captum, each at the fastest of three internal batch sizes; whether the maps agree."""
    peer = IntegratedGradients(model)
    sizes = (200, 1000, 5000)

    def theirs(size):
        maps = peer.attribute(x, target=y, n_steps=steps, method="riemann_right", internal_batch_size=size)
        return maps.detach()

    def ours(size):
        return interpreters.integrated_gradients(model, x, y[:, None], steps=steps, internal_batch_size=size)[:, 0]

    best = {}
    for function in (ours, theirs):
        trial, _ = in_turns({size: lambda size=size, f=function: f(size) for size in sizes}, 1)
        best[function] = min(sizes, key=lambda size: trial[size][0])
    names = [f"interp_lib, {best[ours]} points at once", f"captum {captum.__version__}, {best[theirs]} points at once"]
    functions = dict(zip(names, (lambda: ours(best[ours]), lambda: theirs(best[theirs])), strict=True))
    seconds, maps = in_turns(functions, rounds)
    report(f"integrated gradients, {steps} steps, ms", seconds)
    ours_, theirs_ = (maps[name] for name in names)
    difference = float((ours_ - theirs_).abs().sum() / theirs_.abs().sum())
    # In single precision a rectifier within rounding of 0 may open on one side and not on the other.
    options = {"n_steps": steps, "method": "riemann_right", "internal_batch_size": 1000}
    model, x, y = copy.deepcopy(model).double(), x[:10].double(), y[:10]
    theirs_ = IntegratedGradients(model).attribute(x, target=y, **options)
    ours_ = interpreters.integrated_gradients(model, x, y[:, None], steps=steps)[:, 0]
    double = float((ours_ - theirs_).abs().sum() / theirs_.abs().sum())
    print(f"difference of the maps, relative: {difference:.1e}; ten images in double precision: {double:.1e}")
    return difference < 1e-3 and double < 1e-6


def speed_of_gradcam_pp(model, x, y, rounds):
    """Ours against pytorch-grad-cam: raw maps against what it gives, ReLU, up-sampling and scaling included."""
    name = f"pytorch-grad-cam {version('grad-cam')}"
    targets = [pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget(int(c)) for c in y]
    with pytorch_grad_cam.GradCAMPlusPlus(model, [model.conv3]) as peer:

        def finished():  # the same as theirs: ReLU, each map scaled to [0, 1], up-sampled
            maps = interpreters.gradcam_pp(model, x, y[:, None]).relu()
            low, high = maps.flatten(2).aminmax(dim=2)
            maps = (maps - low[..., None, None]) / (1e-7 + (high - low)[..., None, None])
            return interpreters.upsample(maps, x.shape[2:])[:, 0]

        functions = {
            "interp_lib, finished alike": finished,
            "interp_lib, raw maps": lambda: interpreters.gradcam_pp(model, x, y[:, None]),
            name: lambda: torch.from_numpy(np.ascontiguousarray(peer(x, targets))),
        }
        seconds, maps = in_turns(functions, rounds)
    report("GradCAM++, ms", seconds)
    difference = (maps["interp_lib, finished alike"] - maps[name]).abs().flatten(1).amax(1)
    print(f"median over images of the largest difference of the finished maps in [0, 1]: {difference.median():.2f};")
    denominator = 2 + model.classifier.weight[y] * model.features(x).mean((2, 3))
    print(
        f"features are signed, and theirs adds 1e-6 to g^2 (2 + g sum A): g^2 has median "
        f"{float((model.classifier.weight / model.features(x[:1])[0, 0].numel()).square().median()):.0e} here, "
        f"and 2 + g sum A is below 0.1 for {float((denominator < 0.1).double().mean()):.0%} of weights"
    )


# Gradients ---------------------------------------------------------------------------------------------------------


def captum_ig(activation):
    def maps(model, x, classes):
        method = IntegratedGradients(model)
        options = {"n_steps": 20, "method": "riemann_right"}
        with ReplacedRelu(ACTIVATIONS[activation]):
            return torch.stack([method.attribute(x, target=c, **options) for c in classes.T], 1)

    return maps


def torchcam_map(method):
    """torch-cam's map before it is scaled; its ReLU is part of it."""

    def maps(model, x, classes):
        made = []
        for c in classes.T:
            with method(model, target_layer=model.conv3, input_shape=model.input_shape) as extractor:
                scores = model(x)
                made += extractor(c.tolist(), scores, normalized=False)
        return torch.stack(made, 1)

    return maps


def ours(name, **options):
    def maps(model, x, classes):
        more = {"generator": torch.Generator().manual_seed(0)} if name in ("smoothgrad", "rise") else {}
        return interpreters.INTERPRETERS[name].function(model, x, classes, create_graph=True, **more, **options)

    return maps


# Name -> (maps, the one of ours that it should equal, through a ReLU where it ends in one).
TORCHCAM, CAPTUM = f"torch-cam {torchcam.__version__}", f"captum {captum.__version__}"
GRADIENTS = {
    "cam": (ours("cam"), None),
    "gradcam": (ours("gradcam"), None),
    f"  {TORCHCAM} GradCAM": (torchcam_map(TorchcamGradCAM), "gradcam"),
    "gradcam_pp": (ours("gradcam_pp"), None),
    f"  {TORCHCAM} GradCAMpp": (torchcam_map(TorchcamGradCAMpp), "gradcam_pp"),
    "gradcam_pp_release": (ours("gradcam_pp_release"), None),
    "integrated_gradients": (ours("integrated_gradients", steps=20), None),
    f"  {CAPTUM} IntegratedGradients": (captum_ig("relu"), "integrated_gradients"),
    "integrated_gradients, softplus": (ours("integrated_gradients", steps=20, activation="softplus"), None),
    f"  {CAPTUM} the same": (captum_ig("softplus"), "integrated_gradients, softplus"),
    "representation": (ours("representation"), None),
    "vanilla_gradient": (ours("vanilla_gradient"), None),
    "smoothgrad": (ours("smoothgrad", samples=10), None),
    "guided_backpropagation": (ours("guided_backpropagation"), None),
    "deconvolution": (ours("deconvolution"), None),
    "rise": (ours("rise", masks=20), None),
}


def distance(name, model, x, classes):
    """How far a library's map is from ours, relative; through a ReLU where it ends in one."""
    maps, reference = GRADIENTS[name]
    own, theirs = GRADIENTS[reference][0](model, x, classes), maps(model, x, classes)
    own = own.relu() if name.strip().startswith("torch-cam") else own
    return float((theirs - own).abs().sum() / own.abs().sum())


def gradients(model, x, y):
    """The table; whether all of ours are right."""
    model, x = model.double(), x.double() * 0.98 + 0.01  # off the corners of the box: finite differences step outside
    classes = torch.stack([y, (y + 1) % model.num_classes], 1)
    print(f"\ngradient of the map against central differences, {len(x)} images, double precision; relative error,")
    print("and how far, relative to ours, a library's map is from the formula")
    print(f"{'':36}{'at x':>10}{'at weights':>12}{'map':>10}")
    right = True
    for name, (maps, reference) in GRADIENTS.items():
        errors = [error.median for error in derivative_errors(maps, model, x, classes)]
        shown = ["none" if e is None else f"{e:.1e}" for e in errors]
        off = "" if reference is None else f"{distance(name, model, x, classes):.1e}"
        print(f"{name:36}{shown[0]:>10}{shown[1]:>12}{off:>10}")
        right = right and (reference is not None or max(errors) < 1e-4)
    print("none: autograd gives no gradient where finite differences show one")
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="of integrated gradients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", default="Int", choices=released.METHODS, help="of the released network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", category=UserWarning)

    model, subset, what = subject(args.method, IMAGES)
    x, y = subset.x, subset.y
    print(what)
    print(
        f"{len(x)} images {tuple(x.shape[1:])}, one class each; torch {torch.__version__}, threads: {args.threads}, "
        f"rounds: {args.rounds}"
    )
    agree = speed_of_integrated_gradients(model, x, y, args.steps, args.rounds)
    speed_of_gradcam_pp(model, x, y, args.rounds)
    right = gradients(model, x[:4], y[:4])
    if not (agree and right):
        sys.exit("integrated gradients differ from captum's" if right else "a gradient of ours is off")


if __name__ == "__main__":
    main()
