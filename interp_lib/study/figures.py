"""Compute Figures 1 and 2 as numbers, what attacks do to the maps of one image, and store them as records.

An `Explained` is one version of an image with the network's prediction and its maps. A figure is a dictionary of
versions by name: 'x' is the image itself, and every other version is compared with it. `stored_maps` reads the records.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import data, storage
from ..attacks.against_interpretability import aai
from ..attacks.interpretability_sneaking import CLASS_SETS, class_set, isa_over_eps, released_settings
from ..attacks.projected_gradient_descent import pgd
from ..discrepancies import discrepancy, kendall_tau, proposition1_bound
from ..interpreters.class_activation_maps import cam, gradcam_pp_release
from ..interpreters.integration import integrated_gradients
from ..interpreters.registry import sum_colours
from ..models import predict, released
from ..models.predict import evaluating, predictions
from . import records
from .rank_correlation import AAI
from .stored_maps import IMAGE_SIDE, MAP_SIDE, Explained, version_rows

IG_STEPS = 100


# The GradCAM++ of the paper's figures and tables is the released code's, see `interpreters.gradcam_pp_release`.
# The lambda looks `_integrated` up when it is called, because the function is defined below.
FIGURE1 = {"CAM": cam, "GradCAM++": gradcam_pp_release, "IG": lambda *inputs: _integrated(*inputs)}


# (dataset, architecture) -> eps of the PGD example, and the perturbation sizes of Figure 2.
UNITS = {
    ("mnist", "small"): (0.2, (0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3)),
    ("cifar10", "small"): (0.02, (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06)),
    ("restricted_imagenet", "wresnet"): (0.02, (0.001, 0.0015, 0.002, 0.003, 0.005, 0.02)),
}


def _integrated(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Compute integrated gradients for display, (1, k, H, W): the sum over colours."""
    # Bound a batch of path points to about a million input values, to limit memory.
    at_once = max(1, 1_000_000 // x[0].numel())
    return sum_colours(integrated_gradients(model, x, classes, steps=IG_STEPS, internal_batch_size=at_once))


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
    made: dict[str, Explained] = {}
    natural = None
    for name, x in versions.items():
        with evaluating(model):
            maps = {key: function(model, x, classes).detach() for key, function in interpreters.items()}
        tau = {}
        if natural is not None:
            tau = {key: kendall_tau(natural[key][0], maps[key][0]).tolist() for key in maps}
        natural = natural or maps
        one = {key: value[0].cpu() for key, value in maps.items()}
        made[name] = Explained(x[0].detach().cpu(), int(predictions(model, x)), one, tau)
    return made


def figure1(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, eps: float, steps: int = 10
) -> dict[str, Explained]:
    """Compute CAM, GradCAM++ and IG of the true class and of the target, on an image and its targeted PGD example.

    Args:
        x: one image, (1, C, H, W) in [0, 1].
        y, target: its class t and the target t', int64 (1,).
        eps: radius; the step size is a fifth of it.
        steps: number of steps.

    Returns:
        The versions 'x' and 'PGD'.

    Source: Figure 1. IG is computed on the network as it is, 100 steps from the black image, colours summed.
    """
    x_adv = pgd(model, x, target, eps=eps, alpha=eps / 5, steps=steps, targeted=True)
    return explain_versions(model, {"x": x, "PGD": x_adv}, torch.stack([y, target], 1), FIGURE1)


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
    settings = released_settings(sizes, p=p, batch=1, scale=clean[0, 0].numel())
    for name in CLASS_SETS:
        classes = class_set(name, y, target, model.num_classes)
        attacked[name] = isa_over_eps(model, x, y, target, classes=classes, **settings).x_adv
    rows = [[] for _ in range(count)]
    clean = clean.repeat(times, 1, 1, 1)
    for name, images in attacked.items():
        with torch.no_grad():
            maps = cam(model, images.flatten(0, 1), every.repeat(times, 1))
            success = (predictions(model, images.flatten(0, 1)) == aim).view(times, count)
        distance = {}
        for measure in CLASS_SETS:
            classes = class_set(measure, y, target, model.num_classes).repeat(times, 1)[..., None, None]
            of_classes = (heat.take_along_dim(classes, 1) for heat in (clean, maps))
            distance[measure] = discrepancy(*of_classes, p, p == 2).view(times, count)
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
    made, lowest = [], {}
    for row in sorted(rows, key=lambda row: row["eps"]):
        if row["success"] and row["attack"] in CLASS_SETS:
            key = row["p"], row["attack"]
            lowest[key] = min(lowest.get(key, float("inf")), row[row["attack"]])
            made.append({**row, "lowest": lowest[key]})
    return made


def falls(rows: Sequence[Mapping], p: int = 1) -> dict[str, float]:
    """Return the relative fall of the least discrepancy from the first successful size to the last, by class set."""
    made = {}
    for name in CLASS_SETS:
        line = [row["lowest"] for row in lowest_so_far(rows) if (row["p"], row["attack"]) == (p, name)]
        if line:
            made[name] = 1 - line[-1] / line[0]
    return made


def moved_maps(model: nn.Module, x: Tensor, y: Tensor, *, eps: Sequence[float]) -> list[dict[str, Explained]]:
    """Run the top-k AAI of Table 2 on one image, for every perturbation size, without a random start.

    Arguments as in `sneaking`. Returns one dictionary per size: the versions 'x' and 'AAI', with the CAM of class y.
    """
    sizes = torch.tensor(eps, dtype=x.dtype, device=x.device)
    images = aai(model, x.repeat(len(eps), 1, 1, 1), y.repeat(len(eps)), eps=sizes, **AAI)
    return [explain_versions(model, {"x": x, "AAI": one[None]}, y[:, None], {"CAM": cam}) for one in images]


def first_fooled(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, eps: float, limit: int | None = None
) -> int:
    """Return the index of the first image classified right that ten steps of targeted PGD move to its target class.

    Raises:
        ValueError: there is no such image.
    """
    for i in range(len(x) if limit is None else min(limit, len(x))):
        one = slice(i, i + 1)
        if int(predictions(model, x[one])) != int(y[i]):
            continue
        x_adv = pgd(model, x[one], target[one], eps=eps, alpha=eps / 5, steps=10, targeted=True)
        if int(predictions(model, x_adv)) == int(target[i]):
            return i
    raise ValueError(f"no image is classified right and then fooled at eps = {eps}.")


def _chosen(dataset: data.Dataset, model: nn.Module, eps: float) -> tuple[dict, Tensor, Tensor, Tensor]:
    """Choose the image of the figures by rule; return the settings that describe it, then its x, y and target.

    The rule is the first image that is classified right and fooled. On R-ImageNet it is the first such primate, in the
    order of the files, with the target fish, as in the paper's figure; elsewhere it is the first such image of the
    evaluation subset, with that subset's target.
    """
    if dataset.name == "restricted_imagenet":
        primate, fish = (dataset.classes.index(name) for name in ("primate", "fish"))
        index = torch.nonzero(dataset.test.labels == primate).flatten()
        x, y = dataset.test.x(index), dataset.test.labels[index]
        target, rule = torch.full_like(y, fish), "first primate that is classified right and fooled"
    else:
        subset = dataset.evaluation_subset()
        index, x, y, target = subset.index, subset.x, subset.y, subset.target
        rule = "first of the evaluation subset that is classified right and fooled"
    i = first_fooled(model, x, y, target, eps=eps)
    said = {"rule": rule, "position": i, "test_image": int(index[i]), "true": dataset.classes[int(y[i])],
            "target": dataset.classes[int(target[i])]}  # fmt: skip
    return said, x[i : i + 1], y[i : i + 1], target[i : i + 1]


def figure_record(
    figure: str, dataset: data.Dataset, model_name: str, model: nn.Module, *, folder: str | Path = records.RESULTS
) -> Path:
    """Compute a figure on one dataset and write its record.

    Args:
        figure: 'figure1' or 'figure2'.
        dataset, model_name, model: the released network `model`, its dataset and its architecture.

    Returns:
        The record's path; see `stored_maps.read_versions` and `stored_maps.read_curves`.
    """
    eps, sizes = UNITS[dataset.name, model_name]
    began = time.perf_counter()
    image, x, y, target = _chosen(dataset, model, eps)
    settings = {
        "measurement": figure, "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "model": model_name, "networks": "released", "method": "Normal", "weights": predict.fingerprint(model),
        "image": image, "attack": {"norm": "linf", "eps": eps, "alpha": eps / 5, "steps": 10, "targeted": True},
        "stored": f"8 bits a value; images over {IMAGE_SIDE[figure]}, maps over {MAP_SIDE} pixels averaged over blocks",
    }  # fmt: skip
    if figure == "figure1":
        settings |= {"interpreters": list(FIGURE1), "ig_steps": IG_STEPS}
        rows = version_rows(figure1(model, x, y, target, eps=eps), IMAGE_SIDE[figure])
    else:
        norms = (1, 2) if dataset.name != "restricted_imagenet" else (1,)
        settings |= {"eps": list(sizes), "p": list(norms), "isa": "settings of the released code, batch of one"}
        found = {p: sneaking(model, x, y, target, eps=sizes, p=p) for p in norms}
        rows = [{"bound": found[1].bound}, *(row for each in found.values() for row in each.rows)]
        rows += version_rows(found[1].versions[sizes.index(eps)], IMAGE_SIDE[figure])
    family = f"{figure}-{dataset.name}-{model_name}-released"
    record = records.Record(family, settings, rows, storage.provenance(time.perf_counter() - began))
    return records.write(record, folder)


def measure_figure(
    figure: str,
    *,
    data_dir: str | Path | None = None,
    networks_dir: str | Path | None = None,
    folder: str | Path = records.RESULTS,
) -> list[Path]:
    """Run `figure_record` on the released Normal networks; skip a missing dataset, with a message on stderr.

    Raises:
        FileNotFoundError: no released networks, or no dataset.
    """
    paths = []
    for name, model in UNITS:
        network = released.read_network(released.find(name, model, "Normal", networks_dir))
        try:
            dataset = data.load(name, data_dir)
        except data.DataError as error:
            print(f"{figure} on {name} is left out: {error}", file=sys.stderr)
            continue
        paths.append(figure_record(figure, dataset, model, network, folder=folder))
    if not paths:
        raise FileNotFoundError(f"No dataset for {figure}; see above.")
    return paths
