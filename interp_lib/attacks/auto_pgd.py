"""APGD of Croce and Hein (2020): PGD with momentum that halves its step where the loss stops growing."""

import math

import torch
from torch import Tensor, nn

from ..checks import check_labels, check_numbers, class_count
from ..fast.fold import Folded, fold_for_attack
from ..models.predict import evaluating
from .ascent import ball, check_attack, cross_entropy, value_and_gradient
from .balls import per_example
from .interpretability_sneaking import margin

MOMENTUM = 0.25  # share of the last move in the next one

RISING = 0.75  # the least share of steps between two checks at which the loss has to grow

FIRST, LATER, SHORTER = 0.22, 0.06, 0.03  # of all steps: before the first check, before any check at least, less each


def dlr(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Return the difference of logits ratio, (N,), which grows as another class overtakes the true one.

        DLR   = - (f_y - max_{j != y} f_j) / (f_(1) - f_(3)),        f_(k) the k-th largest logit
        DLR-T = - (f_y - f_target) / (f_(1) - (f_(3) + f_(4)) / 2)

    It does not change when the logits are scaled. It needs three classes, with a target four.

    Source: eqs. (6) and (7) of Croce and Hein (2020).
    """
    ordered = logits.sort(1, descending=True).values
    if target is None:
        return -margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    lead = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, target[:, None])[:, 0]
    return -lead / (spread + 1e-12)


class _Loss:
    """Values and gradients of the loss, and whether the network still sees the true class."""

    def __init__(self, folded: Folded, y: Tensor, target: Tensor | None):
        self.folded, self.y, self.target = folded, y, target
        self.entropy = cross_entropy(folded.logits, y, head=folded.head)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss (N,), gradient (N, C, H, W) and whether images are classified right, bool (N,)."""
        if self.target is None:
            value, gradient = value_and_gradient(self.entropy, x)
            return value, gradient, self.right(x, value)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.folded.logits(x)
            value = dlr(logits, self.y, self.target)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient, logits.detach().argmax(1) == self.y

    def right(self, x: Tensor, value: Tensor) -> Tensor:
        """Say which images are classified right from -log p_y, and from the logits only where that does not tell.

        p_y > 1/2 makes y the largest of all classes, and at p_y < 1 / C another class is larger.
        """
        right = value < math.log(2) - 1e-3
        open_ = ~right & (value < math.log(self.classes(x)) + 1e-3)
        if open_.any():
            with torch.no_grad():
                right[open_] = self.folded.logits(x[open_]).argmax(1) == self.y[open_]
        return right

    def classes(self, x: Tensor) -> int:
        if not hasattr(self, "_classes"):
            with torch.no_grad():
                self._classes = self.folded.logits(x[:1]).shape[1]
        return self._classes


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    steps: int = 100,
    target: Tensor | None = None,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run APGD in the l-infinity ball and return an image that fools the network, or else that of the largest loss.

        u^{k+1} = P( x^k + eta^k sign(grad l(x^k)) )
        x^{k+1} = P( x^k + 3/4 (u^{k+1} - x^k) + 1/4 (x^k - x^{k-1}) )

    The step eta begins at 2 eps. At checks, which become more frequent, it is halved for an image whose loss grew in
    fewer than three quarters of the steps since the last check, or has not grown since then with the same step; that
    image goes on from its best point.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,): true labels.
        eps: radius of the l-infinity ball, in the unit of the pixels; a number or (N,).
        steps: number of steps; 100 in AutoAttack.
        target: int64 (N,): climb DLR-T towards these classes (APGD-T), see `dlr`. None: cross-entropy (APGD-CE).
        start: start from these images instead of a random point.
        generator: source of the random start, uniform in the ball and scaled so that one pixel is at its edge.

    Returns:
        x_adv (N, C, H, W), inside the ball and the box [0, 1].

    Raises:
        TypeError, ValueError: see `checks`; also neither start nor generator, or a network of fewer than four classes
            with a target.
        NotANumber: the loss or its gradient is NaN or infinite; names the first such image.

    Source: Algorithm 1 of Croce and Hein (2020), with their code's settings; in none of the paper's tables.
    """
    check_attack(model, x, y, eps=eps, alpha=0.0, steps=steps, start=start)
    if target is not None:
        check_labels(target, len(x), class_count(model), "target")
    if (start is None) == (not isinstance(generator, torch.Generator)):
        raise ValueError("give either generator, a torch.Generator for the random start, or start.")
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    low, high = ball(x, eps)
    if start is None:
        assert generator is not None
        noise = 2 * torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device) - 1
        start = x + per_example(eps, x) * noise / noise.abs().amax((1, 2, 3), keepdim=True)
    with evaluating(model):
        folded = fold_for_attack(model)
        if target is not None and (classes := folded.logits(x[:1]).shape[1]) < 4:
            raise ValueError(f"a target needs a network of four classes or more; this one has {classes}.")
        return _climb(_Loss(folded, y, target), start.detach().clamp(low, high), low, high, eps, int(steps))


def _climb(loss: _Loss, x_adv: Tensor, low: Tensor, high: Tensor, eps: float | Tensor, steps: int) -> Tensor:
    value, gradient, right = loss(x_adv)
    check_numbers(value + 0 * gradient.flatten(1).sum(1), "the loss of the attack, or its gradient,")
    best, best_value, best_gradient, before, fooling = x_adv.clone(), value, gradient, x_adv, x_adv.clone()
    last_value, ever_right = value, right
    step = torch.as_tensor(2 * per_example(eps, x_adv), dtype=x_adv.dtype, device=x_adv.device)
    step = step.expand(len(x_adv), 1, 1, 1).clone()
    at_check, halved = best_value, torch.ones_like(right)
    wait, least, shorter = (max(int(share * steps), 1) for share in (FIRST, LATER, SHORTER))
    since, rose = 0, torch.zeros_like(value)
    for number in range(steps):
        plain = (x_adv + step * gradient.sign()).clamp(low, high)
        share = MOMENTUM if number else 0.0
        moved = (x_adv + (1 - share) * (plain - x_adv) + share * (x_adv - before)).clamp(low, high)
        before, x_adv = x_adv, moved
        value, gradient, right = loss(x_adv)
        check_numbers(value + 0 * gradient.flatten(1).sum(1), "the loss of the attack, or its gradient,")
        fooling[~right] = x_adv[~right]
        ever_right = ever_right & right
        better = value > best_value
        best[better] = x_adv[better]
        best_gradient = torch.where(better[:, None, None, None], gradient, best_gradient)
        best_value = torch.where(better, value, best_value)
        rose, last_value, since = rose + (value > last_value), value, since + 1
        if since == wait:
            halve = (rose <= RISING * wait) | (~halved & (at_check >= best_value))
            step[halve] /= 2
            x_adv = torch.where(halve[:, None, None, None], best, x_adv)
            gradient = torch.where(halve[:, None, None, None], best_gradient, gradient)
            halved, at_check = halve, best_value
            wait, since, rose = max(wait - shorter, least), 0, torch.zeros_like(value)
    return torch.where(ever_right[:, None, None, None], best, fooling)
