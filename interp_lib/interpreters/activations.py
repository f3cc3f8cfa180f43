"""Replace ReLU, in the forward or the backward pass, without changing the network."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# The ways to write max(x, 0) as PyTorch's functions, which `ReplacedRelu` intercepts.
_RELU = {torch.relu, Tensor.relu, torch.relu_, Tensor.relu_, F.relu, F.relu_}

_CLAMP = {
    torch.clamp,
    torch.clip,
    torch.clamp_min,
    Tensor.clamp,
    Tensor.clip,
    Tensor.clamp_min,
    torch.clamp_,
    torch.clip_,
    torch.clamp_min_,
    Tensor.clamp_,
    Tensor.clip_,
    Tensor.clamp_min_,
}

_THRESHOLD = {torch.threshold, torch.threshold_, F.threshold, F.threshold_}

_ATEN = torch.ops.aten

# The same as kernels (aten), for `Rectifiers`: these include calls that `ReplacedRelu` misses, in scripted code or
# as maximum(x, 0).
_RECTIFIERS = {
    _ATEN.relu,
    _ATEN.relu_,
    _ATEN.clamp,
    _ATEN.clamp_,
    _ATEN.clamp_min,
    _ATEN.clamp_min_,
    _ATEN.threshold,
    _ATEN.threshold_,
    _ATEN.maximum,
}

# A comparison with zero, of which x * (x > 0) and where(x > 0, x, 0) are made.
_COMPARISONS = {_ATEN.gt, _ATEN.ge, _ATEN.lt, _ATEN.le}

_OTHERS = {
    _ATEN.silu,
    _ATEN.silu_,
    _ATEN.gelu,
    _ATEN.hardtanh,
    _ATEN.hardtanh_,
    _ATEN.hardswish,
    _ATEN.hardswish_,
    _ATEN.elu,
    _ATEN.leaky_relu,
    _ATEN.leaky_relu_,
    _ATEN.tanh,
    _ATEN.sigmoid,
    _ATEN.softplus,
    _ATEN.abs,
    _ATEN.where,
}


def _is_zero(value) -> bool:
    return isinstance(value, int | float) and value == 0 or (isinstance(value, Tensor) and not value.any())


def _rectified(func: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, bool] | None:
    """Return the input of a call of max(x, 0) and whether it works in place; None for any other call."""
    if func not in _RELU | _CLAMP | _THRESHOLD:
        return None
    x = args[0] if args else kwargs.get("input")
    more = args[1:]
    in_place = func.__name__.endswith("_")
    if func in _RELU:
        return x, in_place or bool(kwargs.get("inplace", more and more[0]))
    if func in _THRESHOLD:
        limits = (*more, *(kwargs[key] for key in ("threshold", "value") if key in kwargs))
        return (x, in_place or bool(kwargs.get("inplace", more[2:] and more[2]))) if limits[:2] == (0, 0) else None
    low, high = (kwargs.get(key, more[i] if len(more) > i else None) for i, key in enumerate(("min", "max")))
    return (x, in_place) if high is None and isinstance(low, int | float) and low == 0 else None


class ReplacedRelu(TorchFunctionMode):
    """Context in which every ReLU is another function, for any network that runs in this thread.

    It replaces every call of max(x, 0) by `activation`: relu as a function, a method or a layer, in place or not,
    `clamp(min=0)` and `threshold(x, 0, 0)`. The network is not changed, and leaving the context, also by an exception,
    undoes the replacement. Some calls it cannot see, as in a scripted network; `check_rectifiers` detects these.

    Attributes:
        replaced: number of calls replaced so far.
    """

    def __init__(self, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation, self.replaced = activation, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        rectified = _rectified(func, args, kwargs or {})
        if rectified is None:
            return func(*args, **(kwargs or {}))
        self.replaced += 1
        x, in_place = rectified
        # PyTorch switches the mode off inside this method, so `activation` may itself call clamp.
        if not in_place:
            return self.activation(x)
        return x.copy_(self.activation(x.clone()))  # clone: backward needs the input, which copy_ overwrites


class Rectifiers(TorchDispatchMode):
    """Context that records which activations reach PyTorch's kernels.

    Attributes:
        rectifiers: number of calls of max(x, 0), and of comparisons with zero, by which it is written as well.
        others: names of other activations that were called.
    """

    def __init__(self):
        super().__init__()
        self.rectifiers, self.others = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if packet in _COMPARISONS:
            with torch.no_grad():
                self.rectifiers += _is_zero(args[1])
        elif packet in _RECTIFIERS:
            with torch.no_grad():
                # max(x, 0) has the lower bound 0 and, checked below, no upper bound: clamp(0, 1) is no ReLU.
                relu = packet in (_ATEN.relu, _ATEN.relu_) or any(map(_is_zero, args[1:2]))
                if packet is _ATEN.maximum:
                    relu = any(map(_is_zero, args[:2]))
            self.rectifiers += relu and not (packet in (_ATEN.clamp, _ATEN.clamp_) and args[2:] and args[2] is not None)
        elif packet in _OTHERS:
            self.others.add(packet.__name__.rstrip("_"))
        return func(*args, **(kwargs or {}))


def check_rectifiers(network: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Refuse a network in which `ReplacedRelu` misses a ReLU, or which has other activations and no ReLU.

    Args:
        network: images -> logits, in evaluation mode.
        x: an image, (1, C, H, W).

    Raises:
        ValueError: names the calls or activations that are not replaced.
    """
    with torch.no_grad():
        with Rectifiers() as seen:
            network(x)
        with ReplacedRelu(ACTIVATIONS["relu"]) as replaced:
            network(x)
    if replaced.replaced < seen.rectifiers:
        raise ValueError(
            f"{seen.rectifiers - replaced.replaced} of {seen.rectifiers} calls of max(x, 0) in the network cannot be "
            "replaced, so that this map would be of another function. Write them as nn.ReLU, without scripting and "
            "without comparing with zero."
        )
    if not replaced.replaced and seen.others:
        raise ValueError(
            f"this map replaces ReLUs, and the network has none: it has {', '.join(sorted(seen.others))}. Take "
            "vanilla_gradient, or integrated_gradients with activation='relu'."
        )


class GuidedRelu(torch.autograd.Function):
    """ReLU whose backward pass lets a gradient pass only where both the input and the gradient are positive."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return dy.clamp(min=0) * (x > 0)


class DeconvolutionRelu(torch.autograd.Function):
    """ReLU whose backward pass applies ReLU to the incoming gradient, whatever the input was."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.clamp(min=0)


ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "softplus": F.softplus,
    "softplus_20": partial(F.softplus, beta=20),
    "guided": GuidedRelu.apply,
    "deconvolution": DeconvolutionRelu.apply,
}
