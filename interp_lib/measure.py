"""One table of the paper, measured: which networks it needs, with which attack, and the record that comes out.

A record grows network by network and is written after each, that of ISAs after each measure, so that an interrupted
run loses no more than that and a second run of the same settings does only what is missing.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import compare, data, orderings, records
from .activations import ACTIVATIONS, ReplacedRelu
from .checks import check_device
from .evaluation import pgd_accuracy, pgd_accuracy_in_batches, random_start_accuracy
from .evaluation_interpretation import (
    AAI,
    BATCH,
    CLASS_SETS,
    IG_SCALE,
    MAPS,
    PENALTIES,
    PRINTED_AAI,
    aai_rows,
    isa_rows,
)
from .models import predict, released, trained
from .models.architectures import GlobalPoolNetwork
from .models.names import NETWORKS
from .models.predict import count_correct

MNIST_EPS = (0, 0.05, 0.1, 0.2, 0.3)
CIFAR_EPS = (0, 2 / 255, 4 / 255, 6 / 255, 8 / 255)
STEPS = (1, 10, 100, 200)
STARTS = (1, compare.STARTS)  # numbers of random starts
SEEN_STEPS, TRAINING_EPS = 10, {"mnist": 0.3, "cifar10": 8 / 255, "digits": 0.15}  # of the attack on training images
# From one random point in finer steps, beyond the training radius as well: what Table 3's attack may have missed.
FINE = {"steps": 40, "alpha": 1 / 255, "eps": (8 / 255, 10 / 255, 12 / 255)}
MANY = 2000  # images, where the paper's 200 leave a statement open
PGD_EPS = {
    ("mnist", "small"): (*MNIST_EPS, 0.35, 0.4),
    ("mnist", "pool"): MNIST_EPS,
    ("cifar10", "small"): CIFAR_EPS,
    ("cifar10", "wresnet"): (*CIFAR_EPS, 9 / 255, 10 / 255),
    ("digits", "small"): (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    ("restricted_imagenet", "wresnet"): (0,),
}
MAIN = (("mnist", "small"), ("cifar10", "wresnet"))
APPENDIX = (("mnist", "pool"), ("cifar10", "small"))
TABLES = {
    "table3": MAIN, "table4": MAIN, "A1": APPENDIX, "A2": APPENDIX, "A3": APPENDIX,
    "fgsm": (("mnist", "small"),), "digits": (("digits", "small"),),
    "starts": (("mnist", "small"), *APPENDIX), "many": (("mnist", "small"), ("cifar10", "small")),
    "seen": (("cifar10", "small"), ("cifar10", "wresnet")), "clean": (("restricted_imagenet", "wresnet"),),
    "aai-printed": (("mnist", "small"),), "fine": (("cifar10", "wresnet"),),
    "table2": MAIN, "A4": APPENDIX, "A5": APPENDIX,
    "table1": (("mnist", "small"), ("cifar10", "small"), ("restricted_imagenet", "wresnet")),
    "isa-again": (("mnist", "small"),), "softplus": (("mnist", "small"), ("cifar10", "small")),
}  # fmt: skip
# What a table is measured with, other than PGD: the record's family and its arguments.
INTERPRETATION = {
    "table2": ("aai", "CAM"),
    "aai-printed": ("aai-printed", "CAM"),
    "A4": ("aai", "CAM"),
    "A5": ("aai", "GradCAM++"),
    "table1": ("isa", None),
    "isa-again": ("isa-again", None),
    "softplus": ("softplus", None),
}
DESCRIPTION = {"dataset": str, "method": str, "schedule": str, "seed": int, "gamma": (int, float)}  # in a .json of ours
RowsOf = Callable[[GlobalPoolNetwork, list[dict], Callable[[int], object]], Iterable[list[dict]]]
ISA_IMAGES = 100
AGAIN = 123  # seed of another hundred images of Table 1: the one in the released script `isa_cam`
# Table 1 has no IG of R-ImageNet, and there an image takes half an hour: few are measured, the first ones.
ISA_FEW = {("restricted_imagenet", "wresnet"): 2}


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
        return trained.load(self.path)[0]


def find_networks(source: str, folder: str | Path | None = None) -> Iterator[Network]:
    """The networks of a source, in the order of the paper's tables.

    Args:
        source: 'released', those of the tables; 'sweeps', the release's networks with other gammas, radii, runs or
            epochs, see `released.other_networks`; or 'ours'.
        folder: where they are; see `released.released_dir`, for 'ours' the folder networks/.

    Raises:
        FileNotFoundError: no folder of released networks.
        ValueError: an unknown source.
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
    """Rows stand in the order of the paper's tables, other methods after them; then by what varies within a method."""
    method = row["method"]
    position = released.METHODS.index(method) if method in released.METHODS else len(released.METHODS)
    varied = row.get("schedule", ""), row.get("radius", 0), row.get("gamma", records.GAMMA), row.get("seed", 0)
    return position, method, *varied, row.get("run", 0), row.get("epochs", 0)


def fgsm_accuracy(model: GlobalPoolNetwork, x, y, *, eps: Sequence[float], progress=None) -> list[dict]:
    """Accuracy after one step of the full size, alpha = eps; rows as of `evaluation.pgd_accuracy`."""
    return [row for e in eps for row in pgd_accuracy(model, x, y, eps=[e], steps=[1], alpha=e, progress=progress)]


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

    'pgd' takes steps of 0.01 for every eps and number of steps of the tables; 'fgsm' takes one step of eps; 'starts' is
    'pgd' with 200 steps from random points instead of x itself; 'fine' is 40 finer steps from one random point; 'many'
    is 200 steps from x at the eps that the statements of `orderings` are about. Images are those of
    `Dataset.evaluation_subset`, 200 for the tables; more of them begin with the same 200. 'seen' is ten steps at the
    training radius on the first n training images, 'clean' no attack. Rows that the record already holds are kept;
    those of a network whose weights have changed are measured anew.

    Returns:
        The record's path.
    """
    eps = PGD_EPS[dataset.name, model]
    if attack == "many":
        eps = orderings.perturbation_sizes(dataset.name, model)
    elif attack == "seen":
        eps = (0, TRAINING_EPS[dataset.name])
    elif attack == "fine":
        eps = FINE["eps"]
    # The attack as the record says it, its rows, and how many steps it takes at one eps.
    last = max(STEPS)
    said, rows_of, steps = {
        "pgd": ({"random_start": False, "alpha": 0.01, "steps": list(STEPS)},
                lambda *a, **k: pgd_accuracy(*a, steps=STEPS, **k), last),
        "clean": ({"random_start": False, "alpha": 0.01, "steps": [0]},
                  lambda *a, **k: pgd_accuracy(*a, steps=[0], **k), 0),
        "fgsm": ({"random_start": False, "alpha": "eps", "steps": [1]}, fgsm_accuracy, 1),
        "starts": ({"random_start": "uniform, seed 0", "starts": list(STARTS), "alpha": 0.01, "steps": [last]},
                   lambda *a, **k: random_start_accuracy(*a, starts=STARTS, steps=last, **k), last * max(STARTS)),
        "fine": ({"random_start": "uniform, seed 0", "starts": [1], "alpha": FINE["alpha"], "steps": [FINE["steps"]]},
                 lambda *a, **k: random_start_accuracy(*a, starts=[1], steps=FINE["steps"], alpha=FINE["alpha"], **k),
                 FINE["steps"]),
        "seen": ({"random_start": False, "alpha": 0.01, "steps": [SEEN_STEPS]},
                 lambda *a, **k: pgd_accuracy(*a, steps=[SEEN_STEPS], **k), SEEN_STEPS),
        "many": ({"random_start": False, "alpha": 0.01, "steps": [last]},
                 lambda *a, **k: pgd_accuracy_in_batches(*a, steps=[last], **k), last * -(-n // 200)),
    }[attack]  # fmt: skip
    settings = {
        "measurement": attack, "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "split": "train"} if attack == "seen" else {"n": n, "seed": 99},
        "model": model, "networks": source,
        "attack": {"name": attack, "loss": "cross-entropy", "norm": "linf", "eps": list(eps), **said},
    }  # fmt: skip
    if attack == "seen":
        x, y = dataset.train.x(slice(n)), dataset.train.labels[:n]
    else:
        subset = dataset.evaluation_subset(n)
        x, y = subset.x, subset.y
    x, y = x.to(device), y.to(device)
    rows = lambda network, progress: rows_of(network, x, y, eps=eps, progress=progress)
    return grow(settings, found, once(rows), steps * len([e for e in eps if e]), folder=folder, device=device)


def aai_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    interpreter: str = "CAM",
    folder: str | Path = records.RESULTS,
    n: int = 200,
    device: str = "cpu",
) -> Path:
    """Measures rank correlations under AAI, `evaluation_interpretation.aai_rows`; arguments as `accuracy_record`."""
    eps = [e for e in PGD_EPS[dataset.name, model] if e]
    settings = {
        "measurement": "aai", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": source, "interpreter": interpreter,
        "attack": {"name": "aai", "norm": "linf", "random_start": "evaluation subset", "eps": eps, **AAI},
        "score": "Kendall's tau-b of the true class's map, images of unchanged prediction",
    }  # fmt: skip
    subset = dataset.evaluation_subset(n).to(device)
    rows = lambda network, progress: aai_rows(network, subset, eps=eps, interpreter=interpreter, progress=progress)
    return grow(settings, found, once(rows), len(eps) * AAI["steps"], folder=folder, device=device)


def printed_aai_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    folder: str | Path = records.RESULTS,
    n: int = 200,
    device: str = "cpu",
) -> Path:
    """Measures rank correlations of CAM under AAI as eq. (7) prints it, in both of its forms; see `aai_record`.

    A row says in `form` which it is: 'top-k' or 'l1'.
    """
    eps = [e for e in PGD_EPS[dataset.name, model] if e]
    settings = {
        "measurement": "aai-printed", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": source, "interpreter": "CAM",
        "attack": {"name": "aai", "norm": "linf", "random_start": "evaluation subset", "eps": eps,
                   "forms": PRINTED_AAI},
        "score": "Kendall's tau-b of the true class's map, images of unchanged prediction, and all",
    }  # fmt: skip
    subset = dataset.evaluation_subset(n).to(device)
    rows = lambda network, progress: [
        {"form": form, **row}
        for form, attack in PRINTED_AAI.items()
        for row in aai_rows(network, subset, eps=eps, attack=attack, progress=progress)
    ]
    total = sum(attack["steps"] for attack in PRINTED_AAI.values()) * len(eps)
    return grow(settings, found, once(rows), total, folder=folder, device=device)


def isa_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    interpreters: Sequence[str] = MAPS,
    images: int | None = None,
    folder: str | Path = records.RESULTS,
    n: int = ISA_IMAGES,
    seed: int = 99,
    device: str = "cpu",
) -> Path:
    """Measures NDS and NSL of ISAs, see `evaluation_interpretation.isa_rows`; arguments as `accuracy_record`.

    Args:
        interpreters: `MAPS`, or IG, which has a record of its own.
        images: how many of the n images of the subset; `measured` in a row says how many they were. More of them
            later go on with the same record.
        seed: of the subset. Other images than the tables' make another measurement, 'isa-again'.
    """
    ig = "IG" in interpreters
    settings = {
        "measurement": "isa" if seed == 99 else "isa-again",
        "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": seed}, "model": model, "networks": source, "interpreters": list(interpreters),
        "attack": {"name": "isa", "norm": "linf", "targeted": True, "settings": "released", "batch": BATCH, "steps": 10,
                   "tau": 0.1, "penalties": list(PENALTIES)},
        "score": "NDS and NSL as the released code averages them, from three numbers an image",
        **({"IG": {"activation": "softplus", "baseline": "black", "steps": 100, "rule": "right", "scale": IG_SCALE}}
           if ig else {}),
    }  # fmt: skip
    subset = dataset.evaluation_subset(n, seed=seed).to(device)
    images = min(n, ISA_FEW.get((dataset.name, model), n)) if images is None else images
    run = {"interpreters": interpreters, "images": images, "at_once": 1 if images < n else 10 if ig else None}
    rows = lambda network, held, progress: isa_rows(network, subset, held=held, progress=progress, **run)
    total = images * sum(2 * (1 if name == "Repr" else len(CLASS_SETS)) for name in interpreters)
    return grow(settings, found, rows, total, unit="image", folder=folder, device=device)


def softplus_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    source: str,
    *,
    folder: str | Path = records.RESULTS,
    n: int = ISA_IMAGES,
    device: str = "cpu",
) -> Path:
    """Measures how many images of Table 1 a network has right with softplus in the place of ReLU, as in rows IG."""
    settings = {
        "measurement": "softplus", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": source,
        "score": "images classified right, with each activation in the place of ReLU",
    }  # fmt: skip
    subset = dataset.evaluation_subset(n).to(device)

    def rows(network: GlobalPoolNetwork, progress) -> list[dict]:
        counts = []
        for name in ("relu", "softplus"):
            with ReplacedRelu(ACTIVATIONS[name]):
                counts.append({"activation": name, "correct": count_correct(network, subset.x, subset.y), "n": n})
        progress(1)
        return counts

    return grow(settings, found, once(rows), 1, folder=folder, device=device)


def once(rows_of: Callable[[GlobalPoolNetwork, Callable[[int], object]], list[dict]]) -> RowsOf:
    """For `grow`: all rows of a network at a time, or none where some are held."""
    return lambda network, held, progress: () if held else (rows_of(network, progress) for _ in range(1))


def grow(
    settings: dict,
    found: Sequence[Network],
    rows_of: RowsOf,
    total: int,
    *,
    unit: str = "step",
    folder: str | Path,
    device: str,
) -> Path:
    """Measures every network that the record of these settings does not hold yet, and writes whenever rows come.

    Args:
        settings: of the record; `measurement`, `dataset`, `model` and `networks` name its family.
        rows_of: (network, rows that the record holds of it, progress) -> all its rows, again each time that there
            are more; without labels; calls progress with the number of steps done. See `once`.
        total: steps of one network, in `unit`.

    Returns:
        The record's path.

    Raises:
        ValueError: two files of one network, or a network that cannot be measured, by name; what was measured before
            it is written.
        OSError: a folder that cannot be written to.
    """
    measurement, dataset, model, source = (settings[key] for key in ("measurement", "dataset", "model", "networks"))
    described: dict[str, Path] = {}
    for network in found:
        words = ", ".join(f"{key} {value}" for key, value in network.labels.items())
        if (first := described.setdefault(words, network.path)) != network.path:
            raise ValueError(
                f"{first} and {network.path} would share a line, since both are {dataset}, {model}, {words}; "
                "move one of them away, or train it with another seed."
            )
    empty = records.Record(f"{measurement}-{dataset}-{model}-{source}", settings)
    path = records.ready_folder(folder) / f"{empty.name}.json"
    # Read anew before every writing, and locked until it is written: a second run may measure other networks meanwhile.
    current = lambda: records.read(path) if path.exists() else records.Record(empty.family, settings)
    before = current().provenance
    for network in found:
        loaded = network.load().to(device)
        labels = {**network.labels, "weights": predict.fingerprint(loaded)}
        ours = lambda row, keys=network.labels: all(row.get(key) == value for key, value in keys.items())
        record = current()
        held = [row for row in record.rows if ours(row) and row.get("weights") == labels["weights"]]
        description = f"{measurement.upper()}  {dataset} {model} {network.labels['method']}"
        began, spent = time.perf_counter(), record.provenance.get("seconds", 0.0)
        with (
            tqdm(total=total, desc=f"{description:36}", unit=unit, disable=None, delay=1, file=sys.stderr) as bar,
            naming(network.path),
        ):
            for rows in rows_of(loaded, held, bar.update):
                with records.locked(folder):
                    record = current()
                    record.rows = [row for row in record.rows if not ours(row)] + [{**labels, **row} for row in rows]
                    record.rows.sort(key=row_order)
                    record.provenance = records.provenance(spent + time.perf_counter() - began, device, before=before)
                    records.write(record, folder)
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets an error say which file it is about."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def measure(
    table: str,
    source: str = "released",
    *,
    dataset: str | None = None,
    model: str | None = None,
    data_dir: str | Path | None = None,
    networks_dir: str | Path | None = None,
    folder: str | Path = records.RESULTS,
    device: str | None = None,
) -> list[Path]:
    """Measures one of the paper's tables, `table1` to `table4` or `A1` to `A5`, or what it leaves out.

    Tables 3 and 4, and Tables A1 to A3, rest on the same runs; the second costs nothing after the first. `fgsm` is one
    step of the full size on the networks of Table 3; `starts` is the attack of Table 3 from random points on these and
    on those of Tables A1 to A3; `fine` is one random point and finer steps on WResnet; `aai-printed` is Table 2 by eq.
    (7) with its hinge; `many` is Table 3's attack on 2,000 images for the Small networks; `seen` is ten steps at the
    training radius on training images; `clean` is no attack at all; `isa-again` is Table 1 on another hundred images,
    `softplus` what its rows IG classify; `digits` is the experiment of Table 3 on digits. Table 1 is measured on the
    Small networks, whose numbers it prints, and on R-ImageNet where its images are there.

    Args:
        table: a key of `TABLES`, in capitals or not.
        source, networks_dir: see `find_networks`.
        dataset, model: only the part of the table on this dataset, or of this architecture.

    Returns:
        The paths of the records that the table needs.

    Raises:
        ValueError: an unknown table, or one without such a part.
        FileNotFoundError: none of the networks that the table needs is there.
        data.DataError: the dataset is missing or wrong.
    """
    by_lower = {name.lower(): name for name in TABLES}
    if table.lower() not in by_lower:
        raise ValueError(f"unknown table {table!r}; known are {', '.join(TABLES)}.")
    name = by_lower[table.lower()]
    device = check_device(device)
    parts = [part for part in TABLES[name] if dataset in (None, part[0]) and model in (None, part[1])]
    if not parts:
        asked = "/".join(word for word in (dataset, model) if word)
        raise ValueError(f"{name} is measured on {', '.join(map('/'.join, TABLES[name]))}; got {asked!r}.")
    everything, paths = list(find_networks(source, networks_dir)), []
    for dataset, model in parts:
        found = [network for network in everything if (network.dataset, network.model) == (dataset, model)]
        kind, interpreter = INTERPRETATION.get(
            name, (name if name in ("fgsm", "starts", "fine", "many", "seen", "clean") else "pgd", None)
        )
        if kind in ("isa", "isa-again", "softplus"):  # Table 1 has no other
            found = [network for network in found if network.labels["method"] == "Normal"]
        if found:
            try:
                loaded = data.load(dataset, data_dir)
            except data.DataError as error:
                if dataset != "restricted_imagenet" or not paths:  # the one that cannot be downloaded
                    raise
                print(f"left out: {error}", file=sys.stderr)
                continue
            where = {"folder": folder, "device": device}
            if kind == "aai":
                paths.append(aai_record(loaded, model, found, source, interpreter=interpreter, **where))
            elif kind == "aai-printed":
                paths.append(printed_aai_record(loaded, model, found, source, **where))
            elif kind == "softplus":
                paths.append(softplus_record(loaded, model, found, source, **where))
            elif kind == "isa-again":
                paths.append(isa_record(loaded, model, found, source, seed=AGAIN, **where))
            elif kind == "isa":
                for interpreters in (MAPS, ("IG",)) if model == "small" else (MAPS,):
                    paths.append(isa_record(loaded, model, found, source, interpreters=interpreters, **where))
            else:
                images = {"many": {"n": MANY}, "clean": {"n": len(loaded.test)}}.get(kind, {})
                paths.append(accuracy_record(loaded, model, found, source, attack=kind, **images, **where))
    if not paths:
        raise FileNotFoundError(f"No {source} network of {', '.join(map('/'.join, parts))}.")
    return paths
