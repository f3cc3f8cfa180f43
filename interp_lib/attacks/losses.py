"""Losses that an attack can climb: cross-entropy, margin, DLR, and the discrepancy that Int's training climbs."""

from torch import Tensor, nn

from ..checks import check_batch
from ..discrepancies import _distances, _target_free_discrepancy
from ..fast.fold import fold_for_attack, fold_for_training
from ..fast.objective import climbing
from ..fast.parts import Folded
from ..paper import GAMMA
from ..values import check_choice, check_number
from .ascent import Objective, cross_entropy
from .auto_pgd import dlr
from .interpretability_sneaking import margin

# Loss -> the weights of the cross-entropy and of gamma D~, for the losses with a discrepancy.
OF_MAPS = {"D~": (0.0, 1.0), "cross-entropy + γ D~": (1.0, 1.0), "cross-entropy − γ D~": (1.0, -1.0)}

LOSSES = ("cross-entropy", "margin", "DLR", *OF_MAPS)


def loss_objective(model: nn.Module, x: Tensor, y: Tensor, loss: str, *, gamma: float = GAMMA) -> Objective:
    """Return the untargeted objective of an attack, images (N, C, H, W) -> (N,), to be maximised.

        cross-entropy            -log softmax(f(x'))_y
        margin                   max_{j != y} f_j(x') - f_y(x')
        DLR                      see `dlr`
        D~                       the target-free discrepancy of eq. (8) between the CAMs of x and of x'
        cross-entropy +- gamma D~

    D~ is what the inner maximisation of Int climbs and cross-entropy + gamma D~ that of Int-Adv, so that these two are
    attacks adapted to the defence. With the minus sign the attack has to change the prediction while the maps stay
    near those of x. At x the gradient of D~ is 0: start elsewhere.

    Args:
        model: images -> logits (N, classes), in evaluation mode; the losses with D~ need maps, see `models`.
        x: natural images (N, C, H, W) in [0, 1].
        y: true labels, int64 (N,).
        loss: one of `LOSSES`.
        gamma: weight of D~ in the released code's units, >= 0; 0.01 in training.

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: Croce and Hein (2020) for DLR; eqs. (8) and (9) for D~.
    """
    check_batch(model, x, y)
    check_choice(loss, "loss", LOSSES)
    check_number(gamma, "gamma", 0)
    if loss in OF_MAPS:
        _, fixed = fold_for_training(model)
        entropy, sign = OF_MAPS[loss]
        clean = fixed.cam(x).detach()
        return discrepancy_objective(fixed, clean, x, y, entropy=entropy, weight=sign * gamma if entropy else sign)
    folded = fold_for_attack(model)
    if loss == "cross-entropy":
        return cross_entropy(folded.logits, y, head=folded.head)
    if loss == "margin":
        return lambda x_adv: -margin(folded.logits(x_adv), y)
    return lambda x_adv: dlr(folded.logits(x_adv), y)


def training_discrepancy(
    maps: Tensor, maps_adv: Tensor, y: Tensor, logits_adv: Tensor, *, one_class: bool = False
) -> Tensor:
    """Return D~ of eq. (8) as the released training code has it, (N,): sums over the u pixels, without the factor 1/2.

    Args:
        maps, maps_adv: CAMs of all classes, (N, classes, h, w), in the units of eq. (1).
        y: true labels, int64 (N,).
        logits_adv: f(x'), (N, classes); p is their softmax over the classes other than y.
        one_class: only the first norm of eq. (8).
    """
    scale = maps.shape[2:].numel()
    if one_class:
        true = y[:, None, None, None].expand(-1, 1, *maps.shape[2:])
        return _distances(maps.gather(1, true), maps_adv.gather(1, true), scale=scale)[:, 0]
    return _target_free_discrepancy(maps, maps_adv, y, logits_adv, scale=2 * scale)


def discrepancy_objective(
    fixed: Folded, clean: Tensor, x: Tensor, y: Tensor, *, entropy: float, weight: float, one_class: bool = False
) -> Objective:
    """Return entropy * -log softmax(f(x'))_y + weight * D~(x, x') as an objective, compiled where it can be.

    Args:
        fixed: the fold without a graph to the weights, see `fast.fold.fold_for_training`.
        clean: its CAMs of x, detached, (N, classes, h, w).
        x, y: natural images and their labels.
        entropy, weight: weights of the two terms; 1 and gamma for Int-Adv, 0 and 1 for Int.
        one_class: see `training_discrepancy`.
    """

    def plain(x_adv: Tensor) -> Tensor:
        maps_adv = fixed.cam(x_adv)
        logits_adv = fixed.logits_of(maps_adv)
        value = weight * training_discrepancy(clean, maps_adv, y, logits_adv, one_class=one_class)
        return value + entropy * nn.functional.cross_entropy(logits_adv, y, reduction="none") if entropy else value

    # The compiled maps have the factor 1/u of eq. (1), which `training_discrepancy` undoes; here the weight undoes it.
    kind, pixels = "true class" if one_class else "target-free", clean.shape[2:].numel()
    return climbing(plain, fixed.head, kind, y=y, reference=x, cross_entropy=entropy, weight=weight * pixels)
