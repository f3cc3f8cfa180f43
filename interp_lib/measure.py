"""One table of the paper, measured: which networks it needs, with which attack, and the record that comes out.

A record grows network by network and is written after each, so that an interrupted run loses one network at most
and a second run of the same settings does only what is missing.
"""

import copy
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import compare, data, networks, records, released
from .attacks.pgd import pgd_iterates
from .evaluation import count_correct, pgd_accuracy, proportion
from .models import GlobalPoolNetwork, SameConv2d

MNIST_EPS = (0, 0.05, 0.1, 0.2, 0.3)
CIFAR_EPS = (0, 2 / 255, 4 / 255, 6 / 255, 8 / 255)
STEPS = (1, 10, 100, 200)
PGD_EPS = {
    ("mnist", "small"): (*MNIST_EPS, 0.35, 0.4),
    ("mnist", "pool"): MNIST_EPS,
    ("cifar10", "small"): CIFAR_EPS,
    ("cifar10", "wresnet"): (*CIFAR_EPS, 9 / 255, 10 / 255),
    ("digits", "small"): (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
}
MAIN = (("mnist", "small"), ("cifar10", "wresnet"))
APPENDIX = (("mnist", "pool"), ("cifar10", "small"))
TABLES = {
    "table3": MAIN, "table4": MAIN, "A1": APPENDIX, "A2": APPENDIX, "A3": APPENDIX,
    "fgsm": (("mnist", "small"),), "digits": (("digits", "small"),),
}  # fmt: skip


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


def fgsm_accuracy(model: GlobalPoolNetwork, x, y, *, eps: Sequence[float], progress=None) -> list[dict]:
    """Accuracy after one step of the full size, alpha = eps; rows as of `evaluation.pgd_accuracy`."""
    return [row for e in eps for row in pgd_accuracy(model, x, y, eps=[e], steps=[1], alpha=e, progress=progress)]


@contextmanager
def rounded_differently(model: GlobalPoolNetwork, generator: torch.Generator, scale: float) -> Iterator[None]:
    """Convolutions of `model` with noise of `scale` times their mean magnitude: another processor's rounding.

    Where an image is flat so are its feature maps, and a max-pool sees exactly equal maxima. Which of them gets the
    gradient is then the library's choice, and on hardware that rounds differently it is chance.
    """

    def hook(_, __, h):
        return h + scale * h.detach().abs().mean() * torch.randn(h.shape, generator=generator)

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, SameConv2d)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rounding_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    cells: Iterable[tuple[str, float]],
    *,
    folder: str | Path = records.RESULTS,
    draws: int = 3,
    scale: float = 1e-6,
    n: int = 200,
) -> Path:
    """How much rounding alone moves an accuracy under PGD: the attack again, `draws` times, with other rounding.

    Args:
        cells: (method, eps) to measure; of each the accuracy after 10, 100 and 200 steps.
        scale: of the noise, relative to a layer's mean magnitude; float32 rounds at 6e-8 a multiplication.

    Returns:
        The record's path; a row has method, eps, steps, draw, correct, n, accuracy, se.
    """
    settings = {
        "measurement": "rounding", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": "released",
        "attack": {"name": "pgd", "alpha": 0.01, "steps": list(STEPS[1:])}, "draws": draws, "scale": scale,
    }  # fmt: skip
    record = records.Record(f"rounding-{dataset.name}-{model}-released", settings)
    path = Path(folder) / f"{record.name}.json"
    if path.exists():
        record = records.read(path)
    subset = dataset.evaluation_subset(n)
    by_method = {network.labels["method"]: network for network in found}
    held = {(row["method"], row["eps"], row["draw"]) for row in record.rows}
    wanted = [(method, eps, draw) for method, eps in cells for draw in range(draws)]
    began, before = time.perf_counter(), record.provenance.get("seconds", 0.0)
    for method, eps, draw in tqdm([w for w in wanted if w not in held], desc="rounding", unit="run", disable=None):
        plain = by_method[method].load()
        noisy, generator = copy.deepcopy(plain), torch.Generator().manual_seed(draw)
        with rounded_differently(noisy, generator, scale):
            run = pgd_iterates(noisy, subset.x, subset.y, eps=eps, alpha=0.01, steps=max(STEPS))
            stops = {k: x_adv for k, x_adv in enumerate(run, 1) if k in STEPS[1:]}
        for k, x_adv in stops.items():
            correct = count_correct(plain, x_adv, subset.y)
            record.rows.append({"method": method, "eps": eps, "steps": k, "draw": draw, **proportion(correct, n)})
        record.provenance = records.provenance(before + time.perf_counter() - began)
        records.write(record, folder)
    return path


def accuracy_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    attack: str = "pgd",
    folder: str | Path = records.RESULTS,
    n: int = 200,
    device: str = "cpu",
) -> Path:
    """Measures the accuracy of all networks of one dataset and architecture under an attack, and writes the record.

    'pgd' takes steps of 0.01 for every eps and number of steps of the tables; 'fgsm' takes one step of eps. Images
    are those of `Dataset.evaluation_subset`; there is no random start. Rows that the record already holds are kept;
    those of a network whose weights have changed are measured anew.

    Returns:
        The record's path.
    """
    eps = PGD_EPS[dataset.name, model]
    settings = {
        "measurement": attack, "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": source,
        "attack": {"name": attack, "loss": "cross-entropy", "norm": "linf", "random_start": False, "eps": list(eps),
                   **({"alpha": 0.01, "steps": list(STEPS)} if attack == "pgd" else {"alpha": "eps", "steps": [1]})},
    }  # fmt: skip
    record = records.Record(f"{attack}-{dataset.name}-{model}-{source}", settings)
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
        description = f"{attack.upper()}  {dataset.name} {model} {network.labels['method']}"
        total = len([e for e in eps if e]) * (max(STEPS) if attack == "pgd" else 1)
        began = time.perf_counter()
        with tqdm(total=total, desc=f"{description:36}", unit="step", disable=None, file=sys.stderr) as bar:
            if attack == "pgd":
                rows = pgd_accuracy(loaded, x, y, eps=eps, steps=STEPS, progress=bar.update)
            else:
                rows = fgsm_accuracy(loaded, x, y, eps=eps, progress=bar.update)
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
    """Measures one of the paper's tables, `table3`, `table4`, `A1`, `A2` or `A3`, or what it leaves out.

    Tables 3 and 4, and Tables A1 to A3, rest on the same runs; the second costs nothing after the first. `fgsm` is
    one step of the full size on the networks of Table 3, `digits` the same experiment as Table 3 on digits, `rounding`
    the Pool values of Tables A1 to A3 that did not come out as printed, under other rounding.

    Returns:
        The paths of the records that the table needs.

    Raises:
        ValueError: an unknown table.
        FileNotFoundError: none of the networks that the table needs is there.
        data.DataError: the dataset is missing or wrong.
    """
    if table.lower() == "rounding":
        return [_rounding(data_dir, networks_dir, folder)]
    by_lower = {name.lower(): name for name in TABLES}
    if table.lower() not in by_lower:
        raise ValueError(f"unknown table {table!r}; known are {', '.join(TABLES)}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    everything, paths = list(find_networks(source, networks_dir)), []
    for dataset, model in TABLES[by_lower[table.lower()]]:
        found = [network for network in everything if (network.dataset, network.model) == (dataset, model)]
        if found:
            attack = "fgsm" if table.lower() == "fgsm" else "pgd"
            loaded = data.load(dataset, data_dir)
            paths.append(accuracy_record(loaded, model, found, source, attack=attack, folder=folder, device=device))
    if not paths:
        raise FileNotFoundError(f"No {source} network of {', '.join(map('/'.join, TABLES[by_lower[table.lower()]]))}.")
    return paths


def _rounding(data_dir, networks_dir, folder) -> Path:
    """`rounding_record` of the Pool cells that the records in `folder` have and that are not as printed."""
    off = [
        c for c in compare.compare(records.read_all(folder)) if c.model == "Pool" and c.verdict() not in ("", "exact")
    ]
    if not off:
        raise FileNotFoundError(f"No Pool value in {folder} differs from print; measure A1 first.")
    found = [n for n in find_networks("released", networks_dir) if (n.dataset, n.model) == ("mnist", "pool")]
    cells = sorted({(c.method, compare.eps_of(c.level)) for c in off if c.table in ("A1", "A2", "A3")})
    return rounding_record(data.load("mnist", data_dir), "pool", found, cells, folder=folder)
