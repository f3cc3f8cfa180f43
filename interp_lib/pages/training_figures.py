"""Draw the figures on training: landscapes of the toy problem, schedules, learning curves, Figure 3."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import AXIS_LABELS, HEIGHT, METHOD_COLORS, WIDTH, _check_methods, _legend_below

if TYPE_CHECKING:  # a page that only reads records does not wait for PyTorch
    from torch import Tensor

    Landscape = tuple[Tensor, Tensor, Sequence[Tensor]]

CLEAN, ROBUST = "#787878", METHOD_COLORS["Int"]["color"]


INK = "#404040"


def landscapes(
    panels: "Mapping[str, Landscape]",
    x: "Tensor",
    eps: float,
    *,
    highest: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the discrepancy over the ball around an image of two pixels, one panel per network.

    Colour is D~(x, x') of eq. (8), and the white cross is x. The dashed line is the decision boundary, where the logits
    of the true class and its rival are equal; the hatched side is misclassified. Every path begins at a ring and ends
    at an orange disc.

    Args:
        panels: name -> (D~, margin, paths): two grids (side, side), second pixel upwards, and iterates (steps + 1, 2).
        x: the image, 2 values.
        eps: radius of the ball.
        highest: top of the common colour scale. Default: the largest D~ in the panels.
        title: title above all panels; a slider's frames have none, since each panel names its network.
    """
    low, high = (x.flatten() + side * eps for side in (-1, 1))
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    highest = highest or max(float(values.max()) for values, _, _ in panels.values())
    size = (WIDTH, 3.3 if len(panels) > 1 else 4.4)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    plt.close(figure)
    for ax, (name, (values, margin, paths)) in zip(axes.flat, panels.items(), strict=True):
        shown = ax.imshow(
            values.numpy(),
            origin="lower",
            extent=extent,
            vmin=0,
            vmax=highest,
            cmap="viridis",
            interpolation="bilinear",
        )
        edges = [np.linspace(a, b, n) for a, b, n in zip(extent[::2], extent[1::2], margin.T.shape, strict=True)]
        if float(margin.min()) < 0:
            ax.contourf(
                *edges,
                margin.numpy(),
                levels=[float(margin.min()) - 1, 0],
                colors="none",
                hatches=["//"],
                extend="neither",
            )
            ax.contour(*edges, margin.numpy(), levels=[0], colors="white", linestyles="--", linewidths=2)
        for path in (path.numpy() for path in paths):
            ax.plot(path[:, 0], path[:, 1], color="white", linewidth=1.2, marker=".", markersize=5, clip_on=False)
            ax.plot(*path[0], "o", color="white", markerfacecolor="none", markersize=8, clip_on=False)
            ax.plot(*path[-1], "o", color="#FF7F50", markeredgecolor="black", markersize=9, clip_on=False, zorder=5)
        ax.plot(*x.flatten().tolist(), "+", color="white", markersize=11, markeredgewidth=2.5)
        ax.set(title=name, xlabel="left pixel of x′", xlim=extent[:2], ylim=extent[2:])
        ax.locator_params(nbins=4)
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("right pixel of x′")
    figure.colorbar(shown, ax=axes, label="D̃(x, x′)", shrink=0.85, aspect=25)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def margins(rows: pd.DataFrame, *, x: str = "update") -> Figure:
    """Draw margins over training, at x (solid) and at the worst point of the ball (dashed); below 0 is misclassified.

    Args:
        rows: columns `method`, `margin`, `worst` and the column named by `x`.
        x: the column on the horizontal axis.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, HEIGHT))
    plt.close(figure)
    for method in (m for m in METHOD_COLORS if m in set(rows["method"])):
        line, color = rows[rows["method"] == method], METHOD_COLORS[method]["color"]
        ax.plot(line[x], line["margin"], color=color, label=f"{method}: on x")
        ax.plot(line[x], line["worst"], color=color, linestyle="--", label=f"{method}: worst of the ball")
    ax.axhline(0, color=INK, linewidth=1)
    ax.set(xlabel="updates of the weights", ylabel="margin of the true class")
    _legend_below(figure, *ax.get_legend_handles_labels(), ncols=2)
    return figure


ASCENT_LINES = {"D~": "-", "cross-entropy": "--"}


def ascents(rows: pd.DataFrame) -> Figure:
    """Draw two kinds of ascent step by step: the discrepancy on the left, the cross-entropy on the right.

    Colour shows the network. A line is solid if x' climbs D~ and dashed if x' climbs the cross-entropy.

    Args:
        rows: columns `method`, `climbs` ('D~' or 'cross-entropy'), `step`, `discrepancy` and `cross_entropy`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    plt.close(figure)
    for (method, climbs), line in rows.groupby(["method", "climbs"]):
        for ax, column in zip(axes, ("discrepancy", "cross_entropy"), strict=True):
            ax.plot(line["step"], line[column], color=METHOD_COLORS[method]["color"], linestyle=ASCENT_LINES[climbs])
    for ax, name in zip(axes, ("D̃(x, x′)", "cross-entropy of x′"), strict=True):
        ax.set(title=name, xlabel="inner steps", ylim=(0, None))
    methods = [m for m in METHOD_COLORS if m in set(rows["method"])]
    handles = [Line2D([], [], color=METHOD_COLORS[m]["color"], label=m) for m in methods]
    handles += [
        Line2D([], [], color=INK, linestyle=s, label=f"x′ climbs {c.replace('D~', 'D̃')}")
        for c, s in ASCENT_LINES.items()
    ]
    _legend_below(figure, handles, ncols=2)
    return figure


def ramps(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw the radius of the inner maximisation over training, for each schedule from its first step to its last.

    Args:
        lines: name of a schedule -> (fraction of the training steps, fraction of the final radius), both in [0, 1].
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.0))
    plt.close(figure)
    styles = list(METHOD_COLORS.values())[1:]
    for (name, (at, radius)), style in zip(lines.items(), styles, strict=False):
        ax.plot(at, radius, label=name, color=style["color"], linestyle=("-", "--", "-.", ":")[len(ax.lines) % 4])
    ax.set(xlabel="share of the training steps", ylabel="radius / final radius", xlim=(0, 1), ylim=(0, 1.05))
    _legend_below(figure, *ax.get_legend_handles_labels(), ncols=2)
    return figure


def learning_curves(rows: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Draw validation accuracy after every epoch, clean on the left, under attack on the right, one line per network.

    Args:
        rows: columns `method`, `seed`, `epoch`, `validation_accuracy` and `validation_robust`.
        title: title above both panels.

    Raises:
        ValueError: no rows, or an unknown method.
    """
    _check_methods(rows)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.5), sharey=True)
    plt.close(figure)
    for (method, _), line in rows.groupby(["method", "seed"]):
        for ax, column in zip(axes, ("validation_accuracy", "validation_robust"), strict=True):
            ax.plot(line["epoch"], line[column], clip_on=False, **METHOD_COLORS[method] | {"markersize": 5})
    for ax, name in zip(axes, ("clean", "under attack"), strict=True):
        ax.set(title=name, xlabel="epoch", ylim=(0, 1))
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes[0].set_ylabel("validation accuracy")
    if title:
        figure.suptitle(title, fontsize=13)
    _legend_below(figure, [Line2D([], [], label=m, **s) for m, s in METHOD_COLORS.items() if m in set(rows["method"])])
    return figure


LEVEL_MARKERS = ("o", "D", "s")


def time_and_accuracy(rows: pd.DataFrame, levels: Sequence[str], *, title: str | None = None) -> Figure:
    """Draw Figure 3: seconds per epoch as bars (left axis), robust accuracy as points (right axis), by decreasing time.

    Args:
        rows: one row per method: columns `method`, `seconds`, and for every level a column of that name with the
            accuracy, NaN if missing. An optional column `LEVEL + " error"` is the half-length of an error bar.
        levels: perturbation sizes, as text.
        title: title above the axes.

    Raises:
        ValueError: no rows, or an unknown method.
    """
    _check_methods(rows)
    rows = rows.sort_values("seconds", ascending=False).reset_index(drop=True)
    figure, left = plt.subplots(figsize=(WIDTH, 4.8))
    plt.close(figure)
    colors = [METHOD_COLORS[m]["color"] for m in rows["method"]]
    left.bar(rows.index, rows["seconds"], color=colors, alpha=0.45, width=0.72)
    left.set(ylabel="time of an epoch (s)", xticks=rows.index)
    left.set_xticklabels(rows["method"], rotation=40, ha="right", rotation_mode="anchor")
    left.tick_params(axis="x", pad=9)  # markers at accuracy 0 reach half their size below the axis
    left.grid(visible=False)
    right = left.twinx()
    right.set(ylim=(0, 1), ylabel=AXIS_LABELS["accuracy"])
    right.spines["right"].set_visible(True)
    handles = [Patch(color=INK, alpha=0.45, label="time")]
    right.grid(visible=False)
    for k, (marker, fill, level) in enumerate(zip(LEVEL_MARKERS, (INK, "white", INK), levels, strict=False)):
        style = {"marker": marker, "color": INK, "markerfacecolor": fill, "linestyle": "none"}
        error = rows.get(f"{level} error")
        if error is not None:  # no accuracy lies outside [0, 1], and no error bar crosses the labels
            error = [error.clip(upper=rows[level]), error.clip(upper=1 - rows[level])]
        at = rows.index + 0.24 * (k - (len(levels) - 1) / 2)  # side by side, so that equal accuracies stay visible
        right.errorbar(at, rows[level], yerr=error, capsize=3, elinewidth=1.2, clip_on=False, **style)
        handles.append(Line2D([], [], label=f"accuracy, ε = {level}", **style))
    if title:
        left.set_title(title)
    _legend_below(figure, handles)
    return figure
