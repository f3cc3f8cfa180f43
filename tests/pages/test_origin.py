"""Where a page comes from: the line at its foot, and the description of a chapter's run behind it."""

import json
import re
import subprocess
from html import unescape

import nbformat
import pytest
import torch
from conftest import ROOT

import interp_lib
from interp_lib import data, storage
from interp_lib.pages import chapters, origin

RUN = {
    "commit": "0123456789ab",
    "date": "2026-01-02",
    "versions": {"python": "3.11.1", "torch": "2.6", "numpy": "2.0"},
    "device": "x86_64, 1 threads",
    "profile": "digits",
    "data": ["Digits <1>"],
}


def test_every_built_page_says_where_it_comes_from(built_book):
    pages = [*built_book.rglob("*.html"), built_book.parent / "search.html"]
    assert len(pages) > 30
    for path in pages:
        (line,) = re.findall(r'<p class="origin">(.*?)</p>', path.read_text(encoding="utf-8"))
        words = unescape(re.sub("<[^>]+>", "", line))
        assert re.match(rf"Built \d{{4}}-\d\d-\d\d by interp_lib {re.escape(interp_lib.__version__)}\b", words), path
        commit = storage.commit(*origin.BOOK)
        assert not commit or f", commit {commit}" in words or f", commit {commit}-dirty" in words
        assert ("committed with the chapter" in words) == (ROOT / f"book/{path.stem}.ipynb").exists()


def test_what_a_page_is_made_of_is_in_the_repository():
    if storage.commit() is None:
        pytest.skip("needs a checkout")
    command = ["git", "ls-files", "--error-unmatch", *origin.BOOK]
    assert subprocess.run(command, cwd=ROOT / "interp_lib", capture_output=True, check=False).returncode == 0


def test_a_run_is_described_by_what_it_loaded_and_ran_on():
    digits = data.load("digits")
    for code in ('x = data.load("digits")', "x = setting.load_data().test", "data.load(setting.dataset)"):
        run = origin.of_run(1.0, ["import torch", code], {})
        assert run["data"] == [f"{digits.title} ({digits.copy}, test set sha256 {digits.fingerprint[:12]})"]
    assert run["profile"] == "digits" and run["version"] == interp_lib.__version__
    assert run["versions"]["torch"] == torch.__version__ and "threads" in run["device"]
    assert run["commit"] == storage.commit(*origin.BOOK)
    assert origin.of_run(1.0, ["records_for(False)"], {"profile": "paper"})["data"] == []
    assert json.loads(json.dumps(run)) == run


def test_the_line_names_a_commit_once_and_links_it_where_the_repository_is_known():
    line = origin.sentence(RUN, "0123456789ab", "2026-03-04")
    assert line == (
        f"Built 2026-03-04 by interp_lib {interp_lib.__version__}, commit <code>0123456789ab</code>. Executed "
        "2026-01-02; Python 3.11.1, PyTorch 2.6, NumPy 2.0; x86_64, 1 threads; profile digits; Digits &lt;1&gt;."
    )
    other = origin.sentence(RUN, "feed-dirty", "2026-03-04", "https://example.org/a/b/")
    assert '<a href="https://example.org/a/b/commit/feed"><code>feed-dirty</code></a>. Executed' in other
    assert 'commit/0123456789ab"><code>0123456789ab</code></a>; Python' in other
    assert origin.sentence(None, None, "2026-03-04") == f"Built 2026-03-04 by interp_lib {interp_lib.__version__}."


def test_the_date_of_a_build_can_be_that_of_its_source(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert origin.build_date() == "1970-01-02"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert origin.build_date() > "2025"


@pytest.mark.parametrize("in_place", [False, True])
def test_an_executed_chapter_describes_its_run_and_a_committed_one_does_not(in_place, tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('profile = "digits"')])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for folder in ("book", "profiles"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "profiles/digits.yml").write_bytes((ROOT / "profiles/digits.yml").read_bytes())
    nbformat.write(notebook, tmp_path / "book/page.ipynb")
    monkeypatch.chdir(tmp_path)
    path = chapters.execute("page", {"profile": "digits"}, in_place=in_place)
    described = nbformat.read(path, 4).metadata.get(origin.KEY)
    assert (described is None) == in_place
    assert in_place or (described["profile"] == "digits" and described["data"] == [] and described["seconds"] > 0)
