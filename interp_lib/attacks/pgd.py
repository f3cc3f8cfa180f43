"""Projected gradient ascent in an l-infinity ball, for any per-example objective; and PGD, its best-known use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_images, check_labels, check_step_sizes
from ..fold import fold_logits

Objective = Callable[[Tensor], Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """`model` in evaluation mode, every module's own mode restored at the end, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def input_gradient(objective: Objective, x: Tensor) -> Tensor:
    """The derivative of sum_n objective(x)_n with respect to x, (N, C, H, W).

    Only x is differentiated: weights get no gradient, computed or stored, whatever their flags say.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(objective(x).sum(), x)[0]


def uniform_start(x: Tensor, eps: float | Tensor, generator: torch.Generator) -> Tensor:
    """x + u clipped to [0, 1], u uniform in [-eps, eps], drawn on the generator's device: (N, C, H, W)."""
    noise = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    return (x + (2 * noise - 1) * per_example(eps, x)).clamp_(0, 1)


def per_example(eps: float | Tensor, x: Tensor) -> float | Tensor:
    """A perturbation size for every image as (N, 1, 1, 1); a number stays a number.

    Raises:
        ValueError: a tensor of any shape but () or (N,).
    """
    if not isinstance(eps, Tensor) or eps.dim() == 0:
        return float(eps)
    if eps.shape != x.shape[:1]:
        raise ValueError(f"eps must be a number or a tensor of shape ({len(x)},); got {tuple(eps.shape)}.")
    return eps.to(x)[:, None, None, None]


def ball(x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The l-infinity ball around x, cut by the box: its lowest and its highest corner, each (N, C, H, W)."""
    eps = per_example(eps, x)
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


def projected_ascent(
    objective: Objective,
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float,
    steps: int,
    start: Tensor | None = None,
) -> Iterator[Tensor]:
    """Climbs an objective inside the ball and the box, and yields every iterate.

        x^{k+1} = clip( x^k + alpha * sign(grad objective(x^k)),  max(x - eps, 0),  min(x + eps, 1) )

    Each image is its own problem: the objectives are summed, so no image sees another's gradient.

    Args:
        objective: images (N, C, H, W) -> what to climb, (N,).
        x: the centre of the ball, (N, C, H, W) in [0, 1].
        eps: radius in the unit of the pixels, a number or (N,).
        alpha: step size, same unit.
        steps: number of steps.
        start: the first iterate, of the shape and dtype of x, projected to ball and box; x itself where none is
            given.

    Yields:
        x^1, ..., x^steps, each (N, C, H, W), detached.

    Raises:
        TypeError, ValueError: see `checks`; also a start of another shape or dtype.
    """
    check_images(x)
    check_step_sizes(eps=eps, alpha=alpha, steps=steps)
    if start is not None and (start.shape, start.dtype) != (x.shape, x.dtype):
        came = f"{tuple(start.shape)} of {start.dtype}"
        raise ValueError(f"start must be like x, {tuple(x.shape)} of {x.dtype}; got {came}.")
    x = x.detach()
    low, high = ball(x, eps)
    x_adv = x if start is None else start.detach().clamp(low, high)
    for _ in range(int(steps)):
        step = input_gradient(objective, x_adv).sign_()
        x_adv = step.mul_(alpha).add_(x_adv).clamp_(low, high)
        yield x_adv


def cross_entropy(logits: Callable[[Tensor], Tensor], y: Tensor, *, targeted: bool = False) -> Objective:
    """The objective of PGD: -log softmax(f(x))_y, or its negative when y is a target to reach. (N,)."""
    sign = -1.0 if targeted else 1.0
    return lambda x: sign * F.cross_entropy(logits(x), y, reduction="none")


def pgd_iterates(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    alpha: float,
    steps: int,
    targeted: bool = False,
    start: Tensor | None = None,
) -> Iterator[Tensor]:
    """Every iterate of `pgd`: one run serves all numbers of steps. Arguments as there."""
    check_images(x)
    check_labels(y, len(x), getattr(model, "num_classes", None))
    if hasattr(model, "check_input"):
        model.check_input(x)
    objective = cross_entropy(fold_logits(model), y, targeted=targeted)
    ascent = projected_ascent(objective, x, eps=eps, alpha=alpha, steps=steps, start=start)
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
    alpha: float,
    steps: int,
    targeted: bool = False,
    random_start: bool = False,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """PGD of Madry et al. (2018): the last iterate of sign-gradient ascent on the cross-entropy.

    The paper's evaluation attack is `pgd(model, x, y, eps=eps, alpha=0.01, steps=200)`: untargeted, no random
    start, and a step of 0.01 on CIFAR-10 as well (its text gives no step size; this one reproduces its tables).

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,): true labels, or targets when `targeted`.
        eps: radius of the l-infinity ball, in the unit of the pixels; a number or (N,).
        alpha: step size, same unit.
        steps: number of steps.
        targeted: descend the cross-entropy of y in place of climbing it.
        random_start: start from a uniform point of the ball; needs `generator`.
        start: start from these images instead.
        generator: source of the random start; the global generator is left alone.

    Returns:
        x_adv (N, C, H, W), inside ball and box.

    Raises:
        TypeError, ValueError: see `checks`; also a random start without a generator.

    Source: section 5; `PGD` of Madry et al. (2018).
    """
    if random_start:
        if generator is None or start is not None:
            raise ValueError("random_start needs a torch.Generator, and excludes start.")
        check_images(x)
        start = uniform_start(x, eps, generator)
    x_adv = None
    for x_adv in pgd_iterates(model, x, y, eps=eps, alpha=alpha, steps=steps, targeted=targeted, start=start):
        pass
    if x_adv is None:  # no steps: the start is the result
        return (x if start is None else start).detach().clamp(*ball(x.detach(), eps))
    return x_adv
