"""The landing page's list of verdicts, and the index of results: where each table is, and how well it agrees."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from ..study.compare import Cell, counts
from ..study.evidence import VERDICTS, Line, in_two
from .tables import Table, anchor_of

# The chapter with each of the paper's tables.
CHAPTERS = {
    "1": "30_table_1",
    "2": "27_table_2",
    "3": "07_robustness",
    "4": "07_robustness",
    "5": "08_unforeseen_attacks",
    **{f"A{k}": "15_appendix_e" for k in range(1, 4)},
    **{f"A{k}": "29_appendix_e_maps" for k in range(4, 6)},
}


class VerdictList:
    """The paper's claims as a list, each with its verdict and a link to the chapter that decides it.

    Args:
        lines: lines of `study.verdicts`; statements about accuracies are counted and not listed.
        cells: cells from `study.compare.compare`, for a sentence on the tables above the list.
    """

    def __init__(self, lines: Iterable[Line], cells: Sequence[Cell]):
        self.tables = measured(cells)
        self.claims, statements = in_two(lines)
        tally = Counter(line.verdict for line in statements)
        self.count = f"{len(statements)} statements about accuracies: " + ", ".join(
            f"{verdict} {tally[verdict]}" for verdict in VERDICTS if tally[verdict]
        )

    def __repr__(self) -> str:
        return "\n".join([self.tables, *(f"{c.verdict}: {c.claim} ({c.where})" for c in self.claims), self.count])

    def _repr_html_(self) -> str:
        items = [
            f'<li><span class="verdict">{c.verdict}</span> '
            f'<span><a href="{c.chapter}.html">{escape(c.claim)}</a> ({escape(c.where)})</span></li>'
            for c in self.claims
        ]
        items.append(f'<li><span></span><a href="17_what_holds.html">{self.count}</a></li>')
        return f'<p>{self.tables}</p><ul class="verdicts">{"".join(items)}</ul>'


def index_of_results(cells: Sequence[Cell]) -> Table:
    """Make the table of the paper's tables: a link to each, its values, and how well they come out on its networks.

    Args:
        cells: cells from `study.compare.compare`.
    """
    keys = ("values", "exact", "one image", "close", "other")
    rows, links = [], {}
    for row in counts(cells):
        first = next(c for c in cells if (c.table, c.dataset) == (row["table"], row["dataset"]))
        name, data = _named(row)
        links[name] = f"{CHAPTERS[row['table']]}.html#{anchor_of(first)}"
        rows.append([name, data, *(str(row[key]) for key in keys), f"{row['mean |diff|']:.3f}"])
    note = (
        "Exact: to the printed decimals. One image: within 1/200. Close: a rank correlation within 0.01, an NDS or NSL "
        "within 5 %, an accuracy of Table 5 within two standard deviations of a random start. Mean: of the absolute "
        "differences. Names in Tables A1 and A2, CIFAR-10, as corrected here."
    )
    caption = "The paper's tables on the networks that its authors released."
    return Table(["table", "data", *keys, "mean"], rows, note, caption=caption, links=links)


def index_of_ours(cells: Sequence[Cell]) -> Table:
    """Make the table of the paper's tables on networks trained here, which need not come out as printed.

    Args:
        cells: cells from `study.compare.compare`.
    """
    number = lambda value: "–" if value is None else f"{value:.3f}"
    rows = [
        [*_named(row), str(row["values"]), *(number(row[key]) for key in ("mean |diff|", "to released", "spread"))]
        for row in counts(cells, "ours")
    ]
    tally = Counter(cell.schedule for cell in cells if cell.ours is not None)
    schedules = ", ".join(f"{schedule} {count}" for schedule, count in sorted(tally.items(), key=str))
    note = f"Mean absolute differences. Values by schedule: {schedules}. Between seeds: mean standard deviation."
    values = tally.total()
    caption = f"The paper's tables on networks trained here, {values} values so far."
    columns = ["table", "data", "values", "to print", "to released", "between seeds"]
    return Table(columns, rows, note, caption=caption)


def _named(row: dict) -> tuple[str, str]:
    """Return the name of a part of a table, which no other part has, and the data that it was measured on."""
    return f"{row['table']}, {row['dataset']} {row['model']}", row["copy"].partition(", ")[2] or "original"


def measured(cells: Sequence[Cell]) -> str:
    """Return how many of the paper's values are measured again, and how many come out as printed, as a sentence."""
    rows = counts(cells)
    values, exact = (sum(row[key] for row in rows) for key in ("values", "exact"))
    near = sum(row["one image"] + row["close"] for row in rows)
    return (
        f"{values} of the {len(cells)} values in the paper's tables are measured again on the networks that its "
        f"authors released: {exact} come out to the digit, {near} more within one image or close."
    )
