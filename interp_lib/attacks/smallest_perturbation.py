"""The smallest perturbation size at which an attack succeeds, image by image: the eps* of Appendix D."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_images
from ..values import check_number, check_whole
from .balls import bisect


class MinimalAttack(NamedTuple):
    """The result of `minimal_eps`.

    Attributes:
        eps: (N,), the smallest perturbation size with a success; `high` if there was none.
        x_adv: (N, C, H, W), the images of the attack at this eps.
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
    """Find the smallest eps at which an attack succeeds, for every image, by bisection.

        eps* = min { eps : the attack of size eps succeeds on x }                              (Appendix D)

    All images are attacked in one batch, each with its own eps. After a success eps moves down to the middle of the
    remaining interval; after a failure it doubles, but does not go beyond the middle. If a larger eps can fail where a
    smaller one succeeds, the result is a success next to a failure, but not always the smallest success.

    With the authors' PGD, ten steps of a quarter of eps:

        attack = lambda eps: pgd(model, x, y, eps=eps, alpha=eps / 4, steps=10)
        minimal_eps(attack, lambda x_adv: model(x_adv).argmax(1) != y, x)

    Args:
        attack: perturbation sizes (N,) -> images (N, C, H, W).
        succeeds: images -> bool (N,), whether the attack succeeds.
        x: the natural images, (N, C, H, W) in [0, 1].
        first: the first eps that is tried.
        high: the upper end of the search; an image without a success below it is tried once at `high` itself.
        rounds: number of attacks; the last one leaves an interval of at most high / 2^(rounds - doublings).

    Returns:
        eps, adversarial image and success for every image.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also unless 0 < first <= high and rounds >= 0.

    Source: Appendix D, which says "binary search"; first, high and rounds as in the released code.
    """
    check_images(x)
    for value, name in ((attack, "attack"), (succeeds, "succeeds")):
        if not callable(value):
            raise TypeError(f"{name} must be a function, see above; got {value!r:.80}.")
    check_number(high, "high", 0, above=True)
    check_number(first, "first", 0, high, above=True)
    check_whole(rounds, "rounds")
    best, succeeded = x.detach().clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def fails(eps: Tensor) -> Tensor:
        nonlocal best, succeeded
        x_adv = attack(eps)
        success = succeeds(x_adv)
        best, succeeded = torch.where(success[:, None, None, None], x_adv, best), succeeded | success
        return ~success

    first, low, high = (torch.full((len(x),), value, dtype=x.dtype, device=x.device) for value in (first, 0.0, high))
    # `bisect` goes up after a yes, and here a failure calls for a larger eps: the question is whether the attack fails.
    _, eps = bisect(fails, first, low, high, rounds)
    if not succeeded.all():  # eps is `high` where nothing was found, and `bisect` does not try its ends
        x_adv = attack(eps)
        best = torch.where(succeeded[:, None, None, None], best, x_adv)
        succeeded = succeeded | succeeds(x_adv)
    return MinimalAttack(eps, best, succeeded)
