"""Make the tables of the chapter on the baselines with integrated gradients."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from ..datasets import TITLES
from ..paper import level_of
from ..study import intervals
from ..study.comparisons import compared_rows
from ..study.evaluation import TRAINING_EPS
from ..study.records import Record
from ..study.runs import rows_over_seeds
from .tables import Table, network_title, p_value, signed


def losses(records: Iterable[Record]) -> Table:
    """Make the table of IG-Norm's loss on trained networks, with the weight of its authors and with 1/N.

    Args:
        records: those of `measure ig-penalty` count, at the x' that maximises the penalty; networks trained here have
            one line for all seeds.
    """
    groups: dict[tuple[str, ...], list[dict]] = {}
    copies: dict[str, None] = {}
    images = set()
    for record in (r for r in records if r.settings["measurement"] == "ig-penalty"):
        s = record.settings
        copies[s["title"]] = None
        for row in (row for row in record.rows if row["climbs"] == "penalty"):
            network = f"{network_title(s['dataset'], s['model'])}, {row['method']}"
            groups.setdefault((s["networks"], network), []).append(row)
            images.add(row["n"])
    sources = {"released": "released", "ours": "trained here"}
    terms = ("cross_entropy", "penalty", "total", "total_over_n")
    return Table(
        ["network", "cross-entropy at x", "‖IG‖₁", "loss, weight 1", "loss, weight 1/N"],
        [
            [[network, title], *(f"{fmean(row[term] for row in rows):.3f}" for term in terms)]
            for source, title in sources.items()
            for (networks, network), rows in groups.items()
            if networks == source
        ],
        f"{', '.join(map(str, sorted(images)))} test images; of networks trained here the mean over seeds. "
        f"Data: {'; '.join(copies)}.",
        caption="Loss of IG-Norm on trained networks, with the weight of its authors and with the released code's.",
    )


def accuracies(records: Sequence[Record], dataset: str, sizes: Sequence[float], methods: Iterable[str]) -> Table:
    """Make the table of accuracies of methods trained here, from x and from five random starts.

    Args:
        records: those of `measure table3` and `measure starts` on networks trained here count.
        dataset: 'mnist' or 'cifar10'.
        sizes: radii eps, the first of them 0.
        methods: in the order of the lines; those without networks are left out.
    """
    from_x, starts = (rows_over_seeds(records, kind) for kind in ("pgd", "starts"))

    def mean(part: dict, method: str, eps: float) -> str:
        rows = part.get((dataset, method, round(eps, 6)))
        return f"{fmean(row['accuracy'] for row in rows):.3f}" if rows else "–"

    lines, seen = [], set()
    for m in (m for m in methods if (dataset, m, 0.0) in from_x):
        clean = from_x[dataset, m, 0.0]
        seen |= {row["n"] for row in clean}
        cells = ([(mean(from_x, m, e), ""), (mean(starts, m, e), "random")] for e in sizes)
        lines.append([m, str(len(clean)), *cells])
    heads = [level_of(e, dataset) for e in sizes]
    title = network_title(dataset, "small")
    return Table(
        ["method", "seeds", f"ε = {heads[0]}", *heads[1:]],
        lines,
        f"{title}, n = {', '.join(map(str, sorted(seen)))} a seed. First line: PGD from x, 200 steps; second: what "
        "five random starts leave.",
        caption=f"Accuracy of the IG baselines on {title} with the paper's weight and with their authors'.",
    )


def differences(records: Sequence[Record], pairs: Sequence[tuple[str, str]]) -> Table:
    """Make the table of differences between methods trained here at the training radius, image by image.

    Each pair is compared on 2,000 images where both methods were measured on them, else on the paper's 200; p is of no
    difference, see `study.comparisons.compared`, corrected for the number of lines after Holm.

    Args:
        records: those of `measure many` and `measure table3` on networks trained here count.
        pairs: (one method, another); a pair that was not measured on a dataset is left out there.
    """
    many, few = (rows_over_seeds(records, kind) for kind in ("many", "pgd"))
    lines, found = [], []
    for dataset in ("mnist", "cifar10"):
        eps = round(TRAINING_EPS[dataset], 6)
        for one, other in pairs:
            keys = [(dataset, method, eps) for method in (one, other)]
            measured = next((part for part in (many, few) if part.keys() >= set(keys)), None)
            if measured is None:
                continue
            sides = [measured[key] for key in keys]
            found.append(compared_rows(*sides))
            images = f"{max(map(len, sides))} × {sides[0][0]['n']:,}"
            lines.append([f"{one} against {other}", TITLES[dataset], images])
    for line, c, p in zip(lines, found, intervals.holm([c.p for c in found]), strict=True):
        line += [f"{signed(c.difference)} ± {c.error:.3f}", p_value(p)]
    return Table(
        ["at the training ε", "Small", "seeds × images", "difference", "p"],
        lines,
        f"PGD from x, 200 steps. p corrected for {len(lines)} differences (Holm).",
        caption="Differences between the IG baselines and their rivals at the training ε.",
    )
