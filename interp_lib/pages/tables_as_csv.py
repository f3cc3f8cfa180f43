"""The tables of an executed chapter as rows of a CSV file, one value a row."""

import csv
import io
from collections.abc import Iterator
from html.parser import HTMLParser

from .tables import LINES

COLUMNS = ("table", "row", "column", "line", "value")


class TableReader(HTMLParser):
    """Reads the HTML of `tables.Table`: its caption, its headings, and of each cell the lines with their kinds."""

    def __init__(self, text: str):
        super().__init__()
        self.caption = ""
        self.rows: list[list[list[tuple[str, str]]]] = []  # rows of cells of lines (kind, text); the first: headings
        self._inside = ""  # where text belongs: a caption or a table
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        css = dict(attributes).get("class") or ""
        if tag in ("figcaption", "table"):
            self._inside = tag
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append([("", "")])
        elif tag == "div" and self.rows and self.rows[-1]:
            self.rows[-1][-1].append((css, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "figcaption":
            self.caption += data
        elif self._inside and self.rows and self.rows[-1]:
            kind, text = self.rows[-1][-1][-1]
            self.rows[-1][-1][-1] = (kind, text + data)

    def values(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield a row of `COLUMNS` for each line of each cell that is not empty."""
        heads, *rows = [[" ".join(t.strip() for _, t in cell if t.strip()) for cell in row] for row in self.rows]
        for names, row in zip(rows, self.rows[1:], strict=True):
            for head, cell in zip(heads[1:], row[1:], strict=True):
                for kind, text in cell:
                    if value := text.replace("\xa0", " ").strip():
                        line = next((LINES[css] for css in kind.split() if css in LINES), kind)
                        yield self.caption, names[0], head, line, value.replace("−", "-")


def as_csv(notebook) -> str:
    """Return all tables of an executed notebook as the text of a CSV file; '' for a notebook without a table.

    Args:
        notebook: read by nbformat.
    """
    shown = [
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    rows = [row for text in shown if 'class="book-table"' in text for row in TableReader(text).values()]
    if not rows:
        return ""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return file.getvalue()
