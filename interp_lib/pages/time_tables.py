"""Make the tables of the chapter on training time, and the rows of Figure 3, from records of training times."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

import pandas as pd

from ..datasets import TITLES
from ..paper import level_of
from ..schedule import Schedule
from ..study import intervals
from ..study.compare import Cell
from ..study.comparisons import compared_rows, uncertainty
from ..study.records import Record
from ..study.runs import rows_over_seeds
from .tables import Table, network_title, p_value, signed


def _network(record: Record) -> str:
    return network_title(record.settings["dataset"], record.settings["model"])


def _how(record: Record) -> str:
    """Return the settings of a record of times, for a note."""
    s = record.settings
    return (
        f"batch {s['batch']}, {s['attack_steps']} inner steps; {record.provenance['device']}, median of {s['rounds']} "
        "rounds."
    )


def step_times(record: Record, schedule: Schedule) -> Table:
    """Make the table of a training step's time here and in a plain loop, and of the whole training by a schedule.

    Args:
        record: of `benchmarks/training.py --write`.
        schedule: its epochs count.
    """
    return Table(
        ["method", "ms a step", "plain loop", "ratio", "s an epoch", "hours, paper schedule"],
        [
            [
                r["method"],
                f"{r['ms_a_step']:.0f}",
                f"{r['ms_a_step_plain']:.0f}",
                f"{r['ratio']:.1f}",
                f"{r['seconds_an_epoch']:.0f}",
                f"{r['seconds_an_epoch'] * schedule.epochs / 3600:.1f}",
            ]
            for r in record.rows
        ],
        f"{_network(record)}, {_how(record)}",
        caption=f"Time of a training step on {_network(record)}, here and in a plain PyTorch loop.",
    )


def bfloat16_times(record: Record) -> Table:
    """Make the table of a training step's time in float32 and in bfloat16; of `benchmarks/training.py --write`."""
    return Table(
        ["method", "float32", "bfloat16", "ratio"],
        [
            [
                r["method"],
                f"{r['ms_a_step']:.0f}",
                f"{r['ms_a_step_bfloat16']:.0f}",
                f"{r['ratio_bfloat16']:.1f}",
            ]
            for r in record.rows
        ],
        f"{_network(record)}: milliseconds a training step, {_how(record)}",
        caption=f"Time of a training step on {_network(record)} in float32 and in bfloat16, in milliseconds.",
    )


def bfloat16_accuracy(records: Sequence[Record]) -> Table:
    """Make the table of accuracies of networks trained in float32 and, from the same seeds, in bfloat16.

    The two are compared image by image; p is of no difference, by McNemar's exact test, corrected for the number of
    lines after Holm. The last column is the standard deviation between the seeds in float32, '–' where there is one.

    Args:
        records: with those of `benchmarks/precision.py`, and of `measure many` on the networks of the same seeds.
    """
    plain, low = (rows_over_seeds(records, "many", networks) for networks in ("ours", "bfloat16"))
    lines, found = [], []
    for key, rows in low.items():
        seeds = {row["seed"]: row for row in plain.get(key, ())}
        spread = f"{stdev(row['accuracy'] for row in seeds.values()):.3f}" if len(seeds) > 1 else "–"
        dataset, method, eps = key
        for row in (row for row in rows if "right" in row and "right" in seeds.get(row["seed"], ())):
            other = seeds[row["seed"]]
            shown = [f"{TITLES[dataset]} {method}, seed {row['seed']}", level_of(eps, dataset)]
            lines.append((shown + [f"{one['accuracy']:.3f}" for one in (other, row)], spread))
            found.append(compared_rows([row], [other]))
    table = [
        [*shown, f"{signed(c.difference)} ± {c.error:.3f}", p_value(p), spread]
        for (shown, spread), c, p in zip(lines, found, intervals.holm([c.p for c in found]), strict=True)
    ]
    images, schedules = ({row[key] for rows in low.values() for row in rows} for key in ("n", "schedule"))
    return Table(
        ["network", "ε", "float32", "bfloat16", "difference", "p", "seeds"],
        table,
        f"Small, schedule {', '.join(sorted(schedules))}, n = {', '.join(f'{n:,}' for n in sorted(images))}. "
        "Difference ± standard error, image by image. "
        f"p: exact McNemar, corrected for {len(table)} differences (Holm). "
        "Seeds: standard deviation between those in float32.",
        caption="Accuracy under the attack of Table 3 of networks trained in float32 and in bfloat16.",
    )


def on_gpu(record: Record) -> Table:
    """Make the table of a training step's time on a GPU: launched, recorded, and in stacks; ms a network.

    Args:
        record: of `benchmarks/together.py --write`.
    """
    at = {(*r["methods"], r["stack"], r["how"]): r["ms_a_step"] for r in record.rows if len(r["methods"]) == 1}
    methods = list(dict.fromkeys(key[0] for key in at))
    sizes = sorted({key[1] for key in at if key[2] == "recorded"} - {1})
    rows = []
    for m in methods:
        launched, recorded = (at[m, 1, how] for how in ("launched", "recorded"))
        stacks = ((at.get((m, size, "recorded")), size) for size in sizes)
        shown = ("–" if ms is None else f"{ms / size:.1f}" for ms, size in stacks)
        rows.append([m, f"{launched:.1f}", f"{recorded:.1f}", f"{launched / recorded:.1f}", *shown])
    s = record.settings
    return Table(
        ["method", "launched", "recorded", "ratio", *(f"stack of {size}" for size in sizes)],
        rows,
        f"{_network(record)}: milliseconds a training step and network, batch {s['batch']}, {s['attack_steps']} inner "
        f"steps; {record.provenance['device']}, mean of {s['steps']} steps, float32, "
        f"commit {record.provenance['commit'][:7]}.",
        caption=f"Time of a training step a network on a GPU, {s['attack_steps']} inner steps, in milliseconds: "
        f"{', '.join(methods)}.",
    )


def beside_each_other(records: Iterable[Record]) -> Table:
    """Make the table of two methods' steps on a GPU: beside each other, and one after the other."""
    rows = []
    for record in records:
        alone = {
            (r["methods"][0], r["stack"]): r["ms_a_step"]
            for r in record.rows
            if len(r["methods"]) == 1 and r["how"] == "recorded"
        }
        for r in (r for r in record.rows if len(r["methods"]) > 1):
            after = sum(alone[m, r["stack"]] for m in r["methods"])
            rows.append([" and ".join(r["methods"]), r["stack"], f"{r['ms_a_step']:.1f}", f"{after:.1f}"])
    return Table(
        ["methods", "stacks of", "beside each other", "one after the other"],
        rows,
        "Milliseconds a training step of both; recorded.",
        caption="Two methods on a GPU, beside each other and one after the other.",
    )


def whole_training(timing: Record, gpu: Iterable[Record], schedule: Schedule) -> Table:
    """Make the table of how long a schedule trains one network, on a GPU and on the processor, in minutes.

    Args:
        timing: of `benchmarks/training.py --write`.
        gpu: of `benchmarks/together.py --write`; the last one with a method counts.
        schedule: its epochs and its batch count.
    """
    steps = schedule.epochs * (timing.settings["images_an_epoch"] // schedule.batch_size)
    here = {r["method"]: r["ms_a_step"] for r in timing.rows}
    there = {
        r["methods"][0]: r["ms_a_step"]
        for record in gpu
        for r in record.rows
        if (len(r["methods"]), r["stack"], r["how"]) == (1, 1, "recorded")
    }
    return Table(
        ["method", "GPU", f"{timing.settings['threads']} cores"],
        [[m, *(f"{ms * steps / 60_000:.0f}" for ms in (there[m], here[m]))] for m in there if m in here],
        f"{_network(timing)}, minutes of one network alone, {steps:,} steps; {timing.provenance['device']}.",
        caption=f"Time of the paper's whole schedule on {_network(timing)}, in minutes.",
    )


def trained_together(descriptions: Iterable[Mapping], dataset: str, model: str, *, warm_up: int = 10) -> Table:
    """Make the table of the time of an epoch of networks that were trained at the same time.

    Args:
        descriptions: of networks trained here, as `models.trained.load` returns them.
        dataset, model: whose networks are shown.
        warm_up: number of first epochs that do not count.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for how in descriptions:
        if (how["dataset"], how["model"]) == (dataset, model):
            seconds = [row["seconds"] for row in how["history"][warm_up:]]
            groups.setdefault(how["trained_together"], {})[how["method"]] = seconds
    return Table(
        ["trained at the same time", "s an epoch of all"],
        [[", ".join(by), f"{fmean(s for part in by.values() for s in part):.0f}"] for _, by in sorted(groups.items())],
        f"{network_title(dataset, model)}; mean of the epochs from number {warm_up + 1} on.",
        caption=f"Networks of {network_title(dataset, model)} trained here in one run.",
    )


def ratios(record: Record, pairs: Iterable[tuple[str, str]]) -> Table:
    """Make the table of how many times as long one method's step takes as another's, here and in a plain loop."""
    at = {r["method"]: r for r in record.rows}
    return Table(
        ["step of … in steps of …", "here", "plain loop"],
        [
            [f"{one} / {other}", *(f"{at[one][key] / at[other][key]:.1f}" for key in ("ms_a_step", "ms_a_step_plain"))]
            for one, other in pairs
        ],
        f"{_network(record)}, {_how(record)}",
        caption=f"How many times as long a step of one method takes as one of another, {_network(record)}.",
    )


def figure3_rows(
    record: Record, cells: Iterable[Cell], source: str = "released", levels: Sequence[str] = ("0.3", "0.4")
) -> pd.DataFrame:
    """Return the rows of Figure 3, for `training_figures.time_and_accuracy`: a method's time and accuracies.

    Args:
        record: of `benchmarks/training.py --write`.
        cells: from `study.compare.compare`; those of Table 3 for the record's network count.
        source: 'released' or 'ours'.
        levels: perturbation sizes, as Table 3 prints them.

    Returns:
        Columns method, seconds (of an epoch), and for each level that was measured the accuracy and its standard
        error, `LEVEL` and `LEVEL + " error"`; with 'ours' the schedule of the networks as well.
    """
    at = {
        (c.method, c.level): c
        for c in cells
        if c.table == "3" and f"{c.dataset} {c.architecture}" == _network(record) and getattr(c, source) is not None
    }
    rows = []
    for r in record.rows:
        row = {"method": r["method"], "seconds": r["seconds_an_epoch"]}
        for cell in (at[r["method"], level] for level in levels if (r["method"], level) in at):
            row |= {cell.level: getattr(cell, source), f"{cell.level} error": uncertainty(cell, source)}
            row |= {"schedule": cell.schedule} if source == "ours" else {}
        rows.append(row)
    return pd.DataFrame(rows)
