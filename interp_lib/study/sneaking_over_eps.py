"""Run sneaking attacks on images over perturbation sizes, Figure 2 as numbers, and explain versions of an image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks.interpretability_sneaking import isa_over_eps
from ..attacks.projected_gradient_descent import pgd
from ..attacks.sneaking_settings import CLASS_SETS, Discrepancy, class_set, released_settings
from ..discrepancies import discrepancy, kendall_tau, proposition1_bound
from ..interpreters.class_activation_maps import cam
from ..models.predict import evaluating, predictions
from .stored_maps import Explained


def explain_versions(
    model: nn.Module, versions: Mapping[str, Tensor], classes: Tensor, interpreters: Mapping[str, Callable]
) -> dict[str, Explained]:
    """Compute predictions, maps and rank correlations of several versions of one image.

    Args:
        versions: name -> (1, C, H, W); the first is the natural image.
        classes: the classes of the maps, int64 (1, k).
        interpreters: name -> L(model, x, classes).

    Returns:
        name -> `Explained`, in the order of `versions`.
    """
    explained: dict[str, Explained] = {}
    natural = None
    for name, x in versions.items():
        with evaluating(model):
            maps = {key: function(model, x, classes).detach() for key, function in interpreters.items()}
        tau: dict[str, list[float]] = {}
        if natural is not None:
            tau = {key: kendall_tau(natural[key][0], maps[key][0]).tolist() for key in maps}
        natural = natural or maps
        one = {key: value[0].cpu() for key, value in maps.items()}
        explained[name] = Explained(x[0].detach().cpu(), int(predictions(model, x)), one, tau)
    return explained


@dataclass
class Sneaking:
    """ISAs of one image over perturbation sizes, see `sneaking`.

    Attributes:
        eps: perturbation sizes, ascending.
        versions: one dictionary per size: 'x', 'PGD', '1-class', '2-class' and 'all-class', with CAMs of t and t'.
        rows: one row per attack and size: p, attack, eps, success, and the discrepancies '1-class', '2-class',
            'all-class' of the attacked image.
        bound: half the margin on x, by Proposition 1 a lower bound on a success's l1 2-class discrepancy.
    """

    eps: list[float]
    versions: list[dict[str, Explained]]
    rows: list[dict]
    bound: float


def sneaking_rows(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, eps: Sequence[float], p: int = 1
) -> tuple[list[list[dict]], dict[str, Tensor]]:
    """Run PGD and the ISAs of the 1-, 2- and all-class discrepancy on N images, for every perturbation size.

    All attacks are targeted and take ten steps; the ISAs use the released code's settings for a batch of one, see
    `attacks.released_settings`. All images and sizes run in one batch.

    Args:
        x: images, (N, C, H, W) in [0, 1].
        y, target: their classes t and the targets t', int64 (N,).
        eps: E perturbation sizes, ascending.
        p: 1, or 2 for the squared norm.

    Returns:
        The rows of each image, as in `Sneaking`, and the attacked images, name -> (E, N, C, H, W).
    """
    times, count = len(eps), len(x)
    sizes = torch.tensor(eps, dtype=x.dtype, device=x.device)[:, None].expand(-1, count)
    aim = target.repeat(times)
    pgd_sizes = sizes.flatten()
    moved = pgd(model, x.repeat(times, 1, 1, 1), aim, eps=pgd_sizes, alpha=pgd_sizes / 5, steps=10, targeted=True)
    attacked = {"PGD": moved.unflatten(0, (times, count))}
    with torch.no_grad():
        every = class_set("all-class", y, target, model.num_classes)
        clean = cam(model, x, every)
    # The released code's CAM is a plain sum: scale by the number of its pixels.
    for name in CLASS_SETS:
        classes = class_set(name, y, target, model.num_classes)
        settings = released_settings(sizes, Discrepancy(cam, classes, p, scale=clean[0, 0].numel()), batch=1)
        attacked[name] = isa_over_eps(model, x, y, target, **settings).x_adv
    rows: list[list[dict]] = [[] for _ in range(count)]
    clean = clean.repeat(times, 1, 1, 1)
    for name, images in attacked.items():
        with torch.no_grad():
            maps = cam(model, images.flatten(0, 1), every.repeat(times, 1))
            success = (predictions(model, images.flatten(0, 1)) == aim).view(times, count)
        distance = {}
        for measure in CLASS_SETS:
            classes = class_set(measure, y, target, model.num_classes).repeat(times, 1)[..., None, None]
            natural, moved = (heat.take_along_dim(classes, 1) for heat in (clean, maps))
            distance[measure] = discrepancy(natural, moved, p, p == 2).view(times, count)
        for i, row in enumerate(rows):
            for k, size in enumerate(eps):
                measured = {measure: float(values[k, i]) for measure, values in distance.items()}
                row.append({"p": p, "attack": name, "eps": size, "success": bool(success[k, i]), **measured})
    return rows, attacked


def sneaking(model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, eps: Sequence[float], p: int = 1) -> Sneaking:
    """Run `sneaking_rows` on one image, and explain what each attack makes of it.

    Args:
        x: one image, (1, C, H, W) in [0, 1].
        y, target, eps, p: as in `sneaking_rows`.

    Source: Figure 2.
    """
    (rows,), attacked = sneaking_rows(model, x, y, target, eps=eps, p=p)
    pair = torch.stack([y, target], 1)
    versions = [
        explain_versions(model, {"x": x, **{name: images[i] for name, images in attacked.items()}}, pair, {"CAM": cam})
        for i in range(len(eps))
    ]
    with torch.no_grad():
        bound = float(proposition1_bound(model(x), y, target))
    return Sneaking(list(eps), versions, rows, bound)


def lowest_so_far(rows: Sequence[Mapping]) -> list[dict]:
    """Return the rows of successful ISAs by ascending eps, with `lowest`, the least discrepancy up to each size.

    An attack in a small ball also lies in every larger ball; a search that ends higher there has only searched worse.
    """
    successes: list[dict] = []
    lowest: dict[tuple, float] = {}
    for row in sorted(rows, key=lambda row: row["eps"]):
        if row["success"] and row["attack"] in CLASS_SETS:
            key = row["p"], row["attack"]
            lowest[key] = min(lowest.get(key, float("inf")), row[row["attack"]])
            successes.append({**row, "lowest": lowest[key]})
    return successes


def falls(rows: Sequence[Mapping], p: int = 1) -> dict[str, float]:
    """Return the relative fall of the least discrepancy from the first successful size to the last, by class set."""
    by_class_set = {}
    for name in CLASS_SETS:
        line = [row["lowest"] for row in lowest_so_far(rows) if (row["p"], row["attack"]) == (p, name)]
        if line:
            by_class_set[name] = 1 - line[-1] / line[0]
    return by_class_set
