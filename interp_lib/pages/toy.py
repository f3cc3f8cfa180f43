"""Solve the min-max problem (9) on an image of two pixels, small enough to draw and to follow by hand."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..attacks.ascent import projected_ascent
from ..attacks.interpretability_sneaking import margin
from ..discrepancies import target_free_discrepancy
from ..fast.fold import fold_cam
from ..models.architectures import GlobalPoolNetwork
from ..training.methods import METHODS


class TwoPixels(GlobalPoolNetwork):
    """A linear classifier f_c(x) = 1/2 sum_i w_i^c (x_i - 1/2), whose CAM is the contribution of each pixel.

    Feature map k is x - 1/2 at pixel k and 0 at the other, so that eq. (1) gives [L(x, c)]_i = 1/2 w_i^c (x_i - 1/2).

    Args:
        weight: w, (classes, 2), one row per class.
    """

    name = "two pixels"

    def __init__(self, weight: Sequence[Sequence[float]]):
        super().__init__((1, 1, 2), 2, len(weight))
        self.classifier.weight.data = torch.tensor(weight, dtype=torch.float64)

    def trunk(self, x: Tensor) -> Tensor:
        # Row k of the identity selects pixel k: (N, 1, 1, 2) * (2, 1, 2) -> (N, 2, 1, 2).
        return (x - 0.5) * torch.eye(2, dtype=x.dtype)[:, None, :]


def two_pixels(*values: float) -> Tensor:
    """Make an image of two pixels, (1, 1, 1, 2)."""
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 2)


def discrepancy_at(model: GlobalPoolNetwork, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """Compute D~(x, x') of eq. (8), in its units, for one image x and many x' (M, 1, 1, 2): (M,)."""
    cam = fold_cam(model)
    with torch.no_grad():
        maps, maps_adv = cam(x), cam(x_adv)
        many = maps.expand_as(maps_adv)
        # Without a bias the CAM sums to the logit, so the sum over pixels is f(x').
        return target_free_discrepancy(many, maps_adv, y.expand(len(x_adv)), maps_adv.sum((2, 3)))


def margin_at(model: GlobalPoolNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Compute the margin of the class (1,) of images (N, 1, 1, 2): (N,), negative where it is not the prediction."""
    with torch.no_grad():
        return margin(model(x), y.expand(len(x)))


def grid(x: Tensor, eps: float, side: int = 61) -> Tensor:
    """Make a grid over the ball around an image of two pixels: (side * side, 1, 1, 2); the first pixel varies fastest.

    eps is the radius of the l-infinity ball.
    """
    step = torch.linspace(-eps, eps, side, dtype=x.dtype)
    second, first = torch.meshgrid(step, step, indexing="ij")
    return x + torch.stack([first, second], -1).view(-1, 1, 1, 2)


def climb(
    model: GlobalPoolNetwork, x: Tensor, y: Tensor, start: Tensor, *, eps: float, alpha: float, steps: int
) -> Tensor:
    """Run the inner maximisation of Int on one image and return all iterates, the start first, (steps + 1, 2)."""
    objective = METHODS["Int"](model, x, y).objective
    assert objective is not None  # Int has an inner maximisation
    ascent = projected_ascent(objective, x, eps=eps, alpha=alpha, steps=steps, start=start)
    return torch.cat([start, *ascent]).view(-1, 2)


def descend(
    model: GlobalPoolNetwork,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    *,
    gamma: float,
    rate: float,
    updates: int,
    eps: float,
    alpha: float,
    steps: int,
) -> list[TwoPixels]:
    """Run gradient descent on eq. (9) for one image; return the network before the first update and after each one.

    Args:
        gamma: gamma of eq. (9), in the units of eq. (8); 0 is normal training.
        rate: learning rate.
        updates: number of updates.
        start, eps, alpha, steps: settings of the inner maximisation, see `climb`.
    """
    model, networks = copy.deepcopy(model), []
    released_gamma = gamma / (2 * x.numel())  # METHODS follow the release: D~ without 1/2 and 1/u
    for _ in range(updates):
        networks.append(copy.deepcopy(model))
        x_adv = climb(model, x, y, start, eps=eps, alpha=alpha, steps=steps)[-1].view_as(x)
        loss = METHODS["Int"](model, x, y, released_gamma).loss(x_adv).mean()
        (gradient,) = torch.autograd.grad(loss, model.classifier.weight)
        model.classifier.weight.data -= rate * gradient
    return [*networks, model]


def landscape(
    model: GlobalPoolNetwork,
    x: Tensor,
    y: Tensor,
    starts: Sequence[Tensor],
    *,
    eps: float,
    alpha: float,
    steps: int,
    side: int = 61,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Compute the data of `training_figures.landscapes`: D~ and margin over the ball, and one ascent per start.

    D~ and the margin are grids (side, side); an ascent is (steps + 1, 2).
    """
    points = grid(x, eps, side)
    values = discrepancy_at(model, x, y, points).view(side, side)
    margins = margin_at(model, points, y).view(side, side)
    paths = [climb(model, x, y, start, eps=eps, alpha=alpha, steps=steps) for start in starts]
    return values, margins, paths
