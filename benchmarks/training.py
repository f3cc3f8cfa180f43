"""A training step of every method here, in both precisions, and as a plain PyTorch loop: milliseconds, in turns.

    python benchmarks/training.py --rounds 5 --write
    python benchmarks/training.py --rounds 3 --attack-steps 10 --model pool --write
    python benchmarks/training.py --rounds 3 --attack-steps 5 --dataset cifar10 --model wresnet --methods Adv,Int

The plain loop is what one writes in the manner of the public code of TRADES: the network as it is, clean logits made
again in every inner step, one backward pass for the weights. All stop before the optimizer's step, which is the same.
They start from the same weights, batch and random start and must end at the same loss, within 2 %; where they do not,
the exit status is 1. With --write the times go into a record of results/; the chapter on training reads them, Figure 3
those of MNIST Small.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from side_by_side import in_turns
from tqdm import tqdm

from interp_lib import paper, storage
from interp_lib.attacks.ascent import uniform_start
from interp_lib.models import released
from interp_lib.models.architectures import ARCHITECTURES, build
from interp_lib.schedule import Schedule
from interp_lib.study import records
from interp_lib.training import methods
from interp_lib.training.loop import inner_maximum
from interp_lib.training.run import generator

DATASETS = {"mnist": ((1, 28, 28), 55000), "cifar10": ((3, 32, 32), 45000)}  # an image, and images an epoch
TOLERANCE = 0.02  # of the loss
GAMMA = paper.GAMMA
METHODS = released.METHODS


def cams(model, x):
    return torch.einsum("ck,nkhw->nchw", model.classifier.weight, model.features(x))


def int_norms(model, x, x_adv, y, one_class):
    apart = (cams(model, x) - cams(model, x_adv)).abs().sum((2, 3))
    true = F.one_hot(y, apart.shape[1]).bool()
    first = apart[true]
    if one_class:
        return first
    return first + (model(x_adv).masked_fill(true, -torch.inf).softmax(1) * apart).sum(1)


def path_norm(model, x, x_adv, y):
    """The penalty of IG-Norm with its weight 1/N, see `methods.ig_norm`."""
    points = torch.cat([x + s / 5 * (x_adv - x) for s in range(1, 6)])
    if not points.requires_grad:
        points.requires_grad_()
    loss = F.cross_entropy(model(points), y.repeat(5), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, points, create_graph=True)
    return ((x_adv - x) * gradient.unflatten(0, (5, -1)).mean(0)).abs().flatten(1).sum(1) / len(x)


def divergence(model, x, x_adv):
    return F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="none").sum(1)


def plain(method, model, x, y):
    """(what the weights descend, what x' climbs) on the network as it is: images -> (N,)."""
    at = lambda z: F.cross_entropy(model(z), y, reduction="none")
    norms = lambda x_adv: GAMMA * int_norms(model, x, x_adv, y, method == "Int-1-class")
    return {
        "Normal": (lambda x_adv: at(x), None),
        "Adv": (at, at),
        "TRADES": (lambda a: at(x) + divergence(model, x, a), lambda a: divergence(model, x, a)),
        "IG-Norm": (lambda a: at(x) + path_norm(model, x, a, y), lambda a: path_norm(model, x, a, y)),
        "IG-Norm-Sum": (lambda a: at(a) + path_norm(model, x, a, y), lambda a: at(a) + path_norm(model, x, a, y)),
        "Int-1-class": (lambda a: at(x) + norms(a), norms),
        "Int": (lambda a: at(x) + norms(a), norms),
        "Int-Adv": (lambda a: at(a) + norms(a), lambda a: at(a) + norms(a)),
    }[method]


def plain_step(method, model, x, y, schedule, start):
    loss, objective = plain(method, model, x, y)
    low, high = (x - schedule.eps).clamp(min=0), (x + schedule.eps).clamp(max=1)
    x_adv = start if objective else x
    for _ in range(schedule.attack_steps if objective else 0):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x_adv).sum(), x_adv)
        x_adv = gradient.sign_().mul_(schedule.attack_alpha).add_(x_adv.detach()).clamp_(low, high)
    value = loss(x_adv).mean()
    model.zero_grad(set_to_none=True)
    value.backward()
    return value.item()


def our_step(method, model, x, y, schedule, dtype=None):
    problem, x_adv = methods.METHODS[method](model, x, y, dtype=dtype), x
    if problem.objective:
        seeded = generator(0, "start", 0)
        x_adv = inner_maximum(problem.objective, x, eps=schedule.eps, schedule=schedule, generator=seeded)
    value = problem.loss(x_adv).mean()
    model.zero_grad(set_to_none=True)
    value.backward()
    return value.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attack-steps", type=int, default=40, help="inner steps (%(default)s, the paper's on MNIST)")
    parser.add_argument("--dataset", choices=list(DATASETS), default="mnist", help="(%(default)s)")
    parser.add_argument("--model", choices=list(ARCHITECTURES), default="small", help="(%(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="(all eight)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="write the record that the chapter on training reads")
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown methods {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    if args.write and (args.dataset, args.model) == ("mnist", "small") and methods != METHODS:
        parser.error("--write of MNIST Small is for Figure 3, which has all methods")
    torch.set_num_threads(args.threads)
    schedule = replace(Schedule.load("paper", args.dataset), attack_steps=args.attack_steps)
    shape, images = DATASETS[args.dataset]
    # The time does not depend on what is on an image.
    x = torch.rand(schedule.batch_size, *shape, generator=generator(0, "images", 0))
    y = torch.arange(len(x)) % 10
    model = build(args.model, shape, 10, seed=0)
    start = uniform_start(x, schedule.eps, generator(0, "start", 0))
    print(
        f"{type(model).__name__}, batch {len(x)}, {schedule.attack_steps} inner steps; torch {torch.__version__}, "
        f"threads: {args.threads}, rounds: {args.rounds}"
    )
    storage.commit()  # of the code that is timed
    rows, wrong, began = [], [], time.perf_counter()
    print(
        f"\n{'ms a training step':18}{'ours':>9}{'bfloat16':>9}{'plain':>9}{'plain/ours':>12}{'ours/bf16':>11}"
        f"{'loss':>9}{'bfloat16':>9}{'plain':>9}"
    )
    for method in tqdm(methods, disable=None, file=sys.stderr):
        steps = {
            "ours": lambda method=method: our_step(method, model, x, y, schedule),
            "bfloat16": lambda method=method: our_step(method, model, x, y, schedule, torch.bfloat16),
            "plain": lambda method=method: plain_step(method, model, x, y, schedule, start.clone()),
        }
        seconds, loss = in_turns(steps, args.rounds)
        ms = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        ratios = ms["plain"] / ms["ours"], ms["ours"] / ms["bfloat16"]
        print(
            f"{method:18}{ms['ours']:9.1f}{ms['bfloat16']:9.1f}{ms['plain']:9.1f}{ratios[0]:12.2f}{ratios[1]:11.2f}"
            f"{loss['ours']:9.4f}{loss['bfloat16']:9.4f}{loss['plain']:9.4f}"
        )
        epoch = {name: ms[name] / 1e3 * (images // len(x)) for name in ("ours", "bfloat16")}
        rows.append(
            {
                "method": method,
                "ms_a_step": round(ms["ours"], 2),
                "ms_a_step_plain": round(ms["plain"], 2),
                "ratio": round(ratios[0], 3),
                "seconds_an_epoch": round(epoch["ours"], 1),
                "ms_a_step_bfloat16": round(ms["bfloat16"], 2),
                "ratio_bfloat16": round(ratios[1], 3),
                "seconds_an_epoch_bfloat16": round(epoch["bfloat16"], 1),
            }
        )
        away = {name: abs(loss[name] - loss["plain"]) for name in ("ours", "bfloat16")}
        wrong += [f"{method} ({name})" for name, by in away.items() if by > TOLERANCE * abs(loss["plain"])]
    if args.write:
        settings = {
            "measurement": "training-time",
            "dataset": args.dataset,
            "model": args.model,
            "networks": "ours",
            "batch": len(x),
            "attack_steps": schedule.attack_steps,
            "threads": args.threads,
            "rounds": args.rounds,
            "images_an_epoch": images,
        }
        provenance = storage.provenance(time.perf_counter() - began)
        record = records.Record(f"training-time-{args.dataset}-{args.model}", settings, rows, provenance)
        print(records.write(record))
    if wrong:
        sys.exit(f"losses differ from the plain loop's: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
