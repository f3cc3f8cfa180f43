"""The committed chapters: sound as notebooks, buildable as pages, alive in a browser."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from browser import Keys, open_page, requires_browser

from interp_lib import compare, networks, orderings, records

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def test_table_of_contents_lists_every_chapter_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    on_disk = [f"book/{path.stem}" for path in (ROOT / "book").iterdir() if path.suffix in (".ipynb", ".md")]
    assert sorted(listed) == sorted(on_disk)


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
        assert len(cell.source.splitlines()) <= 18, f"a long cell belongs into the library: {cell.source[:60]}"
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


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The book built from the committed chapters as they are, a warning being an error."""
    folder = tmp_path_factory.mktemp("book")
    source = folder / "src"
    source.mkdir()
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns(".*"))
    script = Path(sys.executable).with_name("jupyter-book")
    command = [script, "build", "-W", "--keep-going", "-q", "--path-output", folder, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "_build/html/book"


def test_committed_chapters_build_without_a_warning(html):
    assert all((html / f"{path.stem}.html").exists() for path in CHAPTERS)


@requires_browser
@pytest.mark.parametrize("width, mode", [(1280, "light"), (390, "dark")])
def test_every_page_is_quiet_self_contained_and_fits(html, width, mode):
    for path in CHAPTERS:
        with open_page(html / f"{path.stem}.html", width=width, mode=mode) as page:
            assert page.errors() == []
            assert page.outside() == []
            assert page.overflow() <= 0, path.stem
            assert not page.select("mjx-merror"), f"{path.stem}: a formula that cannot be set"


@requires_browser
@pytest.mark.parametrize(
    "chapter, sliders", [("04_attacks_on_maps", 2), ("05_defense", 1), ("07_robustness", 1), ("13_appendix_c", 1)]
)
@pytest.mark.parametrize("width", [1280, 390])
def test_every_slider_shows_another_attack(html, chapter, sliders, width):
    with open_page(html / f"{chapter}.html", width=width) as page:
        found = page.sliders()
        assert len(found) == sliders
        for slider in found:
            seen = [page.frame(slider)]
            for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT):
                seen.append(page.press(slider, key))
            assert len({frame["src"] for frame in seen}) == len({frame["alt"] for frame in seen}) == 3
            assert seen[-1] == seen[0] and seen[0]["width"] <= width


def test_a_page_with_sliders_stays_small(html):
    assert (html / "04_attacks_on_maps.html").stat().st_size < 1_500_000


def test_readme_says_of_start_and_images_what_the_records_say():
    by_family = {record.family: record for record in records.read_all(ROOT / "results")}

    def accuracy(kind, method, **chosen):
        (row,) = (
            row
            for row in by_family[f"{kind}-mnist-small-released"].rows
            if {"method": method, "eps": 0.35, "steps": 200, **chosen}.items() <= row.items()
        )
        return f"{row['accuracy']:.3f}"

    from_x = [accuracy("pgd", method) for method in ("Int", "Int-Adv", "Adv")]
    random = [accuracy("starts", method, starts=1) for method in ("Int", "Int-Adv")]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        "leaves Int {} and Int-Adv {} of the images at ε = 0.35, where adversarial training has {}".format(*from_x)
        in text
    )
    assert "it leaves them {} and {}".format(*random) in text
    many = {r["method"]: r["accuracy"] for r in by_family["many-cifar10-small-released"].rows if r["eps"]}
    found = orderings.findings(compare.compare(by_family.values(), "many"), network="CIFAR-10 Small", images=2000)
    (below,) = (f for f in found if f.statement.better == "Int" and f.statement.worse == ("Adv",))
    assert below.paired and below.verdict == "no"
    said = "2,000 images put Int below, at {:.3f} against {:.3f} (image by image {:.3f} ± {:.3f})"
    assert said.format(many["Int"], many["Adv"], -below.difference, below.error) in text
    ours = {r["method"]: r["accuracy"] for r in by_family["many-cifar10-small-ours"].rows if r["eps"]}
    said = "it keeps {:.3f} and {:.3f} of 2,000 images, where Int keeps {:.3f} and {:.3f}; one seed"
    assert said.format(*(of[method] for method in ("IG-Norm", "Int") for of in (many, ours))) in text


def test_readme_shows_the_figures_of_the_landing_page():
    text, shown = (ROOT / "README.md").read_text(encoding="utf-8"), []
    for cell in nbformat.read(ROOT / "book/index.ipynb", 4).cells:
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            (picture,) = (out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {}))
            path = f"book/static/{figure['name'].removeprefix('fig-')}.png"
            assert f"]({path})" in text and (ROOT / path).read_bytes() == base64.b64decode(picture)
            shown.append(path)
    assert len(shown) == 2


def test_readme_counts_are_the_records():
    cells = compare.compare(records.read_all(ROOT / "results"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        f"| {r['table']}, {r['model']} | {r['copy']} | {r['values']} | {r['exact']} | {r['one image']} "
        f"| {r['close']} | {r['other']} | {r['mean |diff|']:.3f} |"
        for r in compare.counts(cells)
    ]
    assert rows
    assert "\n".join(rows) in text
    measured = sum(r["values"] for r in compare.counts(cells))
    assert f"These {measured}," in text
    number = lambda value: "–" if value is None else f"{value:.3f}"
    ours = [
        f"| {r['table']}, {r['model']} | {r['copy']} | {r['values']} | {r['mean |diff|']:.3f} "
        f"| {number(r['to released'])} | {number(r['spread'])} |"
        for r in compare.counts(cells, "ours")
    ]
    assert "\n".join(ours) in text
    assert f"for {sum(cell.ours is not None for cell in cells)} values so far" in text
    count = len(networks.available(ROOT / "networks"))
    assert f"{count} networks" in text
    landing = nbformat.read(ROOT / "book/index.ipynb", 4)
    assert any(f"{measured} of the {len(cells)} are" in cell.source for cell in landing.cells)
