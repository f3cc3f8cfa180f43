"""Figures: one look for every method, from tidy rows to labelled axes."""

import sys
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

# Blues train on adversarial examples, warm colours penalise IG maps, purples are the paper's method, green is
# both. Every colour has a contrast of 3 or more on white and on the dark page, and every two stay apart for
# normal and colour-blind eyes; the tests hold them to it. The markers say the same thing without colour.
METHOD_COLORS = {
    "Normal": {"color": "#787878", "marker": "o", "linestyle": "-"},
    "Adv": {"color": "#1E96FF", "marker": "s", "linestyle": "--"},
    "TRADES": {"color": "#693CFF", "marker": "D", "linestyle": "--"},
    "IG-Norm": {"color": "#C38700", "marker": "^", "linestyle": "-."},
    "IG-Norm-Sum": {"color": "#B43C1E", "marker": "v", "linestyle": "-."},
    "Int-1-class": {"color": "#A578B4", "marker": "P", "linestyle": "-"},
    "Int": {"color": "#963CB4", "marker": "X", "linestyle": "-"},
    "Int-Adv": {"color": "#00A55A", "marker": "*", "linestyle": "--"},
}

# Inches, at 100 CSS pixels an inch: a figure is 560 px wide on a desktop and shrinks to about 350 on a phone.
WIDTH, HEIGHT = 5.6, 3.8

AXIS_LABELS = {
    "eps": "perturbation size ε (ℓ∞, pixel range 0–1)",
    "accuracy": "robust accuracy",
    "steps": "attack steps",
}

_SOURCES = {
    "paper": {"linestyle": ":", "markerfacecolor": "white", "linewidth": 1.2, "zorder": 3},
    "released, re-measured": {"linestyle": "-"},
    "trained here": {"linestyle": "--"},
}


def use_style() -> None:
    """Set Matplotlib's defaults for the book: legible at 390 px, white behind the ink on every page.

    The background is opaque white, also on the dark page, where the book draws a figure as a white card: a
    heat map's colours then mean the same in both. Inside IPython figures come out as PNG with two pixels per
    CSS pixel, which a strict re-run of a notebook skips where it would compare the text of an SVG.
    """
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "figure.constrained_layout.w_pad": 0.08,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.dpi": 200,
            "font.size": 12,
            "axes.titlesize": 13,
            "axes.labelsize": 12,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "legend.handlelength": 2.4,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.8,
            "lines.linewidth": 2,
            "lines.markersize": 7,
            "image.cmap": "viridis",
            "image.interpolation": "nearest",
        }
    )
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def accuracy_curves(
    rows: pd.DataFrame,
    x: str = "eps",
    *,
    figsize: tuple[float, float] = (WIDTH, 4.6),
    title: str | None = None,
) -> Figure:
    """Robust accuracy against perturbation size, one line a method and source, with 95 % bands.

    Colour and marker say the method. Where there are several sources the line says the source: dotted with
    hollow markers is the paper, solid is the released network measured again, dashed is one trained here.

    Args:
        rows: columns ``method`` (a key of ``METHOD_COLORS``), ``x``, ``accuracy`` in [0, 1], ``se`` (its
            standard error; NaN draws no band) and, optionally, ``source``.
        x: the column on the horizontal axis.
        figsize: width and height in inches; the legend below the axes is part of it.
        title: set above the axes when given.

    Returns:
        The figure, closed in pyplot: as the last expression of a cell it is shown once, not twice.

    Raises:
        ValueError: a column is missing, there are no rows, a method or source is unknown, or an accuracy
            lies outside [0, 1].
    """
    _check_rows(rows, x)
    rows = rows.assign(source="released, re-measured") if "source" not in rows else rows
    several = len(set(rows["source"])) > 1

    figure, axes = plt.subplots(figsize=figsize, layout="constrained")
    plt.close(figure)
    for (method, source), line in rows.groupby(["method", "source"]):
        line = line.sort_values(x)
        style = METHOD_COLORS[method] | (_SOURCES[source] if several or source == "paper" else {})
        axes.plot(line[x], line["accuracy"], clip_on=False, **style)
        low, high = (line["accuracy"] + side * 1.96 * line["se"] for side in (-1, 1))
        axes.fill_between(line[x], low.clip(0, 1), high.clip(0, 1), color=style["color"], alpha=0.15, lw=0)
    axes.set(
        xlabel=AXIS_LABELS.get(x, x),
        ylabel=AXIS_LABELS["accuracy"],
        ylim=(0, 1),
        yticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
    )
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if title:
        axes.set_title(title)

    methods = [method for method in METHOD_COLORS if method in set(rows["method"])]
    hide_line = {"linestyle": "none"} if several else {}
    handles = [Line2D([], [], label=method, **METHOD_COLORS[method] | hide_line) for method in methods]
    if several or "paper" in set(rows["source"]):
        present = [source for source in _SOURCES if source in set(rows["source"])]
        handles += [Line2D([], [], label=source, color="#404040", marker="o", **_SOURCES[source]) for source in present]
    # Below the axes a legend covers no data and stays readable where the page is narrow.
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.5)
    return figure


def _check_rows(rows: pd.DataFrame, x: str) -> None:
    missing = [column for column in ("method", x, "accuracy", "se") if column not in rows]
    if missing:
        raise ValueError(f"rows must have the columns method, {x}, accuracy and se; missing: {missing}")
    if rows.empty:
        raise ValueError("rows must not be empty")
    for column, known in (("method", METHOD_COLORS), ("source", _SOURCES)):
        unknown = sorted(set(rows.get(column, pd.Series(dtype=str))) - set(known))
        if unknown:
            raise ValueError(f"unknown {column} {unknown}; known: {list(known)}")
    if not rows["accuracy"].between(0, 1).all():
        low, high = rows["accuracy"].min(), rows["accuracy"].max()
        raise ValueError(f"accuracy must lie in [0, 1], not percent; got {low} to {high}")


def image_grid(images: Tensor, titles: Sequence[str] = (), *, columns: int = 8, scale: float = 0.7) -> Figure:
    """Images (N, C, H, W) in [0, 1] in rows of `columns`, with a title over each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * scale, rows * scale * 1.35), squeeze=False)
    plt.close(figure)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image in zip(axes.flat, images, strict=False):
        _show(ax, image)
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.set_title(title, fontsize=10, pad=2)
    return figure


def attack_grid(
    x: Tensor, y: Tensor, attacked: Mapping[str, tuple[Tensor, Tensor]], eps: float, classes: Sequence[str]
) -> Figure:
    """What an attack did to some images on several networks: x' and x' - x, with the predicted class.

    Args:
        x, y: the images (N, C, H, W) in [0, 1] and their classes (N,).
        attacked: network's name -> (x', predicted classes (N,)).
        eps: the radius; it is the end of the colour scale of x' - x.
        classes: their names.
    """
    n = len(x)
    figure, axes = plt.subplots(
        2 * len(attacked), n, figsize=(WIDTH, 2 * len(attacked) * WIDTH / (n + 0.6) * 1.08), squeeze=False
    )
    plt.close(figure)
    for row, (name, (x_adv, predicted)) in enumerate(attacked.items()):
        for column in range(n):
            top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
            _show(top, x_adv[column])
            fooled = predicted[column] != y[column]
            top.set_title(
                f"{classes[predicted[column]]} {'✗' if fooled else '✓'}",
                fontsize=12, pad=3, fontweight="bold" if fooled else "normal", color="#B43C1E" if fooled else "black",
            )  # fmt: skip
            change = (x_adv[column] - x[column]).mean(0).cpu()
            bottom.imshow(change, cmap="PuOr", vmin=-max(eps, 1e-6), vmax=max(eps, 1e-6))
        axes[2 * row, 0].set_ylabel(f"{name}\nx′", fontsize=11)
        axes[2 * row + 1, 0].set_ylabel("x′ − x", fontsize=11)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure


def difference_matrix(differences: pd.DataFrame, chosen: Mapping[str, str], *, xlabel: str, ylabel: str) -> Figure:
    """Differences between rows and columns as a heat map, the chosen column of every row framed."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.55 * len(differences) + 1.6))
    plt.close(figure)
    seaborn.heatmap(
        differences, annot=True, fmt=".2f", cmap="viridis_r", square=False, ax=ax, annot_kws={"size": 11},
        cbar_kws={"label": "mean absolute difference"}, linewidths=0.5,
    )  # fmt: skip
    for row, name in enumerate(differences.index):
        column = list(differences.columns).index(chosen[name])
        ax.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="#B43C1E", linewidth=3, clip_on=False))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
    plt.setp(ax.get_yticklabels(), rotation=0)
    return figure


def map_grid(image: Tensor, maps: Mapping[str, Tensor], *, columns: int = 4) -> Figure:
    """An image (C, H, W) and maps of it (h, w), each over its largest absolute value, in rows of `columns`."""
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * WIDTH / columns * 1.15), squeeze=False)
    plt.close(figure)
    for ax in axes.flat:
        ax.set_axis_off()
    _show(axes.flat[0], image)
    axes.flat[0].set_title("image", fontsize=11, pad=3)
    for ax, (name, one) in zip(axes.flat[1:], maps.items(), strict=False):
        _show_map(ax, one)
        ax.set_title(name, fontsize=10, pad=3, wrap=True)
    return figure


def attacked_maps(
    x: Tensor, x_adv: Tensor, before: Tensor, after: Tensor, names: Sequence[str], tau: Sequence[float]
) -> Figure:
    """Figure 1: an image and its adversarial example, with the maps of some classes of each.

    Args:
        x, x_adv: (C, H, W) in [0, 1].
        before, after: maps of x and of x', (k, h, w); each pair shares its scale.
        names: of the k classes.
        tau: rank correlation of each pair of maps.
    """
    k = len(names)
    figure, axes = plt.subplots(2, k + 1, figsize=(WIDTH, 2 * WIDTH / (k + 1) * 1.12), squeeze=False)
    plt.close(figure)
    for row, (image, maps, label) in enumerate(((x, before, "x"), (x_adv, after, "x′"))):
        _show(axes[row, 0], image)
        axes[row, 0].set_ylabel(label, fontsize=13, rotation=0, labelpad=10)
        for j in range(k):
            _show_map(axes[row, j + 1], maps[j], max(before[j].abs().max().item(), after[j].abs().max().item()))
    for j, (name, value) in enumerate(zip(names, tau, strict=True)):
        axes[0, j + 1].set_title(name, fontsize=12, pad=4)
        axes[1, j + 1].set_xlabel(f"τ = {value:.2f}", fontsize=12)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure


def bound_scatter(bound: Mapping[str, Tensor], measured: Mapping[str, Tensor], *, xlabel: str, ylabel: str) -> Figure:
    """Measured discrepancies (n,) against their lower bounds (n,), method by method, with the line of equality."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4))
    plt.close(figure)
    for method in (m for m in METHOD_COLORS if m in bound):
        style = {key: METHOD_COLORS[method][key] for key in ("color", "marker")}
        ax.scatter(bound[method].cpu(), measured[method].cpu(), s=22, alpha=0.7, label=method, linewidths=0, **style)
    top = max(float(v.max()) for v in measured.values())
    ax.plot([0, top], [0, top], color="#404040", linestyle=":", label="bound")
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, None), ylim=(0, None))
    ax.legend(loc="lower right")
    return figure


def _show_map(ax: Axes, one: Tensor, largest: float | None = None) -> None:
    one = one.detach().cpu()
    largest = largest or one.abs().max().item() or 1.0
    ax.imshow(one, cmap="PuOr", vmin=-largest, vmax=largest)


def _show(ax: Axes, image: Tensor) -> None:
    image = image.detach().cpu()
    ax.imshow(image[0] if len(image) == 1 else image.permute(1, 2, 0), cmap="gray", vmin=0, vmax=1)
