"""Measure how much another CPU's rounding moves an accuracy: the cause of most of Pool's differences from print."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ..attacks.projected_gradient_descent import pgd_iterates
from ..models.architectures import GlobalPoolNetwork, SameConv2d
from ..models.predict import classified_right
from ..paper import eps_of
from . import compare, records
from .accuracy import proportion
from .evaluation import ALPHA, IMAGES, STEPS
from .sweep import Part, Plan, Task, header


@contextmanager
def rounded_differently(model: GlobalPoolNetwork, generator: torch.Generator, scale: float) -> Iterator[None]:
    """Add noise of `scale` times the mean magnitude to the convolutions of `model`, to imitate another CPU's rounding.

    Where an image is constant, its feature maps are constant too, and a max-pool sees exactly equal maxima. Which of
    them gets the gradient is then the library's choice, and on hardware that rounds differently it is chance.
    """

    def hook(_, __, h):
        # Detached and with its own generator: rounding has no gradient, and the global generator stays as it was.
        return h + scale * h.detach().abs().mean() * torch.randn(h.shape, generator=generator).to(h.device)

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, SameConv2d)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rounding_plan(
    part: Part,
    *,
    cells: Iterable[tuple[str, float]] | None = None,
    steps: Sequence[int] = STEPS[1:],
    draws: int = 3,
    scale: float = 1e-6,
    n: int = IMAGES,
) -> Iterator[Plan]:
    """Plan how much rounding alone moves an accuracy under PGD: repeat the attack `draws` times with other rounding.

    A row has eps, steps, draw, correct, n, accuracy, se.

    Args:
        cells: pairs (method, eps) to measure; default: the values of Tables A1 to A3 that the records of the folder
            measure otherwise than they are printed.
        steps: after how many steps.
        scale: scale of the noise, relative to a layer's mean magnitude; float32 rounds at 6e-8 per multiplication.
    """
    cells = sorted(set(_differing(part) if cells is None else cells))
    attack = {"name": "pgd", "alpha": ALPHA, "steps": list(steps)}
    subset = part.dataset.evaluation_subset(n).to(part.device)

    def rows(task: Task) -> Iterator[list[dict]]:
        measured = list(task.held)
        present = {(row["eps"], row["draw"]) for row in measured}
        for eps in (eps for method, eps in cells if method == task.labels["method"]):
            for draw in (draw for draw in range(draws) if (eps, draw) not in present):
                noisy, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(draw)
                with rounded_differently(noisy, generator, scale):
                    run = pgd_iterates(noisy, subset.x, subset.y, eps=eps, alpha=ALPHA, steps=max(steps))
                    stops = {k: x_adv for k, x_adv in enumerate(run, 1) if k in steps}
                for k, x_adv in stops.items():
                    # The noise changes the search only; the unchanged network judges its result.
                    right = classified_right(task.model, x_adv, subset.y)
                    measured.append({"eps": eps, "steps": k, "draw": draw, **proportion(right)})
                task.progress(1)
                yield measured

    yield Plan(header("rounding", part, n=n, attack=attack, draws=draws, scale=scale), rows, None, "run")


def _differing(part: Part) -> list[tuple[str, float]]:
    """Return the cells (method, eps) of a network's tables whose measured value is not the printed one."""
    cells = [
        cell
        for cell in compare.compare(records.read_all(part.folder))
        if cell.model.lower() == part.model and cell.verdict() not in ("", "exact")
    ]
    if not cells:
        raise FileNotFoundError(f"No {part.model} value in {part.folder} differs from print; measure A1 first.")
    return [(cell.method, eps_of(cell.level)) for cell in cells if cell.table in ("A1", "A2", "A3")]
