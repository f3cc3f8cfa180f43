"""What the paper's claims are decided by: the records, the order of their strength, and the words of a verdict."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from ..paper import DATASETS
from .compare import compare
from .evaluation import IMAGES
from .records import Record, having

VERDICTS = ("holds", "holds in part", "does not hold", "not settled", "cannot be tested here")

# Measurements of accuracies, the strongest attack first: APGD, PGD from five random starts, from x, on fewer images.
EVIDENCE = ("strong", "starts", "many", "pgd")


@dataclass(frozen=True)
class Line:
    """One claim and what is known of it.

    Attributes:
        claim: the claim, in short.
        where: where the paper makes it.
        released: what the released networks say, with numbers.
        ours: what the networks that we trained say; '' where they were not asked.
        verdict: one of `VERDICTS`, by the released networks.
        chapter: file name of the page with the experiment.
    """

    claim: str
    where: str
    released: str
    ours: str
    verdict: str
    chapter: str


class Evidence:
    """The records, and comparisons with print that are computed once."""

    def __init__(self, results: Sequence[Record]):
        self.results = results
        self.cells: Callable = cache(lambda accuracies: compare(results, accuracies))

    def rows(self, measurement: str, networks: str, dataset: str, model: str = "small") -> list[dict]:
        """Return the rows of all records of a measurement."""
        chosen = having(self.results, measurement=measurement, networks=networks, dataset=dataset, model=model)
        return [row for record in chosen for row in record.rows]

    def images(self, measurement: str, network: str, source: str) -> int:
        """Return on how many images a measurement rests, for a network as in `STATEMENTS`; 200 without a record."""
        title, model = network.split()
        rows = self.rows(measurement, source, DATASETS[title], model.lower())
        return max((row["n"] for row in rows if row.get("attack") != "Square"), default=IMAGES)


def decided(settled: Iterable[str]) -> str:
    """Return the verdict on a claim from the verdicts on its parts, 'yes', 'no', 'none left' or others."""
    parts = list(settled)
    if "yes" in parts:
        return "holds" if set(parts) == {"yes"} else "holds in part"
    return "does not hold" if {"no", "none left"} & set(parts) else "not settled"


def in_two(made: Iterable[Line]) -> tuple[list[Line], list[Line]]:
    """Divide lines into single claims and statements about one network's accuracies, 'MNIST Small: ...'."""
    made = list(made)
    return [line for line in made if ": " not in line.claim], [line for line in made if ": " in line.claim]
