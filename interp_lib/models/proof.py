"""Compare a fold with its network before the fold is used, once per network structure."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .architectures import ARCHITECTURES, Block, SameConv2d

# Relative to the largest number. In double precision rounding stays below a millionth of this.
AGREES = {torch.float64: 1e-6, torch.float32: 1e-3}

Function = Callable[[Tensor], Tensor]

_SIMPLE = {int, bool, float, str, type(None)}

_BOOKKEEPING = {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}

_verdicts: dict[tuple, bool] = {}


def verdict(key: tuple, trial: Callable[[], bool | None]) -> bool:
    """Return whether a fast form of a function may be used: the result of a trial, which runs once for every key.

    Args:
        key: all that the result depends on, and what kind of trial it is.
        trial: returns whether the fast form equals the function; None, which is not stored, if it cannot tell.
    """
    if key not in _verdicts:
        if (result := trial()) is None:
            return False
        if len(_verdicts) > 256:  # keys keep hooks and types alive
            _verdicts.clear()
        _verdicts[key] = result
    return _verdicts[key]


def _setting(value):
    """Return what represents an attribute in `structure`: the value itself, if it can be compared and hashed."""
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
    """Describe a network without its weights: modules, types, settings, hooks, shapes. A copy has the same structure.

    Args:
        settings: include attributes that are numbers or strings; some networks change such an attribute at every call.
    """
    whole = nn.modules.module
    parts: list = [tuple(getattr(type(model), name, None) for name in ("trunk", "tail", "features"))]
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
    """Copy a network for a trial: double precision, evaluation mode, CPU, random noise of a tenth on its weights.

    The noise is there because weights that are 0, such as new biases, would hide an error in how a fold uses them.
    """
    copied = copy.deepcopy(model).to("cpu", dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.nan_to_num_(0, 0, 0)  # the verdict is about the structure, also when the weights have diverged
            size = float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.add_(noise, alpha=0.1 * (size or 1.0)).requires_grad_(True)
    return copied


def differences(one: Function, other: Function, x: Tensor, *weights: list[Tensor]) -> tuple[float, float]:
    """Measure how far two functions differ, relative to the largest number: in value, and in first derivatives.

    Args:
        x: the point of comparison, (N, C, H, W).
        weights: further tensors to differentiate with respect to, one list for each of the two functions.
    """
    results = []
    for function, own in zip((one, other), weights or ((), ()), strict=True):
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            z = x.clone().requires_grad_()
            value = function(z)
            probe = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=value.dtype)
            gradients = torch.autograd.grad((value * probe).sum(), [z, *own], allow_unused=True)
        parts = [
            value.detach(),
            *(torch.zeros_like(w) if g is None else g for g, w in zip(gradients, [z, *own], strict=True)),
        ]
        results.append([part.flatten() for part in parts])
    if results[0][0].shape != results[1][0].shape:
        return float("inf"), float("inf")
    # NaN in both comes from the network, not from the fold, and an attack reports it.
    pairs = [(a[keep], b[keep]) for a, b in zip(*results, strict=True) for keep in [~(a.isnan() & b.isnan())]]
    distances = [float((a - b).abs().max() / (a.abs().max() or 1)) if len(a) else 0.0 for a, b in pairs]
    return distances[0], float(torch.tensor(distances[1:]).amax())


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
    """Return whether a fold equals its network, in value and derivatives on random images, in double precision.

    The trial runs once per structure, on a `trial_copy`, so that changing weights, as in training, cost nothing: a
    fold's formulas are right for all weights or for none. Replaced layers, hooks, another padding or a changed forward
    make another structure. The network itself is neither called nor changed.

    Args:
        fold: network -> function of x; define it at module level, because it is part of the key of the stored verdict.
        own: network -> the function that the fold must equal.
        shape: (C, H, W) of an image. Default: `model.input_shape`.
        weights: compare the derivatives with respect to the weights as well.
        settings: see `structure`.
        untried: the verdict if the network itself fails on the trial images.
    """
    shape = tuple(shape or model.input_shape)

    def trial() -> bool:
        # Large images take long in double precision, and most networks accept small ones as well.
        small = tuple(shape[:1]) + tuple(min(n, 64) for n in shape[1:])
        result = None
        for size in dict.fromkeys((small, shape)):
            result = result or _try(model, fold, own, size, weights)
        return untried if result is None else result

    return verdict((fold, own, shape, weights, structure(model, settings)), trial)


@torch.enable_grad()  # the caller may be in `no_grad`, and derivatives are compared
def _try(model: nn.Module, fold, own, shape: tuple[int, ...], weights: bool) -> bool | None:
    """Return whether fold and network agree; None if the network itself runs in neither double nor single precision."""
    for dtype, rounding in AGREES.items():
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                own(trial_copy(model, dtype))(x)
            copies = trial_copy(model, dtype), trial_copy(model, dtype)  # new, as a run may change a copy
        except Exception:  # foreign code: it may refuse the shape, the dtype or the copy
            continue
        try:
            lists = [list(copied.parameters()) if weights else [] for copied in copies]
            distances = differences(own(copies[0]), fold(copies[1]), x, *lists)
        except Exception:  # the fold does not fit this network
            return False
        return all(value < rounding for value in distances)  # False for NaN
    return None


def hooked(module: nn.Module) -> bool:
    """Return whether a module has hooks, which may see or change its output or gradient: then it must be called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's first weight; the CPU if it has no weights."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the dtype of a network's first weight; float32 if it has no weights."""
    return next((p.dtype for p in model.parameters()), torch.float32)


_MODELESS = (
    SameConv2d,
    Block,
    *ARCHITECTURES.values(),
    nn.Conv2d,
    nn.Linear,
    nn.ReLU,
    nn.Sequential,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)


def depends_on_mode(model: nn.Module) -> bool:
    """Return whether a network may compute another function in training mode, as with dropout or batch statistics."""
    return any(type(module) not in _MODELESS for module in model.modules())
