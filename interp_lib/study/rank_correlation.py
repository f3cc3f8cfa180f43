"""Measure attacks against interpretability as in Tables 2, A4 and A5: Kendall's tau of maps before and after."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks.against_interpretability import aai
from ..data import EvaluationSubset
from ..discrepancies import kendall_tau
from ..models.predict import evaluating, predictions
from ..values import check_choice, check_each, check_radius
from .accuracy import check_subset
from .evaluation import ALPHA, EPS, IMAGES, STEPS
from .sneaked_maps import GRADCAM_PP, SNEAKED
from .sweep import Part, Plan, header, once

AAI: dict[str, Any] = {"top_k": 8, "alpha": ALPHA, "steps": STEPS[-1], "hinge": 0.0}


# Eq. (7) as printed, with its hinge; the paper does not give lambda. The released code, `AAI`, has no hinge.
PRINTED_AAI = {"top-k": {**AAI, "hinge": 1.0}, "l1": {**AAI, "hinge": 1.0, "top_k": None}}


def mean_and_error(values: Tensor) -> tuple[float | None, float | None]:
    """Return mean and standard error, ignoring NaN; None for the mean of no value and the error of fewer than two."""
    values = values[~values.isnan()]
    n = len(values)
    return (float(values.mean()) if n else None, float(values.std()) / math.sqrt(n) if n > 1 else None)


def aai_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    eps: Sequence[float],
    interpreter: str = "CAM",
    attack: Mapping[str, Any] = AAI,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure Kendall's tau-b of the true class's map before and after an AAI, for every eps.

    By default the attack is the released code's: the eight largest pixels, 200 steps of 0.01, no hinge. Every attack
    begins at the subset's random start. An image whose predicted class has changed is dropped afterwards; the
    prediction need not be right. The maps are not up-sampled.

    Args:
        subset: images and labels, on the model's device.
        eps: perturbation sizes > 0, in the unit of the pixels.
        interpreter: 'CAM', 'GradCAM++' (the released code's) or another name in `sneaked_maps.SNEAKED`.
        attack: arguments of `attacks.aai`; `PRINTED_AAI` has the arguments for eq. (7) as printed.
        progress: called with the number of steps done since the last call.

    Returns:
        One row for each eps: tau over the n images that are left, with its standard error se, and tau_all over all
        n_all images, with its standard error se_all. tau is None where no image is left; the released code has 0 there.
        A constant map has no order, so its image counts neither in n nor in n_all.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Tables 2, A4 and A5.
    """
    check_each(eps, "eps", check_radius, above=True)
    check_choice(interpreter, "interpreter", tuple(SNEAKED))
    check_subset(subset)
    if not isinstance(attack, Mapping) or set(attack) != set(AAI):
        raise ValueError(f"attack must be a mapping with {', '.join(AAI)}; got {attack!r:.80}.")
    x, y = subset.x, subset.y
    attacked, rows = SNEAKED[interpreter].scored, []
    with evaluating(model), torch.no_grad():
        predicted = predictions(model, x)
        clean = attacked(model, x, y[:, None])
        for size in eps:
            start = (x + subset.random_start(size).to(x)).clamp(0, 1)
            x_adv = aai(model, x, y, eps=size, start=start, interpreter=attacked, **attack)
            taus = kendall_tau(clean, attacked(model, x_adv, y[:, None]))
            # kendall_tau returns its values on the CPU, so the mask must be there too.
            left, defined = (predictions(model, x_adv) == predicted).cpu(), ~taus.isnan()
            (tau, se), (tau_all, se_all) = mean_and_error(taus[left]), mean_and_error(taus)
            rows.append(
                {
                    "interpreter": interpreter,
                    "eps": size,
                    "tau": tau,
                    "n": int((left & defined).sum()),
                    "se": se,
                    "tau_all": tau_all,
                    "n_all": int(defined.sum()),
                    "se_all": se_all,
                }
            )
            if progress:
                progress(attack["steps"])
    return rows


def aai_plan(
    part: Part,
    *,
    interpreter: str = "CAM",
    eps: Sequence[float] | None = None,
    steps: int = STEPS[-1],
    n: int = IMAGES,
    measurement: str = "aai",
) -> Iterator[Plan]:
    """Plan `aai_rows` by the released code's AAI, for every eps of the tables but 0."""
    eps, attack = _sizes(part, eps), {**AAI, "steps": steps}
    settings = header(
        measurement,
        part,
        n=n,
        interpreter=interpreter,
        attack={"name": "aai", "norm": "linf", "random_start": "evaluation subset", "eps": eps, **attack},
        score="Kendall's tau-b of the true class's map, images of unchanged prediction",
    )
    subset = part.dataset.evaluation_subset(n).to(part.device)
    rows = lambda network, progress: aai_rows(
        network, subset, eps=eps, interpreter=interpreter, attack=attack, progress=progress
    )
    yield Plan(settings, once(rows), len(eps) * steps)


# Table A5 with the GradCAM++ of its own paper: a measurement of its own, so that no row is taken for the table's.
aai_2018_plan = partial(aai_plan, interpreter=GRADCAM_PP, measurement="aai-2018")


def printed_aai_plan(part: Part, *, eps: Sequence[float] | None = None, n: int = IMAGES) -> Iterator[Plan]:
    """Plan `aai_rows` of CAM by eq. (7) as printed, in both of its forms: the column `form` is 'top-k' or 'l1'."""
    eps = _sizes(part, eps)
    settings = header(
        "aai-printed",
        part,
        n=n,
        interpreter="CAM",
        attack={"name": "aai", "norm": "linf", "random_start": "evaluation subset", "eps": eps, "forms": PRINTED_AAI},
        score="Kendall's tau-b of the true class's map, images of unchanged prediction, and all",
    )
    subset = part.dataset.evaluation_subset(n).to(part.device)
    rows = lambda network, progress: [
        {"form": form, **row}
        for form, attack in PRINTED_AAI.items()
        for row in aai_rows(network, subset, eps=eps, attack=attack, progress=progress)
    ]
    yield Plan(settings, once(rows), sum(attack["steps"] for attack in PRINTED_AAI.values()) * len(eps))


def _sizes(part: Part, eps: Sequence[float] | None) -> list[float]:
    """Return the eps of a plan, by default those of the tables, without 0, at which there is no attack."""
    return [e for e in (EPS[part.dataset.name, part.model] if eps is None else eps) if e]
