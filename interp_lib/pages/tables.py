"""Tables for the page: the printed value, ours under it, and what lies between."""

import math
from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from ..paper import eps_of
from ..study.compare import Cell


class Table:
    """A table that shows itself as HTML on a page and as aligned text elsewhere.

    Args:
        columns: headings; the first heads the column of row names.
        rows: as many cells a row as columns. A cell is text, or a sequence of lines, each text or a pair (text, class
            of the style sheet).
        note: one line under the table: n, standard error, units.
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence], note: str = ""):
        self.columns, self.note = list(columns), note
        self.rows = [[self._lines(cell) for cell in row] for row in rows]
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row needs {len(self.columns)} cells, one a column: {', '.join(self.columns)}.")

    @staticmethod
    def _lines(cell) -> list[tuple[str, str]]:
        lines = [cell] if isinstance(cell, str | int | float) else cell
        return [(str(line), "") if not isinstance(line, tuple) else line for line in lines]

    def __repr__(self) -> str:
        text = [self.columns] + [[" ".join(t for t, _ in cell if t) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*text, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in text]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<{tag}>" + "<br>".join(f'<span class="{c}">{escape(t)}</span>' if c else escape(t) for t, c in cell)
                + f"</{tag}>"
                for tag, cell in zip(["th"] + ["td"] * len(row), row, strict=False)
            )
            + "</tr>"
            for row in self.rows
        )  # fmt: skip
        note = f'<p class="table-note">{escape(self.note)}</p>' if self.note else ""
        table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="comparison">{table}</div>{note}'


def standard_error(p: float, n: int) -> float:
    """sqrt(p (1 - p) / n), of a proportion."""
    return math.sqrt(p * (1 - p) / n)


def comparison(cells: Iterable[Cell], *, table: str, dataset: str) -> Table:
    """One of the paper's tables with our values under the printed ones.

    Every cell has the printed value; under it the one measured on the released network and, where the two differ,
    their difference; and under these, in a table where there are any, the mean over the networks that we trained and
    the standard deviation between their seeds.

    Args:
        cells: of `compare.compare`.
        table, dataset: as the paper writes them, '3' and 'MNIST'.

    Raises:
        ValueError: the paper has no such table.
    """
    cells = [cell for cell in cells if (cell.table, cell.dataset) == (table, dataset)]
    if not cells:
        raise ValueError(f"the paper's Table {table} has no {dataset} part.")
    levels, methods = (list(dict.fromkeys(getattr(c, key) for c in cells)) for key in ("level", "method"))
    at = {(cell.method, cell.level): cell for cell in cells}
    trained = [cell for cell in cells if cell.ours is not None]
    differ = {cell.method for cell in cells if cell.verdict() not in ("", "exact")}

    def lines(cell: Cell | None):
        if cell is None:
            return [("n/a", "printed")]
        decimals = len(cell.value.partition(".")[2])
        shown = [(cell.value, "printed")]
        shown.append(("–" if cell.released is None else f"{cell.released:.{decimals}f}", "measured"))
        if cell.verdict() not in ("", "exact"):
            shown.append((f"{cell.difference():+.{decimals}f}".replace("-", "−"), "difference"))
        elif trained and cell.method in differ:
            shown.append(("", ""))  # ours on one line across the row
        if trained:
            shown.append(("–" if cell.ours is None else f"{cell.ours:.{decimals}f}", "ours"))
            if cell.spread is not None:
                shown.append((f"±{cell.spread:.{decimals}f}", "spread"))
        return shown

    measured = [(c.released, c.n) for c in cells if c.released is not None]
    copies = ", ".join(dict.fromkeys(cell.copy for cell in cells if cell.copy))
    note = "First line: as printed. Nothing measured on the released networks yet."
    if measured:
        fewest, most = min(n for _, n in measured), max(n for _, n in measured)
        images = f"n = {fewest} images" if fewest == most else f"n = {fewest} to {most} images a value"
        if all(cell.metric.startswith("ATA") for cell in cells):
            images += f", standard error at most {max(standard_error(*pair) for pair in measured):.3f}"
        note = (
            "First line: as printed. Second: measured on the released networks. Third, where they "
            f"differ: measured minus printed. Data: {copies}; {images}."
        )
    if trained:
        (schedule,) = {cell.schedule for cell in trained}
        right = ", under the right names" if any(cell.owner != cell.method for cell in trained) else ""
        note += (
            f" Green: networks trained here{right}, schedule {schedule}; mean and, for several seeds, standard"
            " deviation between them."
        )
    heading = {"eps": "ε", "steps": "steps"}.get(cells[0].condition, cells[0].condition)
    # Spelled out once, in the first column; on a phone every character of the others counts.
    columns = [f"Method \\ {heading}", *levels]
    return Table(columns, [[m, *(lines(at.get((m, level))) for level in levels)] for m in methods], note)


def curve_rows(cells: Iterable[Cell], source: str = "released") -> pd.DataFrame:
    """Cells of a table over eps as tidy rows for `curve_figures.accuracy_curves`: printed and measured values.

    Args:
        source: 'released', whose error is that of n images, or 'ours', whose error is the standard deviation between
            seeds; none for one seed.
    """
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
            se = standard_error(value, cell.n)
            rows.append({**row, "accuracy": value, "se": se, "source": "released, re-measured"})
    return pd.DataFrame(rows).astype({"se": float})
