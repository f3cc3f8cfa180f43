"""The logits as a function of x alone, for fixed weights: what does not depend on x is computed once.

Everything that calls a network many times with the same weights uses it: attacks `fold_logits` and `fold_cam`, a
training step `fold_for_training`. Two steps, both exact up to rounding:

1. The tail becomes a matrix. In Small nothing nonlinear follows the last convolution and the pool is a mean.
   With z = trunk(x) the logits are

       f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,).

   M has 10 rows of 1,568 numbers on MNIST, where the convolution that it replaces costs 7.7 million
   multiplications an image.
2. The trunk keeps its convolutions; their input gradients become convolutions as well. See `FixedConv2d`.

`benchmarks/pgd.py` measures what this is worth. What is folded proves itself, once for every structure of a network:
see `proven`. Where it is not the network, the network is used as it is.
"""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import capturing
from .fast.trunk import compiled_trunk
from .models import ARCHITECTURES, Block, GlobalPoolNetwork, SameConv2d, Small, same_conv2d, same_padding

AGREES = 1e-6  # of the largest number, in double precision: rounding stays below a millionth of that


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
        cam: images -> CAMs of all classes in units of eq. (1), (N, classes, h, w).
        bias: of the linear layer, (classes,) or None: a map sums to its logit less this.
        differs: whether it is of evaluation mode, where dropout and batch statistics make that another function.
    """

    logits: Callable[[Tensor], Tensor]
    cam: Callable[[Tensor], Tensor]
    bias: Tensor | None = None
    differs: bool = False

    def logits_of(self, maps: Tensor) -> Tensor:
        """The logits from the CAMs of all classes: (N, classes, h, w) -> (N, classes)."""
        total = maps.sum((2, 3))
        return total if self.bias is None else total + self.bias


# What is folded proves itself -------------------------------------------------------------------------------------

Function = Callable[[Tensor], Tensor]
_SIMPLE = {int, bool, float, str, type(None)}
_BOOKKEEPING = {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}
_PLAN = GlobalPoolNetwork.forward, GlobalPoolNetwork.features
_verdicts: dict[tuple, bool] = {}


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `nn.DataParallel` and `torch.compile`, which change where and how fast, not what."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.Module) and "_orig_mod" in model._modules:
            model = model._orig_mod
        else:
            return model


def _setting(value):
    """What stands for an attribute in `structure`: itself, where it can be compared."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return tuple(_setting(v) for v in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(_setting(v) for v in value)
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, nn.Module):
        return type(value)
    try:
        hash(value)
    except TypeError:
        return type(value)
    return value


def structure(model: nn.Module, settings: bool = True) -> tuple:
    """All of a network but its numbers: modules with types, settings, hooks and shapes. Copies have the same one.

    Args:
        settings: with numbers and words among the attributes, of which some networks change one at every call.
    """
    whole = nn.modules.module
    parts = [tuple(getattr(type(model), name, None) for name in ("trunk", "tail", "features"))]
    for kind in ("forward", "forward_pre", "backward", "backward_pre"):
        parts.append(_setting(getattr(whole, f"_global_{kind}_hooks")))
    for name, module in model.named_modules():
        parts += (name, type(module), type(module).forward)
        for key, value in vars(module).items():
            if type(value) in _SIMPLE:
                if settings and key != "training":
                    parts += (key, value)
            elif value and key not in _BOOKKEEPING:
                parts += (key, _setting(value))
        parts += [p if p is None else p.shape for p in module._parameters.values()]
    return tuple(parts)


def trial_copy(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy to try a fold on: double precision, evaluation mode, on the processor, its weights shaken by a tenth.

    Weights that are 0, as new biases are, would hide what is done with them.
    """
    copied = copy.deepcopy(model).to("cpu", dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.nan_to_num_(0, 0, 0)
            size = float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.add_(noise, alpha=0.1 * (size or 1.0)).requires_grad_(True)
    return copied


def differences(one: Function, other: Function, x: Tensor, *weights: list[Tensor]) -> tuple[float, float]:
    """How far two functions are apart, relative to the largest number: in value, and in derivatives.

    Args:
        x: where, (N, C, H, W).
        weights: tensors beside x with respect to which they are differentiated, a list for each of the two.
    """
    results = []
    for function, own in zip((one, other), weights or ((), ()), strict=True):
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            z = x.clone().requires_grad_()
            value = function(z)
            probe = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=value.dtype)
            gradients = torch.autograd.grad((value * probe).sum(), [z, *own], allow_unused=True)
        parts = [value.detach(), *(torch.zeros_like(w) if g is None else g for g, w in
                                   zip(gradients, [z, *own], strict=True))]  # fmt: skip
        results.append([part.flatten() for part in parts])
    if results[0][0].shape != results[1][0].shape:
        return float("inf"), float("inf")
    # Where both give NaN the network does: whoever attacks it is told so.
    pairs = [(a[keep], b[keep]) for a, b in zip(*results, strict=True) for keep in [~(a.isnan() & b.isnan())]]
    apart = [float((a - b).abs().max() / (a.abs().max() or 1)) if len(a) else 0.0 for a, b in pairs]
    return apart[0], float(torch.tensor(apart[1:]).amax())


def proven(
    model: nn.Module,
    fold: Callable[[nn.Module], Function],
    own: Callable[[nn.Module], Function] = lambda model: model,
    *,
    shape: tuple[int, ...] | None = None,
    weights: bool = False,
    settings: bool = True,
    untried: bool = False,
) -> bool:
    """Whether a fold of this network is the network: value and derivatives on random images, in double precision.

    It is tried once on a `trial_copy` for every structure, so that weights that change, as in training, cost nothing:
    what a fold computes from weights is right for all or for none. Replaced layers, hooks, another padding, a changed
    forward are another structure. The network itself is neither called nor changed.

    Args:
        fold: network -> function of x; a function of a module, by which the verdict is remembered.
        own: network -> what that function must be.
        shape: (C, H, W) of an image; `model.input_shape` where none is given.
        weights: compare the derivatives with respect to the weights as well.
        settings: see `structure`.
        untried: the verdict on a network that fails on the images of the trial.
    """
    shape = tuple(shape or model.input_shape)
    key = fold, own, shape, weights, structure(model, settings)
    if key not in _verdicts:
        if capturing():
            return False
        if len(_verdicts) > 256:  # keys keep hooks and types alive
            _verdicts.clear()
        # Large images take long, in double precision; most networks take small ones as well.
        small = tuple(shape[:1]) + tuple(min(n, 64) for n in shape[1:])
        verdict = None
        for size in dict.fromkeys((small, shape)):
            if not verdict:
                verdict = _try(model, fold, own, size, weights)
        _verdicts[key] = untried if verdict is None else verdict
    return _verdicts[key]


@torch.enable_grad()  # whoever asks may be in `no_grad`, and derivatives are compared
def _try(model: nn.Module, fold, own, shape: tuple[int, ...], weights: bool) -> bool | None:
    """Whether they agree; None where the network itself cannot be tried, in double precision or in single."""
    for dtype, rounding in ((torch.float64, AGREES), (torch.float32, 1000 * AGREES)):
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                own(trial_copy(model, dtype))(x)
            copies = trial_copy(model, dtype), trial_copy(model, dtype)  # that have not run
        except Exception:  # what it takes, or can be copied to, only it knows
            continue
        try:
            lists = [list(copied.parameters()) if weights else [] for copied in copies]
            apart = differences(own(copies[0]), fold(copies[1]), x, *lists)
        except Exception:  # no fold of this network
            return False
        return all(value < rounding for value in apart)  # NaN is no agreement
    return None


def linear_parts(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (classes, K) and bias (classes,) or None of a network's linear layer."""
    return model.classifier.weight, model.classifier.bias


def _pooled(model: nn.Module) -> Function:
    """The logits by the contract: the linear layer of the mean over pixels of `features`."""
    return lambda x: F.linear(model.features(x).mean((2, 3)), *linear_parts(model))


def _has_parts(model: nn.Module) -> bool:
    return callable(getattr(model, "features", None)) and isinstance(getattr(model, "classifier", None), nn.Linear)


def keeps_contract(model: nn.Module, shape: tuple[int, ...] | None = None) -> bool:
    """Whether model(x) is the linear layer `classifier` of the pooled `features`, so that it has a CAM."""
    return _has_parts(model) and (_on_plan(model) or proven(model, _pooled, shape=shape, settings=False, untried=True))


def _on_plan(model: nn.Module) -> bool:
    """Whether the contract is what the code of this network says, so that there is nothing to try."""
    whole = nn.modules.module
    return (
        isinstance(model, GlobalPoolNetwork)
        and (type(model).forward, type(model).features) == _PLAN
        and type(model.classifier) is nn.Linear
        and not {"forward", "features"} & (vars(model).keys() | vars(model.classifier).keys())
        and not (hooked(model) or hooked(model.classifier))
        and not (whole._global_forward_hooks or whole._global_forward_pre_hooks)
    )


def check_contract(model: nn.Module, shape: tuple[int, ...] | None = None) -> None:
    """Refuse a network of which there is no CAM, see `keeps_contract`.

    Args:
        shape: (C, H, W) of its images; `model.input_shape` where none is given.

    Raises:
        TypeError: it has no `features` or no linear layer `classifier`.
        ValueError: it has both, and they are not what its forward does.
    """
    name = getattr(model, "name", None) or getattr(type(model), "__name__", "the model")
    advice = (
        "Write model = interp_lib.adapt(model); where that finds nothing, gradcam(..., head=...) and maps of pixels "
        "are left"
    )
    if not _has_parts(model):
        raise TypeError(
            f"a CAM needs feature maps `features(x)`, their mean over pixels and a linear layer `classifier`, which "
            f"{name if isinstance(model, nn.Module) else 'a plain function'} does not have. {advice}."
        )
    if not keeps_contract(model, shape):
        raise ValueError(
            f"{name}(x) is not `classifier` of the mean over pixels of `features`, as it would be with a CAM: "
            f"something comes before, between or after them. {advice}."
        )


# The tail as a matrix ---------------------------------------------------------------------------------------------


def has_affine_tail(model: nn.Module) -> bool:
    """Whether the network is Small's tail after some trunk, and what is folded of it has proven itself."""
    return (
        getattr(type(model), "tail", None) is Small.tail
        and not any(map(hooked, model.modules()))
        and proven(model, _affine_rows, _own_rows, weights=True)
    )


def is_foldable(model: nn.Module) -> bool:
    """Whether a network's convolutions can be replaced and its features arranged anew; proven as well."""
    return (
        isinstance(model, GlobalPoolNetwork)
        and any(isinstance(module, SameConv2d) for module in model.modules())
        and not any(map(hooked, model.modules()))
        and proven(model, _plain_rows, _own_rows, weights=True)
    )


def hooked(module: nn.Module) -> bool:
    """Whether a hook may see or change what a module returns, or its gradient: then the module itself is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _own_rows(model: GlobalPoolNetwork) -> Function:
    """What `_rows` is held to: the network's own logits, CAM and features, with and without a graph to its weights."""
    fixed, (weight, _) = frozen(model), linear_parts(model)
    maps = lambda x: pool_share(F.conv2d(model.features(x), weight[:, :, None, None]))

    def halved(x: Tensor) -> Tensor:  # images and their mirror images: an affine tail does not see which are mixed
        z = fixed.trunk(x)
        return fixed.tail((z + z.flip(-1)) / 2)

    def rows(x: Tensor) -> Tensor:
        free = [model(x), maps(x).flatten(1), model(x)]
        return torch.cat([*free, *(part.flatten(1) for part in (fixed(x), halved(x), fixed.features(x)))], 1)

    return rows


def _rows(model: GlobalPoolNetwork, free: Folded, fixed: Folded, *, affine: bool) -> Function:
    """All that is folded of a network, in one row an image."""
    first, rest = _after_first(model, affine)
    copied = fixed_copy(model)

    def rows(x: Tensor) -> Tensor:
        z = copied.trunk(x)
        maps, halved = free.cam(x), (copied.tail(z) + copied.tail(z.flip(-1))) / 2
        free_parts = [free.logits(x), maps.flatten(1), free.logits_of(maps)]
        fixed_parts = [(rest(first(x)) + fixed.logits(x)) / 2, halved.flatten(1), copied.features(x).flatten(1)]
        return torch.cat([*free_parts, *fixed_parts], 1)

    return rows


def _affine_rows(model: Small) -> Function:
    return _rows(model, *_affine_folds(model, None), affine=True)


def _plain_rows(model: GlobalPoolNetwork) -> Function:
    return _rows(model, *_plain_folds(model, None), affine=False)


def compose_tail(model: Small, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The last convolution and the linear layer as one convolution with a channel a class in place of K.

        w_c'[j] = sum_k w_k^c v_k[j],        b_c' = sum_k w_k^c b_k

    v_k and b_k are its filters and biases. The output is u times the CAM of eq. (1). The weights keep their graph.

    Args:
        weight: rows in the place of the linear layer's.

    Returns:
        w' (classes, c, k, k) and b' (classes,).
    """
    weight, bias = model.classifier.weight if weight is None else weight, model.conv3.bias
    offset = weight.new_zeros(len(weight)) if bias is None else weight @ bias
    return torch.einsum("ck,kijl->cijl", weight, model.conv3.weight), offset


@functools.cache
def pixel_shares(n: int, k: int, s: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """B[p, j] of `fold_tail` for an axis of n pixels, a kernel of k and stride s: (n, k)."""
    p, j, q = torch.arange(n)[:, None, None], torch.arange(k)[:, None], torch.arange(-(-n // s))
    return (s * q + j - same_padding(n, k, s)[0] == p).to(device, dtype).mean(2)


def fold_tail(model: Small, composed: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """M and m of f(x) = M vec(z) + m: the composed convolution, averaged over its output.

    With B[p, j] the share of output pixels whose filter element j meets input pixel p, for each axis,

        M_c[p, p'] = sum_{j, j'} B[p, j] w_c'[j, j'] B'[p', j'],        m_c = b_c' + b_c,

    b_c the linear layer's own bias, where it has one. The weights keep their graph.

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
    own = model.classifier.bias
    return matrix.flatten(1), bias if own is None else bias + own


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


def _fold(model: nn.Module, trunk: Function, composed=None, tail=None, weight: Tensor | None = None) -> Folded:
    """`Folded` from a trunk, `compose_tail` and `fold_tail`; without these from `features` in the place of a trunk.

    Args:
        weight: rows in the place of the linear layer's, for the maps.
    """
    own, bias = linear_parts(model)
    if tail is None and composed is None:
        rows = own if weight is None else weight
        return Folded(
            lambda x: F.linear(trunk(x).mean((2, 3)), own, bias),
            lambda x: pool_share(F.conv2d(trunk(x), rows[:, :, None, None])),
            bias,
        )
    stride = model.conv3.stride
    return Folded(
        lambda x: F.linear(trunk(x).permute(0, 2, 3, 1).flatten(1), *tail),
        lambda x: pool_share(same_conv2d(trunk(x), *composed, stride)),
        bias,
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
    if device_of(model).type == "cpu":
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


def device_of(model: nn.Module) -> torch.device:
    """The device of a network's first weight; the processor for one without weights."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The precision of a network's first weight; single for one without weights."""
    return next((p.dtype for p in model.parameters()), torch.float32)


_MODELESS = (SameConv2d, Block, *ARCHITECTURES.values(), nn.Conv2d, nn.Linear, nn.ReLU, nn.Sequential, nn.Identity,
             nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # fmt: skip


def depends_on_mode(model: nn.Module) -> bool:
    """Whether a network may be another function in training mode, as with dropout or batch statistics."""
    return any(type(module) not in _MODELESS for module in model.modules())


def fold_for_training(model: nn.Module, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]:
    """A network for one training step, its tail folded once: with a graph to the weights, and without.

    The loss is made of the first. The inner maximisation climbs the second, which has the weights of this moment:
    their gradients are neither computed nor kept. Both equal the network, with all derivatives that they have.

    A network with dropout or batch statistics is two functions. The first is the one of training mode, and takes one
    update of its running statistics a step: from the images that it sees first, the natural ones wherever the loss
    has them. The second is that of evaluation mode, as every attack is: it updates nothing, drops nothing, and every
    image is its own problem.

    Args:
        model: any classifier; one that keeps no contract (`check_contract`) has logits and no CAM.
        dtype: where given, the precision in which everything before the affine tail, or before the pool, is computed,
            forward and backward. Weights, maps and logits keep theirs. A number in bfloat16 has 8 significant bits;
            products are added up in 24. A processor with units for that (AMX) takes a half to a quarter of the time
            for large layers, other processors more than before.
    """
    if not isinstance(model, nn.Module):  # several networks, see `stack.Stack`
        return model.fold(dtype)
    keep_memory()
    if has_affine_tail(model):
        free, fixed = _affine_folds(model, dtype)
    elif is_foldable(model) and not depends_on_mode(model):
        free, fixed = _plain_folds(model, dtype)
    else:
        free, fixed = (_whole(network, dtype, model) for network in (model, frozen(model).eval()))
    return free, fixed._replace(differs=depends_on_mode(model))


def _affine_folds(model: Small, dtype: torch.dtype | None) -> tuple[Folded, Folded]:
    composed = compose_tail(model)
    tail = fold_tail(model, composed)
    detached = ([part.detach() for part in parts] for parts in (composed, tail))
    if dtype in (None, dtype_of(model)):
        fixed = compiled_trunk(model, lambda: fixed_copy(model).eval().trunk, fixed=True)
        trunk = compiled_trunk(model, lambda: tracked_once(model, model.trunk))
    else:
        trunk = mixed(tracked_once(model, model.trunk), dtype)
        fixed = in_dtype(fixed_copy(model).eval().to(dtype).trunk, dtype)
    free = _fold(model, trunk, composed, tail)
    return free, _fold(model, fixed, *detached)._replace(bias=None if free.bias is None else free.bias.detach())


def _plain_folds(model: GlobalPoolNetwork, dtype: torch.dtype | None) -> tuple[Folded, Folded]:
    plain = dtype in (None, dtype_of(model))
    return _fold(model, model.features if plain else mixed(model.features, dtype)), rearranged(
        model, dtype or dtype_of(model)
    )


def _whole(network: nn.Module, dtype: torch.dtype | None, model: nn.Module) -> Folded:
    """A network, or a frozen copy of it, as it is: its CAM where it has one, its logits in any case."""
    change = (lambda f: f) if dtype in (None, dtype_of(model)) else functools.partial(mixed, dtype=dtype)
    network = unwrapped(network)
    if not isinstance(network, GlobalPoolNetwork) or not keeps_contract(unwrapped(model)):

        def cam(x: Tensor) -> Tensor:
            check_contract(unwrapped(model), tuple(x.shape[1:]))
            return pool_share(F.conv2d(features(x), network.classifier.weight[:, :, None, None]))

        forward, features = (tracked_once(network, change(f)) for f in (network, getattr(network, "features", None)))
        return Folded(forward, cam, getattr(getattr(network, "classifier", None), "bias", None))
    return _fold(network, tracked_once(network, change(network.features)))


def tracked_once(model: nn.Module, function: Function) -> Function:
    """A function that updates a network's running statistics at its first call alone; the others use the batch's."""
    tracking = [module for module in model.modules() if getattr(module, "track_running_stats", False)]
    calls = 0

    def once(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            return function(x)
        for module in tracking:
            module.track_running_stats = False
        try:
            return function(x)
        finally:
            for module in tracking:
                module.track_running_stats = True

    return once if tracking else function


def keep_memory() -> None:
    """Makes glibc keep the memory of a pass for the next one.

    It hands freed memory back to the system once that is twice the largest block freed so far (of 32 MB at most),
    and an attack would fault all its pages in again at every step. This block is never touched.
    """
    torch.empty(28 * 2**20, dtype=torch.uint8)


def fold_logits(model: nn.Module) -> Function:
    """A function x -> logits (N, classes) equal to `model`, with the weights of this moment, detached.

    Its derivatives with respect to x, of any order, are those of `model`; weights get none. A module that is no
    `GlobalPoolNetwork`, or has no affine tail, or a hook, or whose fold is not what it does, is returned as it is.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    if not has_affine_tail(model):
        return model
    keep_memory()
    with torch.no_grad():
        return _fold(model, _fixed_trunk(model), tail=fold_tail(model)).logits


def _fixed_trunk(model: Small) -> Function:
    return compiled_trunk(model, lambda: fixed_copy(model).trunk, fixed=True)


def fold_cam(model: nn.Module, weight: Tensor | None = None) -> Function:
    """A function x -> CAMs of all classes, in units of eq. (1), with the weights of this moment, detached.

    It equals `interpreters.cam` for classes 0 .. C - 1; its sum over pixels is the logits, less the bias of the
    linear layer where it has one, so that an attack on both needs no second pass. In Small the last convolution and
    the linear layer become one, see `compose_tail`. Derivatives with respect to x, of any order, are the network's;
    weights get none.

    Args:
        model: a network with `features` and `classifier`; see `models`.
        weight: rows in the place of the linear layer's, (classes, K).

    Returns:
        A function from images (N, C, H, W) in [0, 1] to maps (N, classes, h, w).

    Raises:
        TypeError, ValueError: see `check_contract`; of a network without `input_shape` when it sees images.
    """
    model = unwrapped(model)
    with torch.no_grad():
        if has_affine_tail(model):
            return _fold(model, _fixed_trunk(model), compose_tail(model, weight)).cam
    if hasattr(model, "input_shape"):
        check_contract(model)
    fixed = frozen(model)
    maps = _fold(fixed, fixed.features, weight=weight).cam if hasattr(model, "input_shape") else None

    def cam(x: Tensor) -> Tensor:
        nonlocal maps
        if maps is None:
            check_contract(model, tuple(x.shape[1:]))
            maps = _fold(fixed, fixed.features, weight=weight).cam
        return maps(x)

    return cam


def pool_share(maps: Tensor) -> Tensor:
    """Every pixel's share in the mean over pixels: maps / u."""
    return maps / (maps.shape[2] * maps.shape[3])


def fold_after_first(model: nn.Module) -> tuple[nn.Module, Function]:
    """The logits in two steps, f(x) = rest(first(x)), `first` affine, with the weights of this moment.

    Along a straight path from a to x the affine step is computed at the ends only, first(a + t (x - a)) =
    first(a) + t (first(x) - first(a)), and gradients at many points of the path are summed before they are pulled
    back through it. For the networks of `models`, `first` is their first convolution; for others the identity.

    Args:
        model: any classifier.

    Returns:
        `first`, images -> (N, ...), and `rest`, that -> logits (N, classes).
    """
    if has_affine_tail(model) or is_foldable(model):
        return _after_first(model, has_affine_tail(model))
    return nn.Identity(), model


def _after_first(model: GlobalPoolNetwork, affine: bool) -> tuple[nn.Module, Function]:
    known = type(model).trunk in [m.trunk for m in ARCHITECTURES.values()] and isinstance(model.conv1, SameConv2d)
    first = FixedConv2d(model.conv1) if known else nn.Identity()
    replaced = {"conv1": nn.Identity()} if known else {}
    if affine:
        with torch.no_grad():
            return first, _fold(model, fixed_copy(model, **replaced).trunk, tail=fold_tail(model)).logits
    rest = copy.deepcopy(model, {id(getattr(model, name)): module for name, module in replaced.items()})
    return first, rest.requires_grad_(False)
