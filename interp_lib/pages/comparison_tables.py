"""Make the tables of the chapter that compares maps, from rows of its records or of an experiment on the page."""

from collections.abc import Iterable, Mapping, Sequence

from ..paper import paper_tables
from ..study.agreement import EVERY, ITSELF
from ..study.maps_compared import FUNCTIONS
from ..study.nds_nsl import difference, from_record
from ..study.sanity import FORMS
from ..study.sneaked_maps import GRADCAM_PP, RELU_IG
from .tables import Table, signed

RELEASED = "released networks of MNIST Small"
ATTACKED = f"{RELEASED}, ε = 0.3"  # the radius of training, and of the records
OF_PIXELS = [name for name in FUNCTIONS if name not in ("CAM", GRADCAM_PP)]
FIRST_LAYER = "conv1"  # of Small; with it all weights are random
LEVEL = 0.1  # a tau of unrelated maps is below it
MARGIN = 0.005  # a difference of areas that two decimals show

# The rows of Table 1 with another map: its name, headings of the released code's map and of the other one.
OWN_MAPS = {
    "IG": (RELU_IG, ("softplus, capped", "ReLU, no cap")),
    "GradCAM++": (GRADCAM_PP, ("clipped CAM, capped", "GradCAM++ (2018), no cap")),
}


def number(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """Write a value with its standard error, and a minus sign for a hyphen; '–' for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
    return text.replace("-", "−")


def _chosen(rows: Iterable[Mapping], **wanted) -> list[Mapping]:
    return [row for row in rows if wanted.items() <= row.items()]


def _span(values: Iterable[float]) -> str:
    values = list(values)
    return f"{number(min(values))} to {number(max(values))}"


def agreement_table(rows: Sequence[Mapping], *, grid: str, on: str = ATTACKED) -> Table:
    """Make the table of the mean agreement over all pairs: a line for each network, a column for each input.

    Args:
        rows: of `agreement.agreement_rows`, with the method.
        grid: 'CAM' or 'image'.
        on: which networks these are.
    """
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
    caption = f"Mean rank correlation between all pairs of maps, {on}, on the grid of the {grid}."
    return Table(["network", *inputs], lines, note, caption=caption)


def pairs(rows: Sequence[Mapping], *, method: str, kind: str, grid: str = "CAM") -> dict[tuple[str, str], float]:
    """Return (map, other map) -> tau for all pairs of maps, as `comparison_figures.agreement_matrix` draws them."""
    chosen = _chosen(rows, method=method, input=kind, grid=grid)
    return {(row["interpreter"], row["other"]): row["tau"] for row in chosen if row["other"] in FUNCTIONS}


def agreement_with_the_cam(rows: Sequence[Mapping], *, on: str = RELEASED) -> Table:
    """Make the table of how far, on x, the CAM agrees with maps of pixels, and these with each other."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        taus = {frozenset(pair): tau for pair, tau in pairs(rows, method=method, kind="x").items()}
        among = [tau for pair, tau in taus.items() if pair <= set(OF_PIXELS)]
        lines.append([method, _span(taus[frozenset(("CAM", name))] for name in OF_PIXELS), _span(among)])
    return Table(
        ["network", "CAM and maps of pixels", "maps of pixels among themselves"],
        lines,
        f"Kendall's τ on x, on the grid of the CAM, smallest and largest. Maps of pixels: {', '.join(OF_PIXELS)}.",
        caption=f"Rank correlation of the CAM with maps of pixels and of these with each other, {on}.",
    )


def stability_table(rows: Sequence[Mapping], *, kind: str, grid: str, on: str = ATTACKED) -> Table:
    """Make the table of each map's rank correlation with itself on x: lines are maps, columns networks."""
    chosen = _chosen(rows, grid=grid, input=kind, other=ITSELF)
    at = {(row["interpreter"], row["method"]): row for row in chosen}
    names, methods = (list(dict.fromkeys(key[k] for key in at)) for k in (0, 1))
    lines = [[name, *(number(at[name, m]["tau"], at[name, m]["se"]) for m in methods)] for name in names]
    note = f"Kendall's τ ± s.e. with the same map on x, n = {min(row['n'] for row in chosen)}."
    caption = f"Rank correlation of a map under {kind} with the same map on x, {on}."
    return Table(["map", *methods], lines, note, caption=caption)


def _by_network(at: Mapping[tuple, str], names: Sequence[str], methods: Sequence[str], kinds: Sequence[str]) -> list:
    """Return a line for each name, with a cell for each network and in it a line for each kind."""
    return [[name, *([at[name, m, kind] for kind in kinds] for m in methods)] for name in names]


def by_layer(rows: Sequence[Mapping], *, method: str) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """Return form -> map -> tau by layer, and the layers, as `comparison_figures.random_layers` draws them."""
    taus: dict[str, dict[str, list[float]]] = {form: {} for form in FORMS}
    chosen = _chosen(rows, method=method)
    for row in chosen:
        taus[row["form"]].setdefault(row["interpreter"], []).append(row["tau"])
    return taus, list(dict.fromkeys(row["layer"] for row in chosen))


def sanity_table(rows: Sequence[Mapping], *, on: str = RELEASED) -> Table:
    """Make the table of what is left of maps when all weights are random, signed and absolute; it names who passes."""
    chosen = _chosen(rows, layer=FIRST_LAYER)
    at = {(r["interpreter"], r["method"], r["form"]): number(r["tau"], r["se"]) for r in chosen}
    names, methods, forms = (list(dict.fromkeys(key[k] for key in at)) for k in range(3))
    n = max(row["n"] for row in chosen)
    passes = lambda name: all(abs(r["tau"]) < LEVEL for r in _chosen(chosen, interpreter=name, form="signed"))
    note = (
        f"Kendall's τ ± s.e. over {n} random networks; in each cell first {' and then '.join(forms)}. Signed within "
        f"{LEVEL:g} of 0 on every network: {', '.join(filter(passes, names))}."
    )
    caption = f"Rank correlation of maps with those of a network whose weights are all random, {on}."
    return Table(["map", *methods], _by_network(at, names, methods, forms), note, caption=caption)


def _gain(row: Mapping, way: str = "deletion") -> str:
    return number(row[f"{way}_gain"], row[f"{way}_gain_se"])


def faithfulness_table(rows: Sequence[Mapping], *, kinds: Sequence[str], on: str = ATTACKED) -> Table:
    """Make the table of deletion's gain over a random order: a line for each order, in each cell one for each input."""
    chosen = [row for row in _chosen(rows, rule="own") if row["input"] in kinds and row["interpreter"] != "random"]
    at = {(row["interpreter"], row["method"], row["input"]): _gain(row) for row in chosen}
    names, methods = (list(dict.fromkeys(key[k] for key in at)) for k in (0, 1))
    note = (
        f"Random minus map, area under deletion ± s.e., n = {min(row['n'] for row in chosen)}; 0 is chance; in each "
        f"cell first {' and then '.join(kinds)}."
    )
    caption = f"Gain of deletion over a random order, on {' and '.join(kinds)}, {on}."
    return Table(["order", *methods], _by_network(at, names, methods, kinds), note, caption=caption)


def curves(rows: Sequence[Mapping], *, method: str) -> dict[str, dict[str, list[float]]]:
    """Return deletion and insertion -> order -> curve on x, as `comparison_figures.pixel_curves` draws them."""
    chosen = _chosen(rows, method=method, input="x", rule="own")
    return {way: {row["interpreter"]: row[f"{way}_curve"] for row in chosen} for way in ("deletion", "insertion")}


def controls_table(rows: Sequence[Mapping], *, on: str = RELEASED) -> Table:
    """Make the table of the CAM and of IG beside the two orders that know no network, on x."""
    chosen = _chosen(rows, input="x", rule="own")
    at = {(row["method"], row["interpreter"]): row for row in chosen}
    lines = []
    for m in dict.fromkeys(method for method, _ in at):
        random, cam, *others = (at[m, name] for name in ("random", "CAM", "IG", "brightness"))
        lines.append([m, number(random["deletion"]), _gain(cam), _gain(cam, "insertion"), *map(_gain, others)])
    return Table(
        ["network", "random order", "CAM", "CAM, insertion", "IG", "brightness"],
        lines,
        f"Random order: area under deletion. The others: gain over it ± s.e., n = {min(row['n'] for row in chosen)}.",
        caption=f"Gains of the CAM and of IG on x beside that of brightness, {on}.",
    )


def stale_table(rows: Sequence[Mapping], *, kind: str, on: str = ATTACKED) -> Table:
    """Make the table of deletion on x′: in each cell the gain of its own map, and that of the map of x."""
    chosen = _chosen(rows, input=kind)
    gains = {(row["interpreter"], row["method"], row["rule"]): row["deletion_gain"] for row in chosen}
    at = {(row["interpreter"], row["method"], row["rule"]): _gain(row) for row in chosen}
    names = list(dict.fromkeys(name for name, _, rule in at if rule == "of x"))
    methods = list(dict.fromkeys(method for _, method, _ in at))
    worse = [
        f"{name}, {m}" for name in names for m in methods if gains[name, m, "own"] < gains[name, m, "of x"] - MARGIN
    ]
    note = (
        f"Random minus map, area under deletion of {kind}'s x′ ± s.e., n = {min(row['n'] for row in chosen)}; in each "
        f"cell first by the map of x′ and then by the map of x. The map of x is the better order, by more than "
        f"{MARGIN:g}, for: {'; '.join(worse) or 'none'}."
    )
    caption = f"Gain of deletion under {kind} by the map of x′ itself and by the map of x, {on}."
    return Table(["order", *methods], _by_network(at, names, methods, ("own", "of x")), note, caption=caption)


def sneaking_table(printed: str, released: Sequence[Mapping], beyond: Sequence[Mapping]) -> Table:
    """Make the table of Table 1's rows of one map: as printed, by the released code's map, and by the map of its name.

    Args:
        printed: the paper's name of the map, a key of `OWN_MAPS`.
        released: rows of `measure table1`.
        beyond: rows of `measure isa-beyond`.
    """
    own, names = OWN_MAPS[printed]
    wanted = {"table": "1", "dataset": "MNIST", "method": printed}
    values = {(row["level"], row["metric"]): row["value"] for row in paper_tables() if wanted.items() <= row.items()}
    found = [
        {row["measure"]: row for row in _chosen(rows, interpreter=name, squared_score=False)}
        for rows, name in ((released, printed), (beyond, own))
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
    capped = max((row["at_cap"] for row in found[1].values()), default=0)
    return Table(
        ["measure", "printed", *names],
        lines,
        "In each cell NDS, NSL and the images that are kept, of those measured; ± s.e. Searches of the last column "
        f"that end at their largest weight: {capped:.0%}.",
        caption=f"The rows {printed} of Table 1, MNIST: as printed, by the released code's map and search, and by the "
        "map of that name.",
    )


def ig_minus_cams(released: Sequence[Mapping], beyond: Sequence[Mapping]) -> Table:
    """Make the table of the scores of the network's own IG minus those of the CAMs, with l1 and the pair of classes.

    Args:
        released, beyond: see `sneaking_table`.
    """

    def scores(rows: Sequence[Mapping], name: str):
        (row,) = _chosen(rows, interpreter=name, measure="l1:2-class", squared_score=False)
        return from_record(row["each"])

    lines = []
    for name in ("CAM", "GradCAM++"):
        gap = difference(scores(beyond, RELU_IG), scores(released, name))
        nds, nsl = f"{signed(gap.nds, 2)} ± {gap.nds_se:.2f}", f"{signed(gap.nsl, 4)} ± {gap.nsl_se:.4f}"
        lines.append([name, nds, nsl, gap.images])
    return Table(
        ["IG minus", "NDS", "NSL", "images"],
        lines,
        "ℓ1, 2-class, MNIST Small, released; on the images that both keep, ± s.e.",
        caption="Scores of IG of the network itself minus those of the CAMs, image by image.",
    )
