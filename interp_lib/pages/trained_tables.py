"""Make the tables of the chapter on training: the schedules, and the networks that were trained here."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import pandas as pd

from ..schedule import Schedule
from .ordering_network_tables import steps_at_full_radius
from .style import METHOD_COLORS
from .tables import Table, network_title

WATCHED = ("validation_accuracy", "validation_robust")


def schedules(names: Iterable[tuple[str, str]], images: Mapping[str, int]) -> Table:
    """Make the table of schedules: how long and how hard each one trains.

    Args:
        names: (schedule, dataset), a column each.
        images: training images of an epoch, by dataset.
    """
    columns: list[str] = [""]
    lines: dict[str, list] = {}
    for name, dataset in names:
        s = Schedule.load(name, dataset)
        full, total = steps_at_full_radius(s, images[dataset])
        columns.append(f"{name} {dataset}")
        settings = {
            "epochs": s.epochs,
            "steps": f"{total:,}",
            "batch": s.batch_size,
            "rate of Adam": f"{s.learning_rate:g}",
            "rate ÷ 10 after": [f"{step:,}" for step in s.decay] or "–",
            "ε": f"{s.eps:.3g}",
            "ε = 0 until": f"{s.ramp_start:,}",
            "steps at full ε": f"{full:,}",
            "inner steps": f"{s.attack_steps} × {s.attack_alpha:.2g}",
        }
        for text, value in settings.items():
            lines.setdefault(text, [text]).append(value)
    return Table(
        columns,
        lines.values(),
        "Inner steps: number × size, from a uniform random start. The last partial batch of an epoch is dropped.",
        caption="Schedules: how long and how hard each one trains.",
    )


def of_kind(descriptions: Iterable[Mapping], dataset: str, model: str) -> list[Mapping]:
    """Choose the networks of a dataset and an architecture, in the order of the paper's methods, then by seed.

    Args:
        descriptions: of networks trained here, as `models.trained.load` returns them.
    """
    order = list(METHOD_COLORS)
    place = lambda how: (order.index(how["method"]) if how["method"] in order else len(order), how["method"])
    chosen = [how for how in descriptions if (how["dataset"], how["model"]) == (dataset, model)]
    return sorted(chosen, key=lambda how: (*place(how), how["seed"]))


def _device(how: Mapping) -> str:
    device = how["provenance"]["device"]
    name = "CPU" if device.endswith("threads") else device.split()[-1]
    return name + (", bfloat16" if how.get("precision") == "bfloat16" else "")


def trained(descriptions: Iterable[Mapping], dataset: str, model: str) -> Table:
    """Make the table of the networks of a dataset and an architecture: a line for each schedule, method and device.

    Args:
        descriptions: of networks trained here, as `models.trained.load` returns them.

    Raises:
        ValueError: none of them is of this dataset and architecture.
    """
    groups: dict[tuple[str, str, str], list[Mapping]] = {}
    for how in of_kind(descriptions, dataset, model):
        groups.setdefault((how["method"], how["schedule"], _device(how)), []).append(how)
    if not groups:
        raise ValueError(f"no network of {network_title(dataset, model)} is among the descriptions.")
    span = lambda values: f"{min(values):.3f}" + (f" to {max(values):.3f}" if len(values) > 1 else "")
    return Table(
        ["method", "schedule", "trained on", "seeds", "minutes", "validation accuracy", "robust"],
        [
            [*key, len(group), f"{fmean(how['provenance']['seconds'] for how in group) / 60:.0f}"]
            + [span([how["history"][-1][name] for how in group]) for name in WATCHED]
            for key, group in groups.items()
        ],
        "Minutes of one core, mean over the seeds, other work beside it; of some resumed runs, since then. On a GPU: "
        "of all, which were trained at the same time. Robust: PGD, 10 steps of a quarter of ε.",
        caption=f"Networks of {network_title(dataset, model)} trained here: where, how long, and their accuracy on "
        "validation images.",
    )


def learning_rows(descriptions: Iterable[Mapping], dataset: str, model: str) -> pd.DataFrame:
    """Return tidy rows for `training_figures.learning_curves`: the paper's methods, an epoch of a network a row.

    Args:
        descriptions: of networks trained here, as `models.trained.load` returns them.
    """
    chosen: Sequence[Mapping] = [h for h in of_kind(descriptions, dataset, model) if h["method"] in METHOD_COLORS]
    return pd.DataFrame(
        [
            {"method": how["method"], "seed": f"{how['schedule']} {how['seed']}", **row}
            for how in chosen
            for row in how["history"]
        ]
    )
