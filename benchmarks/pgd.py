"""PGD here, in torchattacks, in foolbox and as a plain loop: milliseconds a step, in one run, in turns.

    python benchmarks/pgd.py --steps 40 --rounds 7

The four attack the same images of the same network with the same radius, step and number of steps, without a
random start, and must end at the same robust accuracy: where they do not, the exit status is 1.
"""

import argparse
import statistics
import sys

import foolbox
import torch
import torch.nn.functional as F
import torchattacks
from side_by_side import in_turns, subject

from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import released
from interp_lib.models.architectures import SameConv2d
from interp_lib.models.predict import count_correct

EPS, ALPHA, IMAGES = 0.3, 0.01, 200
PLAIN = "plain PyTorch loop"


def plain_loop(model, x, y, steps):
    """What one writes without a library: the network as it is and its input gradient alone."""
    x_adv, low, high = x.clone(), (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    for _ in range(steps):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = gradient.sign_().mul_(ALPHA).add_(x_adv.detach()).clamp_(low, high)
    return x_adv


def attacks(model, x, y, steps):
    """Name -> a function without arguments that returns x_adv."""
    peer = torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=steps, random_start=False)
    fool = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    fool_pgd = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=False)
    return {
        "interp_lib": lambda: pgd(model, x, y, eps=EPS, alpha=ALPHA, steps=steps),
        f"torchattacks {torchattacks.__version__}": lambda: peer(x, y),
        f"foolbox {foolbox.__version__}": lambda: fool_pgd.run(
            fool, x, foolbox.criteria.Misclassification(y), epsilon=EPS
        ),
        PLAIN: lambda: plain_loop(model, x, y, steps),
    }


def products():
    """Large matrix products, by the BLAS library and by that for convolutions: name -> (function, GFLOP)."""
    a, b = torch.rand(2, 2048, 2048)
    pixels = torch.rand(64, 512, 16, 16).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(512, 512, 1, 1).contiguous(memory_format=torch.channels_last)
    return {
        "sgemm, 2048 x 2048 x 2048": (lambda: a @ b, 2 * 2048**3 / 1e9),
        "1x1 convolution, 16384 x 512 x 512": (lambda: F.conv2d(pixels, weight), 2 * 64 * 256 * 512**2 / 1e9),
    }


def multiplications(model):
    """Of one step on one image: trunk and folded tail, forward and for the input gradient."""
    per_layer = []

    def count(conv, _, out):
        per_layer.append(out[0, 0].numel() * conv.weight.numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, SameConv2d)]
    with torch.no_grad():
        z = model.trunk(torch.zeros(1, *model.input_shape))
    for hook in hooks:
        hook.remove()
    return 2 * (sum(per_layer) + model.num_classes * z.numel())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--method", default="Int", choices=released.METHODS, help="of the released network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, subset, what = subject(args.method, IMAGES)
    x, y = subset.x, subset.y
    print(what)
    print(
        f"PGD, eps {EPS}, alpha {ALPHA}, {args.steps} steps, {len(x)} images {tuple(x.shape[1:])}, "
        f"no random start; torch {torch.__version__}, threads: {args.threads}, rounds: {args.rounds}"
    )
    with torch.no_grad():
        timed = products()
        rates, _ = in_turns({name: function for name, (function, _) in timed.items()}, args.rounds)
    seconds, x_adv = in_turns(attacks(model, x, y, args.steps), args.rounds)
    correct = {name: count_correct(model, adversarial, y) for name, adversarial in x_adv.items()}

    ms = {name: [s / args.steps * 1e3 for s in values] for name, values in seconds.items()}
    median = {name: statistics.median(values) for name, values in ms.items()}
    ours, *libraries = [median[name] for name in ms if name != PLAIN]
    print(f"\n{'ms a step':24}{'median':>8}{'min':>8}{'max':>8}{'/ ours':>8}{'robust accuracy':>18}")
    for name, values in ms.items():
        print(
            f"{name:24}{median[name]:8.2f}{min(values):8.2f}{max(values):8.2f}{median[name] / ours:8.2f}"
            f"{correct[name] / len(y):18.3f}"
        )
    print(f"the faster of the two libraries takes {min(libraries) / ours:.2f} times ours\n")

    rate = {name: gflop / statistics.median(rates[name]) for name, (_, gflop) in timed.items()}
    for name, value in rate.items():
        print(f"matrix product, {name}: {value:.0f} GFLOP/s")
    count = multiplications(model) * len(x)
    floor = 2 * count / (max(rate.values()) * 1e9) * 1e3
    print(f"a step of the folded network: {count / 1e6:.0f} million multiplications, and as many additions,")
    print(f"{floor:.2f} ms at the better of these rates; ours takes {ours / floor:.2f} times that")
    if len(set(correct.values())) > 1:
        sys.exit(f"robust accuracies differ: {correct}")


if __name__ == "__main__":
    main()
