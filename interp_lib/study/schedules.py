"""Ask what the training schedule changes: the same values on networks that we trained by one and by another."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ..paper import eps_of
from .compare import Cell, compare
from .records import RESULTS, Record, read_all

# Subfolders with the records of the networks whose schedule is not the one that the tables of the book show: by `paper`
# while other methods lack a network by it, by `quick` where all have one.
OTHERS = ("paper", "quick")


def read_schedules(folder: str | Path = RESULTS) -> list[Record]:
    """Read the records of a folder and of its subfolders `OTHERS`."""
    return [record for place in (".", *OTHERS) for record in read_all(Path(folder) / place)]


def only(all_records: Iterable[Record], schedule: str) -> list[Record]:
    """Return the records without the rows of networks that were trained by another schedule.

    Rows that name no schedule, such as those of released networks, stay.
    """
    kept = [replace(r, rows=[row for row in r.rows if row.get("schedule", schedule) == schedule]) for r in all_records]
    return [record for record in kept if record.rows]


def cells_by_schedule(
    all_records: Sequence[Record], schedules: Sequence[str] = ("quick", "paper"), accuracies: str = "pgd"
) -> dict[str, list[Cell]]:
    """Compare the printed values with the networks of each schedule in turn: schedule -> cells, in the order of print.

    Only values that networks of every schedule have are returned, so that the lists match line by line.

    Args:
        all_records: see `read_schedules`.
        accuracies: see `compare.compare`.
    """
    columns = {schedule: compare(only(all_records, schedule), accuracies) for schedule in schedules}
    shared = [k for k, row in enumerate(zip(*columns.values(), strict=True)) if all(c.ours is not None for c in row)]
    return {schedule: [cells[k] for k in shared] for schedule, cells in columns.items()}


def distances(columns: Mapping[str, Sequence[Cell]]) -> list[dict]:
    """Average how far the networks of each schedule are from the printed and from the released values.

    Args:
        columns: see `cells_by_schedule`.

    Returns:
        One row for each table and method: table, method, values (their number), and for every schedule
        '<schedule> to print' and '<schedule> to released', mean absolute differences; None without a released value.
    """
    groups: dict[tuple, dict[str, list[Cell]]] = {}
    for schedule, cells in columns.items():
        for cell in cells:
            groups.setdefault((cell.table, cell.owner), {}).setdefault(schedule, []).append(cell)
    rows = []
    for (table, method), by_schedule in groups.items():
        row: dict = {"table": table, "method": method}
        for schedule, group in by_schedule.items():
            measured = [(c.ours, c) for c in group if c.ours is not None]
            row["values"] = len(measured)
            row[f"{schedule} to print"] = fmean(abs(value - c.printed) for value, c in measured)
            apart = [abs(value - c.corrected) for value, c in measured if c.corrected is not None]
            row[f"{schedule} to released"] = fmean(apart) if apart else None
        rows.append(row)
    return rows


def curves(columns: Mapping[str, Sequence[Cell]], table: str = "3") -> list[dict]:
    """Return tidy rows of a table over eps, for `pages.curve_figures.accuracy_curves`.

    Returns:
        method, eps, accuracy, se (NaN) and source: 'paper' for the printed value, 'schedule <name>' for ours.
    """
    rows = []
    for schedule, cells in columns.items():
        for cell in (cell for cell in cells if cell.table == table):
            at = {"method": cell.method, "eps": eps_of(cell.level), "se": math.nan}
            rows.append({**at, "accuracy": cell.ours, "source": f"schedule {schedule}"})
            if schedule == next(iter(columns)):
                rows.append({**at, "accuracy": cell.printed, "source": "paper"})
    return rows
