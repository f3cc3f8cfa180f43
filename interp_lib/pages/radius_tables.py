"""Make the tables of the chapter on other radii of training: accuracies, maps and fronts of released Small networks."""

from collections.abc import Sequence

import pandas as pd

from ..paper import GAMMA, level_of
from ..study import intervals
from ..study.comparisons import compared_rows
from ..study.evaluation import TRAINING_EPS
from ..study.gamma_and_radius import choose, front_points, radius_rows, rows_of_small
from ..study.records import Record
from .tables import Table, network_title, p_value, signed, standard_error

# Where an attack starts: the records that hold it, which of their rows, and how a table shows it.
ATTACKS = {"from x": ("pgd", {"steps": 200}, ""), "five random starts": ("starts", {"starts": 5}, "random")}
FEWEST = 50  # images of unchanged class, for a point of the figure of maps
CLEAR = 3  # standard errors


def attacked(records: Sequence[Record], radii: Sequence[float]) -> pd.DataFrame:
    """Return the rows of `sweep_figures.radius_panels`: Adv and Int under PGD, from x and after five random starts.

    Args:
        records: those of `measure table3` and `measure starts` on the released networks and the sweeps count.
        radii: of the balls that the networks were trained in.
    """
    parts = [
        pd.DataFrame(radius_rows(records, measurement, radii, **which)).assign(source=source)
        for source, (measurement, which, _) in ATTACKS.items()
    ]
    return pd.concat(parts)


def accuracies(records: Sequence[Record], radii: Sequence[float], sizes: Sequence[float]) -> Table:
    """Make the table of Adv and Int trained at several radii: clean, and under PGD from x and from random points.

    Args:
        records, radii: see `attacked`.
        sizes: radii of the attack.
    """
    at = {
        (r["source"], r["radius"], r["run"], r["method"], r["eps"]): r for _, r in attacked(records, radii).iterrows()
    }

    def number(source: str, network: tuple, eps: float) -> str:
        return f"{at[source, *network, eps]['accuracy']:.3f}"

    (n,) = {row["n"] for row in at.values()}
    return Table(
        ["network", "clean", f"ε = {sizes[0]:g}", *(f"{eps:g}" for eps in sizes[1:])],
        [
            [
                f"{network[2]}, trained at {network[0]:g}, run {network[1]}",
                number("from x", network, 0.0),
                *([(number(source, network, e), css) for source, (_, _, css) in ATTACKS.items()] for e in sizes),
            ]
            for network in sorted({key[1:4] for key in at})
        ],
        f"MNIST Small, released networks, n = {n}, standard error at most {standard_error(0.5, n):.3f}; Int: γ = "
        f"{GAMMA:g}. First line: PGD from x, 200 steps; second: what five random starts leave.",
        caption="Released networks of MNIST Small trained at other radii: PGD from x and from random points.",
    )


def at_one_radius(records: Sequence[Record], radius: float, sizes: Sequence[float]) -> Table:
    """Make the table of Adv against Int with both trained at one radius, image by image.

    p is of no difference, by McNemar's exact test, corrected for the number of lines after Holm.

    Args:
        records: those of `measure many` count too, see `attacked`.
        radius: of the ball that both were trained in.
        sizes: radii of the attack.
    """
    attacks = [(source, *which[:2]) for source, which in ATTACKS.items()] + [("from x", "many", {"steps": 200})]
    lines, found = [], []
    for source, measurement, which in attacks:
        rows = radius_rows(records, measurement, [radius], run=1, **which)
        for eps in sizes:
            adv, ours = (choose(rows, method=m, eps=float(eps))[0] for m in ("Adv", "Int"))
            found.append(compared_rows([adv], [ours]))
            lines.append([source, f"{adv['n']:,}", f"{eps:g}", *(f"{r['accuracy']:.3f}" for r in (adv, ours))])
    for line, difference, p in zip(lines, found, intervals.holm([c.p for c in found]), strict=True):
        line += [f"{signed(difference.difference)} ± {difference.error:.3f}", p_value(p)]
    return Table(
        ["PGD", "n", "ε", "Adv", "Int", "Adv minus Int", "no difference"],
        lines,
        f"MNIST Small, released, both trained at {radius:g}, 200 steps; ± standard error, image by image; McNemar's p "
        f"corrected for {len(lines)} comparisons (Holm).",
        caption=f"Adversarial training and Int, both trained in a ball of {radius:g}, MNIST Small.",
    )


def every_int(records: Sequence[Record], sizes: Sequence[float]) -> Table:
    """Make the table of the most that any Int trained at the paper's radius keeps beyond it, by gamma.

    Args:
        records: see `attacked`.
        sizes: radii of the attack.
    """
    radius = TRAINING_EPS["mnist"]
    best: dict[str, dict[float, dict[int, float]]] = {}  # start -> gamma -> run -> highest accuracy
    for source, (measurement, which, _) in ATTACKS.items():
        rows = rows_of_small(records, measurement, "mnist")
        for row in choose(rows, method="Int", radius=radius, eps=[float(eps) for eps in sizes], **which):
            runs = best.setdefault(source, {}).setdefault(row["gamma"], {})
            runs[row["run"]] = max(row["accuracy"], runs.get(row["run"], 0.0))
    of_x = best["from x"]
    networks = sum(map(len, of_x.values()))
    most = (f"{max(max(runs.values()) for runs in part.values()):.3f} ({source})" for source, part in best.items())
    return Table(
        ["γ", "networks", *ATTACKS],
        [[f"{g:g}", len(of_x[g]), *(f"{max(best[source][g].values()):.3f}" for source in ATTACKS)] for g in of_x],
        f"MNIST Small, {networks} released networks of Int trained at {radius:g}, PGD with ε of "
        f"{' and '.join(f'{eps:g}' for eps in sizes)}: up to {', '.join(most)}.",
        caption=f"The most that any Int trained at {radius:g} keeps beyond that radius, by γ.",
    )


def map_points(records: Sequence[Record], radii: Sequence[float]) -> pd.DataFrame:
    """Return the rows of `sweep_figures.radius_panels` for maps under the attack against them, with 50 images or more.

    Args:
        records: those of `measure table2` on the released networks and the sweeps count.
        radii: of the balls that the networks were trained in.

    Returns:
        Rows with method, radius, run, eps, 'rank correlation', se and n, the images of unchanged class. `attrs` has
        the number of rows that were `left out`, with fewer images.
    """
    rows = pd.DataFrame(radius_rows(records, "aai", radii)).rename(columns={"tau": "rank correlation"})
    kept = rows[rows["n"] >= FEWEST]
    kept.attrs["left out"] = len(rows) - len(kept)
    return kept


def maps(records: Sequence[Record], dataset: str, sizes: Sequence[float], *, beyond: bool = False) -> Table:
    """Make the table of Kendall's tau of maps under attack, Int against Adv trained at the same radius.

    Args:
        records: see `map_points`.
        dataset: 'mnist' or 'cifar10'.
        sizes: radii of the attack.
        beyond: whether to count attacks beyond the radius of training.
    """
    rows = choose(rows_of_small(records, "aai", dataset), method=["Adv", "Int"], gamma=[None, GAMMA])
    at = {(r["method"], round(r["radius"], 6), r["run"], round(r["eps"], 6)): r for r in rows}
    lines, apart = [], []
    for radius, run in sorted({key[1:3] for key in at}):
        for eps in (round(e, 6) for e in sizes if beyond or e <= radius + 1e-6):
            one, other = (at[m, radius, run, eps] for m in ("Int", "Adv"))
            difference, error = one["tau"] - other["tau"], (one["se"] ** 2 + other["se"] ** 2) ** 0.5
            apart.append(difference / error)
            lines.append(
                [
                    f"trained at {level_of(radius, dataset)}, run {run}",
                    level_of(eps, dataset),
                    *(f"{r['tau']:.3f} ({r['n']})" for r in (one, other)),
                    f"{signed(difference)} ± {error:.3f}",
                ]
            )
    title = network_title(dataset, "small")
    return Table(
        ["networks", "test ε", "Int", "Adv", "Int minus Adv"],
        lines,
        f"{title}, released, γ = {GAMMA:g}: Kendall's τ of the true class's CAM before and after AAI; in brackets the "
        "images of unchanged class. ± standard error, the two networks' images taken as independent. Int is ahead in "
        f"{sum(z > 0 for z in apart)} of {len(apart)} comparisons, by more than {CLEAR} standard errors in "
        f"{sum(z > CLEAR for z in apart)}, by {min(apart):.1f} at least.",
        caption=f"Attack against interpretability on networks of one training radius: Kendall's τ, {title}.",
    )


def front(records: Sequence[Record]) -> pd.DataFrame:
    """Return the points of `sweep_figures.front` on CIFAR-10 Small: Adv at each radius, Int at the paper's radius.

    Args:
        records: those of `measure many` on the released networks and the sweeps count.

    Returns:
        Rows of `front_points` with `label`, the radius of Adv and the gamma of Int, empty for what has been named.
    """
    points = pd.DataFrame(front_points(records))
    points = points[(points["method"] == "Adv") | ((points["radius"] - TRAINING_EPS["cifar10"]).abs() < 1e-6)]
    names = [f"γ = {p.gamma:g}" if p.gamma else level_of(p.radius, "cifar10") for p in points.itertuples()]
    return points.assign(label=["" if name in names[:k] else name for k, name in enumerate(names)])


def on_the_front(records: Sequence[Record]) -> Table:
    """Make the table of points of the front: Adv at the paper's radius and at 10/255, Int from the paper's gamma on.

    Int with the largest gamma is compared with both Adv, image by image.

    Args:
        records: see `front`.
    """
    rows = [{**row, "accuracy": row["robust"], "eps": TRAINING_EPS["cifar10"]} for row in front_points(records)]
    usual, large = TRAINING_EPS["cifar10"], 10 / 255
    adv, wide = (choose(rows, method="Adv", radius=radius, run=1)[0] for radius in (usual, large))
    ours = [row for row in choose(rows, method="Int", radius=usual) if row["gamma"] >= GAMMA]
    last = ours[-1]
    tests = []
    for one, other in ((last, adv), (wide, last)):
        p = p_value(compared_rows([one], [other]).p)
        tests.append(f"{_name(one)} against {_name(other)}, p {p if p[0] == '<' else f'= {p}'}")
    level = level_of(usual, "cifar10")
    return Table(
        ["network", "run", "clean", f"PGD, {level}"],
        [[_name(row), row["run"], f"{row['clean']:.3f}", f"{row['robust']:.3f}"] for row in (adv, wide, *ours)],
        f"CIFAR-10 Small, released, JPEG copy, n = {adv['n']:,}. Under PGD, McNemar's exact test: {'; '.join(tests)}.",
        caption="Adversarial training and Int on the front: clean and under PGD, CIFAR-10 Small.",
    )


def _name(row: dict) -> str:
    gamma = f", γ = {row['gamma']:g}" if row["gamma"] else ""
    return f"{row['method']}, {level_of(row['radius'], 'cifar10')}{gamma}"
