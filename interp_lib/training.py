"""One fit() for all methods: schedule, inner maximisation, checkpoints, resume.

Every random number comes from a generator seeded with (seed, purpose, counter), so that a checkpoint is weights,
optimizer and one step number, and a resumed run gives the weights of an uninterrupted one.
"""

import hashlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from .attacks.pgd import Objective, ascend, pgd, uniform_start
from .data import Dataset
from .evaluation import count_correct
from .losses import METHODS
from .models import GlobalPoolNetwork, all_finite
from .records import GAMMA, write_atomically

WATCHED = 1000  # validation images that are attacked after every epoch
PRECISIONS = ("float32", "bfloat16")  # of the convolutions; weights, maps and logits are float32 in both


@dataclass(frozen=True)
class Schedule:
    """How long and how hard: plain numbers, one YAML file `schedules/NAME.yml` with a section for every dataset.

    Attributes:
        epochs, batch_size, learning_rate: of Adam; the last partial batch of an epoch is dropped.
        eps: radius of the inner maximisation after the ramp, in the unit of the pixels.
        ramp_start, ramp_end: training steps; the radius is 0 before, eps after, linear in between.
        attack_steps, attack_alpha: of the inner maximisation, from a uniform random start.
        decay: training steps at which the learning rate falls to a tenth.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    eps: float
    ramp_start: int
    ramp_end: int
    attack_steps: int
    attack_alpha: float
    decay: tuple[int, ...] = ()

    @classmethod
    def load(cls, name: str, dataset: str) -> "Schedule":
        """A schedule of the library by name, for a dataset.

        Raises:
            ValueError: an unknown name, a dataset that it does not cover, an unknown or a missing key, or a value
                that is no number.
        """
        folder = resources.files(__package__) / "schedules"
        known = sorted(p.name.removesuffix(".yml") for p in folder.iterdir() if p.name.endswith(".yml"))
        if name not in known:
            raise ValueError(f"unknown schedule {name!r}; known are {', '.join(known)}.")
        sections = yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8"))
        if not isinstance(sections, dict) or dataset not in sections:
            covered = ", ".join(sections) if isinstance(sections, dict) else "nothing"
            raise ValueError(f"schedule {name!r} is for {covered}, not for {dataset!r}.")
        content, where = sections[dataset], f"schedules/{name}.yml, {dataset}"
        expected = {f.name: f.type for f in fields(cls)}
        keys = set(content) if isinstance(content, dict) else set()
        if wrong := sorted(keys ^ set(expected)):
            raise ValueError(f"{where} must have the keys {', '.join(expected)}; see {', '.join(wrong)}.")

        def number(key: str, value, kind):
            try:
                converted = kind(float(value))
                if converted == float(value):
                    return converted
            except (TypeError, ValueError, OverflowError):
                pass
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{where}: {key} must be {what}; got {value!r}.")

        decay = content.pop("decay")
        if not isinstance(decay, list):
            raise ValueError(f"{where}: decay must be a list of training steps; got {decay!r}.")
        numbers = {key: number(key, value, expected[key]) for key, value in content.items()}
        return cls(**numbers, decay=tuple(number("decay", step, int) for step in decay))

    def radius(self, step: int) -> float:
        """eps of the inner maximisation at a training step, counted from 0."""
        return self.eps * min(max((step - self.ramp_start) / max(self.ramp_end - self.ramp_start, 1), 0.0), 1.0)

    def rate(self, step: int) -> float:
        """Learning rate at a training step, counted from 0: a tenth after every step of `decay`."""
        return self.learning_rate * 0.1 ** sum(step >= at for at in self.decay)


class Diverged(RuntimeError):
    """The loss is no number any more; the last good state is in the checkpoint."""


def generator(seed: int, purpose: str, counter: int) -> torch.Generator:
    """A generator whose numbers depend on nothing but these three."""
    digest = hashlib.sha256(f"{seed} {purpose} {counter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def inner_maximum(
    objective: Objective, x: Tensor, *, eps: float, schedule: Schedule, generator: torch.Generator
) -> Tensor:
    """x' of the min-max problem (9): ascent on `objective` from a uniform random start. (N, C, H, W)."""
    start = uniform_start(x, eps, generator)
    return ascend(objective, x, eps=eps, alpha=schedule.attack_alpha, steps=schedule.attack_steps, start=start)


def watch(model: GlobalPoolNetwork, dataset: Dataset, schedule: Schedule) -> dict:
    """What an epoch is judged by: accuracy on the validation images, and on some of them under attack.

    The attack is PGD of the schedule's final radius, ten steps of a quarter of it, whatever the ramp has reached, so
    that epochs can be compared.

    Returns:
        validation_accuracy, and validation_robust over the first `WATCHED` images.
    """
    images, labels = dataset.validation.x(), dataset.validation.labels
    x, y, eps = images[:WATCHED], labels[:WATCHED], schedule.eps
    x_adv = pgd(model, x, y, eps=eps, alpha=eps / 4, steps=10) if eps else x
    return {
        "validation_accuracy": count_correct(model, images, labels) / max(len(labels), 1),
        "validation_robust": count_correct(model, x_adv, y) / max(len(y), 1),
    }


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C and a scheduler's SIGTERM back until the training step under way is done.

    Yields a function that says whether one has come. Outside the main thread signals are left as they are.
    """
    came: list[int] = []
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
    """Where the last good state of a diverged run is, in words."""
    kept = checkpoint and checkpoint.exists()
    return f"{checkpoint} has the last good state" if kept else "there is no checkpoint yet"


def load_checkpoint(path: Path, model: GlobalPoolNetwork) -> dict:
    """What `save_checkpoint` wrote, on the device of the model.

    Raises:
        ValueError: a file that is no whole checkpoint.
    """
    keys = {"run", "model", "optimizer", "step", "losses", "history", "best", "seconds"}
    try:
        state = torch.load(path, map_location=model.classifier.weight.device, weights_only=True)
        if not isinstance(state, dict) or set(state) != keys:
            raise ValueError("it has other contents")
    except OSError:
        raise
    except Exception as error:  # torch, zipfile and pickle each complain in their own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no whole checkpoint: {reason}. Delete it to train from the start.") from None
    return state


def fit(
    model: GlobalPoolNetwork,
    dataset: Dataset,
    method: str,
    schedule: Schedule,
    *,
    gamma: float = GAMMA,
    seed: int = 0,
    precision: str = "float32",
    checkpoint: str | os.PathLike | None = None,
    max_steps: int | None = None,
    keep: str = "last",
    report: Callable[[dict], object] | None = None,
) -> list[dict]:
    """Trains `model` in place.

    Args:
        model: on the device of the dataset.
        dataset: its `train` split is learnt, its `validation` split watched after every epoch.
        method: a row of the tables, a key of `losses.METHODS`.
        schedule: how long and how hard.
        gamma: the regularisation parameter of Int and its variants.
        seed: of the order of the images and of the random starts.
        precision: of `PRECISIONS`, see `fold.fold_for_training`. Validation is in float32 whatever it is.
        checkpoint: a file written after every epoch and when the run is interrupted; where it exists, training goes
            on from it. It must come from the same method, gamma, schedule, seed, precision and data.
        max_steps: stop, with a checkpoint, after this many training steps.
        keep: 'last' leaves the weights of the last step, as the paper's networks are; 'best' those of the epoch with
            the highest `validation_robust`, the first of equals.
        report: called with every row of the history.

    Returns:
        One row an epoch: epoch, loss (mean over the epoch), eps, what `watch` sees, and seconds, the wall time of the
        epoch with its validation, the time between an interruption and the next start left out.

    Raises:
        ValueError: an unknown method, `keep` or `precision`, a negative gamma, a training split smaller than a batch,
            or a checkpoint of another run.
        Diverged: the loss or a weight became NaN or infinite; the checkpoint holds the last good state.

    Source: eq. (9), section 5 and Appendix B.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}.")
    if keep not in ("last", "best") or not gamma >= 0:
        raise ValueError(f"keep must be 'last' or 'best' and gamma >= 0; got {keep!r}, {gamma}.")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}.")
    if len(dataset.train) < schedule.batch_size:
        raise ValueError(
            f"{dataset.title} has {len(dataset.train)} training images; a batch needs {schedule.batch_size}."
        )
    run = {"method": method, "gamma": gamma, "seed": seed, "schedule": asdict(schedule), "precision": precision,
           "data": dataset.fingerprint}  # fmt: skip
    dtype = None if precision == "float32" else getattr(torch, precision)
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    step, losses, history, best, seconds = 0, [], [], None, 0.0
    checkpoint = Path(checkpoint) if checkpoint else None
    if checkpoint and checkpoint.exists():
        state = load_checkpoint(checkpoint, model)
        if state["run"] != run:
            raise ValueError(f"{checkpoint} belongs to another run, {state['run']}; delete it or name another file.")
        try:
            model.load_state_dict(state["model"])
        except RuntimeError:
            raise ValueError(f"{checkpoint} belongs to another architecture; delete it or name another file.") from None
        optimizer.load_state_dict(state["optimizer"])
        step, losses, history, best, seconds = (state[key] for key in ("step", "losses", "history", "best", "seconds"))

    def save():
        if checkpoint and all_finite(model):
            save_checkpoint(checkpoint, {
                "run": run, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "step": step, "losses": losses, "history": history, "best": best,
                "seconds": time.perf_counter() - began,
            })  # fmt: skip

    per_epoch = len(dataset.train) // schedule.batch_size
    total = schedule.epochs * per_epoch
    stop = total if max_steps is None else min(total, max_steps)
    order, order_of = None, None
    began = time.perf_counter() - seconds  # of the epoch
    model.train()
    with (
        tqdm(
            total=total,
            initial=step,
            desc=f"{method:12} {dataset.name} {model.name}",
            unit="step",
            disable=None,
        ) as bar,
        deferred_interrupt() as interrupted,
    ):
        while step < stop and not interrupted():
            epoch, position = divmod(step, per_epoch)
            if order_of != epoch:
                order = torch.randperm(len(dataset.train), generator=generator(seed, "order", epoch))
                order, order_of = order.to(dataset.train.labels.device), epoch
            batch = order[position * schedule.batch_size : (position + 1) * schedule.batch_size]
            x, y, eps = dataset.train.x(batch), dataset.train.labels[batch], schedule.radius(step)
            problem = METHODS[method](model, x, y, gamma, dtype=dtype)
            x_adv = x
            if problem.objective and eps > 0:
                x_adv = inner_maximum(
                    problem.objective, x, eps=eps, schedule=schedule, generator=generator(seed, "start", step)
                )
            loss = problem.loss(x_adv)
            if not torch.isfinite(loss):
                raise Diverged(f"{method}: the loss is {loss.item()} at step {step}; {last_good(checkpoint)}.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.param_groups[0]["lr"] = schedule.rate(step)
            optimizer.step()
            losses.append(loss.item())
            step += 1
            bar.update()
            if position + 1 == per_epoch:
                history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), "eps": eps,
                                **watch(model, dataset, schedule)})  # fmt: skip
                losses, row, now = [], history[-1], time.perf_counter()
                row["seconds"], began = round(now - began, 2), now
                if best is None or row["validation_robust"] > best["validation_robust"]:
                    weights = {key: value.clone() for key, value in model.state_dict().items()}
                    best = {"epoch": epoch + 1, "validation_robust": row["validation_robust"], "model": weights}
                bar.set_postfix({"loss": f"{row['loss']:.3f}", "val": f"{row['validation_accuracy']:.3f}",
                                 "robust": f"{row['validation_robust']:.3f}", "eps": f"{eps:.3f}"})  # fmt: skip
                if report:
                    report(row)
                save()
        save()
    if not all_finite(model):  # the last step may leave what no loss has seen
        raise Diverged(f"{method}: weights are NaN or infinite after {step} steps; {last_good(checkpoint)}.")
    if keep == "best" and best and step == total:
        model.load_state_dict(best["model"])
    model.eval()
    return history
