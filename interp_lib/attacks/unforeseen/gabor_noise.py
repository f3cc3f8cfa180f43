"""Gabor noise: a sparse image of spikes, convolved with a random oriented wave, added to the image."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from ..balls import per_example
from .corruption import Corruption, corrupted, uniform

SIDE = 23  # of the kernel, in pixels

SHARE = 1 / 14  # of the pixels that hold a spike

SIDES = 10  # largest number of directions of a kernel

FLAT = 0.001  # bounds the amplification of what is near the mean


def kernels(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw n Gabor kernels, (n, 23, 23).

        k(u) = exp(-|u|^2 / (2 s^2)) * sum_j cos(2 pi f <u, d_j>)

    u runs over [-1/2, 1/2]^2. The d_j are 1 to 10 directions spread evenly over a half turn, s is 0.101 to 0.401 and
    f is 3 to 5.75 waves.
    """
    sides = 1 + (SIDES * uniform((n, 1), like, generator)).floor()
    width = 0.101 + 0.3 * uniform((n, 1, 1), like, generator)
    waves = 3 + (SIDE / 4 - 3) * uniform((n, 1, 1, 1), like, generator)
    number = torch.arange(SIDES, dtype=like.dtype, device=like.device)
    angle = math.pi * (uniform((n, 1), like, generator) + number / sides)
    at = torch.linspace(-0.5, 0.5, SIDE, dtype=like.dtype, device=like.device)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    along = columns * angle.cos()[:, :, None, None] + rows * angle.sin()[:, :, None, None]
    wave = (2 * math.pi * waves * along).cos() * (number < sides)[:, :, None, None]
    return (-(rows**2 + columns**2) / (2 * width**2)).exp() * wave.sum(1)


class Waves(torch.autograd.Function):
    """The convolution of spikes (N, 1, H, W) with their kernels, of the same size, by Fourier transforms.

    The kernels equal their mirror images, so that the convolution is its own transpose: backward is forward.
    """

    @staticmethod
    def forward(ctx, spikes: Tensor, spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(spectrum)
        ctx.shape, half = shape, SIDE // 2
        full = torch.fft.irfft2(torch.fft.rfft2(spikes, s=shape) * spectrum, s=shape)
        return full[:, :, half : half + spikes.shape[2], half : half + spikes.shape[3]]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return Waves.apply(gradient, *ctx.saved_tensors, ctx.shape), None, None


def _no_overlap(side: int) -> int:
    """Return a length of the transform at which nothing wraps around into the image; a multiple of 8 is fast."""
    least = side + SIDE // 2
    return least + -least % 8


def noise(spikes: Tensor, spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """Convolve spikes with kernels, even out the contrast and scale to [0, 1], image by image: (N, 1, H, W).

    With v the convolved spikes and v0 their mean, (v - v0) 1.001 / (0.001 + |v - v0| / max |v - v0|) is scaled so that
    its least value is 0 and its largest 1. Only the convolution is differentiated, as in the public code.

    Args:
        spikes: (N, 1, H, W).
        spectrum: `torch.fft.rfft2` of the kernels at size `shape`, (N, 1, ...).
        shape: the size of the transforms.
    """
    v = Waves.apply(spikes, spectrum, shape)
    with torch.no_grad():
        least = torch.finfo(v.dtype).tiny  # no spike at all leaves v = 0
        centred = v - v.mean((2, 3), keepdim=True)
        size = centred.abs()
        gain = (1 + FLAT) / (FLAT + size / size.amax((2, 3), keepdim=True).clamp_(min=least))
        even = centred * gain
        low, high = even.amin((2, 3), keepdim=True), even.amax((2, 3), keepdim=True)
        gain /= (high - low).clamp_(min=least)
        shift = (even - low) / (high - low).clamp_(min=least) - v * gain
    return v * gain + shift


def gabor_corruption(
    x: Tensor, eps: float | Tensor, alpha: float | Tensor, generator: torch.Generator, *, as_released: bool = False
) -> Corruption:
    """Draw the corruption of `gabor` for images x; arguments as there."""
    n, _, height, width = x.shape
    size, step = per_example(eps, x), per_example(alpha, x, "alpha")
    kernel = kernels(n, x, generator)[:, None]
    spikes = (uniform((n, 1, height, width), x, generator) < SHARE).to(x.dtype)
    start = (2 * uniform(spikes.shape, x, generator) - 1) * spikes
    free = 1 - spikes if as_released else spikes
    shape = _no_overlap(height), _no_overlap(width)
    spectrum = torch.fft.rfft2(kernel, s=shape)
    return Corruption(
        start,
        lambda z: x + size / 255 * noise(z, spectrum, shape),
        lambda z, gradient: (z + step * gradient.sign()).clamp_(-1, 1).mul_(free),
    )


def gabor(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor = 400.0,
    alpha: float | Tensor | None = None,
    steps: int = 200,
    targeted: bool = False,
    generator: torch.Generator,
    as_released: bool = False,
) -> Tensor:
    """Run the Gabor attack of Kang et al. (2019) and return x', (N, C, H, W) in [0, 1].

        x' = clip(x + eps / 255 * noise(z), 0, 1),        z in [-1, 1] at random spikes, 0 elsewhere.

    A fourteenth of the pixels, at random, holds a spike; all colours get the same noise, in [0, 1]. With the eps of
    Table 5, which is larger than 255, the noise leaves little of the image.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,): true labels, or targets when `targeted`.
        eps: size of the noise where an image has values from 0 to 255; a number or (N,).
        alpha: size of the sign steps of z; default: eps / sqrt(steps), as in the public code. From 2 on every step sets
            z to -1 or 1.
        steps: number of steps.
        targeted: minimise the cross-entropy of y instead of maximising it.
        generator: source of kernels, spikes and first z.
        as_released: from the first step on, move z everywhere *but* at the spikes, and set these to 0. In the public
            code the mask of the spikes is inverted, and so it is in Table 5.

    Raises:
        TypeError, ValueError: see `checks`.
        NotANumber: the objective or its gradient is NaN or infinite.

    Source: Kang et al. (2019), after Co et al. (2019). The public code takes the absolute value of a Fourier transform
    and its inverse of (v - v0)^2, which is (v - v0)^2 again; it is left out.
    """
    return corrupted(
        model,
        x,
        y,
        partial(gabor_corruption, as_released=as_released),
        eps=eps,
        alpha=alpha,
        steps=steps,
        targeted=targeted,
        generator=generator,
    )
