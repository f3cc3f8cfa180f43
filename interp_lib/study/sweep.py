"""Run one measurement on many networks, and add its rows to one record as they come."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from .. import paper, storage
from ..data import Dataset
from ..models import predict, released, trained
from ..models.architectures import GlobalPoolNetwork
from ..models.names import NETWORKS
from . import records

# The types of what the .json beside one of our networks says.
DESCRIPTION: dict[str, type | tuple[type, ...]] = {
    "dataset": str,
    "method": str,
    "schedule": str,
    "seed": int,
    "gamma": (int, float),
}


@dataclass(frozen=True)
class Network:
    """A network to measure: dataset, architecture, labels (the first columns of its rows) and the file to load."""

    dataset: str
    model: str
    labels: dict
    path: Path

    def load(self) -> GlobalPoolNetwork:
        if self.path.suffix == ".pkl":
            return released.read_network(self.path)
        return trained.load(self.path)[0]


def find_networks(source: str, folder: str | Path | None = None) -> Iterator[Network]:
    """Yield the networks of a source, in the order of the paper's tables.

    Args:
        source: 'released', the released networks of the tables; 'sweeps', the release's networks with other gammas,
            radii, runs or epochs, see `released.other_networks`; or 'ours', the networks that we trained.
        folder: the folder with the networks; default: see `released.released_dir`, and networks/ for 'ours'.

    Raises:
        FileNotFoundError: no folder of released networks.
        trained.NetworkError: the .json of one of our networks lacks a description, or has one of the wrong type.
        ValueError: unknown source.
    """
    if source == "released":
        for dataset, model, method in released.available(folder):
            yield Network(dataset, model, {"method": method}, released.find(dataset, model, method, folder))
    elif source == "sweeps":
        for other in released.other_networks(folder):
            labels = {key: getattr(other, key) for key in ("method", "gamma", "radius", "run", "epochs")}
            labels = {key: value for key, value in labels.items() if value is not None}
            yield Network(other.dataset, other.model, labels, other.path)
    elif source == "ours":
        hows = [(trained.load(path)[1], path) for path in trained.available(folder or NETWORKS)]
        for how, path in hows:
            if missing := sorted({"dataset", "method"} - how.keys()):
                raise trained.NetworkError(f"{path}: the .json beside it does not say {' and '.join(missing)}.")
            for key in DESCRIPTION.keys() & how.keys():
                if isinstance(how[key], bool) or not isinstance(how[key], DESCRIPTION[key]):
                    raise trained.NetworkError(f"{path}: the .json beside it says {key} {how[key]!r}.")
        for how, path in sorted(hows, key=lambda pair: row_order(pair[0])):
            labels = {key: how[key] for key in ("method", "seed", "schedule", "gamma") if key in how}
            yield Network(how["dataset"], how["model"], labels, path)
    else:
        raise ValueError(f"networks are 'released', 'sweeps' or 'ours'; got {source!r}.")


def row_order(row: dict) -> tuple:
    """Return the sort key of a row: the order of the paper's methods, then other methods, then the other labels."""
    method = row["method"]
    position = released.METHODS.index(method) if method in released.METHODS else len(released.METHODS)
    varied = row.get("schedule", ""), row.get("radius", 0), row.get("gamma", paper.GAMMA), row.get("seed", 0)
    return position, method, *varied, row.get("run", 0), row.get("epochs", 0)


class Part(NamedTuple):
    """What a measurement measures at a time: networks of one architecture, trained on one dataset.

    Attributes:
        dataset: the dataset, on the CPU.
        model: the architecture, 'small', 'pool' or 'wresnet'.
        networks: the networks.
        source: where they come from, see `find_networks`.
        folder: the folder of the records.
        device: the device to measure on.
    """

    dataset: Dataset
    model: str
    networks: Sequence[Network]
    source: str
    folder: str | Path = records.RESULTS
    device: str = "cpu"


class Task(NamedTuple):
    """What a measurement is given of one network: the loaded network, its labels, its rows in the record, a callback.

    `progress` is called with the number of steps done since its last call.
    """

    model: GlobalPoolNetwork
    labels: dict
    held: list[dict]
    progress: Callable[[int], object]


class Plan(NamedTuple):
    """How the networks of a part are measured.

    Attributes:
        settings: the record's settings, see `header`: everything that decides the numbers.
        rows: task -> iterator over the network's complete list of rows, whenever new rows are ready; see `once`.
        total: number of steps for one network, in `unit`; None if it is not known.
        unit: the unit of the progress bar.
        labelled: add the network's labels and the fingerprint of its weights to its rows. Without them, the settings
            say which network it is.
    """

    settings: dict
    rows: Callable[[Task], Iterable[list[dict]]]
    total: int | None
    unit: str = "step"
    labelled: bool = True


def header(
    measurement: str, part: Part, *, n: int | None = None, seed: int = 99, split: str = "test", **settings
) -> dict:
    """Return the settings of a record, which begin with what all records state.

    Args:
        measurement: the name of the measurement, with which the name of the record begins.
        n, seed: the evaluation subset; no n for a measurement without one.
        split: 'train' for the first n training images in the place of the subset.
        settings: further settings.
    """
    images = {"n": n, "split": split} if split == "train" else {"n": n, "seed": seed}
    subset = {} if n is None else {"subset": images}
    return {
        "measurement": measurement,
        "dataset": part.dataset.name,
        "title": part.dataset.title,
        "data": part.dataset.fingerprint,
        **subset,
        "model": part.model,
        "networks": part.source,
        **settings,
    }


def once(
    rows_of: Callable[[GlobalPoolNetwork, Callable[[int], object]], list[dict]],
) -> Callable[[Task], Iterator[list[dict]]]:
    """Adapt a measurement that returns all rows at once: skip it when the record already has the network's rows."""

    def rows(task: Task) -> Iterator[list[dict]]:
        if not task.held:
            yield rows_of(task.model, task.progress)

    return rows


def grow(plan: Plan, part: Part, until: float = math.inf) -> Path:
    """Measure every network of a part that is not yet in its record; write the record whenever rows come.

    Args:
        until: stop after the first write at which `time.monotonic()` has reached this; the same call goes on then.

    Returns:
        The record's path.

    Raises:
        ValueError: two files with the same labels, or a network that cannot be measured; the message names the file.
            The rows measured before it are in the record.
        OSError: the folder cannot be written to.
    """
    settings, folder = plan.settings, part.folder
    measurement, dataset, model, source = (settings[key] for key in ("measurement", "dataset", "model", "networks"))
    described: dict[str, Path] = {}
    for network in part.networks:
        words = ", ".join(f"{key} {value}" for key, value in network.labels.items())
        if (first := described.setdefault(words, network.path)) != network.path:
            raise ValueError(
                f"{first} and {network.path} would share a line, since both are {dataset}, {model}, {words}; "
                "move one of them away, or train it with another seed."
            )
    empty = records.Record(f"{measurement}-{dataset}-{model}-{source}", settings)
    path = storage.ready_folder(folder) / f"{empty.name}.json"
    # Read again before each write, under a lock: another process may be adding other networks to the same record.
    current = lambda: records.read(path) if path.exists() else records.Record(empty.family, settings)
    before = current().provenance
    for network in part.networks:
        loaded = network.load().to(part.device)
        labels = {**network.labels, "weights": predict.fingerprint(loaded)} if plan.labelled else {}
        own = [network.labels.get(name) for name in records.NETWORK_LABELS]
        ours = lambda row, own=own: not plan.labelled or own == [row.get(name) for name in records.NETWORK_LABELS]
        record = current()
        # Rows of other weights are not kept: a network trained again under its old name is measured again.
        measured = [row for row in record.rows if ours(row) and row.get("weights") == labels.get("weights")]
        description = f"{measurement.upper()}  {dataset} {model} {network.labels['method']}"
        began, spent = time.perf_counter(), record.provenance.get("seconds", 0.0)
        with (
            tqdm(
                total=plan.total, desc=f"{description:36}", unit=plan.unit, disable=None, delay=1, file=sys.stderr
            ) as bar,
            naming(network.path),
        ):
            for rows in plan.rows(Task(loaded, network.labels, measured, bar.update)):
                with storage.locked(folder):
                    record = current()
                    record.rows = [row for row in record.rows if not ours(row)] + [{**labels, **row} for row in rows]
                    if plan.labelled:
                        record.rows.sort(key=row_order)
                    seconds = spent + time.perf_counter() - began
                    record.provenance = storage.provenance(seconds, part.device, before=before)
                    records.write(record, folder)
                if time.monotonic() >= until:
                    return path
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Re-raise a ValueError or RuntimeError as a ValueError that names the network's file."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error
