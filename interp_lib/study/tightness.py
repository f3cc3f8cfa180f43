"""Measure how tight Proposition 1 is: the discrepancy of the smallest successful attacks over its lower bound."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..attacks.projected_gradient_descent import pgd
from ..attacks.smallest_perturbation import minimal_eps
from ..discrepancies import proposition1_bound, two_class_discrepancy
from ..interpreters.class_activation_maps import cam
from ..models.predict import evaluating, predictions
from .isa_scores import RELEASED_BATCH, plain_attack
from .sweep import Part, Plan, header, once

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

DECILES = tuple(k / 10 for k in range(11))

IMAGES_OF = {"small": 1000, "pool": 1000, "wresnet": 200}

ATTACKS: dict[str, dict] = {
    "pgd": {"name": "pgd", "alpha": "eps / 4"},
    "isa": {"name": "isa", "targeted": True, "settings": "released", "batch": RELEASED_BATCH, "tau": 0.1},
}

ROUNDING = 1e-9  # a ratio this far below 1 is float64, not a violation


def tightness(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None = None, **search
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute both sides of Proposition 1 on adversarial examples of the smallest eps.

        D_{2,l1}(x, x')  >=  1/2 (f_t(x) - f_t'(x)),        t' the prediction on x'                  (eq. 5)

    The CAM is in units of eq. (1); bisection finds the smallest eps of each image. Without a target the attack is PGD,
    ten steps of a quarter of eps, no random start. With a target it is the targeted plain attack of Table 1, whose step
    shrinks with the gradient. The attack runs in the network's precision; both sides of the inequality are computed in
    float64.

    Args:
        model: a network whose CAM is complete (logits are its means over pixels), in any mode.
        x, y: images (N, C, H, W) and labels (N,), all classified right.
        target: targets t' other than y, (N,), for the plain attack of ISA; an attack that reaches another class fails.
        search: first, high, rounds of `minimal_eps`.

    Returns:
        D_{2,l1} and its bound, (N,) float64, NaN where no attack succeeded; and eps*, (N,).

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Proposition 1; attack of the released code.
    """
    if target is None:
        attack = lambda eps: pgd(model, x, y, eps=eps, alpha=eps / 4, steps=10)
        succeeded = lambda reached: reached != y
    else:
        attack = plain_attack(model, x, y, target)
        succeeded = lambda reached: reached == target
    with evaluating(model), torch.no_grad():
        minimal = minimal_eps(attack, lambda x_adv: succeeded(predictions(model, x_adv)), x, **search)
        # A copy, because .double() would change the caller's network in place.
        exact, x, x_adv = copy.deepcopy(model).double(), x.double(), minimal.x_adv.double()
        reached = predictions(exact, x_adv)
        pair = torch.stack([y, reached], 1)
        discrepancy = two_class_discrepancy(cam(exact, x, pair), cam(exact, x_adv, pair))
        bound = proposition1_bound(exact(x), y, reached)
    discrepancy, bound = (torch.where(succeeded(reached), value, torch.nan) for value in (discrepancy, bound))
    return discrepancy, bound, minimal.eps


def tightness_rows(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None = None, *, batch_size: int = 250, progress=None
) -> list[dict]:
    """Measure the ratio of D_{2,l1} to its bound for one network, on the images that are classified right.

    Args:
        x, y, target: as in `tightness`; images that are classified wrong are left out.
        batch_size: number of images attacked in one batch.
        progress: called with the number of images done since the last call.

    Returns:
        One row: images, right (number classified right), n (number of these with a successful attack); median, q05,
        q25, q75, q95, smallest and largest ratio; violations (ratios below 1 by more than rounding), the deciles of the
        ratio from 0 to 1, and the median eps*. Ratios and eps* are None where no attack succeeds.
    """
    right = predictions(model, x) == y
    # Begin with empty tensors, so that torch.cat works when no image is classified right.
    ratios, sizes = [torch.empty(0, dtype=torch.float64)], [torch.empty(0)]
    index = right.nonzero()[:, 0]
    for part in index.split(batch_size) if len(index) else ():
        discrepancy, bound, eps = tightness(model, x[part], y[part], None if target is None else target[part])
        success = ~discrepancy.isnan()
        ratios.append((discrepancy / bound)[success].cpu())
        sizes.append(eps[success].cpu())
        if progress:
            progress(len(part))
    ratio, eps = torch.cat(ratios), torch.cat(sizes)
    at = lambda values, q: float(torch.quantile(values, q)) if len(values) else None
    return [
        {
            "images": len(x),
            "right": int(right.sum()),
            "n": len(ratio),
            "median": at(ratio, 0.5),
            **{f"q{round(100 * q):02}": at(ratio, q) for q in QUANTILES if q != 0.5},
            "smallest": at(ratio, 0.0),
            "largest": at(ratio, 1.0),
            "violations": int((ratio < 1 - ROUNDING).sum()),
            "deciles": [at(ratio, q) for q in DECILES],
            "median_eps": at(eps, 0.5),
        }
    ]


def tightness_plan(part: Part, *, attack: str = "pgd", n: int | None = None) -> Iterator[Plan]:
    """Plan `tightness_rows` on the evaluation subset of n images.

    Args:
        attack: 'pgd', or 'isa' for the plain attack of Table 1 with the subset's targets.
        n: default: 1,000, or 200 on WResnet.
    """
    n = min(n or IMAGES_OF[part.model], len(part.dataset.test))
    settings = header(
        "tightness",
        part,
        n=n,
        interpreter="CAM",
        attack={
            "norm": "linf",
            "random_start": False,
            "steps": 10,
            "eps": "smallest, doubling from 0.05 in [0, 1], ten rounds",
            **ATTACKS[attack],
        },
        score="D_{2,l1} over 1/2 (f_t - f_t') of Proposition 1, t' the prediction on x'",
    )
    subset = part.dataset.evaluation_subset(n).to(part.device)
    target = subset.target if attack == "isa" else None
    rows = lambda network, progress: tightness_rows(network, subset.x, subset.y, target, progress=progress)
    yield Plan(settings, once(rows), n, "image")


def all_tightness_plans(part: Part, *, n: int | None = None) -> Iterator[Plan]:
    """Plan `tightness_plan` under PGD, and on MNIST Small also under the plain attack of Table 1."""
    for attack in ATTACKS if (part.dataset.name, part.model) == ("mnist", "small") else ("pgd",):
        yield from tightness_plan(part, attack=attack, n=n)
