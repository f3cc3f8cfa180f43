"""A gallery: each figure is that of its own parameters, and its command repeats it."""

import base64
import io
import shlex

import matplotlib.pyplot as plt
import nbformat
import pytest
from conftest import ROOT

from interp_lib.pages import chapters, gallery
from interp_lib.pages.parameters import ParameterError

COLOUR = """
import io
import matplotlib.pyplot as plt
from IPython.display import Image
drawn = io.BytesIO()
plt.figure(figsize=(1, 1), facecolor=(eps, 0, 0)).savefig(drawn, format="png")
Image(drawn.getvalue())
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with one chapter: a red figure, as bright as eps, and a cell after it that fails."""
    cells = [nbformat.v4.new_code_cell(text) for text in ("eps = 0.1", COLOUR, "1 / 0")]
    cells[0].metadata["tags"] = ["parameters"]
    cells[1].metadata["mystnb"] = {"figure": {"name": "fig-red"}}
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for folder in ("book", "profiles"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").touch()
    nbformat.write(notebook, tmp_path / "book/page.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_figure_is_that_of_its_parameters(clone):
    before = (clone / "book/page.ipynb").read_bytes()
    found = gallery.side_by_side("page", "fig-red", [{"eps": 0.2}, {"eps": "4/5"}])
    reds = [plt.imread(io.BytesIO(base64.b64decode(run.png)))[0, 0, 0] for run in found.runs]
    assert reds == pytest.approx([0.2, 0.8], abs=0.01)  # 8 bits a colour
    assert [run.title for run in found.runs] == ["eps = 0.2", "eps = 4/5"]
    assert (clone / "book/page.ipynb").read_bytes() == before
    page = found._repr_html_()
    assert page.count("<figure>") == page.count('loading="lazy"') == 2 and 'alt="eps = 0.2' in page


def test_what_a_chapter_does_not_have_is_refused(clone):
    with pytest.raises(ValueError, match="no figure 'fig-blue'; it has fig-red"):
        gallery.side_by_side("page", "fig-blue", [{"eps": 0.2}])
    with pytest.raises(ParameterError, match="no parameter epsilon"):
        gallery.side_by_side("page", "fig-red", [{"epsilon": 0.2}])
    with pytest.raises(ParameterError, match="eps must be a number in"):
        gallery.side_by_side("page", "fig-red", [{"eps": 8}])


def test_a_command_gives_the_parameters_back():
    given = {"method": "Int", "image": "my cat.png", "eps": "8/255"}
    words = shlex.split(gallery.command("a_chapter", given, "paper").replace("\\\n", ""))
    assert words[:4] == ["python", "-m", "interp_lib", "chapter"] and words[5:7] == ["--profile", "paper"]
    assert dict(chapters.parse_parameter(word) for word in words[8::2]) == given
    assert gallery.command("a_chapter", {}) == "python -m interp_lib chapter a_chapter"


def test_the_gallery_of_the_book_shows_three_sets():
    notebook = nbformat.read(ROOT / "book/31_gallery.ipynb", 4)
    (shown,) = ("".join(out.data["text/html"]) for c in notebook.cells for out in c.get("outputs", []))
    pictures = [part.partition('"')[0] for part in shown.split("base64,")[1:]]
    assert len(set(pictures)) == len(pictures) == 3
