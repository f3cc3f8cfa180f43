"""Tables of maps compared: the numbers of the committed records, found again without the code under test."""

import itertools
import json
import re

import pytest
from conftest import ROOT

from interp_lib.pages import comparison_tables as tables
from interp_lib.study import maps_compared


def rows_of(name):
    paths = sorted((ROOT / "results").glob(f"{name}-????????.json"))
    return [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


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


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in line] for line in table.rows]


def test_agreement_and_its_change():
    rows = rows_of("agreement-mnist-small-released")
    table = tables.agreement_table(rows, grid="image")
    row = one(rows, method="Adv", grid="image", input="PGD", interpreter="all pairs")
    assert table.columns == ["network", "x", "noise", "PGD", "AAI"] and len(table.rows) == 3
    shown = cell(table, "Adv", "PGD")
    assert shown[0] == f"{row['tau']:.3f} ± {row['se']:.3f}" and shown[1].startswith(f"(+{row['change']:.3f} ±")
    assert len(cell(table, "Adv", "x")) == 1 and "n = 200" in table.note
    assert "released networks" in table.caption and table.caption.endswith("on the grid of the image.")
    assert "these, on the grid" in tables.agreement_table(rows, grid="CAM", on="these").caption


@pytest.mark.parametrize("measurement", ["agreement", "faithfulness"])
def test_captions_name_the_radius_of_the_records(measurement):
    (path,) = (ROOT / "results").glob(f"{measurement}-mnist-small-released-????????.json")
    (eps,) = re.findall(r'"eps": ([\d.]+)', path.read_text(encoding="utf-8"))
    assert tables.ATTACKED.endswith(f"ε = {eps}")


def test_pairs_of_maps():
    rows = rows_of("agreement-mnist-small-released")
    found = tables.pairs(rows, method="Int", kind="PGD")
    row = one(rows, method="Int", grid="CAM", input="PGD", interpreter="RISE", other="IG")
    assert len(found) == 8 * 7 / 2 and found["RISE", "IG"] == row["tau"]


def test_the_cam_agrees_with_no_map_of_pixels():
    rows = [
        {"method": "Adv", "input": "x", "grid": "CAM", "interpreter": one, "other": other, "tau": tau}
        for (one, other), tau in {
            **{pair: 0.9 for pair in itertools.combinations(maps_compared.FUNCTIONS, 2)},
            **{("CAM", name): k / 10 for k, name in enumerate(tables.OF_PIXELS)},
            ("gradient", "IG"): -0.25,
        }.items()
    ]
    shown = tables.agreement_with_the_cam(rows)
    assert texts(shown) == [["Adv", "0.00 to 0.50", "−0.25 to 0.90"]] and shown.note.endswith("x · gradient, IG.")
    # 'its correlation with them is within 0.1 of 0', on no network
    for _, span, _ in texts(tables.agreement_with_the_cam(rows_of("agreement-mnist-small-released"))):
        assert all(abs(float(end.replace("−", "-"))) < 0.1 for end in span.split(" to "))


def test_stability():
    rows = rows_of("agreement-mnist-small-released")
    table = tables.stability_table(rows, kind="AAI", grid="CAM")
    row = one(rows, method="Int", grid="CAM", input="AAI", interpreter="CAM", other="itself on x")
    assert cell(table, "CAM", "Int") == [f"{row['tau']:.2f} ± {row['se']:.2f}"] and len(table.rows) == 8


def test_sanity():
    rows = rows_of("sanity-mnist-small-released")
    table = tables.sanity_table(rows)
    row = one(rows, method="Int", layer="conv1", interpreter="IG", form="absolute")
    assert cell(table, "IG", "Int")[1] == f"{row['tau']:.2f} ± {row['se']:.2f}" and len(table.rows) == 7
    assert "first signed and then absolute" in table.note
    # 'Guided backpropagation fails the test', 'IG and x · gradient fail it without their signs', 'with their signs they
    # pass, and so does the CAM'
    passed = table.note.partition("every network: ")[2].rstrip(".").split(", ")
    assert "guided" not in passed and {"CAM", "IG", "x · gradient"} <= set(passed) and len(passed) == 6
    last = [r for r in rows if r["layer"] == "conv1"]
    tau = lambda form, *names: [r["tau"] for r in last if r["form"] == form and r["interpreter"] in names]
    assert min(tau("signed", "guided")) > 0.1 and min(tau("absolute", "IG", "x · gradient")) > 0.8
    # It is all layers that are random there: no other one comes after it.
    taus, layers = tables.by_layer(rows, method="Normal")
    assert layers[-1] == "conv1" and set(layers) == {r["layer"] for r in rows}
    row = one(rows, method="Normal", layer=layers[1], interpreter="guided", form="signed")
    assert taus["signed"]["guided"][1] == row["tau"] and {len(t) for t in taus["absolute"].values()} == {len(layers)}


def test_faithfulness():
    rows = rows_of("faithfulness-mnist-small-released")
    table = tables.faithfulness_table(rows, kinds=["x", "PGD"])
    row = one(rows, method="Normal", input="PGD", rule="own", interpreter="IG")
    assert cell(table, "IG", "Normal")[1] == f"{row['deletion_gain']:.2f} ± {row['deletion_gain_se']:.2f}"
    assert [line[0][0][0] for line in table.rows][-1] == "brightness"
    stale = tables.stale_table(rows, kind="AAI")
    row = one(rows, method="Adv", input="AAI", rule="of x", interpreter="CAM")
    assert cell(stale, "CAM", "Adv")[1] == tables.number(row["deletion_gain"], row["deletion_gain_se"])
    # 'for every map on every network but guided backpropagation on the undefended one'
    assert stale.note.endswith("by more than 0.005, for: guided, Normal.")
    curves = tables.curves(rows, method="Int")
    row = one(rows, method="Int", input="x", rule="own", interpreter="random")
    assert curves["insertion"]["random"] == row["insertion_curve"] and set(curves) == {"deletion", "insertion"}


def test_controls():
    rows = rows_of("faithfulness-mnist-small-released")
    table = tables.controls_table(rows)
    cam = one(rows, method="Adv", input="x", rule="own", interpreter="CAM")
    random = one(rows, method="Adv", input="x", rule="own", interpreter="random")
    assert cell(table, "Adv", "random order") == [f"{random['deletion']:.2f}"]
    (inserted,) = cell(table, "Adv", "CAM, insertion")
    assert inserted == f"−{-cam['insertion_gain']:.2f} ± {cam['insertion_gain_se']:.2f}" and len(table.rows) == 3


def test_what_the_chapter_says_of_faithful_maps():
    rows = [r for r in rows_of("faithfulness-mnist-small-released") if r["rule"] == "own"]
    at = {(r["method"], r["input"], r["interpreter"]): r for r in rows}
    methods, names = {r["method"] for r in rows}, set(maps_compared.FUNCTIONS)
    gain = lambda method, name, kind="x": at[method, kind, name]["deletion_gain"]
    for m in methods:
        # 'hardly better than chance for deletion, and worse than chance for insertion'
        assert at[m, "x", "CAM"]["insertion_gain"] < 0 and gain(m, "CAM") < min(0.12, gain(m, "brightness") - 0.1)
        # 'IG is among the most faithful maps on every network'
        assert gain(m, "IG") > max(gain(m, name) for name in names) - 0.03
        # 'PGD changes no map's gain by more than 0.2.'
        assert max(abs(gain(m, name, "PGD") - gain(m, name)) for name in names) < 0.2
    # 'on the undefended network it leads brightness by much, and on the robust ones by little or not at all'
    lead = {m: gain(m, "IG") - gain(m, "brightness") for m in methods}
    assert lead.pop("Normal") > 0.14 and max(lead.values()) < 0.1


def test_sneaking_beside_print():
    each = {"squared_score": False, "nds": 2.0, "nds_se": 0.25, "nsl": 0.0125, "nsl_se": 0.002, "n": 9, "measured": 10}
    rows = [{"interpreter": "IG", "measure": "l1:1-class"} | each]
    own = [{"interpreter": "IG (ReLU)", "measure": "l2:2-class", "at_cap": 0.25} | each | {"nds": None}]
    other = [{"interpreter": "GradCAM++ (2018)", "measure": "l1:1-class", "at_cap": 1.0} | each]
    table = tables.sneaking_table("IG", [*rows, *other], [*own, *other])
    assert cell(table, "l1:1-class", "softplus, capped") == ["2.00 ± 0.25", "0.0125 ± 0.0020", "9 of 10"]
    assert cell(table, "l1:1-class", "ReLU, no cap") == cell(table, "l2:2-class", "ReLU, no cap") == ["–"]
    printed = cell(table, "l1:2-class", "printed")
    assert printed == ["6.7884", "0.0233"] and len(table.rows) == 6
    assert table.note.endswith("weight: 25%.") and table.caption.startswith("The rows IG of Table 1")


def test_ig_of_the_network_itself_minus_the_cams():
    def row(name, nds, nsl=0.02, n=30):
        each = [[4, 4 * nds * (1 + 0.1 * (-1) ** i), 4 * nsl] for i in range(n)]
        return {"interpreter": name, "measure": "l1:2-class", "squared_score": False, "each": each}

    table = tables.ig_minus_cams([row("CAM", 3.0), row("GradCAM++", 9.0, n=20)], [row("IG (ReLU)", 8.0, 0.05)])
    # The differences wobble by a tenth of themselves: 0.5 / sqrt(30), 0.1 / sqrt(20).
    assert texts(table) == [
        ["CAM", "+5.00 ± 0.09", "+0.0300 ± 0.0000", "30"],
        ["GradCAM++", "−1.00 ± 0.02", "+0.0300 ± 0.0000", "20"],
    ]
    # 'Its NDS is larger, and its NSL is larger as well': by more than two standard errors.
    released, beyond = (rows_of(f"{kind}-mnist-small-released") for kind in ("isa", "isa-beyond"))
    lines = texts(tables.ig_minus_cams(released, beyond))
    assert len(lines) == 2
    for _, *gaps, images in lines:
        assert all(float(gap) > 2 * float(error) for gap, error in (text.split(" ± ") for text in gaps))
        assert int(images) > 30
