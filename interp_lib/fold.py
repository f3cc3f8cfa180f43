"""The logits as a function of x alone, for fixed weights: what does not depend on x is computed once.

Everything that calls a network many times with the same weights uses it: attacks `fold_logits` and `fold_cam`, a
training step `fold_for_training`. Two steps, both exact up to rounding:

1. The tail becomes a matrix. In Small nothing nonlinear follows the last convolution and the pool is a mean.
   With z = trunk(x) the logits are

       f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,).

   M has 10 rows of 1,568 numbers on MNIST, where the convolution that it replaces costs 7.7 million
   multiplications an image.
2. The trunk keeps its convolutions; their input gradients become convolutions as well. See `FixedConv2d`.

`benchmarks/pgd.py` measures what this is worth.
"""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import ARCHITECTURES, GlobalPoolNetwork, SameConv2d, Small, same_conv2d, same_padding


def block_factor(conv: SameConv2d) -> int:
    """How many strides a block of `FixedConv2d` has along an axis: 1, and more where there are few input channels.

    A vector register holds 16 numbers; where a block has fewer, a larger one costs less.
    """
    factor = 1
    while factor**2 * conv.in_channels * conv.stride[0] * conv.stride[1] < 16:
        factor *= 2
    return factor


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
        self.factor = block_factor(conv)
        self.plans: dict[tuple, tuple] = {}

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
        v = self.conv.weight.permute(2, 3, 1, 0)  # (k, k', C, O)
        for axis, (p, shift, first, last) in enumerate(axes):
            k, s = self.conv.kernel_size[axis], self.conv.stride[axis]
            a, q = torch.arange(self.factor * s)[:, None], torch.arange(first, last + 1)
            t = a - shift + p - s * q
            t = torch.where((0 <= t) & (t < k), t, -1)  # the -1st entry is a zero, put there for this
            v = F.pad(v.movedim(2 * axis, -1), (0, 1))[..., t].movedim((-2, -1), (2 * axis, 2 * axis + 1))
        v = v.permute(0, 2, 4, 5, 1, 3).flatten(0, 2)  # from (b, q, b', q', C, O)
        return v.contiguous(memory_format=torch.channels_last)

    def plan(self, size: tuple[int, int], outputs: tuple[int, int]) -> tuple:
        """What `input_gradient` needs for x of a size and dy of another: made once.

        Returns:
            How dy is padded, None where conv2d's own padding, the next, will do; v; a block; and the first pixel of dx.
        """
        axes = self.axis(size[0], 0), self.axis(size[1], 1)
        block = [self.factor * s for s in self.conv.stride]
        before = [-first for _, _, first, _ in axes]
        after = [
            (n + axis[1] - 1) // b * self.factor + axis[3] - (out - 1)
            for n, b, out, axis in zip(size, block, outputs, axes, strict=True)
        ]
        padding = None
        if after[0] > before[0] or after[1] > before[1]:  # conv2d itself pads both ends alike
            padding, before = (before[1], after[1], before[0], after[0]), 0
        return padding, before, self.gradient_kernel(*axes), (*block, -1), axes[0][1], axes[1][1]

    def input_gradient(self, dy: Tensor, height: int, width: int) -> Tensor:
        """dx (N, C, height, width) from dy (N, O, h, w)."""
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
    """`FixedConv2d` for autograd: y = W x + b, or W x alone."""

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
    """dy -> W^T dy. It is linear and its own derivative is W, so that all orders are right, and fast."""

    @staticmethod
    def forward(ctx, dy: Tensor, layer: FixedConv2d, size: torch.Size) -> Tensor:
        ctx.layer = layer
        return layer.input_gradient(dy, *size)

    @staticmethod
    def backward(ctx, dx: Tensor) -> tuple[Tensor, None, None]:
        return Convolution.apply(dx, ctx.layer, False), None, None


class Folded(NamedTuple):
    """A network as two functions of x.

    Attributes:
        logits: images (N, C, H, W) -> (N, classes).
        cam: images -> CAMs of all classes in units of eq. (1), (N, classes, h, w), whose sums are the logits.
    """

    logits: Callable[[Tensor], Tensor]
    cam: Callable[[Tensor], Tensor]


def has_affine_tail(model: nn.Module) -> bool:
    """Whether nothing but Small's last convolution, the pool and the linear layer follow the last ReLU."""
    return getattr(type(model), "tail", None) is Small.tail and not any(
        map(hooked, (model, model.conv3, model.classifier))
    )


def hooked(module: nn.Module) -> bool:
    """Whether a hook may change what a module returns: then the module itself is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def compose_tail(model: Small) -> tuple[Tensor, Tensor]:
    """The last convolution and the linear layer as one convolution with a channel a class in place of K.

        w_c'[j] = sum_k w_k^c v_k[j],        b_c' = sum_k w_k^c b_k

    v_k and b_k are its filters and biases. The output is u times the CAM of eq. (1). The weights keep their graph.

    Returns:
        w' (classes, c, k, k) and b' (classes,).
    """
    weight = model.classifier.weight
    return torch.einsum("ck,kijl->cijl", weight, model.conv3.weight), weight @ model.conv3.bias


@functools.cache
def pixel_shares(n: int, k: int, s: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """B[p, j] of `fold_tail` for an axis of n pixels, a kernel of k and stride s: (n, k)."""
    p, j, q = torch.arange(n)[:, None, None], torch.arange(k)[:, None], torch.arange(-(-n // s))
    return (s * q + j - same_padding(n, k, s)[0] == p).to(device, dtype).mean(2)


def fold_tail(model: Small, composed: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """M and m of f(x) = M vec(z) + m: the composed convolution, averaged over its output.

    With B[p, j] the share of output pixels whose filter element j meets input pixel p, for each axis,

        M_c[p, p'] = sum_{j, j'} B[p, j] w_c'[j, j'] B'[p', j'],        m_c = b_c'.

    The weights keep their graph.

    Args:
        composed: what `compose_tail` returns, where the caller has it.

    Returns:
        M with the channels last, (classes, h * w * c), and m (classes,).
    """
    weight, bias = composed or compose_tail(model)
    shares = []
    for axis, n in enumerate(model.input_shape[1:]):
        for conv in (model.conv1, model.conv2):
            n = -(-n // conv.stride[axis])
        shares.append(pixel_shares(n, model.conv3.kernel_size[axis], model.conv3.stride[axis], weight.dtype,
                                   weight.device))  # fmt: skip
    matrix = torch.einsum("pj,cijl,rl->cpri", shares[0], weight, shares[1])
    return matrix.flatten(1), bias


def fixed_copy(model: GlobalPoolNetwork, *, gaining: bool = False, **replaced: nn.Module) -> GlobalPoolNetwork:
    """The network with the weights of this moment, detached, on the convolutions above.

    Args:
        gaining: only those that are the faster for it with any width: few input channels, see `block_factor`, or a
            kernel of more than 3 pixels. An inner step of IG-Norm takes 0.8 of its time in Pool by its 5x5 layer; one
            of Adv would take 1.1 times as long in WResnet by the 3x3 layers, of stride 1 mostly.
        replaced: modules that are replaced by another, by name.
    """
    # The architecture is written once, in the model: a copy runs its own trunk.
    convolutions = (m for m in model.modules() if isinstance(m, SameConv2d) and not hooked(m))
    fixed = {
        id(m): FixedConv2d(m) for m in convolutions if not gaining or block_factor(m) > 1 or max(m.kernel_size) > 3
    }
    fixed.update((id(getattr(model, name)), module) for name, module in replaced.items())
    return copy.deepcopy(model, fixed).requires_grad_(False)


def _fold(model: nn.Module, trunk: Callable[[Tensor], Tensor], composed=None, tail=None) -> Folded:
    """`Folded` from a trunk, `compose_tail` and `fold_tail`; without these from `features` in the place of a trunk."""
    if tail is None and composed is None:
        weight = model.classifier.weight
        return Folded(
            lambda x: F.linear(trunk(x).mean((2, 3)), weight),
            lambda x: pool_share(F.conv2d(trunk(x), weight[:, :, None, None])),
        )
    stride = model.conv3.stride
    return Folded(
        lambda x: F.linear(trunk(x).permute(0, 2, 3, 1).flatten(1), *tail),
        lambda x: pool_share(same_conv2d(trunk(x), *composed, stride)),
    )


def frozen(model: nn.Module) -> nn.Module:
    """A copy with the weights of this moment, detached."""
    return copy.deepcopy(model).requires_grad_(False)


def rearranged(model: GlobalPoolNetwork, dtype: torch.dtype) -> Folded:
    """A network of no affine tail with the weights of this moment, its features arranged for many input gradients.

    On a processor a max-pool takes a sixteenth of its time where the channels are the fastest axis, and some
    convolutions gain by `FixedConv2d`. Forward and backward pass together take 0.6 of their time in Pool and 0.85 in
    WResnet; `benchmarks/training.py --model pool` measures whole training steps. The rounding is another than the
    plain network's. The attacks of the tables keep that one: single images of Pool's tables depend on it.
    """
    if model.classifier.weight.device.type == "cpu":
        copied = fixed_copy(model, gaining=True).to(memory_format=torch.channels_last)
    else:
        copied = frozen(model)
    copied.to(dtype).classifier = frozen(model.classifier)  # in the precision of the weights
    return _fold(copied, in_dtype(copied.features, dtype))


def in_dtype(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function with its argument in another precision and the channels as the fastest axis, its result as before."""
    return lambda x: function(x.contiguous(memory_format=torch.channels_last).to(dtype)).to(x.dtype)


def mixed(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function of weights in single precision, its convolutions computed in another; see `torch.autocast`."""

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return function(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    return autocast


def fold_for_training(model: GlobalPoolNetwork, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]:
    """A network for one training step, its tail folded once: with a graph to the weights, and without.

    The loss is made of the first. The inner maximisation climbs the second, which has the weights of this moment:
    their gradients are neither computed nor kept. Both equal the network, with all derivatives that they have.

    Args:
        dtype: where given, the precision in which everything before the affine tail, or before the pool, is computed,
            forward and backward. Weights, maps and logits keep theirs. A number in bfloat16 has 8 significant bits;
            products are added up in 24. A processor with units for that (AMX) takes a half to a quarter of the time
            for large layers, other processors more than before.
    """
    if not isinstance(model, nn.Module):  # several networks, see `stack.Stack`
        return model.fold(dtype)
    keep_memory()
    dtype = dtype or model.classifier.weight.dtype
    plain = dtype == model.classifier.weight.dtype
    if not has_affine_tail(model):
        features = model.features if plain else mixed(model.features, dtype)
        return _fold(model, features), rearranged(model, dtype)
    composed = compose_tail(model)
    tail = fold_tail(model, composed)
    detached = ([part.detach() for part in parts] for parts in (composed, tail))
    if plain:
        trunk, fixed = model.trunk, fixed_copy(model).trunk
    else:
        trunk, fixed = mixed(model.trunk, dtype), in_dtype(fixed_copy(model).to(dtype).trunk, dtype)
    return _fold(model, trunk, composed, tail), _fold(model, fixed, *detached)


def keep_memory() -> None:
    """Makes glibc keep the memory of a pass for the next one.

    It hands freed memory back to the system once that is twice the largest block freed so far (of 32 MB at most),
    and an attack would fault all its pages in again at every step. This block is never touched.
    """
    torch.empty(28 * 2**20, dtype=torch.uint8)


def fold_logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function x -> logits (N, classes) equal to `model`, with the weights of this moment, detached.

    Its derivatives with respect to x, of any order, are those of `model`; weights get none. A module that is no
    `GlobalPoolNetwork`, or has no affine tail, or a hook there, is returned as it is.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    if not has_affine_tail(model):
        return model
    keep_memory()
    with torch.no_grad():
        return _fold(model, fixed_copy(model).trunk, tail=fold_tail(model)).logits


def fold_cam(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function x -> CAMs of all classes, in units of eq. (1), with the weights of this moment, detached.

    It equals `interpreters.cam` for classes 0 .. C - 1; its sum over pixels is the logits, so that an attack on both
    needs no second pass. In Small the last convolution and the linear layer become one, see `compose_tail`.
    Derivatives with respect to x, of any order, are the network's; weights get none.

    Args:
        model: a network with `features` and `classifier`; see `models`.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to maps (N, classes, h, w).
    """
    if not has_affine_tail(model):
        fixed = frozen(model)
        return _fold(fixed, fixed.features).cam
    with torch.no_grad():
        return _fold(model, fixed_copy(model).trunk, compose_tail(model)).cam


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
    known = isinstance(model, GlobalPoolNetwork) and type(model).trunk in [m.trunk for m in ARCHITECTURES.values()]
    if not known or hooked(model.conv1):
        return nn.Identity(), fold_logits(model)
    first = FixedConv2d(model.conv1)
    if not has_affine_tail(model):
        return first, copy.deepcopy(model, {id(model.conv1): nn.Identity()}).requires_grad_(False)
    with torch.no_grad():
        return first, _fold(model, fixed_copy(model, conv1=nn.Identity()).trunk, tail=fold_tail(model)).logits
