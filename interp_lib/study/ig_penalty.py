"""Measure how large IG-Norm's penalty is on trained networks: the evidence that its weight is 1/N and not 1."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks.ascent import ascend, cross_entropy, uniform_start
from ..interpreters.integration import PATH_STEPS, path_integral
from ..models.architectures import GlobalPoolNetwork
from ..schedule import Schedule
from .evaluation import IMAGES
from .sweep import Part, Plan, header, once

PENALISED = ("IG-Norm", "Chen-IG-Norm")  # one loss, with the weights 1/N and 1


def batch_integral(
    model: GlobalPoolNetwork,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    steps: int = PATH_STEPS,
) -> Tensor:
    """Return the integrated gradients of the *mean* cross-entropy of a batch, as the released code computes them.

    They are 1/N of each image's own, `path_integral`.

    Args:
        model: a network in evaluation mode.
        x, x_adv: the two ends of the path, (N, C, H, W).
        y: labels (N,).
        steps: points on the path.

    Returns:
        (N, C, H, W), detached.

    Source: the released code, `train.py`, lines 1188 and 1203.
    """
    gradient = torch.zeros_like(x)
    for k in range(1, steps + 1):
        z = (x + k / steps * (x_adv - x)).detach().requires_grad_()
        mean = F.cross_entropy(model(z), y)  # over the batch
        gradient += torch.autograd.grad(mean, z)[0] / steps
    return (x_adv - x) * gradient


def loss_terms(model: GlobalPoolNetwork, x: Tensor, y: Tensor, x_adv: Tensor, batch_size: int) -> dict[str, float]:
    """Return the terms of IG-Norm's loss, as means over the images, and their sum with either weight.

        1/n sum_i [ l(x_i) + w ||IG(x_i, x'_i)||_1 ],        w = 1 and w = 1/N

    l is the cross-entropy, and IG are its integrated gradients, for each image separately; see `path_integral`. A
    classifier that gives each of C classes the same probability has l = log C and no penalty.

    Args:
        model: a network in evaluation mode.
        x, y, x_adv: images (n, C, H, W), labels (n,), and the points x', shape of x.
        batch_size: N, the batch size of training.
    """
    integral, logits_adv = path_integral(model, x, x_adv, y)
    penalty = integral.abs().flatten(1).sum(1).mean().item()
    with torch.no_grad():
        loss = F.cross_entropy(model(x), y).item()
    sums = {"total": loss + penalty, "total_over_n": loss + penalty / batch_size}
    both = {"cross_entropy": loss, "penalty": penalty, "penalty_over_n": penalty / batch_size, **sums}
    return {**both, "log_classes": math.log(logits_adv.shape[1]), "n": len(x)}


def ig_penalty_rows(model: GlobalPoolNetwork, x: Tensor, y: Tensor, schedule: Schedule) -> list[dict]:
    """Compute `loss_terms` for x' that maximises the penalty, as in the method, and that maximises the cross-entropy.

    Both ascents begin at the same random start, with the radius, the step size and the steps of training, `schedule`.
    """
    start = uniform_start(x, schedule.eps, torch.Generator().manual_seed(0))
    attack = {"eps": schedule.eps, "alpha": schedule.attack_alpha, "steps": schedule.attack_steps, "start": start}
    objectives = {
        "penalty": lambda z: path_integral(model, x, z, y)[0].abs().flatten(1).sum(1),
        "cross-entropy": cross_entropy(model, y),
    }
    at = {name: ascend(objective, x, **attack) for name, objective in objectives.items()}
    return [{"climbs": name, **loss_terms(model, x, y, at[name], schedule.batch_size)} for name in at]


def ig_penalty_plan(part: Part, *, n: int = IMAGES) -> Iterator[Plan]:
    """Plan `ig_penalty_rows` for the networks of IG-Norm, with the attack and the batch size of their training."""
    schedule = Schedule.load("paper", part.dataset.name)
    attack = {"eps": schedule.eps, "alpha": schedule.attack_alpha, "steps": schedule.attack_steps}
    settings = header(
        "ig-penalty",
        part,
        n=n,
        attack={"norm": "linf", "random_start": "uniform, seed 0", **attack},
        batch_size=schedule.batch_size,
        path={"steps": PATH_STEPS, "rule": "right"},
    )
    subset = part.dataset.evaluation_subset(n).to(part.device)
    rows = once(lambda network, _: ig_penalty_rows(network, subset.x, subset.y, schedule))
    yield Plan(settings, rows, 1, "network")
