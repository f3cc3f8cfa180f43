"""Make tables for the page: the printed value, our value under it, and their difference."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from ..datasets import TITLES
from ..paper import ARCHITECTURE_TITLES, eps_of
from ..study import intervals
from ..study.compare import Cell
from ..study.evidence import Line
from ..study.records import Record

if TYPE_CHECKING:  # most tables are no data frames
    import pandas as pd

# What the lines of a cell may be: the class that styles a line, and what the reader is offered to see alone.
LINES = {"printed": "printed", "measured": "released", "difference": "difference", "ours": "trained here"}


class Table:
    """A table that displays as HTML on a page and as aligned text elsewhere.

    Where cells have several of `LINES`, the page lets the reader show one of them; without scripts all are shown.

    Args:
        columns: headings; the first is the heading of the row names.
        rows: rows with one cell per column. A cell is text, or a sequence of lines, each of them text or a pair (text,
            CSS class): a key of `LINES`, `spread` for the deviation between seeds, or `random` for attacks that start
            at a random point, where the line above it has those that start at x.
        note: one line under the table: n, standard error, units.
        caption: what the table is. The book numbers captions, except those that begin with a table of the paper.
        of_text: set cells as text that wraps, and not as numbers.
        links: texts of lines that lead to another page, and its address.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence],
        note: str = "",
        *,
        caption: str = "",
        of_text: bool = False,
        links: Mapping[str, str] | None = None,
    ):
        self.columns, self.note, self.caption, self.of_text = list(columns), note, caption, of_text
        self.links = links or {}
        self.rows = [[self._lines(cell) for cell in row] for row in rows]
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row needs {len(self.columns)} cells, one per column: {', '.join(self.columns)}.")

    @staticmethod
    def _lines(cell) -> list[tuple[str, str]]:
        lines = [cell] if isinstance(cell, str | int | float) else cell
        return [(str(line), "") if not isinstance(line, tuple) else line for line in lines]

    def __repr__(self) -> str:
        text = [self.columns] + [[" ".join(t for t, _ in cell if t) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*text, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in text]
        return "\n".join([*([self.caption] if self.caption else []), *lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<{tag}>{self._cell(cell)}</{tag.split()[0]}>"
                for tag, cell in zip(['th scope="row"'] + ["td"] * len(row), row, strict=False)
            )
            + "</tr>"
            for row in self.rows
        )
        note = f'<p class="table-note">{escape(self.note)}</p>' if self.note else ""
        caption = f'<figcaption class="table-caption">{escape(self.caption)}</figcaption>' if self.caption else ""
        table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        table = f'<div class="comparison{" of-text" * self.of_text}" tabindex="0">{table}</div>'
        identifier = f' id="{anchor(self.caption)}"' if self.caption else ""
        return f'<figure class="book-table"{identifier}>{caption}{self._choice()}{table}{note}</figure>'

    def _cell(self, cell: list[tuple[str, str]]) -> str:
        lines = [(escape(text) or "&nbsp;" * (len(cell) > 1), css) for text, css in cell]
        lines = [
            (f'<a href="{escape(self.links[text])}">{shown}</a>' if text in self.links else shown, css)
            for (text, _), (shown, css) in zip(cell, lines, strict=True)
        ]
        if len(lines) == 1 and not lines[0][1]:
            return lines[0][0]
        return "".join(f'<div class="{css or "line"}">{shown}</div>' for shown, css in lines)

    def _choice(self) -> str:
        """Return buttons that show one kind of line, where the cells have at least three kinds."""
        present = {css for row in self.rows for cell in row for _, css in cell}
        kinds = [css for css in LINES if css in present]
        if len(kinds) < 3:
            return ""
        name = "show-" + anchor(self.caption or " ".join(self.columns))
        buttons = "".join(
            f'<label><input type="radio" name="{name}" value="{css}"{" checked" * (css == "all")}> {text}</label>'
            for css, text in [("all", "all"), *((css, LINES[css]) for css in kinds)]
        )
        return f'<fieldset class="choice"><legend>Values shown</legend>{buttons}</fieldset>'


def anchor(caption: str) -> str:
    """Return the place on its page of the table with a caption, which is made of what stands before a semicolon."""
    return re.sub("[^a-z0-9]+", "-", caption.partition(";")[0].lower()).strip("-")


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with a sign, and a minus of the width of the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Write a p-value with three decimals, or that it is below the last of them."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def of_dataset(record: Record) -> str:
    """Return the title of a record's dataset without the copy that was used: 'MNIST', 'CIFAR-10'."""
    return record.settings["title"].partition(",")[0]


def network_title(dataset: str, model: str) -> str:
    """Return a dataset and an architecture as the paper writes them: 'MNIST Small'."""
    return f"{TITLES[dataset]} {ARCHITECTURE_TITLES[model]}"


def standard_error(p: float, n: int) -> float:
    """Return the standard error of a proportion, sqrt(p (1 - p) / n)."""
    return math.sqrt(p * (1 - p) / n)


def comparison(cells: Iterable[Cell], *, table: str, dataset: str) -> Table:
    """Make one of the paper's tables, with our values under the printed values.

    Every cell has the printed value, then the value measured on the released network and, if the two differ, their
    difference. If the table has results of networks that we trained, their mean and the standard deviation between
    seeds follow, and where these had several schedules each method has the name of its schedule.

    Args:
        cells: cells from `study.compare.compare`.
        table, dataset: as the paper writes them, such as '3' and 'MNIST'.

    Raises:
        ValueError: the paper has no such table.
    """
    cells = [cell for cell in cells if (cell.table, cell.dataset) == (table, dataset)]
    if not cells:
        raise ValueError(f"the paper's Table {table} has no {dataset} part.")
    levels, methods = (list(dict.fromkeys(getattr(c, key) for c in cells)) for key in ("level", "method"))
    at = {(cell.method, cell.level): cell for cell in cells}
    trained = [cell for cell in cells if cell.ours is not None]
    schedules: dict[str, str] = {cell.method: cell.schedule for cell in trained if cell.schedule}
    several = len(set(schedules.values())) > 1
    differ = {cell.method for cell in cells if cell.verdict() not in ("", "exact")}

    def lines(cell: Cell | None):
        if cell is None:
            return [("n/a", "printed")]
        # As many decimals as the paper prints, so that the lines of a cell compare digit by digit.
        decimals = len(cell.value.partition(".")[2])
        shown = [(cell.value, "printed")]
        value = cell.released
        shown.append(("–", "measured missing") if value is None else (f"{value:.{decimals}f}", "measured"))
        if cell.verdict() not in ("", "exact"):
            shown.append((f"{cell.difference():+.{decimals}f}".replace("-", "−"), "difference"))
        elif trained and cell.method in differ:
            shown.append(("", "blank"))  # an empty line, so that our values align across the row
        if trained:
            shown.append(("–" if cell.ours is None else f"{cell.ours:.{decimals}f}", "ours"))
            if cell.spread is not None:
                shown.append((f"±{cell.spread:.{decimals}f}", "spread"))
        return shown

    measured = [(c.released, c.n) for c in cells if c.released is not None and c.n is not None]
    copies = ", ".join(dict.fromkeys(cell.copy for cell in cells if cell.copy))
    note = "First line, grey: as printed. Nothing measured on the released networks yet."
    if measured:
        fewest, most = min(n for _, n in measured), max(n for _, n in measured)
        images = f"n = {fewest} images" if fewest == most else f"n = {fewest} to {most} images a value"
        if all(cell.metric.startswith("ATA") for cell in cells):
            images += f", standard error at most {max(standard_error(*pair) for pair in measured):.3f}"
        note = (
            "First line, grey: as printed. Second, bold: measured on the released networks. Third, where they "
            f"differ: measured minus printed. Data: {copies}; {images}."
        )
    if trained:
        right = ", under the right names" if any(cell.owner != cell.method for cell in trained) else ""
        which = ", by the schedule named under the method" if several else f", schedule {trained[0].schedule}"
        note += (
            f" Green: networks trained here{right}{which}; mean and, for several seeds, standard deviation between"
            " them."
        )
    heading = {"eps": "ε", "steps": "steps"}.get(cells[0].condition, cells[0].condition)
    # Name the condition once, in the first heading: on a phone the other columns must be narrow.
    columns = [f"Method \\ {heading}", *levels]
    names = [[m, (schedules[m], "ours")] if several and m in schedules else m for m in methods]
    rows = [[n, *(lines(at.get((m, level))) for level in levels)] for n, m in zip(names, methods, strict=True)]
    return Table(columns, rows, note, caption=_caption_of(cells[0], bool(measured), bool(trained)))


# What the paper's tables show, by the part of the metric before any condition.
WHAT = {
    "ATA": "accuracy under attack",
    "tau": "Kendall's τ of the maps before and after the attack on them",
    "NDS": "normalised discrepancy (NDS)",
    "NSL": "normalised slope (NSL)",
}


def _caption_of(cell: Cell, measured: bool, trained: bool) -> str:
    """Return which table of the paper a cell is of, what it shows, on what, and whose values stand beside print."""
    metric, *conditions = re.split("[@:]", cell.metric)
    conditions = [re.sub(r"steps=(\d+)", r"\1 steps", c).replace("eps=", "ε = ") for c in conditions]
    beside = ["printed", *["released"] * measured, *["trained here"] * trained]
    shown = ", ".join([WHAT[metric], *conditions])
    return f"Table {cell.table} of the paper, {cell.dataset} {cell.architecture}: {shown}; {', '.join(beside)}."


def anchor_of(cell: Cell) -> str:
    """Return the place on its page of the table with a cell of the paper."""
    return anchor(_caption_of(cell, True, True))


def verdicts(lines: Iterable[Line], caption: str) -> Table:
    """Make the table of claims, each with the evidence that decides it, from lines of `study.verdicts`."""
    rows = [[c.verdict, [c.claim, c.where], c.released.split("; "), c.ours.split("; ")] for c in lines]
    columns = ["verdict", "claim", "released networks", "trained here"]
    return Table(columns, rows, "± standard error.", caption=caption, of_text=True)


def curve_rows(cells: Iterable[Cell], source: str = "released") -> "pd.DataFrame":
    """Convert cells of a table over eps to tidy rows for `curve_figures.accuracy_curves`: printed and measured values.

    Args:
        cells: cells from `study.compare.compare`.
        source: 'released', with the sampling error of n images as `se`, or 'ours', with the standard deviation between
            seeds as `se`, which is missing for one seed.
    """
    import pandas as pd

    rows = []
    for cell in cells:
        row = {"method": cell.method, "eps": eps_of(cell.level)}
        rows.append({**row, "accuracy": cell.printed, "se": math.nan, "source": "paper"})
        value = getattr(cell, source)
        if value is None:
            continue
        if source == "ours":
            rows.append({**row, "accuracy": value, "se": cell.spread, "source": "trained here"})
        else:
            assert cell.n is not None  # it comes with the value
            se = standard_error(value, cell.n)
            rows.append({**row, "accuracy": value, "se": se, "source": "released, re-measured"})
    return pd.DataFrame(rows, columns=["method", "eps", "accuracy", "se", "source"]).astype({"se": float})


def attack_sequence(record: Record, eps: float, label: str) -> Table:
    """Make the table of a record of 'strong' at one radius: for each method, the accuracy that each attack leaves.

    Args:
        record: a record of `study.strong`.
        eps: the radius, in the unit of the pixels.
        label: the radius in words, '0.3' or '8/255'.
    """
    at = {(row["method"], row["attack"]): row for row in record.rows if abs(row["eps"] - eps) < 1e-6}
    attacks = list(dict.fromkeys(attack for _, attack in at))
    rows = []
    for method in dict.fromkeys(method for method, _ in at):
        counts = at[method, "APGD-T"]
        low, high = intervals.proportion(counts["correct"], counts["n"])
        shown = [f"{at[method, attack]['accuracy']:.3f}" for attack in attacks]
        rows.append([method, *shown, f"{low:.3f} to {high:.3f}"])
    images = {attack: at[method, attack]["n"] for attack in attacks}
    note = f"{record.settings['title']}, ε = {label}, n = {images['none']:,}; 95 %: of the accuracy after APGD-T."
    if "Square" in images:
        note += f" Square on the first {images['Square']:,} images."
    columns = ["method", *(a if a != "none" else "no attack" for a in attacks), "95 %"]
    caption = f"Accuracy that each attack leaves on {of_dataset(record)}, ε = {label}."
    return Table(columns, rows, note, caption=caption)
