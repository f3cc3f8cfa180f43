"""Draw certified accuracy against the perturbation size, directly and through maps."""

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..study.certificates import accuracy_at
from .style import AXIS_LABELS, METHOD_COLORS, WIDTH, _legend_below

PANELS = {
    "logits": "directly, by differences of logits",
    "joint": "by the norm of one map of differences",
    "2-class": "by Proposition 1, 2-class maps",
}

KIND_STYLES = {
    "CROWN": {"linestyle": "-", "linewidth": 2},
    "attack": {"linestyle": ":", "linewidth": 1.4},
}

POINTS = 121


def certificate_panels(
    rows: Iterable[Mapping], *, forms: Iterable[str] = ("logits", "2-class"), largest: float, title: str | None = None
) -> Figure:
    """Draw the share of images that are certified at each perturbation size, one panel per form of certificate.

    Solid lines are certified accuracies, dotted ones what an attack on the form leaves, which no bound can exceed.

    Args:
        rows: rows of `study.certificate_rows`, each with its method, a key of `METHOD_COLORS`; other kinds than those
            of `KIND_STYLES` are left out.
        forms: keys of `PANELS`.
        largest: right end of the axis, in the unit of the pixels.
        title: title above the panels.

    Raises:
        ValueError: no rows to draw.
    """
    forms = list(forms)
    rows = [row for row in rows if row["kind"] in KIND_STYLES and row["form"] in forms]
    if not rows:
        raise ValueError(f"rows must not be empty; of the forms {', '.join(forms)} there are none.")
    figure, axes = plt.subplots(len(forms), 1, figsize=(WIDTH, 2.6 * len(forms) + 1.2), sharex=True, squeeze=False)
    plt.close(figure)
    sizes = [largest * k / (POINTS - 1) for k in range(POINTS)]
    for ax, form in zip(axes[:, 0], forms, strict=True):
        for row in (row for row in rows if row["form"] == form):
            share = [accuracy_at(row["radii"], eps) / row["n"] for eps in sizes]
            colour, kind = METHOD_COLORS[row["method"]], KIND_STYLES[row["kind"]]
            marks = {"marker": colour["marker"], "markevery": 20} if row["kind"] == "CROWN" else {}
            ax.plot(sizes, share, color=colour["color"], clip_on=False, **kind, **marks)
        ax.set(ylim=(0, 1), ylabel="certified accuracy", title=PANELS[form], xlim=(0, largest))
    axes[-1, 0].set_xlabel(AXIS_LABELS["eps"])
    if title:
        figure.suptitle(title, fontsize=13)
    present = {row["method"] for row in rows}
    handles = [Line2D([], [], label=m, **METHOD_COLORS[m] | {"linestyle": "-"}) for m in METHOD_COLORS if m in present]
    words = {"CROWN": "certified (CROWN)", "attack": "left by an attack"}
    handles += [Line2D([], [], label=words[name], color="#404040", **style) for name, style in KIND_STYLES.items()]
    _legend_below(figure, handles)
    return figure
