"""Make the tables of the chapter that compares maps, from rows of its records or of an experiment on the page."""

from collections.abc import Iterable, Mapping, Sequence

from ..paper import paper_tables
from ..study.agreement import EVERY, ITSELF
from .tables import Table


def number(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """Write a value with its standard error, and a minus sign for a hyphen; '–' for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
    return text.replace("-", "−")


def _chosen(rows: Iterable[Mapping], **wanted) -> list[Mapping]:
    return [row for row in rows if wanted.items() <= row.items()]


def agreement_table(rows: Sequence[Mapping], *, grid: str, caption: str) -> Table:
    """Make the table of the mean agreement over all pairs: a line for each network, a column for each input."""
    chosen = _chosen(rows, grid=grid, interpreter=EVERY)
    at = {(row["method"], row["input"]): row for row in chosen}
    methods, inputs = (list(dict.fromkeys(key[k] for key in at)) for k in (0, 1))

    def cell(method: str, kind: str) -> str | list[str]:
        row = at[method, kind]
        text = number(row["tau"], row["se"], 3)
        change = number(row["change"], row["change_se"], 3)
        return text if kind == "x" else [text, f"({'' if change.startswith('−') else '+'}{change})"]

    lines = [[method, *(cell(method, kind) for kind in inputs)] for method in methods]
    n = min(row["n"] for row in chosen)
    note = f"Kendall's τ ± s.e., mean over all pairs of maps, n = {n}; in brackets the change from x, image by image."
    return Table(["network", *inputs], lines, note, caption=caption)


def stability_table(rows: Sequence[Mapping], *, kind: str, grid: str, caption: str) -> Table:
    """Make the table of each map's rank correlation with itself on x: lines are maps, columns networks."""
    chosen = _chosen(rows, grid=grid, input=kind, other=ITSELF)
    at = {(row["interpreter"], row["method"]): row for row in chosen}
    names, methods = (list(dict.fromkeys(key[k] for key in at)) for k in (0, 1))
    lines = [[name, *(number(at[name, m]["tau"], at[name, m]["se"]) for m in methods)] for name in names]
    note = f"Kendall's τ ± s.e. with the same map on x, n = {min(row['n'] for row in chosen)}."
    return Table(["map", *methods], lines, note, caption=caption)


def _by_network(at: Mapping[tuple, str], names: Sequence[str], methods: Sequence[str], kinds: Sequence[str]) -> list:
    """Return a line for each name, with a cell for each network and in it a line for each kind."""
    return [[name, *([at[name, m, kind] for kind in kinds] for m in methods)] for name in names]


def sanity_table(rows: Sequence[Mapping], *, layer: str, caption: str) -> Table:
    """Make the table of what is left of maps when a layer and all above it are random, signed and absolute."""
    chosen = _chosen(rows, layer=layer)
    at = {(r["interpreter"], r["method"], r["form"]): number(r["tau"], r["se"]) for r in chosen}
    names, methods, forms = (list(dict.fromkeys(key[k] for key in at)) for k in range(3))
    n = max(row["n"] for row in chosen)
    note = f"Kendall's τ ± s.e. over {n} random networks; in each cell first {' and then '.join(forms)}."
    return Table(["map", *methods], _by_network(at, names, methods, forms), note, caption=caption)


def _gains(chosen: Sequence[Mapping], key: str) -> dict[tuple, str]:
    """Return (order, network, value of `key`) -> the gain of deletion."""
    gain = lambda row: number(row["deletion_gain"], row["deletion_gain_se"])
    return {(row["interpreter"], row["method"], row[key]): gain(row) for row in chosen}


def faithfulness_table(rows: Sequence[Mapping], *, kinds: Sequence[str], caption: str) -> Table:
    """Make the table of deletion's gain over a random order: a line for each order, in each cell one for each input."""
    chosen = [row for row in _chosen(rows, rule="own") if row["input"] in kinds and row["interpreter"] != "random"]
    at = _gains(chosen, "input")
    names, methods = (list(dict.fromkeys(key[k] for key in at)) for k in (0, 1))
    note = (
        f"Random minus map, area under deletion ± s.e., n = {min(row['n'] for row in chosen)}; 0 is chance; in each "
        f"cell first {' and then '.join(kinds)}."
    )
    return Table(["order", *methods], _by_network(at, names, methods, kinds), note, caption=caption)


def stale_table(rows: Sequence[Mapping], *, kind: str, caption: str) -> Table:
    """Make the table of deletion on x′: in each cell the gain of its own map, and that of the map of x."""
    chosen = _chosen(rows, input=kind)
    at = _gains(chosen, "rule")
    names = list(dict.fromkeys(name for name, _, rule in at if rule == "of x"))
    methods = list(dict.fromkeys(method for _, method, _ in at))
    note = (
        f"Random minus map, area under deletion of {kind}'s x′ ± s.e., n = {min(row['n'] for row in chosen)}; in each "
        "cell first by the map of x′ and then by the map of x."
    )
    return Table(["order", *methods], _by_network(at, names, methods, ("own", "of x")), note, caption=caption)


def sneaking_table(
    printed: str, released: Sequence[Mapping], own: Sequence[Mapping], *, names: tuple[str, str], caption: str
) -> Table:
    """Make the table of Table 1's rows of one map: as printed, by the released code's map, and by the map of its name.

    Args:
        printed: the paper's name of the map.
        released, own: rows of ISA records, of the released code's map and of the other one.
        names: headings of the two.
        caption: the table's caption.
    """
    wanted = {"table": "1", "dataset": "MNIST", "method": printed}
    values = {(row["level"], row["metric"]): row["value"] for row in paper_tables() if wanted.items() <= row.items()}
    found = [
        {row["measure"]: row for row in rows if not row["squared_score"]}
        for rows in (_chosen(released, interpreter=printed), own)
    ]

    def cell(row: Mapping | None) -> list[str]:
        if row is None or row["nds"] is None:
            return ["–"]
        scores = [number(row["nds"], row["nds_se"]), number(row["nsl"], row["nsl_se"], 4)]
        return [*scores, f"{row['n']} of {row['measured']}"]

    lines = []
    for measure in dict.fromkeys(level for level, _ in values):
        print_ = [(values[measure, score], "printed") for score in ("NDS", "NSL")]
        lines.append([measure, print_, *(cell(rows.get(measure)) for rows in found)])
    note = "In each cell NDS, NSL and the images that are kept, of those measured; ± s.e."
    return Table(["measure", "printed", *names], lines, note, caption=caption)
