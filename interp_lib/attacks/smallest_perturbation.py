"""The smallest perturbation size at which an attack succeeds, image by image: the eps* of Appendix D."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_images
from ..values import check_number, check_whole
from .balls import bisect


class MinimalAttack(NamedTuple):
    """What `minimal_eps` found.

    Attributes:
        eps: (N,), the smallest perturbation size with a success; `high` where there was none.
        x_adv: (N, C, H, W), the attack's images at that eps.
        success: bool (N,), whether the attack succeeds on them.
    """

    eps: Tensor
    x_adv: Tensor
    success: Tensor


def minimal_eps(
    attack: Callable[[Tensor], Tensor],
    succeeds: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    first: float = 0.05,
    high: float = 1.0,
    rounds: int = 10,
) -> MinimalAttack:
    """The smallest eps at which an attack succeeds, for every image, by bisection.

        eps* = min { eps : the attack of size eps succeeds on x }                              (Appendix D)

    All images are attacked together, each with its own eps. A success halves what is left below, a failure doubles
    eps, up to the middle of what is left above. Where a larger eps can fail after a smaller one has succeeded, the
    result is a success next to a failure, and not always the smallest success.

    With PGD of the authors' kind, ten steps of a quarter of eps:

        attack = lambda eps: pgd(model, x, y, eps=eps, alpha=eps / 4, steps=10)
        minimal_eps(attack, lambda x_adv: model(x_adv).argmax(1) != y, x)

    Args:
        attack: perturbation sizes (N,) -> images (N, C, H, W).
        succeeds: images -> bool (N,), whether the attack has reached its aim.
        x: the natural images, (N, C, H, W) in [0, 1].
        first: the first eps that is tried.
        high: where the search ends; an image without success below it is tried once at `high` itself.
        rounds: number of attacks; the last one leaves an interval of at most high / 2^(rounds - doublings).

    Returns:
        eps, images and success of every image.

    Raises:
        TypeError, ValueError: see `checks`; also 0 < first <= high and rounds >= 0 violated.

    Source: Appendix D, which says "binary search"; first, high and rounds as in the released code.
    """
    check_images(x)
    for value, name in ((attack, "attack"), (succeeds, "succeeds")):
        if not callable(value):
            raise TypeError(f"{name} must be a function, see above; got {value!r:.80}.")
    check_number(high, "high", 0, above=True)
    check_number(first, "first", 0, high, above=True)
    check_whole(rounds, "rounds")
    best, found = x.detach().clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def fails(eps: Tensor) -> Tensor:
        nonlocal best, found
        x_adv = attack(eps)
        success = succeeds(x_adv)
        best, found = torch.where(success[:, None, None, None], x_adv, best), found | success
        return ~success

    first, low, high = (torch.full((len(x),), value, dtype=x.dtype, device=x.device) for value in (first, 0.0, high))
    _, eps = bisect(fails, first, low, high, rounds)
    if not found.all():
        x_adv = attack(eps)
        best = torch.where(found[:, None, None, None], best, x_adv)
        found = found | succeeds(x_adv)
    return MinimalAttack(eps, best, found)
