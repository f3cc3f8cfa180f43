"""Draw Table 5: accuracies under unforeseen attacks with the spread of their random starts, and what they look like."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ..study.compare import Cell
from .map_figures import _bare_grid, show
from .style import CLASS_SET_COLORS, METHOD_COLORS, WIDTH


def table5_points(cells: Iterable[Cell], *, title: str | None = None) -> Figure:
    """Draw the accuracies of Table 5: printed as hollow markers, measured as full ones with a bar.

    The bar is twice `Cell.noise` to either side: where a single random start, such as the paper's, is to be expected.

    Args:
        cells: cells of Table 5; those without a measured value show what is printed.
    """
    cells = [cell for cell in cells if cell.table == "5"]
    attacks, methods = (list(dict.fromkeys(getattr(cell, key) for cell in cells)) for key in ("level", "method"))
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    plt.close(figure)
    for cell in cells:
        style = METHOD_COLORS[cell.method] | {"linestyle": "none", "clip_on": False}
        at = attacks.index(cell.level) + 0.11 * (methods.index(cell.method) - (len(methods) - 1) / 2)
        if cell.released is not None:
            axes.errorbar(at, cell.released, 2 * (cell.noise or 0), elinewidth=1.5, **style)
        axes.plot(at, cell.printed, **style | {"markerfacecolor": "white", "markersize": 6, "zorder": 3})
    for edge in range(1, len(attacks)):
        axes.axvline(edge - 0.5, color="#E3E3E3", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set(ylabel="accuracy under attack", xlabel="attack", xlim=(-0.5, len(attacks) - 0.5), ylim=(0, None))
    axes.set_xticks(range(len(attacks)), attacks)
    if title:
        axes.set_title(title)
    handles = [Line2D([], [], label=m, **METHOD_COLORS[m] | {"linestyle": "none"}) for m in methods]
    grey = {"marker": "o", "color": "#404040", "linestyle": "none"}
    handles += [Line2D([], [], label="printed", markerfacecolor="white", **grey)]
    handles += [Line2D([], [], label="measured, ± 2 sd", **grey)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.5)
    return figure


def picture_table(
    rows: Mapping[str, Mapping[str, Tensor]], captions: Mapping[tuple[str, str], str] | None = None
) -> Figure:
    """Draw images in rows and columns with names, and a caption under each image that has one.

    Args:
        rows: name of a row -> name of a column -> image (C, H, W) in [0, 1]; each row has the same number of columns.
            Column names stand above the first row, or above every row where rows differ in them.
        captions: (row, column) -> text; one with a cross is set in red.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = _bare_grid(len(rows), columns, row_height=1.32 if captions else 1.18)
    names = [list(row) for row in rows.values()]
    for number, (line, (row, pictures)) in enumerate(zip(axes, rows.items(), strict=True)):
        line[0].set_ylabel(row, fontsize=12)
        for ax, (column, image) in zip(line, pictures.items(), strict=True):
            show(ax, image)
            if number == 0 or names[0] != names[number]:
                ax.set_title(column, fontsize=11, pad=3)
            if text := (captions or {}).get((row, column)):
                ax.set_xlabel(text, fontsize=11, labelpad=3, color="#B43C1E" if "✗" in text else "black")
    return figure


def photograph(side: int = 224) -> Tensor:
    """Return a photograph that scikit-learn carries, cut to a square, (1, 3, side, side) in [0, 1].

    Source: china.jpg by danielbuechele, CC BY 2.0.
    """
    from sklearn.datasets import load_sample_image

    pixels = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float() / 255
    square = min(pixels.shape[2:])
    left = (pixels.shape[3] - square) // 2
    cut = pixels[:, :, :square, left : left + square]
    return F.interpolate(cut, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)


def shares(values: Sequence[float]) -> list[str]:
    """Write shares of a strength as a slider's labels: 1/16, 1/8, ..., 1."""
    return ["1" if value == 1 else f"1/{round(1 / value)}" for value in values]


def attack_sequence(rows: Iterable[Mapping], *, title: str | None = None) -> Figure:
    """Draw the accuracy that is left after each attack of a sequence, a line for each method, on a scale from 0 to 1.

    Args:
        rows: rows of `study.strong_rows` of one radius, each with its method; attacks in the order of the rows.
    """
    rows = list(rows)
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    present = {row["method"] for row in rows}
    methods = [method for method in METHOD_COLORS if method in present]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    plt.close(figure)
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        at = [attacks.index(row["attack"]) for row in own]
        axes.plot(at, [row["accuracy"] for row in own], clip_on=False, **METHOD_COLORS[method])
    axes.set(xlabel="after the attack", ylabel="accuracy", ylim=(0, 1), xlim=(-0.15, len(attacks) - 0.85))
    axes.set_xticks(range(len(attacks)), attacks)
    if title:
        axes.set_title(title)
    handles = [Line2D([], [], label=method, **METHOD_COLORS[method]) for method in methods]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def roc_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str | None = None) -> Figure:
    """Draw ROC curves of detectors, with the diagonal of a detector that guesses.

    Args:
        curves: a key of `style.CLASS_SET_COLORS` -> false and true positive rates, as from `study.detection.roc`.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    plt.close(figure)
    axes.axline((0, 0), slope=1, color="#787878", linewidth=1, linestyle=":")
    for name, (wrong, found) in curves.items():
        axes.plot(wrong, found, **CLASS_SET_COLORS[name] | {"marker": None})
    axes.set(
        xlabel="share of natural images reported", ylabel="share of attacked images found", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_aspect("equal")
    if title:
        axes.set_title(title)
    handles = [Line2D([], [], label=name, **CLASS_SET_COLORS[name] | {"marker": None}) for name in curves]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure
