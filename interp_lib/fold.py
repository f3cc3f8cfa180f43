"""The logits as a function of x alone, for fixed weights: what does not depend on x is computed once.

Everything that calls a network many times with the same weights (attacks, the inner maximisation of
training) uses `fold_logits`. Two steps, both exact up to rounding:

1. The tail becomes a matrix. In Small nothing nonlinear follows the last convolution and the pool is a mean.
   With z = trunk(x) the logits are

       f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,).

   M has 10 rows of 1,568 numbers on MNIST, where the convolution that it replaces costs 7.7 million
   multiplications an image.
2. The trunk keeps its convolutions; their input gradients become convolutions as well. See `FixedConv2d`.

`benchmarks/pgd.py` measures what this is worth.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import ARCHITECTURES, GlobalPoolNetwork, SameConv2d, Small, same_padding


class FixedConv2d(nn.Module):
    """A `SameConv2d` with the weights of this moment, whose input gradient is a convolution of its own.

    Along one axis, with stride s, kernel size k and p pixels of padding before,

        y[o] = sum_t w[t] x[s o + t - p]        has        dx[i] = sum_o w[i + p - s o] dy[o].

    Take the pixels in blocks of b, a multiple of s: i = b j + a - shift, 0 <= a < b. With o = (b / s) j + q
    the weight no longer depends on the block j,

        dx[b j + a - shift] = sum_q v[a, q] dy[(b / s) j + q],        v[a, q] = w[a - shift + p - s q],

    which is a convolution of dy, of stride b / s, with one output channel for every pixel of a block. On a
    processor PyTorch's forward convolutions are the faster ones: for the two layers of Small this takes a
    sixth and a half of the time of its own input gradients. Other devices keep theirs.
    """

    def __init__(self, conv: SameConv2d):
        super().__init__()
        # With the channels as the fastest axis, neither a convolution nor a block needs a transposition.
        self.conv = copy.deepcopy(conv).requires_grad_(False).to(memory_format=torch.channels_last)
        # A vector register holds 16 numbers; where a block has fewer, one of twice the size costs less.
        self.factor = 2 if conv.in_channels * conv.stride[0] * conv.stride[1] < 16 else 1
        self.kernels: dict[tuple, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        return Convolution.apply(x, self) if x.device.type == "cpu" else self.conv(x)

    def axis(self, n: int, axis: int) -> tuple[int, int, int, int]:
        """For an axis of n pixels: p, shift, and the first and the last q."""
        k, s = self.conv.kernel_size[axis], self.conv.stride[axis]
        p = same_padding(n, k, s)[0]
        shift = p if self.factor == 1 else 0  # a block that starts in the padding meets the fewest outputs
        return p, shift, -((k - 1 + shift - p) // s), (self.factor * s - 1 - shift + p) // s

    def gradient_kernel(self, *axes: tuple[int, int, int, int]) -> Tensor:
        """v of both axes, (b b' C, O, q, q'), the pixels of a block first and then the channels of x."""
        if axes not in self.kernels:
            v = self.conv.weight.permute(2, 3, 1, 0)  # (k, k', C, O)
            for axis, (p, shift, first, last) in enumerate(axes):
                k, s = self.conv.kernel_size[axis], self.conv.stride[axis]
                a, q = torch.arange(self.factor * s)[:, None], torch.arange(first, last + 1)
                t = a - shift + p - s * q
                t = torch.where((0 <= t) & (t < k), t, -1)  # the -1st entry is a zero, put there for this
                v = F.pad(v.movedim(2 * axis, -1), (0, 1))[..., t].movedim((-2, -1), (2 * axis, 2 * axis + 1))
            v = v.permute(0, 2, 4, 5, 1, 3).flatten(0, 2)  # from (b, q, b', q', C, O)
            self.kernels[axes] = v.contiguous(memory_format=torch.channels_last)
        return self.kernels[axes]

    def input_gradient(self, dy: Tensor, height: int, width: int) -> Tensor:
        """dx (N, C, height, width) from dy (N, O, h, w)."""
        axes = self.axis(height, 0), self.axis(width, 1)
        block = [self.factor * s for s in self.conv.stride]
        before = [-first for _, _, first, _ in axes]
        after = [
            (n + axis[1] - 1) // b * self.factor + axis[3] - (outputs - 1)
            for n, b, outputs, axis in zip((height, width), block, dy.shape[2:], axes, strict=True)
        ]
        if after[0] > before[0] or after[1] > before[1]:  # conv2d itself pads both ends alike
            dy = F.pad(dy, (before[1], after[1], before[0], after[0]))
            before = 0
        blocks = F.conv2d(dy, self.gradient_kernel(*axes), stride=self.factor, padding=before)
        pixels = blocks.permute(0, 2, 3, 1).unflatten(3, (*block, -1))  # (N, j, j', b, b', C)
        dx = pixels.transpose(2, 3).flatten(1, 2).flatten(2, 3)
        (_, top, *_), (_, left, *_) = axes
        return dx[:, top : top + height, left : left + width].permute(0, 3, 1, 2)


class Convolution(torch.autograd.Function):
    """`FixedConv2d` for autograd. Linear in x and made of differentiable parts: all orders are right."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: FixedConv2d) -> Tensor:
        ctx.layer, ctx.size, ctx.channels_first = layer, x.shape[2:], x.is_contiguous()
        return layer.conv(x)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None]:
        dx = ctx.layer.input_gradient(dy, *ctx.size)
        return dx.contiguous() if ctx.channels_first else dx, None  # an attack's iterates keep their layout


def fold_tail(model: GlobalPoolNetwork) -> tuple[Tensor, Tensor]:
    """M as (classes, c, h, w), and m (classes,)."""
    like = {"dtype": model.classifier.weight.dtype, "device": model.classifier.weight.device}
    with torch.no_grad():
        shape = model.trunk(torch.zeros(1, *model.input_shape, **like)).shape[1:]
    with torch.enable_grad():
        # Row c of M is the gradient of logit c at any point, here z = 0: one image a class, one pass back.
        z = torch.zeros(model.num_classes, *shape, **like, requires_grad=True)
        logits = model.classifier(model.tail(z).mean((2, 3)))
        (matrix,) = torch.autograd.grad(logits.diagonal().sum(), z)
    return matrix, logits[0].detach()


def fold_logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function x -> logits (N, classes) equal to `model`, with the weights of this moment, detached.

    Its derivatives with respect to x, of any order, are those of `model`; weights get none. It costs one
    forward and one backward pass of the tail over `classes` images. A module that is no `GlobalPoolNetwork`,
    or has no affine tail, is returned as it is.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    if not isinstance(model, GlobalPoolNetwork) or type(model).tail is GlobalPoolNetwork.tail:
        return model
    # glibc hands freed memory back to the system once it is twice the largest block freed so far (of 32 MB at
    # most), and an attack would fault all its pages in again at every step. This block is never touched.
    torch.empty(28 * 2**20, dtype=torch.uint8)
    matrix, offset = fold_tail(model)
    matrix = matrix.permute(0, 2, 3, 1).flatten(1)
    trunk = fixed_trunk(model)
    return lambda x: F.linear(trunk(x).permute(0, 2, 3, 1).flatten(1), matrix, offset)


def fixed_trunk(model: GlobalPoolNetwork, **replaced: nn.Module) -> Callable[[Tensor], Tensor]:
    """The trunk with the weights of this moment, on the convolutions above; some modules replaced by name."""
    # The architecture is written once, in the model: a copy runs its own trunk.
    fixed = {id(m): FixedConv2d(m) for m in model.modules() if isinstance(m, SameConv2d)}
    fixed.update((id(getattr(model, name)), module) for name, module in replaced.items())
    return copy.deepcopy(model, fixed).requires_grad_(False).trunk


def fold_cam(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function x -> CAMs of all classes, in units of eq. (1), with the weights of this moment, detached.

    It equals `interpreters.cam` for classes 0 .. C - 1; its sum over pixels is the logits, so that an attack on both
    needs no second pass. In Small the CAM is affine in the trunk's output, and the last convolution and the linear
    layer become one convolution with a channel a class in place of K,

        w_c'[j] = (1/u) sum_k w_k^c v_k[j],

    v_k its filters. Derivatives with respect to x, of any order, are the network's; weights get none.

    Args:
        model: a network with `features` and `classifier`; see `models`.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to maps (N, classes, h, w).
    """
    weight = model.classifier.weight.detach().clone()
    if getattr(type(model), "tail", None) is not Small.tail:
        features = copy.deepcopy(model).requires_grad_(False).features
        return lambda x: pool_share(F.conv2d(features(x), weight[:, :, None, None]))
    last = copy.deepcopy(model.conv3).requires_grad_(False)
    last.weight = nn.Parameter(torch.einsum("ck,kijl->cijl", weight, last.weight), requires_grad=False)
    last.bias = nn.Parameter(weight @ last.bias, requires_grad=False)
    last.out_channels = len(weight)
    trunk = fixed_trunk(model)
    return lambda x: pool_share(last(trunk(x)))


def pool_share(maps: Tensor) -> Tensor:
    """Every pixel's share in the mean over pixels: maps / u."""
    return maps / (maps.shape[2] * maps.shape[3])


def fold_after_first(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The logits in two steps, f(x) = rest(first(x)), `first` affine, with the weights of this moment.

    Along a straight path from a to x the affine step is computed at the ends only, first(a + t (x - a)) =
    first(a) + t (first(x) - first(a)), and gradients at many points of the path are summed before they are pulled
    back through it. For the networks of `models`, `first` is their first convolution; for others the identity.

    Args:
        model: any classifier.

    Returns:
        `first`, images -> (N, ...), and `rest`, that -> logits (N, classes).
    """
    if not isinstance(model, GlobalPoolNetwork) or type(model).trunk not in [m.trunk for m in ARCHITECTURES.values()]:
        return nn.Identity(), fold_logits(model)
    first = FixedConv2d(model.conv1)
    if type(model).tail is GlobalPoolNetwork.tail:
        return first, copy.deepcopy(model, {id(model.conv1): nn.Identity()}).requires_grad_(False)
    matrix, offset = fold_tail(model)
    matrix = matrix.permute(0, 2, 3, 1).flatten(1)
    trunk = fixed_trunk(model, conv1=nn.Identity())
    return first, lambda h: F.linear(trunk(h).permute(0, 2, 3, 1).flatten(1), matrix, offset)
