"""Max-pooling whose second derivative costs no more than it must: a network's 2x2 pool, and its two adjoints.

Given which pixel of a window is the largest, the pool only picks: it is linear, so is what puts dy back, and either is
the other's derivative. PyTorch's own pool fills and adds a tensor of zeros for the derivative of the choice; where a
loss holds a gradient, as IG-Norm's does, that is two fifths of Pool's time in bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Pick(torch.autograd.Function):
    """Numbers of x (N, C, H, W) at `index`, as `F.max_pool2d` counts them: (N, C, h, w)."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        if not index.is_contiguous(memory_format=torch.channels_last):
            return x.flatten(2).gather(2, index.flatten(2)).view_as(index)
        # With the channels as the fastest axis a pixel's number is a row's.
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
    """The adjoint of `Pick`: dy (N, C, h, w) at `index`, 0 elsewhere, in the shape and layout of x."""

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
    """The largest of every window of 2x2 pixels, the first of equals; a window at an odd edge is cut."""

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
    """2x2 max-pooling of stride 2 with TensorFlow's SAME padding, (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)).

    Values and derivatives of all orders are those of `F.max_pool2d(x, 2, ceil_mode=True)`.
    """
    return MaxPool.apply(x)[0]
