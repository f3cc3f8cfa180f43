"""Attack against interpretability (AAI): keep the predicted class and change the interpretability map."""

import torch
from torch import Tensor, nn

from ..checks import unwrapped
from ..discrepancies import discrepancy
from ..fast.fold import fixed_trunk, fold_for_attack, is_foldable
from ..fast.objective import Head, Sneaking, climbing
from ..interpreters.class_activation_maps import cam
from ..interpreters.registry import MapFunction, entry_of
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import evaluating
from ..values import check_choice, check_number, check_whole
from .ascent import Direction, Objective, _ascend, check_attack, uniform_start
from .interpretability_sneaking import attack_loss
from .logits_and_maps import explain


def aai(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    hinge: float = 1.0,
    top_k: int | None = None,
    interpreter: MapFunction = cam,
    p: int = 1,
    random_start: bool = False,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    direction: Direction | None = None,
    norm: str = "linf",
) -> Tensor:
    """Run the attack against interpretability (AAI) with projected gradient steps and return the last iterate.

        minimize    lambda max{ max_{j != t} f_j(x') - f_t(x'), 0 } - D_1(x, x')
        subject to  ||x' - x||_inf <= eps                                                              (eq. 7)

    D_1 is the 1-class discrepancy ||L(x, t) - L(x', t)||_p, or, with `top_k`, the decrease of the map at the k pixels
    that are largest on the clean image,

        D_1(x, x') = sum_{i in top_k(L(x, t))} ( L(x, t)_i - L(x', t)_i ),

    which for a folded network is one linear functional of the trunk's output for each image.

    The attack of the tables is `aai(..., alpha=0.01, steps=200, hinge=0, top_k=8, start=x + subset.random_start(eps))`.
    The released code omits the hinge term of eq. (7), and afterwards drops the images whose prediction has changed.

    Args:
        model: images -> logits (N, C), with the parts that `interpreter` needs.
        x: images (N, C, H, W) in [0, 1].
        y: the label t whose map is attacked and which the hinge term keeps as the prediction, int64 (N,).
        eps: radius, in the unit of the pixels, a number or (N,).
        alpha: step size, same unit, a number or (N,).
        steps: number of steps.
        hinge: lambda of eq. (7), >= 0; with 0 the prediction may change.
        top_k: k; None for the norm.
        interpreter: L of the discrepancy, a function of `interpreters`.
        p: 1 or 2, the order of the norm.
        random_start: start from a uniform point of the ball; needs `generator`.
        start: start from these images instead.
        generator: source of the random start; the global generator is not used.
        direction, norm: see `ascent.projected_ascent`.

    Returns:
        x_adv (N, C, H, W), inside the ball and the box [0, 1].

    Raises:
        TypeError, ValueError: see `checks` and `values`; also a random start without a generator, top_k out of range,
            and the norm without a start: at x its gradient is 0 and nothing would move.

    Source: eq. (7), section 3.2; the top-k form of Ghorbani et al. (2019), as in Tables 2, A4 and A5.
    """
    check_attack(model, x, y, eps=eps, alpha=alpha, steps=steps, start=start, norm=norm)
    check_number(hinge, "hinge", 0)
    check_choice(p, "p", (1, 2))
    if top_k is not None:
        check_whole(top_k, "top_k", -float("inf"))  # `aai_objective` checks the range, which depends on the map
    if random_start:
        if not isinstance(generator, torch.Generator) or start is not None:
            raise ValueError("random_start needs generator, a torch.Generator, and excludes start.")
        if norm != "linf":
            raise ValueError("random_start draws from the l-infinity ball; give start in its place.")
        start = uniform_start(x, eps, generator)
    if top_k is None and start is None:
        raise ValueError("the gradient of the norm is 0 at x itself: give start, or random_start and a generator.")
    with evaluating(model):
        objective = aai_objective(model, x, y, hinge=hinge, top_k=top_k, interpreter=interpreter, p=p)
        return _ascend(objective, x, eps=eps, alpha=alpha, steps=steps, start=start, direction=direction, norm=norm)


def aai_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    hinge: float,
    top_k: int | None,
    interpreter: MapFunction = cam,
    p: int = 1,
) -> Objective:
    """Return the objective that `aai` maximises, the negative of eq. (7): images (N, C, H, W) -> (N,).

    With `top_k`, hinge 0, a foldable network and an interpreter whose entry has `rows`, the term L(x, t) is omitted,
    since it does not depend on x'.

    Arguments: as `aai`.
    """
    both, classes = explain(model, interpreter), y[:, None]
    with torch.no_grad():
        clean = both(x, classes)[1]
    pixels = clean.shape[1:].numel()
    if top_k is not None and not 1 <= top_k <= pixels:
        raise ValueError(f"top_k must lie in 1 .. {pixels}, the number of pixels; got {top_k}.")
    largest = None if top_k is None else clean.flatten(1).topk(top_k).indices
    rows = entry_of(interpreter).rows
    if hinge == 0 and top_k and is_foldable(model) and rows:
        return _linear_fall(model, x, largest, rows(model.classifier.weight.detach())[y])

    def plain(x_adv: Tensor) -> Tensor:
        logits, maps = both(x_adv, classes)
        if top_k is None:
            distance = discrepancy(clean, maps, p)
        else:
            distance = (clean - maps).flatten(1).gather(1, largest).sum(1)
        # attack_loss(logits, y, y) is the margin of eq. (6) with t in the place of the target: the hinge of eq. (7).
        return distance - hinge * attack_loss(logits, y, y).clamp(min=0)

    head = fold_for_attack(unwrapped(model)).head if top_k is None and interpreter is cam else None
    if head is None:
        return plain
    true = x.new_zeros(len(x), head.classes).scatter_(1, classes, 1.0)
    rest = Sneaking(true, -x.new_ones(len(x)), 0.0, p, False)  # eq. (6) with t for t', and a discrepancy that grows
    return climbing(plain, head, "sneaking", y=y, reference=x, weight=hinge, sneaking=rest)


def _linear_fall(model: GlobalPoolNetwork, x: Tensor, largest: Tensor, weight: Tensor) -> Objective:
    """Return the objective x' -> -<G_n, trunk(x'_n)>, the decrease of a map at its `largest` pixels up to a constant.

    The map of an image is the sum of its features with the weights `weight` (N, K).

    The sum of chosen pixels of a map is linear in the trunk's output, up to a constant. G_n is the gradient of this sum
    with respect to the trunk's output, from one backward pass for all images.
    """
    trunk = fixed_trunk(model)
    with torch.enable_grad():
        z = trunk(x).detach().requires_grad_()
        features = model.tail(z)
        maps = torch.einsum("nk,nkhw->nhw", weight, features) / features.shape[2:].numel()
        (gradient,) = torch.autograd.grad(maps.flatten(1).gather(1, largest).sum(), z)
    plain = lambda x_adv: -(gradient * trunk(x_adv)).sum((1, 2, 3))
    # The compiled form reads G with its channels last, (N, h, w, c).
    return climbing(plain, Head.of(model, trunk), "probe", reference=-gradient.permute(0, 2, 3, 1))
