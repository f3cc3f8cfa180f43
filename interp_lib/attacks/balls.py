"""The l-infinity, l2 and l1 balls around an image, within the box [0, 1]; and bisection, image by image."""

from collections.abc import Callable

import torch
from torch import Tensor

NORMS = {"linf": float("inf"), "l2": 2, "l1": 1}


def per_example(value: float | Tensor, x: Tensor, name: str = "eps") -> float | Tensor:
    """Return a perturbation or step size per image as (N, 1, 1, 1); a number stays a number.

    Raises:
        ValueError: a tensor of another shape than () or (N,).
    """
    if not isinstance(value, Tensor) or value.dim() == 0:
        return float(value)
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name} must be a number or a tensor of shape ({len(x)},); got {tuple(value.shape)}.")
    return value.to(x)[:, None, None, None]


def largest_radius(x: Tensor, norm: str) -> float:
    """Return the radius of a ball that contains the whole box: 1 in l-infinity, d^(1/p) for d numbers per image.

    Raises:
        ValueError: a norm other than 'linf', 'l2' and 'l1'.
    """
    if not isinstance(norm, str) or norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}.")
    return float(x[:1].numel() or 1) ** (1 / NORMS[norm])


def perturbation_size(x_adv: Tensor, x: Tensor, norm: str = "linf") -> Tensor:
    """Return ||x' - x||_p for every image: (N,)."""
    largest_radius(x, norm)  # refuses an unknown norm
    return torch.linalg.vector_norm((x_adv - x).flatten(1), NORMS[norm], dim=1)


def bisect(
    rises: Callable[[Tensor], Tensor], first: Tensor, low: Tensor, high: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Find where the answer to a monotone yes-or-no question changes, for many examples in one batch.

    For each example the answer is yes below some value and no above it. The search starts at `first`. After a yes it
    doubles the value, but does not go beyond the middle of the remaining interval; after a no it takes the middle. If
    `first` is the middle, this is plain bisection.

    Args:
        rises: values (N,) -> bool (N,), whether the answer is yes, so that the search goes up.
        first: the first value that is tried, (N,), low <= first <= high.
        low, high: the ends of the interval that is searched, (N,); neither end is tried.
        rounds: number of questions.

    Returns:
        The largest value with a yes and the smallest value with a no, (N,) each; `low` or `high` if there was none.

    Source: the released code searches eps and gamma in this way.
    """
    value, low, high = first.clone(), low.clone(), high.clone()
    for _ in range(rounds):
        up = rises(value)
        low, high = torch.where(up, value, low), torch.where(up, high, value)
        middle = (low + high) / 2
        value = torch.where(up, torch.minimum(2 * value, middle), middle)
    return low, high


def project(moved: Tensor, x: Tensor, eps: float | Tensor, norm: str) -> Tensor:
    """Return the point of ball and box that is nearest to `moved` in Euclidean distance: (N, C, H, W).

    With v = moved - x the nearest point is clip(x + shrink(v), 0, 1). The only unknown is one number s per image, which
    stands for the Lagrange multiplier of the ball: shrink(v) = s v with 0 <= s <= 1 in l2, and
    sign(v) max(|v| - s, 0) with s >= 0 in l1. The norm of the perturbation is monotone in s, so bisection finds s. In
    l-infinity the projections onto ball and box are both a clip.

    Args:
        moved: images of any values, (N, C, H, W).
        x: the centre of the ball, inside the box.
        eps: radius, a number or (N,).
        norm: 'linf', 'l2' or 'l1'.

    Raises:
        ValueError: another norm, or eps of another shape.
    """
    largest_radius(x, norm)
    eps = per_example(eps, x)
    if norm == "linf":
        return torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp_(0, 1)
    v = moved - x
    eps = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(len(x), 1, 1, 1).flatten()
    zero = torch.zeros_like(eps)

    def shrunk(s: Tensor) -> Tensor:
        s = s[:, None, None, None]
        small = v * s if norm == "l2" else v.sign() * (v.abs() - s).clamp_(min=0)
        return (x + small).clamp_(0, 1)

    def inside(s: Tensor) -> Tensor:
        return perturbation_size(shrunk(s), x, norm) <= eps

    # 50 halvings leave an interval far below float32 resolution.
    if norm == "l2":  # a larger s leaves more of the step: take the largest s inside the ball
        free = torch.ones_like(eps)
        s, _ = bisect(inside, free / 2, zero, free, 50)
    else:  # a larger s removes more of the step: take the smallest s inside the ball
        free = zero
        top = v.abs().flatten(1).amax(1) if v[:1].numel() else zero
        _, s = bisect(lambda s: ~inside(s), top / 2, zero, top, 50)
    return shrunk(torch.where(inside(free), free, s))  # `free` leaves v as it is; bisection does not try its ends
