"""Draw the sweeps over released networks: test radius against training radius, and clean against robust accuracy."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .style import AXIS_LABELS, METHOD_COLORS, WIDTH, _legend_below

START_STYLES = {"from x": {"linestyle": "-"}, "five random starts": {"linestyle": "--", "markerfacecolor": "white"}}

_KIND = {"rank correlation": "rank correlation τ", "accuracy": AXIS_LABELS["accuracy"]}


def radius_panels(rows: pd.DataFrame, *, value: str = "accuracy", title: str = "") -> Figure:
    """Draw robustness against the radius of the attack, with one panel per radius of the ball used in training.

    A dotted line marks the training radius. Solid lines are attacks that start at x; dashed lines with hollow markers
    are attacks that start at random points. A thin line is a second training run. Bands are 95 % intervals of the
    sampling error of the images.

    Args:
        rows: columns `method`, `radius`, `run`, `eps`, `se`, the column named by `value`, and optionally `source`, a
            key of `START_STYLES`.
        value: 'accuracy' or 'rank correlation', the column to draw; it also sets the label of the axis.
        title: title above the panels.

    Raises:
        ValueError: no rows.
    """
    if rows.empty:
        raise ValueError("rows must not be empty")
    several = "source" in rows
    rows = rows if several else rows.assign(source="from x")
    radii = sorted(rows["radius"].unique())
    figure, axes = plt.subplots(len(radii), 1, figsize=(WIDTH, 2.3 * len(radii) + 1), sharex=True, squeeze=False)
    plt.close(figure)
    for ax, radius in zip(axes[:, 0], radii, strict=True):
        ax.axvline(radius, color="#505050", linestyle=":", linewidth=1.2)
        part = rows[rows["radius"] == radius]
        for (method, run, source), line in part.groupby(["method", "run", "source"], sort=False):
            line, style = line.sort_values("eps"), {**METHOD_COLORS[method], **START_STYLES[source]}
            name = f"{method}, {source}" if several else method
            # Label only the first run, so that the legend has each line style once.
            label = name if run == part[part["method"] == method]["run"].min() else None
            ax.plot(line["eps"], line[value], label=label, clip_on=False, linewidth=2 if run == 1 else 1, **style)
            low, high = (line[value] + side * 1.96 * line["se"].fillna(0) for side in (-1, 1))
            ax.fill_between(line["eps"], low.clip(-1, 1), high.clip(-1, 1), color=style["color"], alpha=0.12, lw=0)
        ax.set(ylim=(0, 1), ylabel=_KIND[value], title=f"trained in a ball of ε = {radius:g}")
        ax.yaxis.label.set_size(11)
    axes[-1, 0].set_xlabel("test " + AXIS_LABELS["eps"])
    if title:
        figure.suptitle(title, fontsize=13)
    seen: dict = {}
    for ax in axes[:, 0]:
        seen |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    _legend_below(figure, list(seen.values()), list(seen), ncols=2)
    return figure


def front(points: pd.DataFrame, *, labels: Sequence[str], robust: str, title: str = "") -> Figure:
    """Draw robust accuracy against clean accuracy, one point per network; up and to the right is better in both.

    A line joins the networks of a method in the order of the rows. Second runs are hollow and not joined. Error bars
    are one standard error.

    Args:
        points: columns `method`, `run`, `radius`, `gamma`, `clean`, `clean se`, `robust`, `robust se`.
        labels: a short text beside each point.
        robust: label of the vertical axis.
        title: title above the axes.

    Raises:
        ValueError: no points, or a number of labels other than the number of points.
    """
    if points.empty or len(points) != len(labels):
        raise ValueError(
            f"needs at least one point, and one label per point; got {len(points)} points and {len(labels)} labels."
        )
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    plt.close(figure)
    for method, line in points.groupby("method", sort=False):
        style = {key: METHOD_COLORS[method][key] for key in ("color", "marker")}
        # The first run of each setting; a second run has the same radius and gamma.
        first = line.drop_duplicates(["radius", "gamma"])
        ax.plot(first["clean"], first["robust"], color=style["color"], alpha=0.6)
        for run, part in line.groupby("run"):
            ax.errorbar(
                part["clean"],
                part["robust"],
                xerr=part["clean se"],
                yerr=part["robust se"],
                linestyle="none",
                elinewidth=0.8,
                label=f"{method}, run {run}",
                markerfacecolor="white" if run > 1 else style["color"],
                **style,
            )
    for text, x, y in zip(labels, points["clean"], points["robust"], strict=True):
        ax.annotate(text, (x, y), xytext=(6, 7), textcoords="offset points", fontsize=10.5)
    ax.set(xlabel="clean accuracy", ylabel=robust, title=title)
    _legend_below(figure, *ax.get_legend_handles_labels(), ncols=2)
    return figure
