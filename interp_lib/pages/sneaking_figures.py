"""Draw Figure 2 from a record: how little an attack may change the maps, and the maps of each attack."""

from matplotlib.figure import Figure

from ..datasets import DATASETS
from ..study.records import Record
from ..study.sneaking_over_eps import lowest_so_far
from ..study.stored_maps import read_curves, read_versions
from .curve_figures import discrepancy_curves
from .map_figures import explained_columns


def figure2_curves(record: Record, p: int = 1) -> Figure:
    """Draw Figure 2 (a), or (b), of a record by `curve_figures.discrepancy_curves`.

    Args:
        record: of `measure figure2`.
        p: the norm: 1 for (a); 2, which is squared, for (b).
    """
    rows, bound = read_curves(record)
    title = f"({'ab'[p - 1]}) {record.settings['title']}"
    return discrepancy_curves(lowest_so_far(rows), bound=bound, p=p, title=title)


def figure2_maps(record: Record) -> Figure:
    """Draw Figure 2 (c) of a record of `measure figure2` by `map_figures.explained_columns`."""
    settings = record.settings
    names = [f"{role}: {settings['image'][role]}" for role in ("true", "target")]
    title = f"(c) {settings['title']}, ε = {settings['attack']['eps']}"
    return explained_columns(read_versions(record), names, DATASETS[settings["dataset"]].classes, title=title)
