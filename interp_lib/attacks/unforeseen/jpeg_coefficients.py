"""JPEG: adversarial rounding of the quantised coefficients of a JPEG file of the image."""

import math
from functools import partial
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...values import check_choice, check_number
from ..balls import per_example
from .corruption import Corruption, corrupted, padded, uniform

BLOCK = 8

# Annex K of the JPEG standard: the quantisation tables of luminance and of chrominance at quality 50.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)

TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))

BOX = 2.0  # bound on each coefficient's change in l2 and l1, in units of half a quantisation step


def quantisation_table(base: tuple, quality: int) -> Tensor:
    """Scale a table of quality 50 as the reference encoder does: whole numbers from 1 to 255, (8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(base) * scale + 50) // 100).clamp(1, 255).double()


def cosines() -> Tensor:
    """Return the orthonormal cosine transform of 8 numbers, (8, 8): row u is frequency u."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    matrix = (math.pi / 16 * k[:, None] * (2 * k + 1)).cos() / 2
    matrix[0] /= math.sqrt(2)
    return matrix


class Codec:
    """JPEG without rounding, for images of one size: `encode` and `decode` are affine, and one after the other blurs
    colours.

    A colour image has one luminance and two chrominance planes, of which the latter have half the resolution (4:2:0);
    a grey one has luminance only. Sides that are no multiple of a block are padded by their last pixels.

    Args:
        x: images (N, C, H, W), C = 1 or 3: size, dtype and device.
        quality: 1 to 100.

    Raises:
        ValueError: another number of colours or another quality.
    """

    def __init__(self, x: Tensor, quality: int = 50):
        check_number(quality, "quality", 1, 100)
        check_choice(x.shape[1], "the number of colours of x", (1, 3))
        self.colours, (self.height, self.width) = x.shape[1], x.shape[2:]
        self.multiple = BLOCK if self.colours == 1 else 2 * BLOCK
        sides = [side + -side % self.multiple for side in (self.height, self.width)]
        halves = [side // 2 for side in sides]
        self.planes = [sides] + [halves] * (self.colours - 1)
        basis = torch.kron(cosines(), cosines())  # (64 frequencies, 64 pixels)
        tables = [LUMINANCE] + [CHROMINANCE] * (self.colours - 1)
        steps = [quantisation_table(table, int(quality)).flatten() for table in tables]
        # Pixels of a block to quantised coefficients, and back; in units of 1/255.
        self.forward = [(basis.T / step * 255).to(x) for step in steps]
        self.backward = [(step[:, None] * basis / 255).to(x) for step in steps]
        self.to_ycc, self.to_rgb = torch.tensor(TO_YCC).to(x), torch.tensor(TO_RGB).to(x)

    @property
    def size(self) -> int:
        """The number of coefficients of an image."""
        return sum(height * width for height, width in self.planes)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coefficients before rounding, in units of the quantisation step: (N, size)."""
        x = padded(x, self.multiple)
        if self.colours == 1:
            planes = [x[:, 0] - 128 / 255]
        else:
            y, *chroma = torch.einsum("kc,nchw->knhw", self.to_ycc, x)
            planes = [y - 128 / 255, *(F.avg_pool2d(plane, 2) for plane in chroma)]
        return torch.cat([(blocks(p) @ m).flatten(1) for p, m in zip(planes, self.forward, strict=True)], 1)

    def decode(self, coefficients: Tensor) -> Tensor:
        """Return the images of coefficients, (N, C, H, W), without clipping them to [0, 1]."""
        parts = coefficients.split([height * width for height, width in self.planes], 1)
        planes = [
            unblocked(part.unflatten(1, (-1, BLOCK * BLOCK)) @ matrix, *plane)
            for part, matrix, plane in zip(parts, self.backward, self.planes, strict=True)
        ]
        if self.colours == 1:
            x = planes[0][:, None]
        else:
            chroma = [plane.repeat_interleave(2, 1).repeat_interleave(2, 2) for plane in planes[1:]]
            x = torch.einsum("ck,knhw->nchw", self.to_rgb, torch.stack([planes[0], *chroma]))
        return x[:, :, : self.height, : self.width] + 128 / 255


def blocks(plane: Tensor) -> Tensor:
    """Cut planes (N, H, W) into blocks, row by row: (N, blocks, 64)."""
    n, height, width = plane.shape
    return plane.view(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(2, 3).reshape(n, -1, BLOCK * BLOCK)


def unblocked(cut: Tensor, height: int, width: int) -> Tensor:
    """Undo `blocks`."""
    shape = height // BLOCK, width // BLOCK, BLOCK, BLOCK
    return cut.view(len(cut), *shape).transpose(2, 3).reshape(len(cut), height, width)


def random_point(n: int, size: int, norm: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points uniformly from the unit ball of 'linf', 'l2' or 'l1' in `size` dimensions, (n, size)."""
    if norm == "linf":
        return 2 * uniform((n, size), like, generator) - 1
    if norm == "l2":
        normal = torch.randn((n, size), generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
        length = torch.linalg.vector_norm(normal, dim=1, keepdim=True)
        return normal / length * uniform((n, 1), like, generator) ** (1 / size)
    # A point of the simplex with one more corner: exponential numbers over their sum (Barthe et al., 2005).
    exponential = -(1 - uniform((n, size + 1), like, generator)).log()
    signs = 2 * (uniform((n, size), like, generator) < 0.5).to(like.dtype) - 1
    return signs * exponential[:, :size] / exponential.sum(1, keepdim=True)


def frank_wolfe(z: Tensor, gradient: Tensor, eps: float | Tensor, done: int) -> Tensor:
    """Return z + (v - z) / (done + 1), the step of Frank and Wolfe on the l1 ball within a box, as in the public code.

    v moves the coefficients of the largest gradients, each by its room up to the edge of the box, until the moves sum
    to eps. The public code counts the room from z and not from 0.
    """
    size = gradient.abs()
    # A full sort takes longer than the rest of the attack; a third of the coefficients is mostly enough.
    order = size.topk(size.shape[1] // 3, dim=1).indices
    sign = gradient.sign()
    every_room = torch.where(sign > 0, BOX - z, z + BOX)
    room = every_room.gather(1, order)
    if (room.sum(1) < torch.as_tensor(eps).flatten()).any():
        order = size.argsort(1, descending=True)
        room = every_room.gather(1, order)
    spent = room.cumsum(1) - room
    move = torch.minimum((eps - spent).clamp_(min=0), room)
    corner = sign * torch.zeros_like(z).scatter_(1, order, move)
    return (z + (corner - z) / (done + 1)).clamp_(-BOX, BOX)


def jpeg_corruption(
    x: Tensor,
    eps: float | Tensor,
    alpha: float | Tensor,
    generator: torch.Generator,
    *,
    norm: str = "linf",
    quality: int = 50,
) -> Corruption:
    """Draw the corruption of `jpeg` for images x; arguments as there."""
    check_choice(norm, "norm", ("linf", "l2", "l1"))
    codec, taken = Codec(x, quality), count()
    size, step = (_column(per_example(value, x, name)) for value, name in ((eps, "eps"), (alpha, "alpha")))
    coefficients = codec.encode(x)
    start = size * random_point(len(x), codec.size, norm, x, generator)

    def move(z: Tensor, gradient: Tensor) -> Tensor:
        if norm == "l1":
            return frank_wolfe(z, gradient, size, next(taken))
        if norm == "linf":
            return (z + step * gradient.sign()).clamp_(-size, size)
        length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        z = z + step * gradient / torch.where(length > 0, length, 1)
        length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        return z.mul_((size / torch.where(length > 0, length, 1)).clamp_(max=1)).clamp_(-BOX, BOX)

    return Corruption(start, lambda z: codec.decode(coefficients + z / 2), move)


def jpeg(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    alpha: float | Tensor | None = None,
    steps: int = 200,
    targeted: bool = False,
    generator: torch.Generator,
    quality: int = 50,
) -> Tensor:
    """Run the JPEG attack of Kang et al. (2019) and return x', (N, C, H, W) in [0, 1].

        x' = clip( decode( encode(x) + z / 2 ), 0, 1 ),        ||z||_p <= eps

    Rounding, the lossy part of JPEG, changes a coefficient by at most half its quantisation step: the rounding of a
    real file is one z with ||z||_inf <= 1. In l2 and l1, |z_i| <= 2 as well. Colours lose resolution whatever z is.

    Args:
        model, x, y, targeted: as `gabor_noise.gabor`; x has one or three colours.
        eps: radius, in units of half a quantisation step; 0.25, 8 and 256 in Table 5 for 'linf', 'l2' and 'l1'; a
            number or (N,).
        norm: 'linf', 'l2' or 'l1'. In l1 the steps are Frank and Wolfe's, without a step size.
        alpha: step size; default: eps / sqrt(steps).
        steps: number of steps.
        generator: source of the first z, uniform in the ball.
        quality: of the file, 1 to 100.

    Raises:
        TypeError, ValueError: see `checks`; also another norm, or another number of colours.
        NotANumber: the objective or its gradient is NaN or infinite.

    Source: Kang et al. (2019). The public code computes the first of its gradients at eps z in the place of z.
    """
    return corrupted(
        model,
        x,
        y,
        partial(jpeg_corruption, norm=norm, quality=quality),
        eps=eps,
        alpha=alpha,
        steps=steps,
        targeted=targeted,
        generator=generator,
    )


def _column(value: float | Tensor) -> float | Tensor:
    return value.flatten(1) if isinstance(value, Tensor) else value
