"""Fog: a fractal map, whose random displacements are adversarial, laid over the image."""

import math

import torch
from torch import Tensor, nn

from ..balls import per_example
from .corruption import Corruption, corrupted, uniform

MARGIN = 32  # the map is larger than the image by at least this, in pixels

ROUGHNESS, DECAY = 100.0, 2.0  # size of the displacements of the coarsest level, and its ratio to the next


def sizes(side: int) -> list[int]:
    """Return the sides 1, 2, 4, ... of the levels' displacements, three of each, for images of a side."""
    levels = math.ceil(math.log2(side + MARGIN))
    return [2**level for level in range(levels) for _ in range(3)]


def fog_map(z: Tensor, side: int) -> Tensor:
    """Build the map by midpoint displacement (diamond and square), scaled to [0, 1] image by image: (N, 1, M, M).

    A level doubles the resolution: the middle of four points is their mean plus r (2 z - 1), and so are the middles of
    the sides. The roughness r halves from level to level. The map wraps around.

    Args:
        z: displacements in [0, 1] of all levels, one after the other, (N, sum of squares of `sizes`).
        side: larger side of the images.
    """
    grid, roughness = z.new_zeros(len(z), 1, 1), ROUGHNESS
    sides = sizes(side)
    parts = [part.view(-1, k, k) for part, k in zip(z.split([k * k for k in sides], 1), sides, strict=True)]
    for first in range(0, len(parts), 3):
        middle, across, down = (roughness * (2 * part - 1) for part in parts[first : first + 3])
        accumulated = grid + grid.roll(-1, 1)
        centre = (accumulated + accumulated.roll(-1, 2)) / 4 + middle
        # By 2 and not by 1: so has the public code, and the widely used fog that it comes from.
        row = (centre + centre.roll(2, 1) + grid + grid.roll(-1, 2)) / 4 + across
        column = (centre + centre.roll(2, 2) + grid + grid.roll(-1, 1)) / 4 + down
        pairs = torch.stack([torch.stack([grid, row], 3), torch.stack([column, centre], 3)], 2)  # (N, k, 2, k, 2)
        grid, roughness = pairs.flatten(3).flatten(1, 2), roughness / DECAY
    grid = grid - grid.amin((1, 2), keepdim=True)
    return (grid / grid.amax((1, 2), keepdim=True).clamp(min=torch.finfo(z.dtype).tiny))[:, None]


def fog_corruption(x: Tensor, eps: float | Tensor, alpha: float | Tensor, generator: torch.Generator) -> Corruption:
    """Draw the corruption of `fog` for images x; arguments as there."""
    n, _, height, width = x.shape
    side, thick = max(height, width), per_example(eps, x) / 255
    step = per_example(alpha, x, "alpha")
    step = step.flatten(1) if isinstance(step, Tensor) else step
    brightest = x.amax((2, 3), keepdim=True)
    span = sizes(side)[-1] * 2
    top, left = (span - height) // 2, (span - width) // 2

    def images(z: Tensor) -> Tensor:
        seen = fog_map(z, side)[..., top : top + height, left : left + width]
        # Without any fog and on a black image the quotient would be 0 / 0.
        return (x + thick * seen) / (brightest + thick + torch.finfo(x.dtype).tiny)

    start = uniform((n, sum(k * k for k in sizes(side))), x, generator)
    return Corruption(start, images, lambda z, gradient: (z + step * gradient.sign()).clamp_(0, 1))


def fog(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor = 2048.0,
    alpha: float | Tensor | None = None,
    steps: int = 200,
    targeted: bool = False,
    generator: torch.Generator,
) -> Tensor:
    """Run the Fog attack of Kang et al. (2019) and return x', (N, C, H, W) in [0, 1].

        x' = clip( (x + e F(z)) / (m + e), 0, 1 ),        e = eps / 255,  z in [0, 1]

    F is a fractal map in [0, 1] and m the largest value of each colour of x.

    Args:
        model, x, y, steps, targeted: as `gabor_noise.gabor`.
        eps: strength of the fog where an image has values from 0 to 255; a number or (N,).
        alpha: size of the sign steps of z; default: eps / sqrt(steps), as in the public code. From 1 on every step sets
            z to 0 or 1.
        generator: source of the first z.

    Raises:
        TypeError, ValueError: see `checks`.
        NotANumber: the objective or its gradient is NaN or infinite.

    Source: Kang et al. (2019). The public code scales all maps of a call by their common extremes; here each map by its
    own, so that no image depends on the others. The paper's released code runs Fog too; the paper prints none of it.
    """
    return corrupted(
        model, x, y, fog_corruption, eps=eps, alpha=alpha, steps=steps, targeted=targeted, generator=generator
    )
