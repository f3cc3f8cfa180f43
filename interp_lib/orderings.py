"""What section 5 and Appendix C say in words, as statements about numbers: which method is above which.

A statement is held to printed values, to the released networks and to ours alike; see `compare.Cell` for the three.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import sub
from statistics import fmean, pstdev, stdev

from .compare import SCHEDULES, Cell, eps_of
from .data_files import TITLES
from .models import ARCHITECTURES
from .records import GAMMA, Record

SOURCES = ("printed", "released", "ours")
CERTAIN = 2  # standard errors


@dataclass(frozen=True)
class Statement:
    """At every one of `levels`, `better` is more accurate under PGD than every one of `worse`."""

    text: str
    better: str
    worse: tuple[str, ...]
    levels: tuple[str, ...]


ADVERSARIAL = ("Adv", "TRADES", "IG-Norm-Sum")
OTHERS = ("Normal", *ADVERSARIAL, "IG-Norm", "Int-1-class", "Int")
TABLES = ("3", "A1")  # accuracy under 200 steps; no network is in both
# Section 5, 'Robustness versus efficiency' and the discussion of Table 3. Training used 0.3 and 8/255.
STATEMENTS = {
    "MNIST Small": (
        Statement("Int is above Adv beyond the training ε", "Int", ("Adv",), ("0.35", "0.4")),
        Statement("Int is above TRADES, IG-Norm-Sum and Adv", "Int", ADVERSARIAL, ("0.4",)),
        Statement("Int-Adv is the best at large ε", "Int-Adv", OTHERS, ("0.35", "0.4")),
        Statement("Int-1-class fails where Int does not", "Int", ("Int-1-class",), ("0.3",)),
        Statement("IG-Norm fails where Int does not", "Int", ("IG-Norm",), ("0.3",)),
        Statement("Adv is above Int up to the training ε", "Adv", ("Int",), ("0.2", "0.3")),
    ),
    "CIFAR-10 WResnet": (
        Statement("Int is above Adv from the training ε on", "Int", ("Adv",), ("8/255", "9/255", "10/255")),
        Statement("Int-Adv is the best at large ε", "Int-Adv", OTHERS, ("9/255", "10/255")),
        Statement("Int-1-class fails where Int does not", "Int", ("Int-1-class",), ("8/255",)),
    ),
    # The paper says nothing of these two in words: section 5's sentences again, at the sizes of Table A1.
    "MNIST Pool": (
        Statement("Int-Adv is the best at large ε", "Int-Adv", OTHERS, ("0.3",)),
        Statement("Int-1-class fails where Int does not", "Int", ("Int-1-class",), ("0.3",)),
        Statement("IG-Norm fails where Int does not", "Int", ("IG-Norm",), ("0.3",)),
        Statement("Adv is above Int up to the training ε", "Adv", ("Int",), ("0.2", "0.3")),
    ),
    "CIFAR-10 Small": (
        Statement("Int is above Adv from the training ε on", "Int", ("Adv",), ("8/255",)),
        Statement("Int-Adv is the best at large ε", "Int-Adv", OTHERS, ("8/255",)),
        Statement("Int-1-class fails where Int does not", "Int", ("Int-1-class",), ("8/255",)),
        Statement("IG-Norm fails where Int does not", "Int", ("IG-Norm",), ("8/255",)),
    ),
}


@dataclass(frozen=True)
class Finding:
    """What the numbers of one source say of a statement at one level.

    Attributes:
        accuracy: of the method that should be the better one.
        rival, rival_accuracy: the most accurate of the others.
        error: standard error of the difference; 0 for printed values where both are 0 or 1.
        paired: whether that is an error of differences image by image.
    """

    statement: Statement
    level: str
    source: str
    accuracy: float
    rival: str
    rival_accuracy: float
    error: float
    paired: bool

    @property
    def difference(self) -> float:
        return self.accuracy - self.rival_accuracy

    @property
    def verdict(self) -> str:
        """'yes' or 'no' where the difference is more than two standard errors from 0, else 'open'."""
        if abs(self.difference) <= CERTAIN * self.error or self.difference == 0:
            return "open"
        return "yes" if self.difference > 0 else "no"

    def __str__(self) -> str:
        sign = "−" if self.difference < 0 else "+"
        return f"{self.verdict}, {sign}{abs(self.difference):.3f} ± {self.error:.3f}"


def perturbation_sizes(dataset: str, model: str) -> list[float]:
    """0 and every eps that a statement about a network is about, ascending, in the unit of the pixels.

    Args:
        dataset, model: as in `data.load` and `models.build`.
    """
    spoken = STATEMENTS[f"{TITLES[dataset]} {ARCHITECTURES[model].__name__}"]
    return sorted({0.0, *(eps_of(level) for statement in spoken for level in statement.levels)})


def column(cell: Cell, source: str) -> str:
    """Which of a cell's values a source has for the network that a printed row really belongs to, `Cell.owner`."""
    return "corrected" if source == "released" and cell.owner != cell.method else source


def accuracy(cell: Cell, source: str) -> float | None:
    """What a source says of the network that a printed row really belongs to; None: not measured."""
    return getattr(cell, column(cell, source))


def uncertainty(cell: Cell, source: str = "released", images: int = 200) -> float:
    """Standard error of an accuracy of n images, together with the spread between seeds where there are several.

    sqrt(p (1 - p) / n + s^2)
    """
    p, spread = accuracy(cell, source), cell.spread if source == "ours" else None
    return math.sqrt(p * (1 - p) / images + (spread or 0.0) ** 2)


def difference_error(one: Sequence[float], other: Sequence[float]) -> float:
    """Standard error of the difference of two accuracies on the same images, from what each image did, 0 to 1.

    sqrt(1/n^2 sum_i (d_i - mean d)^2), d_i the difference on image i
    """
    return pstdev(map(sub, one, other)) / math.sqrt(len(one))


def paired_error(cells: Sequence[Cell], source: str = "released") -> float | None:
    """Standard error of the difference of two accuracies on the same images, seeds as in `uncertainty`.

    With d_i the difference on image i, 1, 0 or -1, or between two means over seeds,

        sqrt(1/n^2 sum_i (d_i - mean d)^2 + s^2 + s'^2)

    Returns:
        The error; None where the records do not say which images were right.
    """
    one, other = (cell.outcomes.get(column(cell, source), ()) for cell in cells)
    if not one or len(one) != len(other):
        return None
    return math.hypot(difference_error(one, other), *((cell.spread or 0.0) for cell in cells if source == "ours"))


def findings(
    cells: Iterable[Cell], *, network: str = "MNIST Small", source: str = "released", images: int = 200
) -> list[Finding]:
    """Every statement about a part of Table 3 or A1, held to the values of one source.

    The error of a difference is `paired_error` where the records say which images were right. Where they do not it is
    `uncertainty` of both accuracies together, as if they came from different images: mostly too large, because two
    networks mostly have the same images right. The spread between seeds is not divided by their number: the question
    is whether another pair of networks would show the same.

    Args:
        cells: of `compare.compare`.
        network: dataset and architecture as the paper writes them, a key of `STATEMENTS`.
        source: 'printed', 'released' or 'ours'.
        images: n. Networks of several seeds saw the same images, which count once.

    Returns:
        A finding for every statement and level that has a value of `better` and of at least one of `worse`.

    Raises:
        ValueError: an unknown source, or a network without statements.

    Source: section 5.
    """
    if source not in SOURCES or network not in STATEMENTS:
        raise ValueError(
            f"source is one of {SOURCES}, network one of {tuple(STATEMENTS)}; got {source!r}, {network!r}."
        )
    at = {
        (cell.owner, cell.level): cell
        for cell in cells
        if cell.table in TABLES
        and f"{cell.dataset} {cell.architecture}" == network
        and accuracy(cell, source) is not None
    }
    found = []
    for statement in STATEMENTS[network]:
        for level in statement.levels:
            better = at.get((statement.better, level))
            worse = [at[method, level] for method in statement.worse if (method, level) in at]
            if better is None or not worse:
                continue
            rival = max(worse, key=lambda cell: accuracy(cell, source))
            error = paired_error((better, rival), source)
            paired = error is not None
            if not paired:
                error = math.hypot(*(uncertainty(cell, source, images) for cell in (better, rival)))
            values = accuracy(better, source), rival.owner, accuracy(rival, source)
            found.append(Finding(statement, level, source, *values, error, paired))
    return found


def gamma_rows(
    found: Iterable[Record],
    accuracies: str = "pgd",
    *,
    dataset: str = "mnist",
    model: str = "small",
    method: str = "Int",
    steps: int = 200,
) -> list[dict]:
    """Accuracy of the networks that we trained with one method and several gammas: the rows of Figure A1.

    gamma = 0 is normal training, and its rows are those of Normal. Schedules are not mixed: the first of
    `compare.SCHEDULES` under which there is more than one gamma, else the first that is there. `accuracies` is the
    measurement that they are taken from, 'pgd' or 'many'; see `compare.compare`.

    Returns:
        A row for every gamma and eps, in this order: gamma, eps, accuracy (mean over seeds), se (of the images),
        spread (standard deviation between seeds; None for one), seeds, n (images), schedule. Empty without a record.

    Source: Appendix C.
    """
    rows = [
        {**row, "gamma": 0.0 if row["method"] == "Normal" else row.get("gamma", GAMMA)}
        for record in found
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
            {"gamma": gamma, "eps": eps, "accuracy": p, "se": math.sqrt(p * (1 - p) / n),
             "spread": stdev(values) if len(values) > 1 else None, "seeds": len(values), "n": n, "schedule": chosen}
        )  # fmt: skip
    return result
