"""Measure PGD with other losses, momentum and random restarts, on the images that the PGD of Table 3 leaves right."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..attacks.ascent import ascend, uniform_start
from ..attacks.losses import loss_objective
from ..attacks.momentum import accumulated
from ..checks import check_batch
from ..models.predict import evaluating
from ..paper import GAMMA
from ..values import check_choice, check_each, check_radius, check_whole
from .accuracy import IN_CACHE, _right_under_pgd, proportion
from .evaluation import ALPHA, IMAGES
from .evaluation import STEPS as TABLE_STEPS
from .strong import SIZES, attack_survivors
from .sweep import Part, Plan, Task, header

# Attack -> its loss and whether it has momentum, as in MI-FGSM. The last three are adapted to Int.
ATTACKS = {
    "cross-entropy": ("cross-entropy", False),
    "cross-entropy, momentum": ("cross-entropy", True),
    "margin": ("margin", False),
    "DLR": ("DLR", False),
    "D~": ("D~", False),
    "cross-entropy + γ D~": ("cross-entropy + γ D~", False),
    "cross-entropy − γ D~": ("cross-entropy − γ D~", False),
}

TABLE_3 = "Table 3"  # the attack that comes first: 200 steps of 0.01 from x on the cross-entropy

# Half of the steps are eps / 4 wide, the others eps / 40: coarse steps alone end at the corners of their grid. On Int,
# MNIST, two runs of 200 such steps left as many images as two of 50.
STEPS, COARSE, FINE = 50, 4, 40

STARTS = (1, 5)  # numbers of runs that are reported

# Adversarial training, the paper's defence and its variant; the other five networks would double the time.
COMPARED = ("Adv", "Int", "Int-Adv")


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    loss: str,
    momentum: bool = False,
    steps: int = STEPS,
    gamma: float = GAMMA,
    generator: torch.Generator,
) -> Tensor:
    """Climb a loss from a uniform random point, first by steps of eps / 4, then of eps / 40; return (N, C, H, W).

    Args:
        loss, gamma: see `attacks.losses.loss_objective`.
        momentum: step along the running sum of normalised gradients, as `attacks.mifgsm`; each half has its own sum.
        steps: number of steps; the first half of them are the coarse ones.
    """
    with evaluating(model):
        objective = loss_objective(model, x, y, loss, gamma=gamma)
        x_adv = uniform_start(x, eps, generator)
        for parts, some in ((COARSE, steps - steps // 2), (FINE, steps // 2)):
            direction = accumulated(1.0) if momentum else None
            x_adv = ascend(objective, x, eps=eps, alpha=eps / parts, steps=some, start=x_adv, direction=direction)
    return x_adv


def restart_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attacks: Sequence[str] = tuple(ATTACKS),
    starts: Sequence[int] = STARTS,
    steps: int = STEPS,
    table_steps: int = TABLE_STEPS[-1],
    gamma: float = GAMMA,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure which images stay right under Table 3's PGD and then under k random restarts of every other attack.

    Every attack begins with the images that Table 3's PGD leaves, whatever the other attacks find, and an image that
    one of its runs has fooled is not attacked again. All attacks have the same seeds, 0 to k - 1.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        eps: radius > 0, in the unit of the pixels.
        attacks: names in `ATTACKS`.
        starts: numbers of runs k >= 1 to report; the largest of them is the number of runs.
        steps: number of steps of each run.
        table_steps: number of steps of the first attack.
        gamma: weight of D~, see `attacks.losses.loss_objective`.
        seed: seed of the first run's start.
        progress: called with the number of runs done since the last call.

    Returns:
        A row `Table 3`, then one row for each attack and k: attack, starts, eps, and the fields of
        `accuracy.proportion`.

    Raises:
        TypeError, ValueError: see `checks` and `values`.
    """
    check_batch(model, x, y)
    check_radius(eps, above=True)
    check_each(starts, "starts", check_whole, 1)
    for name in attacks:
        check_choice(name, "attacks", tuple(ATTACKS))
    batches = list(zip(x.split(IN_CACHE), y.split(IN_CACHE), strict=True))
    parts = [_right_under_pgd(model, *batch, [eps], [table_steps], ALPHA)[eps, table_steps] for batch in batches]
    rows = [{"attack": TABLE_3, "starts": 1, "eps": eps, **proportion(torch.cat(parts).cpu())}]
    for name in attacks:
        loss, momentum = ATTACKS[name]
        attack = partial(climb, model, eps=eps, loss=loss, momentum=momentum, steps=steps, gamma=gamma)
        left = [part.clone() for part in parts]
        for k in range(1, max(starts) + 1):
            for batch, right in zip(batches, left, strict=True):
                attack_survivors(model, *batch, right, attack, seed + k - 1)
            if progress:
                progress(1)
            if k in starts:
                rows.append({"attack": name, "starts": k, "eps": eps, **proportion(torch.cat(left).cpu())})
    return rows


def restarts_plan(
    part: Part,
    *,
    eps: Sequence[float] | None = None,
    n: int = IMAGES,
    steps: int = STEPS,
    starts: Sequence[int] = STARTS,
) -> Iterator[Plan]:
    """Plan `restart_rows` on the paper's images, by default at the radius of training."""
    sizes = list(SIZES[part.dataset.name][:1] if eps is None else eps)
    check_each(sizes, "eps", check_radius, above=True)
    settings = header(
        "restarts",
        part,
        n=n,
        attack={"names": list(ATTACKS), "norm": "linf", "eps": sizes, "steps": steps, "alpha": "eps / 4, then eps / 40"}
        | {"starts": list(starts), "random_start": "uniform, seeds from 0", "gamma": GAMMA, "first": "pgd, 200 x 0.01"},
    )
    subset = part.dataset.evaluation_subset(n)
    x, y = subset.x.to(part.device), subset.y.to(part.device)

    def rows(task: Task) -> Iterator[list[dict]]:
        measured = list(task.held)
        for size in sizes:
            if not any(row["eps"] == size for row in measured):
                measured += restart_rows(task.model, x, y, eps=size, steps=steps, starts=starts, progress=task.progress)
                yield measured

    yield Plan(settings, rows, len(ATTACKS) * max(starts) * len(sizes), "run")
