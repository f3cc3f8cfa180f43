"""Make the tables of the chapter on other starts: Table 3's attack from random points, more steps, finer steps."""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from ..paper import GAMMA, METHODS, level_of
from ..study.records import Record, having
from .tables import Table, network_title, signed, standard_error

STARTS = {"x": "from x", "1": "one random start", "5": "five random starts"}
SOURCES = {"released": "released", "ours": "trained here"}
STEPS = 200  # of the attack of Table 3

Key = tuple[str, float]  # method, eps rounded to six digits


def _record(records: Sequence[Record], measurement: str, networks: str, dataset: str, model: str) -> Record:
    """Return the last record of a measurement on some networks.

    Raises:
        KeyError: there is none.
    """
    found = having(records, measurement=measurement, networks=networks, dataset=dataset, model=model)
    if not found:
        raise KeyError(f"no record of {measurement} on {network_title(dataset, model)}, networks '{networks}'.")
    return found[-1]


def _key(row: dict) -> Key:
    return row["method"], round(row["eps"], 6)


def by_start(records: Sequence[Record], networks: str, dataset: str = "mnist") -> dict[str, dict[Key, dict]]:
    """Return accuracies of Small under PGD of 200 steps by where it starts, means over the seeds.

    Args:
        records: those of `measure table3` and `measure starts` count.
        networks: 'released' or 'ours'; of the latter those with the paper's gamma.
        dataset: 'mnist' or 'cifar10'.

    Returns:
        A key of `STARTS` -> (method, eps rounded to six digits) -> accuracy, se and n of a seed.

    Raises:
        KeyError: a record is missing.
    """
    groups: dict[str, dict[Key, list[dict]]] = {start: {} for start in STARTS}
    for measurement in ("pgd", "starts"):
        for row in _record(records, measurement, networks, dataset, "small").rows:
            if (row.get("gamma", GAMMA), row["steps"]) == (GAMMA, STEPS):
                groups[str(row.get("starts", "x"))].setdefault(_key(row), []).append(row)
    return {
        start: {
            key: {name: fmean(row[name] for row in rows) for name in ("accuracy", "se")} | {"n": rows[0]["n"]}
            for key, rows in part.items()
        }
        for start, part in groups.items()
    }


def from_other_starts(records: Sequence[Record], networks: str, sizes: Sequence[float]) -> Table:
    """Make the table of Table 3 on MNIST Small from x, from one random point, and of what five of them leave.

    Args:
        records, networks: see `by_start`.
        sizes: radii eps.
    """
    found = by_start(records, networks)
    styles = {"x": "", "1": "random", "5": "random"}
    (n,) = {row["n"] for row in found["x"].values()}
    return Table(
        ["Method \\ ε", *(f"{eps:g}" for eps in sizes)],
        [
            [m, *([(f"{found[k][m, eps]['accuracy']:.3f}", css) for k, css in styles.items()] for eps in sizes)]
            for m in METHODS
            if (m, sizes[0]) in found["5"]
        ],
        f"MNIST Small, {SOURCES[networks]}. First: from x, as in the paper; second: from one random point; third: what "
        f"five of them leave. n = {n}.",
        caption=f"PGD of Table 3 from other starts, MNIST Small, {SOURCES[networks]} networks.",
    )


def curves(records: Sequence[Record], networks: str, methods: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `curve_figures.accuracy_curves` of some methods: from x and after five random starts."""
    found = by_start(records, networks)
    return pd.DataFrame(
        {"method": method, "eps": eps, **row, "source": STARTS[start]}
        for start in ("x", "5")
        for (method, eps), row in found[start].items()
        if method in methods
    )


def leads(records: Sequence[Record], sizes: Sequence[float]) -> Table:
    """Make the table of Int's accuracy minus that of adversarial training, from x and after five random starts."""
    lines = []
    for networks, title in SOURCES.items():
        found = by_start(records, networks)
        for eps in sizes:
            values = (found[k]["Int", eps]["accuracy"] - found[k]["Adv", eps]["accuracy"] for k in ("x", "5"))
            lines.append([title, f"{eps:g}", *map(signed, values)])
    return Table(
        ["networks", "ε", "from x", "five random starts"],
        lines,
        "MNIST Small, means over seeds.",
        caption="Int minus adversarial training under PGD from x and after five random starts, MNIST Small.",
    )


def more_steps(records: Sequence[Record], eps: float, methods: Sequence[str], steps: Sequence[int]) -> Table:
    """Make the table of what more steps from x take from released networks of MNIST Small.

    Args:
        records: those of `measure table3` count.
        eps: the radius.
        methods: the networks.
        steps: two numbers of steps in the record, the smaller one first.
    """
    rows = _record(records, "pgd", "released", "mnist", "small").rows
    at = {(*_key(row), row["steps"]): row for row in rows}
    few, many = steps
    lines = []
    for m in methods:
        before, after = (at[m, eps, k]["accuracy"] for k in (few, many))
        lines.append([m, f"{before:.3f}", f"{after:.3f}", signed(after - before)])
    return Table(
        ["method", f"{few} steps", f"{many} steps", "difference"],
        lines,
        f"MNIST Small, released, PGD from x with ε = {eps:g}; n = {at[methods[0], eps, few]['n']}.",
        caption=f"What more steps from x take at ε = {eps:g}, released networks of MNIST Small.",
    )


def changes_by_start(records: Sequence[Record], dataset: str) -> Table:
    """Make the table of the most that a random start changes an accuracy of each released Small network.

    Args:
        records: see `by_start`.
        dataset: 'mnist' or 'cifar10'.
    """
    found = by_start(records, "released", dataset)
    changes: dict[str, list[float]] = {}
    for (method, eps), row in found["1"].items():
        changes.setdefault(method, []).append(row["accuracy"] - found["x"][method, eps]["accuracy"])
    largest = level_of(max(eps for _, eps in found["1"]), dataset)
    title = network_title(dataset, "small")
    return Table(
        ["method", "largest change"],
        [[m, signed(max(changes[m], key=abs))] for m in METHODS if m in changes],
        f"{title}, {len(changes)} released networks, ε up to {largest}: a random start changes an accuracy by at most "
        f"{max(abs(change) for part in changes.values() for change in part):.3f}.",
        caption=f"What one random start changes at most, {title}.",
    )


def finer_steps(records: Sequence[Record], methods: Sequence[str]) -> Table:
    """Make the table of released WResnets under PGD from x, and from a random point with finer steps.

    Args:
        records: those of `measure table3` and `measure fine` count.
        methods: the networks.
    """
    fine, usual = (_record(records, kind, "released", "cifar10", "wresnet") for kind in ("fine", "pgd"))
    random = {_key(row): row["accuracy"] for row in fine.rows}
    from_x = {_key(row): row["accuracy"] for row in usual.rows if row["steps"] == STEPS}
    sizes = sorted({eps for _, eps in random})
    taken = [from_x[key] - random[key] for key in random if key in from_x]
    (n,) = {row["n"] for row in fine.rows}

    def shown(part: dict[Key, float], key: Key) -> str:
        return f"{part[key]:.3f}" if key in part else "–"

    return Table(
        ["method", *(f"{level_of(e, 'cifar10')}, {how}" for e in sizes for how in ("from x", "random"))],
        [[m, *(shown(part, (m, e)) for e in sizes for part in (from_x, random))] for m in methods],
        f"CIFAR-10 WResnet, released, JPEG copy; n = {n}, standard error at most {standard_error(0.5, n):.3f}. From x: "
        f"{STEPS} steps of 0.01, as in Table 3; random: one random point, 40 steps of 1/255. These take at most "
        f"{max(*taken, 0):.3f} of the images, and leave up to {max(-min(taken), 0):.3f} more.",
        caption="Released WResnets: PGD from x and from a random point with finer steps.",
    )
