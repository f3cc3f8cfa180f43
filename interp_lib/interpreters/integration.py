"""Integrated gradients, along the straight path from a baseline to x."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..values import check_choice, check_whole
from .common import Folded, _check, _mean_gradient, leaving_no_trace
from .quadrature import RULES, path_points

PATH_STEPS = 5  # of IG-Norm's integral


def path_integral(
    logits: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor, y: Tensor, steps: int = PATH_STEPS
) -> tuple[Tensor, Tensor]:
    """Integrated gradients of the loss l = -log softmax(f)_t from x to x', by the right rule.

        IG_i = (x'_i - x_i) 1/m sum_{s=1..m} dl(x + s/m (x' - x)) / dx_i

    Its derivatives with respect to x', and to whatever `logits` has a graph to, are right.

    Args:
        logits: images (N, C, H, W) -> (N, classes).
        x, x_adv: the two ends, (N, C, H, W).
        y: labels (N,).
        steps: m.

    Returns:
        IG (N, C, H, W), and f(x') (N, classes), which is the path's last point.

    Source: Chen et al. (2019), IG-Norm; five steps by the right rule as in the released code.
    """
    t = torch.arange(1, steps + 1, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1, 1) / steps
    with torch.enable_grad():
        points = (x + t * (x_adv - x)).flatten(0, 1)
        if not points.requires_grad:
            points.requires_grad_()
        outputs = logits(points)
        (gradient,) = torch.autograd.grad(
            F.cross_entropy(outputs, y.repeat(steps), reduction="sum"), points, create_graph=True
        )
    return (x_adv - x) * gradient.unflatten(0, (steps, -1)).mean(0), outputs[-len(x) :]


@leaving_no_trace
def integrated_gradients_release(
    model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False, **settings
) -> Tensor:
    """The IG of the rows "IG" of Table 1: of the same weights with softplus in the place of every ReLU.

    Black baseline, 100 steps, right rule. It is the IG of another function than the network's, see
    `integrated_gradients`, whose arguments these are; `settings` are its others.

    Source: the released code; Table 1.
    """
    return integrated_gradients(model, x, classes, activation="softplus", create_graph=create_graph, **settings)


@leaving_no_trace
def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    baseline: Tensor | None = None,
    steps: int = 100,
    rule: str = "right",
    activation: str = "relu",
    nodes: int | None = None,
    internal_batch_size: int | None = None,
    fixed_weights: bool = False,
    folded: Folded | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Integrated gradients: the gradient averaged along the straight path from a baseline, times the difference.

        [L_IG(x, c)]_i = (x_i - a_i) 1/m sum_{s=1..m} df_c(a + t_s (x - a)) / dx_i,                    (eq. 2)

    t_s = s/m by the right rule of eq. (2); (s - 1)/m by the left, (s - 1/2)/m by the midpoint rule. Complete in the
    limit of many steps, sum_i L_i = f_c(x) - f_c(a).

    Eq. (2) as the paper means it has the network's own activation. The released code's IG rows of Table 1 come from
    the same weights with softplus, log(1 + e^h), in the place of every ReLU: `activation="softplus"`. That is another
    function, and its IG is complete with respect to that function's logits, not to the network's.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes an image.
        baseline: a, like x or (1, C, H, W); black where none is given.
        steps: m.
        rule: 'left', 'midpoint' or 'right'.
        activation: 'relu', the network as it is, or 'softplus'; see `activations.ReplacedRelu`.
        nodes: how many points to compute in place of `steps`, by `quadrature.gauss_for_sum`; None for all of them.
            For smooth activations 8 give what 100 steps do, to float32; with relu they do not.
        internal_batch_size: about how many points of the path are in memory at once, at least one an image; as many as
            take a few hundred MB where none is given. With `create_graph` the graph keeps all of them.
        folded: what `fold_after_first(model)` returned, for a caller with many maps of the same weights.
        fixed_weights: take the weights as constants, so that an attack can differentiate the folded network.
        create_graph: whether the map can be differentiated, with respect to x, the baseline and the weights.

    Returns:
        (N, k, C, H, W), signed.

    Raises:
        TypeError, ValueError: see `checks`; also for unknown rules and activations, no steps, or a baseline of
            another shape.

    Source: eq. (2); Sundararajan et al. (2017). The release: right rule, 100 steps, black.
    """
    _check(model, x, classes)
    check_choice(rule, "rule", tuple(RULES))
    check_choice(activation, "activation", ("relu", "softplus"))
    check_whole(steps, "steps", 1)
    if nodes is not None:
        check_whole(nodes, "nodes", 1)
    if baseline is None:
        baseline = torch.zeros_like(x[:1])
    elif (
        not isinstance(baseline, Tensor)
        or (baseline.shape[1:], baseline.dtype) != (x.shape[1:], x.dtype)
        or len(baseline) not in (1, len(x))
    ):
        came = f"{tuple(baseline.shape)} of {baseline.dtype}" if isinstance(baseline, Tensor) else f"{baseline!r:.40}"
        raise ValueError(f"baseline must be like x, {tuple(x.shape)} of {x.dtype}, or one image; got {came}.")
    if not create_graph:
        x, baseline = x.detach(), baseline.detach()
    places, weights = path_points(int(steps), rule, nodes, like=x)
    ends: list[Tensor] = []

    def points(first, numbers):
        if not ends:  # the affine step, once
            ends.extend((first(baseline), first(x)))
        return ends[0] + places[numbers].view(-1, *[1] * x.dim()) * (ends[1] - ends[0])

    average = _mean_gradient(
        model,
        x,
        classes,
        len(places),
        points,
        activation=activation,
        weights=weights,
        internal_batch_size=internal_batch_size,
        fixed_weights=fixed_weights,
        folded=folded,
        create_graph=create_graph,
    )
    return average * (x - baseline)[:, None]
