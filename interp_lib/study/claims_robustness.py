"""Test the statements of section 5 and Appendix C about which method is more accurate than which.

A statement is tested on the printed values, on the released networks and on ours; see `compare.Cell` for these three.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from ..paper import GAMMA, STATEMENTS, Statement
from . import intervals
from .compare import SCHEDULES, Cell
from .comparisons import Measured, accuracy, compared
from .records import Record

SOURCES = ("printed", "released", "ours")


TRAINED = 0.3  # clean accuracy, three times that of guessing: a network below it has not learnt its task


TABLES = ("3", "A1", "5")  # one attack of 200 steps; no network appears in both of the first two


@dataclass(frozen=True)
class Finding:
    """The result of testing one statement at one level on the numbers of one source.

    Attributes:
        accuracy: accuracy of the method that should be better.
        rival, rival_accuracy: the most accurate of the other methods, and its accuracy.
        error: standard error of the difference between these two accuracies.
        paired: whether that error is computed from differences image by image.
        p: p-value for the statement, or for its opposite where a rival is more accurate; see `findings`.
        adjusted: p after Holm's correction for the number of findings.
        images: number of images n.
        missing: methods of the statement that are printed but have no value in this source.
        untrained: methods whose clean accuracy is not above `TRAINED`.
    """

    statement: Statement
    level: str
    source: str
    accuracy: float
    rival: str
    rival_accuracy: float
    error: float
    paired: bool
    p: float
    adjusted: float
    images: int
    missing: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        return self.accuracy - self.rival_accuracy

    @property
    def at_most(self) -> float:
        """Upper end of the exact confidence interval of an accuracy when none of `images` images is right."""
        return intervals.proportion(0, self.images)[1]

    @property
    def verdict(self) -> str:
        """The verdict on the statement, one of six.

        'yes' or 'no'; 'not settled': too few images or networks to tell; 'none left': no image is right on either
        side; 'not measured': better than all rivals that have a value, but some rivals have none; 'not trained': a
        network of the comparison has not learnt its task, so that its failure under attack confirms nothing.
        """
        if self.untrained:
            return "not trained"
        if self.accuracy == self.rival_accuracy == 0:
            return "none left"
        if self.adjusted > intervals.LEVEL:
            return "not settled"
        if self.difference < 0:
            return "no"
        return "not measured" if self.missing else "yes"

    def __str__(self) -> str:
        if self.verdict == "none left":
            return f"none left, at most {self.at_most:.{2 if self.images < 1000 else 3}f}"
        if self.verdict == "not trained":
            return f"not trained, {' and '.join(self.untrained)}"
        sign = "−" if self.difference < 0 else "+"
        p = "p < 0.001" if self.adjusted < 0.001 else f"p = {self.adjusted:.3f}"
        return f"{self.verdict}, {sign}{abs(self.difference):.3f} ± {self.error:.3f}, {p}"


def findings(
    cells: Iterable[Cell],
    *,
    network: str = "MNIST Small",
    source: str = "released",
    images: int = 200,
    statements: Iterable[Statement] | None = None,
) -> list[Finding]:
    """Test every statement about one network of Table 3 or A1 on the values of one source.

    The statement's better method is compared with each of its rivals; see `compared`. 'yes' needs it to be above all
    rivals, so that p is the largest of the p-values and needs no correction; 'no' needs only one rival above it, so
    that p is the smallest p-value of such rivals times the number of all rivals. Holm's procedure then adjusts p over
    all findings.

    Args:
        cells: from `compare.compare`.
        network: dataset and architecture as the paper writes them, a key of `STATEMENTS`.
        source: 'printed', 'released' or 'ours'.
        images: number of images n.
        statements: other statements about the network, such as `paper.UNFORESEEN_STATEMENTS`.

    Returns:
        One finding for each statement and level where the source has a value and a clean accuracy for `better` and
        for at least one of `worse`.

    Raises:
        ValueError: unknown source, or a network without statements.

    Source: section 5.
    """
    if source not in SOURCES or network not in STATEMENTS:
        raise ValueError(
            f"source is one of {SOURCES}, network one of {tuple(STATEMENTS)}; got {source!r}, {network!r}."
        )
    spoken = [c for c in cells if c.table in TABLES and f"{c.dataset} {c.architecture}" == network]
    printed = {cell.owner for cell in spoken}
    at = {
        (cell.owner, cell.level): Measured.of_cell(cell, source, images)
        for cell in spoken
        if accuracy(cell, source) is not None
    }
    clean = {method: value.accuracy for (method, level), value in at.items() if level == "0"}
    results = []
    for statement in STATEMENTS[network] if statements is None else statements:
        for level in statement.levels:
            measured = [m for m in (statement.better, *statement.worse) if m in clean and (m, level) in at]
            rivals = {method: at[method, level] for method in measured if method != statement.better}
            if statement.better not in measured or not rivals:
                continue
            better = at[statement.better, level]
            against = {method: compared(better, other) for method, other in rivals.items()}
            rival = max(rivals, key=lambda method: rivals[method].accuracy)
            best = against[rival]
            above = [one.p for one in against.values() if one.difference < 0]
            p = min(1.0, min(above) * len(against)) if above else max(one.p for one in against.values())
            results.append(
                Finding(
                    statement,
                    level,
                    source,
                    better.accuracy,
                    rival,
                    rivals[rival].accuracy,
                    best.error,
                    best.paired,
                    p,
                    p,
                    images,
                    missing=tuple(m for m in statement.worse if m in printed and m not in rivals),
                    untrained=tuple(m for m in measured if clean[m] <= TRAINED),
                )
            )
    # Findings on untrained networks test nothing: they would only make Holm's correction harsher.
    trained = [finding for finding in results if not finding.untrained]
    adjusted = iter(intervals.holm([finding.p for finding in trained]))
    return [finding if finding.untrained else replace(finding, adjusted=next(adjusted)) for finding in results]


def gamma_rows(
    records: Iterable[Record],
    accuracies: str = "pgd",
    *,
    dataset: str = "mnist",
    model: str = "small",
    method: str = "Int",
    steps: int = 200,
) -> list[dict]:
    """Return the accuracy of our networks of one method against gamma: the rows of Figure A1.

    gamma = 0 is normal training, so its rows are the rows of Normal. Schedules are not mixed: the rows come from the
    first of `compare.SCHEDULES` with more than one gamma > 0, else from the first that has rows. `accuracies` is the
    measurement that the accuracies are taken from, 'pgd' or 'many'; see `compare.compare`.

    Returns:
        One row for each gamma and eps, in this order: gamma, eps, accuracy (mean over seeds), se (of the images),
        spread (standard deviation between seeds; None for one seed), seeds, n (images), schedule. Empty without a
        record.

    Source: Appendix C.
    """
    rows = [
        {**row, "gamma": 0.0 if row["method"] == "Normal" else row.get("gamma", GAMMA)}
        for record in records
        if [record.settings.get(key) for key in ("measurement", "dataset", "model", "networks")]
        == [accuracies, dataset, model, "ours"]
        for row in record.rows
        if row["method"] in (method, "Normal") and row["steps"] == steps and "schedule" in row
    ]
    gammas = {schedule: {row["gamma"] for row in rows if row["schedule"] == schedule} for schedule in SCHEDULES}
    chosen = next((s for s in SCHEDULES if len(gammas[s] - {0.0}) > 1), next((s for s in SCHEDULES if gammas[s]), None))
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["schedule"] == chosen:
            groups.setdefault((row["gamma"], row["eps"]), []).append(row)
    result = []
    for (gamma, eps), group in sorted(groups.items()):
        values, n = [row["accuracy"] for row in group], group[0]["n"]
        p = fmean(values)
        result.append(
            {
                "gamma": gamma,
                "eps": eps,
                "accuracy": p,
                "se": math.sqrt(p * (1 - p) / n),
                "spread": stdev(values) if len(values) > 1 else None,
                "seeds": len(values),
                "n": n,
                "schedule": chosen,
            }
        )
    return result
