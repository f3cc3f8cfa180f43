"""Format the comparison with the paper as a CSV file, as text, and as the table of the README."""

import re
from collections.abc import Iterable

from .. import paper
from .compare import Cell, counts


def as_csv(cells: Iterable[Cell]) -> str:
    """Format cells as CSV: the paper's columns plus `released`, `ours`, `n`, `n_ours`; empty where not measured."""
    columns = (
        "table",
        "dataset",
        "model",
        "method",
        "metric",
        "condition",
        "level",
        "value",
        "released",
        "ours",
        "n",
        "n_ours",
    )
    lines = [",".join(columns)]
    for cell in cells:
        values = (getattr(cell, column) for column in columns)
        lines.append(",".join("" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in values))
    return "\n".join(lines)


def as_text(cells: Iterable[Cell], source: str = "released") -> str:
    """Format one line per measured value, with the cause of each difference, followed by the counts."""
    cells = [cell for cell in cells if getattr(cell, source) is not None]
    lines = [
        f"{'table':5} {'dataset':10} {'model':8} {'method':12} {'metric':14} {'level':>7} "
        f"{'paper':>8} {source:>9} {'diff':>7} {'n':>5}  cause"
    ]
    for c in cells:
        cause, n = (c.cause(), c.n) if source == "released" else ("", c.n_ours)
        lines.append(
            f"{c.table:5} {c.dataset:10} {c.model:8} {c.method:12} {c.metric:14} {c.level:>7} {c.value:>8} "
            f"{getattr(c, source):9.3f} {c.difference(source):+7.3f} {n:5}  {cause}".rstrip()
        )
    lines += [
        "",
        f"{'table':5} {'data':26} {'model':8} {'values':>6} {'exact':>6} {'1 image':>8} "
        f"{'close':>6} {'other':>6} {'mean |diff|':>12} {'max |diff|':>11}"
        f"{'   to released   seeds' if source == 'ours' else ''}",
    ]
    total = {"values": 0, "exact": 0, "one image": 0, "close": 0, "other": 0}
    for row in counts(cells, "corrected" if source == "released" else source):
        total = {key: total[key] + row[key] for key in total}
        lines.append(
            f"{row['table']:5} {row['copy']:26} {row['model']:8} {row['values']:6} {row['exact']:6} "
            f"{row['one image']:8} {row['close']:6} {row['other']:6} "
            f"{row['mean |diff|']:12.4f} {row['max |diff|']:11.3f}"
        )
        if source == "ours":
            number = lambda value, width: f"{'–' if value is None else f'{value:.4f}':>{width}}"
            lines[-1] += f"{number(row['to released'], 14)}{number(row['spread'], 8)}"
    lines.append(
        f"{'all':5} {'':26} {'':8} {total['values']:6} {total['exact']:6} {total['one image']:8} "
        f"{total['close']:6} {total['other']:6}"
    )
    if any(cell.owner != cell.method for cell in cells) and source == "released":
        lines.append("Counted with the names of Tables A1 and A2, CIFAR-10, set right: see cause, 'row of'.")
    if single := len(cells) - total["values"]:
        lines.append(f"{single} values rest on a single image and are not counted.")
    lines.append(f"{len(paper.paper_tables()) - len(cells)} of the paper's 743 values are not measured here.")
    return "\n".join(lines)


# The table of the README, between <!-- counts: ... --> and <!-- /counts -->: keys of a row of `counts`, and headings.
README_COLUMNS = {
    "values": "values",
    "exact": "exact",
    "one image": "within one image of 200",
    "close": "close",
    "other": "other",
    "mean |diff|": "mean difference",
}


def as_markdown(cells: Iterable[Cell]) -> str:
    """Format the README's Markdown table, with one line for each row of `counts`."""

    def text(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [["table", "data", *README_COLUMNS.values()], ["---", "---", *("---:" for _ in README_COLUMNS)]]
    for row in counts(cells, "corrected"):
        lines.append([f"{row['table']}, {row['model']}", row["copy"], *(text(row[key]) for key in README_COLUMNS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def updated_readme(readme: str, cells: Iterable[Cell]) -> str:
    """Return the README's text with its table, and the number of values above it, computed again.

    Raises:
        ValueError: the table's marks or the number are missing.
    """
    cells = list(cells)
    parts = {
        r"(?<=These )\d+(?=, on)": str(sum(row["values"] for row in counts(cells))),
        r"(?<=<!-- counts: `make readme` writes this table -->\n).*?(?=\n<!-- /counts -->)": as_markdown(cells),
    }
    for pattern, new in parts.items():
        readme, found = re.subn(pattern, new, readme, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"the README has {found} places that match {pattern!r}, where 1 is expected.")
    return readme
