"""Make the tables of the chapter on schedules: networks by `quick` and by `paper` side by side, on MNIST Small."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from ..study.claims_table1 import claims, tally, with_verdicts
from ..study.compare import Cell
from ..study.comparisons import Measured, compared
from ..study.records import Record, having
from ..study.schedules import distances
from .tables import Table, p_value, signed

SCHEDULES = ("quick", "paper")


def rows_of(found: Iterable[Record], measurement: str, networks: str, **labels) -> list[dict]:
    """Return the rows of a measurement of MNIST Small with these labels, from records of any schedule."""
    chosen = having(found, measurement=measurement, networks=networks, dataset="mnist", model="small")
    return [row for record in chosen for row in record.rows if labels.items() <= row.items()]


def distance_table(columns: Mapping[str, Sequence[Cell]]) -> Table:
    """Make the table of `study.schedules.distances`, a line for each printed table and method.

    Args:
        columns: see `study.schedules.cells_by_schedule`.
    """
    heads = [f"{schedule} to {what}" for schedule in columns for what in ("print", "released")]
    lines = [
        [f"Table {row['table']}, {row['method']}", row["values"]]
        + ["" if row[head] is None else f"{row[head]:.3f}" for head in heads]
        for row in distances(columns)
    ]
    seeds = (
        f"{schedule}: " + ", ".join(f"{m} {k}" for m, k in _seeds(cells).items()) for schedule, cells in columns.items()
    )
    return Table(
        ["MNIST Small", "values", *heads],
        lines,
        f"Mean absolute differences, mean over seeds. Seeds: {'; '.join(seeds)}.",
        caption="How far networks trained here are from print and from the released networks, by two schedules.",
    )


def _seeds(cells: Iterable[Cell]) -> dict[str, int]:
    return {cell.method: round((cell.n_ours or 0) / 200) for cell in cells if cell.table == "3"}


def accuracies(columns: Mapping[str, Sequence[Cell]], table: str = "3") -> Table:
    """Make a table of accuracies over eps: for every method a line of print, of the released and of each schedule."""
    at = {(s, c.method, c.level): c for s, cells in columns.items() for c in cells if c.table == table}
    levels = list(dict.fromkeys(level for _, _, level in at))
    lines = []
    for method in dict.fromkeys(method for _, method, _ in at):
        first = [at[next(iter(columns)), method, level] for level in levels]
        lines.append([f"{method}, printed", *(cell.value for cell in first)])
        lines.append([f"{method}, released", *(f"{cell.corrected:.3f}" for cell in first)])
        for schedule in columns:
            own = (at[schedule, method, level] for level in levels)
            spread = (f"{c.ours:.3f}" + (f" ± {c.spread:.3f}" if c.spread else "") for c in own)
            lines.append([f"{method}, {schedule}", *spread])
    return Table(
        ["ε", *levels],
        lines,
        "MNIST Small, n = 200, PGD from x. ±: standard deviation between seeds.",
        caption=f"Table {table} of the paper, MNIST Small: printed, released, and two schedules.",
    )


def first_claim(found: Iterable[Record]) -> Table:
    """Make the table of the first claim of Table 1, network by network: how often its sign is found, and settled.

    The claim: among the sets of classes the 2-class discrepancy has the largest NDS and the smallest NSL.
    """
    of_network: dict[tuple[str, int], list[dict]] = {}
    for row in rows_of(found, "isa", "ours"):
        of_network.setdefault((row["schedule"], row["seed"]), []).append(row)
    judged = with_verdicts({"network": network, **c} for network, rows in of_network.items() for c in claims(rows))
    lines = []
    for network in sorted(of_network, reverse=True):
        line = ["{}, seed {}".format(*network)]
        for score in ("NDS", "NSL"):
            key = {"network": network, "claim": "2-class", "score": score}
            some = [claim for claim in judged if key.items() <= claim.items()]
            signs = sum(claim["as_claimed"] for claim in some)
            line.append(f"{signs} of {len(some)}, {tally(some)['yes']:g} settled")
        lines.append(line)
    return Table(
        ["Normal, MNIST", "NDS: sign as claimed", "NSL: sign as claimed"],
        lines,
        "CAM and GradCAM++, n = 100 images; settled: corrected for all of them.",
        caption="The first claim of Table 1, network by network.",
    )


def on_many_images(found: Sequence[Record], method: str, eps: float) -> Table:
    """Make the table of a method on 2,000 images: the released network and those of each schedule, in pairs."""
    of = {"eps": eps, "method": method}
    sides = {"released": rows_of(found, "many", "released", **of)}
    sides |= {schedule: rows_of(found, "many", "ours", schedule=schedule, **of) for schedule in SCHEDULES}
    measured = {name: Measured.of_rows(rows) for name, rows in sides.items() if rows}
    lines = []
    for other, one in combinations(measured, 2):
        found_difference = compared(measured[one], measured[other])
        lines.append(
            [
                f"{one} minus {other}",
                *(f"{measured[name].accuracy:.3f}" for name in (one, other)),
                f"{signed(found_difference.difference)} ± {found_difference.error:.3f}",
                p_value(found_difference.p),
            ]
        )
    n = next(iter(measured.values())).images
    return Table(
        [f"{method}, ε = {eps:g}", "first", "second", "difference", "p"],
        lines,
        f"MNIST Small, PGD of 200 steps from x, the same {n:,} test images; seeds: "
        + ", ".join(f"{name} {m.seeds}" for name, m in measured.items())
        + ".",
        caption=f"{method} on {n:,} images: two schedules and the released network, in pairs.",
    )


def under_apgd(found: Sequence[Record]) -> Table:
    """Make the table of accuracies after APGD-T: the released network above the one by the paper's schedule."""
    released, ours = (rows_of(found, "strong", networks, attack="APGD-T") for networks in ("released", "ours"))
    at = {(row["method"], row["eps"]): row["accuracy"] for row in released}
    trained = {(row["method"], row["seed"], row["eps"]): row for row in ours if row["schedule"] == "paper"}
    sizes = sorted({eps for _, _, eps in trained})
    lines = [
        [f"{method}, seed {seed}"]
        + [
            [(f"{at[method, e]:.3f}", "measured"), (f"{trained[method, seed, e]['accuracy']:.3f}", "ours")]
            for e in sizes
        ]
        for method, seed in dict.fromkeys(key[:2] for key in trained)
    ]
    n = next(iter(trained.values()))["n"]
    return Table(
        ["method", *(f"ε = {e:g}" for e in sizes)],
        lines,
        f"Bold: the released network. Green: trained here by the schedule paper. n = {n:,}, after APGD-CE and APGD-T.",
        caption="Accuracy under APGD: released networks and those trained here by the paper's schedule.",
    )
