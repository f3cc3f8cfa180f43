"""Measure a table of the paper, or an experiment beyond it, on networks: which parts it has, and its records.

A record grows network by network and is written after each network, an ISA record after each measure. An interrupted
run therefore loses no more than that, and a second run with the same settings measures only what is missing.
"""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import data
from ..checks import use_device
from . import (
    accuracy,
    agreement,
    black,
    certificates,
    detection,
    faithfulness,
    figures,
    ig_penalty,
    isa_scores,
    masking,
    rank_correlation,
    records,
    restarts,
    rounding,
    sanity,
    softplus,
    strong,
    tightness,
    transfer,
    unforeseen,
)
from .evaluation import APPENDIX, MAIN, TABLE1
from .sweep import Part, Plan, find_networks, grow

MNIST, CIFAR, POOL, WRESNET = ("mnist", "small"), ("cifar10", "small"), ("mnist", "pool"), ("cifar10", "wresnet")


@dataclass(frozen=True)
class Measurement:
    """What is measured under one name.

    Attributes:
        title: what it is, in words.
        parts: pairs (dataset, architecture), in order.
        plans: a part -> the plans of its records; its keyword arguments are the measurement's options, such as n and
            eps.
        methods: only networks of these methods; all if empty.
        sources: the sources of networks that it can be measured on, see `sweep.find_networks`.
    """

    title: str
    parts: Sequence[tuple[str, str]]
    plans: Callable[..., Iterable[Plan]]
    methods: Sequence[str] = ()
    sources: Sequence[str] = ("released", "sweeps", "ours")

    @property
    def options(self) -> list[str]:
        """The names of the options that `measure` takes."""
        fixed = self.plans.keywords if isinstance(self.plans, partial) else {}
        kinds = inspect.signature(self.plans).parameters.values()
        return [kind.name for kind in kinds if kind.kind == kind.KEYWORD_ONLY and kind.name not in fixed]


def _figure(number: int) -> Measurement:
    plans = partial(figures.figure_plan, figure=f"figure{number}")
    return Measurement(f"Figure {number}", tuple(figures.UNITS), plans, ("Normal",), ("released",))


_PGD, _AAI = accuracy.pgd_plan, rank_correlation.aai_plan

_THREE = ("Normal", "Adv", "Int")  # no defence, adversarial training and the paper's

# Tables 3 and 4 rest on the same record, and so do Tables A1 to A3: after the first, the others cost nothing.
MEASUREMENTS = {
    "table1": Measurement("Table 1: ISA", TABLE1, isa_scores.table1_plan, ("Normal",)),
    "table2": Measurement("Table 2: AAI, CAM", MAIN, _AAI),
    "table3": Measurement("Table 3: PGD", MAIN, _PGD),
    "table4": Measurement("Table 4: PGD", MAIN, _PGD),
    "table5": Measurement("Table 5: unforeseen attacks", (CIFAR, MNIST, WRESNET), unforeseen.unforeseen_plan),
    "A1": Measurement("Table A1: PGD", APPENDIX, _PGD),
    "A2": Measurement("Table A2: PGD", APPENDIX, _PGD),
    "A3": Measurement("Table A3: PGD", APPENDIX, _PGD),
    "A4": Measurement("Table A4: AAI, CAM", APPENDIX, _AAI),
    "A5": Measurement("Table A5: AAI, GradCAM++", APPENDIX, partial(_AAI, interpreter="GradCAM++")),
    "digits": Measurement("Table 3 on digits", (("digits", "small"),), _PGD),
    "figure1": _figure(1),
    "figure2": _figure(2),
    "fgsm": Measurement("one step of the full size", (MNIST,), accuracy.fgsm_plan),
    "starts": Measurement("PGD from random points", (MNIST, *APPENDIX), accuracy.starts_plan),
    "fine": Measurement("PGD from a random point by finer steps", (WRESNET,), accuracy.fine_plan),
    "many": Measurement("PGD on 2,000 images", (MNIST, CIFAR), accuracy.many_plan),
    "seen": Measurement("PGD on training images", (CIFAR, WRESNET), accuracy.seen_plan),
    "strong": Measurement("AutoAttack's APGD-CE, APGD-T and Square", (MNIST, CIFAR), strong.strong_plan),
    "restarts": Measurement(
        "PGD with other losses and restarts", (MNIST, CIFAR), restarts.restarts_plan, restarts.COMPARED
    ),
    "transfer": Measurement(
        "attacks made on other networks", (MNIST, CIFAR), transfer.transfer_plan, sources=("released",)
    ),
    "masking": Measurement("the checklist of masked gradients", (MNIST, CIFAR), masking.masking_plan),
    "detection": Measurement("maps as detectors", (MNIST, CIFAR), detection.detection_plan, _THREE),
    "agreement": Measurement("agreement of interpreters", (MNIST, CIFAR), agreement.agreement_plan, _THREE),
    "sanity": Measurement("maps of random weights", (MNIST, CIFAR), sanity.sanity_plan, _THREE),
    "faithfulness": Measurement("deletion and insertion", (MNIST, CIFAR), faithfulness.faithfulness_plan, _THREE),
    "certificates": Measurement("what Proposition 1 certifies", (MNIST, CIFAR), certificates.certificates_plan),
    "clean": Measurement("no attack, all test images", (("restricted_imagenet", "wresnet"),), accuracy.clean_plan),
    "aai-printed": Measurement("AAI by eq. (7) as printed", (MNIST,), rank_correlation.printed_aai_plan),
    "isa-again": Measurement(
        "Table 1 on another hundred images", (MNIST,), partial(isa_scores.isa_plan, seed=isa_scores.AGAIN), ("Normal",)
    ),
    "isa-beyond": Measurement(
        "Table 1 with GradCAM++ of 2018 and IG on ReLU", (MNIST,), isa_scores.beyond_plan, ("Normal",), ("released",)
    ),
    "aai-2018": Measurement(
        "Table A5 with GradCAM++ of 2018", (CIFAR, POOL), rank_correlation.aai_2018_plan, sources=("released",)
    ),
    "isa-maps": Measurement("Table 1 without IG", TABLE1, partial(isa_scores.table1_plan, ig=False), ("Normal",)),
    "softplus": Measurement("accuracy with softplus for ReLU", (MNIST, CIFAR), softplus.softplus_plan, ("Normal",)),
    "tightness": Measurement("Proposition 1", (MNIST, CIFAR, POOL, WRESNET), tightness.all_tightness_plans),
    "black": Measurement("logits of the black image", (MNIST, CIFAR), black.black_plan),
    "ig-penalty": Measurement(
        "IG-Norm's penalty", (MNIST, POOL, CIFAR), ig_penalty.ig_penalty_plan, ig_penalty.PENALISED
    ),
    "rounding": Measurement("what rounding moves", (POOL,), rounding.rounding_plan, sources=("released",)),
}

# What is measured on each network that we train; IG of Table 1, which takes an hour a network, is not.
OF_TRAINED = ("isa-maps", "table2", "table3", "A1", "A4", "A5", "starts", "many", "seen", "digits")


def find(name: str) -> Measurement:
    """Return a measurement by its name, in upper or lower case.

    Raises:
        ValueError: unknown name.
    """
    by_lower = {known.lower(): measurement for known, measurement in MEASUREMENTS.items()}
    if name.lower() not in by_lower:
        raise ValueError(f"unknown table {name!r}; known are {', '.join(MEASUREMENTS)}.")
    return by_lower[name.lower()]


def measure_part(measurement: Measurement, part: Part, until: float = math.inf, **options) -> list[Path]:
    """Measure the networks of one part; see `measure`."""
    return [grow(plan, part, until) for plan in measurement.plans(part, **options)]


def measure(
    name: str,
    source: str = "released",
    *,
    dataset: str | None = None,
    model: str | None = None,
    data_dir: str | Path | None = None,
    networks_dir: str | Path | None = None,
    folder: str | Path = records.RESULTS,
    device: str | None = None,
    until: float = math.inf,
    **options,
) -> list[Path]:
    """Measure one of the paper's tables, `table1` to `table5` or `A1` to `A5`, or an experiment beyond them.

    Args:
        name: a key of `MEASUREMENTS`, in upper or lower case.
        source, networks_dir: see `find_networks`.
        dataset, model: measure only the part on this dataset or this architecture.
        until: stop when `time.monotonic()` has reached this, see `sweep.grow`.
        options: other settings than the table's, such as n, the number of images, or eps, a sequence of perturbation
            sizes; see `Measurement.options`. Other settings give another record.

    Returns:
        The paths of the records that the table needs.

    Raises:
        ValueError: unknown table, a table without the part or the option asked for, or one that is not measured on
            networks of this source.
        FileNotFoundError: none of the networks that the table needs exists.
        data.DataError: the dataset is missing or wrong.
    """
    measurement, device = find(name), use_device(device)
    if strange := sorted(set(options) - set(measurement.options)):
        able = ", ".join(measurement.options) or "none"
        raise ValueError(f"{name} has no option {', '.join(strange)}; its options are: {able}.")
    parts = [part for part in measurement.parts if dataset in (None, part[0]) and model in (None, part[1])]
    if not parts:
        asked = "/".join(word for word in (dataset, model) if word)
        raise ValueError(f"{name} is measured on {', '.join(map('/'.join, measurement.parts))}; got {asked!r}.")
    every_network = list(find_networks(source, networks_dir))
    paths: list[Path] = []
    if source not in measurement.sources:
        raise ValueError(f"{name} is measured on networks that are {', '.join(measurement.sources)}; got {source!r}.")
    for dataset, model in parts:
        networks = [
            network
            for network in every_network
            if (network.dataset, network.model) == (dataset, model)
            and (not measurement.methods or network.labels["method"] in measurement.methods)
        ]
        if not networks:
            continue
        try:
            loaded = data.load(dataset, data_dir)
        except data.DataError as error:
            if dataset != "restricted_imagenet" or not paths:  # only R-ImageNet cannot be downloaded
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        paths += measure_part(measurement, Part(loaded, model, networks, source, folder, device), until, **options)
    if not paths:
        raise FileNotFoundError(f"No {source} network of {', '.join(map('/'.join, parts))}.")
    return paths
