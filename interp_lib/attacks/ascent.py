"""Projected gradient ascent in a ball, for any per-example objective."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_batch, check_images, check_numbers, check_step_sizes
from ..fast.objective import Climbing, Head, climbing
from .balls import largest_radius, per_example, project

Objective = Callable[[Tensor], Tensor]

Direction = Callable[[Tensor], Tensor]


def input_gradient(objective: Objective, x: Tensor) -> Tensor:
    """Return the derivative of sum_n objective(x)_n with respect to x, (N, C, H, W), safe to modify in place.

    Only x is differentiated: no gradient of the weights is computed or stored, whatever their `requires_grad`.
    """
    return value_and_gradient(objective, x)[1]


def value_and_gradient(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return objective(x), (N,), and `input_gradient`, by the objective's compiled form if it has one."""
    if isinstance(objective, Climbing) and objective.takes(x):
        return objective.value_and_gradient(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = objective(x)
        gradient = torch.autograd.grad(value.sum(), x)[0]
    # The gradient of a mean is one number expanded with stride 0; copy it, since steps are taken in place.
    return value.detach(), gradient.clone() if 0 in gradient.stride() else gradient


def uniform_start(x: Tensor, eps: float | Tensor, generator: torch.Generator) -> Tensor:
    """Return x + u clipped to [0, 1], u uniform in [-eps, eps], drawn on the generator's device: (N, C, H, W)."""
    return shifted(
        x, eps, torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    )


def shifted(x: Tensor, eps: float | Tensor, noise: Tensor) -> Tensor:
    """Return x + (2 noise - 1) eps clipped to [0, 1]: `uniform_start` with given noise in [0, 1]."""
    return (x + (2 * noise - 1) * per_example(eps, x)).clamp_(0, 1)


def ball(x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and the upper corner, each (N, C, H, W), of the l-infinity ball around x within the box."""
    eps = per_example(eps, x)
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


def check_start(start: Tensor | None, x: Tensor) -> None:
    """Refuse a start that does not have the shape and dtype of x, or is not finite.

    Raises:
        ValueError: names both shapes and dtypes.
    """
    if start is None:
        return
    if not isinstance(start, Tensor) or (start.shape, start.dtype) != (x.shape, x.dtype):
        came = f"{tuple(start.shape)} of {start.dtype}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start must be like x, {tuple(x.shape)} of {x.dtype}; got {came}.")
    if not start.isfinite().all():
        raise ValueError("start must be finite; it holds NaN or infinity.")


def check_ascent(
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    start: Tensor | None = None,
    norm: str = "linf",
) -> None:
    """Refuse a ball, steps or a start that do not suit the images x, which are checked already.

    Raises:
        TypeError, ValueError: see `checks.check_step_sizes`, `balls.largest_radius` and `check_start`.
    """
    check_step_sizes(eps=eps, alpha=alpha, steps=steps, largest=largest_radius(x, norm))
    check_start(start, x)


def check_attack(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, **ascent) -> None:
    """Check the arguments of an attack at its public function; the steps inside check nothing.

    Args:
        ascent: as `check_ascent`.

    Raises:
        TypeError, ValueError: see `checks` and `check_ascent`.
    """
    check_batch(model, x, y)
    check_ascent(x, **ascent)


def unit_length(gradient: Tensor) -> Tensor:
    """Return g / ||g||_2, image by image; 0 where g is 0."""
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient / torch.where(length > 0, length, 1)


@dataclass(frozen=True)
class _Clipped:
    scale: float

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient.mul_(self.scale).clamp_(-1, 1)


def clipped(scale: float) -> Direction:
    """Return g -> clip(scale * g, -1, 1): near the sign for a large scale, proportional to g for a small one.

    The released ISA takes 1000 times the gradient of a batch mean: scale = 1000 / N for N images in its batch. Since
    `scale` is a number here, the step does not depend on the other images in the batch.

    Source: the released code of Table 1.
    """
    return _Clipped(scale)


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
    every: bool = True,
) -> Iterator[Tensor]:
    """Maximise an objective inside the ball and the box, and yield every iterate.

        x^{k+1} = P( x^k + alpha * s(grad objective(x^k)) )

    P is the projection onto ball and box. In l-infinity, s is the sign and
    P = clip(., max(x - eps, 0), min(x + eps, 1)). In l2 and l1, s scales the gradient to unit Euclidean length, and P
    is `balls.project`.

    Each image is its own problem: the objectives are summed, so that no image influences the gradient of another.

    Args:
        objective: images (N, C, H, W) -> values to maximise, (N,).
        x: the centre of the ball, (N, C, H, W) in [0, 1].
        eps: radius in the unit of the pixels, a number or (N,).
        alpha: step size, same unit, a number or (N,).
        steps: number of steps.
        start: the first iterate, of the shape and dtype of x, which is projected onto ball and box; None for x itself.
        direction: replaces s: gradients (N, C, H, W) -> steps of the same shape; may work in place. It is called
            once a step, in order, so that a function made for one run may keep state, as in `momentum`.
        norm: 'linf', 'l2' or 'l1'.
        every: yield all iterates; otherwise only the last one, which is faster if the objective is compiled.

    Yields:
        x^1, ..., x^steps, each (N, C, H, W), detached.

    Raises:
        TypeError, ValueError: see `checks`; also a start of another shape or dtype, or another norm.
        NotANumber: the objective or its gradient is NaN or infinite; names the first such image.
    """
    check_images(x)
    ascent: dict[str, Any] = {"eps": eps, "alpha": alpha, "steps": steps, "start": start, "norm": norm}
    check_ascent(x, **ascent)
    return _projected_ascent(objective, x, **ascent, direction=direction, every=every)


def _projected_ascent(
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
    """`projected_ascent` with arguments that are checked already.

    Args:
        watched: check for NaN at every step, on CUDA after the last one. False for runs that are trained together:
            these find NaN in their losses, since one run that diverges must not end the others.
    """
    x, alpha = x.detach(), per_example(alpha, x, "alpha")
    direction = direction or (torch.Tensor.sign_ if norm == "linf" else unit_length)
    if norm == "linf":
        low, high = ball(x, eps)
        onto = lambda moved: moved.clamp_(low, high)
    else:
        onto = lambda moved: project(moved, x, eps, norm)
    signs, steps = direction is torch.Tensor.sign_, int(steps)
    x_adv = x if start is None else onto(start.detach().clone())
    slope = direction.scale if isinstance(direction, _Clipped) else 0
    if norm == "linf" and (signs or slope) and isinstance(objective, Climbing) and objective.takes(x_adv):
        for _ in range(steps if every else min(steps, 1)):  # without `every`, one call takes all steps
            x_adv, sound = objective.climb(x_adv, low, high, alpha, 1 if every else steps, slope)
            if watched:
                check_numbers(torch.where(sound, 0.0, torch.nan), "the objective of the attack, or its gradient,")
            yield x_adv
        return

    def move(x_adv: Tensor, gradient: Tensor) -> Tensor:
        step = direction(gradient)
        if signs and not isinstance(alpha, Tensor):  # sign times a number is exact: fuse both passes
            return onto(torch.add(x_adv, step, alpha=alpha))
        return onto(step.mul_(alpha).add_(x_adv))

    yield from iterates(lambda x_adv: value_and_gradient(objective, x_adv), x_adv, move, steps, watched, every)


def iterates(
    slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    z: Tensor,
    move: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    watched: bool = True,
    every: bool = True,
) -> Iterator[Tensor]:
    """Yield z^1, ..., z^steps with z^{k+1} = move(z^k, gradient at z^k): the loop of every attack.

    Args:
        slope: z -> the values (N,) to maximise and their derivative, of the shape of z; `move` may change it in place.
        z: the first iterate, one row per image.
        move: (z, gradient) -> the next iterate.
        watched, every: as in `_projected_ascent`.

    Raises:
        NotANumber: as `projected_ascent`.
    """
    numbers = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for step_number in range(1, steps + 1):
        value, gradient = slope(z)
        if watched:
            # 0 while everything is finite, and NaN ever after. The iterates hide a NaN: its sign step moves nothing.
            numbers = numbers + 0 * value + 0 * gradient.flatten(1).sum(1)
        if watched and not z.is_cuda:  # on CUDA reading a value waits for the GPU: there the check comes at the end
            check_numbers(numbers, "the objective of the attack, or its gradient,")
        z = move(z, gradient)
        if every or step_number == steps:
            yield z
    if watched:
        check_numbers(numbers, "the objective of the attack, or its gradient,")


def ascend(objective: Objective, x: Tensor, *, direction: Direction | None = None, **ascent) -> Tensor:
    """Return the last iterate of `projected_ascent`, (N, C, H, W); with steps = 0 the projected start.

    Arguments, Raises: as `projected_ascent`.
    """
    check_images(x)
    check_ascent(x, **ascent)
    return _ascend(objective, x, direction=direction, **ascent)


def _ascend(objective: Objective, x: Tensor, *, alpha: float | Tensor, steps: int, **ascent) -> Tensor:
    """`ascend` with arguments that are checked already; further arguments as `_projected_ascent`."""
    if steps == 0:  # one step of length 0 projects the start
        alpha, steps = 0.0, 1
    (x_adv,) = _projected_ascent(objective, x, alpha=alpha, steps=steps, every=False, **ascent)
    return x_adv


def cross_entropy(
    logits: Callable[[Tensor], Tensor], y: Tensor, *, targeted: bool = False, head: Head | None = None
) -> Objective:
    """Return the objective of PGD, images -> (N,): -log softmax(f(x))_y, or its negative when y is a target.

    Args:
        head: `Folded.head` of the fold that `logits` belongs to, if there is one, for the compiled form.
    """
    sign = -1.0 if targeted else 1.0
    plain = lambda x: sign * F.cross_entropy(logits(x), y, reduction="none")
    return climbing(plain, head, "cross-entropy", y=y, cross_entropy=sign)
