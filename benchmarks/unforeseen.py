"""The unforeseen attacks here and in their public PyTorch code: milliseconds a step, in turns, and the losses reached.

    git clone https://github.com/ddkang/advex-uar
    INTERP_RELEASED=... INTERP_DATA=... python benchmarks/unforeseen.py --code advex-uar --steps 40 --rounds 3

Both attack the same images of the same network for CIFAR-10, with the strengths of Table 5 and targets. They draw other
random numbers, so that losses agree as distributions: where two means differ by more than four standard errors, the
exit status is 1. The public code is written for a GPU; here it runs on the processor, its calls sent there.
"""

import argparse
import importlib
import math
import statistics
import sys

import numpy as np
import torch
import torch.nn.functional as F
from side_by_side import in_turns
from torch.overrides import TorchFunctionMode

from interp_lib import data
from interp_lib.models import released
from interp_lib.study.unforeseen import ATTACKS, TWO_FORMS

# Name in Table 5 -> module, class and further arguments of the public code.
PUBLIC = {
    "Gabor": ("gabor_attack", "GaborAttack", {}),
    "Snow": ("snow_attack", "SnowAttack", {}),
    "JPEG-linf": ("jpeg_attack", "JPEGAttack", {"opt": "linf"}),
    "JPEG-l2": ("jpeg_attack", "JPEGAttack", {"opt": "l2"}),
    "JPEG-l1": ("jpeg_attack", "JPEGAttack", {"opt": "l1"}),
    "Fog": ("fog_attack", "FogAttack", {}),
}


class OnTheProcessor(TorchFunctionMode):
    """Sends to the processor what the public code sends to a GPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cuda:
            return args[0]
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def public(name, model, x, target, steps):
    module, kind, more = PUBLIC[name]
    attack_class = getattr(importlib.import_module(f"advex_uar.attacks.{module}"), kind)
    eps = ATTACKS[name].keywords["eps"]

    def run():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 the public code draws from this generator
        with OnTheProcessor():
            attack = attack_class(steps, eps, eps / math.sqrt(steps), x.shape[2], **more)
            pixels = lambda z: model(z / 255)
            return attack._forward(pixels, 255 * x, target, avoid_target=False, scale_eps=False).detach() / 255

    return run


def own(name, model, x, target, steps):
    more = {"as_released": True} if name in TWO_FORMS else {}
    return lambda: ATTACKS[name](
        model, x, target, steps=steps, targeted=True, generator=torch.Generator().manual_seed(0), **more
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", required=True, help="folder with a clone of ddkang/advex-uar")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--method", default="Int", choices=released.METHODS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.path.insert(0, args.code)
    subset = data.load("cifar10", download=False).evaluation_subset(args.images)
    model = released.read_network(released.find("cifar10", "small", args.method)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # the public code asks for no gradient of the weights either
    x, target = subset.x, subset.target
    print(
        f"released CIFAR-10 Small {args.method}, {len(x)} images, {args.steps} steps, threads: {args.threads}, "
        f"rounds: {args.rounds}; torch {torch.__version__}"
    )
    print(f"{'ms a step':12}{'here':>8}{'public':>8}{'ratio':>7}   {'loss of the target here':>24}{'public':>16}")
    apart = []
    for name in PUBLIC:
        functions = {
            "here": own(name, model, x, target, args.steps),
            "public": public(name, model, x, target, args.steps),
        }
        seconds, images = in_turns(functions, args.rounds)
        ms = {who: 1e3 * statistics.median(values) / args.steps for who, values in seconds.items()}
        with torch.no_grad():
            loss = {who: F.cross_entropy(model(x_adv), target, reduction="none") for who, x_adv in images.items()}
        mean, error = (
            {who: f(v).item() for who, v in loss.items()} for f in (torch.mean, lambda v: v.std() / len(v) ** 0.5)
        )
        print(
            f"{name:12}{ms['here']:8.1f}{ms['public']:8.1f}{ms['public'] / ms['here']:7.1f}   "
            f"{mean['here']:15.3f} ± {error['here']:.3f}{mean['public']:9.3f} ± {error['public']:.3f}",
            flush=True,
        )
        if abs(mean["here"] - mean["public"]) > 4 * math.hypot(*error.values()):
            apart.append(name)
    if apart:
        sys.exit(f"losses differ: {', '.join(apart)}")


if __name__ == "__main__":
    main()
