"""The library's contracts, checked once at every entry point: images, labels, perturbation sizes, the device.

An error message says what was expected, what was given and what to do.
"""

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from .values import came, check_whole


class NotANumber(ValueError):
    """A network returned NaN or infinity where a finite number is needed."""


def check_numbers(values: Tensor, what: str) -> None:
    """Refuse values (N, ...) with NaN or infinity; the message names the first image that has one.

    An accuracy would otherwise count such an image as right, or as wrong, for no reason.

    Raises:
        NotANumber: some values are NaN or infinite.
    """
    wrong = ~values.detach().flatten(1).isfinite().all(1) if values.dim() > 1 else ~values.detach().isfinite()
    if wrong.any():
        first, many = int(wrong.nonzero()[0]), int(wrong.sum())
        raise NotANumber(
            f"{what} of image {first} is NaN or infinite ({many} of {len(wrong)} images); look for weights or a "
            "layer that give it."
        )


def check_logits(logits: Tensor, name: str = "logits") -> None:
    """Refuse anything but floating-point logits (N, classes).

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong rank.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor (N, classes); got {came(logits)}.")
    if logits.dim() != 2:
        raise ValueError(f"{name} must have shape (N, classes); got {tuple(logits.shape)}.")


def check_pair(a: Tensor, b: Tensor, name: str, rank: int) -> None:
    """Refuse two sets of maps or scores with different shapes, fewer than `rank` axes, or another type.

    Raises:
        TypeError: not two floating-point tensors.
        ValueError: different shapes or too few axes; names both shapes.
    """
    for tensor in (a, b):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating-point tensors; got {came(tensor)}.")
    if a.shape != b.shape or a.dim() < rank:
        axes = {1: "(..., E)", 2: "(N, ...)", 3: "(N, k, h, w), k the number of classes"}[rank]
        advice = " Write maps[:, None] where the axis of classes is missing." if rank == 3 else ""
        raise ValueError(f"{name} must have one shape {axes}; got {tuple(a.shape)} and {tuple(b.shape)}.{advice}")


def check_images(x: Tensor, name: str = "x") -> None:
    """Refuse anything but finite floating-point images (N, C, H, W) in [0, 1].

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong rank, not finite, or out of range.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor; got {came}. Use x.float() / 255 on bytes.")
    if x.dim() != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W); got {tuple(x.shape)}. Add the missing axis.")
    if x.numel() == 0:
        return
    low, high = (float(v) for v in x.detach().aminmax())  # NaN propagates, so one pass checks everything
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} must be finite; it holds NaN or infinity.")
    if low < 0 or high > 1:
        advice = "Divide bytes by 255." if high > 50 else "Put normalisation inside the model."
        raise ValueError(f"{name} must lie in [0, 1]; got min {low:.3g} and max {high:.3g}. {advice}")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside `nn.DataParallel` and `torch.compile`, which do not change the function it computes."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.Module) and "_orig_mod" in model._modules:
            model = model._orig_mod
        else:
            return model


def class_count(model: Callable[[Tensor], Tensor]) -> int | None:
    """Return the number of classes that a network declares as `num_classes`; None if it declares none."""
    return getattr(unwrapped(model), "num_classes", None)


def check_batch(model: Callable[[Tensor], Tensor], x: Tensor, *labels: Tensor) -> None:
    """Refuse images, and labels if there are any, that the network cannot take.

    Args:
        x: images; the network's own `check_input`, if it has one, checks more than `check_images`.
        labels: y or nothing: labels, see `check_labels`, below the network's `class_count`.

    Raises:
        TypeError, ValueError: see `check_images` and `check_labels`.
    """
    getattr(model, "check_input", check_images)(x)  # `check_input` calls `check_images`
    for y in labels:  # not `y=None`: a label that is None is refused
        check_labels(y, len(x), class_count(model))


def check_labels(y: Tensor, n: int, num_classes: int | None = None, name: str = "y") -> None:
    """Refuse anything but int64 labels (n,) in 0 .. num_classes - 1.

    Raises:
        TypeError: not an int64 tensor.
        ValueError: wrong shape or a label out of range.
    """
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        came = f"dtype {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{name} must be an int64 tensor of labels; got {came}. Use y.long().")
    if y.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one label per image; got {tuple(y.shape)}.")
    if n and (int(y.min()) < 0 or (num_classes is not None and int(y.max()) >= num_classes)):
        raise ValueError(
            f"{name} must lie in 0 .. {'C - 1' if num_classes is None else num_classes - 1}; "
            f"got {int(y.min())} .. {int(y.max())}."
        )


def check_step_sizes(*, eps: float | Tensor, alpha: float | Tensor, steps: int, largest: float = 1.0) -> None:
    """Refuse a perturbation size outside [0, largest], a negative step size or a negative number of steps.

    Args:
        eps: radius in the unit of the pixels, a number or one per image, (N,).
        alpha: step size, a number or one per image, (N,).
        largest: the largest radius that makes sense: 1 in l-infinity, in the unit of the pixels.

    Raises:
        TypeError, ValueError: names the argument.
    """
    for value, name in ((eps, "eps"), (alpha, "alpha")):
        if isinstance(value, bool) or not isinstance(value, Real | Tensor):
            raise TypeError(f"{name} must be a number or a tensor of one number per image; got {came(value)}.")
    check_whole(steps, "steps")
    if any(isinstance(value, Tensor) and value.numel() == 0 for value in (eps, alpha)):
        return  # no images, hence no radii; aminmax would fail
    low, high = (float(v) for v in torch.as_tensor(eps, dtype=torch.float64).aminmax())
    if not 0 <= low <= high <= largest:
        raise ValueError(
            f"eps must lie in [0, {largest:g}], the unit of the pixels; got {low:g} .. {high:g}. Write 8/255, not 8."
        )
    low, high = (float(v) for v in torch.as_tensor(alpha, dtype=torch.float64).aminmax())
    if not (0 <= low and math.isfinite(high)):
        raise ValueError(f"alpha must be a finite step size >= 0; got {low:g} .. {high:g}.")


def use_device(device: str | None = None) -> str:
    """Set up and return the device to compute on: the requested one, else CUDA if it is available, else the CPU.

    On a GPU convolutions are restricted to full float32 and to deterministic algorithms. By default cuDNN would use
    10 bits of mantissa (TF32), while single images of the tables depend on the last of float32's 23 bits.

    Raises:
        ValueError: the device does not exist.
    """
    has_cuda = torch.cuda.is_available()
    device = device or ("cuda" if has_cuda else "cpu")
    kind, colon, index = str(device).partition(":")
    numbered = kind == "cuda" and index.isdecimal() and int(index) < torch.cuda.device_count()
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not has_cuda) or (colon and not numbered):
        raise ValueError(
            f"device must be cpu{' or cuda' if has_cuda else ', PyTorch sees no CUDA here'}; got {device!r}."
        )
    if kind == "cuda":
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return str(device)


def check_classes(classes: Tensor, n: int, num_classes: int | None = None, name: str = "classes") -> None:
    """Refuse anything but int64 classes (n, k), k classes per image, in 0 .. num_classes - 1.

    Raises:
        TypeError: not an int64 tensor.
        ValueError: wrong shape or a class out of range.
    """
    if isinstance(classes, Tensor) and classes.dtype == torch.int64 and (classes.dim() != 2 or len(classes) != n):
        raise ValueError(
            f"{name} must have shape ({n}, k), k classes per image; got {tuple(classes.shape)}. "
            "Write y[:, None] for the true class."
        )
    flat = classes.flatten() if isinstance(classes, Tensor) else classes
    check_labels(flat, flat.numel() if isinstance(flat, Tensor) else n, num_classes, name)
