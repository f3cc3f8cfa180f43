"""The paper's 743 values beside what was measured: on the released networks, and on networks that we trained."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, stdev

from .. import paper
from ..paper import DATASETS, EXCHANGED_ROWS, GAMMA, SQUARED, eps_of
from . import records

SCHEDULES = ("paper", "quick", "digits")  # of networks that we trained, the ones to be preferred first

STARTS = 5  # random points that count as one attack, where accuracies are after several numbers of them

ONE_IMAGE = 1 / 200

CLOSE_TAU = 0.01 + 1e-9

CLOSE_SCORE = 0.05  # of the printed value: about the sampling error of NDS and NSL over 100 images


@dataclass(frozen=True)
class Cell:
    """One printed value and what we have for it; None where nothing was measured.

    `released` is measured on the released network that the printed name says, `corrected` on the one that the row
    really belongs to, `owner`; they differ in five rows of the paper. `ours` is measured on networks that we trained
    as the owner says: a mean over seeds, all of them by `schedule`, and `spread` their standard deviation; None for
    one seed. `n` counts the images of the measured columns, `n_ours` those of ours over all seeds. `outcomes` says of
    these three columns, where the records do, which share of the networks has each image right.
    """

    table: str
    dataset: str
    model: str
    method: str
    metric: str
    condition: str
    level: str
    value: str
    released: float | None = None
    ours: float | None = None
    corrected: float | None = None
    n: int | None = None
    n_ours: int | None = None
    copy: str | None = None
    schedule: str | None = None
    spread: float | None = None
    outcomes: dict[str, tuple[float, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def owner(self) -> str:
        """The method whose network the printed row belongs to: the printed one, but for `EXCHANGED_ROWS`."""
        exchanged = self.table in ("A1", "A2") and self.dataset == "CIFAR-10"
        return EXCHANGED_ROWS.get(self.method, self.method) if exchanged else self.method

    @property
    def architecture(self) -> str:
        """The network's: the printed model, and where Table 1 prints an interpreter and no network, what it was."""
        return self.model or ("WResnet" if self.dataset == "R-ImageNet" else "Small")

    @property
    def printed(self) -> float:
        return float(self.value)

    def difference(self, source: str = "released") -> float | None:
        """Measured minus printed."""
        measured = getattr(self, source)
        return None if measured is None else measured - self.printed

    def cause(self) -> str:
        """Why the released network's value is not the printed one, in a few words; '' where it is."""
        if self.verdict() in ("", "exact"):
            return ""
        if self.owner != self.method:
            return f"row of {self.owner}" + ("" if self.corrected is None else f": {self.corrected:.3f}")
        if self.metric.startswith("tau") and self.n is not None and self.n < 7:
            return f"{self.n} images left"
        if self.table == "1" and self.n is not None and self.n < 7:
            return f"{self.n} kept"
        if (self.table, self.method) == ("1", "IG"):
            return "images and list of eps unknown"
        if self.copy and self.copy not in DATASETS:
            return self.copy.partition(", ")[2]
        if self.table == "1":
            return "list of eps unknown"
        return "rounding at max-pool ties" if self.model == "Pool" and self.metric.startswith("ATA") else "unexplained"

    def verdict(self, source: str = "released") -> str:
        """'exact' to the printed decimals, 'one image' of 200, 'close', 'other', or '' where nothing was measured.

        Close is a rank correlation within 0.01, or an NDS or NSL within 5 %.
        """
        measured = getattr(self, source)
        if measured is None:
            return ""
        decimals = len(self.value.partition(".")[2])
        # Half a unit of the last decimal, because an accuracy of 200 images has no more than three decimals.
        if abs(measured - self.printed) <= 0.5 * 10**-decimals + 1e-9:
            return "exact"
        if self.metric.startswith("ATA") and abs(measured - self.printed) <= ONE_IMAGE + 1e-9:
            return "one image"
        close = CLOSE_TAU if self.metric.startswith("tau") else CLOSE_SCORE * self.printed if self.table == "1" else 0
        return "close" if abs(measured - self.printed) <= close else "other"


def _pgd_settings(row: dict) -> tuple[float, int] | None:
    """(eps, steps) of a printed robust accuracy: Tables 3, 4, A1, A2, A3."""
    if row["table"] == "3":
        return eps_of(row["level"]), 200
    if row["metric"].startswith("ATA@eps="):
        return eps_of(row["metric"].partition("=")[2]), int(row["level"])
    if row["metric"].startswith("ATA@steps="):
        return eps_of(row["level"]), int(row["metric"].partition("=")[2])
    return None


def _wanted(row: dict) -> tuple | None:
    """The run that a printed value rests on: what `_run` says of its row."""
    if row["table"] == "1":
        squared = (row["method"], row["level"]) in SQUARED and row["dataset"] != "R-ImageNet"
        return "isa", row["method"], row["level"], squared
    if row["metric"].startswith("tau"):
        return "aai", row["metric"].partition(":")[2] or "CAM", round(eps_of(row["level"]), 6)
    pgd = _pgd_settings(row)
    return None if pgd is None else ("pgd", round(pgd[0], 6), pgd[1])


def _run(measurement: str, row: dict) -> tuple:
    """What tells a measured row from the others of its network."""
    if measurement == "isa":
        return "isa", row["interpreter"], row["measure"], row["squared_score"]
    if measurement == "aai":
        return "aai", row["interpreter"], round(row["eps"], 6)
    return "pgd", round(row["eps"], 6), row["steps"]


def _value(printed: dict, row: dict) -> float | None:
    """The measured number that stands beside a printed one; None where no image was left."""
    if printed["table"] == "1":
        return row[printed["metric"].lower()]
    return row["tau"] if printed["metric"].startswith("tau") else row["correct"] / row["n"]


def compare(found: Iterable[records.Record], accuracies: str = "pgd") -> list[Cell]:
    """Every printed value with the measured ones, in the order of print.

    A value measured on several networks of one method (seeds) is their mean, weighted by the images that each was
    measured on, and n_ours counts the images of all of them. Networks
    that we trained count by one schedule for each dataset and architecture, the first of `SCHEDULES` that is there,
    and with the paper's gamma only.

    Args:
        found: records; those that measure no table are passed over.
        accuracies: the measurement that robust accuracies are taken from: 'pgd' as in print, 'many' of more images, or
            'starts' from random points, five of them.

    Raises:
        ValueError: two records of the same measurement on different copies of the data; say which one to use by
            keeping only that one in the folder.
        records.RecordError: a record with numbers that cannot be, see `records.fault`.
    """
    measured: dict[tuple, list[dict]] = {}
    titles: dict[tuple, str] = {}
    schedules: dict[tuple, set[str]] = {}
    for record in found:
        if wrong := records.fault(record):
            raise records.RecordError(f"{record.name}: {wrong}. Measure it again.")
        s = record.settings
        if s["measurement"] not in (accuracies, "aai", "isa"):
            continue
        unit = (s["dataset"], s["model"], s["networks"])
        if titles.setdefault(unit, s["title"]) != s["title"]:
            raise ValueError(
                f"{' / '.join(unit)} was measured on {titles[unit]!r} and on {s['title']!r}; keep one of the records."
            )
        for row in record.rows:
            if row.get("gamma", GAMMA) != GAMMA or row.get("starts", STARTS) != STARTS:
                continue
            if "schedule" in row:
                schedules.setdefault(unit, set()).add(row["schedule"])
            key = (*unit, row["method"], *_run(s["measurement"], row))
            measured.setdefault(key, []).append(row)
    chosen = {unit: next((s for s in SCHEDULES if s in there), min(there)) for unit, there in schedules.items()}
    cells = []
    for row in paper.paper_tables():
        cell, run = {**row, "outcomes": {}}, _wanted(row)
        printed = Cell(**row)
        # Table 1 names an interpreter where others have a method.
        method, owner = ("Normal", "Normal") if row["table"] == "1" else (printed.method, printed.owner)
        wanted = [("released", method), ("ours", owner), ("corrected", owner)]
        for column, method in wanted if run else ():
            unit = (DATASETS[row["dataset"]], printed.architecture.lower(), "ours" if column == "ours" else "released")
            rows = [r for r in measured.get((*unit, method, *run), []) if _value(row, r) is not None]
            rows = [r for r in rows if r.get("schedule") == chosen.get(unit)]
            if rows:
                if column == "ours":
                    values = [_value(row, r) for r in rows]
                    cell |= {"schedule": chosen.get(unit), "spread": stdev(values) if len(values) > 1 else None}
                n = sum(r["n"] for r in rows)
                cell[column] = math.fsum(_value(row, r) * r["n"] for r in rows) / n
                cell.setdefault("n_ours" if column == "ours" else "n", n)
                cell.setdefault("copy", titles[unit])
                if all("right" in r and r["n"] == rows[0]["n"] for r in rows):
                    each = [records.unpack(r["right"], r["n"]) for r in rows]
                    cell["outcomes"][column] = tuple(sum(image) / len(rows) for image in zip(*each, strict=True))
        cells.append(Cell(**cell))
    return cells


def row_distances(printed: Iterable[Cell], measured: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """How far each printed row is from each network: mean absolute difference over the levels they share.

    Args:
        printed: the cells of one table and dataset; their `value` is used.
        measured: the cells of one table and dataset; their `released` is used.

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
    """The one-to-one assignment of printed rows to networks with the smallest total distance."""
    from scipy.optimize import linear_sum_assignment

    names = list(distances)
    columns = list(distances[names[0]])
    rows, chosen = linear_sum_assignment([[distances[name][column] for column in columns] for name in names])
    return {names[row]: columns[column] for row, column in zip(rows, chosen, strict=True)}


def counts(cells: Iterable[Cell], source: str = "corrected") -> list[dict]:
    """A row for each table and dataset that has a measured value: how many were, and what came of them.

    A part of a table of which every value rests on a single image is left out: one image measures no mean.

    Args:
        source: 'corrected' (the released networks under their right names), 'released' (under the printed names)
            or 'ours', which has two columns more: the mean distance to the released networks' values, under the right
            names, and the mean standard deviation between seeds; None without either.
    """
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.table, cell.dataset, cell.architecture), []).append(cell)
    rows = []
    for (table, dataset, model), group in groups.items():
        verdicts = [cell.verdict(source) for cell in group]
        differences = [abs(d) for cell in group if (d := cell.difference(source)) is not None]
        images = max(((cell.n_ours if source == "ours" else cell.n) or 0 for cell in group), default=0)
        if differences and images > 1:
            rows.append(
                {"table": table, "dataset": dataset, "model": model, "copy": next(c.copy for c in group if c.copy),
                 "values": len(differences), "exact": verdicts.count("exact"), "one image": verdicts.count("one image"),
                 "close": verdicts.count("close"), "other": verdicts.count("other"), "not measured": verdicts.count(""),
                 "mean |diff|": fmean(differences), "max |diff|": max(differences)}
            )  # fmt: skip
            if source == "ours":
                apart = [abs(c.ours - c.corrected) for c in group if None not in (c.ours, c.corrected)]
                spreads = [cell.spread for cell in group if cell.spread is not None]
                rows[-1] |= {
                    "to released": fmean(apart) if apart else None,
                    "spread": fmean(spreads) if spreads else None,
                }
    return rows
