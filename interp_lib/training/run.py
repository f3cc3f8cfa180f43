"""The resumable state of one training run: checkpoint, history, random numbers."""

import hashlib
import inspect
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import all_finite
from ..models.proof import device_of
from ..paper import GAMMA
from ..reading import opened
from ..schedule import PRECISIONS, Schedule
from ..storage import write_atomically
from ..values import check_choice, check_number, check_whole
from .methods import METHODS

CHECKPOINT_SECONDS = 60  # least time between two checkpoints of a run that goes on
LARGEST_CHECKPOINT = 2**30  # bytes; a checkpoint of WResnet has 8 million


class Diverged(RuntimeError):
    """The loss or a weight became NaN or infinite; the checkpoint, if there is one, has the last good state."""


def generator(seed: int, purpose: str, counter: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator whose numbers depend only on these three arguments and on the kind of device."""
    # A hash keeps the streams apart for neighbouring seeds and counters; 63 bits, as for the seeds of `Run`.
    digest = hashlib.sha256(f"{seed} {purpose} {counter}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C and a scheduler's SIGTERM to the end of the block, and raise KeyboardInterrupt there.

    Yields a function that tells whether a signal has come, so that the training loop can stop after the current step.
    Outside the main thread signals are not deferred.
    """
    came: list[int] = []
    # Python allows signal handlers to be set in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {s: signal.signal(s, lambda number, _: came.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def save_checkpoint(path: Path, state: dict) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def last_good(checkpoint: Path | None) -> str:
    """Describe in words where the last good state of a diverged run is."""
    kept = checkpoint and checkpoint.exists()
    return f"{checkpoint} has the last good state" if kept else "there is no checkpoint yet"


def load_checkpoint(path: Path, model: GlobalPoolNetwork) -> dict:
    """Read what `save_checkpoint` wrote, onto the device of the model.

    Raises:
        ValueError: the file is not a complete checkpoint.
    """
    keys = {"run", "model", "optimizer", "step", "losses", "history", "best", "seconds"}
    try:
        with opened(path, LARGEST_CHECKPOINT) as file:  # weights_only: a full pickle could run code
            state = torch.load(file, map_location=device_of(model), weights_only=True)
        if not isinstance(state, dict) or set(state) != keys:
            raise ValueError("it has other contents")
    except OSError:
        raise
    except Exception as error:  # torch, zipfile and pickle each raise errors of their own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a complete checkpoint: {reason}. Delete it to train from the start.") from None
    return state


def _check_run(model: GlobalPoolNetwork, dataset: Dataset, schedule: Schedule) -> None:
    """Refuse arguments of a wrong type, and a network with other image shapes or classes than the dataset."""
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be what data.load gives; got {dataset!r:.80}.")
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule must be an interp_lib.Schedule, such as Schedule.load('quick', 'mnist'); got {schedule!r:.80}."
        )
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a network, such as models.build gives; got {model!r:.80}.")
    for name, here in (("input_shape", dataset.shape), ("num_classes", dataset.num_classes)):
        actual: Any = getattr(model, name, here)
        if name == "input_shape" and getattr(model, "any_size", False):
            actual = (actual[0], *dataset.shape[1:])  # only the channels have to match
        if actual != here:
            raise ValueError(f"model must have {name} {here} for {dataset.title}; got {actual}. Build one for it.")


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` without the import of `torch.compile`, which takes 2 to 3 s of the first step of a process.

    PyTorch wraps these methods so that `torch.compile` leaves them alone; here the wrapped functions are called.
    """

    add_param_group, load_state_dict, state_dict, zero_grad = (
        inspect.unwrap(getattr(torch.optim.Adam, name))
        for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    )

    @torch.no_grad()
    def step(self) -> None:
        inspect.unwrap(torch.optim.Adam.step)(self)


class Run:
    """The resumable state of one training run.

    Args: see `fit`.

    Attributes:
        step: number of training steps done.
        losses: loss of every step of the current epoch.
        history: one row per epoch, see `fit`.
        best: epoch, robust validation accuracy and weights of the epoch that `keep='best'` selects.
        error: why this run diverged, when it is trained together with others, which continue.

    Raises:
        ValueError: see `fit`.
    """

    def __init__(
        self,
        model: GlobalPoolNetwork,
        dataset: Dataset,
        method: str,
        schedule: Schedule,
        *,
        gamma: float = GAMMA,
        seed: int = 0,
        precision: str = "float32",
        checkpoint: str | os.PathLike | None = None,
        keep: str = "last",
        report: Callable[[dict], object] | None = None,
    ):
        for word, known, what in ((method, METHODS, "method"), (precision, PRECISIONS, "precision")):
            if not isinstance(word, str) or word not in known:
                raise ValueError(f"unknown {what} {word!r:.80}; known are {', '.join(known)}.")
        check_choice(keep, "keep", ("last", "best"))
        check_number(gamma, "gamma", 0)
        check_whole(seed, "seed", 0, 2**63 - 1)
        _check_run(model, dataset, schedule)
        if not (checkpoint is None or isinstance(checkpoint, str | os.PathLike)):
            raise TypeError(f"checkpoint must be the path of a file; got {checkpoint!r:.80}.")
        if not (report is None or callable(report)):
            raise TypeError(f"report must be a function of a row of the history; got {report!r:.80}.")
        if len(dataset.train) < schedule.batch_size:
            raise ValueError(
                f"{dataset.title} has {len(dataset.train)} training images; a batch needs {schedule.batch_size}."
            )
        self.model, self.dataset, self.method, self.schedule, self.gamma = model, dataset, method, schedule, gamma
        self.seed, self.precision, self.keep, self.report = seed, precision, keep, report
        self.dtype = None if precision == "float32" else getattr(torch, precision)
        self.per_epoch = len(dataset.train) // schedule.batch_size
        self.total = schedule.epochs * self.per_epoch
        self.optimizer = Adam(model.parameters(), lr=schedule.learning_rate)
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.history: list[dict] = []
        self.best: dict | None = None
        self.error: Diverged | None = None
        self.checkpoint = Path(checkpoint) if checkpoint else None
        if self.checkpoint and self.checkpoint.exists():
            self.restore()
        self.model.train()
        self.began = time.perf_counter() - self.seconds  # start of the epoch, less the time before a restart
        self.saved = time.perf_counter()

    @property
    def identity(self) -> dict:
        """Everything that determines the weights; a checkpoint must agree with it."""
        return {
            "method": self.method,
            "gamma": self.gamma,
            "seed": self.seed,
            "schedule": asdict(self.schedule),
            "precision": self.precision,
            "data": self.dataset.fingerprint,
        }

    def restore(self) -> None:
        path = self.checkpoint
        assert path is not None  # `__init__` has seen that it exists
        state = load_checkpoint(path, self.model)
        if state["run"] != self.identity:
            raise ValueError(f"{path} belongs to another run, {state['run']}; delete it or name another file.")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            raise ValueError(f"{path} belongs to another architecture; delete it or name another file.") from None
        # Keep this optimiser's own settings: some of the stored ones suit the device that wrote the checkpoint.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        for name in ("step", "losses", "history", "best", "seconds"):
            setattr(self, name, state[name])

    def save(self) -> None:
        """Write the checkpoint, if one is wanted and all weights are finite."""
        self.saved = time.perf_counter()
        if self.checkpoint and all_finite(self.model):
            save_checkpoint(
                self.checkpoint,
                {
                    "run": self.identity,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "losses": self.losses,
                    "history": self.history,
                    "best": self.best,
                    "seconds": time.perf_counter() - self.began,
                },
            )

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's batches, int64 (per_epoch, batch size): a permutation, the rest dropped."""
        # Drawn on the CPU, so that the order does not depend on the device.
        order = torch.randperm(len(self.dataset.train), generator=generator(self.seed, "order", epoch))
        return order[: self.per_epoch * self.schedule.batch_size].view(self.per_epoch, -1)

    def diverged(self, loss: float, step: int) -> Diverged:
        return Diverged(f"{self.method}: the loss is {loss} at step {step}; {last_good(self.checkpoint)}.")

    def end_epoch(self, watched: dict) -> dict:
        """Add a row to the history, from what `watch` returned after the epoch's last step, and return the row."""
        now = time.perf_counter()
        row = {
            "epoch": self.step // self.per_epoch,
            "loss": sum(self.losses) / len(self.losses),
            "eps": self.schedule.radius(self.step - 1),
            **watched,
            "seconds": round(now - self.began, 2),
        }
        self.losses, self.began = [], now
        self.history.append(row)
        if self.best is None or row["validation_robust"] > self.best["validation_robust"]:
            # A copy: the optimiser changes the weights in place.
            weights = {key: value.clone() for key, value in self.model.state_dict().items()}
            self.best = {"epoch": row["epoch"], "validation_robust": row["validation_robust"], "model": weights}
        if self.report:
            self.report(row)
        return row

    def end(self) -> None:
        """Load the weights that `keep` selects and switch to evaluation mode, when no step follows.

        Raises:
            Diverged: a weight is NaN or infinite.
        """
        if not all_finite(self.model):  # no loss is computed after the last step's update
            raise Diverged(
                f"{self.method}: weights are NaN or infinite after {self.step} steps; {last_good(self.checkpoint)}."
            )
        if self.keep == "best" and self.best and self.step == self.total:
            self.model.load_state_dict(self.best["model"])
        self.model.eval()
