"""Compare the release's networks with other gammas, training radii and runs with the networks of the tables.

The paper compares its methods at one training radius, with one network each. The release has more networks: Adv and Int
trained in balls of several radii, Int with several gammas, and second runs at the paper's settings. This module joins
the rows of both kinds of record, `released` and `sweeps`, into one table.
"""

from collections.abc import Iterable, Sequence

from ..paper import GAMMA
from .evaluation import TRAINING_EPS
from .records import Record


def rows_of_small(records: Iterable[Record], measurement: str, dataset: str) -> list[dict]:
    """Return all measured rows of the release's Small networks trained by Normal, Adv and Int on one dataset.

    Args:
        records: records of any measurements.
        measurement: 'pgd', 'many', 'starts' or 'aai'.
        dataset: 'mnist' or 'cifar10'.

    Returns:
        The records' rows, each with gamma, radius and run. Rows of the tables' networks have the paper's values: gamma
        0.01 for Int and 0 for Normal, the paper's training radius, run 1. Adv has gamma None; Normal has radius 0.
    """
    rows = []
    for record in records:
        s = record.settings
        if (s["measurement"], s.get("dataset"), s.get("model")) != (measurement, dataset, "small"):
            continue
        if s["networks"] not in ("released", "sweeps") or s.get("interpreter", "CAM") != "CAM":
            continue
        for row in record.rows:
            if row["method"] not in ("Normal", "Adv", "Int"):
                continue
            usual = {
                "gamma": {"Normal": 0.0, "Adv": None, "Int": GAMMA}[row["method"]],
                "run": 1,
                "radius": 0.0 if row["method"] == "Normal" else TRAINING_EPS[dataset],
            }
            # A record of `sweeps` states gamma, radius and run itself, which then override the paper's.
            rows.append({**usual, **row})
    return rows


def choose(rows: Iterable[dict], **wanted: object) -> list[dict]:
    """Return the rows with the wanted values, sorted by gamma, radius, run and eps.

    Args:
        rows: rows from `rows_of_small`.
        wanted: column = value, or column = a list of values; floats are compared up to rounding.
    """

    def agrees(value, other) -> bool:
        return abs(value - other) < 1e-6 if isinstance(value, float) and isinstance(other, float) else value == other

    def right(row: dict) -> bool:
        return all(
            any(agrees(row.get(key), value) for value in (values if isinstance(values, list) else [values]))
            for key, values in wanted.items()
        )

    # Adv has gamma None, which cannot be compared with a number.
    return sorted(filter(right, rows), key=lambda r: (r["gamma"] or 0, r["radius"], r["run"], r["eps"]))


def gamma_rows(records: Sequence[Record], measurement: str = "pgd", *, dataset: str = "mnist") -> list[dict]:
    """Return the rows of Figure A1 on the networks released for it: Int with each gamma at the paper's radius.

    Args:
        records: records of any measurements.
        measurement: 'pgd' for the paper's 200 images, 'many' for 2,000.
        dataset: 'mnist' or 'cifar10'.

    Returns:
        Rows with gamma, run, eps, accuracy, se and n, under 200 steps; gamma = 0 is Normal.

    Source: Appendix C.
    """
    rows = choose(rows_of_small(records, measurement, dataset), steps=200)
    return [*choose(rows, method="Normal"), *choose(rows, method="Int", radius=TRAINING_EPS[dataset])]


def front_points(records: Sequence[Record], measurement: str = "many", *, dataset: str = "cifar10") -> list[dict]:
    """Return one row per network of Adv and Int: clean accuracy, and accuracy at the paper's training radius.

    Returns:
        Rows with method, radius, gamma (0 for Adv), run, n, clean, robust, their standard errors `clean se` and
        `robust se`, and `right`, whether the network classifies each attacked image right, see
        `records.outcome_digits`; sorted by method, radius, gamma and run.
    """
    names = ("method", "radius", "gamma", "run")
    rows = [{**row, "gamma": row["gamma"] or 0.0} for row in rows_of_small(records, measurement, dataset)]
    part = lambda eps: {tuple(row[name] for name in names): row for row in choose(rows, method=["Adv", "Int"], eps=eps)}
    clean, robust = part(0.0), part(TRAINING_EPS[dataset])
    points = []
    for key in sorted(clean.keys() & robust.keys()):
        numbers = {
            f"{name}{suffix}": row[column]
            for name, row in (("clean", clean[key]), ("robust", robust[key]))
            for suffix, column in (("", "accuracy"), (" se", "se"))
        }
        points.append(
            {**dict(zip(names, key, strict=True)), **numbers, "n": robust[key]["n"], "right": robust[key]["right"]}
        )
    return points


def radius_rows(records: Sequence[Record], measurement: str, radii: Sequence[float], **wanted) -> list[dict]:
    """Return rows of Adv and of Int with the paper's gamma, trained on MNIST in balls of `radii`; see `choose`."""
    rows = rows_of_small(records, measurement, "mnist")
    return choose(rows, method=["Adv", "Int"], gamma=[None, GAMMA], radius=list(radii), **wanted)
