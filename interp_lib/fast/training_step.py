"""The two folds of a network that a training step uses: one with a graph to the weights, one without."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models.architectures import GlobalPoolNetwork
from ..models.proof import Function, device_of, dtype_of
from .parts import Folded, assemble, compose_tail, fixed_copy, fold_tail, frozen
from .trunk import compiled_trunk


def rearranged(model: GlobalPoolNetwork, dtype: torch.dtype) -> Folded:
    """Fold a network without an affine tail, its current weights detached, for many input gradients.

    On a CPU a max-pool in channels_last takes a sixteenth of its time, and some convolutions are faster as
    `FixedConv2d`. Forward and backward pass together take 0.6 of their time in Pool and 0.85 in WResnet;
    `benchmarks/training.py --model pool` measures whole training steps. The rounding differs from the plain network's.
    The attacks of the tables keep the plain network, because single images of Pool's tables depend on its rounding.
    """
    if device_of(model).type == "cpu":
        copied = fixed_copy(model, gaining=True).to(memory_format=torch.channels_last)
    else:
        copied = frozen(model)
    copied.to(dtype).classifier = frozen(model.classifier)  # keeps the precision of the weights
    return assemble(copied, in_dtype(copied.features, dtype))


def in_dtype(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Call a function in another precision and channels_last, and return its result in the precision of x."""
    return lambda x: function(x.contiguous(memory_format=torch.channels_last).to(dtype)).to(x.dtype)


def mixed(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Call a function with single-precision weights under `torch.autocast`: its convolutions run in `dtype`."""

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return function(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    return autocast


def affine_folds(model: GlobalPoolNetwork, dtype: torch.dtype | None) -> tuple[Folded, Folded]:
    composed = compose_tail(model)
    tail = fold_tail(model, composed)
    detached = ([part.detach() for part in parts] for parts in (composed, tail))
    if dtype in (None, dtype_of(model)):
        fixed = compiled_trunk(model, lambda: fixed_copy(model).eval().trunk, fixed=True)
        trunk = compiled_trunk(model, lambda: tracked_once(model, model.trunk))
    else:
        trunk = mixed(tracked_once(model, model.trunk), dtype)
        fixed = in_dtype(fixed_copy(model).eval().to(dtype).trunk, dtype)
    free = assemble(model, trunk, composed, tail)
    return free, assemble(model, fixed, *detached)._replace(bias=None if free.bias is None else free.bias.detach())


def plain_folds(model: GlobalPoolNetwork, dtype: torch.dtype | None) -> tuple[Folded, Folded]:
    plain = dtype in (None, dtype_of(model))
    return assemble(model, model.features if plain else mixed(model.features, dtype)), rearranged(
        model, dtype or dtype_of(model)
    )


def tracked_once(model: nn.Module, function: Function) -> Function:
    """Update a network's running statistics at the first call of a function only; later calls use the batch's own."""
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
