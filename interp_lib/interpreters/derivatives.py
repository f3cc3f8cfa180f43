"""Whether the derivative that autograd gives of a map is the map's derivative: central differences in float64."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]


class DerivativeError(NamedTuple):
    """How far autograd is from central differences, see `derivative_errors`; None where autograd gives nothing."""

    median: float | None
    largest: float | None


def derivative_errors(
    maps: Maps, model: nn.Module, x: Tensor, classes: Tensor, *, directions: int = 9, step: float = 1e-7
) -> tuple[DerivativeError, DerivativeError]:
    """Relative errors of the directional derivatives of a map with respect to x and to the weights.

        | <grad, v> - (F(z + h v) - F(z - h v)) / 2h |  over the root mean square of the second,

    F a random linear functional of the map, v random directions. Where a ReLU switches between the two ends, a map
    made of gradients jumps, and that one difference says nothing: the median is robust against it, the largest not.

    Args:
        maps: (model, x, classes) -> maps of any shape, with their graph where they have one.
        model: in double precision; its weights are moved and put back.
        x: float64 images, far enough from 0 and 1 for a step of `step`.
        classes: int64 (N, k).
        directions: number of directions.
        step: h, times the standard deviation of what is moved.

    Returns:
        The errors at x and at the weights. A map that is piecewise constant has the derivative 0, and the error is
        then absolute.

    Raises:
        ValueError: another precision.
    """
    if x.dtype != torch.float64:
        raise ValueError(f"finite differences need float64; got {x.dtype}.")
    generator = torch.Generator().manual_seed(1)
    x = x.clone().requires_grad_()
    weights = list(model.parameters())
    made = maps(model, x, classes)
    probe = torch.randn(made.shape, generator=generator, dtype=made.dtype)
    try:
        every = torch.autograd.grad((made * probe).sum(), [x, *weights], allow_unused=True)
    except RuntimeError:  # the map has no graph
        every = [None] * (1 + len(weights))

    def difference(tensors: list[Tensor], moves: list[Tensor]) -> float:
        ends = []
        for sign in (1, -2, 1):  # forth, back, and home
            with torch.no_grad():
                for tensor, move in zip(tensors, moves, strict=True):
                    tensor.add_(move, alpha=sign * step)
            if len(ends) < 2:
                ends.append(float((maps(model, x, classes).detach() * probe).sum()))
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
    return tuple(errors)


def _compared(known: list[float | None], numeric: list[float]) -> DerivativeError:
    """None only where autograd is silent about a derivative that is there."""
    truth = torch.tensor(numeric, dtype=torch.float64)
    size = float(truth.square().mean().sqrt())
    if known[0] is None and size:
        return DerivativeError(None, None)
    found = torch.tensor([value or 0.0 for value in known], dtype=torch.float64)
    apart = (found - truth).abs() / (size or 1)
    return DerivativeError(float(apart.median()), float(apart.max()))
