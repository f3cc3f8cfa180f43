"""PGD of Madry et al. (2018): projected sign steps on the cross-entropy."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..checks import check_images, check_labels, check_step_sizes
from ..fast.fold import fold_logits
from ..models.predict import evaluating
from ..models.proof import unwrapped
from .ascent import ball, check_start, cross_entropy, projected_ascent, uniform_start


def pgd_iterates(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    targeted: bool = False,
    start: Tensor | None = None,
    every: bool = True,
) -> Iterator[Tensor]:
    """Yield every iterate of `pgd`, so that one run gives the results for all numbers of steps.

    Arguments: as `pgd`; `every` as `ascent.projected_ascent`.
    """
    check_images(x)
    check_labels(y, len(x), getattr(unwrapped(model), "num_classes", None))
    if hasattr(model, "check_input"):
        model.check_input(x)
    check_step_sizes(eps=eps, alpha=alpha, steps=steps)
    check_start(start, x)
    with evaluating(model):  # a folded network keeps the mode in which it was folded
        objective = cross_entropy(fold_logits(model), y, targeted=targeted)
    ascent = projected_ascent(objective, x, eps=eps, alpha=alpha, steps=steps, start=start, every=every)
    # Evaluation mode around each step alone: between two iterates the caller has the model in its own mode.
    while True:
        with evaluating(model):
            x_adv = next(ascent, None)
        if x_adv is None:
            return
        yield x_adv


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    targeted: bool = False,
    random_start: bool = False,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run PGD of Madry et al. (2018) and return the last iterate of sign-gradient ascent on the cross-entropy.

    The paper's evaluation attack is `pgd(model, x, y, eps=eps, alpha=0.01, steps=200)`: untargeted, no random start,
    and a step of 0.01 on CIFAR-10 as well. The paper's text gives no step size; this one reproduces its tables.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,): true labels, or targets when `targeted`.
        eps: radius of the l-infinity ball, in the unit of the pixels; a number or (N,).
        alpha: step size, same unit; a number or (N,).
        steps: number of steps.
        targeted: minimise the cross-entropy of y instead of maximising it.
        random_start: start from a uniform point of the ball; needs `generator`.
        start: start from these images instead.
        generator: source of the random start; the global generator is not used.

    Returns:
        x_adv (N, C, H, W), inside the ball and the box [0, 1].

    Raises:
        TypeError, ValueError: see `checks`; also a random start without a generator.

    Source: section 5; `PGD` of Madry et al. (2018).
    """
    if random_start:
        if not isinstance(generator, torch.Generator) or start is not None:
            raise ValueError("random_start needs generator, a torch.Generator, and excludes start.")
        check_images(x)
        check_step_sizes(eps=eps, alpha=alpha, steps=steps)
        start = uniform_start(x, eps, generator)
    attack = {"eps": eps, "alpha": alpha, "steps": steps, "targeted": targeted, "start": start}
    # To the end of the iterator: on CUDA the check for NaN comes after the last iterate.
    iterates = list(pgd_iterates(model, x, y, every=False, **attack))
    if not iterates:  # no steps: the start is the result
        return (x if start is None else start).detach().clamp(*ball(x.detach(), eps))
    return iterates[-1]
