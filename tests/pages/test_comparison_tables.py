"""Tables of maps compared: the numbers of the committed records, found again without the code under test."""

import json

import pytest
from conftest import ROOT

from interp_lib.pages import comparison_tables as tables


def rows_of(name):
    (path,) = (ROOT / "results").glob(f"{name}-????????.json")
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def cell(table, row, column):
    lines = {line[0][0][0]: line for line in table.rows}
    return [text for text, _ in lines[row][table.columns.index(column)]]


def one(rows, **wanted):
    (found,) = [row for row in rows if wanted.items() <= row.items()]
    return found


@pytest.mark.parametrize(
    "value, error, text",
    [(None, None, "–"), (-0.126, 0.011, "−0.13 ± 0.01"), (0.5, None, "0.50"), (-0.001, 0, "−0.00 ± 0.00")],
)
def test_numbers_have_a_true_minus_sign(value, error, text):
    assert tables.number(value, error) == text


def test_agreement_and_its_change():
    rows = rows_of("agreement-mnist-small-released")
    table = tables.agreement_table(rows, grid="image", caption="c")
    row = one(rows, method="Adv", grid="image", input="PGD", interpreter="all pairs")
    assert table.columns == ["network", "x", "noise", "PGD", "AAI"] and len(table.rows) == 3
    shown = cell(table, "Adv", "PGD")
    assert shown[0] == f"{row['tau']:.3f} ± {row['se']:.3f}" and shown[1].startswith(f"(+{row['change']:.3f} ±")
    assert len(cell(table, "Adv", "x")) == 1 and "n = 200" in table.note


def test_stability():
    rows = rows_of("agreement-mnist-small-released")
    table = tables.stability_table(rows, kind="AAI", grid="CAM", caption="c")
    row = one(rows, method="Int", grid="CAM", input="AAI", interpreter="CAM", other="itself on x")
    assert cell(table, "CAM", "Int") == [f"{row['tau']:.2f} ± {row['se']:.2f}"] and len(table.rows) == 8


def test_sanity():
    rows = rows_of("sanity-mnist-small-released")
    table = tables.sanity_table(rows, layer="conv1", caption="c")
    row = one(rows, method="Int", layer="conv1", interpreter="IG", form="absolute")
    assert cell(table, "IG", "Int")[1] == f"{row['tau']:.2f} ± {row['se']:.2f}" and len(table.rows) == 7
    assert "first signed and then absolute" in table.note


def test_faithfulness():
    rows = rows_of("faithfulness-mnist-small-released")
    table = tables.faithfulness_table(rows, kinds=["x", "PGD"], caption="c")
    row = one(rows, method="Normal", input="PGD", rule="own", interpreter="IG")
    assert cell(table, "IG", "Normal")[1] == f"{row['deletion_gain']:.2f} ± {row['deletion_gain_se']:.2f}"
    assert [line[0][0][0] for line in table.rows][-1] == "brightness"
    stale = tables.stale_table(rows, kind="AAI", caption="c")
    row = one(rows, method="Adv", input="AAI", rule="of x", interpreter="CAM")
    assert cell(stale, "CAM", "Adv")[1] == tables.number(row["deletion_gain"], row["deletion_gain_se"])


def test_sneaking_beside_print():
    each = {"squared_score": False, "nds": 2.0, "nds_se": 0.25, "nsl": 0.0125, "nsl_se": 0.002, "n": 9, "measured": 10}
    rows = [{"interpreter": "IG", "measure": "l1:1-class"} | each]
    own = [{"interpreter": "IG (ReLU)", "measure": "l2:2-class"} | each | {"nds": None}]
    table = tables.sneaking_table("IG", rows, own, names=("softplus", "ReLU"), caption="c")
    assert cell(table, "l1:1-class", "softplus") == ["2.00 ± 0.25", "0.0125 ± 0.0020", "9 of 10"]
    assert cell(table, "l1:1-class", "ReLU") == cell(table, "l2:2-class", "ReLU") == ["–"]
    printed = cell(table, "l1:2-class", "printed")
    assert printed == ["6.7884", "0.0233"] and len(table.rows) == 6
