"""One training loss a method, with the objective that its inner maximisation climbs: the rows of the paper's tables.

A method differs from the others here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .attacks.pgd import Objective, cross_entropy
from .fold import fold_logits


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        loss: (model, x, y, x_adv) -> scalar, the batch mean that the weights descend; x_adv is x for a method
            without an inner maximisation.
        objective: (model, x, y) -> what x' climbs, (N,) for images (N, C, H, W); None for no inner maximisation.
    """

    loss: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
    objective: Callable[[nn.Module, Tensor, Tensor], Objective] | None


def loss_normal(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """-log softmax(f(x))_t: standard training."""
    return F.cross_entropy(model(x), y)


def loss_adv(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """-log softmax(f(x'))_t, x' climbing the same: adversarial training (Madry et al., 2018)."""
    return F.cross_entropy(model(x_adv), y)


def objective_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Objective:
    """x' -> -log softmax(f(x'))_t, on the folded network."""
    return cross_entropy(fold_logits(model), y)


METHODS = {
    "Normal": Method(loss_normal, None),
    "Adv": Method(loss_adv, objective_cross_entropy),
}
