"""One training step's two folds of a network: with a graph to its weights, and without."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models.architectures import GlobalPoolNetwork, Small
from ..models.proof import Function, device_of, dtype_of
from .parts import Folded, assemble, compose_tail, fixed_copy, fold_tail, frozen
from .trunk import compiled_trunk


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
    return assemble(copied, in_dtype(copied.features, dtype))


def in_dtype(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function with its argument in another precision and the channels as the fastest axis, its result as before."""
    return lambda x: function(x.contiguous(memory_format=torch.channels_last).to(dtype)).to(x.dtype)


def mixed(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function of weights in single precision, its convolutions computed in another; see `torch.autocast`."""

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return function(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    return autocast


def affine_folds(model: Small, dtype: torch.dtype | None) -> tuple[Folded, Folded]:
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
