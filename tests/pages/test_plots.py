"""Figures of a page: values drawn are values given, axes and legends say what they show, a method has one style."""

import inspect
import itertools
import re
from html import unescape

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import record
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import AxLine

from interp_lib.pages import (
    certificate_figures,
    comparison_figures,
    curve_figures,
    gamma_figures,
    map_figures,
    masking_figures,
    sneaking_figures,
    style,
    sweep_figures,
    training_figures,
    unforeseen_figures,
    widgets,
)
from interp_lib.pages.curve_figures import accuracy_curves
from interp_lib.pages.style import CLASS_SET_COLORS, DATASET_COLORS, METHOD_COLORS, use_style
from interp_lib.study.compare import Cell
from interp_lib.study.one_image import AttackedImage
from interp_lib.study.stored_maps import Explained, version_rows

METHODS = list(METHOD_COLORS)
DIGITS = [str(d) for d in range(10)]
TITLE = 'MNIST "a" <b> & c'
# Every public function that draws a figure.
DRAW = {
    name: function
    for module in (
        *(certificate_figures, comparison_figures, curve_figures, gamma_figures, map_figures, masking_figures),
        *(sneaking_figures, sweep_figures, training_figures, unforeseen_figures),
    )
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__
    and not name.startswith("_")
    and inspect.signature(function).return_annotation is Figure
}
every_figure = pytest.mark.parametrize("name", DRAW)


# What is drawn


def color(method):
    return METHOD_COLORS[method]["color"]


def lines(ax):
    return {(to_hex(line.get_color()), line.get_linestyle()): line for line in ax.lines}


def panel(side=5, lowest=-1.0):
    values = torch.arange(side * side, dtype=torch.float64).view(side, side)
    path = torch.tensor([[0.7, 0.5], [0.73, 0.47], [0.8, 0.4]])
    return values, torch.linspace(lowest, 1, side * side).view(side, side), [path]


def rows(**columns):
    table = {"method": ["Normal", "Normal", "Int", "Int"], "eps": [0.1, 0.2, 0.2, 0.1]}
    return pd.DataFrame(table | {"accuracy": [0.5, 0.0, 0.7, 0.9], "se": [0.02, 0.0, 0.03, 0.01]} | columns)


def histories(methods=("Normal", "Int"), seeds=(0, 1)):
    return pd.DataFrame(
        {"method": m, "seed": s, "epoch": e, "validation_accuracy": 0.5 + e / 10, "validation_robust": e / 10 + s / 100}
        for m, s, e in itertools.product(methods, seeds, (1, 2, 3))
    )


def costs(levels=("0.3", "0.4")):
    return pd.DataFrame(
        {"method": m, "seconds": float(k), **{level: 0.1 * k for level in levels}} for k, m in enumerate(METHODS, 1)
    )


def gammas():
    return pd.DataFrame(
        {"gamma": g, "eps": e, "accuracy": 0.9 - e + g, "se": 0.02}
        for g, e in itertools.product((0.03, 0.0, 0.01, 0.003), (0.0, 0.1, 0.3))
    )


def explained(seed, names=("x", "PGD", "1-class", "2-class", "all-class"), interpreters=("CAM",), k=2):
    """Versions of a made-up image: noise, so that no two of them look alike."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Explained(
            torch.rand(1, 8, 8, generator=generator),
            3 if name == "x" else 5,
            {key: torch.randn(k, 4, 4, generator=generator) for key in interpreters},
            {} if name == "x" else {key: [0.25, 0.75][:k] for key in interpreters},
        )
        for name in names
    }


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def sneaking_rows(p=1):
    points = {"1-class": (3.0, 1.0, 2.0), "2-class": (4.0, 3.9, 3.9)}
    return [
        {"p": p, "attack": name, "eps": eps, name: value, "lowest": min(values[: i + 1])}
        for name, values in points.items()
        for i, (eps, value) in enumerate(zip((0.1, 0.2, 0.3), values, strict=True))
    ]


def figure2():
    """A record of Figure 2: the rows above, in both norms, and versions of an image."""
    rows = [{**row, "success": True} for p in (1, 2) for row in sneaking_rows(p)]
    settings = {"image": {"true": "3", "target": "5"}, "attack": {"eps": 0.2}, "title": "MNIST"}
    return record([*rows, {"bound": 3.5}, *version_rows(explained(0), 8)], **settings)


def radii(**columns):
    table = itertools.product(("Adv", "Int"), (0.2, 0.4), (0.1, 0.2), sweep_figures.START_STYLES)
    rows = pd.DataFrame(table, columns=["method", "radius", "eps", "source"])
    return rows.assign(run=1, accuracy=0.9 - rows["eps"], se=0.03, **columns)


def points():
    return pd.DataFrame(
        {
            **{"method": ["Adv", "Int", "Int", "Int"], "radius": 0.03, "gamma": [0.0, 0.01, 0.02, 0.02]},
            **{"run": [1, 1, 1, 2], "clean": [0.5, 0.6, 0.7, 0.4], "robust": [0.3, 0.2, 0.15, 0.25]},
            **{"clean se": 0.01, "robust se": 0.02},
        }
    )


def progress():
    table = itertools.product(("Normal", "Adv"), ("D~", "cross-entropy"), (0, 1, 2))
    rows = pd.DataFrame(table, columns=["method", "climbs", "step"])
    return rows.assign(discrepancy=rows["step"], cross_entropy=2 * rows["step"])


def training():
    rows = pd.DataFrame(itertools.product(("Normal", "Int"), (0, 1)), columns=["method", "update"])
    return rows.assign(margin=1.0 + rows["update"], worst=-1.0 * rows["update"])


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def cells():
    """Two accuracies, a rank correlation of another dataset, a score of Table 1, and a value that was not measured."""
    make = lambda metric, value, dataset="MNIST", **more: Cell(
        "3", dataset, "Small", "Adv", metric, "eps", "0.3", value, **more
    )
    return [
        make("ATA", "0.5", corrected=0.6, ours=0.4),
        make("ATA", "0.7", corrected=0.7),
        make("ATA", "0.1"),
        make("tau:CAM", "-0.2", "CIFAR-10", corrected=-0.3),
        make("NDS", "3.1", corrected=3.2),
    ]


def unforeseen_cells():
    """Two methods under two attacks; one value is not measured."""
    make = lambda method, level, value, **more: Cell(
        "5", "CIFAR-10", "Small", method, "ATA", "attack", level, value, **more
    )
    return [
        make("Adv", "Gabor", "0.19", released=0.22, noise=0.02),
        make("Adv", "Snow", "0.115", released=0.12, noise=0.01),
        make("Int", "Gabor", "0.16", released=0.17, noise=0.02),
        make("Int", "Snow", "0.105"),
    ]


def attacked_rows():
    accuracies = {"Int": (0.9, 0.8, 0.75), "Adv": (0.95, 0.9, 0.9)}
    names = ("none", "APGD-CE", "APGD-T")
    return [
        {"method": m, "attack": a, "accuracy": v}
        for m, some in accuracies.items()
        for a, v in zip(names, some, strict=True)
    ]


def certificates():
    """Radii of four images of three kinds; one image is wrong to begin with."""
    scale = {"IBP": 0.1, "CROWN": 0.5, "attack": 1.0}
    return [
        {"method": m, "kind": k, "form": f, "n": 4, "radii": [None, 0.1 * s, 0.2 * s, 0.3 * s]}
        for m in METHODS
        for k, s in scale.items()
        for f in certificate_figures.PANELS
    ]


PICTURES = {m: {a: noise(1, 8, 8) for a in ("Gabor", "Snow")} for m in ("Adv", "Int")}

QUANTILES = [
    {"method": m, "q05": 1.0, "q25": 1.5, "median": 2.0, "q75": 3.0, "q95": 8.0, "n": 7} for m in ("Int", "Adv")
]
BOUNDS = {"Adv": torch.tensor([0.1, 0.2]), "Int": torch.tensor([0.5, 1.0])}
MEASURED = {"Adv": torch.tensor([0.15, 0.2]), "Int": torch.tensor([2.0, 1.5])}
DISTANCES = pd.DataFrame({"Adv": [0.0, 0.25], "Int": [0.5, 0.75]}, index=["first", "second"])
SURFACE = [[round(1 - 0.4 * a + 0.1 * b, 3) for a in range(-3, 4)] for b in range(-3, 4)]
TRANSFER = {(m, s): (i + k) / 14 for i, m in enumerate(METHODS) for k, s in enumerate(METHODS)}
RAMPS = {"paper, mnist": ([0, 1], [0, 1]), "quick, mnist": ([0, 0.5, 1], [0, 1, 1])}
ATTACKED = {"Normal": (0.9 * noise(2, 3, 8, 8), torch.tensor([5, 5])), "Adv": (noise(2, 3, 8, 8), torch.tensor([3, 5]))}

PANEL = AttackedImage(
    noise(1, 8, 8),
    noise(1, 8, 8, seed=1),
    9 * noise(2, 10) - 4,
    (3, 5),
    noise(2, 2, 4, 4) - 0.5,
    (0.25, 0.75),
    3.0,
    2.0,
    True,
)

MAPS = [name for name in comparison_figures.MAP_STYLES if name not in ("random", "brightness")]
PAIRS = {pair: (k - 5) / 30 for k, pair in enumerate(itertools.combinations(MAPS, 2))}
LEFT = {name: [0.1 * k, 0.05 * k] for k, name in enumerate(MAPS)}
FALLING = {name: [1.0, 0.1 * k, 0.0] for k, name in enumerate(comparison_figures.MAP_STYLES)}


def arguments():
    """What each function is given: all methods and all sources, where it takes several."""
    every = pd.concat([rows(method=method).head(2).assign(eps=[0.1, 0.2]) for method in METHODS])
    image, maps = noise(1, 28, 28), noise(1, 7, 7)
    two = {"before": panel(), "after": panel(lowest=0.5)}
    moved = {name: explained(seed, ("x", "AAI"), k=1) for seed, name in enumerate(("Normal", "Adv"))}
    transferred = record([{"method": m, "attack": s, "accuracy": a} for (m, s), a in TRANSFER.items()])
    return {
        "accuracy_curves": ((pd.concat([every.assign(source=s) for s in ("paper", "trained here")]),), {}),
        "certificate_panels": ((certificates(),), {"largest": 0.3}),
        "agreement": ((cells(), {"corrected": "released", "ours": "trained here"}), {}),
        "difference_matrix": ((DISTANCES, {"first": "Adv", "second": "Int"}), {"xlabel": "network", "ylabel": "row"}),
        "discrepancy_curves": ((sneaking_rows(),), {"bound": 3.5}),
        "quantile_bars": ((QUANTILES,), {"xlabel": "ratio", "reference": 1}),
        "bound_scatter": ((BOUNDS, MEASURED), {"xlabel": "bound", "ylabel": "discrepancy"}),
        "image_grid": ((noise(10, 3, 8, 8), DIGITS), {}),
        "attack_grid": ((noise(2, 3, 8, 8), torch.tensor([3, 5]), ATTACKED, 0.1, DIGITS), {}),
        "attack_panel": ((PANEL, DIGITS), {"eps": 0.1}),
        "map_grid": ((image, {"CAM": maps[0], "IG": 2 * maps[0]}), {}),
        "explained_pair": ((explained(2, ("x", "PGD"), ("CAM", "IG")), ["3", "5"]), {}),
        "explained_columns": ((explained(0), ["true: 3", "target: 5"], DIGITS), {}),
        "figure2_curves": ((figure2(),), {}),
        "figure2_maps": ((figure2(),), {}),
        "moved_grid": ((moved, DIGITS), {}),
        "radius_panels": ((radii(),), {}),
        "front": ((points(),), {"labels": ["a", "b", "c", "d"], "robust": "accuracy under attack"}),
        "landscapes": ((two, torch.tensor([0.7, 0.5]), 0.1), {}),
        "margins": ((training(),), {}),
        "ascents": ((progress(),), {}),
        "ramps": ((RAMPS,), {}),
        "learning_curves": ((histories(METHODS),), {}),
        "time_and_accuracy": ((costs(), ("0.3", "0.4")), {}),
        "gamma_curve": ((gammas(),), {"eps": 0.3, "printed": gammas().head(6)}),
        "table5_points": ((unforeseen_cells(),), {}),
        "roc_curves": (({"1-class": ([0, 0.5, 1], [0, 0.6, 1]), "2-class": ([0, 0.1, 1], [0, 0.9, 1])},), {}),
        "attack_sequence": ((attacked_rows(),), {}),
        "picture_table": ((PICTURES, {("Adv", "Snow"): "3 ✗", ("Int", "Snow"): "5 ✓"}), {}),
        "surface_panels": (({m: SURFACE for m in METHODS},), {}),
        "transfer_matrix": ((transferred,), {}),
        "agreement_matrix": ((PAIRS, {pair: -tau for pair, tau in PAIRS.items()}), {}),
        "random_layers": (({form: LEFT for form in ("signed", "absolute")}, ["classifier", "conv1"]), {}),
        "pixel_curves": (({kind: FALLING for kind in ("deletion", "insertion")},), {}),
        "gamma_frame": ((gammas(), 0.01, image, maps, maps), {"names": ["map of 3"]}),
    }


def titled(name):
    return "title" in inspect.signature(DRAW[name]).parameters


@pytest.fixture(scope="module")
def figures():
    with matplotlib.rc_context():
        use_style()
        made = {}
        for name, (given, more) in arguments().items():
            made[name] = DRAW[name](*given, **more, **({"title": TITLE} if titled(name) else {}))
            made[name].draw_without_rendering()
        yield made


# What holds for every figure


def test_every_figure_is_looked_at_and_none_is_left_open(figures):
    assert set(figures) == set(DRAW) and not plt.get_fignums(), "an open figure would be shown twice"


@every_figure
def test_text_is_legible_on_a_phone_and_stays_on_the_figure(figures, name):
    figure = figures[name]
    on_phone = 350 / (figure.get_size_inches()[0] * 72)
    shown = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    least = 8.6 if name in ("image_grid", "map_grid") else 9
    assert min(t.get_fontsize() for t in shown) * on_phone > least, "CSS pixels at a window of 390"
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


@every_figure
def test_a_title_is_shown_and_read_out_in_the_frame_of_a_slider(figures, name, monkeypatch):
    monkeypatch.setattr(widgets, "figure_png", lambda figure: b"")
    (frame,) = widgets.figure_slider([figures[name]], ["0.1"]).children[1].children
    text = unescape(re.search('alt="([^"]*)"', frame.value)[1])
    assert text.endswith("ε = 0.1") and (not titled(name) or (TITLE in text and TITLE in texts(figures[name])))


def numeric(axis):
    """Whether an axis has ticks, and they are numbers; other ticks say themselves what they are."""
    ticks = [label.get_text().replace("−", "-") for label in axis.get_ticklabels()]
    return axis.axes.axison and any(ticks) and all(re.fullmatch(r"[-\d.]*", tick) for tick in ticks)


@every_figure
def test_every_axis_of_numbers_says_what_it_shows_and_in_which_unit(figures, name):
    shared = {"x": lambda ax: ax.get_shared_x_axes(), "y": lambda ax: ax.get_shared_y_axes()}
    for ax, side in itertools.product(figures[name].axes, shared):
        if numeric(getattr(ax, f"{side}axis")):
            labels = {getattr(other, f"get_{side}label")() for other in shared[side](ax).get_siblings(ax)} - {""}
            (label,) = labels or {ax.get_title()}
            assert label, side
            assert "ε" not in label or "(ℓ∞, pixel range 0–1)" in label
            assert "time" not in label or label.endswith("(s)")


def ink(artist):
    """The colour of what is drawn, or of its sign in a legend."""
    fill = isinstance(artist, matplotlib.patches.Patch) or (
        isinstance(artist, Collection) and len(artist.get_facecolor())
    )
    found = artist.get_facecolor() if fill else artist.get_color()
    return to_hex(found[0] if np.ndim(found) == 2 else found).upper()


PALETTE = {s["color"] for colors in (METHOD_COLORS, CLASS_SET_COLORS, DATASET_COLORS) for s in colors.values()}
LEGENDS = {
    "attack_panel",
    "certificate_panels",
    "accuracy_curves",
    "agreement",
    "discrepancy_curves",
    "figure2_curves",
    "bound_scatter",
    "radius_panels",
    "front",
    "margins",
    "ascents",
    "ramps",
    "learning_curves",
    "time_and_accuracy",
    "table5_points",
    "attack_sequence",
    "roc_curves",
    "gamma_curve",
    "random_layers",
    "pixel_curves",
}


@every_figure
def test_a_legend_explains_every_colour_covers_no_data_and_has_a_methods_own_colour(figures, name):
    figure = figures[name]
    assert len(figure.legends) == (name in LEGENDS) and not any(ax.get_legend() for ax in figure.axes)
    for legend in figure.legends:
        window = legend.get_window_extent()
        assert window.x0 >= 0 and window.x1 <= figure.bbox.x1
        assert all(window.y1 < ax.get_window_extent().y0 for ax in figure.axes)
        signs = {
            text.get_text(): ink(sign) for text, sign in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }
        artists = [a for ax in figure.axes for a in (*ax.lines, *ax.collections, *ax.patches)]
        drawn = {ink(a) for a in artists if not isinstance(a, AxLine)} & PALETTE  # the line of equality is grey
        assert name == "time_and_accuracy" or drawn == set(signs.values()) & PALETTE  # there the ticks are the methods
        for text, sign in signs.items():
            method = re.split("[,:]", text)[0]
            assert method not in METHOD_COLORS or sign == METHOD_COLORS[method]["color"]
            assert method not in DATASET_COLORS or sign == DATASET_COLORS[method]["color"]
            assert not text.endswith(" ISA") or sign == CLASS_SET_COLORS[text.removesuffix(" ISA")]["color"]


# The style


def linear(color):
    value = np.array(to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


PALETTES = pytest.mark.parametrize(
    "colors", [METHOD_COLORS, CLASS_SET_COLORS, style.DATASET_COLORS], ids=["methods", "class sets", "datasets"]
)


@PALETTES
@pytest.mark.parametrize("eyes", EYES)
def test_colors_stay_apart(eyes, colors):
    seen = [lab(np.array(EYES[eyes]) @ linear(style["color"])) for style in colors.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@PALETTES
@pytest.mark.parametrize("page", ["#FFFFFF", "#14181E"])
def test_colors_are_legible_on_both_pages(page, colors):
    light = [linear(color) @ [0.2126, 0.7152, 0.0722] for color in (page, *(s["color"] for s in colors.values()))]
    assert all((max(light[0], y) + 0.05) / (min(light[0], y) + 0.05) >= 3 for y in light[1:])


@PALETTES
def test_markers_differ(colors):
    assert len({style["marker"] for style in colors.values()}) == len(colors)


def test_style_fits_a_phone():
    with matplotlib.rc_context():
        use_style()
        on_phone = 350 / (matplotlib.rcParams["figure.figsize"][0] * 72)
        for name in ("font.size", "xtick.labelsize", "legend.fontsize"):
            assert matplotlib.rcParams[name] * on_phone > 9, "CSS pixels at a window of 390"


# Curves


def test_accuracy_curves_draws_the_rows():
    figure = accuracy_curves(rows())
    assert not plt.get_fignums()
    axes = figure.axes[0]
    assert axes.get_xlabel() == "perturbation size ε (ℓ∞, pixel range 0–1)"
    assert axes.get_ylabel() == "robust accuracy"
    drawn = {line.get_color(): np.column_stack(line.get_data()).tolist() for line in axes.lines}
    assert drawn[METHOD_COLORS["Int"]["color"]] == [[0.1, 0.9], [0.2, 0.7]]
    assert drawn[METHOD_COLORS["Normal"]["color"]] == [[0.1, 0.5], [0.2, 0.0]]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.7 - 1.96 * 0.03)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Normal", "Int"]


def test_line_says_the_source():
    both = pd.concat([rows(source="paper", se=np.nan), rows(source="released, re-measured")])
    lines = {(line.get_linestyle(), line.get_markerfacecolor()) for line in accuracy_curves(both).axes[0].lines}
    colors = [METHOD_COLORS[method]["color"] for method in ("Normal", "Int")]
    assert lines == {(":", "white")} | {("-", color) for color in colors}


def test_agreement_shows_every_measured_accuracy_and_rank_correlation_once(figures):
    left, right = figures["agreement"].axes
    points = lambda ax: [[tuple(p) for p in dots.get_offsets().data] for dots in ax.collections]
    assert points(left) == [[(0.5, 0.6), (0.7, 0.7)], [(-0.2, -0.3)]] and points(right) == [[(0.5, 0.4)], []]
    assert (left.get_title(), right.get_title()) == ("released, n = 3", "trained here, n = 1")
    assert (left.get_xlabel(), left.get_ylabel()) == ("as printed", "measured")


def test_discrepancy_curves_draw_the_lowest_and_mark_the_worse():
    figure = curve_figures.discrepancy_curves(sneaking_rows() + sneaking_rows(2), bound=3.5)
    (axes,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert lines["1-class ISA"] == [3.0, 1.0, 1.0] and lines["2-class ISA"] == [4.0, 3.9, 3.9]
    assert lines["Proposition 1, 2-class"] == [3.5, 3.5]
    (worse,) = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert np.column_stack(worse.get_data()).tolist() == [[0.3, 2.0]]
    squared = curve_figures.discrepancy_curves(sneaking_rows(2), bound=3.5, p=2).axes[0]
    assert squared.get_ylabel() == "squared ℓ2 discrepancy"
    assert not any("Proposition" in line.get_label() for line in squared.lines)


def test_figure_2_is_drawn_from_its_record(figures):
    (axes,) = figures["figure2_curves"].axes
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert lines["1-class ISA"] == [3.0, 1.0, 1.0] and lines["Proposition 1, 2-class"] == [3.5, 3.5]
    squared = sneaking_figures.figure2_curves(figure2(), 2).axes[0]
    assert (axes.get_title(), squared.get_title()) == ("(a) MNIST", "(b) MNIST")
    assert squared.get_ylabel() == "squared ℓ2 discrepancy"
    said = texts(figures["figure2_maps"])
    assert "(c) MNIST, ε = 0.2" in said and said.count("5 ✗") == 4 and said.count("τ = 0.75") == 4
    assert {"true: 3", "target: 5"} <= {text.replace("\n", " ") for text in said}


def test_quantile_bars_put_each_quantile_in_its_place(figures):
    (axes,) = figures["quantile_bars"].axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Int  n = 7", "Adv  n = 7"]
    assert [(box.get_x(), box.get_width()) for box in axes.patches] == [(1.5, 1.5)] * 2
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "", None)] == [2.0] * 2
    assert axes.lines[0].get_color() == METHOD_COLORS["Int"]["color"]
    assert list(axes.lines[0].get_xdata()) == [1.0, 8.0]


def test_bounds_and_discrepancies_are_points_above_the_line_of_equality(figures):
    (ax,) = figures["bound_scatter"].axes
    drawn = {dots.get_label(): dots.get_offsets().data for dots in ax.collections}
    assert list(drawn) == ["Adv", "Int"] and (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    for method, pairs in drawn.items():
        assert pairs == pytest.approx(np.stack([BOUNDS[method], MEASURED[method]], 1))
    (line,) = ax.lines
    assert line.get_xydata() == pytest.approx(np.array([[0.1, 0.1], [2.0, 2.0]]))


def test_a_difference_is_written_in_its_place_and_the_chosen_one_framed(figures):
    ax, bar = figures["difference_matrix"].axes
    assert [text.get_text() for text in ax.texts] == ["0.00", "0.50", "0.25", "0.75"]
    assert [[t.get_text() for t in labels] for labels in (ax.get_xticklabels(), ax.get_yticklabels())] == [
        ["Adv", "Int"],
        ["first", "second"],
    ]
    assert [(frame.get_x(), frame.get_y()) for frame in ax.patches] == [(0, 0), (1, 1)]
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("network", "row", "mean absolute difference")


def picture(ax):
    return np.asarray(ax.images[0].get_array())


def test_images_stand_in_rows_with_their_titles(figures):
    axes, images = figures["image_grid"].axes, noise(10, 3, 8, 8)
    assert len(axes) == 16 and [ax.get_title() for ax in axes[:10]] == DIGITS
    assert all(np.array_equal(picture(ax), image.permute(1, 2, 0)) for ax, image in zip(axes, images, strict=False))
    assert not any(ax.images for ax in axes[10:])
    (grey,) = map_figures.image_grid(noise(1, 1, 8, 8), columns=1).axes
    assert np.array_equal(picture(grey), noise(1, 1, 8, 8)[0, 0]) and grey.images[0].get_clim() == (0, 1)
    assert grey.images[0].get_cmap().name == "gray"


def test_attacked_images_stand_over_their_changes_and_the_fooled_are_marked(figures):
    axes, x = np.reshape(figures["attack_grid"].axes, (2, 2, 2)), noise(2, 3, 8, 8)
    for (name, (x_adv, predicted)), (top, bottom) in zip(ATTACKED.items(), axes, strict=True):
        assert (top[0].get_ylabel(), bottom[0].get_ylabel()) == (f"{name}\nx′", "x′ − x")
        for i in range(2):
            assert np.array_equal(picture(top[i]), x_adv[i].permute(1, 2, 0))
            assert picture(bottom[i]) == pytest.approx((x_adv[i] - x[i]).mean(0).numpy())
            assert bottom[i].images[0].get_clim() == (-0.1, 0.1)
            right = predicted[i] == (3, 5)[i]
            assert top[i].get_title() == f"{predicted[i]} {'✓' if right else '✗'}"


def test_each_map_of_a_grid_is_over_its_own_largest_value(figures):
    image, *maps = figures["map_grid"].axes
    assert [ax.get_title() for ax in (image, *maps)] == ["image", "CAM", "IG", ""]
    for ax, factor in zip(maps[:2], (1, 2), strict=True):
        assert np.array_equal(picture(ax), factor * noise(1, 7, 7)[0])
        largest = factor * noise(1, 7, 7).max().item()
        assert ax.images[0].get_clim() == (-largest, largest)
    black = map_figures.map_grid(noise(1, 8, 8), {"zero": torch.zeros(4, 4)}).axes[1]
    assert black.images[0].get_clim() == (-1, 1)


def test_a_panel_a_radius_with_a_line_a_method_and_start(figures):
    panels = figures["radius_panels"].axes
    assert [ax.get_title() for ax in panels] == [f"trained in a ball of ε = {r}" for r in (0.2, 0.4)]
    for ax, radius in zip(panels, (0.2, 0.4), strict=True):
        training, *drawn = ax.lines
        assert list(training.get_xdata()) == [radius, radius]
        assert {(line.get_color(), line.get_linestyle()) for line in drawn} == {
            (color(method), start) for method in ("Adv", "Int") for start in ("-", "--")
        }
        assert all(line.get_xydata() == pytest.approx(np.array([[0.1, 0.8], [0.2, 0.7]])) for line in drawn)
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((0.7 - 1.96 * 0.03, 0.8 + 1.96 * 0.03))
    second = sweep_figures.radius_panels(pd.concat([radii(), radii().assign(run=2)])).axes[0].lines[1:]
    assert sorted(line.get_linewidth() for line in second) == [1] * 4 + [2] * 4
    tau = sweep_figures.radius_panels(radii(**{"rank correlation": -0.5}), value="rank correlation").axes[0]
    assert tau.get_ylabel() == "rank correlation τ" and list(tau.lines[1].get_ydata()) == [-0.5, -0.5]


def test_the_front_has_a_point_a_network_and_joins_first_runs(figures):
    (ax,) = figures["front"].axes
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c", "d"]
    assert [text.xy for text in ax.texts] == [(0.5, 0.3), (0.6, 0.2), (0.7, 0.15), (0.4, 0.25)]
    joined = [
        line.get_xydata().tolist() for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 1
    ]
    assert joined == [[[0.6, 0.2], [0.7, 0.15]]]
    runs = {bars.get_label(): bars.lines[0] for bars in ax.containers}
    assert list(runs) == ["Adv, run 1", "Int, run 1", "Int, run 2"]
    assert runs["Int, run 2"].get_xydata().tolist() == [[0.4, 0.25]]
    assert runs["Int, run 2"].get_markerfacecolor() == "white" != runs["Int, run 1"].get_markerfacecolor()
    across, up = (bar.get_segments()[0] for bar in ax.containers[0].lines[2])
    assert across[:, 0] == pytest.approx([0.49, 0.51]) and up[:, 1] == pytest.approx([0.28, 0.32])


def test_margins_are_solid_at_x_and_dashed_at_the_worst_point(figures):
    (ax,) = figures["margins"].axes
    for method in ("Normal", "Int"):
        assert lines(ax)[color(method).lower(), "-"].get_xydata().tolist() == [[0, 1], [1, 2]]
        assert lines(ax)[color(method).lower(), "--"].get_xydata().tolist() == [[0, 0], [1, -1]]
    assert ax.get_ylabel() == "margin of the true class" and list(ax.lines[-1].get_ydata()) == [0, 0]


def test_a_ramp_is_its_fractions(figures):
    (ax,) = figures["ramps"].axes
    assert {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines} == RAMPS
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 2


def test_moved_maps_stand_beside_their_images(figures):
    axes = np.reshape(figures["moved_grid"].axes, (2, 4))
    for row, seed, name in zip(axes, (0, 1), ("Normal", "Adv"), strict=True):
        versions = explained(seed, ("x", "AAI"), k=1).values()
        expected = [v.image[0] for v in versions] + [v.maps["CAM"][0] for v in versions]
        assert all(np.array_equal(picture(ax), one) for ax, one in zip(row, expected, strict=True))
        assert (row[0].get_ylabel(), row[3].get_xlabel()) == (name, "τ = 0.25")
        assert (row[0].get_xlabel(), row[1].get_xlabel()) == ("3 ✓", "5 ✗")
    assert [ax.get_title() for ax in axes[0]] == ["x", "x′", "L(x, t)", "L(x′, t)"]


# Maps


def test_columns_of_versions_say_what_the_network_sees_and_tau(figures):
    figure = figures["explained_columns"]
    assert len(figure.axes) == 15
    said = texts(figure)
    assert said.count("5 ✗") == 4 and said.count("3 ✓") == 1
    assert said.count("τ = 0.25") == 4 and said.count("τ = 0.75") == 4
    heads = {text.get_text(): text.get_color() for text in figure.findobj(matplotlib.text.Text)}
    assert all(heads[name] == style["color"] for name, style in CLASS_SET_COLORS.items())


def test_each_map_of_figure_2_is_over_its_own_largest_value(figures):
    for axes, version in zip(figures["explained_columns"].axes[5:10], explained(0).values(), strict=True):
        (drawn,) = axes.images
        assert drawn.get_clim()[1] == pytest.approx(version.maps["CAM"][0].abs().max().item())


def test_the_four_maps_of_an_interpreter_share_their_scale_in_figure_1(figures):
    versions, figure = explained(2, ("x", "PGD"), ("CAM", "IG")), figures["explained_pair"]
    for name, row in (("CAM", figure.axes[4:8]), ("IG", figure.axes[8:12])):
        largest = max(v.maps[name].abs().max().item() for v in versions.values())
        assert all(axes.images[0].get_clim()[1] == pytest.approx(largest) for axes in row)
        drawn = [axes.images[0].get_array() for axes in row]
        expected = [v.maps[name][j] for j in (0, 1) for v in versions.values()]
        assert all(np.allclose(a, b) for a, b in zip(drawn, expected, strict=True))
    assert texts(figure).count("τ = 0.25") == 2 and "t = 3\nt′ = 5" in texts(figure)


# Training


def test_landscapes_share_their_colours_and_mark_the_border(figures):
    before, after, bar = figures["landscapes"].axes
    assert before.images[0].get_clim() == after.images[0].get_clim() == (0, 24) and bar.get_ylabel() == "D̃(x, x′)"
    assert before.images[0].get_extent() == pytest.approx([0.6, 0.8, 0.4, 0.6])
    assert len(before.collections) == 2 and not after.collections, "a border only where something is misclassified"
    path, start, end, cross = before.lines
    assert path.get_xydata()[:, 0] == pytest.approx([0.7, 0.73, 0.8])
    assert start.get_xydata()[0] == pytest.approx([0.7, 0.5]) and end.get_xydata()[0] == pytest.approx([0.8, 0.4])
    assert cross.get_xydata()[0] == pytest.approx([0.7, 0.5])


def test_ascents_say_network_by_colour_and_objective_by_line(figures):
    left, right = figures["ascents"].axes
    assert set(lines(left)) == {(color(m).lower(), s) for m in ("Normal", "Adv") for s in ("-", "--")}
    assert lines(left)[color("Adv").lower(), "--"].get_ydata().tolist() == [0, 1, 2]
    assert lines(right)[color("Adv").lower(), "-"].get_ydata().tolist() == [0, 2, 4]


def test_a_learning_curve_is_a_line_a_network():
    clean, robust = training_figures.learning_curves(histories()).axes
    assert len(clean.lines) == len(robust.lines) == 4
    drawn = sorted(tuple(line.get_ydata().round(2)) for line in robust.lines if line.get_color() == color("Int"))
    assert drawn == [(0.1, 0.2, 0.3), (0.11, 0.21, 0.31)]


def test_figure_3_is_ordered_by_decreasing_time(figures):
    left, right = figures["time_and_accuracy"].axes
    assert [label.get_text() for label in left.get_xticklabels()] == METHODS[::-1]
    heights = [bar.get_height() for bar in left.patches]
    assert heights == sorted(heights, reverse=True) == list(range(8, 0, -1))
    assert [to_hex(bar.get_facecolor()) for bar in left.patches] == [color(m).lower() for m in METHODS[::-1]]
    first, second = (container.lines[0].get_xydata() for container in right.containers)
    assert first[:, 1] == pytest.approx([0.1 * k for k in range(8, 0, -1)]) and (first[:, 1] == second[:, 1]).all()
    assert not np.allclose(first[:, 0], second[:, 0]), "two equal accuracies are both seen"


def test_figure_3_leaves_out_what_was_not_measured():
    rows = costs().assign(**{"0.4": np.nan, "0.3 error": 0.02})
    (_, right) = training_figures.time_and_accuracy(rows, ("0.3", "0.4")).axes
    first, second = right.containers
    assert np.isfinite(first.lines[0].get_xydata()).all() and np.isnan(second.lines[0].get_xydata()[:, 1]).all()
    assert first.has_yerr and not second.has_yerr


def test_gamma_is_logarithmic_with_zero_at_the_left(figures):
    (ax,) = figures["gamma_curve"].axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "0.003", "0.01", "0.03"]
    zero, *places = ax.get_xticks()
    assert places == pytest.approx(np.log10([0.003, 0.01, 0.03])) and zero < places[0]
    clean, clean_printed, robust, _ = ax.lines
    assert robust.get_ydata() == pytest.approx([0.6, 0.603, 0.61, 0.63])
    assert robust.get_xdata() == pytest.approx([zero, *places])
    assert clean.get_ydata()[0] == pytest.approx(0.9) and clean_printed.get_markerfacecolor() == "white"


def test_table_5_shows_print_hollow_and_what_is_measured_with_twice_its_noise(figures):
    (ax,) = figures["table5_points"].axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Gabor", "Snow"]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [float(line.get_ydata()[0]) for line in hollow] == [0.19, 0.115, 0.16, 0.105]
    bars = [bar.lines[2][0].get_segments()[0][:, 1] for bar in ax.containers]
    assert np.allclose(bars, [[0.18, 0.26], [0.10, 0.14], [0.13, 0.21]])
    (adv, int_) = (hollow[0].get_xdata()[0], hollow[2].get_xdata()[0])
    assert -0.5 < adv < 0 < int_ < 0.5  # side by side over one attack


def test_a_sequence_of_attacks_is_drawn_in_its_order(figures):
    (ax,) = figures["attack_sequence"].axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["none", "APGD-CE", "APGD-T"]
    assert {to_hex(line.get_color()): list(line.get_ydata()) for line in ax.lines} == {
        color("Int").lower(): [0.9, 0.8, 0.75],
        color("Adv").lower(): [0.95, 0.9, 0.9],
    }


def test_surfaces_share_their_colours_and_show_where_the_image_is_misclassified(figures):
    *panels, bar = figures["surface_panels"].axes
    assert [ax.get_title() for ax in panels] == METHODS and bar.get_xlabel() == "margin, over that at x"
    for ax in panels:
        (drawn,) = ax.images
        assert np.array_equal(drawn.get_array(), np.array(SURFACE)) and drawn.get_clim() == (-1, 1.5)
        assert ax.lines[0].get_xydata().tolist() == [[0, 0]]
        (border,) = ax.collections
        segments = np.concatenate([path.vertices for path in border.get_paths()])
        # 1 - 0.4 a + 0.1 b = 0 with a and b from -3 to 3, and the axes from -1 to 1.
        assert 1 - 0.4 * 3 * segments[:, 0] + 0.1 * 3 * segments[:, 1] == pytest.approx(0, abs=1e-9)
    (plain, _) = masking_figures.surface_panels({"one": [[1.0, 2.0], [1.0, 2.0]]}).axes
    assert not plain.collections, "a border only where something is misclassified"


def test_transfer_has_a_row_for_each_network_and_frames_its_own_attack(figures):
    (ax,) = figures["transfer_matrix"].axes
    shown = {(text.get_position()): text.get_text() for text in ax.texts}
    assert all(shown[k, i] == f"{TRANSFER[m, s]:.2f}" for i, m in enumerate(METHODS) for k, s in enumerate(METHODS))
    assert [t.get_text() for t in ax.get_yticklabels()] == METHODS == [t.get_text() for t in ax.get_xticklabels()]
    assert [tuple(np.round(patch.get_center(), 6)) for patch in ax.patches] == [(k, k) for k in range(8)]


def test_agreement_stands_above_and_below_the_diagonal(figures):
    (ax,) = figures["agreement_matrix"].axes
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(shown) == 8 * 7
    for (one, other), tau in PAIRS.items():
        row, column = MAPS.index(one), MAPS.index(other)
        written = [f"{value:.2f}".replace("-", "−").replace("0.", ".") for value in (tau, -tau)]
        assert [shown[column, row], shown[row, column]] == written
    assert [t.get_text() for t in ax.get_yticklabels()] == MAPS == [t.get_text() for t in ax.get_xticklabels()]


def test_random_layers_begin_at_the_trained_network_and_curves_go_over_the_share_of_pixels(figures):
    for ax, title in zip(figures["random_layers"].axes, ("signed", "absolute"), strict=True):
        assert ax.get_title() == title and [t.get_text() for t in ax.get_xticklabels()] == [
            "none",
            "classifier",
            "conv1",
        ]
        drawn = [list(line.get_ydata()) for line in ax.lines[: len(MAPS)]]
        assert drawn == [[1, *LEFT[name]] for name in MAPS]
    for ax in figures["pixel_curves"].axes:
        assert [list(line.get_ydata()) for line in ax.lines] == list(FALLING.values())
        assert all(list(line.get_xdata()) == [0, 0.5, 1] for line in ax.lines)


def test_pictures_stand_under_their_names_and_fooled_ones_are_red(figures):
    axes = figures["picture_table"].axes
    assert [ax.get_title() for ax in axes] == ["Gabor", "Snow", "", ""]
    assert [ax.get_ylabel() for ax in axes] == ["Adv", "", "Int", ""]
    assert [ax.get_xlabel() for ax in axes] == ["", "3 ✗", "", "5 ✓"]
    assert to_hex(axes[1].xaxis.label.get_color()) == "#b43c1e" and axes[3].xaxis.label.get_color() == "black"
    assert torch.equal(torch.as_tensor(np.asarray(axes[1].images[0].get_array())), PICTURES["Adv"]["Snow"][0])


def test_the_photograph_is_square_and_in_the_box():
    photo = unforeseen_figures.photograph(32)
    assert photo.shape == (1, 3, 32, 32) and 0 <= photo.min() < 0.3 and 0.7 < photo.max() <= 1
    assert unforeseen_figures.shares([1 / 16, 0.5, 1]) == ["1/16", "1/2", "1"]


def test_a_gamma_frame_stands_out_among_the_others(figures):
    ax, *maps = figures["gamma_frame"].axes
    inks = [to_hex(line.get_color()) for line in ax.lines]
    assert inks.count(color("Int").lower()) == 1 and len(inks) == 4 and ax.get_title() == "γ = 0.01"
    assert [m.get_title() for m in maps] == ["x′", "map of 3\nof x", "map of 3\nof x′"]
    assert maps[1].images[0].get_clim() == maps[2].images[0].get_clim()


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: accuracy_curves(rows().drop(columns="se")), r"missing: \['se'\]"),
        (lambda: accuracy_curves(rows().head(0)), "not be empty"),
        (lambda: accuracy_curves(rows(method="Mixup")), "unknown method .*Mixup"),
        (lambda: accuracy_curves(rows(source="hearsay")), "unknown source .*hearsay"),
        (lambda: accuracy_curves(rows(accuracy=[50, 0, 70, 90])), r"\[0, 1\], not percent; got 0 to 90"),
        (lambda: sweep_figures.radius_panels(radii()[:0]), "not be empty"),
        (lambda: sweep_figures.front(points(), labels=["a"], robust=""), "4 points and 1 labels"),
        (lambda: sweep_figures.front(points()[:0], labels=[], robust=""), "0 points and 0 labels"),
        (lambda: training_figures.learning_curves(histories().head(0)), "not be empty"),
        (lambda: training_figures.learning_curves(histories(("Mixup",))), "unknown method .*Mixup"),
        (lambda: training_figures.time_and_accuracy(costs().assign(method="Mixup"), ("0.3",)), "unknown .*Mixup"),
        (lambda: masking_figures.surface_panels({}), "not be empty"),
        (lambda: gamma_figures.gamma_curve(gammas().head(0), eps=0.3), "not be empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert not plt.get_fignums()


def test_certified_shares_are_drawn_at_their_radii():
    figure = certificate_figures.certificate_panels(certificates(), forms=["2-class"], largest=0.3)
    (ax,) = figure.axes
    drawn = lines(ax)
    certified, left = (drawn[to_hex(color("Int")), style] for style in ("-", ":"))
    at = lambda line, eps: float(line.get_ydata()[np.searchsorted(line.get_xdata(), eps - 1e-9)])
    assert [at(certified, eps) for eps in (0.0, 0.04, 0.06, 0.12, 0.2)] == [0.75, 0.75, 0.5, 0.25, 0.0]
    assert [at(left, eps) for eps in (0.0, 0.06, 0.12, 0.25)] == [0.75, 0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match="must not be empty"):
        certificate_figures.certificate_panels([], largest=0.3)


def test_error_bars_of_figure_3_stay_where_accuracies_can_be():
    rows = costs().assign(**{"0.3": [0.05] * 4 + [0.95] * 4, "0.3 error": 0.2, "0.4": np.nan})
    (_, right) = training_figures.time_and_accuracy(rows, ("0.3", "0.4")).axes
    (bars,) = right.containers[0].lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends[:, 0].min() == pytest.approx(0) and ends[:, 1].max() == pytest.approx(1)
    assert sorted(set((ends[:, 1] - ends[:, 0]).round(6))) == [0.25]


def test_labels_of_close_gammas_do_not_overlap():
    rows = pd.concat(
        [gammas().head(2).assign(gamma=g) for g in (0, 0.001, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03)], ignore_index=True
    )
    figure = gamma_figures.gamma_curve(rows, eps=0.3)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    # Slanted by 45 degrees from anchors on one line: the text's height is what must fit between them.
    places = [label.get_transform().transform(label.get_position())[0] for label in labels]
    height = labels[0].get_fontsize() * figure.dpi / 72
    assert np.diff(sorted(places)).min() / np.sqrt(2) > 0.9 * height
