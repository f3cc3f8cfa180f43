"""Make the tables of the chapter on Table 5: attacks that training did not foresee."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from ..paper import UNFORESEEN_STATEMENTS
from ..study.claims_robustness import findings
from ..study.compare import Cell
from ..study.records import Record
from .tables import Table


def disagreements(cells: Iterable[Cell]) -> Table:
    """Make the table of the printed values of Table 5 that the measured ones do not meet.

    A value is met within one image of 200, or within two standard deviations of one random start, see `Cell.verdict`.
    """
    measured = [(cell.released, cell.noise or 0.0, cell) for cell in cells if cell.released is not None]
    noise = [deviation for _, deviation, _ in measured]
    far = [entry for entry in measured if entry[2].verdict() == "other"]
    return Table(
        ["method", "attack", "printed", "measured", "of one start"],
        [[c.method, c.level, c.value, f"{value:.3f}", f"± {deviation:.3f}"] for value, deviation, c in far],
        f"{len(measured) - len(far)} of {len(measured)} values agree, within one image or two standard deviations of "
        f"one start, which are {min(noise):.3f} to {max(noise):.3f}. These {len(far)} do not.",
        caption="Values of Table 5 that differ from the measured ones.",
    )


def two_forms(record: Record, methods: Sequence[str], attacks: Sequence[str] = ("Gabor", "Snow")) -> Table:
    """Make the table of attacks as the public code has them, and as they are defined.

    Args:
        record: of `measure table5`, with rows of both forms of these attacks, one for each random start.
        methods: the networks, in order.
    """
    accuracy: dict[tuple[str, str, str], list[float]] = {}
    for row in record.rows:
        accuracy.setdefault((row["method"], row["attack"], row["form"]), []).append(row["accuracy"])
    forms = [(attack, form) for attack in attacks for form in ("released", "defined")]
    starts = {form: len(accuracy[methods[0], attacks[0], form]) for form in ("released", "defined")}
    return Table(
        ["method", *(f"{attack}, {'public code' if form == 'released' else 'as defined'}" for attack, form in forms)],
        [[m, *(f"{fmean(accuracy[m, attack, form]):.3f}" for attack, form in forms)] for m in methods],
        f"Small, {record.settings['title']}, n = {record.rows[0]['n']}; means over "
        f"{starts['released']} random starts, as defined over {starts['defined']}.",
        caption="Two attacks of Table 5 as the public code has them, and as they are defined.",
    )


def statements(cells: Sequence[Cell]) -> Table:
    """Make the table of the paper's sentences about Table 5, each held to the outcomes of the released networks."""
    found = findings(cells, network="CIFAR-10 Small", statements=UNFORESEEN_STATEMENTS)
    return Table(
        ["statement", "attack", "accuracies", "holds?"],
        [[f.statement.text, f.level, f"{f.accuracy:.3f} against {f.rival_accuracy:.3f}", str(f)] for f in found],
        "CIFAR-10 Small, released networks, n = 200, ten starts; difference ± standard error.",
        caption="Statements about Table 5 of the paper, tested on the released networks.",
    )
