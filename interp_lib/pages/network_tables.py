"""Make the tables of the chapter on models and datasets: layers, settings of training, values a dataset, R-ImageNet."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .. import paper
from ..datasets import DATASETS
from ..models.architectures import GlobalPoolNetwork, SameConv2d, build
from ..photographs import IMAGENET_RANGES
from ..schedule import Schedule
from ..study.records import Record
from .tables import Table, standard_error

INPUTS = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "restricted_imagenet": (3, 224, 224)}  # (C, H, W)

# Settings of `Schedule`: its name, what the page calls it, and whether the paper's text says it.
SETTINGS = (
    ("epochs", "epochs", True),
    ("batch_size", "batch", True),
    ("learning_rate", "rate of Adam", True),
    ("decay", "rate ÷ 10 after step", True),
    ("eps", "ε at the end", True),
    ("ramp_start", "ε = 0 until step", False),
    ("ramp_end", "ε in full from step", False),
    ("attack_steps", "steps of the inner attack", True),
    ("attack_alpha", "their size", False),
)
IN_TABLES = 35  # epochs of the network of R-ImageNet that the tables rest on; its rows have no label of their own


def networks_of(used: Iterable[tuple[str, str]]) -> dict[tuple[str, str], GlobalPoolNetwork]:
    """Build the paper's networks, untrained: (architecture, dataset) -> network in evaluation mode."""
    return {(name, d): build(name, INPUTS[d], len(DATASETS[d].classes), seed=0).eval() for name, d in used}


def _feature_maps(network: GlobalPoolNetwork, dataset: str) -> Tensor:
    """Return the feature maps of one black image, (K, h, w)."""
    with torch.no_grad():
        return network.features(torch.zeros(1, *INPUTS[dataset]))[0]


def _convolutions(network: GlobalPoolNetwork) -> list[SameConv2d]:
    return [module for module in network.modules() if isinstance(module, SameConv2d)]


def sizes(used: Iterable[tuple[str, str]]) -> Table:
    """Make the table of the paper's networks: convolutions, feature maps, pixels of a map and weights.

    Args:
        used: (architecture, dataset), such as ('small', 'mnist').
    """
    lines = []
    for (name, dataset), network in networks_of(used).items():
        maps = _feature_maps(network, dataset)
        k, height, width = maps.shape
        weights = sum(p.numel() for p in network.parameters())
        convolutions = len(_convolutions(network))
        lines.append([name, dataset, convolutions, k, f"{height} × {width}", height * width, f"{weights:,}"])
    return Table(
        ["model", "dataset", "convolutions", "K", "map", "u", "weights"],
        lines,
        caption="Networks of the paper: layers, feature maps and weights.",
    )


def filters(used: Iterable[tuple[str, str]]) -> Table:
    """Make the table of what the convolutions are: filters, size and stride, in their order."""
    lines = []
    for (name, dataset), network in networks_of(used).items():
        shapes = [(m.out_channels, *m.kernel_size, m.stride[0]) for m in _convolutions(network)]
        lines.append([name, dataset, "; ".join(f"{k} of {h}×{w}, stride {stride}" for k, h, w, stride in shapes)])
    return Table(
        ["model", "dataset", "filters"], lines, caption="The convolutions of Small and Pool, in order.", of_text=True
    )


def gamma_of_equation_8(used: Iterable[tuple[str, str]]) -> Table:
    """Make the table of the paper's gamma in the units of equation (8), 2 u gamma, for a map of u pixels."""
    lines = []
    for (name, dataset), network in networks_of(used).items():
        u = _feature_maps(network, dataset)[0].numel()
        lines.append([name, dataset, u, f"{2 * u * paper.GAMMA:.2f}"])
    return Table(
        ["model", "dataset", "u", "γ in eq. (8)"],
        lines,
        caption=f"What γ = {paper.GAMMA:g} of the released code is in the units of equation (8).",
    )


def settings_of_training() -> Table:
    """Make the table of the paper's schedules, and of whether the text or only the released code says a setting."""

    def shown(value) -> str:
        if isinstance(value, tuple):
            return ", ".join(f"{step:,}" for step in value) or "–"
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

    schedules = [Schedule.load("paper", dataset) for dataset in ("mnist", "cifar10")]
    return Table(
        ["setting", "MNIST", "CIFAR-10", "said in"],
        [
            [text, *(shown(getattr(s, key)) for s in schedules), "text" if in_text else "code only"]
            for key, text, in_text in SETTINGS
        ],
        caption="Settings of training, and whether the text or the released code says them.",
    )


def values_by_dataset() -> Table:
    """Make the table of how many values the paper prints for each dataset, and in which tables."""
    cells = paper.paper_tables()
    lines = []
    for dataset in paper.DATASETS:
        tables = [c["table"] for c in cells if c["dataset"] == dataset]
        lines.append([dataset, len(tables), ", ".join(dict.fromkeys(tables))])
    return Table(
        ["dataset", "values", "in Tables"],
        lines,
        f"{len(cells)} values.",
        caption="Values that the paper prints, by dataset.",
    )


def restricted_imagenet(records: Iterable[Record]) -> Table:
    """Make the table of the released networks for R-ImageNet beside the answer that is always its largest class.

    Args:
        records: those of `measure clean` on R-ImageNet count, a sample with one image of each ImageNet class.

    Raises:
        ValueError: the networks were measured on other images than one of each class.
    """
    chosen = {"measurement": "clean", "dataset": "restricted_imagenet"}
    rows = [row for r in records if chosen.items() <= r.settings.items() for row in r.rows]
    right = {row.get("epochs", IN_TABLES): row["correct"] for row in rows}
    classes = [last - first + 1 for first, last in IMAGENET_RANGES]  # ImageNet classes in each class, dogs first
    n = sum(classes)
    if {row["n"] for row in rows} != {n}:
        raise ValueError(f"expected {n} images, one of each class; got {sorted({row['n'] for row in rows})}.")
    lines = [[f"Normal, {epochs} epochs", right[epochs]] for epochs in sorted(right)]
    lines.append(["always 'dog'", max(classes)])
    return Table(
        ["network", "right", "accuracy"],
        [[name, count, f"{count / n:.3f}"] for name, count in lines],
        f"{n} images; standard error at most {standard_error(0.5, n):.3f}.",
        caption=f"Accuracy of the released networks for R-ImageNet on the sample of {n} images.",
    )
