"""A Sphinx extension that shows what a term means where a page first uses it.

The glossary is `book/notation.md`: its definition lists are read at build time, and are the one place for definitions.
An entry in lower case is a word of English, found in any case; all others are names, found as they are written.
`book/static/terms.js` shows a definition beside its term, by mouse, keyboard or touch.
"""

import re
from html import escape

from docutils import nodes
from sphinx.addnodes import document
from sphinx.application import Sphinx

GLOSSARY = "book/notation"
MARK = "term"  # the class of a marked term
# Of a page's text, what is no running prose. Outputs of cells are `container`s with the class cell_output.
NO_PROSE = (nodes.reference, nodes.literal, nodes.FixedTextElement, nodes.math, nodes.raw, nodes.table, nodes.figure)
CLOSED = {"cell_output", "dropdown", "toggle"}
LETTERS = {r"\varepsilon": "ε", r"\gamma": "γ", r"\tau": "τ", r"\,": "\u202f", "^*": "*", "'": "′", r"\ell_1": "ℓ1"}


def plain(formula: str) -> str:
    """Return a short formula as text: ε* for `\\varepsilon^*`.

    Raises:
        ValueError: the formula has something that `LETTERS` does not know.
    """
    text = formula
    for latex, letter in LETTERS.items():
        text = text.replace(latex, letter)
    if re.search(r"[\\{}^_$]", text):
        raise ValueError(f"a definition that is shown beside its term cannot have the formula {formula!r}.")
    return text


def glossary(doctree: nodes.document) -> dict[str, str]:
    """Return the definition of each term of the glossary, as plain text; 'IG-Norm, IG-Norm-Sum' are two terms."""
    found = {}
    for item in doctree.findall(nodes.definition_list_item):
        leaves = item.next_node(nodes.definition).findall(lambda node: isinstance(node, nodes.Text))
        text = "".join(plain(leaf) if isinstance(leaf.parent, nodes.math) else leaf for leaf in leaves)
        for name in item.next_node(nodes.term).astext().split(", "):
            found[name] = " ".join(text.split())
    return found


def pattern(names) -> re.Pattern:
    """Return the pattern of any of these terms: whole, and not a part of a compound, as Int is of Int-Adv."""
    words = (
        f"(?i:{escaped})" if name.islower() else escaped + "s?" * name.isupper()
        for name in sorted(names, key=len, reverse=True)
        for escaped in [r"\s+".join(map(re.escape, name.split()))]
    )
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])")


def identifier(name: str) -> str:
    """Return the id of a term's definition on a page."""
    return f"{MARK}-" + re.sub("[^a-z0-9]+", "-", name.lower())


def mark(doctree: nodes.document, definitions: dict[str, str]) -> None:
    """Mark the first use of each term in the running text of a page."""
    wanted = {**definitions}
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if _inside(paragraph, NO_PROSE) or CLOSED & {
            c for above in _above(paragraph) for c in above.get("classes", ())
        }:
            continue
        for text in list(paragraph.findall(nodes.Text)):
            if wanted and not _inside(text, NO_PROSE):
                text.parent.replace(text, _marked(text, wanted))


def _marked(text: nodes.Text, wanted: dict[str, str]) -> list[nodes.Node]:
    """Return a text cut at the terms that are wanted in it, which are then wanted no longer."""
    parts, words, end = [], text.astext(), 0
    for match in pattern(wanted).finditer(words):
        found = " ".join(match[0].split())
        # 'Complete' is the word complete, CAMs are of the name CAM.
        name = next(n for n in (found, found.lower(), found[:-1], "") if n in wanted or not n)
        if name:
            del wanted[name]
            parts += [
                nodes.Text(words[end : match.start()]),
                nodes.inline("", match[0], classes=[MARK, identifier(name)]),
            ]
            end = match.end()
    return [*parts, nodes.Text(words[end:])]


def _above(node: nodes.Node):
    while node := node.parent:
        yield node


def _inside(node: nodes.Node, kinds) -> bool:
    return any(isinstance(above, kinds) for above in _above(node))


def mark_page(app: Sphinx, doctree: document, docname: str) -> None:
    """Mark the terms of a page, all pages but the glossary itself."""
    if docname != GLOSSARY and GLOSSARY in app.env.found_docs:
        mark(doctree, _definitions(app))


def _definitions(app: Sphinx) -> dict[str, str]:
    if not hasattr(app, "interp_lib_terms"):
        app.interp_lib_terms = glossary(app.env.get_doctree(GLOSSARY))
    return app.interp_lib_terms


def add_definitions(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: document | None) -> None:
    """Put the definitions of a page's marked terms behind its text, where the script finds them."""
    if doctree is None:
        return
    used = {node["classes"][1] for node in doctree.findall(nodes.inline) if MARK in node["classes"]}
    context["body"] += "".join(
        f'<div role="tooltip" class="term-definition" id="{identifier(name)}" hidden>'
        f"<strong>{escape(name)}</strong>: {escape(text)}</div>\n"
        for name, text in (_definitions(app) if used else {}).items()
        if identifier(name) in used
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", mark_page, priority=900)  # after names have become links
    app.connect("html-page-context", add_definitions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
