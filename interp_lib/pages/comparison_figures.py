"""Draw how far maps agree, what random weights leave of them, and how fast a class goes with its pixels."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..study.faithfulness import CONTROLS
from ..study.maps_compared import FUNCTIONS
from .style import METHOD_COLORS, WIDTH, _legend_below

# The colours of methods, which are told apart by all eyes, in the order of the maps; orders of no map are black.
MAP_STYLES: dict[str, dict] = {
    **{name: dict(style) for name, style in zip(FUNCTIONS, METHOD_COLORS.values(), strict=True)},
    **{name: {"color": "#000000", "linestyle": line} for name, line in zip(CONTROLS, (":", "--"), strict=True)},
}


def agreement_matrix(
    above: Mapping[tuple[str, str], float],
    below: Mapping[tuple[str, str], float],
    *,
    labels: tuple[str, str] = ("on x", "on x′"),
    title: str | None = None,
) -> Figure:
    """Draw rank correlations between maps: one kind of input above the diagonal, another one below it.

    Args:
        above, below: (map, other map) -> tau for every pair, the same pairs in both.
        labels: the names of the two kinds of input.
        title: title above the axes.
    """
    names = list(dict.fromkeys(name for pair in above for name in pair))
    grid = np.full((len(names), len(names)), np.nan)
    for values, order in ((above, 1), (below, -1)):
        for pair, tau in values.items():
            row, column = [names.index(name) for name in pair][::order]
            grid[row, column] = tau
    figure, ax = plt.subplots(figsize=(WIDTH, 0.42 * len(names) + 2.1), layout="constrained")
    plt.close(figure)
    ax.imshow(grid, vmin=-0.2, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        if row != column:
            ink = "white" if value < 0.55 else "black"
            text = f"{value:.2f}".replace("-", "−").replace("0.", ".")  # a column has no room for the zero
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=11)
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_xlabel(f"Kendall's τ: above {labels[0]}, below {labels[1]}")
    if title:
        ax.set_title(title)
    return figure


def random_layers(
    taus: Mapping[str, Mapping[str, Sequence[float]]], layers: Sequence[str], *, title: str | None = None
) -> Figure:
    """Draw what is left of maps when more and more layers are random, in a panel for each form of the map.

    Args:
        taus: form -> map -> tau with the trained network's map for each layer, see `study.sanity_rows`.
        layers: the lowest random layer, from the last to the first.
        title: title above all panels.
    """
    figure, axes = plt.subplots(1, len(taus), figsize=(WIDTH, 4.3), sharey=True, squeeze=False, layout="constrained")
    plt.close(figure)
    for ax, (form, of_form) in zip(axes[0], taus.items(), strict=True):
        for name, values in of_form.items():
            ax.plot(range(len(layers) + 1), [1, *values], **MAP_STYLES[name])
        ax.axhline(0, color="#404040", linewidth=1)
        ax.set_xticks(range(len(layers) + 1), ["none", *layers], rotation=40, ha="right", rotation_mode="anchor")
        ax.set(title=form, xlabel="random down to")
    axes[0, 0].set_ylabel("Kendall's τ with the trained map")
    shown = next(iter(taus.values()))
    _legend_below(figure, [Line2D([], [], label=name, **MAP_STYLES[name]) for name in shown])
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def pixel_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], *, title: str | None = None) -> Figure:
    """Draw a class's probability while pixels are replaced in the order of a map, in a panel for each experiment.

    Args:
        curves: 'deletion' or 'insertion' -> order -> mean probabilities, see `study.faithfulness_rows`.
        title: title above all panels.
    """
    figure, axes = plt.subplots(1, len(curves), figsize=(WIDTH, 4.3), sharey=True, squeeze=False, layout="constrained")
    plt.close(figure)
    for ax, (kind, of_kind) in zip(axes[0], curves.items(), strict=True):
        for name, values in of_kind.items():
            style = MAP_STYLES[name] | {"marker": "", "zorder": 3 if name in CONTROLS else 2}
            ax.plot(np.linspace(0, 1, len(values)), values, **style)
        ax.set(title=kind, xlabel="share of pixels", xlim=(0, 1), ylim=(0, 1.02))
    axes[0, 0].set_ylabel("probability of the class")
    shown = next(iter(curves.values()))
    _legend_below(figure, [Line2D([], [], label=name, **MAP_STYLES[name] | {"marker": ""}) for name in shown])
    if title:
        figure.suptitle(title, fontsize=13)
    return figure
