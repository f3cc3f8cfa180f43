"""Measure transfer: accuracy on the adversarial examples that were made on other networks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from ..attacks.projected_gradient_descent import pgd
from ..checks import check_labels, class_count
from ..models.predict import classified_right, fingerprint
from ..values import check_each, check_radius
from .accuracy import IN_CACHE, proportion
from .evaluation import ALPHA, IMAGES, STEPS, TRAINING_EPS
from .sweep import Part, Plan, header, once


def transfer_rows(model: nn.Module, attacked: Mapping[str, Tensor], y: Tensor, *, eps: float) -> list[dict]:
    """Measure the accuracy of a network on adversarial examples of other networks, and of its own.

    An attack that was made on another network knows no gradient of this one. If it leaves fewer images than the
    network's own, those gradients mislead.

    Args:
        model: the network that classifies.
        attacked: name of the network that the examples were made on -> images (N, C, H, W).
        y: true labels, int64 (N,).
        eps: the radius at which they were made, for the rows.

    Returns:
        One row for each name: attack (the name), eps, and the fields of `accuracy.proportion`.

    Raises:
        TypeError, ValueError: see `checks`.
    """
    check_labels(y, len(y), class_count(model))
    check_radius(eps)
    rights = {name: classified_right(model, x_adv, y) for name, x_adv in attacked.items()}
    return [{"attack": name, "eps": eps, **proportion(right.cpu())} for name, right in rights.items()]


def transfer_plan(
    part: Part, *, eps: Sequence[float] | None = None, n: int = IMAGES, steps: int = STEPS[-1]
) -> Iterator[Plan]:
    """Plan `transfer_rows` between all networks of a part: Table 3's PGD, by default at the radius of training."""
    sizes = [TRAINING_EPS[part.dataset.name]] if eps is None else list(eps)
    check_each(sizes, "eps", check_radius, above=True)
    subset = part.dataset.evaluation_subset(n)
    x, y = subset.x.to(part.device), subset.y.to(part.device)
    sources = {network.labels["method"]: network for network in part.networks}

    @cache  # made when the first network is measured, and once for all
    def attacked(name: str, size: float) -> Tensor:
        model = sources[name].load().to(part.device)
        batches = zip(x.split(IN_CACHE), y.split(IN_CACHE), strict=True)
        return torch.cat([pgd(model, *batch, eps=size, alpha=ALPHA, steps=steps) for batch in batches])

    def rows_of(model, progress) -> list[dict]:
        rows = []
        for size in sizes:
            rows += transfer_rows(model, {name: attacked(name, size) for name in sources}, y, eps=size)
            progress(1)
        return rows

    # Networks that change, or are added, make another record: every row depends on all of them.
    made_on = {name: fingerprint(network.load()) for name, network in sources.items()}
    attack = {"name": "pgd", "norm": "linf", "eps": sizes, "alpha": ALPHA, "steps": steps, "random_start": False}
    yield Plan(header("transfer", part, n=n, attack=attack, sources=made_on), once(rows_of), len(sizes), "radius")
