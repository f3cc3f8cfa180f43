"""What is folded proves itself: once a structure, against the network itself."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import capturing
from .architectures import ARCHITECTURES, Block, SameConv2d

AGREES = 1e-6  # of the largest number, in double precision: rounding stays below a millionth of that

Function = Callable[[Tensor], Tensor]

_SIMPLE = {int, bool, float, str, type(None)}

_BOOKKEEPING = {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}

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


def hooked(module: nn.Module) -> bool:
    """Whether a hook may see or change what a module returns, or its gradient: then the module itself is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


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
