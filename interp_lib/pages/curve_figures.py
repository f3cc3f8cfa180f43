"""Draw curves, scatter plots and bars of accuracies and discrepancies from tidy rows, in one style per method."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..study.compare import Cell
from .style import AXIS_LABELS, CLASS_SET_COLORS, DATASET_COLORS, METHOD_COLORS, WIDTH

if TYPE_CHECKING:  # a page that only reads records does not wait for PyTorch
    from torch import Tensor

# Source of a value -> what its line changes in the style of the method.
_SOURCES: dict[str, dict] = {
    "paper": {"linestyle": ":", "markerfacecolor": "white", "linewidth": 1.2, "zorder": 3},
    "released, re-measured": {"linestyle": "-"},
    "trained here": {"linestyle": "--"},
    "schedule quick": {"linestyle": "--", "markerfacecolor": "white"},
    "schedule paper": {"linestyle": "-"},
    "from x": {"linestyle": "-"},
    "five random starts": {"linestyle": "--", "markerfacecolor": "white"},
}


def accuracy_curves(
    rows: pd.DataFrame,
    x: str = "eps",
    *,
    figsize: tuple[float, float] = (WIDTH, 4.6),
    title: str | None = None,
) -> Figure:
    """Draw robust accuracy against perturbation size, one line per method and source, with 95 % bands.

    Colour and marker show the method. With several sources, the line style shows the source: dotted with hollow markers
    for the paper, solid for the released network measured again, dashed for a network trained here. For attacks, solid
    means a start at x, and dashed with hollow markers means random starts.

    Args:
        rows: columns ``method`` (a key of ``METHOD_COLORS``), ``x``, ``accuracy`` in [0, 1], ``se`` (its
            standard error; NaN draws no band) and, optionally, ``source``.
        x: the column on the horizontal axis.
        figsize: width and height in inches; the legend below the axes is part of it.
        title: title above the axes.

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
        axes.plot(line[x], line["accuracy"], clip_on=False, **style)  # unclipped: whole markers at 0 and 1
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
    # A legend below the axes covers no data and stays readable on a narrow page.
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


def agreement(cells: Iterable[Cell], columns: Mapping[str, str]) -> Figure:
    """Draw measured against printed accuracies and rank correlations, with the line of equality, one panel per column.

    Args:
        cells: cells from `study.compare.compare`, for the datasets in `DATASET_COLORS`. Cells of Table 1, which have
            other units, and cells without a measured value are left out.
        columns: attribute of a cell, 'released', 'corrected' or 'ours' -> title of its panel; n is appended to it.
    """
    cells = [cell for cell in cells if cell.metric.startswith(("ATA", "tau"))]
    figure, axes = plt.subplots(1, len(columns), figsize=(WIDTH, 3.5), sharex=True, sharey=True, layout="constrained")
    plt.close(figure)
    for ax, (column, title) in zip(np.atleast_1d(axes), columns.items(), strict=True):
        shown = [cell for cell in cells if getattr(cell, column) is not None]
        ax.axline((0, 0), slope=1, color="#787878", linewidth=1)
        for dataset, style in DATASET_COLORS.items():
            points = [(cell.printed, getattr(cell, column)) for cell in shown if cell.dataset == dataset]
            ax.scatter(*np.reshape(points, (-1, 2)).T, s=16, alpha=0.6, linewidths=0, label=dataset, **style)
        ax.set(title=f"{title}, n = {len(shown)}", xlabel="as printed", aspect="equal")
    np.atleast_1d(axes)[0].set_ylabel("measured")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=1.6)
    return figure


def difference_matrix(differences: pd.DataFrame, chosen: Mapping[str, str], *, xlabel: str, ylabel: str) -> Figure:
    """Draw differences between rows and columns as a heat map, with a frame around the chosen column of every row."""
    import seaborn  # takes seconds to load, and only this figure needs it

    figure, ax = plt.subplots(figsize=(WIDTH, 0.55 * len(differences) + 1.6))
    plt.close(figure)
    seaborn.heatmap(
        differences,
        annot=True,
        fmt=".2f",
        cmap="viridis_r",
        square=False,
        ax=ax,
        annot_kws={"size": 11},
        cbar_kws={"label": "mean absolute difference"},
        linewidths=0.5,
    )
    for row, name in enumerate(differences.index):
        column = list(differences.columns).index(chosen[name])
        ax.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="#B43C1E", linewidth=3, clip_on=False))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
    plt.setp(ax.get_yticklabels(), rotation=0)
    return figure


def discrepancy_curves(
    rows: Sequence[Mapping],
    *,
    bound: float | None = None,
    p: int = 1,
    xlabel: str = AXIS_LABELS["eps"],
    ylabel: str | None = None,
    title: str | None = None,
) -> Figure:
    """Draw Figure 2 (a) and (b): the lowest discrepancy of a sneaking attack against its perturbation size.

    There is one line per set of classes, measured by the discrepancy on that set. Hollow markers are attacks whose
    search ended at a higher discrepancy than an attack in a smaller ball.

    Args:
        rows: rows from `study.figures.lowest_so_far`.
        bound: the bound of Proposition 1 on the l1 2-class discrepancy; drawn only when p is 1.
        p: the norm, 1 or 2, whose rows are drawn.
        xlabel, ylabel: labels of the axes; the default of `ylabel` is the name of the discrepancy.
        title: title above the axes.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    plt.close(figure)
    for name, style in CLASS_SET_COLORS.items():
        line = [row for row in rows if (row["p"], row["attack"]) == (p, name)]
        if not line:
            continue
        eps = [row["eps"] for row in line]
        ax.plot(eps, [row["lowest"] for row in line], label=f"{name} ISA", **style)
        worse = [(row["eps"], row[name]) for row in line if row[name] > row["lowest"]]
        if worse:
            ax.plot(*zip(*worse, strict=True), **style | {"linestyle": "none", "markerfacecolor": "white"})
    if bound is not None and p == 1:
        ax.axhline(bound, color="#404040", linestyle=":", linewidth=1.5, label="Proposition 1, 2-class")
    ylabel = ylabel or ("ℓ1 discrepancy" if p == 1 else "squared ℓ2 discrepancy")
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if title:
        ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2, handletextpad=0.5)
    return figure


def quantile_bars(
    rows: Sequence[Mapping], *, xlabel: str, reference: float | None = None, title: str | None = None
) -> Figure:
    """Draw quantiles by method on a log axis: whiskers from 5 to 95 %, boxes from 25 to 75 %, a marker at the median.

    Args:
        rows: mappings with `method` (a key of `METHOD_COLORS`), `q05`, `q25`, `median`, `q75`, `q95` > 0, and `n`,
            which is printed beside the name; drawn in this order from the top.
        xlabel: label of the axis.
        reference: a value to mark with a dotted line, such as the value of equality.
        title: title above the axes.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 0.42 * len(rows) + 1.4))
    plt.close(figure)
    for place, row in enumerate(rows):
        style = METHOD_COLORS[row["method"]]
        ax.plot([row["q05"], row["q95"]], [place, place], color=style["color"], linewidth=1.5)
        ax.barh(place, row["q75"] - row["q25"], left=row["q25"], height=0.55, color=style["color"], alpha=0.35)
        ax.plot(row["median"], place, color=style["color"], marker=style["marker"], markersize=8)
    if reference is not None:
        ax.axvline(reference, color="#404040", linestyle=":", linewidth=1.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(rows)), [f"{row['method']}  n = {row['n']}" for row in rows])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(xlabel)
    if title:
        ax.set_title(title)
    return figure


def bound_scatter(
    bound: "Mapping[str, Tensor]", measured: "Mapping[str, Tensor]", *, xlabel: str, ylabel: str
) -> Figure:
    """Draw measured discrepancies (n,) > 0 against their lower bounds (n,) > 0, with the line of equality.

    Both axes are logarithmic: a ratio is a distance from the line, for networks with small and with large margins.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 5.0), layout="constrained")
    plt.close(figure)
    for method in (m for m in METHOD_COLORS if m in bound):
        style = {key: METHOD_COLORS[method][key] for key in ("color", "marker")}
        points = (values[method].numpy(force=True) for values in (bound, measured))
        ax.scatter(*points, s=22, alpha=0.7, label=method, linewidths=0, **style)
    ends = [edge(float(edge(v)) for v in (*bound.values(), *measured.values())) for edge in (min, max)]
    ax.plot(ends, ends, color="#404040", linestyle=":", label="bound")
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.5)
    return figure
