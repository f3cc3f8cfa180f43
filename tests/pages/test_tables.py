"""Tables as text and as HTML, the paper's tables beside our values, and their cells as rows of a figure."""

import math
from html.parser import HTMLParser

import pytest
from conftest import cell, record, row
from hypothesis import given
from hypothesis import strategies as st

from interp_lib import paper
from interp_lib.pages import landing, tables
from interp_lib.pages.tables import Table, comparison
from interp_lib.study import compare, evidence
from interp_lib.study.compare import Cell


class Page(HTMLParser):
    """What a browser sees: rows of (tag, lines of (text, class)), caption, note, and what may be shown alone."""

    def __init__(self, table):
        super().__init__()
        self.rows, self.note, self.caption, self.open, self.choices = [], "", "", [], []
        self.feed(table._repr_html_())
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "input":
            self.choices.append((attributes["name"], attributes["value"], "checked" in attributes))
            return
        self.open.append((tag, attributes.get("class", "")))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append((tag, []))
        elif tag == "div" and self.rows:
            self.rows[-1][-1][1].append(("", attributes["class"].replace("line", "")))

    def handle_endtag(self, tag):
        if tag in ("th", "td") and not self.rows[-1][-1][1]:
            self.rows[-1][-1][1].append(("", ""))
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, css = self.open[-1]
        if tag == "p":
            assert css == "table-note"
            self.note += data
        elif tag == "figcaption":
            self.caption += data
        elif tag == "div":
            lines = self.rows[-1][-1][1]
            lines[-1] = (lines[-1][0] + data.replace("\xa0", ""), lines[-1][1])
        elif tag in ("th", "td"):
            self.rows[-1][-1][1].append((data, ""))


# Rendering


def test_a_table_as_text_by_hand():
    rows = [["Normal", 0.5], ["IG-Norm-Sum", [("0.890", "printed"), "twice", ("", ""), ("±0.1", "spread")]], ["", 3]]
    expected = "network      value\nNormal       0.5\nIG-Norm-Sum  0.890 twice ±0.1\n             3"
    assert repr(Table(["network", "value"], rows)) == expected
    assert repr(Table(["network", "value"], rows, "n = 200")) == f"{expected}\nn = 200"
    assert repr(Table(["network", "value"], rows, caption="Values.")) == f"Values.\n{expected}"


TEXTS = st.text("aβ−<>&\"'/\\ ")
LINES = st.lists(TEXTS | st.tuples(TEXTS, st.sampled_from(["printed", "ours"])), min_size=1, max_size=3)
TABLES = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(TEXTS, min_size=n, max_size=n),
        st.lists(st.lists(TEXTS | LINES | st.integers(), min_size=n, max_size=n), max_size=4),
        TEXTS,
    )
)


@given(TABLES)
def test_a_page_shows_every_text_as_it_was_given(table):
    """Also one that looks like HTML; headings of columns and rows are marked, since a screen reader reads them out."""
    page = Page(Table(*table))
    columns, rows, note = table
    lines = lambda c: [c] if isinstance(c, str | int) else c
    plain = lambda c: [line if isinstance(line, tuple) else (str(line), "") for line in lines(c)]
    assert page.rows[0] == [("th", [(column, "")]) for column in columns] and page.note == note
    shown = [[list(zip(*cell, strict=True))[0] for _, cell in line] for line in page.rows[1:]]
    assert shown == [[tuple(text for text, _ in plain(c)) for c in line] for line in rows]
    classes = [css for line in page.rows[1:] for _, cell in line for text, css in cell if text]
    assert classes == [css for line in rows for c in line for text, css in plain(c) if text]
    assert all([tag for tag, _ in line] == ["th"] + ["td"] * (len(columns) - 1) for line in page.rows[1:])


@given(TABLES)
def test_text_is_aligned_in_columns(table):
    columns, rows, note = table
    table = Table(columns, rows, note)
    lines = repr(table).split("\n")
    assert len(lines) == 1 + len(rows) + bool(note) and (not note or lines[-1] == note)
    cells = [columns] + [[" ".join(text for text, _ in c if text) for c in line] for line in table.rows]
    start = 0
    for column in zip(*cells, strict=True):
        width = max(map(len, column))
        padded = [line.ljust(start + width)[start : start + width] for line in lines]
        assert padded[: len(cells)] == [text.ljust(width) for text in column]
        start += width + 2
    assert all(line == line.rstrip() for line in lines[: len(cells)])


def test_what_a_reader_may_see_alone():
    kinds = [("0.9", "printed"), ("0.8", "measured"), ("−0.1", "difference")]
    page = Page(Table(["network", "value"], [["Int", kinds]], caption="Values <&>."))
    assert page.caption == "Values <&>."
    assert page.choices == [
        ("show-values", value, value == "all") for value in ("all", "printed", "measured", "difference")
    ]
    assert Page(Table(["network", "value"], [["Int", kinds[:2]]])).choices == []


def test_a_table_without_rows_has_its_head():
    assert repr(Table(["a", "b"], [])) == "a  b" and len(Page(Table(["a", "b"], [])).rows) == 1


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="^every row needs 2 cells, one per column: network, value.$"):
        Table(["network", "value"], [["Normal", 1], ["Adv"]])


# The paper's tables


def released(*rows, **settings):
    return compare.compare([record(rows, **settings)])


def row_of(table, method="Adv", schedule=None):
    """Cells of a method's row, the printed value of each first."""
    label = [(method, ""), *([(schedule, "ours")] if schedule else [])]
    (line,) = (line for line in table.rows if line[0] == label)
    return line[1:]


def test_a_cell_is_printed_then_measured_then_their_difference():
    levels = ("0", "0.05", "0.1", "0.2")
    at = lambda level, value, method="Adv", released=None: Cell(
        "3", "MNIST", "Small", method, "ATA", "eps", level, value, released, n=200
    )
    cells = [at(level, "0.90", released=value) for level, value in zip(levels, (0.9, 0.8949, 0.62, None), strict=True)]
    cells.append(at("0", "1.000", method="Int"))
    table = comparison(cells, table="3", dataset="MNIST")
    printed = ("0.90", "printed")
    assert row_of(table) == [
        [printed, ("0.90", "measured")],
        [printed, ("0.89", "measured"), ("−0.01", "difference")],
        [printed, ("0.62", "measured"), ("−0.28", "difference")],
        [printed, ("–", "measured missing")],
    ]
    assert row_of(table, "Int") == [[("1.000", "printed"), ("–", "measured missing")], *[[("n/a", "printed")]] * 3]
    assert table.columns == ["Method \\ ε", *levels]


@pytest.mark.parametrize("metric, errors", [("ATA", ", standard error at most 0.035"), ("tau", "")])
def test_the_note_counts_images_and_names_the_copy(metric, errors):
    """sqrt(.5 * .5 / 200) = .0354, and sqrt(.9 * .1 / 2000) is less."""
    make = lambda method, value, n, copy: Cell(
        "3", "MNIST", "Small", method, metric, "eps", "0", "0.5", value, n=n, copy=copy
    )
    one, other = make("Adv", 0.5, n=200, copy="MNIST"), make("Int", 0.9, n=2000, copy="MNIST, a mirror")
    assert comparison([one], table="3", dataset="MNIST").note.endswith(f"Data: MNIST; n = 200 images{errors}.")
    both = comparison([one, other], table="3", dataset="MNIST").note
    assert both.endswith(f"Data: MNIST, MNIST, a mirror; n = 200 to 2000 images a value{errors}.")
    nothing = comparison([cell()], table="3", dataset="MNIST").note
    assert nothing == "First line, grey: as printed. Nothing measured on the released networks yet."


PARTS = {(r["table"], r["dataset"], r["metric"]): r["condition"] for r in paper.paper_tables()}


@pytest.mark.parametrize("table, dataset, metric", PARTS)
def test_every_printed_value_has_its_place_and_columns_fit_a_phone(table, dataset, metric):
    """The first heading alone names the condition, so that the other columns stay as narrow as their numbers."""
    cells = [c for c in compare.compare([]) if (c.table, c.dataset, c.metric) == (table, dataset, metric)]
    shown = comparison(cells, table=table, dataset=dataset)
    condition = PARTS[table, dataset, metric]
    assert shown.columns[0] == f"Method \\ {'ε' if condition == 'eps' else condition}"
    assert shown.columns[1:] == list(dict.fromkeys(c.level for c in cells))
    network = cells[0].model or {"R-ImageNet": "WResnet"}.get(dataset, "Small")
    assert shown.caption.startswith(f"Table {table} of the paper, {dataset} {network}: ")
    assert shown.caption.endswith("; printed.")
    values = [c[0][0] for line in shown.rows for c in line[1:]]
    assert [value for value in values if value != "n/a"] == [c.value for c in cells]
    assert "nan" not in repr(shown).lower() and "None" not in shown._repr_html_()


def test_a_table_that_is_not_in_the_paper_is_refused():
    with pytest.raises(ValueError, match="^the paper's Table 6 has no MNIST part.$"):
        comparison(compare.compare([]), table="6", dataset="MNIST")


def test_a_table_shows_ours_only_where_there_are_any():
    ours = record([row(160, schedule="quick", seed=0), row(180, schedule="quick", seed=1)], source="ours")
    released = record([row(178)])
    shown = comparison(compare.compare([released]), table="3", dataset="MNIST")
    assert "trained here" not in shown.note and "ours" not in shown._repr_html_()
    shown = comparison(compare.compare([released, ours]), table="3", dataset="MNIST")
    (adv,) = (r for r in shown.rows if r[0][0][0] == "Adv")
    assert adv[5] == [("0.890", "printed"), ("0.890", "measured"), ("0.850", "ours"), ("±0.071", "spread")]
    assert adv[1] == [("0.980", "printed"), ("–", "measured missing"), ("–", "ours")]
    assert "schedule quick" in shown.note and "right names" not in shown.note
    assert shown.caption == (
        "Table 3 of the paper, MNIST Small: accuracy under attack; printed, released, trained here."
    )


def test_ours_stands_on_one_line_across_a_row():
    found = [record([row(178), row(185, eps=0.2)]), record([row(160, schedule="quick")], source="ours")]
    shown = comparison(compare.compare([found[0]]), table="3", dataset="MNIST")
    assert all(("", "blank") not in cell for r in shown.rows for cell in r)
    shown = comparison(compare.compare([record([row(177), row(185, eps=0.2)]), found[1]]), table="3", dataset="MNIST")
    (adv,) = (r for r in shown.rows if r[0][0][0] == "Adv")
    assert [cell.index(("–", "ours")) for cell in adv[1:5]] == [3, 3, 3, 3] and adv[5][3] == ("0.800", "ours")
    assert repr(shown).count("0.885 −0.005 0.800") == 1


def test_a_method_says_its_schedule_where_a_table_has_several():
    rows = [row(160, schedule="quick", seed=0), row(150, method="Int", schedule="quick", seed=0)]
    found = [record([*rows, row(140, schedule="paper", seed=0)], source="ours")]
    shown = comparison(compare.compare(found, together=False), table="3", dataset="MNIST")
    labels = {line[0][0][0]: line[0][1:] for line in shown.rows}
    assert labels["Adv"] == [("paper", "ours")] and labels["Int"] == [("quick", "ours")] and labels["Normal"] == []
    assert row_of(shown, "Adv", "paper")[4][-1] == ("0.700", "ours")
    assert "by the schedule named under the method" in shown.note
    together = comparison(compare.compare(found), table="3", dataset="MNIST")
    assert row_of(together)[4][-1] == ("0.800", "ours") and "schedule quick" in together.note


def test_ours_under_another_name_are_marked_in_the_note():
    rows = [row(150, method=method, eps=0.0, schedule="paper") for method in ("IG-Norm", "Int")]
    cells = compare.compare([record(rows, source="ours", dataset="cifar10", title="CIFAR-10")])
    assert "under the right names" in comparison(cells, table="A1", dataset="CIFAR-10").note


# Cells as rows of a figure


def test_curves_have_the_printed_value_and_the_measured_one_with_its_error():
    cells = [cell(released=0.75, n=300, ours=0.5, spread=0.02), cell("0.50"), cell("0.25", ours=0.2)]
    rows = tables.curve_rows(cells).to_dict("records")
    assert [(r["source"], r["accuracy"]) for r in rows] == [
        ("paper", 0.89),
        ("released, re-measured", 0.75),
        ("paper", 0.5),
        ("paper", 0.25),
    ]
    assert [r["se"] for r in rows] == pytest.approx([math.nan, 0.025, math.nan, math.nan], nan_ok=True)
    assert {(r["method"], r["eps"]) for r in rows} == {("Adv", 0.3)}
    assert tables.curve_rows([]).empty and list(tables.curve_rows([])) == list(tables.curve_rows(cells))
    ours = tables.curve_rows(cells, "ours")
    assert list(ours["source"]) == ["paper", "trained here", "paper", "paper", "trained here"]
    assert list(ours["se"].dropna()) == [0.02] and ours["se"].dtype == float


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_standard_error_is_that_of_the_outcomes(right, n):
    outcomes = [1] * min(right, n) + [0] * (n - right)
    mean = sum(outcomes) / n
    deviation = math.sqrt(sum((outcome - mean) ** 2 for outcome in outcomes) / n)
    assert tables.standard_error(mean, n) == pytest.approx(deviation / math.sqrt(n), abs=1e-12)


def test_a_sequence_of_attacks_in_a_table():
    at = {"none": (9, 10), "APGD-CE": (8, 10), "APGD-T": (7, 10), "Square": (3, 5)}
    rows = [
        {"method": "Int", "attack": name, "eps": eps, "correct": right, "n": n, "accuracy": right / n}
        for name, (right, n) in at.items()
        for eps in (0.3, 0.4)
    ]
    made = tables.attack_sequence(record(rows, measurement="strong"), 0.3, "0.3")
    assert made.columns == ["method", "no attack", "APGD-CE", "APGD-T", "Square", "95 %"]
    assert [cell[0][0] for cell in made.rows[0]] == ["Int", "0.900", "0.800", "0.700", "0.600", "0.348 to 0.933"]
    assert made.note.startswith("MNIST, ε = 0.3, n = 10;") and made.note.endswith("the first 5 images.")


def test_a_table_of_sentences_wraps():
    made = [Table(["a"], [["b"]], of_text=yes)._repr_html_() for yes in (False, True)]
    assert ['<div class="comparison of-text"' in page for page in made] == [False, True]


# The landing page and the index of results


def test_the_list_of_verdicts_has_every_claim_with_its_page_and_counts_the_rest():
    lines = [
        evidence.Line("Maps <move>", "Table 2", "…", "", "holds", "07_robustness"),
        evidence.Line("MNIST Small: Int is above Adv", "Section 5", "…", "", "not settled", "06_training"),
        evidence.Line("MNIST Pool: Int is above Adv", "Section 5", "…", "", "holds", "06_training"),
    ]
    made = landing.VerdictList(lines, compare.compare([record([row(178), row(5, eps=0.2)])]))
    # The value at 0.3 stands in Tables 3 and 4.
    said = "3 of the 743 values in the paper's tables are measured again on the networks that its authors released: "
    assert repr(made).split("\n") == [
        said + "2 come out to the digit, 0 more within one image or close.",
        "holds: Maps <move> (Table 2)",
        "2 statements about accuracies: holds 1, not settled 1",
    ]
    assert '<a href="07_robustness.html">Maps &lt;move&gt;</a> (Table 2)' in made._repr_html_()


def test_the_index_of_results_has_a_line_a_table_with_its_place():
    cells = compare.compare([record([row(178), row(185, eps=0.2)]), record([row(160, seed=0)], source="ours")])
    shown = landing.index_of_results(cells)
    line, _ = shown.rows  # and Table 4, which has the same value once
    assert [cell[0][0] for cell in line] == ["3, MNIST Small", "original", "2", "2", "0", "0", "0", "0.000"]
    place, _ = shown.links.values()
    anchor = tables.anchor(comparison(cells, table="3", dataset="MNIST").caption)
    assert place == f"07_robustness.html#{anchor}" and f'<a href="{place}">3, MNIST Small</a>' in shown._repr_html_()
    ours = landing.index_of_ours(cells)
    assert "Values by schedule: None 2." in ours.note
    line, _ = ours.rows
    assert [cell[0][0] for cell in line][2:] == ["1", "0.090", "0.090", "–"]


@pytest.mark.parametrize("value, text", [(-0.0304, "−0.030"), (0.5, "+0.500"), (0.0, "+0.000")])
def test_a_difference_has_a_sign(value, text):
    assert tables.signed(value) == text


@pytest.mark.parametrize("p, text", [(0.0009, "< 0.001"), (0.001, "0.001"), (0.9996, "1.000")])
def test_a_p_value_is_not_printed_as_zero(p, text):
    assert tables.p_value(p) == text
