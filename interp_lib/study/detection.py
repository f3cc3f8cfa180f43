"""Measure interpretability discrepancies as detectors of attacks: ROC, AUC and an attack that evades the detector.

The paper says in section 2 that the discrepancy of maps 'may be used to detect adversarial examples', and measures no
detector. A detector sees an input z and nothing else: not the image x that z was made from, and not the true class.
Here it compares the maps of z with those of a smoothed copy of z. Proposition 1 is about x and x', hence about a
detector that has x; that one is measured too, as a bound on what a detector could do.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.ascent import ascend, uniform_start
from ..attacks.balls import bisect
from ..attacks.interpretability_sneaking import margin, margin_attack
from ..attacks.smallest_perturbation import minimal_eps
from ..checks import check_batch
from ..discrepancies import discrepancy
from ..interpreters.class_activation_maps import cam
from ..models.predict import classified_right, evaluating
from ..values import check_choice
from .evaluation import IMAGES
from .sneaked_maps import PAPER_INTERPRETERS
from .sweep import Part, Plan, header, once

CLASS_RULES = ("1-class", "2-class", "all-class")

REFERENCES = ("smoothed", "x")

ATTACKS = ("smallest", "larger", "evading")

INTERPRETERS = ("CAM", "GradCAM++", "Repr")

LARGER = 1.3  # times the smallest perturbation size, of the second attack and the third

TAU, STEPS, ROUNDS = 0.1, 40, 8  # of the evading attack: bound on its margin, steps, rounds of the search of its weight

FIRST_WEIGHT, LARGEST_WEIGHT = 0.05, 50.0


def smoothed(z: Tensor) -> Tensor:
    """Return the mean of every pixel's 3 x 3 neighbourhood; at the edge the last pixels are repeated."""
    return F.avg_pool2d(F.pad(z, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def classes_of(logits: Tensor, rule: str) -> Tensor:
    """Return the classes that a detector compares, int64 (N, k): the predicted one, with the second, or all."""
    order = logits.argsort(1, descending=True)
    return order[:, : {"1-class": 1, "2-class": 2, "all-class": logits.shape[1]}[rule]]


def scores(
    model: nn.Module, z: Tensor, reference: Tensor, *, interpreter: str = "CAM", rule: str = "2-class", p: int = 1
) -> Tensor:
    """Return D between the maps of z and of a reference, (N,), for the classes that the network sees in z.

    Args:
        z, reference: images (N, C, H, W).
        interpreter: a key of `PAPER_INTERPRETERS`.
        rule: which classes: '1-class', '2-class' or 'all-class'.
        p: the norm, 1 or 2.
    """
    check_choice(rule, "rule", CLASS_RULES)
    check_choice(interpreter, "interpreter", tuple(PAPER_INTERPRETERS))
    with evaluating(model), torch.no_grad():
        classes = classes_of(model(z), rule)
        maps = [PAPER_INTERPRETERS[interpreter](model, images, classes) for images in (z, reference)]
    return discrepancy(maps[0], maps[1], p)


def auc(positive: Tensor, negative: Tensor) -> tuple[float, float]:
    """Return the area under the ROC curve, and its standard error.

        AUC = P(s > s') + 1/2 P(s = s'),        s the score of an attacked image and s' that of another one

    Args:
        positive, negative: scores (m,) and (n,), m, n >= 1.

    Source: DeLong et al. (1988) for the error, which is 0 where all pairs are in order.
    """
    pairs = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
    variance = sum(
        pairs.mean(axis).var().item() / pairs.shape[1 - axis] for axis in (0, 1) if pairs.shape[1 - axis] > 1
    )
    return pairs.mean().item(), math.sqrt(variance)


def roc(positive: Tensor, negative: Tensor) -> tuple[list[float], list[float]]:
    """Return false and true positive rates over all thresholds, from (0, 0) to (1, 1)."""
    every = torch.cat([positive, negative])
    order = every.argsort(descending=True)
    attacked = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])[order].double()
    last = torch.cat([every[order].diff() != 0, torch.ones(1, dtype=torch.bool)])  # thresholds between unequal scores
    found, wrong = attacked.cumsum(0) / len(positive), (1 - attacked).cumsum(0) / len(negative)
    return [0.0, *wrong[last].tolist()], [0.0, *found[last].tolist()]


def evading(model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, eps: Tensor, steps: int = STEPS) -> Tensor:
    """Attack the network and the detector at once, as ISA does, and return images (N, C, H, W).

        maximize  -max{ f_y(z) - max_{j != y} f_j(z), -tau } - w D(L(z), L(smoothed z))   within the ball

    D is the detector's, of CAM, l1, and the classes that it will see: the target and y. w is the largest, image by
    image, with which the attack still fools the network; with none that does, w is 0.

    Args:
        target: the class that the image is taken for, int64 (N,).
        eps: radii (N,).
        steps: number of steps of each attack of the search.

    Source: eq. (6), with a smoothed copy in the place of x.
    """
    classes = torch.stack([target, y], 1)

    def attacked(weight: Tensor) -> Tensor:
        def objective(z: Tensor) -> Tensor:
            maps = [cam(model, images, classes, create_graph=True) for images in (z, smoothed(z))]
            return -margin(model(z), y).clamp(min=-TAU) - weight * discrepancy(*maps)

        return ascend(objective, x, eps=eps, alpha=eps / 8, steps=steps)

    with evaluating(model):
        best = attacked(torch.zeros_like(eps))

        def fools(weight: Tensor) -> Tensor:
            z = attacked(weight)
            done = ~classified_right(model, z, y)
            best[done] = z[done]
            return done

        ends = torch.zeros_like(eps), torch.full_like(eps, LARGEST_WEIGHT)
        bisect(fools, torch.full_like(eps, FIRST_WEIGHT), *ends, ROUNDS)
    return best


def detection_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreters: Sequence[str] = INTERPRETERS,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Measure how well discrepancies tell attacked images from others, for every detector and attack.

    The attacks are untargeted, on images that are classified right: 'smallest', at the smallest perturbation size that
    fools the network; 'larger', at 1.3 times that size; and 'evading', see `evading`, at the same size. The images to
    tell them from are natural ones for the reference 'smoothed', and for the reference 'x' those with uniform noise of
    the size of the attack.

    Args:
        x, y: images (N, C, H, W) in [0, 1] and true labels (N,).
        interpreters: names in `PAPER_INTERPRETERS`.
        steps: number of steps of each attack.
        seed: of the noise.
        progress: called with the number of attacks done since the last call.

    Returns:
        One row for each attack, reference, interpreter, rule and p: auc and its standard error se over n attacked
        images that fool the network, and as many others; median_eps, the median size.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2 names the use; in none of the paper's tables.
    """
    check_batch(model, x, y)
    right = classified_right(model, x, y)
    x, y = x[right], y[right]
    attack = lambda size: margin_attack(model, x, y, None, eps=size, alpha=size / 4, steps=steps)
    wrong = lambda z: ~classified_right(model, z, y)
    search = minimal_eps(attack, wrong, x, first=0.05, high=1.0)
    report = progress or (lambda _: None)
    report(1)
    size = (LARGER * search.eps).clamp(max=1)
    attacked = {"smallest": search.x_adv, "larger": attack(size)}
    report(1)
    with torch.no_grad():
        target = model(search.x_adv).scatter(1, y[:, None], -torch.inf).argmax(1)
    attacked["evading"] = evading(model, x, y, target, eps=size, steps=steps)
    report(1)
    rows = []
    for name, z in attacked.items():
        fooled = wrong(z)
        radius = search.eps if name == "smallest" else size
        noisy = uniform_start(x, radius, torch.Generator().manual_seed(seed))
        for reference in REFERENCES:
            others = x if reference == "smoothed" else noisy
            of = (lambda images: smoothed(images)) if reference == "smoothed" else (lambda images: x)  # noqa: B023
            for interpreter in interpreters:
                for rule in CLASS_RULES if interpreter != "Repr" else CLASS_RULES[:1]:
                    for p in (1, 2):
                        how: dict[str, Any] = {"interpreter": interpreter, "rule": rule, "p": p}
                        positive = scores(model, z, of(z), **how)[fooled]
                        negative = scores(model, others, of(others), **how)[fooled]
                        value, error = auc(positive, negative) if len(positive) else (None, None)
                        rows.append(
                            {"attack": name, "reference": reference, **how}
                            | {"auc": value, "se": error, "n": int(fooled.sum())}
                            | {"median_eps": radius[fooled].median().item() if fooled.any() else None}
                        )
    return rows


def detection_plan(part: Part, *, n: int = IMAGES) -> Iterator[Plan]:
    """Plan `detection_rows` on the paper's images, of networks of Normal, Adv and Int."""
    subset = part.dataset.evaluation_subset(n).to(part.device)
    attack = {
        "smallest": "margin attack, untargeted, 40 steps of eps / 4",
        "larger": LARGER,
        "evading": "largest weight",
    }
    settings = header("detection", part, n=n, attack=attack, smoothing="mean of 3 x 3", interpreters=list(INTERPRETERS))
    rows = once(lambda network, progress: detection_rows(network, subset.x, subset.y, progress=progress))
    yield Plan(settings, rows, len(ATTACKS), "attack")
