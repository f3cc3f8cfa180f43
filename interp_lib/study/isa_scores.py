"""Measure NDS and NSL of interpretability sneaking attacks, as rows in the form of Table 1."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks.ascent import clipped
from ..attacks.interpretability_sneaking import isa_over_eps, margin, margin_attack
from ..attacks.smallest_perturbation import MinimalAttack, minimal_eps
from ..attacks.sneaking_settings import CLASS_SETS, Discrepancy, class_set, released_settings
from ..data import EvaluationSubset
from ..discrepancies import normalised_discrepancy
from ..models.predict import evaluating
from ..values import check_choice, check_each, check_number, check_whole
from .accuracy import check_subset
from .evaluation import ISA_IMAGES
from .nds_nsl import from_record, image_scores, isa_scores, to_record
from .sneaked_maps import GRADCAM_PP, IG_SCALE, RELU_IG, SNEAKED, UNCAPPED, released_scale
from .sweep import Part, Plan, header

MAPS = ("CAM", "GradCAM++", "Repr")
PENALTIES = (1.1, 1.2, 1.4, 1.6)
# Batch size of the released code; its step depends on it, because the gradient is that of a batch mean.
RELEASED_BATCH = 100
RELU_IMAGES = 40
AGAIN = 123  # seed of another hundred images for Table 1: the seed in the released script `isa_cam`
# Table 1 has no IG on R-ImageNet, and an image takes half an hour there: measure only the first few images.
FEW = {("restricted_imagenet", "wresnet"): 2}


def isa_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    interpreters: Sequence[str] = MAPS,
    norms: Sequence[int] = (1, 2),
    class_sets: Sequence[str] = CLASS_SETS,
    penalties: Sequence[float] = PENALTIES,
    images: int | None = None,
    batch_size: int | None = None,
    held: Sequence[dict] = (),
    progress: Callable[[int], object] | None = None,
) -> Iterator[list[dict]]:
    """Measure NDS and NSL of targeted ISAs for every interpreter, norm and set of classes, as in Table 1.

    eps* of an image is the smallest eps at which the plain attack succeeds. ISAs of size penalty * eps* follow, each
    with the largest weight on the discrepancy at which it still succeeds. A point counts when the target beats the true
    class on x' and does not beat it on x. The settings are the released code's, see `attacks.released_settings`; the
    step is always the step for a batch of 100 images, whatever the number of images.

    Args:
        subset: images, labels and targets, on the model's device.
        interpreters: names in `sneaked_maps.SNEAKED`.
        norms, class_sets: p and C of eq. (3). Repr has no classes and is listed under '2-class', as in the paper.
        penalties: multiples of eps*; the paper's list is not known, except that its last value is 1.6.
        images: measure the first `images` of the subset; None for all.
        batch_size: number of images in a part; all measures of a part come before the next part. None for one part.
        held: rows of an earlier run with the same settings; their images are not measured again.
        progress: called with the number of images finished for a measure, counting those already in `held`.

    Yields:
        All rows so far, whenever one more measure of a part is done; nothing if `held` already has all images. One row
        for each measure: interpreter, measure ('l1:2-class'), squared_score, n (images kept), measured (images
        measured), the fields of `nds_nsl.IsaScores`, None where too few images are kept; at_cap, the share of searches
        that ended at the largest weight they can reach (an image whose target already leads has no search); and each,
        see `nds_nsl.to_record`. For l2 there are two rows, the second with the squared norm as score.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Table 1, Appendix D.
    """
    check_subset(subset)
    check_each(interpreters, "interpreters", check_choice, tuple(SNEAKED))
    check_each(norms, "norms", check_choice, (1, 2))
    check_each(class_sets, "class_sets", check_choice, CLASS_SETS)
    check_each(penalties, "penalties", check_number, 0, above=True)
    check_whole(len(subset.x) if images is None else images, "images", 1, len(subset.x))
    check_whole(1 if batch_size is None else batch_size, "batch_size", 1)
    x, y, target = subset.x, subset.y, subset.target
    images = len(x) if images is None else images
    report = progress or (lambda _: None)
    rows = {(row["interpreter"], row["measure"], row["squared_score"]): row for row in held}
    measures = [
        (name, p, classes)
        for name in interpreters
        for p in norms
        for classes in (class_sets if name != "Repr" else ("2-class",))
    ]
    for start in range(0, images, batch_size or images):
        stop, eps_search = min(start + (batch_size or images), images), None
        for name, p, classes in measures:
            key = (name, f"l{p}:{classes}", False)
            begin = max(start, rows[key]["measured"] if key in rows else 0)
            if begin < stop:
                part = slice(begin, stop)
                # All measures of a part share eps*; search again only when `held` left another number of images.
                if eps_search is None or len(eps_search.eps) != stop - begin:
                    eps_search = _smallest_eps(model, x[part], y[part], target[part])
                per_score, at_cap = _isa_of_images(
                    model,
                    x[part],
                    y[part],
                    target[part],
                    eps_search,
                    name=name,
                    p=p,
                    classes=classes,
                    penalties=penalties,
                )
                for squared, contributions in enumerate(per_score):
                    key = (name, f"l{p}:{classes}", bool(squared))
                    rows[key] = _isa_row(key, rows.get(key), contributions, at_cap)
                yield list(rows.values())
            report(stop - start)


def plain_attack(model: nn.Module, x: Tensor, y: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the plain attack of Table 1, eps (N,) -> x': it ignores the maps; its steps shrink with the gradient."""
    # Ten steps of 0.2 eps as in `released_settings`, so that ISA and the plain attack differ in the discrepancy only.
    direction = clipped(1000 / RELEASED_BATCH)
    return lambda eps: margin_attack(model, x, y, target, eps=eps, alpha=0.2 * eps, steps=10, direction=direction)


def _smallest_eps(model: nn.Module, x: Tensor, y: Tensor, target: Tensor) -> MinimalAttack:
    """Search eps*, the smallest eps at which the plain attack succeeds."""
    with evaluating(model), torch.no_grad():
        return minimal_eps(plain_attack(model, x, y, target), lambda x_adv: margin(model(x_adv), target) > 0, x)


def _isa_of_images(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    plain: MinimalAttack,
    *,
    name: str,
    p: int,
    classes: str,
    penalties: Sequence[float],
) -> tuple[list[Tensor], float]:
    """Score the images by one measure, for p = 2 also with the squared score.

    Returns:
        `nds_nsl.image_scores`, one (N, 3) per score; and the share of searches whose gamma ends at its cap.
    """
    interpreter, followed, search_of = SNEAKED[name]
    with evaluating(model), torch.no_grad():
        able = ~_leads(model, x, y, target)  # if the target leads on x itself, no point counts: nothing to search
        per_score = [torch.zeros(len(x), 3, dtype=torch.float64) for _ in range(p)]
        if not able.any():
            return per_score, 0.0
        x, y, target = x[able], y[able], target[able]
        eps = (torch.tensor(penalties).to(x)[:, None] * plain.eps[able]).clamp(max=1)
        class_indices = class_set(classes, y, target, model.num_classes)
        clean = interpreter(model, x, class_indices)
        distance = Discrepancy(followed, class_indices, p, scale=released_scale(name, clean, p))
        settings = released_settings(eps, distance, batch=RELEASED_BATCH)
        if search_of:
            settings["search"] = search_of
        search = isa_over_eps(model, x, y, target, **settings)
        attacks = [plain.x_adv[able], *search.x_adv]
        sizes = torch.stack([(x_adv - x).abs().flatten(1).amax(1) for x_adv in attacks], 1)
        counts = torch.stack([_leads(model, x_adv, y, target, ties=True) for x_adv in attacks], 1)
        maps = [interpreter(model, x_adv, class_indices) for x_adv in attacks]
        # The first weight doubles once in each round but the first; 0.999 allows for float32.
        largest = settings["search"].first * 2 ** (settings["search"].rounds - 1)
        at_cap = float((search.gamma > 0.999 * largest).double().mean(0).sum()) / len(able)
    for squared in range(p):
        scores = torch.stack([normalised_discrepancy(clean, m, p, bool(squared)) for m in maps], 1)
        per_score[squared][able.cpu()] = image_scores(scores, sizes, counts).cpu()
    return per_score, at_cap


def _isa_row(key: tuple, before: dict | None, contributions: Tensor, at_cap: float) -> dict:
    """Build a row from the images of the row before, if there is one, followed by the images of `contributions`."""
    earlier, share = (before["each"], before["at_cap"]) if before else ([], 0.0)
    together = earlier + to_record(contributions)
    scores = isa_scores(from_record(together))._asdict()
    scores = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    at_cap = (share * len(earlier) + at_cap * len(contributions)) / len(together)
    return {
        "interpreter": key[0],
        "measure": key[1],
        "squared_score": key[2],
        "n": scores.pop("images"),
        "measured": len(together),
        **scores,
        "at_cap": at_cap,
        "each": together,
    }


def _leads(model: nn.Module, x: Tensor, y: Tensor, target: Tensor, *, ties: bool = False) -> Tensor:
    """Return whether the target's logit exceeds the true class's, or with `ties` at least equals it: bool (N,)."""
    logits = model(x)
    lead = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    return lead >= 0 if ties else lead > 0


def table1_plan(part: Part, *, n: int = ISA_IMAGES, images: int | None = None, ig: bool = True) -> Iterator[Plan]:
    """Plan the records of Table 1: its maps, and on Small networks IG, unless `ig` is false, in a record of its own.

    Args:
        n, images: see `isa_plan`.
    """
    for interpreters in (MAPS, ("IG",)) if ig and part.model == "small" else (MAPS,):
        yield from isa_plan(part, interpreters=interpreters, n=n, images=images)


def beyond_plan(part: Part, *, n: int = ISA_IMAGES, images: int | None = None) -> Iterator[Plan]:
    """Plan Table 1 for the GradCAM++ of its own paper and for IG on the network's own ReLU, without a cap.

    By default IG is measured on the first 40 images, half a minute each.
    """
    yield from isa_plan(part, interpreters=(GRADCAM_PP,), n=n, images=images)
    yield from isa_plan(part, interpreters=(RELU_IG,), n=n, images=min(n, RELU_IMAGES) if images is None else images)


def isa_plan(
    part: Part,
    *,
    interpreters: Sequence[str] = MAPS,
    images: int | None = None,
    batch_size: int | None = None,
    n: int = ISA_IMAGES,
    seed: int = 99,
    norms: Sequence[int] = (1, 2),
    class_sets: Sequence[str] = CLASS_SETS,
    penalties: Sequence[float] = PENALTIES,
) -> Iterator[Plan]:
    """Plan `isa_rows`.

    Args:
        interpreters: `MAPS`, or IG, which has a record of its own. Maps that are not the paper's make another
            measurement, 'isa-beyond'.
        images: how many of the subset's n images to measure; the column `measured` of a row gives this number. A later
            run with more images continues the same record.
        batch_size: number of images in a part; default: 1 where an image takes long, 10 for IG, else all.
        n, seed: the subset. Images other than the tables' make another measurement, 'isa-again'.
        norms, class_sets, penalties: see `isa_rows`.
    """
    ig, beyond = "IG" in interpreters, [name for name in interpreters if name in (RELU_IG, GRADCAM_PP)]
    settings = header(
        "isa-beyond" if beyond else "isa" if seed == 99 else "isa-again",
        part,
        n=n,
        seed=seed,
        interpreters=list(interpreters),
        attack={
            "name": "isa",
            "norm": "linf",
            "targeted": True,
            "settings": "released",
            "batch": RELEASED_BATCH,
            "steps": 10,
            "tau": 0.1,
            "penalties": list(penalties),
        },
        score="NDS and NSL as the released code averages them, from three numbers an image",
    )
    if ig:
        settings["IG"] = {
            "activation": "softplus",
            "baseline": "black",
            "steps": 100,
            "rule": "right",
            "scale": IG_SCALE,
        }
    if beyond:
        settings["search"] = asdict(UNCAPPED)
    if RELU_IG in interpreters:
        settings["IG"] = {"activation": "relu", "baseline": "black", "steps": 100, "rule": "right", "scale": IG_SCALE}
        settings["IG"] |= {"attack follows": "softplus of slope 20, 8 nodes"}
    subset = part.dataset.evaluation_subset(n, seed=seed).to(part.device)
    images = min(n, FEW.get((part.dataset.name, part.model), n)) if images is None else images
    # Small parts where an image is slow, because the record is written after each measure of a part.
    batch_size = batch_size or (1 if images < n and not beyond else 10 if ig or beyond else None)

    run: dict[str, Any] = {
        "interpreters": interpreters,
        "norms": norms,
        "class_sets": class_sets,
        "penalties": penalties,
    }
    rows = lambda task: isa_rows(
        task.model, subset, images=images, batch_size=batch_size, held=task.held, progress=task.progress, **run
    )

    total = images * sum(2 * (1 if name == "Repr" else len(CLASS_SETS)) for name in interpreters)
    yield Plan(settings, rows, total, "image")
