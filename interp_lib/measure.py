"""One table of the paper, measured: which networks it needs, with which attack, and the record that comes out.

A record grows network by network and is written after each, so that an interrupted run loses one network at most
and a second run of the same settings does only what is missing.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import data, networks, records, released
from .evaluation import pgd_accuracy
from .models import GlobalPoolNetwork

MNIST_EPS = (0, 0.05, 0.1, 0.2, 0.3)
CIFAR_EPS = (0, 2 / 255, 4 / 255, 6 / 255, 8 / 255)
STEPS = (1, 10, 100, 200)
PGD_EPS = {
    ("mnist", "small"): (*MNIST_EPS, 0.35, 0.4),
    ("mnist", "pool"): MNIST_EPS,
    ("cifar10", "small"): CIFAR_EPS,
    ("cifar10", "wresnet"): (*CIFAR_EPS, 9 / 255, 10 / 255),
    ("digits", "small"): (*MNIST_EPS, 0.35, 0.4),
}
MAIN = (("mnist", "small"), ("cifar10", "wresnet"))
APPENDIX = (("mnist", "pool"), ("cifar10", "small"))
TABLES = {"table3": MAIN, "table4": MAIN, "A1": APPENDIX, "A2": APPENDIX, "A3": APPENDIX}


@dataclass(frozen=True)
class Network:
    """A network to measure: its labels (the first columns of its rows), its weights' fingerprint and how to load it."""

    dataset: str
    model: str
    labels: dict
    path: Path

    def load(self) -> GlobalPoolNetwork:
        if self.path.suffix == ".pkl":
            return released.read_network(self.path)
        return networks.load(self.path)[0]


def find_networks(source: str, folder: str | Path | None = None) -> Iterator[Network]:
    """The networks of a source, in the order of the paper's tables.

    Args:
        source: 'released' or 'ours'.
        folder: where they are; for 'released' see `released.released_dir`, for 'ours' the folder networks/.

    Raises:
        FileNotFoundError: no folder of released networks.
        ValueError: an unknown source.
    """
    if source == "released":
        for dataset, model, method in released.available(folder):
            yield Network(dataset, model, {"method": method}, released.find(dataset, model, method, folder))
    elif source == "ours":
        hows = [(networks.load(path)[1], path) for path in networks.available(folder or networks.NETWORKS)]
        for how, path in sorted(hows, key=lambda pair: (released.METHODS.index(pair[0]["method"]), pair[0]["seed"])):
            labels = {key: how[key] for key in ("method", "seed", "schedule")}
            yield Network(how["dataset"], how["model"], labels, path)
    else:
        raise ValueError(f"networks are 'released' or 'ours'; got {source!r}.")


def pgd_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    folder: str | Path = records.RESULTS,
    n: int = 200,
    device: str = "cpu",
) -> Path:
    """Measures accuracy under PGD of all networks of one dataset and architecture, and writes the record.

    The settings are those of the paper's evaluation: the 200 images of `Dataset.evaluation_subset`, steps of 0.01,
    no random start. Rows that the record already holds are kept; those of a network whose weights have changed
    are measured anew.

    Returns:
        The record's path.
    """
    eps = PGD_EPS[dataset.name, model]
    settings = {
        "measurement": "pgd", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": source,
        "attack": {"name": "pgd", "loss": "cross-entropy", "norm": "linf", "alpha": 0.01, "random_start": False,
                   "eps": list(eps), "steps": list(STEPS)},
    }  # fmt: skip
    record = records.Record(f"pgd-{dataset.name}-{model}-{source}", settings)
    path = Path(folder) / f"{record.name}.json"
    if path.exists():
        record = records.read(path)
    subset = dataset.evaluation_subset(n)
    x, y = subset.x.to(device), subset.y.to(device)
    for network in found:
        loaded = network.load().to(device)
        weights = released.fingerprint(loaded)
        held = [row for row in record.rows if all(row[key] == value for key, value in network.labels.items())]
        if held and all(row["weights"] == weights for row in held):
            continue
        description = f"PGD  {dataset.name} {model} {network.labels['method']}"
        total = len([e for e in eps if e]) * max(STEPS)
        began = time.perf_counter()
        with tqdm(total=total, desc=f"{description:36}", unit="step", disable=None, file=sys.stderr) as bar:
            rows = pgd_accuracy(loaded, x, y, eps=eps, steps=STEPS, progress=bar.update)
        seconds = record.provenance.get("seconds", 0.0) + time.perf_counter() - began
        record.rows = [row for row in record.rows if row not in held]
        record.rows += [{**network.labels, "weights": weights, **row} for row in rows]
        record.rows.sort(key=lambda row: (released.METHODS.index(row["method"]), row.get("seed", 0)))
        record.provenance = records.provenance(seconds, device)
        records.write(record, folder)
    return path


def measure(
    table: str,
    source: str = "released",
    *,
    data_dir: str | Path | None = None,
    networks_dir: str | Path | None = None,
    folder: str | Path = records.RESULTS,
    device: str | None = None,
) -> list[Path]:
    """Measures one of the paper's tables: `table3`, `table4`, `A1`, `A2` or `A3`.

    Tables 3 and 4, and Tables A1 to A3, rest on the same runs; the second costs nothing after the first.

    Returns:
        The paths of the records that the table needs.

    Raises:
        ValueError: an unknown table.
        FileNotFoundError: none of the networks that the table needs is there.
        data.DataError: the dataset is missing or wrong.
    """
    by_lower = {name.lower(): name for name in TABLES}
    if table.lower() not in by_lower:
        raise ValueError(f"unknown table {table!r}; known are {', '.join(TABLES)}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    everything, paths = list(find_networks(source, networks_dir)), []
    for dataset, model in TABLES[by_lower[table.lower()]]:
        found = [network for network in everything if (network.dataset, network.model) == (dataset, model)]
        if found:
            paths.append(
                pgd_record(data.load(dataset, data_dir), model, found, source, folder=folder, device=device)
            )
    if not paths:
        raise FileNotFoundError(f"No {source} network of {', '.join(map('/'.join, TABLES[by_lower[table.lower()]]))}.")
    return paths
