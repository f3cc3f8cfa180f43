"""A Sphinx extension that says at the foot of every page where the page comes from.

`of_run` describes a run of a chapter, for the metadata of the executed notebook; committed notebooks have none, so that
their outputs do not change with every run. The commit and the date of the build are added when the page is written.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import interp_lib

from .. import storage
from .profiles import load as load_profile

if TYPE_CHECKING:  # whoever executes a chapter needs no Sphinx
    from sphinx.addnodes import document
    from sphinx.application import Sphinx

KEY = "interp_lib"  # in a notebook's metadata
BOOK = (":(top)book", ":(top)_config.yml", ":(top)_toc.yml")  # what a page is made of, beside the package


def of_run(seconds: float, sources: Iterable[str], parameters: Mapping[str, object]) -> dict:
    """Describe a run of a chapter: commit, date, versions, device, seconds, profile and data.

    Args:
        seconds: duration of the run.
        sources: the chapter's code cells. Data are named where one of them loads data: a chapter that shows records
            alone has none.
        parameters: the values that the chapter ran with, where they are not its own.
    """
    code, profile = "\n".join(sources), load_profile(str(parameters.get("profile", "digits")))
    loaded = set(re.findall(r'data\.load\("(\w+)"\)', code))
    if re.search(r"\.load_data\(\)|data\.load\(setting\.dataset\)", code):
        loaded.add(profile.dataset)
    sets, device = [], "cpu"
    if loaded or "use_device(" in code:  # else PyTorch, which takes seconds, is not needed
        from .. import checks, data

        sets = [data.load(name) for name in sorted(loaded)]
        if "use_device(" in code:
            device = checks.use_device(str(parameters.get("device") or "") or None)
    return {
        **storage.provenance(seconds, device),
        "commit": storage.commit(*BOOK),
        "version": interp_lib.__version__,
        "profile": profile.name,
        "data": [f"{each.title} ({each.copy}, test set sha256 {each.fingerprint[:12]})" for each in sets],
    }


def sentence(run: Mapping | None, commit: str | None, today: str, repository: str = "") -> str:
    """Return a page's line as HTML: what built it, and for an executed chapter, what executed it.

    Args:
        run: what `of_run` returned, None for a page without a run of its own.
        commit: of the checkout that builds the page, None outside one.
        today: date of the build.
        repository: address of the repository, '' for none; commits link to it.
    """

    def linked(commit: str | None) -> str:
        if not commit:
            return ""
        name = f"<code>{escape(commit)}</code>"
        if repository:
            address = f"{repository.rstrip('/')}/commit/{commit.removesuffix('-dirty')}"
            name = f'<a href="{escape(address)}">{name}</a>'
        return f", commit {name}"

    text = f"Built {today} by interp_lib {interp_lib.__version__}{linked(commit)}."
    if run:
        versions = run["versions"]
        executed = f"Executed {run['date']}" + (linked(run["commit"]) if run["commit"] != commit else "")
        parts = [
            executed,
            f"Python {versions['python']}, PyTorch {versions['torch']}, NumPy {versions['numpy']}",
            run["device"],
            f"profile {run['profile']}",
            *run["data"],
        ]
        # What is already HTML is the first part.
        text += " " + "; ".join([parts[0], *map(escape, parts[1:])]) + "."
    return text


def run_of(path: Path) -> dict | None:
    """Return the description of the run that a notebook holds, None for another page and for a committed chapter."""
    if path.suffix != ".ipynb":
        return None
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get(KEY)


def build_date() -> str:
    """Return today's date, or that of SOURCE_DATE_EPOCH (reproducible-builds.org), where it is set."""
    return datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()), UTC).strftime("%Y-%m-%d")


def add_line(app: "Sphinx", pagename: str, templatename: str, context: dict, doctree: "document | None") -> None:
    """Put a page's line at its foot."""
    run = run_of(Path(app.env.doc2path(pagename))) if doctree is not None else None
    repository = app.config.html_theme_options.get("repository_url", "")
    line = sentence(run, storage.commit(*BOOK), build_date(), repository)
    if doctree is not None and run is None and app.env.doc2path(pagename).endswith(".ipynb"):
        line += " Its outputs are those committed with the chapter."
    context["theme_extra_footer"] = f'<p class="origin">{line}</p>'


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("html-page-context", add_line)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
