"""Measure accuracy under the attacks of AutoAttack: one after the other, each on the images that are still right."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..attacks.auto_pgd import apgd
from ..attacks.squares import square
from ..checks import check_batch
from ..models.predict import classified_right, evaluating
from ..values import check_each, check_radius, check_whole
from .accuracy import IN_CACHE, proportion
from .sweep import Part, Plan, Task, header

STEPS, QUERIES = 100, 5000  # AutoAttack's standard settings

SQUARE_IMAGES = 200  # the paper's own: a random search costs as much as 50 runs of APGD, and finds little after them

# The radius of training, and on MNIST those beyond it at which the paper claims a lead.
SIZES = {"mnist": (0.3, 0.35, 0.4), "cifar10": (8 / 255,), "digits": (0.15,)}

ATTACKS = ("none", "APGD-CE", "APGD-T", "Square")


def targets(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return every class but the true one, by falling logit on the natural image: int64 (N, C - 1)."""
    with evaluating(model), torch.no_grad():
        logits = model(x)
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]


def strong_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    square_images: int = SQUARE_IMAGES,
    steps: int = STEPS,
    queries: int = QUERIES,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure which images stay right under APGD-CE, then APGD-T towards each other class, then Square.

    Every attack sees the images that all before it left right, as in AutoAttack. FAB-T, its third attack, is left out.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        eps: radius > 0, in the unit of the pixels.
        square_images: how many of the images, from the first on, Square is run on; its row counts these alone.
        steps, queries: of each run of APGD, and of Square.
        seed: seed of random starts and of the search, the same for every batch.
        progress: called with the number of attacked images times attacks since the last call.

    Returns:
        One row for each of `ATTACKS`: attack, eps, and the fields of `accuracy.proportion` after that attack.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Croce and Hein (2020).
    """
    check_batch(model, x, y)
    check_radius(eps, above=True)
    check_whole(square_images, "square_images", 0)
    outcomes: dict[str, list[Tensor]] = {name: [] for name in ATTACKS}
    done = 0
    for some, labels in zip(x.split(IN_CACHE), y.split(IN_CACHE), strict=True):
        right = classified_right(model, some, labels)
        outcomes["none"].append(right.clone())
        climb = partial(apgd, model, eps=eps, steps=steps)
        attack_survivors(model, some, labels, right, climb, seed)
        outcomes["APGD-CE"].append(right.clone())
        others = targets(model, some, labels)
        for k in range(others.shape[1]):
            attack_survivors(model, some, labels, right, partial(climb, target=others[right, k]), seed)
        outcomes["APGD-T"].append(right.clone())
        if (left := min(square_images - done, len(some))) > 0:
            first, search = right[:left], partial(square, model, eps=eps, queries=queries)
            attack_survivors(model, some[:left], labels[:left], first, search, seed)
            outcomes["Square"].append(first.clone())
        done += len(some)
        if progress:
            progress(len(some))
    return [
        {"attack": name, "eps": eps, **proportion(torch.cat(parts).cpu())} for name, parts in outcomes.items() if parts
    ]


def attack_survivors(
    model: nn.Module, x: Tensor, y: Tensor, right: Tensor, attack: Callable[..., Tensor], seed: int
) -> None:
    """Run attack(x, y, generator=...) on the images that are right, and mark in place those that no longer are."""
    index = right.nonzero()[:, 0]
    if len(index):
        x_adv = attack(x[index], y[index], generator=torch.Generator().manual_seed(seed))
        right[index] = classified_right(model, x_adv, y[index])


def strong_plan(
    part: Part, *, eps: Sequence[float] | None = None, n: int = 10_000, square_images: int = SQUARE_IMAGES
) -> Iterator[Plan]:
    """Plan `strong_rows` on n test images, by default at the radii of `SIZES`."""
    sizes = [e for e in (SIZES[part.dataset.name] if eps is None else eps) if e]
    check_each(sizes, "eps", check_radius, above=True)
    settings = header(
        "strong",
        part,
        n=n,
        attack={"names": list(ATTACKS), "norm": "linf", "eps": sizes, "steps": STEPS, "queries": QUERIES}
        | {"square_images": square_images, "random_start": "seed 0 for every batch of 200"},
    )
    subset = part.dataset.evaluation_subset(n)
    x, y = subset.x.to(part.device), subset.y.to(part.device)

    def rows(task: Task) -> Iterator[list[dict]]:
        measured = list(task.held)
        for size in sizes:
            if any(row["eps"] == size for row in measured):
                task.progress(n)
                continue
            measured += strong_rows(task.model, x, y, eps=size, square_images=square_images, progress=task.progress)
            yield measured

    yield Plan(settings, rows, n * len(sizes), "image")
