"""Check whether a network masks its gradients: the points of Athalye et al. (2018) and Carlini et al. (2019), counted.

Gradients are masked where attacks that follow them fail although the network is not robust. Every check here counts
the images `against` the network: images of which an attack that ought to be weaker finds what the one that ought to be
stronger misses, or at which the gradient does not lead upwards. `flagged` is the one rule that makes a verdict of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks.ascent import cross_entropy, input_gradient, uniform_start
from ..attacks.interpretability_sneaking import margin
from ..attacks.projected_gradient_descent import pgd
from ..attacks.squares import square
from ..checks import check_batch, check_images
from ..fast.fold import fold_for_attack
from ..models.predict import classified_right, evaluating
from ..values import check_each, check_radius, check_whole
from .accuracy import IN_CACHE
from .strong import attack_survivors
from .sweep import Part, Plan, Task, header

CHECKS = {
    "one step": "one step of ε takes what many small steps leave",
    "more steps": "fewer steps take what all steps leave",
    "larger ε": "half the radius takes what the whole leaves",
    "random start": "a random start takes what the start at x leaves",
    "black box": "Square takes what PGD leaves",
    "whole box": "right at ε = 1",
    "gradient at x": "gradient of 0, or nearly",
    "direction": "the gradient's sign lowers the margin no more than random signs",
}

TOLERANCE = 0.01  # share of the images that a check may count against a network

STEPS, SHARE = 50, 1 / 20  # of PGD; step size over eps

STEP_COUNTS = (10, 25)  # at which the run of `STEPS` is looked at as well

TINY = 1e-6  # largest entry of a gradient that is nearly 0

NEAR = 1 / 10  # distance over eps at which the gradient's direction is compared with a random one

IMAGES, SQUARE_IMAGES, QUERIES = 200, 100, 1000

# The radius of training, and on MNIST one beyond it at which the paper claims a lead.
SIZES = {"mnist": (0.3, 0.35), "cifar10": (8 / 255,), "digits": (0.15,)}

SIDE = 15  # points along either direction of a surface


def flagged(row: Mapping) -> bool:
    """Say whether more than one image, and more than a hundredth, of a row count against the network."""
    return row["against"] > max(1, TOLERANCE * row["n"])


def masking_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    square_images: int = SQUARE_IMAGES,
    queries: int = QUERIES,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Run every check of `CHECKS` on the images that are classified right.

    PGD is that of `attacks.pgd`, from x unless a row says otherwise, with steps of eps / 20.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        eps: radius > 0, in the unit of the pixels.
        square_images: how many of the images, from the first on, the check 'black box' counts.
        queries: of Square.
        steps: of PGD, more than 25.
        seed: of the random start, the random direction and Square, the same for every batch.
        progress: called with the number of images done since the last call.

    Returns:
        One row for each check: check, eps; against, the images that count against the network, of n; left, the images
        that stay right under each of the attacks that are compared. 'gradient at x' has zero, the number of gradients
        that are exactly 0, and median, of the gradients' largest entries.

    Raises:
        TypeError, ValueError: see `checks` and `values`.

    Source: section 3.1 of Athalye et al. (2018); Carlini et al. (2019), checklist.
    """
    check_batch(model, x, y)
    check_radius(eps, above=True)
    check_whole(square_images, "square_images", 0)
    check_whole(steps, "steps", STEP_COUNTS[-1] + 1)
    parts: list[dict[str, dict[str, Any]]] = []
    seen = 0
    for some, labels in zip(x.split(IN_CACHE), y.split(IN_CACHE), strict=True):
        keep = classified_right(model, some, labels)
        first = int(keep[: max(square_images - seen, 0)].sum())  # of the images kept, those for Square
        kept, classes = some[keep], labels[keep]
        compared, many = _attacked(model, kept, classes, eps, steps, seed)
        parts.append(
            compared
            | _black_box(model, kept[:first], classes[:first], many[:first], eps, queries, seed)
            | _slopes(model, kept, classes, eps, seed)
        )
        seen += len(some)
        if progress:
            progress(len(some))
    return [{"check": name, "eps": eps, **_joined([part[name] for part in parts])} for name in CHECKS]


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the counts of the batches of one check; the median is that of all gradients."""
    row: dict[str, Any] = {key: sum(part[key] for part in parts) for key in ("against", "n")}
    if "left" in parts[0]:
        row["left"] = [sum(counts) for counts in zip(*(part["left"] for part in parts), strict=True)]
    if "sizes" in parts[0]:
        sizes = torch.cat([part["sizes"] for part in parts])
        row |= {"zero": int((sizes == 0).sum()), "median": sizes.median().item() if len(sizes) else None}
    return row


def _count(weaker: Sequence[Tensor], stronger: Tensor) -> dict[str, Any]:
    """Count the images that some weaker attack takes and the stronger one leaves, from outcomes (N,)."""
    taken = torch.stack([~right for right in weaker]).any(0)
    left = [int(right.sum()) for right in (*weaker, stronger)]
    return {"against": int((taken & stronger).sum()), "n": len(stronger), "left": left}


def _attacked(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> tuple[dict, Tensor]:
    """Return the checks that compare PGD with PGD, and which images the whole run from x leaves right, bool (N,)."""

    def right(size: float, count: int, alpha: float, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_adv = pgd(model, x, y, eps=size, alpha=alpha, steps=count, start=start)
        return x_adv, classified_right(model, x_adv, y)

    x_adv: Tensor | None = None
    earlier: list[Tensor] = []
    done = 0
    for count in (*STEP_COUNTS, steps):  # sign steps have no memory: the parts are one long run
        x_adv, outcome = right(eps, count - done, SHARE * eps, x_adv)
        earlier, done = [*earlier, outcome], count
    *earlier, many = earlier
    random = uniform_start(x, eps, torch.Generator().manual_seed(seed))
    whole = right(1.0, steps, SHARE)[1]
    checks = {
        "one step": _count([right(eps, 1, eps)[1]], many),
        "more steps": _count(earlier, many),
        "larger ε": _count([right(eps / 2, steps, SHARE * eps / 2)[1]], many),
        "random start": _count([right(eps, steps, SHARE * eps, random)[1]], many),
        "whole box": {"against": int(whole.sum()), "n": len(whole), "left": [int(whole.sum())]},
    }
    return checks, many


def _black_box(model: nn.Module, x: Tensor, y: Tensor, white: Tensor, eps: float, queries: int, seed: int) -> dict:
    """Return the check of Square, which begins with the images that PGD leaves right, `white`, bool (N,)."""
    both = white.clone()
    search = lambda x, y, generator: square(model, x, y, eps=eps, queries=queries, generator=generator)
    attack_survivors(model, x, y, both, search, seed)
    left = [int(white.sum()), int(both.sum())]
    return {"black box": {"against": left[0] - left[1], "n": len(x), "left": left}}


def _slopes(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> dict[str, dict]:
    """Return the checks of the gradient at x itself."""
    if not len(x):
        nothing: dict[str, Any] = {"against": 0, "n": 0}
        return {"gradient at x": nothing | {"sizes": x.flatten(1).sum(1)}, "direction": nothing}
    with evaluating(model):
        logits = fold_for_attack(model).logits
        along, random = directions(model, x, y, seed)
        with torch.no_grad():
            heights = [margin(logits((x + NEAR * eps * way).clamp(0, 1)), y) for way in (along, random)]
        sizes = input_gradient(cross_entropy(logits, y), x).abs().flatten(1).amax(1).cpu()
    return {
        "gradient at x": {"against": int((sizes < TINY).sum()), "n": len(x), "sizes": sizes},
        "direction": {"against": int((heights[0] >= heights[1]).sum()), "n": len(x)},
    }


def directions(model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the sign of the cross-entropy's gradient at x, and random signs, both (N, C, H, W)."""
    with evaluating(model):
        along = input_gradient(cross_entropy(fold_for_attack(model).logits, y), x).sign()
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(x.shape[1:], generator=generator).to(x) < 0.5  # the same for every image
    return along, (2 * random.to(x.dtype) - 1).expand_as(x)


def surface(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, side: int = SIDE, seed: int = 0
) -> list[list[float]]:
    """Return the margin of the true class on a plane through one image, over the margin at the image itself.

        (a, b) -> margin(x + a u + b v),        a, b in [-eps, eps]

    u is the sign of the cross-entropy's gradient at x and v random signs. The points are clipped to the box [0, 1].
    Where |a| + |b| > eps, pixels on which u and v agree are outside the ball.

    Args:
        x, y: one image (1, C, H, W), classified right, and its label (1,).
        eps: half the width of the plane, in the unit of the pixels.
        side: points along u and along v, an odd number, so that x is one of them.

    Returns:
        A list for each b, ascending, with a value for each a; 1 at x, below 0 where the image is misclassified.

    Raises:
        ValueError: more than one image, or one that is misclassified.
    """
    check_images(x)
    if len(x) != 1 or not classified_right(model, x, y).all():
        came = f"{len(x)} images" if len(x) != 1 else "one that is misclassified"
        raise ValueError(f"a surface needs one image that is classified right; got {came}.")
    along, random = directions(model, x, y, seed)
    steps = torch.linspace(-eps, eps, side, dtype=x.dtype, device=x.device)
    plane = (x + steps[:, None, None, None, None] * random + steps[:, None, None, None] * along).clamp(0, 1)
    with evaluating(model), torch.no_grad():
        values = margin(model(plane.flatten(0, 1)), y.expand(side**2)) / margin(model(x), y)
    return [[round(value, 3) for value in line] for line in values.view(side, side).tolist()]


def masking_plan(
    part: Part, *, eps: Sequence[float] | None = None, n: int = IMAGES, square_images: int = SQUARE_IMAGES
) -> Iterator[Plan]:
    """Plan `masking_rows` on n test images, and the surface around the first of them that is classified right."""
    sizes = list(SIZES[part.dataset.name] if eps is None else eps)
    check_each(sizes, "eps", check_radius, above=True)
    settings = header(
        "masking",
        part,
        n=n,
        attack={"norm": "linf", "eps": sizes, "steps": STEPS, "alpha": "eps / 20", "step_counts": list(STEP_COUNTS)}
        | {"square_images": square_images, "queries": QUERIES, "seed": 0},
        checks=list(CHECKS),
        tiny=TINY,
        direction_at="eps / 10",
    )
    subset = part.dataset.evaluation_subset(n)
    x, y = subset.x.to(part.device), subset.y.to(part.device)

    def rows(task: Task) -> Iterator[list[dict]]:
        measured = list(task.held)
        for size in sizes:
            if any(row["eps"] == size for row in measured):
                task.progress(n)
                continue
            new = masking_rows(task.model, x, y, eps=size, square_images=square_images, progress=task.progress)
            right = classified_right(task.model, x, y).nonzero()[:, 0]
            if len(right):
                first = right[:1]
                new[-1] |= {"image": int(first), "surface": surface(task.model, x[first], y[first], eps=size)}
            measured += new
            yield measured

    yield Plan(settings, rows, n * len(sizes), "image")
