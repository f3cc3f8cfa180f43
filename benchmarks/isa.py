"""ISA here and as a straight loop in the manner of the released code: milliseconds an image, in one run, in turns.

    python benchmarks/isa.py --images 20 --rounds 3

Both search the weight of the discrepancy in ten rounds of ten steps for the same images of the same network. The
straight loop takes one image at a time, runs the network as it is for both logits and maps, and repeats the attack
at the weight that it has found, as the released code does. Where more than a few images end elsewhere, the exit
status is 1: a weight is a turn of a bisection, and rounding can decide one.
"""

import argparse
import statistics
import sys

import torch
from side_by_side import in_turns, subject

from interp_lib.attacks.ascent import clipped
from interp_lib.attacks.interpretability_sneaking import margin, margin_attack, search_isa
from interp_lib.attacks.smallest_perturbation import minimal_eps
from interp_lib.attacks.sneaking_settings import Discrepancy, class_set, released_settings
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models import released

BATCH, SIZE = 100, 1.4  # the released code's step depends on its batch; eps is this multiple of eps*


def straight_loop(model, x, target, classes, eps, scale):
    """One image at a time; the network as it is. (x_adv, gamma)."""
    found = [one_image(model, *arguments, scale) for arguments in zip(x, target, classes, eps, strict=True)]
    images, gammas = zip(*found, strict=True)
    return torch.cat(images), torch.tensor(gammas)


def one_image(model, image, label, classes, eps, scale):
    image, label, classes = image[None], label[None], classes[None]
    clean = cam(model, image, classes).detach()

    def attack(gamma):
        x_adv = image
        for _ in range(10):
            x_adv = x_adv.detach().requires_grad_()
            apart = (cam(model, x_adv, classes) - clean).abs().flatten(2).sum(2).mean() * scale
            loss = margin(model(x_adv), label).clamp(min=-0.1).sum() + gamma * apart
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = x_adv.detach() - 0.2 * eps * (1000 / BATCH * gradient).clamp(-1, 1)
            x_adv = torch.minimum(torch.maximum(x_adv, image - eps), image + eps).clamp(0, 1)
        with torch.no_grad():
            return x_adv, bool(margin(model(x_adv), label) < 0)

    low, high, gamma = 0.0, 1.0, 5e-5
    for _ in range(10):
        if attack(gamma)[1]:
            low, gamma = gamma, min(2 * gamma, (gamma + high) / 2)
        else:
            high, gamma = gamma, (low + gamma) / 2
    return attack(low)[0], low


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100, help="of ours (%(default)s)")
    parser.add_argument("--loop-images", type=int, default=20, help="of these, for the straight loop (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="Normal", choices=released.METHODS, help="of the released network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, subset, what = subject(args.method, args.images)
    x, y, target, n = subset.x, subset.y, subset.target, min(args.loop_images, args.images)
    plain = {"steps": 10, "direction": clipped(1000 / BATCH)}
    first = minimal_eps(
        lambda eps: margin_attack(model, x, y, target, eps=eps, alpha=0.2 * eps, **plain),
        lambda x_adv: margin(model(x_adv).detach(), target) < 0,
        x,
    )
    eps, classes = (SIZE * first.eps).clamp(max=1), class_set("2-class", y, target)
    scale = float(cam(model, x[:1], classes[:1])[0, 0].numel())
    settings = released_settings(eps, Discrepancy(cam, classes, scale=scale), batch=BATCH)
    print(what)
    print(
        f"ISA, l1 2-class CAM, eps {SIZE} eps*, 10 rounds of 10 steps, images {tuple(x.shape[1:])}; "
        f"torch {torch.__version__}, threads: {args.threads}, rounds: {args.rounds}"
    )
    seconds, results = in_turns(
        {
            "interp_lib": lambda: search_isa(model, x, y, target, **settings),
            "straight loop": lambda: straight_loop(model, x[:n], target[:n], classes[:n], eps[:n], scale),
        },
        args.rounds,
        warm_up=False,
    )
    ms = {
        name: [s / images * 1e3 for s in seconds[name]]
        for name, images in (("interp_lib", len(x)), ("straight loop", n))
    }
    ours = statistics.median(ms["interp_lib"])
    print(f"\n{'ms an image':16}{'images':>8}{'median':>9}{'min':>9}{'max':>9}{'/ ours':>8}")
    for (name, values), images in zip(ms.items(), (len(x), n), strict=True):
        median = statistics.median(values)
        print(f"{name:16}{images:8}{median:9.2f}{min(values):9.2f}{max(values):9.2f}{median / ours:8.1f}")
    x_loop, gamma_loop = results["straight loop"]
    found = results["interp_lib"]
    same = (found.gamma[:n] - gamma_loop).abs() <= 1e-6
    apart = (found.x_adv[:n] - x_loop).abs().flatten(1).amax(1)
    print(f"\nsame weight on {int(same.sum())} of {n} images; there, images differ by at most {apart[same].max():.1e}")
    if same.double().mean() < 0.9:
        sys.exit("the two searches disagree")


if __name__ == "__main__":
    main()
