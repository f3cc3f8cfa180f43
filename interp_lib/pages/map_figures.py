"""Draw images and their maps in grids."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..study.one_image import AttackedImage
from ..study.stored_maps import Explained
from .style import CLASS_SET_COLORS, WIDTH, _no_axes

BEFORE, AFTER = "#787878", "#B43C1E"  # the logits of x and of x'
MOST_CLASSES = 10  # rows of logits that fit


def image_grid(images: Tensor, titles: Sequence[str] = (), *, columns: int = 8, scale: float = 0.7) -> Figure:
    """Draw images (N, C, H, W) in [0, 1] in rows of `columns` images, with a title above each image."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * scale, rows * scale * 1.35), squeeze=False)
    plt.close(figure)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image in zip(axes.flat, images, strict=False):
        show(ax, image)
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.set_title(title, fontsize=10, pad=2)
    return figure


def attack_grid(
    x: Tensor, y: Tensor, attacked: Mapping[str, tuple[Tensor, Tensor]], eps: float, classes: Sequence[str]
) -> Figure:
    """Draw attacked images on several networks: x' and x' - x, with the predicted class.

    Args:
        x, y: the images (N, C, H, W) in [0, 1] and their classes (N,).
        attacked: name of a network -> (x', predicted classes (N,)).
        eps: the radius of the ball; the colour scale of x' - x goes from -eps to eps.
        classes: names of the classes.
    """
    n = len(x)
    figure, axes = plt.subplots(
        2 * len(attacked), n, figsize=(WIDTH, 2 * len(attacked) * WIDTH / (n + 0.6) * 1.08), squeeze=False
    )
    plt.close(figure)
    for row, (name, (x_adv, predicted)) in enumerate(attacked.items()):
        for column in range(n):
            top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
            show(top, x_adv[column])
            fooled = predicted[column] != y[column]
            top.set_title(
                f"{classes[predicted[column]]} {'✗' if fooled else '✓'}",
                fontsize=12,
                pad=3,
                fontweight="bold" if fooled else "normal",
                color="#B43C1E" if fooled else "black",
            )
            change = (x_adv[column] - x[column]).mean(0).cpu()
            bottom.imshow(change, cmap="PuOr", vmin=-max(eps, 1e-6), vmax=max(eps, 1e-6))
        axes[2 * row, 0].set_ylabel(f"{name}\nx′", fontsize=11)
        axes[2 * row + 1, 0].set_ylabel("x′ − x", fontsize=11)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure


def map_grid(image: Tensor, maps: Mapping[str, Tensor], *, columns: int = 4) -> Figure:
    """Draw an image (C, H, W) and its maps (h, w), each scaled by its largest absolute value, in rows of `columns`."""
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * WIDTH / columns * 1.15), squeeze=False)
    plt.close(figure)
    for ax in axes.flat:
        ax.set_axis_off()
    show(axes.flat[0], image)
    axes.flat[0].set_title("image", fontsize=11, pad=3)
    for ax, (name, one) in zip(axes.flat[1:], maps.items(), strict=False):
        show_map(ax, one)
        ax.set_title(name, fontsize=10, pad=3, wrap=True)
    return figure


def explained_pair(versions: Mapping[str, Explained], names: Sequence[str], *, title: str | None = None) -> Figure:
    """Draw Figure 1: an image and its attacked version, with the maps of two classes by every interpreter.

    One row per interpreter: the maps of x and x' for the first class, then for the second class, all four scaled by
    their largest absolute value. Kendall's tau is printed under each pair.

    Args:
        versions: two versions, the natural image first, with the same interpreters, as from `study.figures.figure1`.
        names: names of the two classes.
        title: title above the figure.
    """
    natural, attacked = versions.values()
    rows = list(natural.maps)
    figure, axes = _bare_grid(1 + len(rows), 4, row_height=1.13, title=title)
    for ax, label, image in ((axes[0, 0], "x", natural), (axes[0, 1], "x′", attacked)):
        show(ax, image.image)
        ax.set_title(label, fontsize=12, pad=3)
    change = (attacked.image - natural.image).mean(0)
    show_map(axes[0, 2], change)
    axes[0, 2].set_title("x′ − x", fontsize=12, pad=3)
    axes[0, 3].set_visible(False)
    for row, name in enumerate(rows, 1):
        maps = [version.maps[name][j] for j in (0, 1) for version in (natural, attacked)]
        largest = max(one.abs().max().item() for one in maps)
        for ax, one in zip(axes[row], maps, strict=True):
            show_map(ax, one, largest)
        axes[row, 0].set_ylabel(name, fontsize=12)
        for j in (0, 1):
            axes[row, 2 * j].set_xlabel(f"τ = {attacked.tau[name][j]:.2f}", fontsize=11.5, x=1.06, labelpad=3)
    for j, symbol in enumerate(("t", "t′")):
        for k, argument in enumerate(("x", "x′")):
            axes[1, 2 * j + k].set_title(f"L({argument}, {symbol})", fontsize=12, pad=3)
    legend = f"t = {names[0]}, t′ = {names[1]}"
    figure.text(0.77, 0.93 if title is None else 0.9, legend.replace(", ", "\n"), fontsize=12, va="top")
    return figure


def explained_columns(
    versions: Mapping[str, Explained], names: Sequence[str], classes: Sequence[str], *, title: str | None = None
) -> Figure:
    """Draw Figure 2 (c): versions of an image side by side, each above its CAMs for the classes `names`.

    Every map is scaled by its own largest absolute value, as in the paper. Under a map is its Kendall's tau with the
    natural image's map; under an image is the class that the network predicts.

    Args:
        versions: versions of the image, the natural image first, as from `study.figures.sneaking`.
        names: names of the k classes of the maps.
        classes: names of all classes of the dataset.
        title: title above the figure.
    """
    k, natural = len(names), next(iter(versions.values()))
    figure, axes = _bare_grid(1 + k, len(versions), row_height=1.27, title=title)
    for column, (name, version) in enumerate(versions.items()):
        show(axes[0, column], version.image)
        color = CLASS_SET_COLORS.get(name, {"color": "black"})["color"]
        axes[0, column].set_title(name, fontsize=12.5, pad=4, color=color, fontweight="bold")
        fooled = version.predicted != natural.predicted
        axes[0, column].set_xlabel(
            f"{classes[version.predicted]} {'✗' if fooled else '✓'}",
            fontsize=11.5,
            labelpad=3,
            color="#B43C1E" if fooled else "black",
        )
        for j in range(k):
            show_map(axes[1 + j, column], version.maps["CAM"][j])
            if version.tau:
                axes[1 + j, column].set_xlabel(f"τ = {version.tau['CAM'][j]:.2f}", fontsize=11.5, labelpad=3)
    for j, name in enumerate(names):
        axes[1 + j, 0].set_ylabel(name, fontsize=12)
    return figure


def moved_grid(rows: Mapping[str, Mapping[str, Explained]], classes: Sequence[str]) -> Figure:
    """Draw the effect of an attack against interpretability on one image, on several networks: x, x' and their maps.

    Args:
        rows: name of a network -> the natural and the attacked version of the image, see `study.figures.moved_maps`.
        classes: names of the classes of the dataset.
    """
    figure, axes = _bare_grid(len(rows), 4, row_height=1.22)
    for row, (name, versions) in enumerate(rows.items()):
        natural, attacked = versions.values()
        axes[row, 0].set_ylabel(name, fontsize=12)
        for column, version in enumerate((natural, attacked)):
            show(axes[row, column], version.image)
            changed = version.predicted != natural.predicted
            axes[row, column].set_xlabel(
                f"{classes[version.predicted]} {'✗' if changed else '✓'}",
                fontsize=11.5,
                labelpad=3,
                color="#B43C1E" if changed else "black",
            )
            show_map(axes[row, 2 + column], version.maps["CAM"][0])
        axes[row, 3].set_xlabel(f"τ = {attacked.tau['CAM'][0]:.2f}", fontsize=11.5, labelpad=3)
    for ax, label in zip(axes[0], ("x", "x′", "L(x, t)", "L(x′, t)"), strict=True):
        ax.set_title(label, fontsize=12, pad=4)
    return figure


def attack_panel(attacked: AttackedImage, classes: Sequence[str], *, eps: float) -> Figure:
    """Draw what an attack does to one image: x, x', the change, four maps, the logits, and Proposition 1.

    The four maps, of x and x' for t and for t', are scaled by their largest absolute value. Logits are of all classes,
    or where there are many of t, t' and the likeliest.

    Args:
        attacked: from `study.attack_image`.
        classes: names of all classes.
        eps: the radius; the colour scale of x' - x goes from -eps to eps.
    """
    # Fixed places: a layout that measures its texts would take as long as the attack and the drawing together.
    figure = plt.figure(figsize=(WIDTH, 6.4))
    figure.set_layout_engine("none")
    plt.close(figure)
    place = lambda left, bottom, width=0.21, height=0.184: figure.add_axes((left, bottom, width, height))
    columns = (0.02, 0.265, 0.525, 0.77)
    names = [str(classes[c])[:12] for c in attacked.pair]
    predicted = [str(classes[c])[:12] for c in attacked.logits.argmax(1).tolist()]
    *top, corner = (place(left, 0.776) for left in columns)
    show(top[0], attacked.x)
    show(top[1], attacked.x_adv)
    show_map(top[2], (attacked.x_adv - attacked.x).mean(0), max(eps, 1e-6))
    maps = [place(left, 0.517) for left in columns]
    largest = attacked.maps.abs().max().item()
    for ax, one in zip(maps, attacked.maps.transpose(0, 1).flatten(0, 1), strict=True):
        show_map(ax, one, largest)
    titles = ("x", "x′", "x′ − x", "L(x, t)", "L(x′, t)", "L(x, t′)", "L(x′, t′)")
    for ax, title in zip((*top, *maps), titles, strict=True):
        ax.set_title(title, fontsize=12, pad=3)
        _no_axes(ax)
    for ax, name in zip(top, predicted, strict=False):
        changed = name != predicted[0]
        ax.set_xlabel(f"{name} {'✗' if changed else ''}".strip(), fontsize=11.5, color=AFTER if changed else "black")
    for ax, tau in zip(maps[::2], attacked.tau, strict=True):
        ax.set_xlabel(f"τ = {tau:.2f}", fontsize=11.5, x=1.06, labelpad=3)
    corner.set_axis_off()
    corner.text(0, 0.95, f"t = {names[0]}\nt′ = {names[1]}", fontsize=12, va="top", transform=corner.transAxes)
    margin = 0.08 + 0.019 * max(len(str(name)[:12]) for name in classes)
    _logit_bars(place(margin, 0.155, 0.475 - margin, 0.3), attacked, classes)
    _bound_bars(place(0.625, 0.155, 0.355, 0.3), attacked)
    signs = [Patch(color=BEFORE, label="f(x)"), Patch(color=AFTER, label="f(x′)")]
    figure.legend(handles=signs, loc="lower center", ncols=2)
    return figure


def _logit_bars(ax: Axes, attacked: AttackedImage, classes: Sequence[str]) -> None:
    """Draw the logits of x and x' for every class, or for the classes of the pair and the likeliest others."""
    likely = attacked.logits.amax(0).argsort(descending=True).tolist()
    rows = sorted(list(dict.fromkeys((*attacked.pair, *likely)))[:MOST_CLASSES], reverse=True)
    for j, color in enumerate((BEFORE, AFTER)):
        ax.barh([k + 0.2 - 0.4 * j for k in range(len(rows))], attacked.logits[j, rows].tolist(), 0.4, color=color)
    ax.set_yticks(range(len(rows)), [str(classes[c])[:12] for c in rows])
    ax.set(xlabel="logit", ylabel="class")
    ax.grid(visible=False, axis="y")


def _bound_bars(ax: Axes, attacked: AttackedImage) -> None:
    """Draw the discrepancy above its lower bound, and say whether Proposition 1 applies."""
    ax.barh([1, 0], [attacked.discrepancy, max(attacked.bound, 0)], 0.5, color=["#444444", "#A6A6A6"])
    ax.set_yticks([1, 0], ["D", "bound"])
    ax.set(xlabel="2-class discrepancy, ℓ1", ylim=(-0.6, 2.1))
    said = f"D = {attacked.discrepancy:.2f}, bound {attacked.bound:.2f}"
    why = "no bound: x′ is still t" if attacked.complete else "no bound: map incomplete"
    ax.text(
        0.02,
        0.98,
        f"{said}\n{'the bound applies' if attacked.bounded else why}",
        transform=ax.transAxes,
        va="top",
        fontsize=11,
    )
    ax.grid(visible=False, axis="y")


def _bare_grid(rows: int, columns: int, *, row_height: float, title: str | None = None) -> tuple[Figure, np.ndarray]:
    """Make a closed figure whose axes show no ticks; a row is `row_height` times as high as a column is wide."""
    height = rows * WIDTH / columns * row_height + (0.35 if title else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained")
    plt.close(figure)
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.03, hspace=0, wspace=0)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure, axes


def show_map(ax: Axes, one: Tensor, largest: float | None = None) -> None:
    """Draw a map (h, w) with colours from -largest to largest; the default is its own largest absolute value."""
    one = one.detach().cpu()
    # The last 1.0 is for a map of zeros, which would have an empty colour scale.
    largest = largest or one.abs().max().item() or 1.0
    ax.imshow(one.numpy(), cmap="PuOr", vmin=-largest, vmax=largest)


def show(ax: Axes, image: Tensor) -> None:
    """Draw an image (C, H, W) in [0, 1], in grey if C is 1, else in colour."""
    image = image.detach().cpu().numpy()
    ax.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
