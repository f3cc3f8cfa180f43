"""Elastic: pixels move along a smooth adversarial flow."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..balls import per_example
from .corruption import Corruption, corrupted, uniform

WIDTH = 3 / 224  # standard deviation of the smoothing, as a share of the side

FILTERS = (5, 25)  # sides of the smoothing filter: for small images, and from `LARGE` pixels on

LARGE = 100


def gaussian(side: int, like: Tensor) -> Tensor:
    """Return a normalised Gaussian filter for images of a side, (k, k), k odd."""
    k = FILTERS[side >= LARGE]
    at = torch.arange(k).to(like) - k // 2
    bell = (-0.5 * (at / (WIDTH * side)) ** 2).exp()
    return bell[:, None] * bell / bell.sum() ** 2


def warped(x: Tensor, z: Tensor, smoothing: Tensor) -> Tensor:
    """Move pixels by a smoothed flow: x'(p) = x(p + (g * z)(p)), bilinear, 0 outside the image: (N, C, H, W).

    Args:
        z: flow in pixels, (N, 2, H, W): columns and rows.
        smoothing: g, (k, k); the flow is mirrored at the edges.
    """
    height, width = x.shape[2:]
    half = len(smoothing) // 2
    flow = F.pad(z, (half,) * 4, mode="reflect").flatten(0, 1)[:, None]
    flow = F.conv2d(flow, smoothing[None, None]).view_as(z)
    columns, rows = (torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in (width, height))
    at = torch.stack([columns + flow[:, 0] * 2 / width, rows[:, None] + flow[:, 1] * 2 / height], 3)
    return F.grid_sample(x, at, align_corners=True)


def elastic_corruption(x: Tensor, eps: float | Tensor, alpha: float | Tensor, generator: torch.Generator) -> Corruption:
    """Draw the corruption of `elastic` for images x; arguments as there."""
    n, _, height, width = x.shape
    size, step = per_example(eps, x), per_example(alpha, x, "alpha")
    smoothing = gaussian(max(height, width), x)

    def move(z: Tensor, gradient: Tensor) -> Tensor:
        return (z + step * gradient.sign()).clamp_(-size, size)

    start = size * (2 * uniform((n, 2, height, width), x, generator) - 1)
    return Corruption(start, lambda z: warped(x, z, smoothing), move)


def elastic(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor = 1.0,
    alpha: float | Tensor | None = None,
    steps: int = 200,
    targeted: bool = False,
    generator: torch.Generator,
) -> Tensor:
    """Run the Elastic attack of Kang et al. (2019) and return x', (N, C, H, W) in [0, 1].

        x'(p) = x(p + (g * z)(p)),        ||z||_inf <= eps

    g is a Gaussian of 3/224 of the side.

    Args:
        model, x, y, steps, targeted: as `gabor_noise.gabor`; the sides are 4 pixels or more.
        eps: largest flow before smoothing, in pixels; a number or (N,).
        alpha: size of the sign steps of z, in pixels; default: eps / sqrt(steps).
        generator: source of the first z, uniform.

    Raises:
        TypeError, ValueError: see `checks`.
        NotANumber: the objective or its gradient is NaN or infinite.

    Source: Kang et al. (2019), after Xiao et al. (2018); in none of the paper's tables. 3/224 of the side and filters
    of 5 and 25 pixels are the public code's for 32 and 224 pixels.
    """
    return corrupted(
        model, x, y, elastic_corruption, eps=eps, alpha=alpha, steps=steps, targeted=targeted, generator=generator
    )
