"""Make the tables of the chapter on today's attacks: one record, or one a dataset, on each page."""

from collections.abc import Mapping, Sequence

from ..study import intervals
from ..study.comparisons import Measured, compared
from ..study.records import Record, outcomes_of
from .tables import Table, of_dataset, p_value, signed


def row_of(record: Record, method: str, attack: str, eps: float) -> dict:
    """Return the row of a network, an attack and a radius.

    Raises:
        KeyError: the record has no such row, or several.
    """
    key = {"method": method, "attack": attack}
    rows = [row for row in record.rows if key.items() <= row.items() and abs(row["eps"] - eps) < 1e-6]
    if len(rows) != 1:
        raise KeyError(f"{record.name} has {len(rows)} rows of {method}, {attack}, eps {eps:g}; expected one.")
    return rows[0]


def over_radii(record: Record, sizes: Sequence[float], attack: str = "APGD-T") -> Table:
    """Make the table of accuracies after one attack of the sequence at several radii, a line for each network.

    Args:
        record: of `measure strong`.
        sizes: radii eps, in the unit of the pixels, each of them in the record.
        attack: the last attack that counts.
    """
    methods = dict.fromkeys(row["method"] for row in record.rows)
    shown = [[m, *(f"{row_of(record, m, attack, e)['accuracy']:.3f}" for e in sizes)] for m in methods]
    n = row_of(record, next(iter(methods)), attack, sizes[0])["n"]
    return Table(
        ["method", *(f"ε = {e:g}" for e in sizes)],
        shown,
        f"{of_dataset(record)} Small, released, after {attack} and what comes before it, n = {n:,}; "
        f"standard error at most {0.5 / n**0.5:.3f}.",
        caption=f"Accuracy after {attack} at the radius of training and beyond it, {of_dataset(record)} Small.",
    )


def differences(
    records: Mapping[str, Record], pairs: Sequence[tuple[str, str, str, float, str]], attack: str = "APGD-T"
) -> Table:
    """Make the table of differences between two methods after an attack, image by image on the same images.

    p is of no difference, by McNemar's exact test, corrected for the number of lines after Holm.

    Args:
        records: dataset -> its record of `measure strong`.
        pairs: (dataset, one method, another, eps, eps in words).
        attack: the last attack that counts.
    """
    lines, found = [], []
    for dataset, one, other, eps, label in pairs:
        record = records[dataset]
        rows = (row_of(record, method, attack, eps) for method in (one, other))
        found.append(compared(*(Measured.of_rows([row]) for row in rows)))
        lines.append([f"{one} − {other}", f"{of_dataset(record)}, {label}"])
    for line, difference, p in zip(lines, found, intervals.holm([c.p for c in found]), strict=True):
        line += [f"{signed(difference.difference)} ± {difference.error:.3f}", p_value(p)]
    return Table(
        ["difference", "network, ε", "accuracy", "no difference"],
        lines,
        f"Released networks, after {attack}; ± standard error.",
        caption=f"Differences of accuracy between methods after {attack}, and whether chance explains them.",
    )


def taken_by_square(record: Record, eps: float, methods: Sequence[str]) -> Table:
    """Make the table of what Square, which takes no gradient, breaks of the images that APGD leaves."""
    lines = []
    for method in methods:
        apgd, square = (row_of(record, method, attack, eps) for attack in ("APGD-T", "Square"))
        before = sum(outcomes_of(apgd["right"], apgd["n"])[: square["n"]])
        lines.append([method, before, before - square["correct"], square["correct"]])
    n = row_of(record, methods[0], "Square", eps)["n"]
    return Table(
        ["method", "APGD leaves", "Square takes", "left"],
        lines,
        f"{of_dataset(record)} Small, released, ε = {eps:g}: of the first {n:,} images.",
        caption=f"Images that Square breaks after APGD, {of_dataset(record)} Small, ε = {eps:g}.",
    )


def by_two_codes(record: Record) -> Table:
    """Make the table of what each attack leaves here and in torchattacks, and on how many images the two agree.

    Args:
        record: of `benchmarks/strong.py --write`. FAB-T is torchattacks' alone, on what both codes leave.
    """
    lines, settings = [], record.settings
    rows = {(row["method"], row["attack"], row["code"]): row for row in record.rows}
    for method, attack in dict.fromkeys((row["method"], row["attack"]) for row in record.rows):
        here, peer = (rows.get((method, attack, code)) for code in ("here", "torchattacks"))
        assert peer is not None
        if here is None:
            lines.append([method, attack, "", peer["correct"], "", "", f"{peer['seconds']:.0f}"])
            continue
        outcomes = (outcomes_of(row["right"], row["n"]) for row in (here, peer))
        same = sum(one == other for one, other in zip(*outcomes, strict=True))
        seconds = (f"{row['seconds']:.0f}" for row in (here, peer))
        lines.append([method, attack, here["correct"], peer["correct"], f"{same} of {here['n']}", *seconds])
    return Table(
        ["method", "attack", "left here", "left by torchattacks", "same outcome", "s here", "s torchattacks"],
        lines,
        f"MNIST Small, released, ε = {settings['eps']:g}, n = {settings['subset']['n']}, {settings['steps']} steps, "
        f"{settings['queries']:,} queries; torchattacks {settings['torchattacks']}; FAB-T is run there only, on what "
        "both leave.",
        caption="Today's attacks here and in torchattacks, image by image.",
    )


def restarts(record: Record, label: str) -> Table:
    """Make the table of images that other losses leave after one run and after several.

    Args:
        record: of `measure restarts`.
        label: the radius in words, '0.3' or '8/255'.
    """
    left: dict[str, dict[str, list[str]]] = {}
    for row in record.rows:
        left.setdefault(row["attack"], {}).setdefault(row["method"], []).append(str(row["correct"]))
    methods = list(left["Table 3"])
    runs = " and ".join(map(str, sorted({row["starts"] for row in record.rows})))
    return Table(
        ["attack", *methods],
        [[attack, *(", ".join(by[m]) for m in methods)] for attack, by in left.items()],
        f"{record.settings['title']}, ε = {label}: images right of {record.rows[0]['n']}, after {runs} runs.",
        caption="Images that other losses and restarts leave of the released networks; "
        f"{of_dataset(record)}, ε = {label}.",
    )


def taken_by_restarts(record: Record) -> Table:
    """Make the table of images that an attack takes, after all its runs, of those that Table 3's attack leaves."""
    most = max(record.settings["attack"]["starts"])
    left = {(r["attack"], r["starts"], r["method"]): r["correct"] for r in record.rows}
    methods = list(dict.fromkeys(row["method"] for row in record.rows))
    attacks = dict.fromkeys(attack for attack, runs, _ in left if runs == most)
    lines = [[a, *(left["Table 3", 1, m] - left[a, most, m] for m in methods)] for a in attacks]
    return Table(
        ["attack", *methods],
        sorted(lines, key=lambda line: -sum(line[1:])),
        f"{of_dataset(record)} Small, released, n = {record.rows[0]['n']}: of the images that Table 3's attack leaves, "
        f"{', '.join(str(left['Table 3', 1, m]) for m in methods)}.",
        caption=f"Images that {most} runs of another attack take beyond Table 3's; {of_dataset(record)}.",
    )


def strongest_sources(record: Record) -> Table:
    """Make the table of what a network's own attack leaves, beside the strongest that was made on another network."""
    at = {(row["method"], row["attack"]): row["accuracy"] for row in record.rows}
    lines = []
    for method in dict.fromkeys(method for method, _ in at):
        others = {source: value for (network, source), value in at.items() if network == method != source}
        worst = min(others, key=others.__getitem__)
        lines.append([method, f"{at[method, method]:.3f}", f"{others[worst]:.3f}", worst])
    n = record.rows[0]["n"]
    return Table(
        ["method", "its own attack", "strongest of the others", "made on"],
        lines,
        f"{record.settings['title']}, n = {n}; standard error at most {0.5 / n**0.5:.3f}.",
        caption=f"Accuracy under attacks made on the network itself and on others; {of_dataset(record)}.",
    )
