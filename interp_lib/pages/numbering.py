"""A Sphinx extension that numbers figures and tables by chapter.

The third figure of `07_robustness` is Fig. 7.3, so that no number of this book can be taken for one of the paper's,
Figure 3. Tables are numbered in the same way, except those whose caption says which table of the paper they are.
"""

import re

from docutils import nodes
from sphinx.addnodes import document
from sphinx.application import Sphinx

CAPTION = '<figcaption class="table-caption">'
OF_THE_PAPER = re.compile(r"Table \w+ of the paper, ")


def chapter_number(docname: str) -> int:
    """Return the number at the beginning of a chapter's file name, 0 for a page without one."""
    number = re.match(r"(?:.*/)?(\d+)_", docname)
    return int(number[1]) if number else 0


def number_figures(app: Sphinx, env) -> list[str]:
    """Number the figures of every page anew, chapter.figure. Sphinx counts them through the whole book."""
    for docname, kinds in env.toc_fignumbers.items():
        chapter = chapter_number(docname)
        for count, identifier in enumerate(kinds.get("figure", {}), start=1):
            kinds["figure"][identifier] = (chapter, count)
    return []


def number_tables(app: Sphinx, doctree: document, docname: str) -> None:
    """Put chapter.table before the captions of tables that are not the paper's."""
    count = 0
    for raw in doctree.findall(nodes.raw):
        if CAPTION not in raw.astext():
            continue
        before, _, caption = raw.astext().partition(CAPTION)
        if not OF_THE_PAPER.match(caption):
            count += 1
            label = f'<span class="caption-number">Table {chapter_number(docname)}.{count} </span>'
            raw.children = [nodes.Text(before + CAPTION + label + caption)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-get-updated", number_figures, priority=900)  # after Sphinx has counted
    app.connect("doctree-resolved", number_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
