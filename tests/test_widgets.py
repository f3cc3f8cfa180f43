"""Figures and sliders: their state without a kernel, and a built page in a real browser."""

import base64
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from browser import open_page, requires_browser
from ipywidgets.embed import embed_data
from matplotlib.colors import to_rgb
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from interp_lib.pages import curve_figures, map_figures, style
from interp_lib.pages.curve_figures import accuracy_curves
from interp_lib.pages.style import CLASS_SET_COLORS, METHOD_COLORS, use_style
from interp_lib.pages.widgets import figure_png, figure_slider
from interp_lib.study.compare import Cell
from interp_lib.study.stored_maps import Explained

ROOT = Path(__file__).parent.parent
LABELS = ["0", "0.05", "0.1"]


def figures(n=3):
    made = []
    for i in range(n):
        figure, axes = plt.subplots(figsize=(4, 3))
        axes.imshow(np.arange(i, i + 16).reshape(4, 4), vmin=0, vmax=20)
        axes.set_title("CAM")
        made.append(figure)
    return made


def rows(**columns):
    table = {"method": ["Normal", "Normal", "Int", "Int"], "eps": [0.1, 0.2, 0.2, 0.1]}
    return pd.DataFrame(table | {"accuracy": [0.5, 0.0, 0.7, 0.9], "se": [0.02, 0.0, 0.03, 0.01]} | columns)


# The state that a page embeds


def test_slider_is_linked_to_the_frames_in_the_browser():
    state = embed_data(views=[figure_slider(figures(), LABELS, value_index=1)])["manager_state"]["state"]
    models = {key: model["state"] | {"name": model["model_name"]} for key, model in state.items()}
    by_name = {model["name"]: (f"IPY_MODEL_{key}", model) for key, model in models.items()}
    slider, stack, play = (by_name[name] for name in ("SelectionSliderModel", "StackModel", "PlayModel"))
    assert list(slider[1]["_options_labels"]) == LABELS and slider[1]["index"] == 1
    assert stack[1]["selected_index"] == 1 and len(stack[1]["children"]) == 3
    links = [(model["source"], model["target"]) for model in models.values() if model["name"] == "LinkModel"]
    assert ([slider[0], "index"], [stack[0], "selected_index"]) in [tuple(map(list, link)) for link in links]
    assert ([play[0], "value"], [slider[0], "index"]) in [tuple(map(list, link)) for link in links]


def test_frames_are_small_named_pictures_of_the_figures():
    made = figures()
    stack = figure_slider(made, LABELS).children[1]
    for frame, figure, label in zip(stack.children, made, LABELS, strict=True):
        assert f'alt="CAM, ε = {label}" width="400" height="300"' in frame.value
        png = base64.b64decode(frame.value.split("base64,")[1].split('"')[0])
        image = Image.open(BytesIO(png))
        assert image.mode == "P" and image.size == (600, 450)
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=150)
        difference = np.asarray(image.convert("RGB"), int) - np.asarray(Image.open(drawn).convert("RGB"), int)
        assert abs(difference).mean() < 1 and len(png) < 0.8 * len(drawn.getvalue())
    assert not plt.get_fignums(), "open figures would be shown a second time, below the slider"


def test_a_single_frame_has_no_play_button():
    for slider in (figure_slider(figures(1), [0]), figure_slider(figures(), LABELS, play=False)):
        assert [type(child) for child in slider.children[0].children] == [ipywidgets.SelectionSlider]


@pytest.mark.parametrize(
    ("n", "labels", "index", "message"),
    [
        (0, [], 0, "at least one figure"),
        (2, LABELS, 0, "2 figures and 3 labels"),
        (3, ["0", "0.1", "0.1"], 0, "labels must differ"),
        (3, LABELS, 3, r"0\.\.2; got 3"),
        (3, LABELS, -1, r"0\.\.2; got -1"),
    ],
)
def test_slider_refuses(n, labels, index, message):
    with pytest.raises(ValueError, match=message):
        figure_slider(figures(n), labels, value_index=index)
    plt.close("all")


# Figures


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


def test_legend_covers_no_data():
    every = pd.concat([rows(method=name).head(2).assign(eps=[0.1, 0.2]) for name in METHOD_COLORS])
    figure = accuracy_curves(pd.concat([every.assign(source=s) for s in ("paper", "trained here")]))
    figure.draw_without_rendering()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.y1 < axes.y0 and legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_line_says_the_source():
    both = pd.concat([rows(source="paper", se=np.nan), rows(source="released, re-measured")])
    lines = {(line.get_linestyle(), line.get_markerfacecolor()) for line in accuracy_curves(both).axes[0].lines}
    colors = [METHOD_COLORS[method]["color"] for method in ("Normal", "Int")]
    assert lines == {(":", "white")} | {("-", color) for color in colors}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows().drop(columns="se"), r"missing: \['se'\]"),
        (rows().head(0), "not be empty"),
        (rows(method="Mixup"), "unknown method .*Mixup"),
        (rows(source="hearsay"), "unknown source .*hearsay"),
        (rows(accuracy=[50, 0, 70, 90]), r"\[0, 1\], not percent; got 0 to 90"),
    ],
)
def test_accuracy_curves_refuses(table, message):
    with pytest.raises(ValueError, match=message):
        accuracy_curves(table)


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


def test_agreement_shows_every_measured_accuracy_and_rank_correlation_once():
    """Two accuracies, a rank correlation of another dataset, a score of Table 1, and a value that was not measured."""
    cell = lambda metric, value, dataset="MNIST", **of: Cell(
        "3", dataset, "Small", "Adv", metric, "eps", "0.3", value, **of
    )
    cells = [cell("ATA", "0.5", corrected=0.6, ours=0.4), cell("ATA", "0.7", corrected=0.7), cell("ATA", "0.1"),
             cell("tau:CAM", "-0.2", "CIFAR-10", corrected=-0.3), cell("NDS", "3.1", corrected=3.2)]  # fmt: skip
    left, right = curve_figures.agreement(cells, {"corrected": "released", "ours": "trained here"}).axes
    points = lambda ax: [[tuple(p) for p in dots.get_offsets().data] for dots in ax.collections]
    assert points(left) == [[(0.5, 0.6), (0.7, 0.7)], [(-0.2, -0.3)]] and points(right) == [[(0.5, 0.4)], []]
    assert (left.get_title(), right.get_title()) == ("released, n = 3", "trained here, n = 1")
    assert (left.get_xlabel(), left.get_ylabel()) == ("as printed", "measured")


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


DIGITS = [str(d) for d in range(10)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_columns_of_versions_say_what_the_network_sees_and_tau():
    figure = map_figures.explained_columns(explained(0), ["true: 3", "target: 5"], DIGITS, title="eps")
    assert not plt.get_fignums() and len(figure.axes) == 15
    said = texts(figure)
    assert said.count("5 ✗") == 4 and said.count("3 ✓") == 1
    assert said.count("τ = 0.25") == 4 and said.count("τ = 0.75") == 4
    heads = {text.get_text(): text.get_color() for text in figure.findobj(matplotlib.text.Text)}
    assert all(heads[name] == style["color"] for name, style in CLASS_SET_COLORS.items())


def test_each_map_of_figure_2_is_over_its_own_largest_value():
    versions = explained(1)
    figure = map_figures.explained_columns(versions, ["t", "t'"], DIGITS)
    for axes, version in zip(figure.axes[5:10], versions.values(), strict=True):
        (drawn,) = axes.images
        assert drawn.get_clim()[1] == pytest.approx(version.maps["CAM"][0].abs().max().item())


def test_the_four_maps_of_an_interpreter_share_their_scale_in_figure_1():
    versions = explained(2, ("x", "PGD"), ("CAM", "IG"))
    figure = map_figures.explained_pair(versions, ["3", "5"])
    for name, row in (("CAM", figure.axes[4:8]), ("IG", figure.axes[8:12])):
        largest = max(v.maps[name].abs().max().item() for v in versions.values())
        assert all(axes.images[0].get_clim()[1] == pytest.approx(largest) for axes in row)
        drawn = [axes.images[0].get_array() for axes in row]
        expected = [v.maps[name][j] for j in (0, 1) for v in versions.values()]
        assert all(np.allclose(a, b) for a, b in zip(drawn, expected, strict=True))
    assert texts(figure).count("τ = 0.25") == 2 and "t = 3\nt′ = 5" in texts(figure)


def test_moved_grid_has_a_row_a_network():
    rows = {name: explained(seed, ("x", "AAI"), k=1) for seed, name in enumerate(("Normal", "Adv"))}
    figure = map_figures.moved_grid(rows, DIGITS)
    assert len(figure.axes) == 8 and {"Normal", "Adv", "L(x′, t)"} <= set(texts(figure))


def sneaking_rows(p=1):
    points = {"1-class": (3.0, 1.0, 2.0), "2-class": (4.0, 3.9, 3.9)}
    return [
        {"p": p, "attack": name, "eps": eps, name: value, "lowest": min(values[: i + 1])}
        for name, values in points.items()
        for i, (eps, value) in enumerate(zip((0.1, 0.2, 0.3), values, strict=True))
    ]


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


def test_quantile_bars_put_each_quantile_in_its_place():
    quantiles = {"q05": 1.0, "q25": 1.5, "median": 2.0, "q75": 3.0, "q95": 8.0, "n": 7}
    rows = [{"method": method, **quantiles} for method in ("Int", "Adv")]
    (axes,) = curve_figures.quantile_bars(rows, xlabel="ratio", reference=1).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Int  n = 7", "Adv  n = 7"]
    assert [(box.get_x(), box.get_width()) for box in axes.patches] == [(1.5, 1.5)] * 2
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "", None)] == [2.0] * 2
    assert axes.lines[0].get_color() == METHOD_COLORS["Int"]["color"]
    assert list(axes.lines[0].get_xdata()) == [1.0, 8.0]


@pytest.mark.parametrize(
    "draw",
    [
        lambda i: map_figures.explained_columns(explained(i), ["true: 3", "target: 5"], DIGITS),
        lambda i: map_figures.moved_grid({"Normal": explained(i, ("x", "AAI"), k=1)}, DIGITS),
        lambda i: map_figures.explained_pair(explained(i, ("x", "PGD")), ["3", "5"]),
    ],
    ids=["figure 2", "AAI", "figure 1"],
)
def test_explained_figures_are_frames_that_differ(draw):
    stack = figure_slider([draw(i) for i in range(3)], LABELS).children[1]
    assert len({frame.value for frame in stack.children}) == 3
    assert len({frame.value.split("src=")[0].split("ε")[0] for frame in stack.children}) == 1
    assert all(len(frame.value) < 60_000 for frame in stack.children), "noise is the worst case"


def test_style_fits_a_phone():
    with matplotlib.rc_context():
        use_style()
        on_phone = 350 / (matplotlib.rcParams["figure.figsize"][0] * 72)
        for name in ("font.size", "xtick.labelsize", "legend.fontsize"):
            assert matplotlib.rcParams[name] * on_phone > 9, "CSS pixels at a window of 390"


# A page in a browser


FIRST = """\
# A page

{cite:t}`boopathy2020proper` bound $f(x) \\ge 0$ by

$$ \\| \\boldsymbol{\\delta} \\|_\\infty \\le \\epsilon $$ (bound)

as {eq}`bound` says.
"""
SETUP = """\
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from interp_lib.pages import curve_figures
from interp_lib.study.stored_maps import Explained
from interp_lib.pages.curve_figures import accuracy_curves
from interp_lib.pages.style import CLASS_SET_COLORS, METHOD_COLORS, use_style
from interp_lib.pages.widgets import figure_slider
use_style()
"""
SLIDER = """\
x = np.linspace(-3, 3, size)
maps = [np.exp(-(x[None] - i / 4) ** 2 - (x[:, None] - i / 6) ** 2) for i in range(frames)]
figures = []
for m in maps:
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.8))
    for ax, image, name in zip(axes, (m, m - maps[0]), ("CAM", "change")):
        ax.imshow(image)
        ax.set(title=name, xticks=[], yticks=[])
    figures.append(figure)
figure_slider(figures, [f"{i / 40:.3f}" for i in range(frames)])
"""
CURVES = """\
rows = [(method, eps, 0.95 * np.exp(-(10 - i) * eps), 0.02, "released, re-measured")
        for i, method in enumerate(METHOD_COLORS) for eps in np.linspace(0, 0.4, 5)]
rows += [(method, eps, max(0, accuracy - 0.02), np.nan, "paper") for method, eps, accuracy, _, _ in rows[::4]]
rows = pd.DataFrame(rows, columns=["method", "eps", "accuracy", "se", "source"])
display(rows.pivot_table(index="method", columns=["source", "eps"], values="accuracy").round(3))
accuracy_curves(rows)
"""
LAST = """\
| method | ε = 0 | ε = 0.1 | ε = 0.2 | ε = 0.3 | ε = 0.4 | what the row says |
|---|---|---|---|---|---|---|
| Int | 0.95 | 0.72 | 0.55 | 0.42 | 0.32 | a table that is wider than a phone |

```{bibliography}
```
"""


def build_book(folder, pages):
    """Execute and build notebooks with the book's own configuration; the folder with the HTML."""
    source = folder / "src"
    shutil.copytree(ROOT / "book" / "static", source / "book" / "static")
    shutil.copy(ROOT / "_config.yml", source)
    shutil.copy(ROOT / "book" / "references.bib", source / "book")
    contents = {"format": "jb-book", "root": "book/intro"}
    (source / "_toc.yml").write_text(json.dumps(contents), encoding="utf-8")  # JSON is YAML
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    environment.pop("MPLBACKEND", None)
    for name, notebook in pages.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
        run("papermill", folder / f"{name}.ipynb", source / "book" / f"{name}.ipynb", "-p", "frames", "9",
            "--execution-timeout", "60", env=environment)  # fmt: skip
    run("jupyter-book", "build", "-W", "--keep-going", "--path-output", folder, source, env=environment)
    return folder / "_build" / "html"


def run(script, *arguments, env):
    command = [Path(sys.executable).with_name(script), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    cells = [
        new_markdown_cell(FIRST),
        new_code_cell(SETUP),
        new_code_cell("frames = 3\nsize = 28", metadata={"tags": ["parameters"]}),
        new_code_cell(SLIDER),
        new_code_cell(CURVES),
        new_markdown_cell(LAST),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return build_book(tmp_path_factory.mktemp("book"), {"intro": new_notebook(cells=cells, metadata=kernel)})


@pytest.fixture(scope="module")
def page(html):
    with open_page(html / "book" / "intro.html") as opened:
        yield opened


@requires_browser
def test_keyboard_moves_the_slider_on_the_page(page):
    (slider,) = page.sliders()
    first = page.frame(slider)
    assert first["alt"] == "CAM, change, ε = 0.000" and first["width"] > 500
    second = page.press(slider)
    assert second["alt"] == "CAM, change, ε = 0.025" and second["src"] != first["src"]
    assert slider.find_element("css selector", ".widget-readout").text == "0.025"


@requires_browser
def test_play_runs_through_the_frames_and_pauses(page):
    (slider,) = page.sliders()
    before = page.frame(slider)["alt"]
    button = slider.find_element("css selector", ".widget-play button")
    icon = button.find_element("css selector", "i.fa")
    assert "fa-play" in icon.get_attribute("class")
    button.click()
    page.wait(lambda: page.frame(slider)["alt"] != before)
    assert "fa-pause" in icon.get_attribute("class") and not icon.find_elements("css selector", "svg")
    button.click()
    assert "fa-play" in icon.get_attribute("class")


@requires_browser
def test_page_is_quiet_and_fetches_nothing_from_outside(page):
    page.sliders()
    assert page.errors() == []
    assert page.outside() == []
    assert len(page.requests()) > 5, "the log must see the page's own files"


@requires_browser
def test_formulas_are_set_and_injected_parameters_hidden(page):
    assert len(page.select("mjx-container")) >= 2 and not page.select("mjx-merror")
    (injected,) = page.select("div.cell.tag_injected-parameters")
    assert not injected.is_displayed()


@requires_browser
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_phone_sees_the_whole_page_without_scrolling_sideways(html, mode):
    with open_page(html / "book" / "intro.html", width=390, height=844, mode=mode) as page:
        (slider,) = page.sliders()
        assert page.frame(slider)["width"] <= 390 and page.overflow() <= 0
        assert page.driver.execute_script("return document.documentElement.dataset.theme") == mode


def test_vendored_files_are_the_ones_listed():
    vendor = ROOT / "book" / "static" / "vendor"
    listed = (vendor / "VENDORED.md").read_text(encoding="utf-8").split("## sha256")[1].split("```")[1].split()
    present = {path for path in vendor.rglob("*") if path.is_file()} - {vendor / "VENDORED.md"}
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in present}
    assert digests == {d: vendor / name for d, name in zip(listed[::2], listed[1::2], strict=True)}


def test_nine_frames_make_a_small_page(html):
    size = (html / "book" / "intro.html").stat().st_size
    print(f"page with 9 frames: {size / 1000:.0f} kB")
    assert size < 500_000


def test_palette_keeps_the_picture_of_one_figure_small():
    (figure,) = figures(1)
    plt.close(figure)
    assert len(figure_png(figure)) < 20_000
    assert base64.b64encode(figure_png(figure)) == base64.b64encode(figure_png(figure))
