"""PGD of Madry et al. (2018): projected sign steps on the cross-entropy."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..fast.fold import fold_for_attack
from ..models.predict import evaluating
from .ascent import _projected_ascent, ball, check_attack, cross_entropy, uniform_start


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
) -> Iterator[Tensor]:
    """Yield every iterate of `pgd`, so that one run gives the results for all numbers of steps.

    Arguments, Raises: as `pgd`.
    """
    ascent = {"eps": eps, "alpha": alpha, "steps": steps, "start": start}
    check_attack(model, x, y, **ascent)
    return _iterates(model, x, y, targeted, **ascent)


def _iterates(model: nn.Module, x: Tensor, y: Tensor, targeted: bool, **ascent) -> Iterator[Tensor]:
    with evaluating(model):  # a folded network keeps the mode in which it was folded
        folded = fold_for_attack(model)
    objective = cross_entropy(folded.logits, y, targeted=targeted, head=folded.head)
    iterates = _projected_ascent(objective, x, **ascent)
    # Evaluation mode around each step alone: between two iterates the caller has the model in its own mode.
    while True:
        with evaluating(model):
            x_adv = next(iterates, None)
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
    check_attack(model, x, y, eps=eps, alpha=alpha, steps=steps, start=start)
    if random_start:
        if not isinstance(generator, torch.Generator) or start is not None:
            raise ValueError("random_start needs generator, a torch.Generator, and excludes start.")
        start = uniform_start(x, eps, generator)
    # To the end of the iterator: on CUDA the check for NaN comes after the last iterate.
    iterates = list(_iterates(model, x, y, targeted, eps=eps, alpha=alpha, steps=steps, start=start, every=False))
    if not iterates:  # no steps: the start is the result
        return (x if start is None else start).detach().clamp(*ball(x.detach(), eps))
    return iterates[-1]
