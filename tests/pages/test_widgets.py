"""Figures and sliders: their state without a kernel, and a built page in a real browser."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import matplotlib
from conftest import ROOT

matplotlib.use("agg")

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from browser import open_page, requires_browser
from ipywidgets.embed import embed_data
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from test_plots import DIGITS, explained

from interp_lib.pages import map_figures
from interp_lib.pages.widgets import figure_png, figure_slider

LABELS = ["0", "0.05", "0.1"]


def figures(n=3):
    made = []
    for i in range(n):
        figure, axes = plt.subplots(figsize=(4, 3))
        axes.imshow(np.arange(i, i + 16).reshape(4, 4), vmin=0, vmax=20)
        axes.set_title("CAM")
        made.append(figure)
    return made


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
        run(
            "papermill",
            folder / f"{name}.ipynb",
            source / "book" / f"{name}.ipynb",
            "-p",
            "frames",
            "9",
            "--execution-timeout",
            "60",
            env=environment,
        )
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
