"""What the command `train` does: train the requested networks, each with its checkpoint, log and stored settings."""

import math
import sys
from functools import partial
from pathlib import Path

from .. import places, storage
from ..models.names import NetworkName


def differs(how: dict, asked: dict) -> str:
    """Describe how a stored network's settings differ from the requested ones; return '' if they agree."""
    defaults = {"precision": "float32", "kept": "last"}  # of networks stored before these settings existed
    settings = [f"{key} {how.get(key, defaults[key])}" for key in asked if how.get(key, defaults[key]) != asked[key]]
    return f", but with {', '.join(settings)}; name another folder by --out" if settings else ""


def train(
    wanted: list[tuple[NetworkName, Path]],
    *,
    data_dir=None,
    resume: bool = True,
    device: str | None = None,
    keep: str = "last",
    precision: str = "float32",
    tensorboard: Path | None = None,
    together: bool | None = None,
    until: float = math.inf,
) -> None:
    """Train networks and store each one, with a checkpoint beside it while it trains.

    Args:
        wanted: pairs (name, path), one per network; all networks use the same dataset.
        together: train all networks at the same time, see `training.together`, or one after another. Default: at the
            same time on a GPU, one after another on a CPU.
        until: stop, with checkpoints, when `time.monotonic()` has reached this.
    """
    # Imported here, so that the command line starts without PyTorch.
    import torch

    from .. import data
    from ..checks import use_device
    from .loop import train as train_alone
    from .run import Diverged
    from .together import fit_together

    device = use_device(device)
    able: dict = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch do not report capabilities
    if (precision, device, able.get("amx_bf16")) == ("bfloat16", "cpu", False):
        print("this processor has no units for bfloat16 (AMX): it will take longer than float32", file=sys.stderr)
    dataset = data.load(wanted[0][0].dataset, data_dir, device=device)
    begin = partial(_begin, dataset, resume, tensorboard, {"precision": precision, "keep": keep})
    if device.startswith("cuda") if together is None else together:
        # Keyed by the run, so that each network is stored as soon as it is finished, in whatever order.
        runs = {begin(*pair): pair for pair in wanted}
        fit_together(list(runs), finished=lambda run: _store(run, *runs[run], len(runs)), until=until)
    else:
        diverged = []
        for pair in wanted:
            run = begin(*pair)
            try:
                train_alone(run, until=until)
            except Diverged as error:  # the others are trained all the same, as they are together
                diverged.append(str(error))
            else:
                if run.step == run.total:
                    _store(run, *pair)
        if diverged:
            raise Diverged(" ".join(diverged))


def _begin(dataset, resume: bool, tensorboard: Path | None, settings: dict, name, path: Path):
    """Return the run of one network, with its weights from the seed or, if it has begun before, from the checkpoint."""
    from .. import models
    from ..schedule import Schedule
    from .run import Run

    model = models.build(name.model, dataset.shape, dataset.num_classes, seed=name.seed)
    checkpoint = storage.ready_folder(path.parent) / f"{path.stem}.checkpoint"
    if not resume:
        checkpoint.unlink(missing_ok=True)
    reports = [scalars(tensorboard / name.slug)] if tensorboard else []
    if not sys.stderr.isatty():
        reports.append(lambda row: log_epoch(name.slug, row))
    return Run(
        model.to(dataset.train.labels.device),
        dataset,
        name.method,
        Schedule.load(name.schedule, name.dataset),
        checkpoint=checkpoint,
        report=lambda row: [report(row) for report in reports],
        gamma=name.gamma,
        seed=name.seed,
        **settings,
    )


def _store(run, name, path: Path, count: int = 1) -> None:
    """Store a finished network beside its settings, of which `count` were trained together."""
    from ..models import trained
    from ..models.proof import device_of

    how = {
        "dataset": name.dataset,
        "title": run.dataset.title,
        "data": run.dataset.fingerprint,
        "method": name.method,
        "gamma": name.gamma,
        "seed": name.seed,
        "schedule": name.schedule,
        "precision": run.precision,
        "kept": run.keep,
        **({"trained_together": count} if count > 1 else {}),
        "history": run.history,
        "provenance": storage.provenance(sum(row["seconds"] for row in run.history), str(device_of(run.model))),
    }
    trained.save(run.model, path, how)
    run.checkpoint.unlink(missing_ok=True)
    last = run.history[-1]
    print(
        f"{places.shown(path)}: validation accuracy {last['validation_accuracy']:.3f}, "
        f"{last['validation_robust']:.3f} under attack, after {len(run.history)} epochs"
    )


def log_epoch(slug: str, row: dict) -> None:
    """Print one line per epoch on stderr, for logs without a progress bar; skip epochs under 10 s."""
    if row["seconds"] >= 10:
        loss, accuracy, robust = (row[key] for key in ("loss", "validation_accuracy", "validation_robust"))
        print(
            f"{slug}, epoch {row['epoch']}: loss {loss:.4f}, validation accuracy {accuracy:.3f}, {robust:.3f} under "
            f"attack; {row['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def scalars(folder: Path):
    """Return a function that writes a row of the history for TensorBoard, an optional package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard.") from None
    writer = SummaryWriter(folder)

    def report(row: dict) -> None:
        for key, value in row.items():
            writer.add_scalar(key, value, row["epoch"])
        writer.flush()

    return report
