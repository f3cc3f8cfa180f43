"""Definitions of terms: what is marked on a page, what it says, and how a reader opens and closes it."""

import re
from html import unescape

import pytest
from browser import Keys, open_page, requires_browser
from conftest import ROOT
from docutils import nodes
from docutils.core import publish_doctree

from interp_lib.pages import terms

NOTATION = (ROOT / "book/notation.md").read_text(encoding="utf-8")
WORDS = {"Int": "the method", "Int-Adv": "another", "complete": "adds up", "CAM": "a map", "trained here": "by us"}


def marked(text):
    """The terms that are marked in a text in reStructuredText, and the classes of each."""
    doctree = publish_doctree(text, settings_overrides={"report_level": 5})
    terms.mark(doctree, WORDS)
    return [(node.astext(), node["classes"]) for node in doctree.findall(nodes.inline)], doctree


def test_the_first_use_in_running_text_is_marked_and_the_text_is_as_before():
    text = "Title of Int\n============\n\n``Int`` and `Int <x.html>`_ and Interpreters. Int-Adv, *Int*, Int again."
    found, doctree = marked(text)
    assert found == [("Int-Adv", ["term", "term-int-adv"]), ("Int", ["term", "term-int"])]
    assert doctree.astext() == publish_doctree(text).astext()


@pytest.mark.parametrize(
    "text, found",
    [
        ("Complete maps, a complete map", ["Complete"]),
        ("completely, incomplete and non-complete", []),
        ("of the CAMs, a CAM", ["CAMs"]),
        ("int and cam", []),
        ("networks trained\nhere", ["trained\nhere"]),
        ("Int’s maps", ["Int"]),
        (".. figure:: x.png\n\n   Int in a caption", []),
        ("=== ===\nInt CAM\n=== ===\n1   2\n=== ===\n", []),
        ("* Int\n* Int", ["Int"]),
        (".. container:: dropdown\n\n   Int in an answer", []),
        ("::\n\n   Int in code", []),
    ],
)
def test_what_is_marked(text, found):
    assert [word for word, _ in marked(text)[0]] == found


def test_formulas_of_definitions_become_text_or_are_refused():
    assert terms.plain(r"1.6\,\varepsilon^*") == "1.6\u202fε*" and terms.plain("x'") == "x′"
    for formula in (r"\frac{1}{2}", "x_i", r"\alpha"):
        with pytest.raises(ValueError, match="cannot have the formula"):
            terms.plain(formula)


def test_every_marked_term_of_a_page_has_the_definition_of_the_glossary(built_book):
    seen = set()
    # As text: without the marks of code and emphasis, and with formulas as letters.
    entries = re.findall(r"^\*\*(.+)\*\*\n: (.+)$", NOTATION, re.M)
    written = {name: text for names, text in entries for name in names.split(", ")}
    assert len(written) > 25
    for path in built_book.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        used = re.findall(r'<span class="term ([\w-]+)">', page)
        shown = re.findall(r'<div role="tooltip" class="term-definition" id="([\w-]+)" hidden>(.+)</div>', page)
        assert sorted(used) == sorted(key for key, _ in shown) and len(set(used)) == len(used), path.stem
        for _, definition in shown:
            name, _, text = unescape(re.sub("<[^>]+>", "", definition)).partition(": ")
            words = lambda t: re.findall(r"[A-Za-z]{3,}", t.replace(r"\varepsilon", ""))
            assert words(text) == words(written[name]) and not re.search(r"[\\$]", text)
            seen.add(name)
    assert not re.search('class="term ', (built_book / "notation.html").read_text(encoding="utf-8"))
    assert {"Int", "TRADES", "Small", "Pool", "Repr", "NDS", "NSL", "ISA", "AAI"} <= seen
    assert seen >= set(written) - {"all-class", "Chen-IG-Norm"} - {"IG-Norm-Sum"}


# What a browser shows


def shown(page):
    return [element for element in page.select(".term-definition") if element.is_displayed()]


# Pictures load as the reader comes near, so both heights are taken before one can.
FOCUS = """
    const height = () => document.documentElement.scrollHeight;
    arguments[0].scrollIntoView({block: "center", behavior: "instant"});
    const before = height();
    arguments[0].focus({preventScroll: true});
    return height() - before"""
# How far a definition is from its term, above or below; negative where it lies on it.
GAP = """
    const [term, box] = [arguments[0].getClientRects()[0], arguments[1].getBoundingClientRect()];
    return Math.max(box.top - term.bottom, term.top - box.bottom)"""


@requires_browser
@pytest.mark.parametrize("width", [1300, 390])
def test_definitions_open_at_focus_and_close_and_nothing_moves(built_book, width):
    with open_page(built_book / "04_attacks_on_maps.html", width=width) as page:
        found = page.select("article .term")
        assert len(found) > 4 and not shown(page)
        for term in found:
            assert page.driver.execute_script(FOCUS, term) == 0
            (definition,) = shown(page)
            assert term.get_attribute("aria-describedby") == definition.get_attribute("id")
            assert term.get_attribute("role") == "button" and term.get_property("tabIndex") == 0
            name = definition.find_element("css selector", "strong").text
            assert term.text.rstrip("s").lower() == name.rstrip("s").lower()
            left, right = definition.rect["x"], definition.rect["x"] + definition.rect["width"]
            assert left >= 0 and right <= width
            page.wait(lambda t=term, d=definition: -1 <= page.driver.execute_script(GAP, t, d) < 40)
            assert page.overflow() <= 0
        found[-1].send_keys(Keys.ESCAPE)
        assert not shown(page)
        found[-1].send_keys(Keys.ENTER)
        assert len(shown(page)) == 1
        found[-1].send_keys(Keys.SPACE)
        assert not shown(page)


@requires_browser
def test_definitions_open_under_the_mouse_and_at_a_tap(built_book):
    move = lambda page, kind, x, y: page.driver.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
    )
    middle = "const r = arguments[0].getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]"
    with open_page(built_book / "04_attacks_on_maps.html") as page:
        term = page.select("article .term")[0]
        page.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", term)
        move(page, "mouseMoved", *page.driver.execute_script(middle, term))
        (definition,) = page.wait(lambda: shown(page))
        move(page, "mouseMoved", *page.driver.execute_script(middle, definition))  # a reader may move onto it
        page.driver.execute_async_script("setTimeout(arguments[0], 400)")
        assert shown(page) == [definition]
        move(page, "mouseMoved", 5, 5)
        page.wait(lambda: not shown(page))
    with open_page(built_book / "04_attacks_on_maps.html", width=390) as page:
        term = page.select("article .term")[0]
        page.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", term)
        tap = lambda x, y: [
            page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", []))
        ]
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        tap(*page.driver.execute_script(middle, term))
        assert page.wait(lambda: len(shown(page)) == 1)
        tap(*page.driver.execute_script(middle, page.select("article h1")[0]))
        page.wait(lambda: not shown(page))
