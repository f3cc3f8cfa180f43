"""The two attacks on interpretation as rows: rank correlations under AAI, NDS and NSL of ISAs."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .attacks.aai import aai
from .attacks.isa import class_set, isa_over_eps, margin, margin_attack, released_settings
from .attacks.minimal import minimal_eps
from .attacks.pgd import clipped, evaluating
from .data import EvaluationSubset
from .discrepancy import isa_scores, kendall_tau, normalised_discrepancy
from .evaluation import predictions
from .interpreters import cam, gradcam_pp_release, representation

# The paper's names. Its GradCAM++ is the released code's, see `interpreters.gradcam_pp_release`.
INTERPRETERS = {"CAM": cam, "GradCAM++": gradcam_pp_release, "Repr": representation}
CLASS_SETS = ("1-class", "2-class", "all-class")
AAI = {"top_k": 8, "alpha": 0.01, "steps": 200, "hinge": 0.0}
PENALTIES = (1.1, 1.2, 1.4, 1.6)


def mean_and_error(values: Tensor) -> tuple[float | None, float | None]:
    """Mean and standard error; None for the mean of none, and for the error of fewer than two."""
    n = len(values)
    return (float(values.mean()) if n else None, float(values.std()) / math.sqrt(n) if n > 1 else None)


def aai_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    eps: Sequence[float],
    interpreter: str = "CAM",
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Kendall's tau-b of the true class's map before and after the top-k AAI, for every eps.

    The attack is the released code's: the eight largest pixels, 200 steps of 0.01, the subset's random start, no
    hinge. An image whose predicted class has changed is dropped afterwards; being right is not required. The maps
    are not up-sampled.

    Args:
        subset: images and labels, on the model's device.
        eps: perturbation sizes > 0, in the unit of the pixels.
        interpreter: 'CAM' or 'GradCAM++' (the released code's).
        progress: called with the number of steps done since the last call.

    Returns:
        A row for every eps: tau over the n images that are left, with its standard error se, and tau_all over all
        images. None where no image is left; the released code has 0 there.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Tables 2, A4 and A5.
    """
    x, y = subset.x, subset.y
    attacked, rows = INTERPRETERS[interpreter], []
    with evaluating(model), torch.no_grad():
        clean, predicted = attacked(model, x, y[:, None]), predictions(model, x)
        for size in eps:
            start = (x + subset.random_start(size).to(x)).clamp(0, 1)
            x_adv = aai(model, x, y, eps=size, start=start, interpreter=attacked, **AAI)
            taus = kendall_tau(clean, attacked(model, x_adv, y[:, None]))
            left = taus[(predictions(model, x_adv) == predicted).cpu()]
            (tau, se), (tau_all, se_all) = mean_and_error(left), mean_and_error(taus)
            rows.append({"interpreter": interpreter, "eps": size, "tau": tau, "n": len(left), "se": se,
                         "tau_all": tau_all, "n_all": len(taus), "se_all": se_all})  # fmt: skip
            if progress:
                progress(AAI["steps"])
    return rows


def isa_rows(
    model: nn.Module,
    subset: EvaluationSubset,
    *,
    interpreters: Sequence[str] = tuple(INTERPRETERS),
    norms: Sequence[int] = (1, 2),
    class_sets: Sequence[str] = CLASS_SETS,
    penalties: Sequence[float] = PENALTIES,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """NDS and NSL of targeted ISAs for every interpreter, norm and set of classes, as in Table 1.

    eps* of every image is the smallest at which the plain attack succeeds; then come ISAs of penalty * eps*, each
    with the largest weight on the discrepancy at which it succeeds. A point counts when the target beats the true
    class on x' and does not on x. Settings as of the released code, see `attacks.isa.released_settings`.

    Args:
        subset: images, labels and targets, on the model's device.
        interpreters: names in `INTERPRETERS`.
        norms, class_sets: p and C of eq. (3). Repr has no classes and stands with '2-class', as in the paper.
        penalties: multiples of eps*; the paper's list is not known, its last is 1.6.
        progress: called with 1 for every measure.

    Returns:
        A row for every measure: interpreter, measure ('l1:2-class'), squared_score, n images kept, and the fields of
        `discrepancy.IsaScores`, None where none is kept. In l2 there are two, one with the squared norm as score.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Table 1, Appendix D.
    """
    x, y, target = subset.x, subset.y, subset.target
    plain = {"steps": 10, "direction": clipped(1000 / len(x))}
    rows = []
    with evaluating(model), torch.no_grad():
        first = minimal_eps(
            lambda eps: margin_attack(model, x, y, target, eps=eps, alpha=0.2 * eps, **plain),
            lambda x_adv: margin(model(x_adv), target) < 0,
            x,
        )
        eps = (torch.tensor(penalties).to(x)[:, None] * first.eps).clamp(max=1)
        for name in interpreters:
            for p in norms:
                for classes in class_sets if name != "Repr" else ("2-class",):
                    of = class_set(classes, y, target, model.num_classes)
                    clean = INTERPRETERS[name](model, x, of)
                    scale = clean.shape[1] ** (1 / p) if name == "Repr" else clean[0, 0].numel()
                    settings = released_settings(eps, p=p, batch=len(x), scale=scale)
                    found = isa_over_eps(model, x, y, target, interpreter=INTERPRETERS[name], classes=of, **settings)
                    attacks = [first.x_adv, *found.x_adv]
                    sizes = torch.stack([(x_adv - x).abs().flatten(1).amax(1) for x_adv in attacks], 1)
                    counts = torch.stack([_fooled(model, x, x_adv, y, target) for x_adv in attacks], 1)
                    maps = [INTERPRETERS[name](model, x_adv, of) for x_adv in attacks]
                    for squared in (False, True)[:p]:
                        each = [normalised_discrepancy(clean, m, p, squared) for m in maps]
                        scores = isa_scores(torch.stack(each, 1), sizes, counts)._asdict()
                        scores = {key: value if math.isfinite(value) else None for key, value in scores.items()}
                        rows.append({"interpreter": name, "measure": f"l{p}:{classes}", "squared_score": squared,
                                     "n": scores.pop("images"), **scores})  # fmt: skip
                    if progress:
                        progress(1)
    return rows


def _fooled(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Whether the target beats the true class on x' and does not on x, bool (N,)."""
    lead = [(f.gather(1, target[:, None]) - f.gather(1, y[:, None]))[:, 0] for f in (model(x), model(x_adv))]
    return (lead[0] <= 0) & (lead[1] >= 0)
