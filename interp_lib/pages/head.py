"""A Sphinx extension: what a page tells those who do not look at it, as search engines, link previews, screen readers.

Every page gets a description and the tags of Open Graph (https://ogp.me), every picture a text, and pictures are
loaded when the reader comes near them. What only a script can mend is in book/static/access.js.
"""

import json
import re
from binascii import a2b_base64
from hashlib import sha256
from html import escape
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.addnodes import document
from sphinx.application import Sphinx

PICTURE = "_static/agreement.png"
PICTURE_SHOWS = "Values measured here against the values that the paper prints: most lie on the line of equal values"
NAMED_BY = {nodes.figure: nodes.caption, nodes.section: nodes.title}
LENGTH = 200  # characters of a description; search engines show about 160


def notebook_descriptions(path: Path) -> dict[str, str]:
    """Return the descriptions that `style.use_style` stored with a notebook's figures, by the SHA-256 of the PNG.

    MyST-NB names the file of a figure by that digest, and reads no description from an output.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.suffix == ".ipynb" else []
    shown = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return {
        sha256(a2b_base64("".join(output["data"]["image/png"]))).hexdigest(): text
        for output in shown
        if (text := output.get("metadata", {}).get("image/png", {}).get("alt"))
    }


def prepare_pictures(app: Sphinx, doctree: document, docname: str) -> None:
    """Give every picture that has none a text: its description, else its caption, else the heading above it."""
    described = notebook_descriptions(Path(app.env.doc2path(docname)))
    for image in doctree.findall(nodes.image):
        image["loading"] = "lazy"
        if not image.get("alt"):
            names = [node.next_node(NAMED_BY[type(node)]) for node in _ancestors(image) if type(node) in NAMED_BY]
            texts = [described.get(PurePosixPath(image["uri"]).stem, ""), *(name.astext() for name in names if name)]
            image["alt"] = next(filter(None, texts), docname)


def name_links(app: Sphinx, doctree: document, docname: str) -> None:
    """Give a link that shows nothing but a formula the formula's text as its name."""
    for link in doctree.findall(nodes.reference):
        formula = link.next_node(nodes.math)
        if formula and formula.astext() == link.astext().strip():
            link["reftitle"] = formula.astext()


def mend(body: str) -> str:
    """Mend what Sphinx and pandas write and no screen reader understands.

    docutils gives works of a list a role that no longer exists, pandas calls an empty corner a heading, Sphinx sets the
    parameters of a signature as descriptions of nothing, a theorem may have the id of its section, and MyST-NB names
    what opens a folded cell otherwise than its text does.
    """
    body = body.replace(' aria-label="Toggle hidden content"', "")
    body = re.sub(r"<th[^>]*></th>", "<td></td>", body.replace('role="doc-biblioentry"', 'role="listitem"'))
    body = re.sub(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>", r'<div class="parameters">\n\1</div>', body)
    body = re.sub(r"<dd>(<em class=\"sig-param\".*)</dd>", r'<div style="margin-left: 2em">\1</div>', body)
    seen: set[str] = set()

    def once(found: re.Match) -> str:
        repeated = found[1] in seen
        seen.add(found[1])
        return "" if repeated else found[0]

    return re.sub(r' id="([^"]+)"', once, body)


def describe_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: document | None) -> None:
    """Add a description and the tags of Open Graph to a page's head, and mend its body.

    The picture's address is complete where `html_baseurl` says where the book is published, as Open Graph wants it.
    """
    if doctree is None:  # the search page, the index
        return
    context["body"] = mend(context["body"])
    base = app.config.html_baseurl
    tags = {
        "description": description(doctree) or context["title"],
        "og:type": "article",
        "og:site_name": app.config.html_title or app.config.project,
        "og:title": next(iter(doctree.findall(nodes.title)), nodes.title("", pagename)).astext(),
        "og:image": f"{base.rstrip('/')}/{PICTURE}" if base else context["pathto"](PICTURE, 1),
        "og:image:alt": PICTURE_SHOWS,
    }
    tags["og:description"] = tags["description"]
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<meta {"property" if ":" in name else "name"}="{name}" content="{escape(text)}">\n'
        for name, text in tags.items()
    )


def description(doctree: document) -> str:
    """Return the first paragraph without formulas, less its bold lead, cut at a word where it is longer than LENGTH.

    A chapter begins with a box of three lines, of which the first says what it is about.
    """
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section | nodes.list_item) and not paragraph.next_node(nodes.math):
            parts = [child for child in paragraph.children if child.astext()]
            parts = parts[isinstance(parts[0], nodes.strong) :]
            text = " ".join("".join(part.astext() for part in parts).split())
            return text if len(text) <= LENGTH else text[:LENGTH].rpartition(" ")[0].rstrip(",;:") + " …"
    return ""


def _ancestors(node: nodes.Node):
    while node := node.parent:
        yield node


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", prepare_pictures)
    app.connect("doctree-resolved", name_links)
    app.connect("html-page-context", describe_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
