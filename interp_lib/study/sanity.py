"""Test maps by randomising the network that they explain, layer by layer from the top.

A map that stays what it was when the weights are random does not depend on what the network has learned.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..checks import check_batch
from ..discrepancies import kendall_tau
from ..models.architectures import GlobalPoolNetwork, build
from ..models.predict import evaluating
from ..values import check_choice, check_each, check_whole
from .maps_compared import FUNCTIONS, SETTINGS, map_of
from .rank_correlation import mean_and_error
from .sweep import Part, Plan, header, once

NAMES = tuple(name for name in FUNCTIONS if name != "RISE")  # RISE on fifty networks takes as long as all the others

SANITY_IMAGES = 50  # the first of the paper's; the random networks are what the error depends on

DRAWS = 10  # networks with random weights for every layer

FORMS = ("signed", "absolute")


def layers_of(model: GlobalPoolNetwork) -> list[str]:
    """Return the names of the modules that have weights of their own, from the last one that runs to the first."""
    names = {module: name for name, module in model.named_modules() if [*module.parameters(recurse=False)]}
    ran: list[str] = []
    hooks = [module.register_forward_hook(lambda own, *_: ran.append(names[own])) for module in names]
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, *model.input_shape).to(next(model.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
    return ran[::-1]


def randomised(model: GlobalPoolNetwork, layers: Sequence[str], seed: int) -> GlobalPoolNetwork:
    """Return a copy of a network with initial weights in some layers.

    The weights are drawn as for training: normal with standard deviation 1 / sqrt(fan in), biases 0.

    Args:
        model: a network of this library's architectures.
        layers: names of modules, see `layers_of`.
        seed: of the weights; with one seed a layer gets the same weights whatever the other layers are.

    Raises:
        ValueError: a layer that the network does not have.
    """
    check_each(layers, "layers", check_choice, tuple(layers_of(model)))
    fresh = build(model.name, model.input_shape, model.num_classes, seed=seed)
    fresh, changed = fresh.to(next(model.parameters())), copy.deepcopy(model)
    for name in layers:
        weights = fresh.get_submodule(name).state_dict()
        changed.get_submodule(name).load_state_dict(weights)
    return changed


def sanity_rows(
    model: GlobalPoolNetwork,
    x: Tensor,
    y: Tensor,
    *,
    names: Sequence[str] = NAMES,
    draws: int = DRAWS,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure Kendall's tau-b between maps of a network and of the same network with random layers.

    Layers are randomised in a cascade: the last one, the last two, and so on to all.

    Args:
        x: images (N, C, H, W) in [0, 1].
        y: the class of each map, int64 (N,).
        names: keys of `maps_compared.FUNCTIONS`.
        draws: numbers of random networks for every layer, with the seeds 0 to draws - 1.
        progress: called with the number of networks done since the last call.

    Returns:
        One row for each layer (the lowest random one), interpreter and form, 'signed' or 'absolute', of which the
        latter ranks the maps' absolute values: tau, the mean over images and draws, its standard error se over the
        draws, which are the unit of sampling since all images see one network; n, the number of draws that have a
        value; share, that of their maps that have an order: a constant map has none.

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: Adebayo et al. (2018), cascading randomisation; they use Spearman's rank correlation.
    """
    check_batch(model, x, y)
    check_each(names, "names", check_choice, tuple(FUNCTIONS))
    check_whole(draws, "draws", 1)
    original = {name: map_of(name, model, x, y) for name in names}
    layers, rows = layers_of(model), []
    for depth, layer in enumerate(layers, 1):
        taus: dict[tuple[str, str], list[Tensor]] = {}
        for seed in range(draws):
            changed = randomised(model, layers[:depth], seed)
            for name in names:
                pair = original[name], map_of(name, changed, x, y)
                for form, maps in zip(FORMS, (pair, [one.abs() for one in pair]), strict=True):
                    taus.setdefault((name, form), []).append(kendall_tau(*maps))
            if progress:
                progress(1)
        for (name, form), of_draws in taus.items():
            together = torch.stack(of_draws)
            tau, se = mean_and_error(together.nanmean(1))
            n = int((~together.isnan()).any(1).sum())
            share = float((~together.isnan()).double().mean())
            rows.append(
                {"layer": layer, "interpreter": name, "form": form, "tau": tau, "se": se, "n": n, "share": share}
            )
    return rows


def sanity_plan(part: Part, *, n: int = SANITY_IMAGES, draws: int = DRAWS) -> Iterator[Plan]:
    """Plan `sanity_rows` on the first of the paper's images."""
    subset = part.dataset.evaluation_subset(n).to(part.device)
    settings = header(
        "sanity",
        part,
        n=n,
        draws=draws,
        interpreters=list(NAMES),
        details=SETTINGS,
        weights="normal, 1 / sqrt(fan in), biases 0",
        score="Kendall's tau-b with the map of the trained network",
    )
    rows = once(lambda network, progress: sanity_rows(network, subset.x, subset.y, draws=draws, progress=progress))
    total = draws * len(layers_of(part.networks[0].load()))
    yield Plan(settings, rows, total, "network")
