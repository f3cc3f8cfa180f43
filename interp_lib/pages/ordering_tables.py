"""Make the tables of the chapter on the orderings of methods, and say which of its verdicts a correction takes away."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..study import intervals
from ..study.claims_robustness import SOURCES, TABLES, Finding, findings
from ..study.compare import Cell
from .tables import Table

# Measurement -> where its attack starts, and on how many images it was measured.
ATTACKS = {"pgd": ("from x", 200), "many": ("from x", 2000), "starts": ("from five random starts", 200)}

# The networks of the chapter's tables of statements and the measurements that they rest on, in the order of the page.
SHOWN = (
    *((network, "pgd") for network in ("MNIST Small", "CIFAR-10 WResnet", "MNIST Pool", "CIFAR-10 Small")),
    *((network, kind) for kind in ("many", "starts") for network in ("MNIST Small", "CIFAR-10 Small")),
)

HEADS = {"printed": "printed", "released": "released", "ours": "trained here"}  # of the columns, by source


@dataclass(frozen=True)
class Tested:
    """The statements about one network, tested on each source.

    Attributes:
        network: dataset and architecture as the paper writes them.
        start, images: where the attack starts, and the number of images.
        columns: source -> its findings.
        schedule: the one of the networks trained here; 'not yet' without such networks.
    """

    network: str
    start: str
    images: int
    columns: Mapping[str, Sequence[Finding]]
    schedule: str

    @property
    def findings(self) -> list[Finding]:
        return [finding for column in self.columns.values() for finding in column]


def tested(cells: Sequence[Cell], network: str, measurement: str = "pgd") -> Tested:
    """Test every statement about a network; on the printed values as well, where the attack is that of the tables.

    Args:
        cells: from `study.compare.compare` with this measurement.
        network: dataset and architecture as the paper writes them.
        measurement: a key of `ATTACKS`.
    """
    start, images = ATTACKS[measurement]
    sources = SOURCES if measurement == "pgd" else SOURCES[1:]
    columns = {source: findings(cells, network=network, source=source, images=images) for source in sources}
    trained = (c for c in cells if c.table in TABLES and c.ours is not None)
    schedule = next((c.schedule for c in trained if f"{c.dataset} {c.architecture}" == network), None)
    return Tested(network, start, images, columns, schedule or "not yet")


def tested_on_the_page(cells: Mapping[str, Sequence[Cell]]) -> dict[tuple[str, str], Tested]:
    """Test the statements about every network of `SHOWN`: (network, measurement) -> its findings.

    Args:
        cells: measurement -> cells from `study.compare.compare` with it.
    """
    return {(network, kind): tested(cells[kind], network, kind) for network, kind in SHOWN}


def statements(part: Tested) -> Table:
    """Make the table of the statements about one network: a line for each statement and level, a column a source."""
    columns = [{(f.statement.text, f.level): f for f in column} for column in part.columns.values()]
    keys = dict.fromkeys(key for column in columns for key in column)
    paired = [HEADS[source] for source, of in part.columns.items() if of and all(f.paired for f in of)]
    absent = sorted({f"{method} ({HEADS[f.source]})" for f in part.findings for method in f.missing})
    rows = [
        [
            textwrap.wrap(text, 19, break_on_hyphens=False),
            level,
            *(str(column.get((text, level), "–")).split(", ") for column in columns),
        ]
        for text, level in keys
    ]
    return Table(
        ["statement", "ε", *(HEADS[source] for source in part.columns)],
        rows,
        f"{part.network}, {part.start}: verdict, difference to the best of the others ± standard error, p. "
        f"{part.images:,} images; trained here: {part.schedule}."
        + (f" Image by image: {', '.join(paired)}." if paired else "")
        + (f" Not measured: {', '.join(absent)}." if absent else ""),
        caption=f"Statements of section 5, tested on {part.network}: {part.start}, {part.images:,} images.",
    )


def tally(part: Tested, source: str = "released") -> str:
    """Say how many of the statements about a network are borne out by a source, and how many refuted."""
    verdicts = [finding.verdict for finding in part.columns[source]]
    return (
        f"{verdicts.count('yes')} of {len(verdicts)} statements about {part.network}, {HEADS[source]}, are borne out, "
        f"{verdicts.count('no') or 'none'} refuted"
    )


def not_borne_out(parts: Iterable[Tested]) -> list[str]:
    """Say, a line each, which statements are refuted, and by which rival."""
    return [
        f"{part.network}, {f.images:,} images, {part.start}, {f.source}: not borne out at {f.level}: "
        f"{f.statement.text}; {f.rival} has {f.rival_accuracy:.3f} against {f.accuracy:.3f}"
        for part in parts
        for f in part.findings
        if f.verdict == "no"
    ]


def _over_the_page(parts: Iterable[Tested]) -> list[tuple[Tested, Finding, float]]:
    """Return every finding with its p, corrected after Holm for the number of all of them."""
    every = [(part, f) for part in parts for f in part.findings]
    adjusted = intervals.holm([f.p for _, f in every])
    return [(part, f, p) for (part, f), p in zip(every, adjusted, strict=True)]


def settled(parts: Iterable[Tested]) -> dict[str, int]:
    """Count the comparisons, and those that are settled by two standard errors, by a test, and by corrected ones.

    Returns:
        Counts under 'all', 'two errors', 'uncorrected', 'column' (each table's column corrected by itself, as in the
        tables) and 'page' (all comparisons corrected together).
    """
    every = _over_the_page(parts)
    return {
        "all": len(every),
        "two errors": sum(abs(f.difference) > 2 * f.error for _, f, _ in every),
        "uncorrected": sum(f.p <= intervals.LEVEL for _, f, _ in every),
        "column": sum(f.adjusted <= intervals.LEVEL for _, f, _ in every),
        "page": sum(p <= intervals.LEVEL for *_, p in every),
    }


def lost_to_correction(parts: Iterable[Tested]) -> list[str]:
    """Say, a line each, what is settled where a column is corrected by itself, and not where the whole page is."""
    return [
        f"  {part.network}, {part.start}, {f.images}, {f.source}, {f.level}: {f.statement.text}"
        for part, f, p in _over_the_page(parts)
        if f.adjusted <= intervals.LEVEL < p
    ]
