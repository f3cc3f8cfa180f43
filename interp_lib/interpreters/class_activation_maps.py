"""CAM and its variants: sums of the last feature maps, each map with a weight for the class."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import check_classes, check_images, unwrapped
from ..fast.fold import is_foldable
from ..fast.parts import fixed_copy
from ..models.architectures import pool_share
from ..models.contract import check_contract
from .common import leaving_no_trace

Head = Callable[[Tensor], Tensor]


def _check(
    model: nn.Module, x: Tensor, classes: Tensor | None = None, head: Head | None = None, *, of_classes: bool = True
) -> nn.Module:
    """Check the arguments and return the unwrapped network; with a `head` the network needs `features` only."""
    model = unwrapped(model)
    check_images(x)
    if head is None:
        check_contract(model, tuple(x.shape[1:]))
    elif not callable(head):
        raise TypeError(f"head must be a function, features (N, K, h, w) -> logits (N, C); got {type(head).__name__}.")
    elif not callable(getattr(model, "features", None)):
        raise TypeError(
            f"{type(model).__name__} has no `features(x)` for a head to continue: write "
            "model.features = ..., images -> feature maps (N, K, h, w), or model = interp_lib.adapt(model)."
        )
    if hasattr(model, "check_input"):
        model.check_input(x)
    if of_classes:
        check_classes(classes, len(x), None if head else len(model.classifier.weight))
    return model


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Return sum_k w_k^c A_{k,i} from weights (N, k, K) and features (N, K, h, w), as (N, k, h, w)."""
    return (weights @ features.flatten(2)).unflatten(2, features.shape[2:])


@leaving_no_trace
def cam(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """Class activation map.

        [L_CAM(x, c)]_i = (1/u) sum_k w_k^c A_{k,i},        i = 1 .. u                                 (eq. 1)

    Complete: sum_i L_i = f_c(x), minus the linear layer's bias if it has one. The released code omits the factor
    1/u, so that the mean of its map is the logit; the functions of `discrepancies` take `scale=u` for its units.

    Args:
        model: a network with `features` and `classifier`, see `models`; `models.adapt` converts other networks.
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes per image.
        create_graph: has no effect; the map always keeps its graph.

    Returns:
        (N, k, h, w), signed.

    Raises:
        TypeError, ValueError: see `checks` and `models.contract.check_contract`.

    Source: eq. (1); Zhou et al. (2016). `fast.fold.fold_cam` computes the same maps faster, for all classes and fixed
    weights.
    """
    model = _check(model, x, classes)
    features = model.features(x)
    return pool_share(_weighted_sum(model.classifier.weight[classes], features))


@leaving_no_trace
def gradcam_pp_release(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The released code's "GradCAM++": CAM with the negative weights of the last layer set to zero.

        [L(x, c)]_i = (1/u) sum_k max(w_k^c, 0) A_{k,i}

    It is not the GradCAM++ of Chattopadhay et al. (`gradcam_pp`), and it is not complete, so Proposition 1 does not
    bound it. The numbers in the paper's rows "GradCAM++" belong to this map. The released code omits the factor 1/u.

    Arguments, Returns, Raises: as `cam`.

    Source: the released code; Tables 1 and A5.
    """
    model = _check(model, x, classes)
    features = model.features(x)
    return pool_share(_weighted_sum(model.classifier.weight[classes].clamp(min=0), features))


@leaving_no_trace
def representation(model: nn.Module, x: Tensor, classes: Tensor | None = None, *, create_graph: bool = False) -> Tensor:
    """Repr: the feature maps before the global average pool, the representation at the penultimate layer.

        [L(x, k)]_i = A_{k,i},        k = 1 .. K

    It does not depend on the class, and `classes` is ignored. Its K channels take the place of the classes of other
    maps, so that eq. (3) is a mean over channels.

    Arguments, Raises: as `cam`.

    Returns:
        (N, K, h, w), signed: no activation follows the last convolution.

    Source: section 5, Table 1.
    """
    return _check(model, x, of_classes=False).features(x)


def fold_features(model: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return (x, classes) -> logits and the maps of `representation`, with the present weights, from one pass."""
    if not is_foldable(model):
        return None
    frozen = fixed_copy(model)

    def logits_and_features(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        features = frozen.features(x)
        return frozen.classifier(features.mean((2, 3))), features

    return logits_and_features


def _kind(value) -> tuple | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _head_gradients(
    model: nn.Module, x: Tensor, classes: Tensor, head: Head | None, create_graph: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the features A (N, K, h, w), their gradients df_c/dA (N, k, K, h, w) and the logits f_c (N, k)."""
    model = _check(model, x, classes, head)
    head = head or (lambda features: model.classifier(features.mean((2, 3))))
    with torch.set_grad_enabled(create_graph):
        features = model.features(x)
        if not isinstance(features, Tensor) or features.dim() != 4:
            raise ValueError(f"features(x) must be feature maps (N, K, h, w); got {_kind(features)}.")
    with torch.enable_grad():
        # Without a graph the features become the leaf of a graph that holds the head alone.
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        logits = head(features)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            raise ValueError(f"head must give logits ({len(x)}, C), one row per image; got {_kind(logits)}.")
        check_classes(classes, *logits.shape)
        scores = logits.gather(1, classes)
        gradients = [
            torch.autograd.grad(scores[:, j].sum(), features, create_graph=create_graph, retain_graph=True)[0]
            for j in range(classes.shape[1])
        ]
    if not create_graph:
        features, scores = features.detach(), scores.detach()
    none = features.new_zeros(len(x), 0, *features.shape[1:])
    return features, torch.stack(gradients, 1) if gradients else none, scores


@leaving_no_trace
def gradcam(
    model: nn.Module, x: Tensor, classes: Tensor, *, head: Head | None = None, create_graph: bool = False
) -> Tensor:
    """GradCAM: the weights are mean gradients, so that it works for any network with feature maps.

        [L(x, c)]_i = sum_k w_k^c A_{k,i},        w_k^c = (1/u) sum_i df_c(x) / dA_{k,i}

    On a network that ends in a global average pool and a linear layer the gradient is w_k^c / u. GradCAM then equals
    the CAM of eq. (1), with its factor 1/u, and is complete; on other networks it is not. Section 2 puts this weight
    into eq. (1), which already has 1/u: taken literally, that divides the map by u a second time. This function follows
    Selvaraju et al., without their final ReLU, which is for display.

    Args:
        model, x, classes: as `cam`.
        head: features (N, K, h, w) -> logits, for a network that ends otherwise; None for pool and `classifier`.
        create_graph: whether the map can be differentiated, with respect to x and the weights.

    Returns:
        (N, k, h, w), signed.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2; Selvaraju et al. (2017).
    """
    features, gradients, _ = _head_gradients(model, x, classes, head, create_graph)
    return _weighted_sum(gradients.mean((3, 4)), features)


@leaving_no_trace
def gradcam_pp(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    head: Head | None = None,
    exponential: bool = False,
    create_graph: bool = False,
) -> Tensor:
    """GradCAM++ as published by Chattopadhay et al.: positive gradients, weighted pixel by pixel.

        [L(x, c)]_i = sum_k w_k^c A_{k,i},        w_k^c = sum_j alpha_j max(dY/dA_{k,j}, 0),
        alpha_j = (d2Y/dA_{k,j}^2) / (2 d2Y/dA_{k,j}^2 + sum_a A_{k,a} d3Y/dA_{k,j}^3)

    With Y = exp(f_c), and f_c piecewise linear in A, the n-th derivative is exp(f_c) g^n, g_j = df_c/dA_{k,j}. In
    alpha the exponential cancels, and so does g^2 where it is not 0, which leaves

        w_k^c = sum_j max(g_j, 0) / (2 + g_j sum_a A_{k,a}).

    The factor exp(f_c) that remains in dY is the same for the whole map and is omitted, as in common libraries;
    `exponential` restores it. Other implementations add a small number to the denominator; this one does not. The
    formula was derived for A >= 0. The networks here have signed features, so that the denominator can vanish and
    change sign: with a global average pool it is 2 + w_k^c mean(A_k).

    The formula has no factor 1/u: with a global average pool and small features the map is about u/2 times the map of
    eq. (1) with the positive weights only. It is not complete, and it is not the "GradCAM++" of the paper's tables,
    which is `gradcam_pp_release`.

    Args:
        model, x, classes, head, create_graph: as `gradcam`.
        exponential: multiply by exp(f_c), as the formula with Y = exp(f_c) says literally.

    Returns:
        (N, k, h, w), signed; the final ReLU, which is for display, is omitted.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2; Chattopadhay et al. (2018), eqs. 5, 9 and 19 there.
    """
    features, gradients, scores = _head_gradients(model, x, classes, head, create_graph)
    mass = features.sum((2, 3))[:, None, :, None, None]
    positive = gradients > 0
    # Two `where`s: with one, the backward pass through the unused branch gives NaN where the denominator is 0.
    denominator = torch.where(positive, 2 + gradients * mass, 1)
    weights = torch.where(positive, gradients / denominator, 0).sum((3, 4))
    maps = _weighted_sum(weights, features)
    return maps * scores.exp()[..., None, None] if exponential else maps


def fold_gradcam_pp(model: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return (x, classes) -> logits and the maps of `gradcam_pp`, with the present weights, from one pass.

    With a global average pool and a linear layer the weights need no derivative: max(w_k, 0) / (2 + w_k mean(A_k)).
    """
    if not is_foldable(model):
        return None
    frozen = fixed_copy(model)

    def logits_and_maps(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        features = frozen.features(x)
        means, weight = features.mean((2, 3)), frozen.classifier.weight[classes]
        positive = weight > 0
        weights = torch.where(positive, weight / torch.where(positive, 2 + weight * means[:, None], 1), 0)
        return frozen.classifier(means), _weighted_sum(weights, features)

    return logits_and_maps
