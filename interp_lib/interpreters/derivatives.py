"""Check autograd's derivative of a map against central differences in float64."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]


class DerivativeError(NamedTuple):
    """Deviation of autograd from central differences, see `derivative_errors`; None if autograd gives no derivative."""

    median: float | None
    largest: float | None


def derivative_errors(
    maps: Maps, model: nn.Module, x: Tensor, classes: Tensor, *, directions: int = 9, step: float = 1e-7
) -> tuple[DerivativeError, DerivativeError]:
    """Return the relative errors of a map's directional derivatives, with respect to x and to the weights.

        | <grad, v> - (F(z + h v) - F(z - h v)) / 2h |  over the root mean square of the second,

    F is a random linear functional of the map, v are random directions. If a ReLU switches between the two ends, a map
    that is computed from gradients jumps, and that difference says nothing about the derivative. The median error is
    robust against such a jump; the largest error is not.

    Args:
        maps: (model, x, classes) -> maps of any shape, with a graph if they have one.
        model: in double precision; its weights are moved and moved back.
        x: float64 images, far enough from 0 and 1 for a step of `step`.
        classes: int64 (N, k).
        directions: number of directions.
        step: h, in units of the standard deviation of the tensor that is moved.

    Returns:
        The errors with respect to x and to the weights. If all differences are 0, as for a piecewise constant map, the
        error is absolute.

    Raises:
        ValueError: x is not float64.
    """
    if x.dtype != torch.float64:
        raise ValueError(f"finite differences need float64; got {x.dtype}.")
    generator = torch.Generator().manual_seed(1)
    x = x.clone().requires_grad_()
    weights = list(model.parameters())
    output = maps(model, x, classes)
    probe = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    try:
        every = torch.autograd.grad((output * probe).sum(), [x, *weights], allow_unused=True)
    except RuntimeError:  # the map has no graph
        every = [None] * (1 + len(weights))

    def difference(tensors: list[Tensor], moves: list[Tensor]) -> float:
        ends: list[float] = []
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            for sign in (1, -2):  # to z + hv, then to z - hv
                with torch.no_grad():
                    for tensor, move in zip(tensors, moves, strict=True):
                        tensor.add_(move, alpha=sign * step)
                ends.append(float((maps(model, x, classes).detach() * probe).sum()))
        finally:  # the caller's weights, to the bit, also after an error
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
        return (ends[0] - ends[1]) / (2 * step)

    errors = []
    for tensors, gradients in (([x], every[:1]), (weights, every[1:])):
        known, numeric = [], []
        for _ in range(directions):
            moves = [torch.randn(t.shape, generator=generator, dtype=t.dtype) * t.detach().std() for t in tensors]
            numeric.append(difference(tensors, moves))
            parts = [(g * m).sum() for g, m in zip(gradients, moves, strict=True) if g is not None]
            known.append(float(sum(parts)) if parts else None)
        errors.append(_compared(known, numeric))
    of_images, of_weights = errors
    return of_images, of_weights


def _compared(known: list[float | None], numeric: list[float]) -> DerivativeError:
    """Compare autograd with the differences; None if autograd gives no derivative although it is not 0."""
    truth = torch.tensor(numeric, dtype=torch.float64)
    size = float(truth.square().mean().sqrt())
    if known[0] is None and size:
        return DerivativeError(None, None)
    derivatives = torch.tensor([value or 0.0 for value in known], dtype=torch.float64)
    errors = (derivatives - truth).abs() / (size or 1)
    return DerivativeError(float(errors.median()), float(errors.max()))
