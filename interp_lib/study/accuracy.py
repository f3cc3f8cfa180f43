"""Measure accuracy under attack: (network, attack, metric) -> tidy rows, each with n and a standard error."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..attacks.ascent import uniform_start
from ..attacks.projected_gradient_descent import pgd
from ..checks import check_batch, check_step_sizes
from ..data import EvaluationSubset
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import classified_right
from ..values import check_each, check_number, check_radius, check_whole
from .compare import STARTS
from .evaluation import ALPHA, EPS, IMAGES, STEPS, TRAINING_EPS, perturbation_sizes
from .records import outcome_digits
from .sweep import Part, Plan, header, once


def check_subset(subset: EvaluationSubset) -> None:
    """Refuse anything but an evaluation subset.

    Raises:
        TypeError: with the name of the function that returns one.
    """
    if not isinstance(subset, EvaluationSubset):
        raise TypeError(f"subset must be what Dataset.evaluation_subset gives; got {type(subset).__name__}.")


IN_CACHE = 200  # images of one batch, which fit the CPU's cache


STEPS_AT_A_TIME = 20  # attack steps between two updates of the progress bar


def proportion(right: Tensor) -> dict:
    """Return an accuracy with its counts, its standard error and the outcome of each image.

    Args:
        right: whether each image is classified right, bool (N,).

    Returns:
        correct, n, accuracy, its standard error se = sqrt(p (1 - p) / n), and right, the outcome of each image as
        `records.outcome_digits` writes it, so that networks that saw the same images can be compared image by image.
        For N = 0, accuracy and se are None.

    Raises:
        TypeError: `right` is not a bool tensor (N,).
    """
    if not isinstance(right, Tensor) or right.dtype != torch.bool or right.dim() != 1:
        came = f"{tuple(right.shape)} of {right.dtype}" if isinstance(right, Tensor) else type(right).__name__
        raise TypeError(f"right must be a bool tensor (N,), whether each image is classified right; got {came}.")
    correct, n = int(right.sum()), len(right)
    p = correct / n if n else None
    se = None if p is None else math.sqrt(p * (1 - p) / n)
    return {"correct": correct, "n": n, "accuracy": p, "se": se, "right": outcome_digits(right.tolist())}


def pgd_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    steps: Sequence[int],
    alpha: float = 0.01,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure accuracy under the paper's PGD for every eps and every number of steps.

    One run for each eps gives the accuracies after all numbers of steps.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        eps: perturbation sizes in the unit of the pixels; 0 gives the clean accuracy.
        steps: numbers of steps; 0 gives the clean accuracy.
        alpha: step size.
        progress: called with the number of steps done since the last call.

    Returns:
        One row for each pair (eps, steps): eps, steps, and the fields of `proportion`.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Tables 3, 4, A1, A2 and A3.
    """
    outcomes = _right_under_pgd(model, x, y, eps, steps, alpha, progress)
    return [{"eps": e, "steps": k, **proportion(right)} for (e, k), right in outcomes.items()]


def _right_under_pgd(model, x, y, eps, steps, alpha=0.01, progress=None) -> dict[tuple[float, int], Tensor]:
    """Return what `pgd_accuracy` counts: (eps, steps), ascending -> whether each image stays right, bool (N,)."""
    check_batch(model, x, y)
    check_each(eps, "eps", check_radius)
    check_each(steps, "steps", check_whole)
    check_number(alpha, "alpha", 0)
    clean, right = classified_right(model, x, y), {}
    for e in sorted(set(map(float, eps))):
        x_adv, done = x, 0
        for k in sorted(set(map(int, steps))):
            while e > 0 and done < k:
                # Sign steps have no memory: runs that continue from x_adv give the iterates of one long run.
                some = min(k - done, STEPS_AT_A_TIME)
                x_adv, done = pgd(model, x, y, eps=e, alpha=alpha, steps=some, start=x_adv), done + some
                if progress:
                    progress(some)
            right[e, k] = classified_right(model, x_adv, y) if done else clean
    return right


def pgd_accuracy_in_batches(
    model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = IN_CACHE, **attack
) -> list[dict]:
    """Run `pgd_accuracy` in batches that fit the CPU's cache; rows and other arguments as in `pgd_accuracy`."""
    check_batch(model, x, y)
    check_whole(batch_size, "batch_size", 1)
    batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
    parts = [_right_under_pgd(model, *batch, **attack) for batch in batches]
    return [{"eps": e, "steps": k, **proportion(torch.cat([part[e, k] for part in parts]))} for e, k in parts[0]]


def random_start_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    starts: Sequence[int] = (1, 5),
    steps: int = 200,
    alpha: float = 0.01,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure accuracy under PGD from uniform random points of the ball: all k runs must leave an image right.

    The paper's evaluation starts at x itself; its training, and Madry et al. (2018), start at random. All radii use the
    same random numbers, and an image that one run has fooled is not attacked again.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        eps: perturbation sizes in the unit of the pixels; 0 gives the clean accuracy.
        starts: the numbers of runs k >= 1 to report; the largest of them is the number of runs.
        steps, alpha: number of steps and step size of each run.
        seed: seed of the random points.
        progress: called with the number of steps done since the last call.

    Returns:
        One row for each eps and k: eps, steps, starts, and the fields of `proportion`.

    Raises:
        TypeError, ValueError: see `checks`; also for a k below 1.
    """
    check_each(starts, "starts", check_whole, 1)
    check_batch(model, x, y)
    check_each(eps, "eps", check_radius)
    check_step_sizes(eps=0.0, alpha=alpha, steps=steps)
    check_whole(seed, "seed", 0, 2**63 - 1)
    rows, clean = [], classified_right(model, x, y)
    for e in sorted(set(map(float, eps))):
        generator, right = torch.Generator().manual_seed(seed), clean.clone()
        for k in range(1, max(starts) + 1):
            # Draw for all images, so that a start does not depend on which images are already fooled.
            start, index = uniform_start(x, e, generator), right.nonzero()[:, 0]
            if e and len(index):
                x_adv = pgd(model, x[index], y[index], eps=e, alpha=alpha, steps=steps, start=start[index])
                right[index] = classified_right(model, x_adv, y[index])
            if e and progress:
                progress(steps)
            if k in starts:
                rows.append({"eps": e, "steps": steps, "starts": k, **proportion(right)})
    return rows


def fgsm_accuracy(model: GlobalPoolNetwork, x, y, *, eps: Sequence[float], progress=None) -> list[dict]:
    """Measure accuracy under FGSM: one step of the full size, alpha = eps; rows as in `pgd_accuracy`."""
    return [row for e in eps for row in pgd_accuracy(model, x, y, eps=[e], steps=[1], alpha=e, progress=progress)]


def _plan(
    part: Part,
    measurement: str,
    rows_of: Callable,
    attack: dict,
    *,
    eps: Sequence[float] | None,
    n: int,
    cost: int,
    split: str = "test",
) -> Iterator[Plan]:
    """Yield the plan of one accuracy under attack.

    Args:
        rows_of: (network, x, y, eps=, progress=) -> rows.
        attack: what the record says of the attack.
        eps: perturbation sizes; None for those of the tables.
        cost: number of attack steps for one eps, of the progress bar.
        split: 'test' for the evaluation subset of n images, 'train' for the first n training images.
    """
    eps = EPS[part.dataset.name, part.model] if eps is None else eps
    attack = {"name": measurement, "loss": "cross-entropy", "norm": "linf", "eps": list(eps), **attack}
    if split == "train":
        x, y = part.dataset.train.x(slice(n)), part.dataset.train.labels[:n]
    else:
        subset = part.dataset.evaluation_subset(n)
        x, y = subset.x, subset.y
    x, y = x.to(part.device), y.to(part.device)
    rows = once(lambda network, progress: rows_of(network, x, y, eps=eps, progress=progress))
    yield Plan(header(measurement, part, n=n, split=split, attack=attack), rows, cost * sum(e > 0 for e in eps))


def pgd_plan(
    part: Part,
    *,
    measurement: str = "pgd",
    eps: Sequence[float] | None = None,
    steps: Sequence[int] = STEPS,
    n: int = IMAGES,
    split: str = "test",
) -> Iterator[Plan]:
    """Plan the attack of Tables 3, 4 and A1 to A3: steps of 0.01 from x itself, for every eps and number of steps.

    The images are `Dataset.evaluation_subset(n)`; a larger subset begins with the same images.
    """
    rows = partial(pgd_accuracy_in_batches, steps=steps, alpha=ALPHA)
    attack = {"random_start": False, "alpha": ALPHA, "steps": list(steps)}
    return _plan(part, measurement, rows, attack, eps=eps, n=n, cost=max(steps) * -(-n // IN_CACHE), split=split)


def many_plan(part: Part, *, eps: Sequence[float] | None = None, steps: Sequence[int] = STEPS[-1:], n: int = 2000):
    """Plan `pgd_plan` on 2,000 images, for the statements of `claims_robustness` that 200 images leave open."""
    eps = perturbation_sizes(part.dataset.name, part.model) if eps is None else eps
    return pgd_plan(part, measurement="many", eps=eps, steps=steps, n=n)


def seen_plan(part: Part, *, eps: Sequence[float] | None = None, steps: Sequence[int] = (10,), n: int = IMAGES):
    """Plan ten steps at the training radius on the first n training images."""
    eps = (0, TRAINING_EPS[part.dataset.name]) if eps is None else eps
    return pgd_plan(part, measurement="seen", eps=eps, steps=steps, n=n, split="train")


def clean_plan(part: Part, *, n: int | None = None):
    """Plan the accuracy without an attack, by default on all test images."""
    return pgd_plan(part, measurement="clean", steps=[0], n=len(part.dataset.test) if n is None else n)


def fgsm_plan(part: Part, *, eps: Sequence[float] | None = None, n: int = IMAGES) -> Iterator[Plan]:
    """Plan one step of the full size."""
    attack = {"random_start": False, "alpha": "eps", "steps": [1]}
    return _plan(part, "fgsm", fgsm_accuracy, attack, eps=eps, n=n, cost=1)


def starts_plan(
    part: Part,
    *,
    measurement: str = "starts",
    eps: Sequence[float] | None = None,
    steps: int = STEPS[-1],
    alpha: float = ALPHA,
    starts: Sequence[int] = (1, STARTS),
    n: int = IMAGES,
) -> Iterator[Plan]:
    """Plan the attack of Table 3 from uniform random points of the ball in the place of x itself."""
    rows = partial(random_start_accuracy, starts=starts, steps=steps, alpha=alpha)
    attack = {"random_start": "uniform, seed 0", "starts": list(starts), "alpha": alpha, "steps": [steps]}
    return _plan(part, measurement, rows, attack, eps=eps, n=n, cost=steps * max(starts))


def fine_plan(part: Part, *, eps: Sequence[float] = (8 / 255, 10 / 255, 12 / 255), n: int = IMAGES):
    """Plan 40 steps of 1/255 from one random point, also beyond the training radius of WResnet.

    Steps of 0.01 are 2.55/255: finer steps find what the attack of Table 3 may have missed.
    """
    return starts_plan(part, measurement="fine", eps=eps, steps=40, alpha=1 / 255, starts=[1], n=n)
