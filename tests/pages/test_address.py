"""What follows from the repository's address, and that nothing leads nowhere without one."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from sphinx_book_theme.header_buttons import launch

from interp_lib.pages import address

CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
HERE = "https://github.com/someone/a-fork"


def test_the_citation_has_the_address_of_the_configuration():
    assert yaml.safe_load(CITATION).get("repository-code", "") == address.repository(ROOT)


def test_an_address_is_written_into_the_citation_and_taken_out_again():
    there = address.cited(CITATION, HERE)
    assert yaml.safe_load(there) == {**yaml.safe_load(CITATION), "repository-code": HERE}
    assert address.cited(there, HERE) == there and address.cited(there, "https://a.b/c").count("repository-code") == 1
    assert address.cited(there, "") == address.cited(CITATION, "")


def test_the_bibliography_names_the_address():
    page = (ROOT / "book/references.md").read_text(encoding="utf-8")
    assert address.bibliography(page, "") == page
    ours = address.bibliography(page, HERE).partition("@software{")[2]
    assert f"url       = {{{HERE}}}," in ours and address.bibliography(page, HERE).count(HERE) == 1


@pytest.mark.parametrize(
    "where, buttons",
    [
        ("", set()),
        (HERE, {"repository", "edit_page", "issues", "launch"}),
        ("https://gitlab.example.org/a/b", {"repository", "edit_page", "issues", "launch"}),
        ("https://bitbucket.org/a/b", {"repository", "edit_page"}),
        ("https://code.example.org/a/b", {"repository"}),
    ],
)
def test_buttons_are_those_that_the_theme_can_make_of_an_address(where, buttons):
    found = {re.sub("^use_|_buttons?$", "", name) for name, value in address.options(where).items() if value}
    assert found == buttons


def test_binder_opens_the_page_that_is_read(monkeypatch):
    theme = {**address.options(HERE), "repository_url": HERE, "repository_branch": "main"}
    context = {"header_buttons": [], "sourcename": "book/03_discrepancy.ipynb", "github_url": "https://github.com"}
    context |= {"github_user": "someone", "github_repo": "a-fork"}
    monkeypatch.setattr(launch, "_is_notebook", lambda app, context: True)
    app = SimpleNamespace(
        env=SimpleNamespace(doc2path=lambda name: f"{name}.ipynb"), config={"html_theme_options": theme}
    )
    launch.add_launch_buttons(app, "book/03_discrepancy", "page.html", context, None)
    (button,) = context["header_buttons"][0]["buttons"]
    assert button["url"] == (
        "https://mybinder.org/v2/gh/someone/a-fork/main?urlpath=lab/tree/book/03_discrepancy.ipynb"
    )


def test_without_an_address_pages_offer_no_repository(built_book):
    if address.repository(ROOT):
        pytest.skip("the repository has an address")
    for path in built_book.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert "source-repository-button" not in page and "mybinder" not in page and "launch-buttons" not in page


def test_a_downloaded_notebook_says_first_what_it_needs(built_book):
    notebooks = list(built_book.parent.glob("_sources/book/*.ipynb"))
    assert len(notebooks) >= len(list((ROOT / "book").glob("*.ipynb")))
    for path in notebooks:
        first, *others = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "".join(first["source"])
        assert first["cell_type"] == "markdown" and "pip install" in text and "train --profile digits" in text
        committed = json.loads((ROOT / f"book/{path.name}").read_text(encoding="utf-8"))["cells"]
        assert [cell["source"] for cell in others] == [cell["source"] for cell in committed]
    assert f"git+{HERE}" in address.first_cell(HERE, "a book") and "git+" not in address.first_cell("", "a book")
