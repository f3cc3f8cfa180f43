"""Measure whether maps are faithful: how fast a network loses a class when pixels go in the order of its map.

Quantus 0.6 has deletion as `PixelFlipping`: without the point before the first step, without insertion, and entry by
entry where a pixel has colours. Here a pixel goes with its colours, all steps of a batch are one call of the folded
network, and an area may be compared with that of another order image by image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..checks import check_images, check_labels
from ..data import EvaluationSubset
from ..fast.fold import fold_logits
from ..models.predict import evaluating, predictions
from ..values import check_choice, check_each, check_whole
from .evaluation import IMAGES, TRAINING_EPS
from .evaluation import STEPS as TABLE_STEPS
from .maps_compared import FUNCTIONS, INPUTS, SETTINGS, attack_settings, inputs_of, map_of, to_size
from .rank_correlation import mean_and_error
from .sweep import Part, Plan, header, once

STEPS = 28  # of a curve: an image of 28 x 28 loses one row's worth of pixels at a time

CONTROLS = ("random", "brightness")  # orders that know nothing of the network

IN_CACHE = 2000  # images of one call of the network


def ranks(order_by: Tensor) -> Tensor:
    """Return every pixel's place in the order of a map, the largest first: (N, H, W) -> int64 (N, H, W).

    Pixels with one value keep the order of their position.
    """
    order = order_by.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter_(1, order, places).view_as(order_by)


def curve(model: nn.Module, first: Tensor, last: Tensor, places: Tensor, y: Tensor, *, steps: int = STEPS) -> Tensor:
    """Return a class's probability while pixels of one image are replaced by another's.

        c_k = softmax( f( z^(k) ) )_y,    z^(k)_i = last_i where places_i < k u / K, else first_i,    k = 0 .. K

    With the image first and black last the curve is deletion; with black first and the image last, insertion.

    Args:
        first, last: images (N, C, H, W), at the beginning and at the end of the curve.
        places: each pixel's place in the order, int64 (N, H, W), see `ranks`.
        y: classes, int64 (N,).
        steps: K.

    Returns:
        (N, K + 1).

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: Petsiuk et al. (2018).
    """
    check_images(first, "first")
    check_images(last, "last")
    check_labels(y, len(first))
    check_whole(steps, "steps", 1)
    pixels, parts = places[0].numel(), []
    k = torch.arange(steps + 1, device=first.device).view(-1, 1, 1, 1, 1)
    every = [t.split(max(IN_CACHE // len(k), 1)) for t in (first, last, places, y)]
    with evaluating(model), torch.no_grad():
        logits = fold_logits(model)  # fifteen times faster on Small
        for a, b, place, c in zip(*every, strict=True):
            # (K + 1, n, C, H, W)
            z = torch.where(place[:, None] * steps < k * pixels, b, a)
            shares = logits(z.flatten(0, 1)).softmax(1).unflatten(0, z.shape[:2])
            parts.append(shares.gather(2, c.expand(len(k), -1)[..., None])[..., 0].T)
    return torch.cat(parts) if parts else first.new_zeros(0, steps + 1)


def area(curves: Tensor) -> Tensor:
    """Return the area under curves (N, K + 1) by the trapezoidal rule, over the share of replaced pixels: (N,)."""
    return torch.trapezoid(curves.double(), dx=1 / (curves.shape[1] - 1), dim=1)


def orders_of(model: nn.Module, x: Tensor, y: Tensor, names: Sequence[str], seed: int = 0) -> Mapping[str, Tensor]:
    """Return name -> values (N, H, W) by which pixels are ordered: maps at the image's size, and `CONTROLS`."""
    size = tuple(x.shape[2:])
    values = {name: to_size(map_of(name, model, x, y), size) for name in names}
    values["random"] = torch.rand(len(x), *size, generator=torch.Generator().manual_seed(seed)).to(x)
    values["brightness"] = x.sum(1)
    return values


def faithfulness_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    eps: float,
    names: Sequence[str] = tuple(FUNCTIONS),
    inputs: Sequence[str] = INPUTS,
    steps: int = STEPS,
    attack_steps: int = TABLE_STEPS[-1],
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure deletion and insertion of every map and control, on every kind of input.

    The class is the one that the network predicts for the input itself, so that a map is held to the decision that it
    explains. Replaced pixels are black.

    Args:
        subset: images and labels, on the model's device.
        eps: radius of noise and attacks, in the unit of the pixels.
        names: keys of `maps_compared.FUNCTIONS`.
        inputs: kinds of input, of `maps_compared.INPUTS`.
        steps: of a curve.
        attack_steps: of the attacks.
        progress: called with the number of inputs done since the last call.

    Returns:
        One row for each input, order and rule: rule is 'own' for the map of the input itself, 'of x' for the map of the
        same class on the natural image; deletion and insertion, mean areas under the curves, each with its standard
        error (_se), and with the mean difference from the random order in the direction that speaks for the map
        (_gain, _gain_se): random minus deletion, insertion minus random, image by image; deletion_curve and
        insertion_curve, means over the n images.

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: Petsiuk et al. (2018); in none of the paper's sections.
    """
    check_each(names, "names", check_choice, tuple(FUNCTIONS))
    check_each(inputs, "inputs", check_choice, INPUTS)
    images, rows = inputs_of(model, subset, eps=eps, steps=attack_steps), []
    for kind in inputs:
        z = images[kind]
        y, black = predictions(model, z), torch.zeros_like(z)
        chosen = {("own", name): values for name, values in orders_of(model, z, y, names).items()}
        if kind != "x":
            stale = orders_of(model, images["x"], y, names)
            chosen |= {("of x", name): stale[name] for name in names}
        curves = {}
        for key, values in chosen.items():
            places = ranks(values)
            curves[key] = [curve(model, *ends, places, y, steps=steps) for ends in ((z, black), (black, z))]
        random = [area(of_random) for of_random in curves["own", "random"]]
        rows += [
            {"input": kind, "rule": rule, "interpreter": name, "n": len(z)} | _scores(both, random)
            for (rule, name), both in curves.items()
        ]
        if progress:
            progress(1)
    return rows


def _scores(curves: Sequence[Tensor], random: Sequence[Tensor]) -> dict:
    """Return the columns of one row from the curves of deletion and of insertion, and the areas of a random order."""
    columns: dict = {}
    for score, of_images, chance, sign in zip(("deletion", "insertion"), curves, random, (-1, 1), strict=True):
        areas = area(of_images)
        columns[score], columns[f"{score}_se"] = mean_and_error(areas)
        columns[f"{score}_gain"], columns[f"{score}_gain_se"] = mean_and_error(sign * (areas - chance))
        columns[f"{score}_curve"] = [round(value, 4) for value in of_images.double().mean(0).tolist()]
    return columns


def faithfulness_plan(part: Part, *, n: int = IMAGES, attack_steps: int = TABLE_STEPS[-1]) -> Iterator[Plan]:
    """Plan `faithfulness_rows` on the paper's images, at the radius of training."""
    size = TRAINING_EPS[part.dataset.name]
    subset = part.dataset.evaluation_subset(n).to(part.device)
    settings = header(
        "faithfulness",
        part,
        n=n,
        attack=attack_settings(size, attack_steps),
        interpreters=[*FUNCTIONS, *CONTROLS],
        details=SETTINGS,
        curve={"steps": STEPS, "replaced by": "black", "class": "predicted on the input"},
        score="area under the probability of the predicted class",
    )
    rows = once(
        lambda network, progress: faithfulness_rows(
            network, subset, eps=size, attack_steps=attack_steps, progress=progress
        )
    )
    yield Plan(settings, rows, len(INPUTS), "input")
