"""The trunk of Small, h = relu(conv2(relu(conv1(x)))), compiled, with correct derivatives of all orders in x.

Three functions of `trunk.cpp` do all the work. With m1 and m2 the 0/1 masks of the units that the two ReLUs pass at x,

    push    v  -> m2 W2 m1 W1 v         (with biases, and ReLUs in place of the masks, it is the trunk itself)
    pull    dh -> W1' m1 W2' m2 dh      its transpose, which computes the gradient
    weights     v, dh -> derivatives of <dh, push(v)> with respect to W1, b1, W2, b2

`pull` is the derivative of the trunk, `push` the derivative of `pull`, and `pull` the derivative of `push`; the
derivative of a mask is 0 wherever it exists. So derivatives of every order in x are correct, as with PyTorch's layers.
"""

import ctypes

import torch
from torch import Tensor, nn

from ..models.architectures import SameConv2d, same_padding
from .compiled import _Network, library

FIRST, SECOND = 16, 32  # filters of the two layers, as in trunk.cpp

Weights = tuple[Tensor | None, ...]  # W1, b1, W2, b2, with their graph


def pointer(tensor: Tensor | None) -> int:
    """Return the address of a tensor's numbers for C++, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def _contiguous(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous()


class Layers:
    """The current weights of the two layers, detached, in the memory orders that `trunk.cpp` reads.

    Args:
        conv1, conv2: the two layers.
    """

    def __init__(self, conv1: SameConv2d, conv2: SameConv2d):
        first, second = conv1.weight.detach(), conv2.weight.detach()
        (size1, _), (size2, _), stride = first.shape[2:], second.shape[2:], conv2.stride[0]
        self.sizes, self.strides, self.colours = (size1, size2), (conv1.stride[0], stride), first.shape[1]
        reach = -(-size2 // stride)
        # For `pull`: along an axis, only the taps a, a + stride, ... read a pixel at position a of its block.
        padded = nn.functional.pad(second, (0, reach * stride - size2) * 2)
        blocks = padded.view(SECOND, FIRST, reach, stride, reach, stride)
        orders = [
            first.permute(2, 3, 1, 0),  # (k, k, C, 16)
            first.new_zeros(FIRST) if conv1.bias is None else conv1.bias.detach(),
            second.permute(2, 3, 1, 0),  # (k, k, 16, 32)
            second.new_zeros(SECOND) if conv2.bias is None else conv2.bias.detach(),
            first.permute(0, 2, 3, 1),  # (16, k, k, C)
            blocks.permute(3, 5, 2, 4, 0, 1).flip(2, 3),  # (a, a', taps, taps', 32, 16), the last tap first
        ]
        self.packed = [part.clone(memory_format=torch.contiguous_format) for part in orders]
        self.networks: dict[tuple[int, int], _Network] = {}
        self.compiled = library()

    def unpacked(self) -> tuple[Tensor, ...]:
        """Return W1, b1, W2 and b2 in PyTorch's order; a layer without a bias has one of zeros."""
        first, bias1, second, bias2, *_ = self.packed
        return first.permute(3, 2, 0, 1), bias1, second.permute(3, 2, 0, 1), bias2

    def network(self, height: int, width: int) -> _Network:
        """Return the C structure that describes the two layers for images of one size."""
        if (height, width) not in self.networks:
            numbers = []
            rows, columns = height, width
            for k, s in zip(self.sizes, self.strides, strict=True):
                top, left = same_padding(rows, k, s)[0], same_padding(columns, k, s)[0]
                rows, columns = -(-rows // s), -(-columns // s)
                numbers += [k, s, top, left, rows, columns]
            self.networks[height, width] = _Network(
                height, width, self.colours, *numbers, *(p.data_ptr() for p in self.packed)
            )
        return self.networks[height, width]

    def _call(self, function: str, size: tuple[int, int], n: int, *arguments) -> None:
        if n:  # without images `threads` would be 0
            network, threads = self.network(*size), min(torch.get_num_threads(), n)
            given = (ctypes.c_int(a) if isinstance(a, bool) else ctypes.c_void_p(pointer(a)) for a in arguments)
            getattr(self.compiled, function)(ctypes.byref(network), threads, ctypes.c_long(n), *given)

    def push(self, x: Tensor, opened: Tensor | None = None, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the trunk's output h (N, 32, h, w), in channels_last, and which units of layer one are open.

        Args:
            x: images (N, C, H, W).
            opened, seen: open units and h of an earlier call; with both, x goes through the linear map at those images.
        """
        size = tuple(x.shape[2:])
        network = self.network(*size)
        h = x.new_empty(len(x), network.rows2, network.columns2, SECOND)
        if opened is None:
            opened = x.new_empty((len(x), network.rows1, network.columns1, FIRST), dtype=torch.uint8)
        self._call("push", size, len(x), _contiguous(x), opened, seen, h)
        return h.permute(0, 3, 1, 2), opened

    def pull(self, dh: Tensor, opened: Tensor, h: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the gradient with respect to x (N, C, H, W) from the gradient with respect to h (N, 32, h, w)."""
        dx = dh.new_empty(len(dh), self.colours, *size)
        self._call("pull", size, len(dh), _last(dh), opened, _last(h), dx)
        return dx

    def weights(self, x: Tensor, dh: Tensor, opened: Tensor, h: Tensor, linear: bool) -> list[Tensor | None]:
        """Compute the gradients of both layers' weights and biases; with `linear`, biases get None."""
        size, threads = tuple(x.shape[2:]), max(min(torch.get_num_threads(), len(x)), 1)
        lengths = [self.packed[0].numel(), self.packed[2].numel(), FIRST, SECOND]
        parts = x.new_zeros(threads, sum(lengths))  # every thread adds up its own images
        self._call("weights", size, len(x), _contiguous(x), _last(dh), opened, _last(h), linear, parts)
        first, second, bias1, bias2 = parts.sum(0).split(lengths)
        first = first.view(self.packed[0].shape).permute(3, 2, 0, 1)
        second = second.view(self.packed[2].shape).permute(3, 2, 0, 1)
        return [first, None if linear else bias1, second, None if linear else bias2]


def _last(values: Tensor) -> Tensor:
    """Return (N, 32, h, w) as a contiguous tensor (N, h, w, 32); channels_last input is not copied."""
    return _contiguous(values.permute(0, 2, 3, 1))


class _Trunk(torch.autograd.Function):
    """The trunk, x -> h, and which units of layer one are open."""

    @staticmethod
    def forward(ctx, x: Tensor, layers: Layers, weights: Weights) -> tuple[Tensor, Tensor]:
        h, opened = layers.push(x)
        ctx.layers, ctx.weights, ctx.size = layers, weights, x.shape[2:]
        ctx.mark_non_differentiable(opened)
        ctx.save_for_backward(opened, h)
        return h, opened

    @staticmethod
    def backward(ctx, dh: Tensor, _) -> tuple:
        opened, h = ctx.saved_tensors
        return _pull(dh, opened, h.detach(), ctx.layers, ctx.size, ctx.weights), None, None


class _Pull(torch.autograd.Function):
    """dh -> dx, the transposed linear map through the open units."""

    @staticmethod
    def forward(ctx, dh: Tensor, opened: Tensor, h: Tensor, layers: Layers, size: torch.Size, weights: Weights):
        ctx.layers, ctx.weights = layers, weights
        ctx.save_for_backward(opened, h)
        return layers.pull(dh, opened, h, tuple(size))

    @staticmethod
    def backward(ctx, ddx: Tensor) -> tuple:
        opened, h = ctx.saved_tensors
        return _push(ddx, opened, h, ctx.layers, ctx.weights), *(None,) * 5


class _Push(torch.autograd.Function):
    """v -> the change of h, the linear map through the open units."""

    @staticmethod
    def forward(ctx, v: Tensor, opened: Tensor, h: Tensor, layers: Layers, weights: Weights) -> Tensor:
        ctx.layers, ctx.weights, ctx.size = layers, weights, v.shape[2:]
        ctx.save_for_backward(opened, h)
        return layers.push(v, opened, _last(h))[0]

    @staticmethod
    def backward(ctx, dh: Tensor) -> tuple:
        opened, h = ctx.saved_tensors
        return _pull(dh, opened, h, ctx.layers, ctx.size, ctx.weights), *(None,) * 4


class _Weights(torch.autograd.Function):
    """Zeros to add to the output of a function of the weights: their backward pass gives the weights' gradients.

    A separate autograd node costs nothing when only the derivative with respect to x is needed, as in an attack that
    is differentiated. In the backward pass the incoming gradient takes the place of whichever of v and dh is None.
    """

    @staticmethod
    def forward(
        ctx,
        v: Tensor | None,
        dh: Tensor | None,
        opened: Tensor,
        h: Tensor,
        like: Tensor,
        layers: Layers,
        linear: bool,
        *weights: Tensor | None,
    ) -> Tensor:
        ctx.layers, ctx.linear = layers, linear
        ctx.save_for_backward(v, dh, opened, h)
        return like.new_zeros(()).expand_as(like)

    @staticmethod
    @torch.autograd.function.once_differentiable  # differentiating a weights' gradient again raises an error
    def backward(ctx, gradient: Tensor) -> tuple:
        v, dh, opened, h = ctx.saved_tensors
        grown = ctx.layers.weights(gradient if v is None else v, gradient if dh is None else dh, opened, h, ctx.linear)
        return *(None,) * 7, *(g if need else None for g, need in zip(grown, ctx.needs_input_grad[7:], strict=True))


def _with_weights(out: Tensor, v, dh, opened: Tensor, h: Tensor, layers: Layers, linear: bool, weights: Weights):
    if not (torch.is_grad_enabled() and any(w is not None and w.requires_grad for w in weights)):
        return out
    v, dh = (part if part is None else part.detach() for part in (v, dh))
    return out + _Weights.apply(v, dh, opened, h.detach(), out.detach(), layers, linear, *weights)


def _trunk(x: Tensor, layers: Layers, weights: Weights) -> Tensor:
    h, opened = _Trunk.apply(x, layers, weights)
    return _with_weights(h, x, None, opened, h, layers, False, weights)


def _pull(dh: Tensor, opened: Tensor, h: Tensor, layers: Layers, size: torch.Size, weights: Weights) -> Tensor:
    dx = _Pull.apply(dh, opened, h, layers, size, weights)
    return _with_weights(dx, None, dh, opened, h, layers, True, weights)


def _push(v: Tensor, opened: Tensor, h: Tensor, layers: Layers, weights: Weights) -> Tensor:
    u = _Push.apply(v, opened, h, layers, weights)
    return _with_weights(u, v, None, opened, h, layers, True, weights)
