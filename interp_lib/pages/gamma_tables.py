"""Make the tables of the chapter on gamma: released networks, networks trained here, and those trained on the page."""

from collections.abc import Iterable, Mapping, Sequence

from .. import paper
from ..study import claims_robustness, gamma_and_radius, intervals
from ..study.comparisons import Comparison, compared_rows
from ..study.evaluation import TRAINING_EPS
from ..study.records import Record
from .tables import Table, p_value, signed

EPS = TRAINING_EPS["mnist"]
BEYOND = (0.35, 0.4)  # radii beyond that of training

Network = tuple[str, float | None, int]  # method, gamma, run


def _text(row: Mapping | None) -> str | list[str]:
    return "–" if row is None else [f"{row['accuracy']:.3f}", f"±{row['se']:.3f}"]


def _name(method: str, gamma: float | None, run: int) -> str:
    return method + (f", γ = {gamma:g}" if gamma else "") + (", second run" if run == 2 else "")


def _by_gamma(records: Sequence[Record], measurement: str) -> dict[tuple[float, int, float], dict]:
    """Return the rows of Figure A1 on the released networks: (gamma, run, eps) -> row."""
    rows = gamma_and_radius.gamma_rows(records, measurement)
    return {(row["gamma"], row["run"], row["eps"]): row for row in rows}


def released(records: Sequence[Record]) -> Table:
    """Make the table of Figure A1 on the released networks: clean and robust accuracy of Int for each gamma.

    Args:
        records: those of `measure table3` and `measure many` on the released networks and the release's sweeps count.
    """
    few, many = (_by_gamma(records, kind) for kind in ("pgd", "many"))
    columns = [(few, run, eps) for run in (1, 2) for eps in (0.0, EPS)] + [(many, 1, eps) for eps in (0.0, EPS)]
    small, large = (f"{max(row['n'] for row in part.values()):,}" for part in (few, many))
    return Table(
        ["γ", "clean", "PGD", "clean, run 2", "PGD, run 2", f"clean, {large}", f"PGD, {large}"],
        [
            [f"{gamma:g}", *(_text(part.get((gamma, run, eps))) for part, run, eps in columns)]
            for gamma in sorted({key[0] for key in few})
        ],
        f"MNIST Small, released networks; PGD with ε = {EPS:g}, 200 steps of 0.01 from x; n = {small}, and {large} in "
        f"the last two columns; ± standard error. γ = 0 is Normal, run 1 at γ = {paper.GAMMA:g} the Int of the tables.",
        caption="Int with six γ, released networks of MNIST Small: clean and under PGD, ε = 0.3.",
    )


def changes(records: Sequence[Record]) -> Table:
    """Make the table of what a gamma above the paper's changes, on the released networks, image by image.

    p is of no change, by McNemar's exact test, corrected for the number of changes after Holm.

    Args:
        records: those of `measure many` on the released networks and the release's sweeps count.
    """
    many = _by_gamma(records, "many")
    gammas = sorted({gamma for gamma, run, _ in many if gamma > paper.GAMMA and run == 1})
    keys = [(gamma, eps) for gamma in gammas for eps in (0.0, EPS)]
    found = [compared_rows([many[gamma, 1, eps]], [many[paper.GAMMA, 1, eps]]) for gamma, eps in keys]
    cells: dict[float, list[str]] = {gamma: [] for gamma in gammas}
    for (gamma, _), c, p in zip(keys, found, intervals.holm([c.p for c in found]), strict=True):
        cells[gamma] += [f"{signed(c.difference)} ± {c.error:.3f}", p_value(p)]
    n = max(row["n"] for row in many.values())
    return Table(
        ["γ", "clean", "p", "PGD", "p"],
        [[f"{gamma:g}", *line] for gamma, line in cells.items()],
        f"MNIST Small, released networks, n = {n:,}, PGD with ε = {EPS:g}; ± standard error, image by image. "
        f"p corrected for {len(keys)} changes (Holm).",
        caption=f"What a larger γ than {paper.GAMMA:g} changes on the released networks.",
    )


def _of_release(records: Sequence[Record], measurement: str) -> dict[tuple[Network, float], dict]:
    """Return the rows of Adv and Int that were trained at the paper's radius: (network, eps) -> row."""
    rows = gamma_and_radius.rows_of_small(records, measurement, "mnist")
    rows = gamma_and_radius.choose(rows, method=["Adv", "Int"], radius=EPS, steps=200, eps=[0.0, EPS, *BEYOND])
    return {((row["method"], row["gamma"], row["run"]), row["eps"]): row for row in rows if row.get("starts", 5) == 5}


def beyond_the_radius(records: Sequence[Record]) -> Table:
    """Make the table of the release's networks of Adv and Int at and beyond the radius of training.

    Args:
        records: those of `measure table3` and `measure starts` on the released networks and the sweeps count.
    """
    parts = [(_of_release(records, "pgd"), ""), (_of_release(records, "starts"), "random")]
    sizes = (0.0, EPS, *BEYOND)

    def shown(network: Network, eps: float) -> list[tuple[str, str]]:
        return [(f"{p[network, eps]['accuracy']:.3f}" if (network, eps) in p else "–", css) for p, css in parts]

    n = max(row["n"] for row in parts[0][0].values())
    return Table(
        ["released network", "ε = 0", *(f"{eps:g}" for eps in sizes[1:])],
        [
            [_name(*network), *(shown(network, eps) for eps in sizes)]
            for network in dict.fromkeys(network for network, _ in parts[0][0])
        ],
        f"MNIST Small, trained at ε = {EPS:g}; n = {n}. First line: PGD from x, 200 steps; second: what five random "
        "starts leave.",
        caption="Released networks of Int with other γ, and second runs: PGD from x and from random points.",
    )


def above_adversarial(records: Sequence[Record]) -> Table:
    """Make the table of the Int networks that are settled above every run of Adv beyond the radius of training.

    A network is compared with each run of Adv, and the largest p counts; these are corrected, after Holm, for the
    number of networks and radii, for each kind of start on its own.

    Args:
        records: see `beyond_the_radius`.
    """
    lines = []
    for start, measurement in (("x", "pgd"), ("five random points", "starts")):
        part = _of_release(records, measurement)
        tests: dict[tuple[Network, float], list[Comparison]] = {}
        for network, eps in (key for key in part if key[0][0] == "Int" and key[1] in BEYOND):
            rivals = [other for (rival, radius), other in part.items() if rival[0] == "Adv" and radius == eps]
            if rivals:
                tests[network, eps] = [compared_rows([part[network, eps]], [rival]) for rival in rivals]
        adjusted = intervals.holm([max(c.p for c in against) for against in tests.values()])
        ahead = [
            key
            for (key, against), p in zip(tests.items(), adjusted, strict=True)
            if p <= intervals.LEVEL and all(c.difference > 0 for c in against)
        ]
        for size in BEYOND:
            names = [_name(*network).removeprefix("Int, ") for network, eps in ahead if eps == size]
            count = f"{len(names)} of {sum(eps == size for _, eps in tests)}"
            lines.append([f"from {start}", f"{size:g}", count, "; ".join(names) or "–"])
    return Table(
        ["attack", "ε", "above Adv", "which"],
        lines,
        "Released networks of Int on MNIST Small; above every run of Adv, 5 % level, p corrected for all networks and "
        "radii of an attack (Holm).",
        caption="Networks of Int that are settled above adversarial training beyond the radius of training.",
        of_text=True,
    )


def printed_points() -> list[dict]:
    """Return the points of Figure A1 that the paper's Table 3 prints: Normal for gamma = 0, and Int."""
    gammas = {"Normal": 0.0, "Int": paper.GAMMA}
    return [
        {"gamma": gammas[c["method"]], "eps": float(c["level"]), "accuracy": float(c["value"])}
        for c in paper.paper_tables()
        if (c["table"], c["dataset"]) == ("3", "MNIST") and c["method"] in gammas and c["level"] in ("0", f"{EPS:g}")
    ]


def _here(records: Iterable[Record], measurement: str) -> dict[tuple[float, float], dict]:
    """Return the rows of Figure A1 on networks trained here: (gamma, eps) -> row."""
    rows = claims_robustness.gamma_rows(records, measurement)
    return {(row["gamma"], row["eps"]): row for row in rows if row["eps"] in (0, EPS)}


def trained_here(records: Sequence[Record]) -> Table:
    """Make the table of Figure A1 on networks trained here: clean and robust accuracy of Int for each gamma.

    Args:
        records: those of `measure table3` and `measure many` on networks trained here count.
    """
    few, many = (_here(records, kind) for kind in ("pgd", "many"))
    small, large = (f"{max(row['n'] for row in part.values()):,}" for part in (few, many))
    lines = []
    for gamma in sorted({gamma for gamma, _ in few}):
        robust = few[gamma, EPS]
        cells = (_text(part.get((gamma, eps))) for part in (few, many) for eps in (0, EPS))
        spread = "–" if robust["spread"] is None else f"{robust['spread']:.3f}"
        lines.append([f"{gamma:g}", str(robust["seeds"]), *cells, spread])
    (schedule,) = {row["schedule"] for row in few.values()}
    return Table(
        ["γ", "seeds", "clean", "PGD", f"clean, {large}", f"PGD, {large}", "spread"],
        lines,
        f"MNIST Small, schedule {schedule}, PGD with ε = {EPS:g}; n = {small} images, then {large}; ± standard error "
        "of the images; spread of the seeds under PGD. γ = 0 is Normal.",
        caption="Int with other γ, networks of MNIST Small trained here: clean and under PGD, ε = 0.3.",
    )


def changes_here(records: Sequence[Record]) -> Table:
    """Make the table of what a gamma above the paper's changes, on networks trained here.

    A change is settled beyond two standard errors, which have the sampling error of both accuracies and, since only
    the paper's gamma has several seeds, twice the variance of its seeds.

    Args:
        records: those of `measure many` on networks trained here count.
    """
    many = _here(records, "many")
    gammas = sorted({gamma for gamma, _ in many})
    lines = []
    for gamma in (gamma for gamma in gammas if gamma > paper.GAMMA):
        line = [f"{gamma:g}"]
        for eps in (0, EPS):
            other, middle = many[gamma, eps], many[paper.GAMMA, eps]
            change = other["accuracy"] - middle["accuracy"]
            error = (other["se"] ** 2 + middle["se"] ** 2 + 2 * (middle["spread"] or 0) ** 2) ** 0.5
            line += [f"{signed(change)} ± {error:.3f}", "settled" if abs(change) > 2 * error else "open"]
        lines.append(line)
    best = max(gammas, key=lambda gamma: many[gamma, EPS]["accuracy"])
    n = max(row["n"] for row in many.values())
    return Table(
        ["γ", "clean", "verdict", "PGD", "verdict"],
        lines,
        f"MNIST Small, n = {n:,}, PGD with ε = {EPS:g}; settled: beyond two standard errors, which have the spread of "
        f"the seeds. Robust accuracy is highest at γ = {best:g}.",
        caption=f"What a larger γ than {paper.GAMMA:g} changes on networks trained here.",
    )


def moved_maps(motion: Mapping[float, tuple[float, float]], attack: str) -> Table:
    """Make the table of how far an attack moves the true class's map, and how large the map is.

    Args:
        motion: gamma -> mean change of the map, and mean size of the map before the attack.
        attack: images and attack, for the note.
    """
    return Table(
        ["γ", "change of the map", "size of the map", "ratio"],
        [[f"{g:g}", f"{moved:.2f}", f"{size:.2f}", f"{moved / size:.2f}"] for g, (moved, size) in motion.items()],
        f"{attack}: mean l1 norms of the true class's CAM.",
        caption="How far the attack moves the true class's map, and how large the map is, by γ.",
    )
