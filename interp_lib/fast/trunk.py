"""Decide whether the trunk of a network is computed by the compiled layers, and hold these to the plain trunk."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models.architectures import SameConv2d, Small, same_conv2d
from ..models.proof import AGREES, Function, differences, verdict
from .compiled import library
from .trunk_layers import FIRST, SECOND, Layers, _trunk


class CompiledTrunk:
    """The trunk of a Small with its current weights, images (N, C, H, W) -> (N, 32, h, w).

    PyTorch computes it inside torch.func's transforms, and for inputs that it would refuse.

    Args:
        conv1, conv2: the two layers.
        fixed: differentiate with respect to x only; else weights that require gradients get them.
    """

    def __init__(self, conv1: SameConv2d, conv2: SameConv2d, fixed: bool = False):
        self.layers = Layers(conv1, conv2)
        self.weights = () if fixed else (conv1.weight, conv1.bias, conv2.weight, conv2.bias)

    def __call__(self, x: Tensor) -> Tensor:
        known = x.dtype == torch.float32 and x.device.type == "cpu" and x.dim() == 4
        if known and x.shape[1] == self.layers.colours and not torch._C._are_functorch_transforms_active():
            return _trunk(x, self.layers, self.weights)
        weight1, bias1, weight2, bias2 = self.weights or self.layers.unpacked()
        stride1, stride2 = ((s, s) for s in self.layers.strides)
        return same_conv2d(same_conv2d(x, weight1, bias1, stride1).relu(), weight2, bias2, stride2).relu()


def _fits(model: nn.Module) -> bool:
    """Return whether the two layers are of the kind that `trunk.cpp` supports, in single precision on the CPU."""
    conv1, conv2 = getattr(model, "conv1", None), getattr(model, "conv2", None)
    return (
        getattr(getattr(model, "trunk", None), "__func__", None) is Small.trunk
        and type(conv1) is type(conv2) is SameConv2d
        and (conv1.out_channels, conv2.in_channels, conv2.out_channels) == (FIRST, FIRST, SECOND)
        and conv1.in_channels in (1, 3)
        and conv1.kernel_size == (4, 4)
        and conv2.kernel_size[0] == conv2.kernel_size[1]
        and all(c.stride[0] == c.stride[1] and c.groups == 1 and c.dilation == (1, 1) for c in (conv1, conv2))
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for c in (conv1, conv2) for p in c.parameters())
    )


def _twice(trunk: Function) -> Function:
    """Return x -> the trunk's output and a first derivative like that in IG-Norm, which has derivatives itself."""

    def rows(x: Tensor) -> Tensor:
        h = trunk(x)
        (dx,) = torch.autograd.grad((h * h).sum() / 2, x, create_graph=True)
        return torch.cat([h.flatten(1), dx.flatten(1)], 1)

    return rows


def _agrees(conv1: SameConv2d, conv2: SameConv2d, shape: tuple[int, ...]) -> bool:
    """Return whether compiled and PyTorch layers of these shapes agree; tried once per shape, with random weights."""
    biases = conv1.bias is not None, conv2.bias is not None

    def trial() -> bool:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            one, two = (
                SameConv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, bias=b)
                for c, b in zip((conv1, conv2), biases, strict=True)
            )
        weights = [*one.parameters(), *two.parameters()]
        x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        plain = _twice(lambda x: two(one(x).relu()).relu())
        missed = differences(plain, _twice(CompiledTrunk(one, two)), x, weights, weights)
        return all(part <= AGREES[torch.float32] for part in missed)  # False for NaN

    key = (*conv1.weight.shape, *conv2.weight.shape, *conv1.stride, *conv2.stride, *biases)
    return verdict(("trunk", key, shape), trial)


def compiled_trunk(model: nn.Module, otherwise: Callable[[], Function], *, fixed: bool = False) -> Function:
    """Return `model.trunk` with the current weights, a `CompiledTrunk` where that is possible.

    Args:
        model: a Small; any other network gets `otherwise()`.
        otherwise: makes the trunk with PyTorch, for when it cannot be compiled.
        fixed: see `CompiledTrunk`.
    """
    if not _fits(model) or library() is None or not _agrees(model.conv1, model.conv2, tuple(model.input_shape)):
        return otherwise()
    return CompiledTrunk(model.conv1, model.conv2, fixed)
