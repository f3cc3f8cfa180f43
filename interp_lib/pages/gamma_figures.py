"""Draw what the regularisation parameter gamma does, Figure A1."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from .map_figures import show, show_map
from .style import AXIS_LABELS, WIDTH, _legend_below, _no_axes
from .training_figures import CLEAN, ROBUST


def gamma_curve(rows: pd.DataFrame, *, eps: float, printed: pd.DataFrame | None = None, title: str = "") -> Figure:
    """Draw Figure A1: clean and robust accuracy against gamma, with 95 % bands of the sampling error of the images.

    The axis of gamma is logarithmic, with gamma = 0, normal training, at its left end.

    Args:
        rows: columns `gamma`, `eps` (0 or the radius), `accuracy`, `se`.
        eps: the radius of the attack.
        printed: columns `gamma`, `eps` and `accuracy` of values that the paper prints, drawn as hollow points.
        title: title above the axes.

    Raises:
        ValueError: no rows.
    """
    if rows.empty:
        raise ValueError("rows must not be empty")
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    plt.close(figure)
    place, ticks = gamma_axis(rows["gamma"])
    for radius, color, name in ((0, CLEAN, "clean"), (eps, ROBUST, f"PGD, ε = {eps:g}")):
        line = rows[np.isclose(rows["eps"], radius)].sort_values("gamma")
        at = place(line["gamma"])
        ax.plot(at, line["accuracy"], color=color, marker="o", label=name, clip_on=False)
        low, high = (line["accuracy"] + side * 1.96 * line["se"] for side in (-1, 1))
        ax.fill_between(at, low.clip(0, 1), high.clip(0, 1), color=color, alpha=0.15, lw=0)
        if printed is not None:
            points = printed[np.isclose(printed["eps"], radius)]
            ax.plot(
                place(points["gamma"]),
                points["accuracy"],
                "o",
                color=color,
                markerfacecolor="white",
                markersize=9,
                label=f"{name}, paper",
                clip_on=False,
                zorder=3,
            )
    ax.set(xlabel="regularisation parameter γ", ylabel="accuracy", ylim=(0, 1), title=title)
    # Level labels would touch, and so would slanted ones that are centred: 0.015, 0.02.
    ax.set_xticks(list(ticks), list(ticks.values()), rotation=45, ha="right", rotation_mode="anchor")
    _legend_below(figure, *ax.get_legend_handles_labels(), ncols=2)
    return figure


def gamma_axis(gammas: Sequence[float]):
    """Make a logarithmic axis of gamma that has a place for 0.

    Returns:
        A function from values of gamma to places on the axis, and the ticks, place -> label.
    """
    positive = sorted({float(g) for g in gammas if g > 0}) or [1.0]
    # log10(0) is -inf: put 0 as far left of the smallest gamma as the two closest gammas are apart.
    steps = np.diff(np.log10(positive))
    zero = np.log10(positive[0]) - (float(steps.min()) if len(steps) else 1.0)

    def place(values):
        values = np.asarray(values, dtype=float)
        return np.where(values > 0, np.log10(np.where(values > 0, values, 1)), zero)

    return place, {float(place([g])[0]): f"{g:g}" for g in sorted({float(g) for g in gammas})}


def gamma_frame(
    rows: pd.DataFrame, gamma: float, x_adv: Tensor, before: Tensor, after: Tensor, *, names: Sequence[str]
) -> Figure:
    """Draw one frame of a slider over gamma: robust accuracy, this network highlighted, above an image under attack.

    Args:
        rows: columns `gamma`, `eps`, `accuracy`, for all networks.
        gamma: gamma of the network in this frame.
        x_adv: an image under attack, x', (C, H, W).
        before, after: maps of the natural image and of x', (k, h, w); the two maps of a pair share a colour scale.
        names: names of the k maps.
    """
    k = len(names)
    figure = plt.figure(figsize=(WIDTH, 5.6))
    plt.close(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    ax = top.subplots()
    for other, line in rows.groupby("gamma"):
        line, chosen = line.sort_values("eps"), np.isclose(other, gamma)
        ax.plot(
            line["eps"],
            line["accuracy"],
            color=ROBUST if chosen else "#C8C8C8",
            marker="o" if chosen else None,
            zorder=3 if chosen else 2,
            clip_on=False,
        )
    ax.set(xlabel=AXIS_LABELS["eps"], ylabel=AXIS_LABELS["accuracy"], ylim=(0, 1), title=f"γ = {gamma:g}")
    axes = bottom.subplots(1, 2 * k + 1)
    show(axes[0], x_adv)
    axes[0].set_title("x′", fontsize=12, pad=4)
    for j, name in enumerate(names):
        largest = max(before[j].abs().max().item(), after[j].abs().max().item())
        for ax, one, where in zip(axes[1 + 2 * j :], (before[j], after[j]), ("x", "x′"), strict=False):
            show_map(ax, one, largest)
            ax.set_title(f"{name}\nof {where}", fontsize=11, pad=4)
    for ax in axes.flat:
        _no_axes(ax)
    return figure
