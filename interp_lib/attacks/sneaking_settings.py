"""Settings of the interpretability sneaking attack: what it keeps small, how it searches, and the released code's."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..interpreters.class_activation_maps import cam
from ..interpreters.registry import MapFunction
from ..values import check_choice, check_number, check_whole
from .ascent import clipped

CLASS_SETS = ("1-class", "2-class", "all-class")


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """D(x, x') of eq. (3), which ISA keeps small: of which maps, of which classes, in which norm.

    Args:
        interpreter: L, a function of `interpreters`.
        classes: C, int64 (N, k); None for (t, t') as in eq. (4), and without a target for all classes. See `class_set`.
        p: 1 or 2.
        squared, scale: see `discrepancies.distances`.

    Raises:
        TypeError, ValueError: p is neither 1 nor 2, or scale is not a positive number.
    """

    interpreter: MapFunction = cam
    classes: Tensor | None = None
    p: int = 1
    squared: bool = False
    scale: float = 1.0

    def __post_init__(self):
        check_choice(self.p, "p", (1, 2))
        check_number(self.scale, "scale", 0, above=True)


@dataclass(frozen=True)
class Search:
    """The search for gamma = 1 / lambda of eq. (6), the weight of the discrepancy, image by image.

    Args:
        first: the weight of the first attack.
        high: the upper end.
        rounds: number of attacks, each on all images in one batch; 0 for the plain attack alone.

    Raises:
        TypeError, ValueError: a weight that is not a positive number, first above high, or rounds not a whole number.
    """

    first: float = 0.1
    high: float = 100.0
    rounds: int = 10

    def __post_init__(self):
        check_number(self.first, "first", 0, above=True)
        check_number(self.high, "high", 0, above=True)
        check_whole(self.rounds, "rounds")
        if not self.first <= self.high:
            raise ValueError(f"first must be at most high; got {self.first} and {self.high}.")


PRINTED, SEARCH = Discrepancy(), Search()  # the l1 distance of the CAMs of t and t', eq. (4)


def class_set(name: str, y: Tensor, target: Tensor, num_classes: int = 10) -> Tensor:
    """Return the classes C of eq. (3) as (N, k): '1-class' for t, '2-class' for (t, t'), 'all-class' for all.

    Raises:
        ValueError: another name.
    """
    check_choice(name, "name", ("1-class", "2-class", "all-class"))
    if name == "all-class":
        return torch.arange(num_classes, device=y.device).expand(len(y), -1)
    return y[:, None] if name == "1-class" else torch.stack([y, target], 1)


def released_settings(eps: Tensor, distance: Discrepancy, *, batch: int) -> dict:
    """Return the settings of the released code for `search_isa`, which reproduce Table 1.

    Ten steps of 0.2 * eps * clip(1000 * gradient of the batch mean, -1, 1); l2 is squared, whatever `distance` says;
    gamma is doubled from 5e-5 within [0, 1] for ten rounds, so that it never exceeds 0.0256.

    Args:
        eps: (N,) or (E, N).
        distance: its scale is u for a CAM, which is a plain sum in the released code; for Repr, which is summed over
            its K channels there, K with l1 and sqrt(K) with squared l2.
        batch: number of images in a batch of the released code, on which its step depends.
    """
    return {
        "eps": eps,
        "alpha": 0.2 * eps,
        "steps": 10,
        "direction": clipped(1000 / batch),
        "distance": replace(distance, squared=distance.p == 2),
        "search": Search(first=5e-5, high=1.0, rounds=10),
        "tau": 0.1,
    }
