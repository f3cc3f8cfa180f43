"""Measure cells of the printed tables again, drawn at random, and compare them with the records they come from."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import data, paper
from ..data import Dataset
from ..models.predict import fingerprint
from . import accuracy, isa_scores, rank_correlation, records, unforeseen
from .compare import CLOSE_TAU, Cell, _with_the_papers_images
from .runs import run_of, value_of, wanted_run
from .sweep import Network, Part, Plan, Task, find_networks

PLANS: dict[str, Callable[..., Iterable[Plan]]] = {
    "pgd": accuracy.pgd_plan,
    "aai": rank_correlation.aai_plan,
    "isa": isa_scores.isa_plan,
    "unforeseen": unforeseen.unforeseen_plan,
}

LONGEST = 30.0  # seconds a cell may take, by its record's own time, unless more are asked for

FEWEST = 7  # images a rank correlation must rest on: with fewer, one image more or less decides it

# What rounding moves on another processor, in images: `rounding` has it for Pool, whose max-pool has ties.
IMAGES = {"small": 1, "pool": 2, "wresnet": 2}
SCORE = 0.01  # of an NDS or NSL, relative


class Disagreement(RuntimeError):
    """A cell that was measured again differs from its record by more than rounding."""


@dataclass(frozen=True)
class Drawn:
    """A printed cell, and the row of a record that it rests on.

    Attributes:
        cell: the printed cell.
        record: the record.
        row: its row; for Table 5 that of the first of ten random starts.
        seconds: what the cell took, by the record's own time.
    """

    cell: Cell
    record: records.Record
    row: dict
    seconds: float

    @property
    def group(self) -> tuple:
        """Cells of one group are measured in one go: same record, same network; of Tables 1 and 5 also the same row."""
        measurement = self.record.settings["measurement"]
        row = () if measurement in ("pgd", "aai") else run_of(measurement, self.row)
        return self.record.name, self.row["method"], row

    @property
    def recorded(self) -> float | None:
        return value_of(vars(self.cell), self.row)

    def tolerance(self) -> float:
        """Return by how much rounding may move the value."""
        if self.cell.metric.startswith("tau"):
            return CLOSE_TAU
        if self.cell.table == "1":
            return SCORE * abs(self.recorded or 0)
        return IMAGES[self.record.settings["model"]] / self.row["n"] + 1e-9


class Checked(NamedTuple):
    """A drawn cell, the value measured again, and the verdict: 'equal', 'rounding' or 'differs'."""

    drawn: Drawn
    again: float | None
    verdict: str


def verifiable(
    all_records: Iterable[records.Record],
    *,
    tables: Sequence[str] = (),
    model: str | None = None,
    longest: float = LONGEST,
) -> list[Drawn]:
    """List the printed cells that a record of the released networks measures, and that can be measured again in time.

    Args:
        tables: only cells of these tables, '1' to '5' and 'A1' to 'A5'; all if empty.
        model: only cells of this architecture.
        longest: leave out cells that took longer, in seconds, by their record's own time.

    Raises:
        ValueError: an unknown table or architecture.
    """
    printed = paper.paper_tables()
    known = {row["table"].lower(): row["table"] for row in printed}
    for table in tables:
        if table.lower() not in known:
            raise ValueError(f"the paper has no Table {table}; it has {', '.join(known.values())}.")
    if model not in (None, *paper.ARCHITECTURE_TITLES):
        raise ValueError(f"model must be one of {', '.join(paper.ARCHITECTURE_TITLES)}; got {model!r}.")
    index: dict[tuple, list[tuple[records.Record, dict, float]]] = {}
    for record in _with_the_papers_images(all_records, tuple(PLANS)):
        settings = record.settings
        if settings["networks"] == "released":
            seconds = record.provenance.get("seconds", 0.0) / max(_runs(record), 1)
            for row in record.rows:
                key = settings["dataset"], settings["model"], row["method"], *run_of(settings["measurement"], row)
                index.setdefault(key, []).append((record, row, seconds))
    found = []
    for row in printed:
        cell = Cell(**row)
        method = "Normal" if cell.table == "1" else cell.owner
        key = paper.DATASETS[cell.dataset], cell.architecture.lower(), method, *(wanted_run(row) or ())
        for record, measured, seconds in index.get(key, ())[:1]:
            drawn = Drawn(cell, record, measured, seconds)
            enough = not cell.metric.startswith("tau") or measured["n"] >= FEWEST
            asked = not tables or cell.table.lower() in {table.lower() for table in tables}
            fits = asked and model in (None, cell.architecture.lower()) and seconds <= longest
            if fits and enough and drawn.recorded is not None:
                found.append(drawn)
    return found


def _runs(record: records.Record) -> int:
    """Count the attacks behind a record's rows: PGD gives every number of steps in one run, and none at eps 0."""
    if record.settings["measurement"] != "pgd":
        return len(record.rows)
    return len({(row["method"], row["eps"]) for row in record.rows if row["eps"]})


def draw(cells: Sequence[Drawn], count: int, seed: int) -> list[Drawn]:
    """Draw cells without replacement, all of them if there are no more, and order them by group."""
    chosen = random.Random(seed).sample(list(cells), min(count, len(cells)))
    return sorted(chosen, key=lambda drawn: tuple(map(str, drawn.group)))


def check(
    drawn: Sequence[Drawn],
    *,
    data_dir: str | Path | None = None,
    networks_dir: str | Path | None = None,
    device: str = "cpu",
    datasets: dict[str, Dataset] | None = None,
) -> Iterator[Checked]:
    """Measure drawn cells again, group by group, with the settings of their records, and compare.

    Args:
        drawn: from `draw`.
        data_dir, networks_dir: see `data.load` and `sweep.find_networks`.
        device: 'cpu' or 'cuda'.
        datasets: name -> dataset, for those that are loaded already.

    Yields:
        One result for each cell, as it comes.

    Raises:
        FileNotFoundError: a released network is not there.
        data.DataError: a dataset is not there; nothing is downloaded.
        ValueError: data, weights or settings are not those of the record.
    """
    loaded = {} if datasets is None else dict(datasets)
    networks = {(n.dataset, n.model, n.labels["method"]): n for n in find_networks("released", networks_dir)}
    groups: dict[tuple, list[Drawn]] = {}
    for one in drawn:
        groups.setdefault(one.group, []).append(one)
    for group in groups.values():
        settings, method = group[0].record.settings, group[0].row["method"]
        name, model = settings["dataset"], settings["model"]
        if name not in loaded:
            loaded[name] = data.load(name, data_dir, download=False)
        if (name, model, method) not in networks:
            raise FileNotFoundError(f"the released network {name} / {model} / {method} is not in that folder.")
        rows = _measured(group, loaded[name], networks[name, model, method], device)
        for one in group:
            key = run_of(settings["measurement"], one.row)
            row = next(row for row in rows if run_of(settings["measurement"], row) == key)
            again, before = value_of(vars(one.cell), row), one.recorded
            assert before is not None  # `verifiable` leaves out cells without a value
            apart = float("inf") if again is None else abs(again - before)
            yield Checked(
                one, again, "equal" if apart < 1e-6 else "rounding" if apart <= one.tolerance() else "differs"
            )


def _measured(group: Sequence[Drawn], dataset: Dataset, network: Network, device: str) -> list[dict]:
    """Return the rows of a group, measured anew; refuse data, weights or settings that are not the record's."""
    record, first = group[0].record, group[0].row
    settings, attack = record.settings, record.settings["attack"]
    measurement = settings["measurement"]
    part = Part(dataset, settings["model"], [network], "released", device=device)
    options: dict[str, Any] = {"n": settings["subset"]["n"]}
    if measurement in ("pgd", "aai"):
        options |= {"eps": attack["eps"], "steps": attack["steps"]}
    if measurement == "aai":
        options["interpreter"] = settings["interpreter"]
    if measurement == "isa":
        options |= {"interpreters": settings["interpreters"], "penalties": attack["penalties"]}
    if measurement == "unforeseen":
        options |= {"steps": attack["steps"], "draws": attack["draws"]["table"], "fewer": attack["draws"]["others"]}
    (whole,) = PLANS[measurement](part, **options)
    if whole.settings != settings:
        differ = sorted(key for key in whole.settings | settings if whole.settings.get(key) != settings.get(key))
        raise ValueError(f"{record.name} has other settings than this code, or other data: {', '.join(differ)}.")
    model = network.load().to(device)
    if fingerprint(model) != first["weights"]:
        raise ValueError(f"{network.path} has other weights than the network that {record.name} measured.")
    if measurement == "unforeseen":
        subset = dataset.evaluation_subset(options["n"]).to(device)
        which = {"attack": first["attack"], "form": first["form"], "draws": [first["draw"]]}
        return unforeseen.unforeseen_rows(model, subset, steps=attack["steps"], **which)
    if measurement == "isa":
        norm, classes = first["measure"].split(":")
        options |= {"interpreters": [first["interpreter"]], "norms": [int(norm[1:])], "class_sets": [classes]}
    else:
        options["eps"] = sorted({one.row["eps"] for one in group})
    if measurement == "pgd":
        options["steps"] = sorted({one.row["steps"] for one in group})
    (plan,) = PLANS[measurement](part, **options)
    *_, rows = plan.rows(Task(model, network.labels, [], lambda _: None))
    return rows


def verify(
    all_records: Iterable[records.Record],
    *,
    cells: int = 30,
    seed: int = 0,
    tables: Sequence[str] = (),
    model: str | None = None,
    longest: float = LONGEST,
    report: Callable[[str], object] = print,
    **places,
) -> list[Checked]:
    """Draw cells, measure them again, report each as it comes, and count.

    Args:
        cells: how many to draw.
        seed: of the draw.
        tables, model, longest: see `verifiable`.
        report: called with every line.
        places: see `check`.

    Raises:
        Disagreement: a cell differs by more than rounding.
        ValueError: no cell is left to draw from; also what `check` raises.
    """
    able = verifiable(all_records, tables=tables, model=model, longest=longest)
    if not able:
        raise ValueError("no record has a cell to draw: name other tables, raise --longest, or look at --results-dir.")
    drawn = draw(able, cells, seed)
    took = sum({(one.group, one.row.get("eps")): one.seconds for one in drawn}.values())
    report(f"seed {seed}: {len(drawn)} of {len(able)} cells; about {took / 60:.1f} minutes, by the records' own times")
    done, began = [], time.perf_counter()
    for number, one in enumerate(check(drawn, **places), 1):
        done.append(one)
        report(f"{number:3}/{len(drawn)}  {_line(one)}")
    count = {verdict: sum(one.verdict == verdict for one in done) for verdict in ("equal", "rounding", "differs")}
    summary = f"{count['equal']} equal, {count['rounding']} within rounding, {count['differs']} different"
    report(f"{summary}; {time.perf_counter() - began:.0f} s")
    if count["differs"]:
        raise Disagreement(f"{count['differs']} of {len(done)} cells differ from their records by more than rounding.")
    return done


def _line(one: Checked) -> str:
    cell = one.drawn.cell
    where = f"Table {cell.table}, {cell.dataset} {cell.architecture}, {cell.method}, {cell.metric} {cell.level}"
    again = "none" if one.again is None else f"{one.again:.4f}"
    return f"{where:66} printed {cell.value:>6}  record {one.drawn.recorded:.4f}  again {again:>7}  {one.verdict}"
