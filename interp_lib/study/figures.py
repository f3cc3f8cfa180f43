"""Compute Figures 1 and 2 as numbers, what attacks do to the maps of one image, and store them as records.

An `Explained` is one version of an image with the network's prediction and its maps. A figure is a dictionary of
versions by name: 'x' is the image itself, and every other version is compared with it. `stored_maps` reads the records.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .. import data
from ..attacks.against_interpretability import aai
from ..attacks.projected_gradient_descent import pgd
from ..interpreters.class_activation_maps import cam, gradcam_pp_release
from ..interpreters.integration import integrated_gradients
from ..interpreters.registry import sum_colours
from ..models import predict
from ..models.predict import predictions
from .rank_correlation import AAI
from .sneaking_over_eps import explain_versions, sneaking
from .stored_maps import IMAGE_SIDE, MAP_SIDE, Explained, version_rows
from .sweep import Part, Plan, header, once

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
    settings = {
        "rule": rule,
        "position": i,
        "test_image": int(index[i]),
        "true": dataset.classes[int(y[i])],
        "target": dataset.classes[int(target[i])],
    }
    return settings, x[i : i + 1], y[i : i + 1], target[i : i + 1]


def figure_plan(part: Part, *, figure: str) -> Iterator[Plan]:
    """Plan a figure on the part's only network, and store it; see `stored_maps.read_versions` and `read_curves`.

    Args:
        figure: 'figure1' or 'figure2'.
    """
    (network,) = part.networks
    dataset, model = part.dataset, network.load()
    eps, sizes = UNITS[dataset.name, part.model]
    image, x, y, target = _chosen(dataset, model, eps)
    settings = header(
        figure,
        part,
        method="Normal",
        weights=predict.fingerprint(model),
        image=image,
        attack={"norm": "linf", "eps": eps, "alpha": eps / 5, "steps": 10, "targeted": True},
        stored=f"8 bits a value; images over {IMAGE_SIDE[figure]}, maps over {MAP_SIDE} pixels averaged over blocks",
    )
    norms = (1, 2) if dataset.name != "restricted_imagenet" else (1,)
    if figure == "figure1":
        settings |= {"interpreters": list(FIGURE1), "ig_steps": IG_STEPS}
    else:
        settings |= {"eps": list(sizes), "p": list(norms), "isa": "settings of the released code, batch of one"}

    def rows(model: nn.Module, progress: Callable[[int], object]) -> list[dict]:
        if figure == "figure1":
            return version_rows(figure1(model, x, y, target, eps=eps), IMAGE_SIDE[figure])
        by_norm = {p: sneaking(model, x, y, target, eps=sizes, p=p) for p in norms}
        curves = [{"bound": by_norm[1].bound}, *(row for one in by_norm.values() for row in one.rows)]
        return curves + version_rows(by_norm[1].versions[sizes.index(eps)], IMAGE_SIDE[figure])

    yield Plan(settings, once(rows), 1, "figure", labelled=False)
