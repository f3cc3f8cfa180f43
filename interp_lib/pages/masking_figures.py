"""Draw what tells masked gradients from robustness: surfaces of the margin, and transfer between networks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..study.records import Record
from .style import WIDTH

LOWEST, HIGHEST = -1.0, 1.5  # of the colours of a surface; values beyond have the colour of the end


def surface_panels(surfaces: Mapping[str, Sequence[Sequence[float]]], *, title: str | None = None) -> Figure:
    """Draw the margin on a plane through an image as small heat maps, one a network.

    Colour is the margin over the margin at the image, which is the white cross; beyond the white line the image is
    misclassified. All points in the dotted diamond are in the ball, and outside it some pixels have moved farther.

    Args:
        surfaces: name -> lists of values from `study.masking.surface`, of one shape.
        title: title above all panels.

    Raises:
        ValueError: no surfaces.
    """
    if not surfaces:
        raise ValueError("surfaces must not be empty.")
    columns = min(len(surfaces), 4)
    rows = -(-len(surfaces) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 1.55 * rows + 1.5), squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    plt.close(figure)
    for ax in axes.flat[len(surfaces) :]:
        ax.set_axis_off()
    for ax, (name, values) in zip(axes.flat, surfaces.items(), strict=False):
        grid = np.array(values)
        drawn = ax.imshow(grid, origin="lower", extent=(-1, 1, -1, 1), vmin=LOWEST, vmax=HIGHEST)
        if grid.min() < 0 < grid.max():
            places = np.linspace(-1, 1, len(grid))
            ax.contour(places, places, grid, levels=[0], colors="white", linewidths=2)
        ax.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=2)
        ax.plot([-1, 0, 1, 0, -1], [0, 1, 0, -1, 0], ":", color="white", linewidth=1.2)
        ax.set_title(name, fontsize=11)
        ax.set_xticks([-1, 0, 1], ["−ε", "0", "ε"])
        ax.set_yticks([-1, 0, 1], ["−ε", "0", "ε"])
        ax.grid(visible=False)
    figure.supxlabel("along the sign of the gradient", fontsize=12)
    figure.supylabel("along random signs", fontsize=12)
    figure.colorbar(drawn, ax=axes, label="margin, over that at x", extend="both", location="top", aspect=35)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def transfer_matrix(record: Record, *, title: str | None = None) -> Figure:
    """Draw accuracies on attacks that were made on other networks; a frame marks each network's own attack.

    Args:
        record: of `measure transfer`, a row for every pair of networks.
        title: title above the axes.
    """
    accuracy = {(row["method"], row["attack"]): row["accuracy"] for row in record.rows}
    names = list(dict.fromkeys(network for network, _ in accuracy))
    grid = np.array([[accuracy[network, source] for source in names] for network in names])
    figure, ax = plt.subplots(figsize=(WIDTH, 0.46 * len(names) + 1.9), layout="constrained")
    plt.close(figure)
    ax.imshow(grid, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        ink = "white" if value < 0.6 else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=11)
    for k in range(len(names)):
        ax.add_patch(Rectangle((k - 0.48, k - 0.48), 0.96, 0.96, fill=False, edgecolor="#FF7F50", linewidth=2.5))
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set(xlabel="attack made on", ylabel="accuracy of")
    if title:
        ax.set_title(title)
    return figure
