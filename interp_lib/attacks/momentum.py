"""Momentum iterative FGSM of Dong et al. (2018): sign steps along a running sum of normalised gradients."""

import torch
from torch import Tensor, nn

from ..fast.fold import fold_for_attack
from ..models.predict import evaluating
from ..values import check_number
from .ascent import Direction, _ascend, check_attack, cross_entropy


def accumulated(decay: float) -> Direction:
    """Return the steps of MI-FGSM as a direction for one run of `ascent.projected_ascent`; it keeps the sum g."""
    total: float | Tensor = 0.0

    def direction(gradient: Tensor) -> Tensor:
        nonlocal total
        size = gradient.abs().sum((1, 2, 3), keepdim=True)
        total = decay * total + gradient / torch.where(size > 0, size, 1)
        return total.sign()

    return direction


def mifgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    decay: float = 1.0,
    targeted: bool = False,
) -> Tensor:
    """Run MI-FGSM and return its last iterate. The loss l is the cross-entropy of y.

        g^{k+1} = decay g^k + grad l(x^k) / ||grad l(x^k)||_1,        x^{k+1} = P( x^k + alpha sign(g^{k+1}) )

    Dong et al. take alpha = eps / steps and decay = 1. With decay 0 it is `pgd` without a random start.

    Args:
        model, x, y, eps, alpha, steps, targeted: as `projected_gradient_descent.pgd`.
        decay: weight of the sum so far, >= 0.

    Returns:
        x_adv (N, C, H, W), inside the ball and the box [0, 1].

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: Dong et al. (2018), Algorithm 1; in none of the paper's tables.
    """
    check_attack(model, x, y, eps=eps, alpha=alpha, steps=steps)
    check_number(decay, "decay", 0)
    with evaluating(model):
        objective = cross_entropy(fold_for_attack(model).logits, y, targeted=targeted)
        return _ascend(objective, x, eps=eps, alpha=alpha, steps=steps, direction=accumulated(decay))
