"""A Sphinx extension for the book's reference: docstrings become pages, and names of functions become links.

autodoc reads the docstrings and napoleon their sections. `prepare` comes before napoleon, because our docstrings are
plain text: formulas are indented, and `|`, `*` and `_` are mathematics. `link` turns `attacks.pgd`, in a chapter or in
a docstring, into a link to its entry.
"""

import importlib
import re
import sys
from functools import cache

from docutils import nodes
from sphinx.addnodes import document
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

import interp_lib

SECTION = re.compile("(Args|Attributes|Raises|Returns|Yields):")


def prepare(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring in place: formulas as literal blocks, `code` as code, all else without markup."""
    prepared, section, formula = [], False, False
    for line in [] if what == "data" else lines:  # the docstring of a constant is that of dict or tuple
        if line and not line[0].isspace():
            section, formula = bool(SECTION.fullmatch(line)), False
        if line.startswith("    ") and not section:
            prepared += [line] if formula else ["::", "", line]
            formula = True
        else:
            # As a field, since napoleon would take what stands before a colon for a type.
            prepared.append(":returns:" if line == "Returns:" else literal_text(line))
    lines[:] = prepared


def literal_text(line: str) -> str:
    """Escape what reStructuredText would take for markup, except bullets, and mark `code` and ``code`` as code."""
    match = re.fullmatch(r"(\s*\* )?(.*)", line)
    assert match is not None  # any line without a line break matches
    bullet, text = match.groups(default="")
    parts = re.split(r"`+([^`]+)`+", text)
    parts[::2] = (re.sub(r"[\\*|]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2])
    parts[1::2] = (f"``{part}``" for part in parts[1::2])
    return bullet + "".join(parts)


@cache
def entries(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Return where each documented object has its entry, (page, anchor), under every name that leads to it alone.

    `interp_lib.training.METHODS` is also `interp_lib.training.methods.METHODS`; each of the two may lack components at
    its beginning, down to METHODS.
    """
    places: dict[str, set[tuple[str, str]]] = {}
    for name, entry in app.env.get_domain("py").objects.items():
        names, (owner, _, last) = {name}, name.rpartition(".")
        if entry.objtype in ("class", "data", "exception", "function"):
            shown = getattr(importlib.import_module(owner), last)
            modules = [module for key, module in sys.modules.items() if key.startswith("interp_lib.")]
            names |= {f"{module.__name__}.{last}" for module in modules if vars(module).get(last) is shown}
        for full in names:
            parts = full.split(".")
            for start in range(len(parts)):
                places.setdefault(".".join(parts[start:]), set()).add((entry.docname, entry.node_id))
    return {name: place for name, (place, *others) in places.items() if not others}


def link(app: Sphinx, doctree: document, docname: str) -> None:
    """Turn code that is the name of a documented object into a link.

    In a chapter a bare word links only if `interp_lib` itself exports it: `choose` may be something else there.
    """
    for code in list(doctree.findall(nodes.literal)):
        name = code.astext()
        bare = "." not in name and not docname.startswith("book/api/") and name not in interp_lib.__all__
        if name in entries(app) and not bare and not isinstance(code.parent, nodes.reference):
            page, anchor = entries(app)[name]
            code.replace_self(make_refnode(app.builder, docname, page, anchor, code.deepcopy(), anchor))


def name_default(app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str):
    """Write `=cam` for `=<function cam>`, which would keep the signature from being set line by line."""
    return signature and re.sub(r"<function (\w+)>", r"\1", signature), returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", prepare, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", name_default)
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
