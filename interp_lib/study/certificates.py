"""Certify images by Proposition 1: bound the discrepancy of maps on a ball, and compare it with the margin.

No x' of the ball is taken for t' in the place of t if what f_t' - f_t can gain on it is less than the margin
f_t(x) - f_t'(x). Every form bounds this gain, and its exact value is at least that of the form before:

    logits      max_x' [ (f_t' - f_t)(x') - (f_t' - f_t)(x) ]
    joint       max_x' || M(x') - M(x) ||_1,        M = L(., t') - L(., t)
    2-class     max_x' 2 D_{2,l1}(x, x')                                                          (eqs. 4, 5)
    2-class l2  max_x' sqrt(u) ( ||L(x', t) - L(x, t)||_2 + ||L(x', t') - L(x, t')||_2 )
    all-class   max_x' C D_{l1}(x, x')                                         (eq. 3, over all C classes)

The proof of Proposition 1 goes from the logits to the 2-class form in two steps: the norm of a map (joint), and the two
maps apart (2-class). By Cauchy and Schwarz the l2 form is no smaller than the 2-class form; nor is the all-class form,
which adds more classes. The map of the true class alone gives no certificate: it does not bound what f_t' gains.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..attacks.ascent import ascend, uniform_start
from ..attacks.balls import bisect
from ..attacks.projected_gradient_descent import pgd
from ..checks import check_batch
from ..fast.fold import fold_cam
from ..models.architectures import Small
from ..models.bounds import KINDS, Ball, map_rows
from ..models.predict import classified_right, evaluating
from ..values import check_choice
from .evaluation import IMAGES
from .sweep import Part, Plan, header, once

FORMS = ("logits", "joint", "2-class", "2-class l2", "all-class")

STEPS_OF_PROOF = FORMS[:3]

SLACK = 1e-3  # in logits; the rounding of a bound in single precision is a hundredth of it

STEPS = 20  # of an attack on the discrepancy; one on the logits has twice as many

ROUNDS = 4  # of the search of a radius

BATCH = 5  # images of which the second layer is bounded at once: they fit the cache


def largest_gain(ball: Ball, rows: Tensor, y: Tensor, targets: Tensor, form: str) -> Tensor:
    """Bound what f_t' - f_t can gain on a ball, for several targets t' of each image.

    Args:
        ball: N images and a radius, see `models.bounds`.
        rows: `map_rows` of the same network, (classes, u, 32, h, w).
        y: the classes t, int64 (N,).
        targets: the classes t', int64 (N, T).
        form: one of `FORMS`.

    Returns:
        (N, T).
    """
    check_choice(form, "form", FORMS)
    if form == "logits":
        return ball.change((rows[targets] - rows[y][:, None]).sum(2))
    if form == "joint":
        maps = rows[targets] - rows[y][:, None]
    elif form == "all-class":
        maps = rows.expand(len(y), *rows.shape)
    else:
        maps = rows[torch.cat([y[:, None], targets], 1)]
    flat = maps.flatten(1, 2)
    high, low = (side.unflatten(1, maps.shape[1:3]) for side in (ball.change(flat), -ball.change(-flat)))
    largest = torch.maximum(high.abs(), low.abs())
    if form == "2-class l2":
        norms = maps.shape[2] ** 0.5 * torch.linalg.vector_norm(largest, dim=2)
        return norms[:, :1] + norms[:, 1:]
    # The absolute value on [low, high] is below its chord. The chords of all pixels are together one linear function of
    # h, which CROWN may bound more tightly than pixel by pixel.
    slope = (high.abs() - low.abs()) / (high - low).clamp(min=torch.finfo(high.dtype).tiny)
    chords = (slope[:, :, None] @ maps.flatten(3))[:, :, 0].unflatten(2, maps.shape[3:])
    parts = [largest.sum(2), chords, (high.abs() - slope * high).sum(2)]
    if form == "all-class":
        parts = [part.sum(1, keepdim=True) for part in parts]
    elif form == "2-class":
        parts = [part[:, :1] + part[:, 1:] for part in parts]
    norm, chord, constant = parts
    return torch.minimum(norm, ball.change(chord) + constant).expand(targets.shape)


def _coarse_gain(ball: Ball, rows: Tensor, y: Tensor) -> Tensor:
    """Bound the gain of the 2-class form, hence of the joint form too, by intervals of h alone: (N, classes)."""
    rows = rows.flatten(2)
    up, down = ((side.relu() - ball.h).flatten(1).T for side in (ball.high, ball.low))
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    high, low = positive @ up + negative @ down, positive @ down + negative @ up
    norms = torch.maximum(high, -low).sum(1).T
    return norms + norms.gather(1, y[:, None])


def certified(
    model: Small, x: Tensor, y: Tensor, *, eps: float | Tensor, form: str = "2-class", kind: str = "CROWN", slack=0.0
) -> Tensor:
    """Prove of images that they are classified as y and stay so under every perturbation of size eps.

    An image is certified if the bound of every target's gain is less than the margin, f_t(x) - f_t'(x).

    Args:
        model: a Small.
        x, y: images (N, C, H, W) in [0, 1] of the network's dtype, and true labels (N,).
        eps: radius >= 0 of the l-infinity ball, in the unit of the pixels, a number or one per image, (N,).
        form: one of `FORMS`: 'logits' bounds differences of logits, '2-class' uses Proposition 1.
        kind: 'IBP' or 'CROWN', see `models.bounds`.
        slack: by how much the margin has to exceed the bound, in logits; room for rounding.

    Returns:
        bool (N,). False means that this bound proves nothing, not that an attack exists.

    Raises:
        TypeError, ValueError: see `checks`, `values` and `models.bounds.Ball`.

    Source: Proposition 1, read backwards: no attack where D is less than its bound.
    """
    check_batch(model, x, y)
    check_choice(form, "form", FORMS)
    return _worst_ratio(model, x, y, torch.as_tensor(eps, dtype=x.dtype).expand(len(x)), form, kind, slack) < 1


@torch.no_grad()
def _worst_ratio(model: Small, x: Tensor, y: Tensor, eps: Tensor, form: str, kind: str, slack: float) -> Tensor:
    """Return the largest ratio of a target's gain to the margin, (N,); the nearest target's, where that is 1 or more.

    It is less than 1 exactly where the image is certified, and infinite where it is misclassified to begin with.
    """
    if not len(x):
        return x.new_empty(0)
    rows, worst = map_rows(model), []
    for some, labels, radius in zip(*(part.split(BATCH) for part in (x, y, eps)), strict=True):
        ball, logits = Ball(model, some, radius, kind), model(some)
        room = (logits.gather(1, labels[:, None]) - logits - slack).clamp(min=0)
        order = room.scatter(1, labels[:, None], torch.inf).argsort(1)[:, :-1]  # the targets, the nearest first
        unsettled = torch.ones_like(room).bool()
        if form in STEPS_OF_PROOF[1:]:
            unsettled = _coarse_gain(ball, rows, labels) >= room
        largest = torch.zeros_like(room[:, 0])
        for targets in (order[:, :1], order[:, 1:]):  # most images that fail do so for the nearest target
            asked = (largest < 1)[:, None] & unsettled.gather(1, targets)
            for n in asked.any(1).nonzero():  # one image at a time, for the targets that are unsettled
                c = targets[n][asked[n]][None]
                gain = largest_gain(ball.at(n), rows, labels[n], c, form)
                largest[n] = torch.where(room[n, c] > 0, gain / room[n, c], torch.inf).amax().maximum(largest[n])
        worst.append(largest)
    return torch.cat(worst)


def _search(ratio: Callable[[Tensor], Tensor], first: Tensor, high: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Return the largest radius tried with a ratio below 1 and the smallest with another; 0 and `high` if none was.

    A gain grows a little faster than the radius, so that a ratio tells where to try next.
    """
    value, low = first, torch.zeros_like(first)
    for _ in range(rounds):
        r = ratio(value)
        low, high = torch.where(r < 1, value, low), torch.where(r < 1, high, value)
        # Slightly below the radius that is expected, and not too near the ends of what is left.
        value = (0.98 * value * r**-0.8).clamp(low + 0.1 * (high - low), high - 0.1 * (high - low))
    return low, high


def refuted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    form: str = "2-class",
    steps: int = STEPS,
    seed: int = 0,
) -> Tensor:
    """Find images that no bound of this form can certify, however tight it is, by an attack.

    For the logits the attack looks for an x' of the ball that is misclassified. For the others it looks for an x' where
    the norm of the form reaches the margin for some target, whether x' is misclassified or not.

    Args:
        x, y, eps: as `certified`.
        form: one of `STEPS_OF_PROOF`.
        steps: of an eighth of eps each; twice as many for the logits.
        seed: of the random start.

    Returns:
        bool (N,). False means that the attack failed, not that a proof exists.

    Raises: as `certified`.
    """
    check_batch(model, x, y)
    check_choice(form, "form", STEPS_OF_PROOF)
    eps = torch.as_tensor(eps, dtype=x.dtype).expand(len(x))
    start = uniform_start(x, eps, torch.Generator().manual_seed(seed))
    attack = {"eps": eps, "alpha": eps / 8, "start": start}
    if form == "logits":
        return ~classified_right(model, pgd(model, x, y, steps=2 * steps, **attack), y)
    with evaluating(model):
        maps, own = fold_cam(model), y[:, None, None]

        def of_class(values: Tensor) -> Tensor:  # (N, classes, u) -> (N, 1, u)
            return values.gather(1, own.expand(-1, 1, values.shape[2]))

        with torch.no_grad():
            natural = maps(x).flatten(2)
            margin = (of_class(natural) - natural).sum(2).scatter(1, y[:, None], torch.inf)

        def excess(z: Tensor) -> Tensor:
            moved = maps(z).flatten(2) - natural
            parts = (moved - of_class(moved)).abs() if form == "joint" else moved.abs() + of_class(moved).abs()
            return (parts.sum(2) - margin).amax(1)

        x_adv = ascend(excess, x, steps=steps, **attack)
        with torch.no_grad():
            return excess(x_adv) >= 0


def radii(
    model: Small, x: Tensor, y: Tensor, *, rounds: int = ROUNDS, progress: Callable[[int], object] | None = None
) -> dict[tuple[str, str], Tensor]:
    """Search the largest radius that each form and kind of bound certifies, and the smallest that an attack refutes.

    The search stays below what was refuted, and below what the form before failed to certify.

    Args:
        x, y: images (N, C, H, W) that are classified as y.
        rounds: of a search of a certified radius.
        progress: called with the number of images times searches since the last call.

    Returns:
        ('attack', form) -> smallest refuted radius, (N,); (kind, form) -> largest certified radius, (N,), for the forms
        of `STEPS_OF_PROOF`.
    """
    found, zero = {}, torch.zeros(len(x), dtype=x.dtype)
    report = progress or (lambda _: None)
    highest = torch.ones_like(zero)
    for form in STEPS_OF_PROOF:
        stays = lambda eps: ~refuted(model, x, y, eps=eps, form=form)  # noqa: B023
        first = torch.full_like(zero, 0.1) if form == "logits" else highest / 2
        highest = bisect(stays, first, zero, highest, rounds + (4 if form == "logits" else 1))[1]
        found["attack", form] = highest
        report(len(x))
    for kind in KINDS:
        failed = torch.ones_like(zero)
        for form in STEPS_OF_PROOF:
            ratio = lambda eps: _worst_ratio(model, x, y, eps, form, kind, SLACK)  # noqa: B023
            high = torch.minimum(failed, found["attack", form])
            # Intervals certify radii far below those of attacks, and cost little.
            first, more = (high / 2, 0) if kind == "CROWN" else (high / 32, 2)
            found[kind, form], failed = _search(ratio, first, high, rounds + more)
            report(len(x))
    return found


def certificate_rows(
    model: Small, x: Tensor, y: Tensor, *, rounds: int = ROUNDS, progress: Callable[[int], object] | None = None
) -> list[dict]:
    """Measure `radii` of the images that are classified right.

    Returns:
        One row for each kind ('attack', or one of `models.bounds`) and form: n, correct (the number classified
        right), and radii, one number per image, None where it is wrong to begin with. Certified radii are rounded down
        and refuted ones up, to four decimals.

    Raises: as `certified`.
    """
    check_batch(model, x, y)
    right = classified_right(model, x, y)
    rows = []
    for (kind, form), values in radii(model, x[right], y[right], rounds=rounds, progress=progress).items():
        toward = math.ceil if kind == "attack" else math.floor
        numbers = iter(toward(1e4 * value) / 1e4 for value in values.tolist())
        every = [next(numbers) if one else None for one in right.tolist()]
        rows.append({"kind": kind, "form": form, "correct": len(values), "n": len(x), "radii": every})
    return rows


def accuracy_at(values: Sequence[float | None], eps: float) -> int:
    """Count the images whose radius is at least eps; an image without a radius is wrong to begin with."""
    return sum(value is not None and value >= eps for value in values)


def certificates_plan(part: Part, *, n: int = IMAGES, rounds: int = ROUNDS) -> Iterator[Plan]:
    """Plan `certificate_rows` on the evaluation subset of n images."""
    subset = part.dataset.evaluation_subset(n).to(part.device)
    attack = {"norm": "linf", "steps": [2 * STEPS, STEPS, STEPS], "alpha": "eps / 8", "random_start": "seed 0"}
    settings = header(
        "certificates", part, n=n, forms=list(STEPS_OF_PROOF), bounds=list(KINDS), attack=attack, rounds=rounds
    )
    rows = once(
        lambda network, progress: certificate_rows(network, subset.x, subset.y, rounds=rounds, progress=progress)
    )
    yield Plan(settings | {"slack": SLACK}, rows, None, "image")
