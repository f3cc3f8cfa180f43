"""The values of a chapter's tables, beside the executed chapter."""

import csv
import io

import nbformat
import pytest
from conftest import ROOT

from interp_lib.pages import tables
from interp_lib.pages.tables_as_csv import COLUMNS, as_csv


def notebook_of(*shown):
    outputs = [nbformat.v4.new_output("display_data", {"text/html": each}) for each in shown]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])


def rows_of(notebook):
    return list(csv.DictReader(io.StringIO(as_csv(notebook))))


def test_every_line_of_every_cell_is_a_row():
    table = tables.Table(
        ["method", "ε = 0", "a, b"],
        [
            ["Int & <co>", [("0.790", "printed"), ("0.785", "measured"), ("−0.005", "difference")], "plain"],
            ["Adv", [("0.8", "ours"), ("±0.1", "spread")], ""],
        ],
        "a note",
        caption='Table 3 of the "paper".',
    )
    found = [tuple(row[key] for key in COLUMNS[1:]) for row in rows_of(notebook_of(table._repr_html_(), "<p>5</p>"))]
    assert found == [
        ("Int & <co>", "ε = 0", "printed", "0.790"),
        ("Int & <co>", "ε = 0", "released", "0.785"),
        ("Int & <co>", "ε = 0", "difference", "-0.005"),
        ("Int & <co>", "a, b", "", "plain"),
        ("Adv", "ε = 0", "trained here", "0.8"),
        ("Adv", "ε = 0", "spread", "±0.1"),
    ]
    assert {row["table"] for row in rows_of(notebook_of(table._repr_html_()))} == {'Table 3 of the "paper".'}


def test_a_notebook_without_a_table_has_none():
    assert as_csv(notebook_of("<p>no table</p>")) == ""


@pytest.mark.parametrize("name", ["07_robustness", "17_what_holds", "08_unforeseen_attacks", "22_index_of_results"])
def test_no_value_of_a_chapter_is_lost(name):
    notebook = nbformat.read(ROOT / f"book/{name}.ipynb", 4)
    shown = [out["data"].get("text/html", "") for c in notebook.cells for out in c.get("outputs", []) if "data" in out]
    shown = ["".join(text) for text in shown if "book-table" in "".join(text)]
    rows = rows_of(notebook)
    assert len({row["table"] for row in rows}) == len(shown)
    assert all(row["row"] and row["column"] and row["value"] for row in rows)
    # Cells without lines of their own, and lines, each once.
    plain = sum(text.count("<td>") - text.count("<td><div") - text.count("<td></td>") for text in shown)
    lines = sum(text.partition("<tbody>")[2].count('<div class="') for text in shown)
    names = sum(
        row.count("<div")
        for text in shown
        for row in text.split('<th scope="row">')[1:]
        for row in [row.split("</th>")[0]]
    )
    blank = sum(text.count('">&nbsp;</div>') + text.count('"></div>') for text in shown)
    assert len(rows) == plain + lines - names - blank
