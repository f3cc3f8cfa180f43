"""Make the tables of the chapter on the orderings of methods that show its networks: by schedule, image and seed."""

from collections.abc import Iterable, Sequence

from ..paper import ARCHITECTURE_TITLES
from ..schedule import Schedule
from ..study.compare import Cell
from ..study.evaluation import TRAINING_EPS
from ..study.records import Record
from ..study.runs import rows_over_seeds
from .ordering_tables import HEADS
from .tables import Table, standard_error


def _wresnets(cells: Iterable[Cell]) -> dict[tuple[str, str], Cell]:
    """Return the cells of Table 3's CIFAR-10 part, whose networks are WResnets: (method, level) -> cell."""
    return {(c.method, c.level): c for c in cells if (c.table, c.dataset) == ("3", "CIFAR-10")}


def as_printed(cells: Iterable[Cell], methods: Sequence[str] = ("Adv", "TRADES", "Int")) -> Table:
    """Make the table of some methods' printed accuracies on CIFAR-10 WResnet."""
    at = _wresnets(cells)
    levels = list(dict.fromkeys(level for _, level in at))
    names = f"{', '.join(methods[:-1])} and {methods[-1]}"
    return Table(
        ["printed", f"ε = {levels[0]}", *levels[1:]],
        [[m, *(at[m, level].value for level in levels)] for m in methods],
        "CIFAR-10 WResnet, Table 3.",
        caption=f"{names} on CIFAR-10 WResnet, as Table 3 of the paper prints them.",
    )


def printed_below(cells: Iterable[Cell], method: str, other: str) -> list[str]:
    """Return the levels at which Table 3 prints a method below another on CIFAR-10 WResnet."""
    at = _wresnets(cells)
    return [level for m, level in at if m == method and at[method, level].printed < at[other, level].printed]


def steps_at_full_radius(schedule: Schedule, images: int) -> tuple[int, int]:
    """Return how many of a schedule's training steps have the full radius, and the number of its steps.

    Args:
        schedule: its epochs, its batch and the ramp of its radius count.
        images: images of an epoch; the last partial batch is dropped.
    """
    total = schedule.epochs * (images // schedule.batch_size)
    return sum(schedule.radius(step) >= schedule.eps for step in range(total)), total


def two_schedules(
    cells: Iterable[Cell], released: Schedule, ours: Schedule, *, images: int = 45_000, level: str = "8/255"
) -> Table:
    """Make the table of WResnets as printed, as released and trained here, clean and at the radius of training.

    Args:
        cells: from `study.compare.compare`; methods without a network trained here are left out.
        released, ours: the schedules of the two, on CIFAR-10.
        images: training images of an epoch, CIFAR-10's 50,000 without the 5,000 of validation.
        level: the radius, as Table 3 prints it.
    """
    at = _wresnets(cells)
    methods = [m for m in ("Normal", "Adv", "Int", "Int-Adv") if (m, level) in at and at[m, level].ours is not None]
    shown = lambda cell: [
        "–" if (value := getattr(cell, source)) is None else f"{value:.3f}"
        for source in ("printed", "released", "ours")
    ]
    (few, all_), (more, of_ours) = (steps_at_full_radius(schedule, images) for schedule in (released, ours))
    return Table(
        ["method"] + [head for e in ("0", level) for head in (f"ε = {e}, printed", "released", "trained here")],
        [[m, *shown(at[m, "0"]), *shown(at[m, level])] for m in methods],
        f"CIFAR-10 WResnet, Table 3; n = 200, standard error at most {standard_error(0.5, 200):.3f}. Steps at the full "
        f"radius: released {few:,} of {all_:,}, trained here {more:,} of {of_ours:,}.",
        caption="WResnets of the paper and WResnets trained here, clean and at the training ε.",
    )


def on_training_images(records: Sequence[Record], steps: int = 10) -> Table:
    """Make the table of accuracies on training images and on others, clean and at CIFAR-10's radius of training.

    Args:
        records: those of `measure seen` and `measure table3` on CIFAR-10 count; a network needs both.
        steps: of the attack.
    """
    eps = TRAINING_EPS["cifar10"]
    parts = [
        {
            (r.settings["model"], r.settings["networks"], row["method"], row["eps"] > 0): row["accuracy"]
            for r in records
            if (r.settings["measurement"], r.settings.get("dataset")) == (measurement, "cifar10")
            for row in r.rows
            if row["steps"] == steps and min(row["eps"], abs(row["eps"] - eps)) < 1e-6
        }
        for measurement in ("seen", "pgd")
    ]
    networks = [("wresnet", source, m) for source in ("released", "ours") for m in ("Adv", "Int", "Int-Adv")]
    networks += [("small", source, "Adv") for source in ("released", "ours")]
    return Table(
        ["network", "training images", "others", "ε = 8/255: training images", "others"],
        [
            [
                f"{ARCHITECTURE_TITLES[model]} {method}, {HEADS[source]}",
                *(f"{part[model, source, method, attacked]:.3f}" for attacked in (False, True) for part in parts),
            ]
            for model, source, method in networks
            if all((model, source, method, attacked) in part for attacked in (False, True) for part in parts)
        ],
        f"CIFAR-10, JPEG copy; n = 200, standard error at most {standard_error(0.5, 200):.3f}. PGD, {steps} steps of "
        "0.01.",
        caption="Accuracy on training images and on others, clean and under attack.",
    )


def _seeds(records: Sequence[Record], kind: str) -> dict[tuple[str, int, float], float]:
    """Return the accuracies of MNIST Small trained here: (method, seed, eps) -> accuracy."""
    groups = rows_over_seeds(records, kind)
    return {
        (method, row["seed"], eps): row["accuracy"]
        for (dataset, method, eps), rows in groups.items()
        if dataset == "mnist"
        for row in rows
    }


def seed_by_seed(
    records: Sequence[Record], methods: Sequence[str], sizes: Sequence[float] = (0.2, 0.3, 0.35, 0.4)
) -> Table:
    """Make the table of networks of MNIST Small trained here, a line for each seed: PGD from x and from random points.

    Args:
        records: those of `measure table3` and `measure starts` on networks trained here count.
        methods: whose networks are shown.
        sizes: radii eps, in the unit of the pixels.
    """
    parts = [(_seeds(records, "pgd"), ""), (_seeds(records, "starts"), "random")]
    networks = sorted({key[:2] for part, _ in parts for key in part if key[0] in methods})
    networks.sort(key=lambda network: methods.index(network[0]))

    def shown(*key) -> list[tuple[str, str]]:
        return [(f"{part[key]:.3f}" if key in part else "–", css) for part, css in parts]

    return Table(
        ["network", f"ε = {sizes[0]:g}", *(f"{eps:g}" for eps in sizes[1:])],
        [[f"{m}, seed {seed}", *(shown(m, seed, eps) for eps in sizes)] for m, seed in networks],
        "MNIST Small, n = 200. First line: PGD from x, 200 steps; second: what five random starts leave.",
        caption="Networks of MNIST Small trained here, seed by seed: PGD from x and from random points.",
    )


def seeds_ahead(
    records: Sequence[Record], methods: Sequence[str], eps: float, *, kind: str = "pgd", rival: str = "Adv"
) -> dict[str, list[int]]:
    """Return for each method the seeds of MNIST Small whose accuracy is above that of every seed of a rival.

    Args:
        records: those of the measurement on networks trained here count.
        methods: methods to look at.
        eps: the radius, in the unit of the pixels.
        kind: the measurement, 'pgd' from x or 'starts' from random points.
        rival: the other method; ValueError where it has no accuracy.
    """
    at = _seeds(records, kind)
    best = max(value for (method, _, size), value in at.items() if (method, size) == (rival, eps))
    return {m: sorted(s for (n, s, size), v in at.items() if (n, size) == (m, eps) and v > best) for m in methods}
