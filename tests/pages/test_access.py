"""Pages for every reader: by keyboard, by ear, on a phone, on paper; and links that lead somewhere."""

import importlib.util
import json
import os
import re
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml
from browser import Keys, open_page, requires_browser
from conftest import ROOT

from interp_lib.pages import head
from interp_lib.pages.style import describe
from interp_lib.pages.widgets import figure_slider

# The wheel of axe-playwright-python carries axe-core as one file; it is read, and the package never imported.
CARRIER = importlib.util.find_spec("axe_playwright_python")
AXE = Path(os.environ.get("AXE_CORE") or (Path(CARRIER.origin).with_name("axe.min.js") if CARRIER else "axe.min.js"))
requires_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="needs axe-core: pip install --no-deps axe-playwright-python==0.1.8, or AXE_CORE=..."
)


@dataclass
class Html(HTMLParser):
    """A page's tags with their attributes, and the text of its scripts with widgets."""

    path: Path
    tags: list[tuple[str, dict]] = field(default_factory=list)
    widgets: str = ""

    def __post_init__(self):
        super().__init__()
        self._inside = False
        self.feed(self.path.read_text(encoding="utf-8") if isinstance(self.path, Path) else self.path)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("type") == "application/vnd.jupyter.widget-state+json"

    def handle_data(self, data):
        if self._inside:
            self.widgets += data

    def named(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="session")
def pages(built_book):
    return {path: Html(path) for path in built_book.parent.rglob("*.html") if "_static" not in path.parts}


# What the files say


def test_links_inside_the_book_lead_to_a_page_and_to_a_place_on_it(pages):
    anchors = {path: {a.get("id") or a.get("name") for _, a in page.tags} for path, page in pages.items()}
    seen = 0
    for path, page in pages.items():
        for address in (a.get("href") or a.get("src") for a in page.named("a", "img", "link", "script")):
            if not address or urlsplit(address).scheme in ("http", "https", "mailto", "data"):
                continue
            parts = urlsplit(urljoin(path.as_uri(), address))
            target, seen = Path(unquote(parts.path)), seen + 1
            assert target.is_file(), f"{path.name}: {address}"
            # The laboratory's settings stand behind the # as well, as in n=int&e=0.2.
            place = "" if "=" in parts.fragment else unquote(parts.fragment)
            known = not place or target not in pages or place in anchors[target]
            assert known, f"{path.name}: no {parts.fragment} in {target.name}"
    assert seen > 1000


def test_a_page_is_small_named_and_described(pages, built_book):
    described = Counter()
    for path, page in pages.items():
        assert path.stat().st_size < 1_000_000, path.name
        ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
        assert max(ids.values(), default=1) == 1, (path.name, ids.most_common(1))
        if built_book not in path.parents:
            continue  # what Sphinx adds: the search, the index
        meta = {a.get("name") or a.get("property"): a["content"] for a in page.named("meta") if a.get("content")}
        assert {"og:title", "og:description", "og:type", "og:site_name", "og:image:alt"} <= set(meta), path.name
        assert (path.parent / meta["og:image"]).is_file()
        assert 20 < len(meta["description"]) <= 202 and not meta["description"].startswith("Claim")
        described[meta["description"]] += 1
    assert max(described.values()) == 1


def test_every_picture_has_a_text_and_waits_until_it_is_looked_at(pages, built_book):
    for path, page in pages.items():
        for image in page.named("img") if built_book in path.parents else ():
            text = image.get("alt")
            assert text and not re.search(r"\.[a-z]+$|[0-9a-f]{20}", text), (path.name, text)
            assert image.get("loading") == "lazy"


def test_every_frame_of_a_slider_says_which_it_is(pages):
    stacks = 0
    for page in filter(lambda page: page.widgets, pages.values()):
        state = {f"IPY_MODEL_{key}": model["state"] for key, model in json.loads(page.widgets)["state"].items()}
        target = {tuple(link["target"]): state[link["source"][0]] for link in state.values() if "source" in link}
        for key, stack in state.items():
            if stack.get("_model_name") == "StackModel":
                slider, stacks = target[key, "selected_index"], stacks + 1
                frames = [Html(state[child]["value"]).named("img")[0]["alt"] for child in stack["children"]]
                ends = [f"{slider['description']} = {label}" for label in slider["_options_labels"]]
                assert slider["description"] and all(map(str.endswith, frames, ends))
    assert stacks >= 7


def test_how_to_cite_is_what_the_file_for_it_says(built_book):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = (ROOT / "book/references.md").read_text(encoding="utf-8").split("```bibtex")[1]
    paper, ours = (" ".join(entry.replace("\\", "").split()) for entry in text.split("@")[1:])
    (reference,) = cff["references"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in reference["authors"])
    assert all(f"{{{part}}}" in paper for part in (reference["title"], authors, str(reference["year"])))
    assert all(f"{{{part}}}" in ours for part in (cff["title"], cff["version"], f"{{{cff['authors'][0]['name']}}}"))


def test_what_is_written_wrongly_is_mended():
    signature = '<dl>\n<dd><em class="sig-param">x</em>,</dd>\n<dd><em class="sig-param">y</em>,</dd>\n</dl>'
    tags = Html(head.mend(signature)).tags
    assert [tag for tag, _ in tags] == ["div", "div", "em", "div", "em"]
    named = "<dl>\n<dt>x</dt>\n<dd>an image</dd>\n</dl>"
    assert head.mend(named) == named
    assert head.mend('<p id="a"></p><p id="b"></p><i id="a"></i>') == '<p id="a"></p><p id="b"></p><i></i>'
    assert head.mend("<tr><th></th><th>ε</th></tr>") == "<tr><td></td><th>ε</th></tr>"
    assert head.mend('<div id="x" role="doc-biblioentry">') == '<div id="x" role="listitem">'


# Descriptions of figures


def test_the_text_of_a_picture_is_what_its_notebook_stores_with_it(tmp_path):
    png = b64encode(b"a picture").decode()
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": "a line"}}),
        nbformat.v4.new_output("display_data", {"image/png": b64encode(b"another").decode()}),
    ]
    cell = nbformat.v4.new_code_cell(outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    assert head.notebook_descriptions(tmp_path / "page.ipynb") == {sha256(b"a picture").hexdigest(): "a line"}
    assert head.notebook_descriptions(tmp_path / "page.md") == {}


def test_a_figure_is_described_by_its_titles_axes_and_legends():
    figure, (left, right) = plt.subplots(1, 2)
    figure.suptitle("Two panels")
    left.set(title="MNIST", xlabel="ε", ylabel="accuracy")
    left.plot([0, 1], label="Int")
    left.plot([1, 0], label="Adv")
    left.legend()
    right.set(title="two\nlines", xlabel="$n$")
    plt.close(figure)
    assert describe(figure) == "Two panels, MNIST: accuracy against ε, two lines: n; Int, Adv"
    assert describe(plt.figure()) == ""
    plt.close("all")


def test_the_labels_of_a_slider_are_in_its_state():
    drawn = [plt.figure() for _ in range(2)]
    slider = figure_slider(drawn, ["0", "0.1"]).children[0].children[0]
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert slider.description == "ε" and "arrow keys" in slider.tooltip


# What a browser shows


@requires_browser
def test_a_slider_tells_its_quantity_and_value_and_its_buttons_what_they_do(built_book):
    with open_page(built_book / "05_defense.html") as page:
        (slider,) = page.sliders()
        handle, readout = (slider.find_element("css selector", css) for css in (".noUi-handle", ".widget-readout"))
        play, stop = slider.find_elements("css selector", ".widget-play button:not([style*=none])")
        told = lambda element, name="aria-label": element.get_attribute(name)
        page.wait(lambda: told(handle) == "updates")
        for _ in range(2):
            page.press(slider, Keys.ARROW_RIGHT)
            page.wait(lambda: told(handle, "aria-valuetext") == f"updates = {readout.text}")
        assert (told(play), told(stop)) == ("Play: updates", "Stop: updates")
        assert told(readout) and told(readout, "role") == "textbox"
        play.click()
        page.wait(lambda: told(play) == "Pause: updates")


WIDE = """
    return [...document.querySelectorAll("main *")].filter((element) => element.scrollWidth > element.clientWidth + 1
        && element.clientWidth > 0 && /auto|scroll/.test(getComputedStyle(element).overflowX))"""


@requires_browser
def test_keys_reach_and_scroll_what_is_wider_than_a_phone(built_book):
    with open_page(built_book / "06_training.html", width=390) as page:
        page.driver.execute_script("""
            const box = document.createElement("div"), wide = document.createElement("div");
            box.style.overflowX = "auto";
            wide.style.cssText = "height: 20px; width: 2000px";
            box.append(wide);
            document.querySelector("article").prepend(box);""")
        page.wait(lambda: page.select("main [aria-label='scrolls sideways']"))
        wide = page.driver.execute_script(WIDE)
        assert wide and all(element.get_property("tabIndex") == 0 for element in wide)
        first = wide[0]
        first.send_keys(Keys.ARROW_RIGHT)
        page.wait(lambda: first.get_property("scrollLeft") > 0)


TOO_WIDE = """
    for (const cell of document.querySelectorAll("main details")) cell.open = true;
    const boxes = "article :is(.comparison, .pst-scrollable-table-container, pre)";
    return [...document.querySelectorAll(boxes)].filter((box) => box.scrollWidth > box.clientWidth + 1)"""


@requires_browser
@pytest.mark.parametrize("name", ["04_attacks_on_maps", "06_training", "19_masking", "running", "api/attacks"])
@pytest.mark.parametrize("width", [1300, 390])
def test_source_outputs_and_tables_are_no_wider_than_the_page(built_book, name, width):
    with open_page(built_book / f"{name}.html", width=width) as page:
        page.wait(lambda: not page.driver.execute_script(TOO_WIDE))
        stacked = page.select(".stacked")
        assert width < 600 or not stacked
        for box in stacked:
            heads = [head.get_property("textContent").strip() for head in box.find_elements("css selector", "thead th")]
            for row in box.find_elements("css selector", "tbody tr"):
                cells = row.find_elements("css selector", "th, td")
                assert [cell.get_attribute("data-column") for cell in cells[1:]] == heads[1:]
                roles = {cell.get_attribute("role") for cell in cells}
                assert row.get_attribute("role") == "row" and roles <= {"rowheader", "cell"}


@requires_browser
@pytest.mark.parametrize("chapter", ["05_defense", "07_robustness"])
def test_paper_shows_whole_lines_and_no_sidebars(built_book, chapter):
    with open_page(built_book / f"{chapter}.html", width=680, mode="dark") as page:  # A4 less margins, in CSS pixels
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        page.driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        assert page.driver.execute_script("return document.documentElement.dataset.theme") == "light"
        shown = [e for e in page.select(".bd-sidebar, .bd-header-article, .copybtn, .widget-play") if e.is_displayed()]
        assert not shown
        assert not page.driver.execute_script(WIDE) and page.overflow() <= 0


SCREEN, MOST_SCREENS = 900, 15
ARTICLE_HEIGHT = """
    const images = [...document.querySelectorAll("article img")];
    for (const image of images) image.loading = "eager";
    return images.every((image) => image.complete) && document.querySelector("article").scrollHeight"""


@requires_browser
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "book").glob("*.ipynb")))
def test_no_chapter_is_longer_than_fifteen_screens(built_book, name):
    with open_page(built_book / f"{name}.html", width=1300) as page:
        assert page.wait(lambda: page.driver.execute_script(ARTICLE_HEIGHT)) <= MOST_SCREENS * SCREEN


TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
NAMES = [
    TOC["root"],
    *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]),
    "search",
    "genindex",
    "prf-prf",
]
# Colours depend on the theme and places on the width, hardly any rule on both: of the four looks two, all by AXE_CORE.
ALL = "AXE_CORE" in os.environ
LOOKS = [(1300, ["light", "dark"] if ALL else ["light"]), (390, ["light", "dark"] if ALL else ["dark"])]
# Formulas are left out: their text for screen readers is MathJax's, beside glyphs that no rule can read.
RUN_AXE = """
    const done = arguments[0];
    const short = ({id, nodes}) => [id, ...nodes.map((node) => node.target.join(" "))];
    axe.run({exclude: ["mjx-container"]}, {resultTypes: ["violations"]})
        .then((result) => done(result.violations.map(short)), (error) => done([String(error)]));"""


@requires_browser
@requires_axe
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "modes"), LOOKS)
def test_axe_finds_nothing(built_book, name, width, modes):
    with open_page(built_book.parent / f"{name}.html", width=width) as page:
        if page.select("script[type='application/vnd.jupyter.widget-view+json']"):
            page.sliders()
        page.driver.set_script_timeout(300)
        page.driver.execute_script(AXE.read_text(encoding="utf-8"))
        for mode in modes:
            page.driver.execute_script("document.documentElement.dataset.theme = arguments[0]", mode)
            time.sleep(0.5)  # colours fade
            assert page.driver.execute_async_script(RUN_AXE) == [], mode
