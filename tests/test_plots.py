"""Figures on training: what they draw is what they were given, legible, with no legend on the data."""

import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from interp_lib.pages import training_figures
from interp_lib.pages.style import METHOD_COLORS, use_style

METHODS = list(METHOD_COLORS)


def color(method):
    return METHOD_COLORS[method]["color"]


def lines(ax):
    return {(to_hex(line.get_color()), line.get_linestyle()): line for line in ax.lines}


def panel(side=5, lowest=-1.0):
    values = torch.arange(side * side, dtype=torch.float64).view(side, side)
    path = torch.tensor([[0.7, 0.5], [0.73, 0.47], [0.8, 0.4]])
    return values, torch.linspace(lowest, 1, side * side).view(side, side), [path]


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


def every_figure():
    x = torch.tensor([0.7, 0.5])
    ascents = pd.DataFrame(
        {"method": m, "climbs": c, "step": k, "discrepancy": k, "cross_entropy": 2 * k}
        for m, c, k in itertools.product(("Normal", "Adv"), ("D~", "cross-entropy"), (0, 1, 2))
    )
    margins = pd.DataFrame(
        {"method": m, "update": k, "margin": 1.0, "worst": -k} for m in ("Normal", "Int") for k in (0, 1)
    )
    image, maps = torch.rand(1, 28, 28), torch.rand(1, 7, 7)
    return {
        "landscapes": training_figures.landscapes({"before": panel(), "after": panel(lowest=0.5)}, x, 0.1),
        "margins": training_figures.margins(margins),
        "ascents": training_figures.ascents(ascents),
        "ramps": training_figures.ramps({"paper, mnist": ([0, 1], [0, 1]), "quick, mnist": ([0, 0.5, 1], [0, 1, 1])}),
        "learning_curves": training_figures.learning_curves(histories(METHODS), title="Digits"),
        "time_and_accuracy": training_figures.time_and_accuracy(costs(), ("0.3", "0.4"), title="MNIST"),
        "gamma_curve": training_figures.gamma_curve(gammas(), eps=0.3, printed=gammas().head(6), title="MNIST"),
        "gamma_frame": training_figures.gamma_frame(gammas(), 0.01, image, maps, maps, names=["map of 3"]),
    }


@pytest.fixture(scope="module")
def figures():
    with matplotlib.rc_context():
        use_style()
        made = every_figure()
        for figure in made.values():
            figure.draw_without_rendering()
        yield made


NAMES = (
    "landscapes",
    "margins",
    "ascents",
    "ramps",
    "learning_curves",
    "time_and_accuracy",
    "gamma_curve",
    "gamma_frame",
)


def test_every_figure_is_looked_at(figures):
    assert tuple(figures) == NAMES and not plt.get_fignums(), "an open figure would be shown twice"


@pytest.mark.parametrize("name", NAMES)
def test_text_is_legible_on_a_phone_and_stays_on_the_figure(figures, name):
    figure = figures[name]
    on_phone = 350 / (figure.get_size_inches()[0] * 72)
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts) * on_phone > 9, "CSS pixels at a window of 390"
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_a_legend_covers_no_data(figures, name):
    figure = figures[name]
    for legend, ax in itertools.product(figure.legends, figure.axes):
        assert legend.get_window_extent().y1 < ax.get_window_extent().y0


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


def test_a_gamma_frame_stands_out_among_the_others(figures):
    ax, *maps = figures["gamma_frame"].axes
    inks = [to_hex(line.get_color()) for line in ax.lines]
    assert inks.count(color("Int").lower()) == 1 and len(inks) == 4 and ax.get_title() == "γ = 0.01"
    assert [m.get_title() for m in maps] == ["x′", "map of 3\nof x", "map of 3\nof x′"]
    assert maps[1].images[0].get_clim() == maps[2].images[0].get_clim()


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: training_figures.learning_curves(histories().head(0)), "not be empty"),
        (lambda: training_figures.learning_curves(histories(("Mixup",))), "unknown method .*Mixup"),
        (
            lambda: training_figures.time_and_accuracy(costs().assign(method="Mixup"), ("0.3",)),
            "unknown method .*Mixup",
        ),
        (lambda: training_figures.gamma_curve(gammas().head(0), eps=0.3), "not be empty"),
    ],
)
def test_refusals(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
