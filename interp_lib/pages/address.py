"""A Sphinx extension for what follows from the address of the repository, `repository.url` in `_config.yml`.

With an address, pages link to their source, to an edit, to an issue and to Binder, the bibliography names it, and the
first cell of a downloaded notebook installs the library from it. Without one there is none of this, and nothing that
leads nowhere. `python -m interp_lib.pages.address` (`make address`) writes it into CITATION.cff.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import interp_lib

from ..places import project_root, shown
from ..reading import read_yaml
from ..storage import write_atomically

if TYPE_CHECKING:  # writing CITATION.cff needs no Sphinx
    from sphinx.application import Sphinx
    from sphinx.config import Config

BINDER = "https://mybinder.org"
# Colab is left out: it opens a notebook alone, without the library and the networks that the notebook needs.
EDITABLE, LAUNCHED = ("github", "gitlab", "bitbucket"), ("github", "gitlab")
CITED = "repository-code:"


def repository(root: Path | None = None) -> str:
    """Return the address in `_config.yml` of a clone, by default of the one in use; '' for none."""
    return read_yaml((root or project_root()) / "_config.yml")["repository"]["url"] or ""


def options(address: str) -> dict[str, object]:
    """Return the theme's options for the buttons in the header of a page; {} without an address."""
    if not address:
        return {}
    known = lambda providers: any(provider in address.lower() for provider in providers)
    found: dict[str, object] = {"use_repository_button": True, "use_edit_page_button": known(EDITABLE)}
    found["use_issues_button"] = known(LAUNCHED)
    if known(LAUNCHED):
        found["launch_buttons"] = {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"}
    return found


def cited(text: str, address: str) -> str:
    """Return the text of CITATION.cff with the repository's address, or without any."""
    text = re.sub(rf"^{CITED}.*\n", "", text, flags=re.MULTILINE)
    return text.replace("license: ", f"{CITED} {address}\nlicense: ", 1) if address else text


def bibliography(text: str, address: str) -> str:
    """Return a page with the repository's address in the BibTeX entry of this reproduction."""
    return re.sub(r"(@software\{.*\n)", rf"\1  url       = {{{address}}},\n", text) if address else text


def first_cell(address: str, title: str) -> str:
    """Return the first cell of a downloaded notebook: what it needs, and how to get it."""
    wheel = f"interp_lib-{interp_lib.__version__}-py3-none-any.whl"
    source = f"interp_lib[book] @ git+{address}" if address else f"{wheel}[book]"
    where = (
        f" from [the repository]({address})" if address else "; the wheel is made by `pip wheel --no-deps .` in a clone"
    )
    return (
        f"*A page of* {title}.\n\n"
        f"It needs Python 3.11 or newer and the library `interp_lib` {interp_lib.__version__}{where}:\n\n"
        f'```bash\npython -m pip install "{source}" jupyterlab\n'
        "# where the page loads networks: trains them, in this notebook's folder\n"
        "python -m interp_lib train --profile digits\n```\n\n"
        "The default profile downloads no data.\n"
    )


def set_buttons(app: "Sphinx", config: "Config") -> None:
    """Show the buttons that follow from the address."""
    config.html_theme_options.update(options(config.html_theme_options.get("repository_url", "")))


def cite_repository(app: "Sphinx", docname: str, source: list[str]) -> None:
    if docname == "book/references":
        source[0] = bibliography(source[0], app.config.html_theme_options.get("repository_url", ""))


def introduce_notebooks(app: "Sphinx", exception: Exception | None) -> None:
    """Put the first cell into each notebook that the pages offer for download; the committed ones stay as they are."""
    text = first_cell(app.config.html_theme_options.get("repository_url", ""), app.config.html_title)
    for path in Path(app.outdir, "_sources").rglob("*.ipynb") if exception is None else ():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["cells"][0].get("id") != "needs":  # a page that was not written again has its cell
            cell = {"cell_type": "markdown", "id": "needs", "metadata": {}, "source": text.splitlines(keepends=True)}
            notebook["cells"].insert(0, cell)
            path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("config-inited", set_buttons)
    app.connect("source-read", cite_repository)
    app.connect("build-finished", introduce_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    citation = project_root() / "CITATION.cff"
    write_atomically(citation, cited(citation.read_text(encoding="utf-8"), repository()).encode())
    print(shown(citation))
