"""Compare the paper's 743 values with measurements on the released networks and on networks that we trained."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from .. import paper
from ..paper import DATASETS, EXCHANGED_ROWS, GAMMA
from . import records
from .evaluation import IMAGES, ISA_IMAGES
from .runs import averaged, run_of, value_of, wanted_run

SCHEDULES = ("paper", "quick", "digits")  # of the networks that we trained, in order of preference


STARTS = 5  # random starts of the attack whose accuracy is compared, where a record has several numbers of starts


ONE_IMAGE = 1 / 200


CLOSE_TAU = 0.01 + 1e-9  # 1e-9: a difference of exactly 0.01 must survive float rounding


CLOSE_SCORE = 0.05  # relative to the printed value: about the sampling error of NDS and NSL over 100 images


@dataclass(frozen=True)
class Cell:
    """One printed value and our measurements of it; None where nothing was measured.

    `released` is measured on the released network with the printed name, `corrected` on the network that the row
    really belongs to, `owner`; the two differ in five rows of the paper. `ours` is measured on networks that we trained
    by the owner's method: a mean over seeds, all with the same `schedule`. `spread` is the standard deviation over the
    seeds; None for one seed. `n` counts the images of `released` and `corrected`, `n_ours` the images of `ours` over
    all seeds. `noise` is, where `released` is a mean over random starts, the standard deviation of one start minus that
    mean. `outcomes` gives for each of these three columns, where the records have it, the share of the networks that
    classify each image right.
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
    noise: float | None = None
    outcomes: dict[str, tuple[float, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def owner(self) -> str:
        """The method whose network the printed row belongs to: the printed method, except in `EXCHANGED_ROWS`."""
        exchanged = self.table in ("A1", "A2") and self.dataset == "CIFAR-10"
        return EXCHANGED_ROWS.get(self.method, self.method) if exchanged else self.method

    @property
    def architecture(self) -> str:
        """The network's architecture: the printed model, or the network of Table 1, which prints no model."""
        return self.model or ("WResnet" if self.dataset == "R-ImageNet" else "Small")

    @property
    def printed(self) -> float:
        return float(self.value)

    def difference(self, source: str = "released") -> float | None:
        """Return measured minus printed; None where nothing was measured."""
        measured = getattr(self, source)
        return None if measured is None else measured - self.printed

    def cause(self) -> str:
        """Say in a few words why the released network's value differs from the printed one; '' where it agrees."""
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
        """Classify the agreement: 'exact' to the printed decimals, 'one image' of 200, 'close' or 'other'.

        'close' is a rank correlation within 0.01, an NDS or NSL within 5 %, or an accuracy of Table 5 within twice the
        `noise`. The result is '' where nothing was measured.
        """
        measured = getattr(self, source)
        if measured is None:
            return ""
        decimals = len(self.value.partition(".")[2])
        # Half a unit of the last printed decimal: an accuracy of 200 images never has more than three decimals.
        if abs(measured - self.printed) <= 0.5 * 10**-decimals + 1e-9:
            return "exact"
        if self.metric.startswith("ATA") and abs(measured - self.printed) <= ONE_IMAGE + 1e-9:
            return "one image"
        if self.table == "5":
            close = 2 * (self.noise or 0)
        else:
            close = CLOSE_TAU if self.metric.startswith("tau") else CLOSE_SCORE * self.printed * (self.table == "1")
        return "close" if abs(measured - self.printed) <= close else "other"


def _with_the_papers_images(all_records: Iterable[records.Record], measurements: Sequence[str]) -> list[records.Record]:
    """Return the records of some measurements on as many images as the paper has, or else on the most images.

    Raises:
        records.RecordError: a record with impossible numbers, see `records.fault`.
    """
    groups: dict[tuple, dict[int, list[records.Record]]] = {}
    for record in all_records:
        if wrong := records.fault(record):
            raise records.RecordError(f"{record.name}: {wrong}. Measure it again.")
        s = record.settings
        if s["measurement"] in measurements:
            group = s["measurement"], s["dataset"], s["model"], s["networks"], s["title"]
            n = s.get("subset", {}).get("n", 0)
            groups.setdefault(group, {}).setdefault(n, []).append(record)
    chosen = []
    for (measurement, *_), by_n in groups.items():
        paper_n = ISA_IMAGES if measurement == "isa" else IMAGES
        chosen += by_n[paper_n if paper_n in by_n else max(by_n)]
    return chosen


def _schedules(methods: dict[str, set[str]], together: bool) -> dict[str, str]:
    """Choose a schedule for every method: method -> schedule.

    Args:
        methods: schedule -> the methods of its networks.
        together: choose one schedule for all methods, the one that most of them have; or the first of `SCHEDULES` that
            a method has. Of several schedules with the most methods, the first of `SCHEDULES` is chosen too.
    """
    order = [s for s in dict.fromkeys((*SCHEDULES, *sorted(methods))) if s in methods]
    if together:
        order = [max(order, key=lambda schedule: len(methods[schedule]))]
    return {method: schedule for schedule in reversed(order) for method in methods[schedule]}


def compare(all_records: Iterable[records.Record], accuracies: str = "pgd", *, together: bool = True) -> list[Cell]:
    """Return every printed value with its measurements, in the order of print.

    A value measured on several networks of one method (seeds) is the mean over the networks, weighted by the number of
    images that each was measured on, and n_ours counts the images of all of them. Networks that we trained enter with
    the paper's gamma only, and with one schedule for each dataset, architecture and kind of attack: see `together`.

    Args:
        all_records: records of any measurements; records that measure no table are skipped.
        accuracies: the measurement that robust accuracies are taken from: 'pgd' as in print, 'many' with more images,
            'starts' with five random starts, or 'strong' after APGD.
        together: let all methods have one schedule, the one with the most methods, so that they can be held against
            each other; or let each method have the first of `SCHEDULES` that it has.

    Raises:
        ValueError: two records of the same measurement on different copies of the data; choose one by keeping only
            that record in the folder.
        records.RecordError: a record with impossible numbers, see `records.fault`.
    """
    measured: dict[tuple, dict[tuple, dict[int, dict]]] = {}
    titles: dict[tuple, str] = {}
    schedules: dict[tuple, dict[str, set[str]]] = {}
    for record in _with_the_papers_images(all_records, (accuracies, "aai", "isa", "unforeseen")):
        s = record.settings
        unit = (s["dataset"], s["model"], s["networks"])
        if titles.setdefault(unit, s["title"]) != s["title"]:
            raise ValueError(
                f"{' / '.join(unit)} was measured on {titles[unit]!r} and on {s['title']!r}; keep one of the records."
            )
        for row in record.rows:
            if row.get("gamma", GAMMA) != GAMMA or row.get("starts", STARTS) != STARTS:
                continue
            run = run_of(s["measurement"], row)
            if "schedule" in row:  # Table 1 has Normal only: its networks may have another schedule than the others'
                schedules.setdefault((*unit, run[0]), {}).setdefault(row["schedule"], set()).add(row["method"])
            key = (*unit, row["method"], *run)
            network = tuple(row.get(label) for label in records.NETWORK_LABELS)
            # A network that two records measure, with other lists of eps for instance, counts once.
            draws = measured.setdefault(key, {}).setdefault(network, {})
            draws.setdefault(row.get("draw", 0), row)
    chosen = {key: _schedules(methods, together) for key, methods in schedules.items()}
    cells = []
    for row in paper.paper_tables():
        cell, run = {**row, "outcomes": {}}, wanted_run(row) or ()
        printed = Cell(**row)
        # The method column of Table 1 names an interpreter; its network is always Normal.
        method, owner = ("Normal", "Normal") if row["table"] == "1" else (printed.method, printed.owner)
        wanted = [("released", method), ("ours", owner), ("corrected", owner)]
        for column, method in wanted if run else ():
            unit = (DATASETS[row["dataset"]], printed.architecture.lower(), "ours" if column == "ours" else "released")
            of_networks = [averaged(list(draws.values())) for draws in measured.get((*unit, method, *run), {}).values()]
            schedule = chosen.get((*unit, run[0]), {}).get(method)
            rows = [row for row in of_networks if row.get("schedule") == schedule]
            results = [(value, r) for r in rows if (value := value_of(row, r)) is not None]
            if results:
                values, rows = [value for value, _ in results], [r for _, r in results]
                if column == "ours":
                    cell |= {"schedule": schedule, "spread": stdev(values) if len(values) > 1 else None}
                n = sum(r["n"] for r in rows)
                # fsum rounds once, so that the mean does not depend on the order of the records.
                cell[column] = math.fsum(value * r["n"] for value, r in results) / n
                cell.setdefault("n_ours" if column == "ours" else "n", n)
                cell.setdefault("copy", titles[unit])
                if column == "released":
                    cell["noise"] = rows[0].get("noise")
                if all("outcomes" in r and r["n"] == rows[0]["n"] for r in rows):
                    per_network = [r["outcomes"] for r in rows]
                    cell["outcomes"][column] = tuple(sum(image) / len(rows) for image in zip(*per_network, strict=True))
        cells.append(Cell(**cell))
    return cells


def counts(cells: Iterable[Cell], source: str = "corrected") -> list[dict]:
    """Count verdicts and summarise differences, in one row for each table, dataset and architecture with values.

    A part of a table is left out if each of its values rests on a single image: one image measures no mean.

    Args:
        source: 'corrected' (the released networks under their right names), 'released' (under the printed names)
            or 'ours', which has two more columns: the mean distance to the released networks' values, under the right
            names, and the mean standard deviation between seeds; each is None where it cannot be computed.
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
                {
                    "table": table,
                    "dataset": dataset,
                    "model": model,
                    "copy": next(c.copy for c in group if c.copy),
                    "values": len(differences),
                    "exact": verdicts.count("exact"),
                    "one image": verdicts.count("one image"),
                    "close": verdicts.count("close"),
                    "other": verdicts.count("other"),
                    "not measured": verdicts.count(""),
                    "mean |diff|": fmean(differences),
                    "max |diff|": max(differences),
                }
            )
            if source == "ours":
                distances = [abs(c.ours - c.corrected) for c in group if c.ours is not None and c.corrected is not None]
                spreads = [cell.spread for cell in group if cell.spread is not None]
                rows[-1] |= {
                    "to released": fmean(distances) if distances else None,
                    "spread": fmean(spreads) if spreads else None,
                }
    return rows
