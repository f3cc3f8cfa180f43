"""The committed chapters: sound as notebooks, buildable as pages, alive in a browser."""

import base64
import importlib
import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
import yaml
from browser import Keys, open_page, requires_browser
from conftest import ROOT

from interp_lib.models import trained
from interp_lib.pages import chapters
from interp_lib.paper import METHODS
from interp_lib.study import compare, gamma_and_radius, records, report

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
README, FINDINGS, MANUAL = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "book/findings.md", "book/running.md")
)
FOLDED = {"hide-input", "remove-input", "remove-cell"}


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def test_table_of_contents_lists_every_chapter_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    pages = [path for folder in ("book", "book/api") for path in (ROOT / folder).iterdir()]
    on_disk = [str(path.relative_to(ROOT).with_suffix("")) for path in pages if path.suffix in (".ipynb", ".md")]
    assert sorted(listed) == sorted(on_disk)


def test_what_a_chapter_calls_next_is_next_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [Path(chapter["file"]).name for part in toc["parts"] for chapter in part["chapters"]]
    found = 0
    for name, following in zip(files, files[1:], strict=False):
        path = ROOT / f"book/{name}.ipynb"
        for line in re.findall(r"\*\*Next\.\*\*.*", said_in(name)) if path.exists() else ():
            found += 1
            assert f"]({following}." in line, f"{name}: {following} follows, and the text says {line[:80]}"
    assert found >= 20


def test_chapter_is_sound(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        value = yaml.safe_load(line.partition("=")[2].partition("#")[0])
        assert isinstance(value, str | int | float | bool), f"not a scalar: {line}"
    for cell in code:
        assert cell.execution_count, f"not executed: {cell.source[:60]}"
        shown = not FOLDED & set(cell.metadata.get("tags", []))
        assert len(cell.source.splitlines()) <= (20 if shown else 64), f"a long cell: {cell.source[:60]}"
        assert not any(output.output_type in ("error",) for output in cell.outputs)
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert str(Path.home()) not in text
            assert str(ROOT) not in text


def test_chapter_links_lead_somewhere(notebook):
    targets = [
        part.partition(")")[0].partition("#")[0]
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for part in cell.source.split("](")[1:]
    ]
    for target in filter(None, targets):
        assert "://" in target or (ROOT / "book" / target).exists(), target


THREE_LINES = re.compile(
    r"# .+\n\n```{admonition} What this chapter shows\n"
    r"\* \*\*Claim\.\*\* (.+)\n\* \*\*Measured\.\*\* (.+)\n\* \*\*Verdict\.\*\* (.+)\n```(?:\n|$)"
)
_ONE = r"[(A-E\d)]+"
NAMES = re.compile(
    rf"(?:Table|Figure|[Ee]quation|Proposition|section)s? {_ONE}(?:(?:,| and| to) {_ONE})*|CIFAR-10|A[1-5]"
)


@pytest.mark.parametrize("path", [path for path in CHAPTERS if path.stem[0].isdigit()], ids=lambda path: path.stem)
def test_a_chapter_begins_with_what_it_shows_in_three_lines(path):
    first, *others = nbformat.read(path, 4).cells
    lines = THREE_LINES.search(first.source).groups()  # which begins the cell, and is there once
    assert THREE_LINES.match(first.source) and first.source.count("**Claim.**") == 1
    assert not any("What this chapter shows" in cell.source or "**What it finds.**" in cell.source for cell in others)
    for line in lines:
        text = re.sub(r"\{cite:\w\}`[^`]+`|\{\w+\}`([^`<]+)(?: <[^>]+>)?`|\]\([^)]+\)", r"\1", line)
        assert 30 < len(text) < 300 and text.rstrip(")").endswith("."), text
        # A number that a record could change stands where a cell makes it; names of tables and datasets have digits.
        assert not re.search(r"\d", NAMES.sub("", text)), text


def test_source_fits_the_page(notebook):
    """80 columns, which is what a page shows at 1300 pixels; `make lint` formats the notebooks so."""
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        if cell.cell_type == "markdown":
            blocks = re.findall(r"^```(?:bash|python)\n(.*?)^```", cell.source, re.DOTALL | re.MULTILINE)
            lines = [line for block in blocks for line in block.splitlines()]
        assert max(map(len, lines), default=0) <= 80, cell.source[:60]


def test_every_figure_has_a_caption_and_is_referred_to(notebook):
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    named = []
    for cell in notebook.cells:
        kinds = {kind for out in cell.get("outputs", []) for kind in out.get("data", {})}
        if kinds & {"image/png", "application/vnd.jupyter.widget-view+json"}:
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            assert len(figure.get("caption", "")) > 30, f"a figure without a caption: {cell.source[:60]}"
            named.append(figure["name"])
    referred = set(re.findall(r"\{numref\}`(fig-[\w-]+)`", text))
    for one, other in re.findall(r"\{numref\}`(fig-[\w-]+)` to \{numref\}`(fig-[\w-]+)`", text):
        referred |= set(named[named.index(one) : named.index(other)])
    assert set(named) <= referred


def test_every_table_has_a_caption(notebook):
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            shown = "".join(out.get("data", {}).get("text/html", ""))
            assert "<table" not in shown or '<figcaption class="table-caption">' in shown, cell.source[:60]


def test_committed_chapters_build_without_a_warning(built_book):
    assert all((built_book / f"{path.stem}.html").exists() for path in CHAPTERS)


@pytest.mark.parametrize("wing", ["attacks", "interpreters", "models", "pages", "study", "training"])
def test_the_reference_has_every_name_that_a_wing_shows(built_book, wing):
    shown = importlib.import_module(f"interp_lib.{wing}").__all__
    page = (built_book / f"api/{wing}.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(?:module-)?interp_lib\.(\S+)"', page))
    assert {f"{wing}.{name}" for name in shown} <= anchors


def test_pictures_are_described_and_numbers_are_those_of_the_chapter(built_book):
    for path in CHAPTERS:
        page = (built_book / f"{path.stem}.html").read_text(encoding="utf-8")
        article = page[page.index("<article") : page.index("</article>")]
        for picture in re.findall(r"<img[^>]*>", article):
            (text,) = re.findall(r'alt="([^"]*)"', picture)
            assert len(text) > 10 and "_images" not in text, picture[:200]
        number = str(int(path.stem[:2])) if path.stem[0].isdigit() else "0"
        figures = re.findall(r'<span class="caption-number">Fig. ([\d.]+) </span>', article)
        tables = re.findall(r'<span class="caption-number">Table ([\d.]+) </span>', article)
        for found in (figures, tables):
            assert found == [f"{number}.{k}" for k in range(1, len(found) + 1)]


def test_the_index_of_results_leads_to_tables(built_book):
    page = (built_book / "22_index_of_results.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(\d\d_\w+\.html)#(table-[^"]+)"', page)
    assert len(links) >= 19
    for name, anchor in links:
        assert f'id="{anchor}"' in (built_book / name).read_text(encoding="utf-8"), anchor


def test_formulas_of_the_reference_are_set_as_written(built_book):
    page = unescape(re.sub("<[^>]+>", "", (built_book / "api/attacks.html").read_text(encoding="utf-8")))
    assert "minimize    lambda max{ max_{j != t'} f_j(x') - f_{t'}(x'), -tau } + D(x, x')\nsubject to  ||x'" in page


def test_names_of_functions_in_a_chapter_lead_to_the_reference(built_book):
    def read(name):
        return (built_book / name).read_text(encoding="utf-8")

    links = {path.stem: re.findall(r'href="(api/\w+\.html)#(\S+?)"', read(f"{path.stem}.html")) for path in CHAPTERS}
    assert ("api/attacks.html", "interp_lib.attacks.search_isa") in links["04_attacks_on_maps"]
    assert all(f'id="{anchor}"' in read(page) for pairs in links.values() for page, anchor in pairs)


@requires_browser
@pytest.mark.parametrize("width, mode", [(1280, "light"), (390, "dark")])
def test_every_page_is_quiet_self_contained_and_fits(built_book, width, mode):
    for path in (*built_book.glob("*.html"), *built_book.glob("api/*.html")):
        with open_page(path, width=width, mode=mode) as page:
            assert page.errors() == []
            assert page.outside() == []
            assert page.overflow() <= 0, path.stem
            assert not page.select("mjx-merror"), f"{path.stem}: a formula that cannot be set"


@requires_browser
@pytest.mark.parametrize(
    "chapter, sliders",
    [
        ("04_attacks_on_maps", 1),
        ("05_defense", 1),
        ("07_robustness", 1),
        ("08_unforeseen_attacks", 2),
        ("13_appendix_c", 1),
        ("20_your_own_network", 1),
        ("27_table_2", 1),
    ],
)
@pytest.mark.parametrize("width", [1280, 390])
def test_every_slider_shows_another_attack(built_book, chapter, sliders, width):
    with open_page(built_book / f"{chapter}.html", width=width) as page:
        found = page.sliders()
        assert len(found) == sliders
        for slider in found:
            seen = [page.frame(slider)]
            for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT):
                seen.append(page.press(slider, key))
            assert len({frame["src"] for frame in seen}) == len({frame["alt"] for frame in seen}) == 3
            assert seen[-1] == seen[0] and seen[0]["width"] <= width


@requires_browser
def test_the_landing_page_attacks_two_networks(built_book):
    with open_page(built_book / "index.html") as page:
        said = lambda: page.select("#lab-glance [role=status]")[0].text
        page.wait(lambda: said() == "At ε = 0.15 Normal sees a 2, and Int sees a 1.", 60)
        (slider,) = page.select("#lab-glance input")
        for key, sentence in (
            (Keys.HOME, "At ε = 0.00 Normal sees a 1, and Int sees a 1."),
            (Keys.END, "At ε = 0.30 Normal sees a 2, and Int sees a 1."),
        ):
            slider.send_keys(key)
            page.wait(lambda sentence=sentence: said() == sentence, 60)
        assert slider.get_attribute("aria-valuetext") == "ε = 0.30" and page.errors() == []


@requires_browser
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_differences_alone_are_a_heat_map(built_book, mode):
    shades = """
        const box = [...document.querySelectorAll(".choice")].map((choice) => choice.nextElementSibling)
            .find((box) => box.querySelectorAll(".difference").length > 10);
        box.previousElementSibling.querySelector("[value=difference]").click();
        const colour = (e) => getComputedStyle(e).backgroundColor;
        return [...box.querySelectorAll("td:has(.difference)")].map((e) => [e.innerText, colour(e)])"""
    with open_page(built_book / "07_robustness.html", mode=mode) as page:
        cells = page.driver.execute_script(shades)
    size = {text: abs(float(text.strip().replace("−", "-"))) for text, _ in cells}
    opacity = {text: float(re.findall(r"[\d.]+", colour)[-1]) for text, colour in cells}
    largest = max(size.values())
    assert largest > 0 and len(set(size.values())) > 3
    assert all(opacity[text] == pytest.approx(0.45 * size[text] / largest, abs=0.002) for text in size)


@pytest.fixture(scope="module")
def by_family():
    return {record.family: record for record in records.read_all(ROOT / "results")}


def the_one(record, **chosen):
    """The row with these values."""
    agrees = lambda row, key, value: abs(row[key] - value) < 1e-6 if isinstance(value, float) else row.get(key) == value
    (row,) = (row for row in record.rows if all(agrees(row, *pair) for pair in chosen.items()))
    return row


def numbers(*rows, column="accuracy"):
    return [f"{row[column]:.3f}" for row in rows]


def test_the_findings_say_of_starts_what_the_records_say(by_family):
    pgd, starts = (by_family[f"{kind}-mnist-small-released"] for kind in ("pgd", "starts"))
    from_x = [the_one(pgd, method=m, eps=0.35, steps=200) for m in ("Int", "Int-Adv", "Adv")]
    random = [the_one(starts, method=m, eps=0.35, starts=1) for m in ("Int", "Int-Adv")]
    said = "leaves Int {} and Int-Adv {} of the images at ε = 0.35, where adversarial training has {}"
    assert said.format(*numbers(*from_x)) in FINDINGS
    assert "it leaves them {} and {}".format(*numbers(*random)) in FINDINGS
    second = {"radius": 0.3, "run": 2, "eps": 0.35, "method": "Int", "gamma": 0.01}
    again = the_one(by_family["pgd-mnist-small-sweeps"], steps=200, **second)
    lost = the_one(by_family["starts-mnist-small-sweeps"], starts=1, **second)
    assert again["accuracy"] >= from_x[0]["accuracy"] and lost["accuracy"] < 0.05


def test_the_findings_say_of_the_radius_of_training_what_the_records_say(by_family):
    pgd, aai = (by_family[f"{kind}-mnist-small-sweeps"] for kind in ("pgd", "aai"))
    adv, ours = {"method": "Adv", "radius": 0.4}, {"method": "Int", "radius": 0.4, "gamma": 0.01}
    rows = [the_one(pgd, steps=200, eps=e, **which) for which in (adv, ours) for e in (0.35, 0.4)]
    said = "in a ball of 0.4 keeps {} and {} of the images at 0.35 and 0.4, Int trained in that ball {} and {}"
    assert said.format(*numbers(*rows)) in FINDINGS
    assert all(a["accuracy"] > b["accuracy"] for a, b in zip(rows[:2], rows[2:], strict=True))
    clean = [the_one(pgd, steps=200, eps=0.0, **which) for which in (adv, ours)]
    assert "with {} and {} of them right without an attack".format(*numbers(*clean)) in FINDINGS
    maps = [the_one(aai, eps=e, **which) for which in (ours, adv) for e in (0.35, 0.4)]
    said = "are {} and {} at 0.35 and 0.4, against {} and {} of adversarial training"
    assert said.format(*numbers(*maps, column="tau")) in FINDINGS
    rows = gamma_and_radius.choose(
        gamma_and_radius.rows_of_small(by_family.values(), "aai", "cifar10"), gamma=[None, 0.01]
    )
    tau = {(row["method"], row["radius"], row["run"], row["eps"]): row["tau"] for row in rows}
    more = [tau[key] - tau["Adv", *key[1:]] for key in tau if key[0] == "Int"]
    assert min(more) > 0 and f"CIFAR-10 Small in all {len(more)} comparisons" in FINDINGS
    assert all(a["tau"] - b["tau"] > 2 * (a["se"] + b["se"]) for a, b in zip(maps[:2], maps[2:], strict=True))


def test_the_findings_say_of_the_ig_baselines_and_of_cifar10_what_the_records_say(by_family):
    found = list(by_family.values())
    rows = [r for r in by_family["many-mnist-small-ours"].rows if (r["method"], r["eps"]) == ("Chen-IG-Norm", 0.3)]
    assert {r["seed"] for r in rows} == {0, 1, 2}
    assert f"it keeps {sum(r['accuracy'] for r in rows) / 3:.3f} of 2,000 images at ε = 0.3" in FINDINGS
    fails = [
        r
        for r in by_family["pgd-mnist-small-ours"].rows
        if (r["method"], r["eps"], r["steps"]) == ("IG-Norm", 0.3, 200)
    ]
    assert len(fails) == 3 and max(r["accuracy"] for r in fails) < 0.1
    point = {
        (r["method"], round(255 * r["radius"]), r["gamma"], r["run"]): r["robust"]
        for r in gamma_and_radius.front_points(found)
    }
    said = "Int keeps {:.3f} and adversarial training {:.3f}; Int with γ = 0.02 keeps {:.3f} for a tenth less clean "
    said += "accuracy, adversarial training at 10/255 {:.3f}."
    order = ("Int", 8, 0.01, 1), ("Adv", 8, 0.0, 1), ("Int", 8, 0.02, 2), ("Adv", 10, 0.0, 1)
    assert said.format(*(point[key] for key in order)) in FINDINGS
    wide = {(c.method, c.level): c for c in compare.compare(found) if (c.table, c.dataset) == ("3", "CIFAR-10")}
    assert all(wide["Int", level].printed >= wide["Adv", level].printed for m, level in wide if m == "Int")
    assert (
        f"adversarial training keeps {wide['Adv', '8/255'].ours:.3f} of the images at 8/255 and "
        f"Int {wide['Int', '8/255'].ours:.3f}, by another schedule" in FINDINGS
    )


def test_the_manual_says_what_the_records_of_training_time_say(by_family):
    ratios = [row["ratio"] for row in by_family["training-time-mnist-small"].rows if row["method"] != "Normal"]
    assert f"{min(ratios):.1f} to {max(ratios):.1f} times as fast as a plain PyTorch loop" in MANUAL


def test_the_bibliography_is_what_the_pages_cite():
    text = "".join(cell.source for path in CHAPTERS for cell in nbformat.read(path, 4).cells)
    text += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    cited = {key.strip() for keys in re.findall(r"\{cite:[a-z]+\}`([^`]+)`", text) for key in keys.split(",")}
    entries = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(entries) == sorted(cited)


def test_entries_of_the_bibliography_have_the_labels_of_the_text(built_book):
    page = unescape(re.sub("<[^>]+>", "", (built_book / "references.html").read_text(encoding="utf-8")))
    labels = set(re.findall(r"\[\s*([^\[\]]+, \d{4}[ab]?)\s*\]", page))
    assert {"Boopathy et al., 2020", "Baniecki and Biecek, 2024", "LeCun et al., 1998"} <= labels
    cited = unescape(re.sub("<[^>]+>", "", (built_book / "01_setup.html").read_text(encoding="utf-8")))
    said = re.findall(r"\[([A-Z][^\[\]]+, \d{4}[ab]?)\]", cited)
    assert len(said) > 4 and {one for group in said for one in group.split("; ")} <= labels


def test_readme_shows_figures_of_the_book():
    figures = {
        cell.metadata["mystnb"]["figure"]["name"].removeprefix("fig-"): cell
        for path in CHAPTERS
        for cell in nbformat.read(path, 4).cells
        if "figure" in cell.metadata.get("mystnb", {})
    }
    shown = re.findall(r"\]\(book/static/(\w+)\.png\)", README)
    assert tuple(shown) == chapters.IN_README
    for name in shown:
        (picture,) = (out.data["image/png"] for out in figures[name].outputs if "image/png" in out.get("data", {}))
        assert (ROOT / f"book/static/{name}.png").read_bytes() == base64.b64decode(picture)


def test_readmes_table_is_what_make_readme_writes():
    cells = compare.compare(records.read_all(ROOT / "results"))
    assert report.updated_readme(README, cells) == README
    assert f"{len(trained.available(ROOT / 'networks'))} networks" in FINDINGS
    measured = sum(row["values"] for row in compare.counts(cells))
    landing = nbformat.read(ROOT / "book/index.ipynb", 4)
    outputs = [out for cell in landing.cells if cell.cell_type == "code" for out in cell.outputs]
    said = [out.get("data", {}).get("text/plain", "") for out in outputs]
    assert any(text.startswith(f"{measured} of the {len(cells)} values") for text in said)


def test_links_of_readme_and_of_the_pages_beside_the_chapters_lead_somewhere():
    for path in (ROOT / "README.md", *(ROOT / "book").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_manuals_example_prints_what_it_says(real_mnist, released_folder, data_folder, monkeypatch, capsys):
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", MANUAL, re.DOTALL) if "Table 3" in code)
    (said,) = re.findall(r"print\(.*\)  # (0\.\d+)", example)
    monkeypatch.setenv("INTERP_DATA", str(data_folder))
    monkeypatch.setenv("INTERP_RELEASED", str(released_folder))
    exec(compile(example, "running.md", "exec"), {})
    assert f"({said}" in capsys.readouterr().out


def said_in(chapter):
    return "".join(cell.source for cell in nbformat.read(ROOT / f"book/{chapter}.ipynb", 4).cells)


def test_the_chapters_on_attacks_say_what_the_records_say(by_family):
    restarts, masking = (by_family[f"{kind}-mnist-small-released"] for kind in ("restarts", "masking"))
    left = {(r["method"], r["attack"], r["starts"]): r["correct"] for r in restarts.rows}
    three = ("Int", "Int-Adv", "Adv")
    first = [left[m, "Table 3", 1] for m in three]
    taken = {a: [b - left[m, a, 5] for m, b in zip(three, first, strict=True)] for _, a, k in left if k == 5}
    said = (
        "take {} of the {} that Table 3's attack leaves of Int, {} of the {} of Int-Adv and {} of the {} of adversarial"
    )
    pairs = [number for pair in zip(taken["margin"], first, strict=True) for number in pair]
    text = said_in("09_strong_attacks")
    assert said.format(*pairs) in text
    assert "together, takes {}, {} and {}; ".format(*taken["cross-entropy + γ D~"]) in text
    assert "alone takes {}, {} and {}.".format(*taken["D~"]) in text
    assert max(taken, key=lambda name: sum(taken[name])) == "margin"
    for dataset in ("mnist", "cifar10"):
        at = {(r["method"], r["attack"]): r["correct"] for r in by_family[f"transfer-{dataset}-small-released"].rows}
        assert all(at[m, m] < at[m, source] for m, source in at if m != source)
    row = {(r["method"], r["check"], r["eps"]): r for r in masking.rows}
    text = said_in("19_masking")
    square = [row[m, "black box", 0.3] for m in three]
    said = "{} of {} for Int, {} of {} for Int-Adv, {} of {} for adversarial training"
    assert said.format(*(number for r in square for number in (r["against"], r["n"]))) in text
    start = [row[m, "random start", 0.35] for m in ("Int", "Int-Adv")]
    said = "leaves {1} of {2} images of Int, and from one random point {0}; Int-Adv has {4} and {3} of {5}"
    assert said.format(*(number for r in start for number in (*r["left"], r["n"]))) in text
    assert all(row[m, "black box", 0.35]["left"][1] == 0 for m in ("Int", "Int-Adv"))
    one = [row[m, "one step", 0.35]["against"] for m in ("Int", "Int-Adv")]
    assert "one step takes {} and {} images that many steps leave".format(*one) in text
    assert not any(row[m, "one step", 0.3]["against"] for m in METHODS)
