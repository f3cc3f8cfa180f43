"""Snow: flakes of adversarial brightness on a grid, drawn as short streaks, over an image that is greyed a little."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..balls import per_example
from .corruption import Corruption, corrupted, uniform

SIDE, MIDDLE = 13, 6  # of a streak's kernel, in pixels

GRID = 4  # pixels from one flake of a layer to the next

# Rows and columns by which the grids of the seven layers are shifted.
SHIFTS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0))

BUDGET, BLOCK = 0.2, 8  # mean brightness of a layer's flakes in blocks of 8 x 8 flakes

DISCOLOUR = 0.25

GREY = (0.2126, 0.7152, 0.0722)

TAPS = 2  # a flake reaches pixels up to two cells of the grid away


def _streaks() -> Tensor:
    """Return the 75 possible streaks, (75, 13, 13): for 5 x 5 end points and widths 1, 3, 5, through the middle.

    A streak is an antialiased segment from the middle to a point 2 to 6 pixels down and right, and its mirror image
    through the middle.
    """
    position = torch.arange(SIDE, dtype=torch.float64) - MIDDLE
    streaks = []
    for down in range(2, MIDDLE + 1):
        for right in range(2, MIDDLE + 1):
            for width in (1, 3, 5):
                long, short = max(down, right), min(down, right)
                half = width * math.sqrt(1 + short / long) / 4
                line = position * short / long  # the short coordinate as a function of the long one
                value = (1 + half - (position[:, None] - line).abs()).clamp(0, 1)  # rows: short, columns: long
                value = value * (position[:, None] >= 0) * ((position >= 0) & (position <= long))
                value = value if right >= down else value.T
                value[: MIDDLE + 1, : MIDDLE + 1] = value.flip(0, 1)[: MIDDLE + 1, : MIDDLE + 1].clone()
                streaks.append(value)
    return torch.stack(streaks).float()


def kernels(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the streaks of seven layers for each of n images, (n, 7, 13, 13), each blurred a little.

    Widths 1, 3 and 5 have probabilities 0.6, 0.3 and 0.1, the end points are uniform. With probability 1/2 all streaks
    of an image are mirrored. The blur is Gaussian, 3 x 3, of width 0.41 to 0.6.
    """
    layers = len(SHIFTS)
    end = (25 * uniform((n, layers), like, generator)).long()
    wide = torch.bucketize(uniform((n, layers), like, generator), torch.tensor([0.6, 0.9]).to(like))
    streaks = _streaks().to(like)[3 * end + wide]
    mirrored = uniform((n, 1, 1, 1), like, generator) < 0.5
    streaks = torch.where(mirrored, streaks.flip(3), streaks)
    width = 0.41 + 0.19 * uniform((n, layers, 1), like, generator)
    side = (-0.5 / width**2).exp() / (1 + 2 * (-0.5 / width**2).exp())
    bell = torch.cat([side, 1 - 2 * side, side], 2)
    near = F.pad(streaks, (1, 1, 1, 1))
    rows = sum(bell[:, :, k, None, None] * near[:, :, k : k + SIDE] for k in range(3))
    return sum(bell[:, :, k, None, None] * rows[..., k : k + SIDE] for k in range(3))


def phases(kernel: Tensor) -> Tensor:
    """Arrange kernels (n, 7, 13, 13) as a convolution from the flakes around a cell to its pixels, (16 n, 7, 5, 5).

    Pixel (4 R + i, 4 C + j) gets k[4 t + a - i + 6, 4 s + b - j + 6] from the flake of cell (R + t, C + s) of a layer
    shifted by (a, b), for t, s = -2 ... 2; outside its 13 x 13 a kernel is 0.
    """
    edge = GRID * TAPS + GRID - 1 - MIDDLE
    wide = F.pad(kernel, (edge, edge, edge, edge))
    near, cell = torch.arange(-TAPS, TAPS + 1), torch.arange(GRID)
    layers = []
    for layer, (down, right) in enumerate(SHIFTS):
        row, column = (GRID * near + shift - cell[:, None] + MIDDLE + edge for shift in (down, right))  # (pixel, tap)
        at = row[:, None, :, None].to(kernel.device), column[None, :, None, :].to(kernel.device)
        layers.append(wide[:, layer][:, *at].flatten(1, 2))  # (n, 16, t, s)
    return torch.stack(layers, 2).flatten(0, 1).contiguous()


def fallen(brightness: Tensor, weight: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the snow (N, 1, H, W): every flake's brightness to the fourth power times its streak, summed.

    Args:
        brightness: (N, 7, h, w), one flake of each layer for every 4 x 4 pixels.
        weight: as `phases`.
        shape: H, W.
    """
    n = len(brightness)
    flakes = brightness.square().square().flatten(0, 1)[None]
    pixels = F.conv2d(flakes, weight, padding=TAPS, groups=n)[0].unflatten(0, (n, GRID * GRID))
    return F.pixel_shuffle(pixels, GRID)[..., : shape[0], : shape[1]]


def within_budget(brightness: Tensor) -> Tensor:
    """Clip brightness to [1e-9, 1], and scale blocks of 8 x 8 flakes of a layer down to a mean of at most 0.2."""
    z = brightness.clamp(1e-9, 1)
    mean = F.avg_pool2d(z, BLOCK, ceil_mode=True)
    scale = BUDGET / mean.clamp_(min=BUDGET)
    for axis in (2, 3):
        scale = scale.repeat_interleave(BLOCK, axis)
    return z.mul_(scale[..., : z.shape[2], : z.shape[3]])


def snow_corruption(
    x: Tensor, eps: float | Tensor, alpha: float | Tensor, generator: torch.Generator, *, as_released: bool = False
) -> Corruption:
    """Draw the corruption of `snow` for images x; arguments as there."""
    n, colours, height, width = x.shape
    size, step = per_example(eps, x), per_example(alpha, x, "alpha")
    weight = phases(kernels(n, x, generator))
    cells = -(-height // GRID), -(-width // GRID)
    start = (-uniform((n, len(SHIFTS), *cells), x, generator) / BUDGET).exp()
    weights = torch.tensor(GREY if colours == 3 else [1 / colours] * colours).to(x)
    grey = (x * weights[:, None, None]).sum(1, keepdim=True)
    pale = (1 - DISCOLOUR) * x + DISCOLOUR * torch.maximum(x, 1.5 * grey + 0.5)

    def move(z: Tensor, gradient: Tensor) -> Tensor:
        if as_released:  # times z: the public code takes the derivative of z^4 where z is clipped, so above 0
            return within_budget(z).add_(step * (gradient * z).sign())
        return within_budget(z + step * gradient.sign())

    return Corruption(
        start if as_released else within_budget(start),
        lambda z: pale + size * fallen(z, weight, (height, width)),
        move,
    )


def snow(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor = 2.0,
    alpha: float | Tensor | None = None,
    steps: int = 200,
    targeted: bool = False,
    generator: torch.Generator,
    as_released: bool = False,
) -> Tensor:
    """Run the Snow attack of Kang et al. (2019) and return x', (N, C, H, W) in [0, 1].

        x' = clip(0.75 x + 0.25 max(x, 1.5 grey(x) + 0.5) + eps * sum_l streak_l * z_l^4, 0, 1)

    z is the brightness of flakes in [0, 1]: seven layers l with one flake for every 4 x 4 pixels. The mean brightness
    of a layer stays at or below 0.2 in blocks of 8 x 8 flakes.

    Args:
        model, x, y, steps, targeted: as `gabor_noise.gabor`.
        eps: brightness of the snow, in the unit of the pixels, 0 to 1; a number or (N,).
        alpha: size of the sign steps of z; default: eps / sqrt(steps), as in the public code.
        generator: source of streaks and first z.
        as_released: project before a step and not after it, so that the images on which gradients are taken, and the
            result, exceed the budget by one step. So does the public code, and so it is in Table 5.

    Raises:
        TypeError, ValueError: see `checks`.
        NotANumber: the objective or its gradient is NaN or infinite.

    Source: Kang et al. (2019). In the public code the images of one call share their seven streaks; here each image has
    its own, so that no image depends on the others. A grey image is its own luminance. Sides that are no multiple of 32
    end in smaller blocks.
    """
    return corrupted(
        model,
        x,
        y,
        partial(snow_corruption, as_released=as_released),
        eps=eps,
        alpha=alpha,
        steps=steps,
        targeted=targeted,
        generator=generator,
    )
