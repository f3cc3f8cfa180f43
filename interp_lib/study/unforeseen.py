"""Measure Table 5: accuracy under the attacks of Kang et al. (2019), which training did not foresee."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from ..attacks.unforeseen.fog_map import fog
from ..attacks.unforeseen.gabor_noise import gabor
from ..attacks.unforeseen.jpeg_coefficients import jpeg
from ..attacks.unforeseen.snow_flakes import snow
from ..data import EvaluationSubset
from ..models.predict import classified_right
from ..values import check_choice, check_each, check_whole
from .accuracy import check_subset, proportion
from .evaluation import IMAGES, STEPS
from .sweep import Part, Plan, Task, header

# Name as in Table 5 -> attack, with its strength. The released code also runs Fog, which the paper does not print.
ATTACKS: dict[str, Callable[..., torch.Tensor]] = {
    "Gabor": partial(gabor, eps=400.0),
    "Snow": partial(snow, eps=2.0),
    "JPEG-linf": partial(jpeg, eps=0.25, norm="linf"),
    "JPEG-l2": partial(jpeg, eps=8.0, norm="l2"),
    "JPEG-l1": partial(jpeg, eps=256.0, norm="l1"),
    "Fog": partial(fog, eps=2048.0),
}

PRINTED = ("Gabor", "Snow", "JPEG-linf", "JPEG-l2", "JPEG-l1")

TWO_FORMS = ("Gabor", "Snow")  # where the public code and the definition differ: see `attacks.unforeseen`

FORMS = ("released", "defined")

DRAWS = 10  # random starts, for the spread of a single one, such as the paper's

FEWER = 2  # random starts of what Table 5 does not print


def unforeseen_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    attack: str,
    form: str = "released",
    draws: Sequence[int] = range(DRAWS),
    steps: int = STEPS[-1],
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure accuracy under one targeted unforeseen attack, once for each random start.

    The target of an image is the evaluation subset's; the score counts images that keep their true class.

    Args:
        subset: images, labels and targets, on the model's device.
        attack: a key of `ATTACKS`.
        form: 'released', as in the public code, or 'defined'; they differ for `TWO_FORMS`.
        draws: seeds of the random starts.
        steps: number of steps; their size is eps / sqrt(steps).
        progress: called with the number of steps done since the last call.

    Returns:
        One row for each draw: attack, form, draw, and the fields of `accuracy.proportion`.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Table 5.
    """
    check_subset(subset)
    check_choice(attack, "attack", tuple(ATTACKS))
    check_choice(form, "form", FORMS)
    check_each(draws, "draws", check_whole)
    more = {"as_released": form == "released"} if attack in TWO_FORMS else {}
    rows = []
    for draw in draws:
        generator = torch.Generator().manual_seed(draw)
        x_adv = ATTACKS[attack](model, subset.x, subset.target, targeted=True, steps=steps, generator=generator, **more)
        right = classified_right(model, x_adv, subset.y)
        rows.append({"attack": attack, "form": form, "draw": draw, **proportion(right)})
        if progress:
            progress(steps)
    return rows


def unforeseen_plan(
    part: Part, *, n: int = IMAGES, steps: int = STEPS[-1], draws: int = DRAWS, fewer: int = FEWER
) -> Iterator[Plan]:
    """Plan Table 5, its attacks as in the public code; then Fog, and the attacks of `TWO_FORMS` as they are defined.

    Args:
        draws: number of random starts of an attack of the table.
        fewer: number of random starts of the others.
    """
    check_whole(draws, "draws", 1)
    check_whole(fewer, "fewer", 0)
    runs = [(attack, "released", draws if attack in PRINTED else fewer) for attack in ATTACKS]
    runs += [(attack, "defined", fewer) for attack in TWO_FORMS]
    strengths = {name: attack.keywords["eps"] for name, attack in ATTACKS.items()}  # type: ignore[attr-defined]
    settings = header(
        "unforeseen",
        part,
        n=n,
        attack={"eps": strengths, "steps": steps, "alpha": "eps / sqrt(steps)", "targeted": True}
        | {"draws": {"table": draws, "others": fewer}},
    )
    subset = part.dataset.evaluation_subset(n).to(part.device)

    def rows(task: Task) -> Iterator[list[dict]]:
        measured = list(task.held)
        for attack, form, count in runs:
            seen = {row["draw"] for row in measured if (row["attack"], row["form"]) == (attack, form)}
            task.progress(steps * len(seen))
            if missing := [draw for draw in range(count) if draw not in seen]:
                measured += unforeseen_rows(
                    task.model,
                    subset,
                    attack=attack,
                    form=form,
                    draws=missing,
                    steps=steps,
                    progress=task.progress,
                )
                yield measured

    yield Plan(settings, rows, steps * sum(count for *_, count in runs))
