"""Find the rows that the paper exchanged: which printed row belongs to which network."""

import math
from collections.abc import Iterable

from .compare import Cell


def row_distances(printed: Iterable[Cell], measured: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """Measure how far each printed row is from each network: mean absolute difference over the levels they share.

    Args:
        printed: the cells of one table and dataset, of which `value` is used.
        measured: the cells of one table and dataset, of which `released` is used.

    Returns:
        printed method -> network's method -> mean |printed - measured|.
    """
    rows: dict[str, dict[str, float]] = {}
    columns: dict[str, dict[str, float]] = {}
    for cell in printed:
        rows.setdefault(cell.method, {})[cell.level] = cell.printed
    for cell in measured:
        if cell.released is not None:
            columns.setdefault(cell.method, {})[cell.level] = cell.released
    return {
        row: {
            name: math.fsum(abs(values[level] - column[level]) for level in shared) / len(shared)
            for name, column in columns.items()
            if (shared := values.keys() & column.keys())
        }
        for row, values in rows.items()
    }


def assign_rows(distances: dict[str, dict[str, float]]) -> dict[str, str]:
    """Return the one-to-one assignment of printed rows to networks with the smallest total distance."""
    from scipy.optimize import linear_sum_assignment

    names = list(distances)
    columns = list(distances[names[0]])
    rows, chosen = linear_sum_assignment([[distances[name][column] for column in columns] for name in names])
    return {names[row]: columns[column] for row, column in zip(rows, chosen, strict=True)}
