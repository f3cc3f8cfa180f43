"""Measure how large IG-Norm's penalty is on trained networks: the evidence that its weight is 1/N and not 1."""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import data
from ..attacks.ascent import ascend, cross_entropy, uniform_start
from ..interpreters.integration import PATH_STEPS, path_integral
from ..models.architectures import GlobalPoolNetwork
from ..schedule import Schedule
from . import records
from .sweep import find_networks, grow, once

METHODS = ("IG-Norm", "Chen-IG-Norm")  # one loss, with the weights 1/N and 1

PAIRS = (("mnist", "small"), ("mnist", "pool"), ("cifar10", "small"))


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


def measure_ig_penalty(data_dir=None, networks_dir=None, folder=records.RESULTS, *, source="released") -> list[Path]:
    """Run `ig_penalty_rows` for IG-Norm's networks on the paper's 200 images; one record per dataset and model."""
    networks, paths = list(find_networks(source, networks_dir)), []
    for dataset, model in PAIRS:
        found = [n for n in networks if (n.dataset, n.model) == (dataset, model) and n.labels["method"] in METHODS]
        loaded, schedule = data.load(dataset, data_dir), Schedule.load("paper", dataset)
        attack = {"eps": schedule.eps, "alpha": schedule.attack_alpha, "steps": schedule.attack_steps}
        settings = {
            "measurement": "ig-penalty", "dataset": dataset, "title": loaded.title, "data": loaded.fingerprint,
            "subset": {"n": 200, "seed": 99}, "model": model, "networks": source,
            "attack": {"norm": "linf", "random_start": "uniform, seed 0", **attack},
            "batch_size": schedule.batch_size, "path": {"steps": PATH_STEPS, "rule": "right"},
        }  # fmt: skip
        subset = loaded.evaluation_subset(200)
        rows = once(lambda network, _, s=subset, k=schedule: ig_penalty_rows(network, s.x, s.y, k))
        paths.append(grow(settings, found, rows, 1, unit="network", folder=folder, device="cpu"))
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m interp_lib.study.ig_penalty", description=__doc__)
    parser.add_argument("--networks", choices=("released", "ours"), default="released", help="ours: of networks/")
    for option, default in (("--data-dir", None), ("--released-dir", None), ("--results-dir", records.RESULTS)):
        parser.add_argument(option, default=default, help="left out: INTERP_DATA, INTERP_RELEASED, results/")
    given = parser.parse_args()
    print(*measure_ig_penalty(given.data_dir, given.released_dir, given.results_dir, source=given.networks), sep="\n")
