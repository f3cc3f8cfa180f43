"""Define one style for all figures: colours, markers and sizes; a method looks the same in every figure."""

import sys

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Blue: methods that train on adversarial examples. Warm colours: penalties on IG maps. Purple: the paper's method.
# Green: the paper's method on adversarial examples. Tests check that every colour has a contrast of at least 3 on white
# and on the dark page, and that any two can be told apart with normal and with colour-blind vision. The markers show
# the method without colour.
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


# The set of classes in an attack's discrepancy, and PGD, which uses no discrepancy. Tests check the same conditions.
CLASS_SET_COLORS = {
    "PGD": {"color": "#787878", "marker": "o", "linestyle": ":"},
    "1-class": {"color": "#C35A00", "marker": "v", "linestyle": "--"},
    "2-class": {"color": "#963CB4", "marker": "X", "linestyle": "-"},
    "all-class": {"color": "#1E96FF", "marker": "s", "linestyle": "-."},
}


# Datasets, for figures that show values of several datasets. Tests check the same conditions.
DATASET_COLORS = {
    "MNIST": {"color": "#008CA0", "marker": "o"},
    "CIFAR-10": {"color": "#C35A00", "marker": "v"},
}


# Inches, at 100 CSS pixels per inch: a figure is 560 px wide on a desktop and shrinks to about 350 px on a phone.
WIDTH, HEIGHT = 5.6, 3.8


AXIS_LABELS = {
    "eps": "perturbation size ε (ℓ∞, pixel range 0–1)",
    "accuracy": "robust accuracy",
    "steps": "attack steps",
}


def use_style() -> None:
    """Set Matplotlib's defaults for the book: legible on a page 390 px wide, with a white background on every page.

    The background is opaque white also on the dark page, where the book shows a figure as a white card, so that the
    colours of a heat map mean the same on both. Inside IPython, figures are PNGs with two pixels per CSS pixel, and
    their descriptions stand in the metadata of the outputs. A strict re-run of a notebook skips both, whereas it would
    compare the text of an SVG.
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
        png = ipython.get_ipython().display_formatter.formatters["image/png"]
        draw = png.lookup_by_type(Figure)
        png.for_type(Figure, lambda figure: _with_description(draw(figure), figure))


def describe(figure: Figure) -> str:
    """Say what a figure shows in one line, for readers who do not see it: its titles, axes and legends, in order."""
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    named = ", ".join(dict.fromkeys(text.get_text() for legend in legends for text in legend.get_texts()))
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        x, y = axes.get_xlabel(), axes.get_ylabel()
        parts.append(": ".join(filter(None, (axes.get_title(), f"{y} against {x}" if x and y else x or y))))
    text = ", ".join(dict.fromkeys(filter(None, parts))) + (f"; {named}" if named else "")
    return " ".join(text.replace("$", "").split())


def _with_description(drawn: tuple[object, dict], figure: Figure) -> tuple[object, dict]:
    data, metadata = drawn
    return data, metadata | {"alt": describe(figure)}


def _no_axes(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _check_methods(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise ValueError("rows must not be empty")
    if unknown := sorted(set(rows["method"]) - set(METHOD_COLORS)):
        raise ValueError(f"unknown method {unknown}; known: {list(METHOD_COLORS)}")


def _legend_below(figure: Figure, handles, labels=None, *, ncols: int = 3) -> None:
    """Put the legend below the axes, where it covers no data and stays readable on a narrow page."""
    named = {} if labels is None else {"labels": labels}
    figure.legend(handles=handles, **named, loc="outside lower center", ncols=ncols, columnspacing=1.2)
