"""Make the tables of the chapter on Table 2: rank correlations of maps before and after attacks against them."""

import math
from collections.abc import Iterable, Mapping, Sequence

from ..study.compare import Cell, counts
from ..study.records import Record
from .comparison_tables import number
from .schedule_tables import rows_of
from .tables import Table, signed

# Forms of the attack: the released code's, without the hinge of eq. (7), and eq. (7) with each D_1 of `PRINTED_AAI`.
FORMS = {"release": "as released", "top-k": "eq. (7), top-k", "l1": "eq. (7), ℓ1"}
BASELINES = ("Adv", "TRADES")


def near_print(cells: Iterable[Cell], table: str = "2") -> Table:
    """Make the table of how many rank correlations come out as printed.

    Args:
        cells: from `study.compare.compare`.
        table: the paper's table of rank correlations.
    """
    keys = ("values", "exact", "close", "other")
    return Table(
        ["data", "values", "to the digit", "within 0.01", "other", "largest difference", "not measured"],
        [
            [row["copy"], *(row[key] for key in keys), f"{row['max |diff|']:.3f}", row["not measured"]]
            for row in counts(cell for cell in cells if cell.table == table)
        ],
        "Not measured: no image keeps its prediction, or there is no record.",
        caption=f"Values of the paper's Table {table} that come out on the released networks.",
    )


def leads(cells: Iterable[Cell]) -> Table:
    """Make the table of Int's rank correlation less the larger one of adversarial training and TRADES, in Table 2.

    Args:
        cells: from `study.compare.compare`, the networks trained here by one schedule for all methods.
    """
    at = {(cell.dataset, cell.level, cell.method): cell for cell in cells if cell.table == "2"}

    def lead(dataset: str, level: str, source: str) -> str:
        own, *others = (getattr(at[dataset, level, method], source) for method in ("Int", *BASELINES))
        others = [tau for tau in others if tau is not None]
        return signed(own - max(others)) if others and own is not None else "–"

    lacking = [
        f"{cell.dataset} {cell.architecture}: without {method}"
        for (_, _, method), cell in at.items()
        if method in BASELINES and cell.ours is None
    ]
    networks = ["printed", "released", "ours"]
    return Table(
        ["data, ε", "printed", "released", "trained here"],
        [[f"{d}, {e}", *(lead(d, e, s) for s in networks)] for d, e in dict.fromkeys(key[:2] for key in at)],
        "τ of Int, less that of the better of Adv and TRADES."
        + (f" Trained here, {'; '.join(dict.fromkeys(lacking))}." if lacking else ""),
        caption="How far Int is ahead of adversarial training in Table 2 of the paper.",
    )


def of_those_left(records: Iterable[Record], eps: float) -> Table:
    """Make the table of rank correlations on MNIST Small, of the images that keep their prediction and of all.

    Args:
        records: those of `measure table2` count.
        eps: the radius.
    """
    rows = rows_of(records, "aai", "released", interpreter="CAM", eps=eps)
    (n,) = {row["n_all"] for row in rows}
    return Table(
        [f"method, ε = {eps:g}", "τ of those left", "images left", f"τ of all {n}"],
        [[row["method"], number(row["tau"], digits=3), row["n"], number(row["tau_all"], digits=3)] for row in rows],
        "MNIST Small, released networks.",
        caption=f"Kendall's τ at ε = {eps:g}, of the images left as in Table 2, and of all.",
    )


def by_form(records: Sequence[Record]) -> dict[tuple[str, str, float], dict]:
    """Return the rows of the attack on maps of MNIST Small: (key of `FORMS`, method, eps) -> row."""
    released = rows_of(records, "aai", "released", interpreter="CAM")
    printed = rows_of(records, "aai-printed", "released")
    of = lambda form: released if form == "release" else [row for row in printed if row["form"] == form]
    return {(form, row["method"], row["eps"]): row for form in FORMS for row in of(form)}


def of_each_form(records: Sequence[Record], methods: Sequence[str], sizes: Sequence[float]) -> Table:
    """Make the table of rank correlations under the attack as released and as eq. (7) prints it.

    Args:
        records: those of `measure table2` and `measure aai-printed` count.
        methods: released networks of MNIST Small.
        sizes: radii eps.
    """
    at = by_form(records)
    shown = lambda row: number(row["tau"], digits=3) + (f" ({row['n']})" if row["n"] else "")
    (n,) = {row["n_all"] for row in at.values()}
    return Table(
        ["attack, method", *(f"ε = {eps:g}" for eps in sizes)],
        [[f"{FORMS[f]}: {m}", *(shown(at[f, m, eps]) for eps in sizes)] for f in FORMS for m in methods],
        f"MNIST Small, released networks: τ over the images of unchanged class, and how many these are of {n}.",
        caption="Attack against interpretability as released and as equation (7) prints it.",
    )


def leads_of_each_form(records: Sequence[Record], sizes: Sequence[float]) -> Table:
    """Make the table of Int's rank correlation less that of adversarial training, under each form of the attack.

    Args:
        records: see `of_each_form`.
        sizes: radii eps.
    """
    at = by_form(records)
    lines = [
        [f"{FORMS[f]}, {images}", *(_lead(at[f, "Int", e], at[f, "Adv", e], end) for e in sizes)]
        for f in FORMS
        for images, end in (("left", ""), ("all", "_all"))
    ]
    return Table(
        ["attack, images", *(f"ε = {eps:g}" for eps in sizes)],
        lines,
        "MNIST Small, released networks: τ of Int less that of Adv, over the images of unchanged class and over all; "
        "± standard error, as if the two networks had different images.",
        caption="How far Int is ahead of adversarial training under each form of the attack.",
    )


def _lead(own: Mapping, other: Mapping, end: str) -> str:
    """Return the difference of two rows with its standard error; `end` is '_all' for all images, '' for those left."""
    values = [row[name + end] for row in (own, other) for name in ("tau", "se")]
    if None in values:
        return "–"
    tau, se, other_tau, other_se = values
    return f"{signed(tau - other_tau)} ± {math.hypot(se, other_se):.3f}"
