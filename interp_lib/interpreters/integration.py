"""Integrated gradients along the straight path from a baseline to x."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fast.fold import fold_after_first
from ..values import check_choice, check_whole
from .common import TwoSteps, _check, _mean_gradient, leaving_no_trace
from .quadrature import RULES, path_points

PATH_STEPS = 5  # steps in the integral of IG-Norm
# Points of the path that replace the 100 points of the released code's IG. In a network without max-pools it is smooth,
# so that both agree to float32.
NODES = 8


def path_integral(
    logits: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor, y: Tensor, steps: int = PATH_STEPS
) -> tuple[Tensor, Tensor]:
    """Return the integrated gradients of the loss l = -log softmax(f)_t from x to x', by the right rule.

        IG_i = (x'_i - x_i) 1/m sum_{s=1..m} dl(x + s/m (x' - x)) / dx_i

    The result can be differentiated with respect to x', and to everything that the graph of `logits` leads to.

    Args:
        logits: images (N, C, H, W) -> (N, classes).
        x, x_adv: the two ends of the path, (N, C, H, W).
        y: labels (N,).
        steps: m.

    Returns:
        IG (N, C, H, W), and the logits f(x') (N, classes) at the last point of the path.

    Source: Chen et al. (2019), IG-Norm; five steps by the right rule as in the released code.
    """
    t = torch.arange(1, steps + 1, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1, 1) / steps
    with torch.enable_grad():
        points = (x + t * (x_adv - x)).flatten(0, 1)
        if not points.requires_grad:
            points.requires_grad_()
        outputs = logits(points)
        # A sum, because a mean over the batch would put a factor 1/N into the gradient of every image.
        (gradient,) = torch.autograd.grad(
            F.cross_entropy(outputs, y.repeat(steps), reduction="sum"), points, create_graph=True
        )
    return (x_adv - x) * gradient.unflatten(0, (steps, -1)).mean(0), outputs[-len(x) :]


@leaving_no_trace
def integrated_gradients_release(
    model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False, **settings
) -> Tensor:
    """The IG in the rows "IG" of Table 1: the network's weights, with softplus in place of every ReLU.

    Black baseline, 100 steps, right rule. This is the IG of another function than the network, see
    `integrated_gradients`. It takes the arguments of that function; `settings` passes on all that are not listed here.

    Source: the released code; Table 1.
    """
    return integrated_gradients(model, x, classes, activation="softplus", create_graph=create_graph, **settings)


def fold_release(model: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (x, classes) -> logits and the maps of `integrated_gradients_release`, with the present weights.

    The network is folded once for all calls, and `NODES` points of the path give the same sum as all 100.
    """
    first, rest = folded = fold_after_first(model)
    settings = {"nodes": NODES, "fixed_weights": True, "folded": folded, "create_graph": True}
    return lambda x, classes: (rest(first(x)), integrated_gradients_release(model, x, classes, **settings))


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
    folded: TwoSteps | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Integrated gradients: the mean gradient along the straight path from a baseline a to x, times x - a.

        [L_IG(x, c)]_i = (x_i - a_i) 1/m sum_{s=1..m} df_c(a + t_s (x - a)) / dx_i,                    (eq. 2)

    t_s = s/m in the right rule of eq. (2), (s - 1)/m in the left rule and (s - 1/2)/m in the midpoint rule. Complete in
    the limit of many steps: sum_i L_i = f_c(x) - f_c(a).

    Eq. (2) as the paper means it uses the network's own activation. The IG rows of Table 1 come from the released code,
    which has the same weights and softplus, log(1 + e^h), in place of every ReLU: `activation="softplus"`. That is
    another function, and its IG is complete with respect to the logits of that function, not of the network.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes per image.
        baseline: a, of the shape of x or (1, C, H, W); None for a black image.
        steps: m.
        rule: 'left', 'midpoint' or 'right'.
        activation: 'relu' for the network as it is, 'softplus', or 'softplus_20', log(1 + e^(20 h)) / 20, which is
            nearly ReLU and has a second derivative; see `activations.ReplacedRelu`.
        nodes: number of points that replace the `steps` points, see `quadrature.gauss_for_sum`; None for all points.
            For smooth activations 8 nodes equal 100 steps to float32 precision; for relu they do not.
        internal_batch_size: about how many points of the path are in memory together, at least one per image; None for
            as many as take a few hundred MB. With `create_graph` the graph keeps all points.
        fixed_weights: treat the weights as constants, so that an attack can differentiate the folded network.
        folded: the result of `fast.fold.fold_after_first(model)`, for a caller that computes many maps with the same
            weights.
        create_graph: whether the map can be differentiated, with respect to x, the baseline and the weights.

    Returns:
        (N, k, C, H, W), signed.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also for an unknown rule or activation, no steps, or a
            baseline of another shape.

    Source: eq. (2); Sundararajan et al. (2017). Right rule, 100 steps and black baseline as in the released code.
    """
    _check(model, x, classes)
    check_choice(rule, "rule", tuple(RULES))
    check_choice(activation, "activation", ("relu", "softplus", "softplus_20"))
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
        if not ends:  # `first` is affine: compute it at the two ends once, and interpolate its output
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
