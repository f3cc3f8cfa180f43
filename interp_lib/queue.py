"""Make what the book still lacks within some minutes, the most wanted first, and go on from there the next time.

That is networks by the paper's schedule, the tables' measurements on each of them, and rows of Table 1 on photographs.
"""

import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import paper, places
from .models.names import NetworkName

METHODS = ("Normal", "Adv", "TRADES", "Int", "Int-Adv", "Int-1-class")
WITH_INTEGRALS = ("IG-Norm", "IG-Norm-Sum")
PHOTOGRAPHS = 50  # of R-ImageNet, for Table 1; wanted before the networks of these architectures
AFTER_PHOTOGRAPHS = (("mnist", "pool"), ("cifar10", "small"))
GAMMAS = (0.001, 0.003, 0.005, 0.015, 0.02, 0.03)  # Figure A1, besides `paper.GAMMA`


def wanted() -> list[NetworkName]:
    """List the networks that the book needs, most wanted first."""
    return [
        *(NetworkName("mnist", "small", method, seed, "paper") for seed in range(3) for method in METHODS),
        *(NetworkName("mnist", "small", method, seed, "paper") for seed in range(3) for method in WITH_INTEGRALS),
        *(NetworkName("mnist", "small", "Int", 0, "paper", gamma) for gamma in GAMMAS),
        *(NetworkName("cifar10", "wresnet", method, 0, "quick") for method in ("TRADES", "Int-1-class")),
        *(NetworkName("mnist", "pool", method, 0, "paper") for method in paper.METHODS),
        *(NetworkName("cifar10", "small", method, 0, "paper") for method in paper.METHODS),
    ]


def missing(names: Iterable[NetworkName], folders: Iterable[Path]) -> list[NetworkName]:
    """List the networks that are in none of the folders."""
    folders = list(folders)
    return [name for name in names if not any(name.path(folder).exists() for folder in folders)]


def jobs(names: Iterable[NetworkName], together: bool) -> list[list[NetworkName]]:
    """Group the names into jobs, one after another: the seeds of one method `together`, or each network by itself."""
    if not together:
        return [[name] for name in names]
    groups: dict[NetworkName, list[NetworkName]] = {}
    for name in names:  # the gammas of Figure A1 are stacked too, but are not wanted as soon as the paper's own
        key = replace(name, seed=0, gamma=paper.GAMMA if name.gamma == paper.GAMMA else 0.0)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def seconds_a_step(names: Sequence[NetworkName], dataset, device: str, together: bool) -> float:
    """Time training steps of a job with the full inner attack, on networks that are thrown away.

    Args:
        names: the networks of one job, which take each step together.
        dataset: their dataset, on `device`.
    """
    from . import models
    from .schedule import Schedule
    from .training.group import BLOCK, Group
    from .training.loop import train
    from .training.run import Run

    # The full radius from the second step on.
    schedule = replace(Schedule.load(names[0].schedule, names[0].dataset), ramp_start=0, ramp_end=0)
    runs = []
    for name in names:
        model = models.build(name.model, dataset.shape, dataset.num_classes, seed=name.seed).to(device)
        runs.append(Run(model, dataset, name.method, schedule, gamma=name.gamma, seed=name.seed))
    group = Group(runs) if together else None
    if group and device.startswith("cuda"):
        group.record()

    def steps(last: int) -> None:
        if group:
            for _ in group.steps(last):
                pass
            group.wait()
        else:
            train(runs[0], last)

    first, last = (BLOCK, 5 * BLOCK) if together else (2, 4)
    steps(first)
    start = time.perf_counter()
    steps(last)
    return (time.perf_counter() - start) / (last - first)


def steps_taken(names: Iterable[NetworkName], out: Path, dataset) -> int:
    """Return the training step of a job's checkpoints, the earliest of them; 0 without any."""
    from . import models
    from .training.run import load_checkpoint

    def step(name: NetworkName) -> int:
        path = name.path(out).with_suffix(".checkpoint")
        model = models.build(name.model, dataset.shape, dataset.num_classes)
        return load_checkpoint(path, model)["step"] if path.exists() else 0

    return min(map(step, names))


def measure_job(names: Sequence[NetworkName], out: Path, *, data_dir: Path | None, device: str) -> None:
    """Measure the tables on the networks of a job; their records are in `out`/results, for `compare --results-dir`.

    A record that already has a network's rows is not measured again.
    """
    from .study.measure import MEASUREMENTS, OF_TRAINED, measure

    first = names[0]
    for table in OF_TRAINED:
        wanted_by = MEASUREMENTS[table]
        if (first.dataset, first.model) in wanted_by.parts and first.method in (wanted_by.methods or [first.method]):
            part: dict[str, Any] = {"dataset": first.dataset, "model": first.model, "data_dir": data_dir}
            measure(table, "ours", networks_dir=out, folder=out / "results", device=device, **part)


def photographs_measured(folder: Path) -> tuple[int, Path | None]:
    """Return how many of R-ImageNet's photographs a folder's record of Table 1 has, and that record's path."""
    from .study import records

    wanted = {"measurement": "isa", "dataset": "restricted_imagenet", "networks": "released"}
    for record in records.having(records.read_all(folder), **wanted):
        return min((row["measured"] for row in record.rows), default=0), folder / f"{record.name}.json"
    return 0, None


def work_on_photographs(out: Path, *, data_dir: Path | None, device: str, until: float) -> None:
    """Measure Table 1 on R-ImageNet's photographs, one after another; go on from the project's own record.

    Without the released network or the photographs, neither of which can be downloaded, only print what is missing.

    Args:
        out: the record is in `out`/results.
        until: stop after the first measure of a photograph at which `time.monotonic()` has reached this; if it has
            already, measure nothing.
    """
    from . import storage
    from .data_files import DataError
    from .study.measure import measure

    here, project = out / "results", places.home() / "results"
    start, committed = max((photographs_measured(folder) for folder in (here, project)), key=lambda pair: pair[0])
    if start >= PHOTOGRAPHS:
        return
    print(f"Table 1 on R-ImageNet: {start} of {PHOTOGRAPHS} photographs", flush=True)
    if time.monotonic() >= until:
        return
    if committed and committed.parent != here:
        shutil.copy(committed, storage.ready_folder(here))
    try:
        part: dict[str, Any] = {"dataset": "restricted_imagenet", "data_dir": data_dir, "device": device}
        measure("table1", folder=here, images=PHOTOGRAPHS, until=until, **part)
    except (FileNotFoundError, DataError) as error:
        print(f"left out: {error}", flush=True)


def words(seconds: float) -> str:
    """Write a duration as the largest unit that leaves one or more: 2.6 h, 12 min, 40 s."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def work(
    minutes: float,
    *,
    out: Path,
    data_dir: Path | None = None,
    device: str | None = None,
    dry_run: bool = False,
) -> None:
    """Train the missing networks for some minutes, in the order of `wanted`; print what is done and what is left.

    Table 1 on photographs, see `work_on_photographs`, has its turn before the networks of `AFTER_PHOTOGRAPHS`.
    A job is timed before it begins: its remaining steps, each with the full inner attack, without validation. When the
    time is up, or the process is interrupted, checkpoints stay in `out`; the same call goes on from them, on any
    machine. A job that diverges is reported, and the next one begins. The networks of a finished job are measured at
    once, see `measure_job`: a measurement that has begun ends, even after the minutes are over.

    Args:
        minutes: how long to work, checkpoints included.
        out: the folder of checkpoints and finished networks.
        data_dir, device: see `training.job.train`.
        dry_run: only time each job and print the plan.
    """
    from . import data
    from .checks import use_device
    from .schedule import Schedule
    from .training.job import train
    from .training.run import Diverged

    end, device = time.monotonic() + 60 * minutes, use_device(device)
    together = device.startswith("cuda")
    folders = [out, places.home() / "networks", places.home() / "networks/paper"]
    dataset, whole, step_times = None, 0.0, {}
    todo: list[list[NetworkName] | None] = [*jobs(missing(wanted(), folders), together)]
    later = (i for i, names in enumerate(todo) if names and (names[0].dataset, names[0].model) in AFTER_PHOTOGRAPHS)
    todo.insert(next(later, len(todo)), None)  # in the place of the photographs
    for names in todo:
        if not dry_run and time.monotonic() >= end:
            break
        if names is None:
            work_on_photographs(out, data_dir=data_dir, device=device, until=-math.inf if dry_run else end)
            continue
        first = names[0]
        if dataset is None or dataset.name != first.dataset:
            dataset = data.load(first.dataset, data_dir, device=device)
        kind = (first.dataset, first.model, first.method, first.schedule, len(names))
        if kind not in step_times:
            step_times[kind] = seconds_a_step(names, dataset, device, together)
        schedule, done = Schedule.load(first.schedule, first.dataset), steps_taken(names, out, dataset)
        total = schedule.epochs * (len(dataset.train) // schedule.batch_size)
        seconds = (total - done) * step_times[kind]
        whole += seconds
        which = first.slug if len(names) == 1 else f"{first.slug} and {len(names) - 1} more"
        print(
            f"{which}: step {done:,} of {total:,}, {words(seconds)} left"
            + (f"; {words(whole)} up to here" if dry_run else ""),
            flush=True,
        )
        if not dry_run:
            pairs = [(name, name.path(out)) for name in names]
            try:
                train(pairs, data_dir=data_dir, device=device, together=together, until=end)
            except Diverged as error:  # the next jobs are wanted all the same
                print(f"{which}: {error}", flush=True)
            if not missing(names, [out]):
                measure_job(names, out, data_dir=data_dir, device=device)
    left = missing(wanted(), folders)
    print(f"{len(wanted()) - len(left)} of {len(wanted())} networks are there; networks and checkpoints are in {out}")
