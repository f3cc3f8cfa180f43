"""Interpretability sneaking attack (ISA): change the predicted class and keep the interpretability map."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_classes, check_images, check_labels, class_count, unwrapped
from ..discrepancies import _target_free_discrepancy, discrepancy
from ..fast.fold import fold_for_attack, fold_logits
from ..fast.objective import Sneaking, climbing
from ..interpreters.class_activation_maps import cam
from ..models.predict import evaluating
from ..values import check_number
from .ascent import Direction, Objective, _ascend, check_attack
from .balls import bisect
from .logits_and_maps import explain
from .sneaking_settings import PRINTED, SEARCH, Discrepancy, Search, class_set


class SneakingAttack(NamedTuple):
    """The result of `search_isa`.

    Attributes:
        x_adv: (N, C, H, W), the successful attack with the largest weight on the discrepancy; if no attack with such a
            weight succeeds, the plain attack, which omits the discrepancy.
        gamma: (N,), this weight, 1 / lambda of eq. (6); 0 if no attack with a weight succeeds.
        success: bool (N,), whether x_adv is classified as the target (without a target: not as y).
    """

    x_adv: Tensor
    gamma: Tensor
    success: Tensor


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Return f_c - max_{j != c} f_j, (N,), for one class c of each image: positive where c is the prediction."""
    others = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
    return logits.gather(1, classes[:, None]).squeeze(1) - others


def attack_loss(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Return the first term of eq. (6), max_{j != t'} f_j - f_t', or without a target y's margin; < 0 on success."""
    return margin(logits, y) if target is None else -margin(logits, target)


def margin_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    tau: float = 0.1,
    direction: Direction | None = None,
    norm: str = "linf",
) -> Tensor:
    """Run the plain attack, eq. (6) for lambda -> infinity: a C&W-type attack that ignores the interpreter.

        minimize  max{ max_{j != t'} f_j(x') - f_{t'}(x'), -tau }

    Arguments, Raises: as `search_isa`.

    Returns:
        The last iterate, (N, C, H, W).

    Source: the first term of eq. (6); the sequences of Table 1 start with this attack.
    """
    _check(model, x, y, target, eps=eps, alpha=alpha, steps=steps, norm=norm)
    check_number(tau, "tau", 0)
    ascent = {"eps": eps, "alpha": alpha, "steps": steps, "direction": direction, "norm": norm}
    return _margin_attack(model, x, y, target, tau, **ascent)


def _margin_attack(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, tau: float, **ascent) -> Tensor:
    with evaluating(model):
        folded = fold_for_attack(model)
        objective = lambda x_adv: -attack_loss(folded.logits(x_adv), y, target).clamp(min=-tau)
        if target is not None and folded.head:
            nothing = Sneaking(x.new_zeros(1, folded.head.classes), x.new_zeros(len(x)), tau, 1, False)
            objective = climbing(objective, folded.head, "sneaking", y=target, reference=x, sneaking=nothing)
        return _ascend(objective, x, **ascent)


def search_isa(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None = None,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    distance: Discrepancy = PRINTED,
    search: Search = SEARCH,
    tau: float = 0.1,
    direction: Direction | None = None,
    norm: str = "linf",
) -> SneakingAttack:
    """Run ISA with the largest weight on the discrepancy at which it still succeeds, image by image.

        minimize    lambda max{ max_{j != t'} f_j(x') - f_{t'}(x'), -tau } + D(x, x')
        subject to  ||x' - x||_inf <= eps                                                              (eq. 6)

    The paper bisects on lambda "until there exists no successful attack that can be found when lambda further
    decreases". Divided by lambda, the loss is margin + gamma D with gamma = 1 / lambda. A success raises gamma, a
    failure lowers it, and gamma = 0 is the plain attack. With sign steps both forms of the loss give the same iterates.

    Without a target, the first term is max{f_y - max_{j != y} f_j, -tau}, and D is the target-free discrepancy of
    eq. (8), as printed.

    Args:
        model: images -> logits (N, C), in any mode; evaluated in evaluation mode.
        x: images (N, C, H, W) in [0, 1].
        y: true labels t, int64 (N,).
        target: target labels t' other than y, int64 (N,); None for an untargeted attack.
        eps: radius of the ball, in the unit of the pixels, a number or (N,).
        alpha: step size, same unit, a number or (N,).
        steps: number of steps of each attack; no random start.
        distance: D, see `Discrepancy`.
        search: the weights gamma that are tried, see `Search`.
        tau: bound on the margin, >= 0: a success by more than tau lowers the loss no further.
        direction: steps other than signs, see `ascent.projected_ascent`.
        norm: 'linf', 'l2' or 'l1'.

    Returns:
        Images, weights and success.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also a target equal to y, and classes, l2 or a squared norm
            without a target.

    Source: eq. (6). The paper gives neither the number of steps nor the range of lambda; `released_settings` has the
    values of the released code, which reproduce Table 1. There a CAM is a plain sum (scale = u), and the weights gamma
    refer to this unit.
    """
    _check(model, x, y, target, eps=eps, alpha=alpha, steps=steps, norm=norm)
    check_number(tau, "tau", 0)
    for value, kind, name in ((distance, Discrepancy, "distance"), (search, Search, "search")):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}; got {type(value).__name__}.")
    if target is None and (distance.classes is not None or distance.p != 1 or distance.squared):
        raise ValueError("without a target ISA climbs eq. (8), which is l1 and of all classes; leave classes and p.")
    ascent: dict[str, Any] = {"eps": eps, "alpha": alpha, "steps": steps, "direction": direction, "norm": norm}
    x_adv = _margin_attack(model, x, y, target, tau, **ascent)
    with evaluating(model):
        with torch.no_grad():
            logits = fold_logits(model)
            success = attack_loss(logits(x_adv), y, target) < 0
        objective = sneaking_objective(model, x, y, target, distance, tau)
        first, low, high = (x.new_full((len(x),), value) for value in (search.first, 0.0, search.high))
        # At x the maps agree and D has the subgradient 0, whatever gamma is: all rounds share their first step.
        second = _ascend(objective(low), x, **ascent | {"steps": min(steps, 1)}) if search.rounds else x
        ascent["steps"] = max(steps - 1, 0)

        def succeeds(gamma: Tensor) -> Tensor:
            nonlocal x_adv, success
            attempt = _ascend(objective(gamma), x, start=second, **ascent)
            with torch.no_grad():
                reached = attack_loss(logits(attempt), y, target) < 0
            x_adv, success = torch.where(reached[:, None, None, None], attempt, x_adv), success | reached
            return reached

        gamma, _ = bisect(succeeds, first, low, high, search.rounds)
    return SneakingAttack(x_adv, gamma, success)


def sneaking_objective(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, distance: Discrepancy, tau: float
) -> Callable[[Tensor], Objective]:
    """Return gamma (N,) -> the objective that `search_isa` maximises, the negative of eq. (6) divided by lambda.

    Arguments: as `search_isa`, the model in evaluation mode.
    """
    both, classes, scale = explain(model, distance.interpreter), distance.classes, distance.scale
    if target is None:
        with torch.no_grad():
            classes = class_set("all-class", y, y, model(x[:1]).shape[1])
    elif classes is None:
        classes = class_set("2-class", y, target)
    check_classes(classes, len(x), class_count(model), "distance.classes")
    clean, head = both(x, classes)[1].detach(), None
    if target is not None and distance.interpreter is cam and (head := fold_for_attack(unwrapped(model)).head):
        shares = x.new_zeros(len(x), head.classes).scatter_add_(1, classes, x.new_ones(classes.shape))
        shares *= scale ** (2 if distance.squared else 1) / max(classes.shape[1], 1)

    def objective(gamma: Tensor) -> Objective:
        def plain(x_adv: Tensor) -> Tensor:
            logits, maps = both(x_adv, classes)
            if target is None:
                moved = _target_free_discrepancy(clean, maps, y, logits, renormalise=False, scale=scale)
            else:
                moved = discrepancy(clean, maps, distance.p, distance.squared, scale=scale)
            return -attack_loss(logits, y, target).clamp(min=-tau) - gamma * moved

        if head is None:
            return plain
        rest = Sneaking(shares, gamma, tau, distance.p, distance.squared)
        return climbing(plain, head, "sneaking", y=target, reference=x, sneaking=rest)

    return objective


def isa(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None = None, **settings) -> Tensor:
    """Return the images of `search_isa`, (N, C, H, W). Arguments, Raises: as `search_isa`."""
    return search_isa(model, x, y, target, **settings).x_adv


def isa_over_eps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None = None,
    *,
    eps: Tensor,
    alpha: Tensor,
    distance: Discrepancy = PRINTED,
    **settings,
) -> SneakingAttack:
    """Run `search_isa` for E perturbation sizes in one batch of E * N images.

    Args:
        model, x, y, target: as `search_isa`.
        eps, alpha: (E, N), E perturbation and step sizes for each of N images.
        distance: as `search_isa`, its classes (N, k).
        settings: further arguments of `search_isa`.

    Returns:
        x_adv (E, N, C, H, W), gamma and success (E, N).

    Raises:
        TypeError, ValueError: see `search_isa`; also eps and alpha of another shape.
    """
    check_images(x)
    for value, name in ((eps, "eps"), (alpha, "alpha")):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor (E, N), E sizes for each image; got {type(value).__name__}.")
    if eps.dim() != 2 or eps.shape != alpha.shape or eps.shape[1] != len(x):
        raise ValueError(f"eps and alpha must have shape (E, {len(x)}); got {tuple(eps.shape)}, {tuple(alpha.shape)}.")
    check_labels(y, len(x))
    if target is not None:
        check_labels(target, len(x), name="target")
    times = len(eps)
    if distance.classes is not None:
        distance = replace(distance, classes=distance.classes.repeat(times, 1))
    target = None if target is None else target.repeat(times)
    settings |= {"eps": eps.flatten(), "alpha": alpha.flatten(), "distance": distance}
    attack = search_isa(model, x.repeat(times, 1, 1, 1), y.repeat(times), target, **settings)
    return SneakingAttack(*(value.unflatten(0, eps.shape) for value in attack))


def _check(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, **ascent) -> None:
    check_attack(model, x, y, **ascent)
    if target is not None:
        check_labels(target, len(x), class_count(model), "target")
        if (target == y).any():
            raise ValueError("a target must be another class than y; got images whose target is their label.")
