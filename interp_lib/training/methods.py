"""Training methods: for each, the loss minimised over the weights and the objective maximised over x'.

Training is a min-max problem, eq. (9): for every batch, x' maximises an objective inside the ball around x, and the
weights then minimise a loss at that x'. A method is these two functions and nothing else; `training.fit` is the one
loop for all methods. Eight of the methods are in the paper's tables.

Four settings follow the released code, which made the tables, and not the text:

* Int's discrepancy is a plain sum over the CAM's u pixels without the factor 1/2 of eq. (8): in the units of eqs. (1)
  and (8) the weight gamma = 0.01 is 2 u gamma, 0.98 on MNIST and 1.28 on CIFAR-10.
* p of eq. (8) is the softmax over the classes other than the true class. Neither the text nor the code detaches p.
* The inner objective is the whole loss, without the terms that do not depend on x'.
* IG-Norm and IG-Norm-Sum integrate the gradient of the batch's mean cross-entropy, which is 1/N of the gradient of an
  image's own cross-entropy: the penalty has weight 1/N, 1/50 on MNIST and 1/128 on CIFAR-10. Chen et al. (2019), who
  proposed the two methods, use weights 1 and 0.1; these are `Chen-IG-Norm` and `Chen-IG-Sum-Norm`, which are in none
  of the paper's tables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.ascent import Objective, cross_entropy
from ..attacks.losses import discrepancy_objective, training_discrepancy
from ..fast.fold import fold_for_training
from ..fast.objective import climbing
from ..fast.parts import Foldable
from ..interpreters.integration import PATH_STEPS, path_integral
from ..paper import GAMMA

Dtype: TypeAlias = torch.dtype | None
Model: TypeAlias = nn.Module | Foldable  # one network, or several that fold themselves as one, `fast.stack.Stack`


class Problem(NamedTuple):
    """The min-max problem of one batch.

    Attributes:
        loss: x' (N, C, H, W) -> loss per image, (N,); the weights minimise its mean over the batch.
        objective: x' -> objective per image, (N,), which x' maximises, with no graph to the weights. None for a
            method without inner maximisation, whose `loss` is called on the batch x itself.
    """

    loss: Callable[[Tensor], Tensor]
    objective: Objective | None


def normal(model: Model, x: Tensor, y: Tensor, gamma: float = GAMMA, *, dtype: Dtype = None) -> Problem:
    """Normal: -log softmax(f(x))_t.

    Args:
        model: the network; its current weights are folded once for all inner steps. With dropout or batch
            statistics the loss is computed in training mode and the objective in evaluation mode, see
            `fast.fold.fold_for_training`.
        x: the batch, (N, C, H, W) in [0, 1].
        y: labels of the batch, int64 (N,).
        gamma: the regularisation parameter; only Int and its variants use it.
        dtype: dtype of the convolutions, see `fast.fold.fold_for_training`; None is the dtype of the weights.
    """
    free, _ = fold_for_training(model, dtype)
    return Problem(cross_entropy(free.logits, y), None)


def adv(model: Model, x: Tensor, y: Tensor, gamma: float = GAMMA, *, dtype: Dtype = None) -> Problem:
    """Adv: -log softmax(f(x'))_t, which x' maximises.

    Arguments: see `normal`. Source: Madry et al. (2018).
    """
    free, fixed = fold_for_training(model, dtype)
    return Problem(cross_entropy(free.logits, y), cross_entropy(fixed.logits, y, head=fixed.head))


def trades(model: Model, x: Tensor, y: Tensor, gamma: float = GAMMA, *, dtype: Dtype = None) -> Problem:
    """TRADES: -log softmax(f(x))_t + KL(softmax f(x) || softmax f(x')), weight 1; x' maximises the second term.

    Arguments: see `normal`. Source: Zhang et al. (2019), with 1 / lambda = 1 as in the released code.
    """
    free, fixed = fold_for_training(model, dtype)
    logits = free.logits(x)
    log_p = logits.log_softmax(1)
    # With dropout or batch statistics, training and evaluation mode give different logits at x.
    clean = fixed.logits(x).log_softmax(1).detach() if fixed.differs else log_p.detach()

    def divergence(log_p: Tensor, logits_adv: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - logits_adv.log_softmax(1))).sum(1)

    objective = lambda x_adv: divergence(clean, fixed.logits(x_adv))
    return Problem(
        lambda x_adv: F.cross_entropy(logits, y, reduction="none") + divergence(log_p, free.logits(x_adv)),
        climbing(objective, fixed.head, "divergence", reference=clean.exp()),
    )


def logit_pairing(
    model: Model, x: Tensor, y: Tensor, gamma: float = GAMMA, *, dtype: Dtype = None, weight: float = 0.5
) -> Problem:
    """ALP: (l(x) + l(x')) / 2 + w/C ||f(x) - f(x')||_2^2, l the cross-entropy of t, which x' maximises.

    Args:
        model, x, y, gamma, dtype: see `normal`.
        weight: w; C is the number of classes.

    Source: Kannan et al. (2018), adversarial logit pairing; the mean over classes as in their code.
    """
    free, fixed = fold_for_training(model, dtype)
    logits = free.logits(x)

    def loss(x_adv: Tensor) -> Tensor:
        logits_adv = free.logits(x_adv)
        both = [F.cross_entropy(f, y, reduction="none") for f in (logits, logits_adv)]
        return sum(both) / 2 + weight * (logits - logits_adv).square().mean(1)

    return Problem(loss, cross_entropy(fixed.logits, y, head=fixed.head))


def ig_norm(
    model: Model,
    x: Tensor,
    y: Tensor,
    gamma: float = GAMMA,
    *,
    dtype: Dtype = None,
    adversarial: bool = False,
    weight: float | None = None,
) -> Problem:
    """IG-Norm: -log softmax(f(x))_t + w ||IG(x, x')||_1, the integrated gradients of the loss itself.

    x' maximises the second term. With `adversarial`, IG-Norm-Sum, the first term is taken at x' and x' maximises both.

    Args:
        model, x, y, gamma, dtype: see `normal`.
        adversarial: take the cross-entropy at x'.
        weight: w. Default: 1/N for a batch of N images, as in the released code, which differentiates the mean
            cross-entropy of the batch, so that the gradient of an image carries 1/N. A batch of one image has w = 1.

    Source: Chen et al. (2019), IG-NORM and IG-SUM-NORM; five steps, the right rule and w as in the released code.
    """
    free, fixed = fold_for_training(model, dtype)
    w = free.networks / len(x) if weight is None else weight

    def penalty(logits: Callable[[Tensor], Tensor], x_adv: Tensor) -> tuple[Tensor, Tensor]:
        integral, logits_adv = path_integral(logits, x, x_adv, y)
        return integral.abs().flatten(1).sum(1), logits_adv

    def loss(x_adv: Tensor) -> Tensor:
        norm, logits_adv = penalty(free.logits, x_adv)
        return F.cross_entropy(logits_adv if adversarial else free.logits(x), y, reduction="none") + w * norm

    def objective(x_adv: Tensor) -> Tensor:
        norm, logits_adv = penalty(fixed.logits, x_adv)
        # A sign step ignores a constant factor: without the cross-entropy w is left out, as a small w loses digits.
        return F.cross_entropy(logits_adv, y, reduction="none") + w * norm if adversarial else norm

    both: dict[str, Any] = {"cross_entropy": float(adversarial), "weight": w if adversarial else 1.0}
    return Problem(loss, climbing(objective, fixed.head, "path", y=y, reference=x, points=PATH_STEPS, **both))


def interpretability_aware(
    model: Model,
    x: Tensor,
    y: Tensor,
    gamma: float = GAMMA,
    *,
    dtype: Dtype = None,
    adversarial: bool = False,
    one_class: bool = False,
    plain_attack: bool = False,
) -> Problem:
    """Int: -log softmax(f(x))_t + gamma D~(x, x'), D~ the target-free discrepancy of eq. (8) between CAMs; eq. (9).

    D~ is in the released code's units, 2 u times D~ in the units of eqs. (1) and (8); p is renormalised and not
    detached.

    Args:
        model, x, y, dtype: see `normal`.
        gamma: weight of D~ in the released code's units; 0 is `normal` or, with `adversarial`, `adv`.
        adversarial: Int-Adv, the cross-entropy of x' in place of the cross-entropy of x; x' maximises it as well.
        one_class: Int-1-class, only the first norm of eq. (8).
        plain_attack: x' maximises the cross-entropy instead of the loss: the released code's variants Int2 and
            Int2-Adv, which are in none of the paper's tables.

    Source: eqs. (8) and (9), section 4.
    """
    free, fixed = fold_for_training(model, dtype)
    maps = free.cam(x)
    clean = (fixed.cam(x) if fixed.differs else maps).detach()

    def loss(x_adv: Tensor) -> Tensor:
        maps_adv = free.cam(x_adv)
        logits_adv = free.logits_of(maps_adv)
        first = F.cross_entropy(logits_adv if adversarial else free.logits_of(maps), y, reduction="none")
        return first + gamma * training_discrepancy(maps, maps_adv, y, logits_adv, one_class=one_class)

    if plain_attack:
        return Problem(loss, cross_entropy(fixed.logits, y, head=fixed.head))
    # As in `ig_norm`: without the cross-entropy gamma is a constant factor, which a sign step ignores.
    weights = {"entropy": 1.0, "weight": gamma} if adversarial else {"entropy": 0.0, "weight": 1.0}
    return Problem(loss, discrepancy_objective(fixed, clean, x, y, one_class=one_class, **weights))


def variant(method: Callable[..., Problem], **settings: bool | float) -> Callable[..., Problem]:
    """Return `method` with some of its settings fixed."""
    return lambda model, x, y, gamma=GAMMA, dtype=None: method(model, x, y, gamma, dtype=dtype, **settings)


METHODS: dict[str, Callable[..., Problem]] = {
    "Normal": normal,
    "Adv": adv,
    "TRADES": trades,
    "IG-Norm": ig_norm,
    "IG-Norm-Sum": variant(ig_norm, adversarial=True),
    "Int-1-class": variant(interpretability_aware, one_class=True),
    "Int": interpretability_aware,
    "Int-Adv": variant(interpretability_aware, adversarial=True),
    # In none of the paper's tables:
    "Int2": variant(interpretability_aware, plain_attack=True),
    "Int2-Adv": variant(interpretability_aware, adversarial=True, plain_attack=True),
    "Chen-IG-Norm": variant(ig_norm, weight=1.0),
    "Chen-IG-Sum-Norm": variant(ig_norm, adversarial=True, weight=0.1),
    "ALP": logit_pairing,
}
