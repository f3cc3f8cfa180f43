"""One fit() for all methods: schedule, inner maximisation, checkpoints, resume.

Every random number comes from a generator seeded with (seed, purpose, counter), so that a checkpoint is weights,
optimizer and one step number, and a resumed run gives the weights of an uninterrupted one.
"""

import hashlib
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from .attacks.pgd import projected_ascent, uniform_start
from .data import Dataset
from .evaluation import count_correct
from .losses import METHODS
from .models import GlobalPoolNetwork
from .records import write_atomically


@dataclass(frozen=True)
class Schedule:
    """How long and how hard: one YAML file of plain numbers, `schedules/NAME.yml`.

    Attributes:
        epochs, batch_size, learning_rate: of Adam; the last partial batch of an epoch is dropped.
        eps: radius of the inner maximisation after the ramp, in the unit of the pixels.
        ramp_start, ramp_end: training steps; the radius is 0 before, eps after, linear in between.
        attack_steps, attack_alpha: of the inner maximisation, from a uniform random start.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    eps: float
    ramp_start: int
    ramp_end: int
    attack_steps: int
    attack_alpha: float

    @classmethod
    def load(cls, name: str) -> "Schedule":
        """A schedule of the library by name.

        Raises:
            ValueError: an unknown name, an unknown or a missing key, or a value that is no number.
        """
        folder = resources.files(__package__) / "schedules"
        known = sorted(p.name.removesuffix(".yml") for p in folder.iterdir() if p.name.endswith(".yml"))
        if name not in known:
            raise ValueError(f"unknown schedule {name!r}; known are {', '.join(known)}.")
        content = yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8"))
        expected = {f.name: f.type for f in fields(cls)}
        keys = set(content) if isinstance(content, dict) else set()
        if wrong := sorted(keys ^ set(expected)):
            raise ValueError(f"schedules/{name}.yml must have the keys {', '.join(expected)}; see {', '.join(wrong)}.")
        numbers = {}
        for key, kind in expected.items():
            try:
                numbers[key] = kind(float(content[key]))
                wrong = numbers[key] != float(content[key])
            except (TypeError, ValueError, OverflowError):
                wrong = True
            if wrong:
                what = "a whole number" if kind is int else "a number"
                raise ValueError(f"schedules/{name}.yml: {key} must be {what}; got {content[key]!r}.")
        return cls(**numbers)

    def radius(self, step: int) -> float:
        """eps of the inner maximisation at a training step, counted from 0."""
        return self.eps * min(max((step - self.ramp_start) / max(self.ramp_end - self.ramp_start, 1), 0.0), 1.0)


class Diverged(RuntimeError):
    """The loss is no number any more; the last good state is in the checkpoint."""


def generator(seed: int, purpose: str, counter: int) -> torch.Generator:
    """A generator whose numbers depend on nothing but these three."""
    digest = hashlib.sha256(f"{seed} {purpose} {counter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def inner_maximum(
    model: GlobalPoolNetwork, x: Tensor, y: Tensor, objective: Callable, *, eps: float, schedule: Schedule,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """x' of the min-max problem (9): ascent on `objective` from a uniform random start. (N, C, H, W)."""
    x_adv = start = uniform_start(x, eps, generator)
    climbed = projected_ascent(
        objective(model, x, y),
        x,
        eps=eps,
        alpha=schedule.attack_alpha,
        steps=schedule.attack_steps,
        start=start,
    )
    for x_adv in climbed:
        pass
    return x_adv


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


def load_checkpoint(path: Path, model: GlobalPoolNetwork) -> dict:
    """What `save_checkpoint` wrote, on the device of the model.

    Raises:
        ValueError: a file that is no whole checkpoint.
    """
    keys = {"run", "model", "optimizer", "step", "losses", "history"}
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
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    max_steps: int | None = None,
) -> list[dict]:
    """Trains `model` in place.

    Args:
        model: on the device of the dataset.
        dataset: its `train` split is learnt, its `validation` split watched after every epoch.
        method: a row of the tables, a key of `losses.METHODS`.
        schedule: how long and how hard.
        seed: of the order of the images and of the random starts.
        checkpoint: a file written after every epoch and when the run is interrupted; where it exists, training goes
            on from it. It must come from the same method, schedule, seed and data.
        max_steps: stop, with a checkpoint, after this many training steps.

    Returns:
        One row an epoch: epoch, loss (mean over the epoch), validation_accuracy, eps.

    Raises:
        ValueError: an unknown method, a training split smaller than a batch, or a checkpoint of another run.
        Diverged: the loss became NaN or infinite; the checkpoint holds the last good state.

    Source: eq. (9), section 5 and Appendix B.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}.")
    if len(dataset.train) < schedule.batch_size:
        raise ValueError(
            f"{dataset.title} has {len(dataset.train)} training images; a batch needs {schedule.batch_size}."
        )
    recipe = METHODS[method]
    run = {"method": method, "seed": seed, "schedule": asdict(schedule), "data": dataset.fingerprint}
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    step, losses, history = 0, [], []
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
        step, losses, history = state["step"], state["losses"], state["history"]

    def save():
        if checkpoint and all(torch.isfinite(p).all() for p in model.parameters()):
            save_checkpoint(checkpoint, {
                "run": run, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "step": step, "losses": losses, "history": history,
            })  # fmt: skip

    per_epoch = len(dataset.train) // schedule.batch_size
    total = schedule.epochs * per_epoch
    stop = total if max_steps is None else min(total, max_steps)
    order, order_of = None, None
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
            x_adv = x
            if recipe.objective and eps > 0:
                x_adv = inner_maximum(
                    model,
                    x,
                    y,
                    recipe.objective,
                    eps=eps,
                    schedule=schedule,
                    generator=generator(seed, "start", step),
                )
            loss = recipe.loss(model, x, y, x_adv)
            if not torch.isfinite(loss):
                kept = checkpoint and checkpoint.exists()
                where = f"{checkpoint} has the last good state" if kept else "there is no checkpoint yet"
                raise Diverged(f"{method}: the loss is {loss.item()} at step {step}; {where}.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            bar.update()
            if position + 1 == per_epoch:
                correct = count_correct(model, dataset.validation.x(), dataset.validation.labels)
                accuracy = correct / max(len(dataset.validation), 1)
                history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses),
                                "validation_accuracy": accuracy, "eps": eps})  # fmt: skip
                losses = []
                bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", val=f"{accuracy:.3f}", eps=f"{eps:.3f}")
                save()
        save()
    model.eval()
    return history
