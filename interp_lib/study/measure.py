"""Measure a table of the paper: which networks and which attack it needs, and the record that results.

A record grows network by network and is written after each network, an ISA record after each measure. An interrupted
run therefore loses no more than that, and a second run with the same settings measures only what is missing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from .. import data
from ..attacks.interpretability_sneaking import CLASS_SETS
from ..checks import check_device
from ..interpreters.activations import ACTIVATIONS, ReplacedRelu
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import count_correct
from . import claims_robustness as orderings
from . import compare, records
from .accuracy import fgsm_accuracy, pgd_accuracy, pgd_accuracy_in_batches, random_start_accuracy
from .isa_scores import BATCH, IG_SCALE, MAPS, PENALTIES, isa_rows
from .rank_correlation import AAI, PRINTED_AAI, aai_rows
from .sweep import Network, find_networks, grow, once

MNIST_EPS = (0, 0.05, 0.1, 0.2, 0.3)


CIFAR_EPS = (0, 2 / 255, 4 / 255, 6 / 255, 8 / 255)


STEPS = (1, 10, 100, 200)


STARTS = (1, compare.STARTS)  # numbers of random starts to report


SEEN_STEPS, TRAINING_EPS = 10, {"mnist": 0.3, "cifar10": 8 / 255, "digits": 0.15}  # attack on training images


# Finer steps from one random start, also beyond the training radius: finds what Table 3's attack may have missed.
FINE = {"steps": 40, "alpha": 1 / 255, "eps": (8 / 255, 10 / 255, 12 / 255)}


MANY = 2000  # images, for statements that the paper's 200 images leave open


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


# Tables that are not measured with PGD: table -> the record's family and the interpreter.
INTERPRETATION = {
    "table2": ("aai", "CAM"),
    "aai-printed": ("aai-printed", "CAM"),
    "A4": ("aai", "CAM"),
    "A5": ("aai", "GradCAM++"),
    "table1": ("isa", None),
    "isa-again": ("isa-again", None),
    "softplus": ("softplus", None),
}


ISA_IMAGES = 100


AGAIN = 123  # seed of another hundred images for Table 1: the seed in the released script `isa_cam`


# Table 1 has no IG on R-ImageNet, and an image takes half an hour there: measure only the first few images.
ISA_FEW = {("restricted_imagenet", "wresnet"): 2}


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
    """Measure the accuracy of all networks of one dataset and architecture under an attack, and write the record.

    'pgd' takes steps of 0.01 for every eps and number of steps of the tables; 'fgsm' takes one step of eps; 'starts' is
    'pgd' with 200 steps from random points instead of x itself; 'fine' takes 40 finer steps from one random point;
    'many' takes 200 steps from x at the eps in the statements of `claims_robustness`. The images are
    `Dataset.evaluation_subset(n)`, with n = 200 for the tables; a larger subset begins with the same 200 images. 'seen'
    takes ten steps at the training radius on the first n training images; 'clean' is no attack. Rows already in the
    record are kept; a network whose weights have changed is measured again.

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
    # Per attack: its settings in the record, the function that measures rows, and the number of steps at one eps.
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
    """Measure rank correlations under AAI, see `rank_correlation.aai_rows`; arguments as in `accuracy_record`."""
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
    """Measure rank correlations of CAM under AAI as eq. (7) is printed, in both of its forms; see `aai_record`.

    The column `form` of a row names the form: 'top-k' or 'l1'.
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
    """Measure NDS and NSL of ISAs, see `isa_scores.isa_rows`; other arguments as in `accuracy_record`.

    Args:
        interpreters: `MAPS`, or IG, which has a record of its own.
        images: how many of the subset's n images to measure; the column `measured` of a row gives this number. A later
            run with more images continues the same record.
        seed: seed of the subset. Images other than the tables' make another measurement, 'isa-again'.
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
    # Small parts where an image is slow, because the record is written after each measure of a part.
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
    """Count the images of Table 1 classified right with ReLU, and with softplus in its place as in the rows IG."""
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
    """Measure one of the paper's tables, `table1` to `table4` or `A1` to `A5`, or an experiment beyond them.

    Tables 3 and 4 use the same runs, and so do Tables A1 to A3: after the first, the others cost nothing. `fgsm` is one
    step of the full size on MNIST Small; `starts` is the attack of Table 3 from random points on MNIST Small and on the
    networks of Tables A1 to A3; `fine` is finer steps from one random point on WResnet; `aai-printed` is Table 2 by eq.
    (7) with its hinge; `many` is Table 3's attack on 2,000 images for the Small networks; `seen` is ten steps at the
    training radius on training images; `clean` is no attack; `isa-again` is Table 1 on another hundred images;
    `softplus` counts what the network of Table 1's rows IG classifies right; `digits` is the experiment of Table 3 on
    digits. Table 1 is measured on the Small networks, whose numbers it prints, and on R-ImageNet where its images are
    available.

    Args:
        table: a key of `TABLES`, in upper or lower case.
        source, networks_dir: see `find_networks`.
        dataset, model: restrict the table to this dataset or this architecture.

    Returns:
        The paths of the records that the table needs.

    Raises:
        ValueError: unknown table, or a table without the part asked for.
        FileNotFoundError: none of the networks that the table needs exists.
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
        if kind in ("isa", "isa-again", "softplus"):  # Table 1 uses Normal only
            found = [network for network in found if network.labels["method"] == "Normal"]
        if found:
            try:
                loaded = data.load(dataset, data_dir)
            except data.DataError as error:
                if dataset != "restricted_imagenet" or not paths:  # only R-ImageNet cannot be downloaded
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
