"""Projected gradient ascent in a ball, for any per-example objective."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import capturing, check_images, check_numbers, check_step_sizes
from ..fast.objective import Climbing, climbing
from .balls import largest_radius, per_example, project

Objective = Callable[[Tensor], Tensor]

Direction = Callable[[Tensor], Tensor]


def input_gradient(objective: Objective, x: Tensor) -> Tensor:
    """The derivative of sum_n objective(x)_n with respect to x, (N, C, H, W), to be written to.

    Only x is differentiated: weights get no gradient, computed or stored, whatever their flags say.
    """
    return _value_and_gradient(objective, x)[1]


def _value_and_gradient(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(objective, Climbing) and objective.takes(x):
        return objective.value_and_gradient(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = objective(x)
        gradient = torch.autograd.grad(value.sum(), x)[0]
    # That of a mean is one number, seen many times.
    return value.detach(), gradient.clone() if 0 in gradient.stride() else gradient


def uniform_start(x: Tensor, eps: float | Tensor, generator: torch.Generator) -> Tensor:
    """x + u clipped to [0, 1], u uniform in [-eps, eps], drawn on the generator's device: (N, C, H, W)."""
    return shifted(
        x, eps, torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    )


def shifted(x: Tensor, eps: float | Tensor, noise: Tensor) -> Tensor:
    """x + (2 noise - 1) eps clipped to [0, 1]: `uniform_start` from noise in [0, 1] that is there already."""
    return (x + (2 * noise - 1) * per_example(eps, x)).clamp_(0, 1)


def ball(x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The l-infinity ball around x, cut by the box: its lowest and its highest corner, each (N, C, H, W)."""
    eps = per_example(eps, x)
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


def check_start(start: Tensor | None, x: Tensor) -> None:
    """Refuse a start that is not of the shape and dtype of x, or not finite.

    Raises:
        ValueError: with both shapes and dtypes.
    """
    if start is None:
        return
    if not isinstance(start, Tensor) or (start.shape, start.dtype) != (x.shape, x.dtype):
        came = f"{tuple(start.shape)} of {start.dtype}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start must be like x, {tuple(x.shape)} of {x.dtype}; got {came}.")
    if not capturing() and not start.isfinite().all():
        raise ValueError("start must be finite; it holds NaN or infinity.")


def unit_length(gradient: Tensor) -> Tensor:
    """g / ||g||_2, image by image; 0 where g is 0."""
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient / torch.where(length > 0, length, 1)


def clipped(scale: float) -> Direction:
    """g -> clip(scale * g, -1, 1): between the sign, for a large scale, and the gradient itself.

    The released ISA has 1000 times the gradient of a batch mean: for N images in its batch, scale = 1000 / N. Given
    as a number, it does not depend on who shares the batch.

    Source: the released code of Table 1.
    """
    return lambda gradient: gradient.mul_(scale).clamp_(-1, 1)


def projected_ascent(
    objective: Objective,
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    start: Tensor | None = None,
    direction: Direction | None = None,
    norm: str = "linf",
    watched: bool = True,
    every: bool = True,
) -> Iterator[Tensor]:
    """Climbs an objective inside the ball and the box, and yields every iterate.

        x^{k+1} = P( x^k + alpha * s(grad objective(x^k)) )

    P is the projection on ball and box. In l-infinity s is the sign and P = clip(., max(x - eps, 0), min(x + eps, 1));
    in l2 and l1 s is the gradient at unit Euclidean length, see `balls.project` for P.

    Each image is its own problem: the objectives are summed, so no image sees another's gradient.

    Args:
        objective: images (N, C, H, W) -> what to climb, (N,).
        x: the centre of the ball, (N, C, H, W) in [0, 1].
        eps: radius in the unit of the pixels, a number or (N,).
        alpha: step size, same unit, a number or (N,).
        steps: number of steps.
        start: the first iterate, of the shape and dtype of x, projected to ball and box; x itself where none is
            given.
        direction: another s: gradients (N, C, H, W) -> steps of the same shape; may work in place.
        norm: 'linf', 'l2' or 'l1'.
        watched: look for NaN at every step. Runs that are trained together find it in their losses: one that diverges
            must not end the others.
        every: yield all iterates; else the last alone, which takes less time where the objective is compiled.

    Yields:
        x^1, ..., x^steps, each (N, C, H, W), detached.

    Raises:
        TypeError, ValueError: see `checks`; also a start of another shape or dtype, or another norm.
        NotANumber: the objective or its gradient is NaN or infinite; names the first such image.
    """
    check_images(x)
    check_step_sizes(eps=eps, alpha=alpha, steps=steps, largest=largest_radius(x, norm))
    check_start(start, x)
    x, alpha = x.detach(), per_example(alpha, x, "alpha")
    direction = direction or (torch.Tensor.sign_ if norm == "linf" else unit_length)
    if norm == "linf":
        low, high = ball(x, eps)
        onto = lambda moved: moved.clamp_(low, high)
    else:
        onto = lambda moved: project(moved, x, eps, norm)
    signs = direction is torch.Tensor.sign_ and not isinstance(alpha, Tensor)
    x_adv, steps = x if start is None else onto(start.detach().clone()), int(steps)
    if (
        norm == "linf"
        and direction is torch.Tensor.sign_
        and isinstance(objective, Climbing)
        and objective.takes(x_adv)
    ):
        for _ in range(steps if every else min(steps, 1)):
            x_adv, sound = objective.climb(x_adv, low, high, alpha, 1 if every else steps)
            if watched:
                check_numbers(torch.where(sound, 0.0, torch.nan), "the objective of the attack, or its gradient,")
            yield x_adv
        return
    numbers = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for step_number in range(1, steps + 1):
        value, gradient = _value_and_gradient(objective, x_adv)
        if watched:
            # 0 an image as long as all is finite, NaN from then on: a sign step would take NaN for "do not move".
            numbers = numbers + 0 * value + 0 * gradient.flatten(1).sum(1)
        if watched and not x.is_cuda:  # there a look costs a wait: only at the end
            check_numbers(numbers, "the objective of the attack, or its gradient,")
        step = direction(gradient)
        if signs and not isinstance(alpha, Tensor):  # times a number it is exact, so that one pass does for two
            x_adv = onto(torch.add(x_adv, step, alpha=alpha))
        else:
            x_adv = onto(step.mul_(alpha).add_(x_adv))
        if every or step_number == steps:
            yield x_adv
    if watched and not capturing():
        check_numbers(numbers, "the objective of the attack, or its gradient,")


def ascend(objective: Objective, x: Tensor, *, alpha: float | Tensor, steps: int, **ascent) -> Tensor:
    """The last iterate of `projected_ascent`, (N, C, H, W); without steps the start, projected. Arguments as there."""
    if steps == 0:  # a step that moves nothing
        alpha, steps = 0.0, 1
    (x_adv,) = projected_ascent(objective, x, alpha=alpha, steps=steps, every=False, **ascent)
    return x_adv


def cross_entropy(logits: Callable[[Tensor], Tensor], y: Tensor, *, targeted: bool = False) -> Objective:
    """The objective of PGD: -log softmax(f(x))_y, or its negative when y is a target to reach. (N,)."""
    sign = -1.0 if targeted else 1.0
    plain = lambda x: sign * F.cross_entropy(logits(x), y, reduction="none")
    return climbing(plain, getattr(logits, "head", None), "cross-entropy", y=y, cross_entropy=sign)
