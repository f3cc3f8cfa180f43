"""`fit`, the one training loop for all methods: schedule, inner maximisation, validation."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from tqdm import tqdm

from ..attacks.ascent import Objective, _ascend, uniform_start
from ..attacks.projected_gradient_descent import pgd
from ..checks import NotANumber
from ..data import Dataset
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import count_correct
from ..models.proof import depends_on_mode, dtype_of
from ..schedule import Schedule
from ..values import check_whole
from .methods import METHODS
from .run import CHECKPOINT_SECONDS, Run, deferred_interrupt, generator

WATCHED = 1000  # number of validation images attacked after every epoch

FIT_SETTINGS = {"gamma", "seed", "precision", "checkpoint", "keep", "report"}  # see `fit`


@contextmanager
def drawing(run: "Run", step: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout draws from, for one step, and restore them afterwards."""
    # The seed depends on the step, so that a resumed run draws the dropout masks of an uninterrupted one.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator(run.seed, "layers", step).initial_seed())
        yield


def inner_maximum(
    objective: Objective, x: Tensor, *, eps: float, schedule: Schedule, generator: torch.Generator
) -> Tensor:
    """Return x' of the min-max problem (9), (N, C, H, W): ascent on `objective` from a uniform random start."""
    start = uniform_start(x, eps, generator)
    return _ascend(objective, x, eps=eps, alpha=schedule.attack_alpha, steps=schedule.attack_steps, start=start)


def watch(model: GlobalPoolNetwork, dataset: Dataset, schedule: Schedule) -> dict:
    """Measure an epoch by the accuracy on the validation images, and on some of them under attack.

    The attack is PGD with the schedule's final radius, whatever the ramp has reached, so that epochs can be compared:
    ten steps of a quarter of the radius.

    Returns:
        validation_accuracy over all images, and validation_robust over the first `WATCHED` images.
    """
    images, labels = dataset.validation.x().to(dtype_of(model)), dataset.validation.labels
    x, y, eps = images[:WATCHED], labels[:WATCHED], schedule.eps
    x_adv = pgd(model, x, y, eps=eps, alpha=eps / 4, steps=10) if eps else x
    return {
        "validation_accuracy": count_correct(model, images, labels) / max(len(labels), 1),
        "validation_robust": count_correct(model, x_adv, y) / max(len(y), 1),
    }


def fit(
    model: GlobalPoolNetwork,
    dataset: Dataset,
    method: str,
    schedule: Schedule,
    *,
    max_steps: int | None = None,
    **settings,
) -> list[dict]:
    """Train `model` in place; `together.fit_together` trains many networks at once on a GPU.

    Args:
        model: any classifier, on the device of the dataset. Int and its variants need one with a CAM; `models.adapt`
            makes one of another network. For the effect of a step on running statistics see
            `fast.fold.fold_for_training`.
        dataset: the network is trained on its `train` split and, after every epoch, validated on `validation`.
        method: a key of `methods.METHODS`: a row of the paper's tables, or another method.
        schedule: epochs, batch size, learning rate and inner maximisation.
        max_steps: stop, with a checkpoint, after this many training steps.
        settings: by name, each with a default:

            * gamma: the regularisation parameter of Int and its variants.
            * seed: determines the order of the images, the random starts and the dropout masks.
            * precision: one of `schedule.PRECISIONS`, see `fast.fold.fold_for_training`. Validation is always in
              float32.
            * checkpoint: a file written after every epoch, every minute, and when the run is interrupted. If it
              exists, training continues from it; it must come from the same method, gamma, schedule, seed, precision
              and data.
            * keep: 'last' keeps the weights of the last step, as in the paper's networks; 'best' keeps the weights of
              the epoch with the highest `validation_robust`, the first one of a tie.
            * report: a function called with every row of the history.

    Returns:
        One row per epoch: epoch, loss (mean over the epoch), eps, what `watch` returns, and seconds, the wall time of
        the epoch and its validation without the time between an interruption and the next start.

    Raises:
        TypeError, ValueError: an unknown method, `keep` or `precision`; a setting that is not a number or is out of
            range; a network whose image shape or number of classes differs from the dataset's; a training split
            smaller than a batch; or a checkpoint of another run.
        Diverged: the loss or a weight became NaN or infinite; the checkpoint has the last good state.

    Source: eq. (9), section 5 and Appendix B.
    """
    if max_steps is not None:
        check_whole(max_steps, "max_steps")
    if strange := set(settings) - FIT_SETTINGS:
        raise TypeError(f"fit takes {', '.join(sorted(FIT_SETTINGS))}; got {', '.join(sorted(strange))}.")
    run = Run(model, dataset, method, schedule, **settings)
    train(run, max_steps)
    return run.history


def train(run: Run, max_steps: int | None = None, until: float = math.inf) -> None:
    """Train a run to its end, or up to `max_steps`, or until `time.monotonic()` has reached `until`; see `fit`."""
    model, dataset, method, schedule = run.model, run.dataset, run.method, run.schedule
    stop = run.total if max_steps is None else min(run.total, max_steps)
    device, order_of = dataset.train.labels.device, None
    order: Tensor  # of the training images, in the epoch `order_of`
    dtype, random = dtype_of(model), depends_on_mode(model)
    with (
        tqdm(
            total=run.total,
            initial=run.step,
            desc=f"{method:12} {dataset.name} {getattr(model, 'name', type(model).__name__)}",
            unit="step",
            disable=None,
        ) as bar,
        deferred_interrupt() as interrupted,
    ):
        while run.step < stop and not interrupted() and time.monotonic() < until:
            step, (epoch, position) = run.step, divmod(run.step, run.per_epoch)
            if order_of != epoch:
                order, order_of = run.order(epoch).to(device), epoch
            x, y, eps = dataset.train.x(order[position]), dataset.train.labels[order[position]], schedule.radius(step)
            x = x.to(dtype)
            with drawing(run, step, device) if random else nullcontext():
                problem = METHODS[method](model, x, y, run.gamma, dtype=run.dtype)
                x_adv = x
                if problem.objective and eps > 0:
                    try:
                        x_adv = inner_maximum(
                            problem.objective,
                            x,
                            eps=eps,
                            schedule=schedule,
                            generator=generator(run.seed, "start", step, device),
                        )
                    except NotANumber:  # the weights have diverged
                        raise run.diverged(float("nan"), step) from None
                loss = problem.loss(x_adv).mean()
            if not torch.isfinite(loss):
                raise run.diverged(loss.item(), step)
            run.optimizer.zero_grad(set_to_none=True)
            # Weights only: the points of IG-Norm's path are leaves too, and need no gradient.
            loss.backward(inputs=[p for p in model.parameters() if p.requires_grad])
            run.optimizer.param_groups[0]["lr"] = schedule.rate(step)
            run.optimizer.step()
            run.losses.append(loss.item())
            run.step += 1
            bar.update()
            if position + 1 == run.per_epoch:
                row = run.end_epoch(watch(model, dataset, schedule))
                bar.set_postfix(
                    {
                        "loss": f"{row['loss']:.3f}",
                        "val": f"{row['validation_accuracy']:.3f}",
                        "robust": f"{row['validation_robust']:.3f}",
                        "eps": f"{eps:.3f}",
                    }
                )
                run.save()
            elif time.perf_counter() - run.saved > CHECKPOINT_SECONDS:  # an epoch may take an hour
                run.save()
        run.save()
    run.end()
