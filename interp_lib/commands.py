"""What each command of the command line does; `__main__` reads the arguments."""

import _thread
import os
import secrets
import threading
import time
from pathlib import Path

from . import places, storage
from .datasets import DATASETS
from .study import records
from .training.job import differs, train


def run_data(args) -> None:
    from . import data

    dataset = data.load(args.name, args.data_dir, download=not args.no_download)
    print(
        f"{dataset.title} ({dataset.copy}): images {dataset.shape}, {dataset.num_classes} classes; "
        f"{len(dataset.train)} training, {len(dataset.validation)} validation, {len(dataset.test)} test images; "
        f"test set sha256 {dataset.fingerprint[:16]}"
    )


def run_train(args) -> None:
    from .models.names import NetworkName
    from .pages import profiles
    from .paper import ARCHITECTURE_TITLES
    from .schedule import PRECISIONS, Schedule

    out = args.out or places.home() / "_build/networks"
    if args.profile:
        names = profiles.load(args.profile).trained()
        if not names:
            print(f"profile {args.profile} trains nothing: it uses released networks")
    else:
        methods = profiles.methods_named(args.method)
        for word, known, what in (
            (args.dataset, DATASETS, "dataset"),
            (args.model, ARCHITECTURE_TITLES, "architecture"),
            (args.precision, PRECISIONS, "precision"),
        ):
            if word not in known:  # refuse a typo before any folder or file is created
                raise ValueError(f"unknown {what} {word!r}; known are {', '.join(known)}.")
        Schedule.load(args.schedule, args.dataset)
        names = [
            NetworkName(args.dataset, args.model, method, seed, args.schedule, gamma)
            for method in methods
            # Only Int and its variants have a gamma: train the other methods once, not once per gamma.
            for gamma in (args.gamma if method.startswith("Int") else args.gamma[:1])
            for seed in args.seed
        ]
    missing, names = [], list(dict.fromkeys(names))  # `--seed 0,0` is one network
    for name in names:
        path = name.path(out)
        if path.exists() and args.resume:
            from .models import trained

            asked = {"precision": args.precision, "kept": args.keep}
            print(f"{places.shown(path)} is there already{differs(trained.load(path)[1], asked)}")
        else:
            missing.append((name, path))
    if missing:
        train(
            missing,
            data_dir=args.data_dir,
            resume=args.resume,
            device=args.device,
            keep=args.keep,
            precision=args.precision,
            tensorboard=args.tensorboard,
        )


def run_queue(args) -> None:
    from . import queue

    out = args.out or places.home() / "networks/paper"
    queue.work(args.minutes, out=out, data_dir=args.data_dir, device=args.device, dry_run=args.dry_run)


def run_measure(args) -> None:
    if args.until_stdin_closes:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    from .study.measure import measure

    results = args.results_dir or places.home() / records.RESULTS
    folder = args.released_dir
    if args.networks == "ours":
        folder = args.networks_dir or places.home() / "networks"
    options = {name: value for name in ("n", "images", "eps") if (value := getattr(args, name)) is not None}
    paths = measure(
        args.table,
        args.networks,
        dataset=args.dataset,
        model=args.model,
        data_dir=args.data_dir,
        networks_dir=folder,
        folder=results,
        device=args.device,
        **options,
    )
    for path in paths:
        print(f"{places.shown(path)}: {len(records.read(path).rows)} rows")


def run_verify(args) -> None:
    from .checks import use_device
    from .data_files import DataError
    from .study.verify import verify

    folder = Path(args.results_dir or places.home() / records.RESULTS)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of records; run from the clone, or name --results-dir.")
    try:
        verify(
            records.read_all(folder),
            cells=args.cells,
            seed=secrets.randbelow(10**6) if args.seed is None else args.seed,
            tables=args.tables.split(",") if args.tables else (),
            model=args.model,
            longest=args.longest,
            report=lambda line: print(line, flush=True),
            data_dir=args.data_dir,
            networks_dir=args.released_dir,
            device=use_device(args.device),
        )
    except (FileNotFoundError, DataError) as error:
        raise FileNotFoundError(
            f"{error} verify needs the data that the records were measured on and the authors' networks: set "
            "INTERP_DATA and INTERP_RELEASED, or name --data-dir and --released-dir; the README says where they are."
        ) from None


def end_with_stdin() -> None:
    """Interrupt this process when the other end of its standard input is closed, as when its parent has ended."""
    while os.read(0, 4096):
        pass
    _thread.interrupt_main()
    time.sleep(10)  # time for the main thread to finish writing a file
    os._exit(130)


def run_compare(args) -> None:
    from .study.compare import compare
    from .study.report import as_csv, as_text, updated_readme
    from .study.schedules import read_schedules

    folder = Path(args.results_dir or places.home() / records.RESULTS)
    cells = compare(read_schedules(folder), together=False)
    if args.readme:
        readme = places.project_root() / "README.md"
        storage.write_atomically(readme, updated_readme(readme.read_text(encoding="utf-8"), cells).encode())
        print(places.shown(readme))
        return
    cells = [cell for cell in cells if args.table is None or cell.table.lower() == args.table.lower()]
    if not cells:
        raise ValueError(f"the paper has no Table {args.table}; it has 1, 2, 3, 4, 5, A1, A2, A3, A4 and A5.")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of records; run from the clone, or measure a table.")
    print(as_csv(cells) if args.csv else as_text(cells, args.networks))


def run_chapter(args) -> None:
    from .pages import chapters

    parameters = {"profile": args.profile, **dict(chapters.parse_parameter(p) for p in args.parameter)}
    print(chapters.execute(args.name, parameters, timeout=args.execution_timeout, in_place=args.in_place))


def run_pages(args) -> None:
    from .pages import chapters

    print(chapters.build_pages())


def run_laboratory(args) -> None:
    from .pages import laboratory

    for path in laboratory.write(data_dir=args.data_dir):
        print(f"{places.shown(path)}: {path.stat().st_size:,} bytes")


def run_book(args) -> None:
    from .pages import chapters

    print(chapters.build_book(args.profile, cores=args.cores, target=args.target))
