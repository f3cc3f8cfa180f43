"""The Square attack of Andriushchenko et al. (2020): random search with squares, which needs no gradients."""

import torch
from torch import Tensor, nn

from ..checks import check_numbers
from ..fast.fold import fold_for_attack
from ..models.predict import evaluating
from ..values import check_number
from .ascent import ball, check_attack
from .balls import per_example
from .interpretability_sneaking import margin

# Share of the queries, in ten thousandths, from which the squares' area is halved once more.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def area(query: int, queries: int, share: float) -> float:
    """Return the share of the image that the square of a query covers."""
    progress = int(query / queries * 10_000)
    return share / 2 ** sum(progress > at for at in HALVINGS)


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    queries: int = 5000,
    share: float = 0.8,
    generator: torch.Generator,
) -> Tensor:
    """Run the Square attack in the l-infinity ball and return its best images.

    The first image is x plus vertical stripes of -eps or eps. A query adds -2 eps or 2 eps, a sign for each colour, to
    a square at a random place, and projects onto ball and box. It is kept where it lowers f_y - max_{j != y} f_j. The
    squares shrink from a share of the image to single pixels. An image is queried until it fools the network.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,): true labels.
        eps: radius of the l-infinity ball, in the unit of the pixels; a number or (N,).
        queries: number of queries; 5000 in AutoAttack.
        share: share of the image that the first squares cover.
        generator: source of all random choices, which the images of a call share.

    Returns:
        x_adv (N, C, H, W), inside the ball and the box [0, 1].

    Raises:
        TypeError, ValueError: see `checks`; also without a generator.
        NotANumber: a logit is NaN.

    Source: Algorithms 1 and 2 of Andriushchenko et al. (2020), with the schedule of their code, in which the images of
    a call share all choices but the stripes.
    """
    check_attack(model, x, y, eps=eps, alpha=0.0, steps=queries)
    check_number(share, "share", 0, 1, above=True)
    if not isinstance(generator, torch.Generator):
        raise ValueError("generator must be a torch.Generator, the source of the random search.")
    x, (low, high) = x.detach(), ball(x.detach(), eps)
    n, colours, height, width = x.shape
    if n == 0 or queries == 0:
        return x.clone()
    size = torch.as_tensor(per_example(eps, x), dtype=x.dtype, device=x.device).expand(n, 1, 1, 1)
    draw = lambda *shape: torch.rand(shape, generator=generator, device=generator.device).to(x)
    sign = lambda *shape: 2 * (draw(*shape) < 0.5).to(x.dtype) - 1
    with evaluating(model), torch.no_grad():
        logits = fold_for_attack(model).logits
        best = (x + size * sign(1, colours, 1, width)).clamp(low, high)
        lead = margin(logits(best), y)
        check_numbers(lead, "the logits")
        for query in range(1, queries):
            going = (lead > 0).nonzero()[:, 0]
            if not len(going):
                break
            side = min(max(round((area(query, queries, share) * height * width) ** 0.5), 1), height, width)
            top, left = (int(v * (room + 1)) for v, room in zip(draw(2), (height - side, width - side), strict=True))
            window = (going, slice(None), slice(top, top + side), slice(left, left + side))
            tried = best[going]
            moved = best[window] + 2 * size[going] * sign(1, colours, 1, 1)
            tried[:, :, window[2], window[3]] = moved.clamp(low[window], high[window])
            new = margin(logits(tried), y[going])
            check_numbers(new, "the logits")
            lower = new < lead[going]
            best[going[lower]], lead[going[lower]] = tried[lower], new[lower]
    return best
