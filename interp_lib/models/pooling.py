"""2x2 max-pooling with a cheap second derivative: the pool, and two linear maps that are each other's adjoint.

Once the largest pixel of every window is known, the pool only picks these pixels, which is linear (`Pick`); its adjoint
writes dy back to them (`Put`). Each map is the derivative of the other. PyTorch's own pool fills and adds a tensor of
zeros for the derivative of the choice of pixels; if a loss contains a gradient, as IG-Norm's does, this takes two
fifths of Pool's time in bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Pick(torch.autograd.Function):
    """Pick the numbers of x (N, C, H, W) at `index`, the indices that `F.max_pool2d` returns: (N, C, h, w)."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        if not index.is_contiguous(memory_format=torch.channels_last):
            return x.flatten(2).gather(2, index.flatten(2)).view_as(index)
        # In channels_last an image is a matrix (pixels, channels), so that the index of a pixel is a row number.
        rows, chosen = (tensor.permute(0, 2, 3, 1).flatten(1, 2) for tensor in (x, index))
        return rows.gather(1, chosen).unflatten(1, index.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, index = inputs
        ctx.save_for_backward(x, index)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None]:
        return Put.apply(dy, *ctx.saved_tensors), None


class Put(torch.autograd.Function):
    """The adjoint of `Pick`: write dy (N, C, h, w) to `index`, 0 elsewhere, in the shape and layout of x."""

    @staticmethod
    def forward(dy: Tensor, x: Tensor, index: Tensor) -> Tensor:
        return torch.ops.aten.max_pool2d_with_indices_backward(dy, x, [2, 2], [2, 2], [0, 0], [1, 1], True, index)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, dx: Tensor) -> tuple[Tensor, None, None]:
        return Pick.apply(dx, ctx.saved_tensors[1]), None, None


class MaxPool(torch.autograd.Function):
    """Take the largest number of every 2x2 window, the first of equal ones; at an odd edge windows are smaller."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, dy: Tensor, _) -> Tensor:
        return Put.apply(dy, *ctx.saved_tensors)


def max_pool(x: Tensor) -> Tensor:
    """Max-pool 2x2 windows, stride 2, TensorFlow's SAME padding: (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)).

    Values and derivatives of all orders equal those of `F.max_pool2d(x, 2, ceil_mode=True)`.
    """
    return MaxPool.apply(x)[0]
