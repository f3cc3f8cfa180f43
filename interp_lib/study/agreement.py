"""Measure how far interpreters agree with each other on an image, and on what noise and attacks make of it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..checks import check_numbers
from ..data import EvaluationSubset
from ..values import check_choice, check_each
from .evaluation import IMAGES, TRAINING_EPS
from .evaluation import STEPS as TABLE_STEPS
from .maps_compared import FUNCTIONS, INPUTS, SETTINGS, attack_settings, inputs_of, map_of, to_size
from .rank_correlation import mean_and_error
from .sweep import Part, Plan, header, once

GRIDS = ("CAM", "image")  # the size at which maps are compared

EVERY, ITSELF = "all pairs", "itself on x"  # in the place of a second interpreter


def rank_correlations(maps: Tensor) -> Tensor:
    """Return Kendall's tau-b between all pairs of M maps of every image.

    Tau-b is the cosine of two vectors of signs, one sign for each pair of pixels:

        tau_b(a, b) = <s_a, s_b> / (|s_a| |s_b|),        s_a = ( sign(a_i - a_j) ) over i < j

    so that one product of matrices gives all pairs of maps; `discrepancies.kendall_tau` is the same number.

    Args:
        maps: (N, M, ...), M maps of equal size for each of N images.

    Returns:
        float64 (N, M, M) on the CPU, in [-1, 1]; NaN for a constant map.

    Raises:
        TypeError, ValueError: see `checks.check_numbers`.

    Source: Kendall (1945) for ties.
    """
    check_numbers(maps, "maps")
    flat = maps.detach().cpu().flatten(2)
    n, m, pixels = flat.shape
    # Sums of signs are whole, which float32 is exactly up to 2 ** 24.
    kind = torch.float32 if pixels**2 < 2**24 else torch.float64
    taus = torch.zeros(n, m, m, dtype=torch.float64)
    for of_image, some in zip(taus, flat, strict=True):
        # All pairs twice, which cancels; of 784 pixels two megabytes a map.
        signs = (some[:, :, None] - some[:, None, :]).sign_()
        signs = signs.to(kind).flatten(1)
        products = (signs @ signs.T).double()
        size = products.diagonal().sqrt()
        of_image.copy_(products / (size[:, None] * size))
    return taus


def agreement_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    eps: float,
    names: Sequence[str] = tuple(FUNCTIONS),
    inputs: Sequence[str] = INPUTS,
    grids: Sequence[str] = GRIDS,
    steps: int = TABLE_STEPS[-1],
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure Kendall's tau-b between the true class's maps of every pair of interpreters, on every kind of input.

    The maps of two interpreters have different sizes. On the grid 'CAM' finer maps are averaged over the blocks that
    make up a pixel of the CAM; on the grid 'image' coarser maps are enlarged bilinearly, as for display.

    Args:
        subset: images and labels, on the model's device.
        eps: radius of noise and attacks, in the unit of the pixels.
        names: keys of `maps_compared.FUNCTIONS`, at least two.
        inputs: kinds of input, of `maps_compared.INPUTS`, 'x' first.
        grids: of `GRIDS`.
        steps: of the attacks.
        progress: called with the number of inputs done since the last call.

    Returns:
        One row for each input, grid and pair: interpreter, other, tau with its standard error se, n images; change and
        change_se, of tau from that on x, image by image. 'all pairs' is the mean over all pairs. Rows whose `other` is
        'itself on x' compare an interpreter's map with its own on x. A constant map has no order and does not count.

    Raises:
        TypeError, ValueError: see `checks` and `values`.
    """
    check_each(names, "names", check_choice, tuple(FUNCTIONS))
    check_each(inputs, "inputs", check_choice, INPUTS)
    check_each(grids, "grids", check_choice, GRIDS)
    if inputs[0] != "x":
        raise ValueError(f"inputs must begin with 'x', from which changes are counted; got {inputs!r:.60}.")
    images, rows = inputs_of(model, subset, eps=eps, steps=steps), []
    natural: dict[str, Tensor] = {}
    sizes = {"CAM": tuple(map_of("CAM", model, subset.x[:1], subset.y[:1]).shape[1:]), "image": subset.x.shape[2:]}
    for kind in inputs:
        own = [map_of(name, model, images[kind], subset.y) for name in names]
        for grid in grids:
            maps = torch.stack([to_size(some, sizes[grid]) for some in own], 1)
            before = natural.setdefault(grid, maps)
            taus = rank_correlations(torch.cat([maps, before], 1))  # of all maps there and on x
            label = {"input": kind, "grid": grid}
            rows += [label | row for row in _pairs(names, taus)]
            if kind != "x":
                rows += [label | row for row in _changes(names, taus)]
        if progress:
            progress(1)
    return rows


def _mean(values: Tensor) -> dict:
    tau, se = mean_and_error(values)
    return {"tau": tau, "se": se, "n": int((~values.isnan()).sum())}


def _pairs(names: Sequence[str], taus: Tensor) -> Iterator[dict]:
    """Yield the rows of the pairs on one input, from the taus (N, 2M, 2M) of M maps there and M on x."""
    m = len(names)
    first, second = torch.triu_indices(m, m, 1)
    labels = [(names[i], names[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    now, on_x = taus[:, first, second], taus[:, m + first, m + second]
    columns = [*zip(labels, now.T, on_x.T, strict=True), ((EVERY, EVERY), now.nanmean(1), on_x.nanmean(1))]
    for (one, other), values, before in columns:
        change, error = mean_and_error(values - before)
        yield {"interpreter": one, "other": other} | _mean(values) | {"change": change, "change_se": error}


def _changes(names: Sequence[str], taus: Tensor) -> Iterator[dict]:
    """Yield the rows that compare each interpreter's map with its own on x, from the same taus."""
    for k, name in enumerate(names):
        yield {"interpreter": name, "other": ITSELF} | _mean(taus[:, k, len(names) + k])


def agreement_plan(part: Part, *, n: int = IMAGES, steps: int = TABLE_STEPS[-1]) -> Iterator[Plan]:
    """Plan `agreement_rows` on the paper's images, at the radius of training."""
    size = TRAINING_EPS[part.dataset.name]
    subset = part.dataset.evaluation_subset(n).to(part.device)
    settings = header(
        "agreement",
        part,
        n=n,
        attack=attack_settings(size, steps),
        interpreters=list(FUNCTIONS),
        details=SETTINGS,
        grids=list(GRIDS),
        score="Kendall's tau-b of the true class's maps",
    )
    rows = once(lambda network, progress: agreement_rows(network, subset, eps=size, steps=steps, progress=progress))
    yield Plan(settings, rows, len(INPUTS), "input")
