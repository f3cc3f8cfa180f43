"""Convolutions with fixed weights whose input gradients are computed as forward convolutions.

On a CPU PyTorch's forward convolutions are faster than its input gradients; see `FixedConv2d`.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import SameConv2d, same_conv2d, same_padding


def block_factor(conv: SameConv2d) -> int:
    """Return how many strides a block of `FixedConv2d` spans along an axis: 1, or more for few input channels.

    A vector register holds 16 numbers; a block with fewer numbers wastes part of it, so that a larger block is faster.
    """
    factor = 1
    while factor**2 * conv.in_channels * conv.stride[0] * conv.stride[1] < 16:
        factor *= 2
    return factor


class FixedConv2d(nn.Module):
    """A `SameConv2d` with a copy of the current weights, whose input gradient is a forward convolution.

    Along one axis, with stride s, kernel size k and p pixels of padding before the first pixel,

        y[o] = sum_t w[t] x[s o + t - p]        has        dx[i] = sum_o w[i + p - s o] dy[o].

    Group the pixels into blocks of b, a multiple of s: i = b j + a - shift, 0 <= a < b. With o = (b / s) j + q
    the weight no longer depends on the block j,

        dx[b j + a - shift] = sum_q v[a, q] dy[(b / s) j + q],        v[a, q] = w[a - shift + p - s q],

    which is a convolution of dy with stride b / s and one output channel for every pixel of a block. On a CPU it takes
    a sixth of the time of PyTorch's own input gradient for the first layer of Small, and a half for the second. Other
    devices use PyTorch's own input gradient.
    """

    def __init__(self, conv: SameConv2d):
        super().__init__()
        # In channels_last neither a convolution nor the reassembly of the blocks needs a transposition.
        self.conv = copy.deepcopy(conv).requires_grad_(False).to(memory_format=torch.channels_last)
        self.factor = block_factor(conv)
        self.plans: dict[tuple, tuple] = {}

    def forward(self, x: Tensor) -> Tensor:
        return Convolution.apply(x, self) if x.device.type == "cpu" else self.conv(x)

    def axis(self, n: int, axis: int) -> tuple[int, int, int, int]:
        """Return p, shift, and the first and the last q for an axis of n pixels."""
        k, s = self.conv.kernel_size[axis], self.conv.stride[axis]
        p = same_padding(n, k, s)[0]
        shift = p if self.factor == 1 else 0  # a block that starts in the padding overlaps the fewest outputs
        return p, shift, -((k - 1 + shift - p) // s), (self.factor * s - 1 - shift + p) // s

    def gradient_kernel(self, *axes: tuple[int, int, int, int]) -> Tensor:
        """Return v for both axes, (b b' C, O, q, q'), ordered by the pixels of a block, then the channels of x."""
        v = self.conv.weight.permute(2, 3, 1, 0)  # (k, k', C, O)
        for axis, (p, shift, first, last) in enumerate(axes):
            k, s = self.conv.kernel_size[axis], self.conv.stride[axis]
            a, q = torch.arange(self.factor * s)[:, None], torch.arange(first, last + 1)
            t = a - shift + p - s * q
            t = torch.where((0 <= t) & (t < k), t, -1)  # index -1 picks the zero that F.pad appends below
            v = F.pad(v.movedim(2 * axis, -1), (0, 1))[..., t].movedim((-2, -1), (2 * axis, 2 * axis + 1))
        v = v.permute(0, 2, 4, 5, 1, 3).flatten(0, 2)  # from (b, q, b', q', C, O)
        return v.contiguous(memory_format=torch.channels_last)

    def plan(self, size: tuple[int, int], outputs: tuple[int, int]) -> tuple:
        """Prepare what `input_gradient` needs for one size of x and one size of dy; the caller caches it.

        Returns:
            The padding of dy, or None if conv2d's own padding suffices; conv2d's own padding; v; the shape of a block;
            the row and the column where dx starts in the reassembled blocks.
        """
        axes = self.axis(size[0], 0), self.axis(size[1], 1)
        block = [self.factor * s for s in self.conv.stride]
        before = [-first for _, _, first, _ in axes]
        after = [
            (n + axis[1] - 1) // b * self.factor + axis[3] - (out - 1)
            for n, b, out, axis in zip(size, block, outputs, axes, strict=True)
        ]
        rest = self.gradient_kernel(*axes), (*block, -1), axes[0][1], axes[1][1]
        if after[0] > before[0] or after[1] > before[1]:  # conv2d itself pads both ends by the same amount
            return (before[1], after[1], before[0], after[0]), 0, *rest
        return None, before, *rest

    def input_gradient(self, dy: Tensor, height: int, width: int) -> Tensor:
        """Compute dx (N, C, height, width) from dy (N, O, h, w)."""
        outputs = dy.shape[2:]
        if (key := (height, width, *outputs)) not in self.plans:
            self.plans[key] = self.plan((height, width), outputs)
        padding, before, kernel, block, top, left = self.plans[key]
        if padding:
            dy = F.pad(dy, padding)
        blocks = F.conv2d(dy, kernel, None, self.factor, before)
        pixels = blocks.permute(0, 2, 3, 1).unflatten(3, block)  # (N, j, j', b, b', C)
        dx = pixels.transpose(2, 3).flatten(1, 2).flatten(2, 3)
        return dx[:, top : top + height, left : left + width].permute(0, 3, 1, 2)


class Convolution(torch.autograd.Function):
    """The autograd function of `FixedConv2d`: y = W x + b, or W x without the bias."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: FixedConv2d, bias: bool = True) -> Tensor:
        ctx.layer, ctx.size, ctx.channels_first = layer, x.shape[2:], x.is_contiguous()
        conv = layer.conv
        return same_conv2d(x, conv.weight, conv.bias if bias else None, conv.stride)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None]:
        dx = InputGradient.apply(dy, ctx.layer, ctx.size)
        return dx.contiguous() if ctx.channels_first else dx, None, None  # an attack's iterates keep their layout


class InputGradient(torch.autograd.Function):
    """dy -> W^T dy, a linear map whose derivative is W again: derivatives of all orders are right, and fast."""

    @staticmethod
    def forward(ctx, dy: Tensor, layer: FixedConv2d, size: torch.Size) -> Tensor:
        ctx.layer = layer
        return layer.input_gradient(dy, *size)

    @staticmethod
    def backward(ctx, dx: Tensor) -> tuple[Tensor, None, None]:
        return Convolution.apply(dx, ctx.layer, False), None, None
