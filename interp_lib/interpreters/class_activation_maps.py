"""CAM and its family: sums of the last feature maps, each with a weight for the class."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import check_classes, check_images
from ..models.architectures import pool_share
from ..models.contract import check_contract
from ..models.proof import unwrapped
from .common import leaving_no_trace

Head = Callable[[Tensor], Tensor]


def _check(
    model: nn.Module, x: Tensor, classes: Tensor | None = None, head: Head | None = None, *, of_classes: bool = True
) -> nn.Module:
    """The network to take features of, once all is checked; with a `head` it needs no more than `features`."""
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
    """sum_k w_k^c A_{k,i}: weights (N, k, K) and features (N, K, h, w) -> (N, k, h, w)."""
    return (weights @ features.flatten(2)).unflatten(2, features.shape[2:])


@leaving_no_trace
def cam(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """Class activation map.

        [L_CAM(x, c)]_i = (1/u) sum_k w_k^c A_{k,i},        i = 1 .. u                                 (eq. 1)

    Complete: sum_i L_i = f_c(x), less the linear layer's bias where it has one. The released code leaves the factor
    1/u out, so that its mean is the logit; the functions of `discrepancy` take `scale=u` for that.

    Args:
        model: a network with `features` and `classifier`; see `models`, and `models.adapt` for others.
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes an image.
        create_graph: makes no difference; the map always keeps its graph.

    Returns:
        (N, k, h, w), signed.

    Raises:
        TypeError, ValueError: see `checks` and `models.contract.check_contract`.

    Source: eq. (1); Zhou et al. (2016). `fast.fold.fold_cam` is the same for all classes and fixed weights, and faster.
    """
    model = _check(model, x, classes)
    features = model.features(x)
    return pool_share(_weighted_sum(model.classifier.weight[classes], features))


@leaving_no_trace
def gradcam_pp_release(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """What the released code calls GradCAM++: CAM with the negative weights of the last layer set to zero.

        [L(x, c)]_i = (1/u) sum_k max(w_k^c, 0) A_{k,i}

    It is not the GradCAM++ of its paper, `gradcam_pp`, and not complete: Proposition 1 does not bound it. The
    numbers in the paper's rows "GradCAM++" are of this map. The released code leaves the factor 1/u out.

    Arguments, Returns, Raises: as `cam`.

    Source: the released code; Tables 1 and A5.
    """
    model = _check(model, x, classes)
    features = model.features(x)
    return pool_share(_weighted_sum(model.classifier.weight[classes].clamp(min=0), features))


@leaving_no_trace
def representation(model: nn.Module, x: Tensor, classes: Tensor | None = None, *, create_graph: bool = False) -> Tensor:
    """Repr: the feature maps before the pool, the internal representation at the penultimate layer.

        [L(x, k)]_i = A_{k,i},        k = 1 .. K

    It does not depend on a class: its K channels stand where other maps have classes, so that eq. (3) is a mean over
    channels, and `classes` is ignored.

    Arguments, Raises: as `cam`.

    Returns:
        (N, K, h, w), signed: no activation follows the last convolution.

    Source: section 5, Table 1.
    """
    return _check(model, x, of_classes=False).features(x)


def _kind(value) -> tuple | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _head_gradients(
    model: nn.Module, x: Tensor, classes: Tensor, head: Head | None, create_graph: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Features A (N, K, h, w), df_c/dA (N, k, K, h, w) and f_c (N, k)."""
    model = _check(model, x, classes, head)
    head = head or (lambda features: model.classifier(features.mean((2, 3))))
    with torch.set_grad_enabled(create_graph):
        features = model.features(x)
        if not isinstance(features, Tensor) or features.dim() != 4:
            raise ValueError(f"features(x) must be feature maps (N, K, h, w); got {_kind(features)}.")
    with torch.enable_grad():
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        logits = head(features)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            raise ValueError(f"head must give logits ({len(x)}, C), a row an image; got {_kind(logits)}.")
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
    """GradCAM: the weights are mean gradients, so that any network will do.

        [L(x, c)]_i = sum_k w_k^c A_{k,i},        w_k^c = (1/u) sum_i df_c(x) / dA_{k,i}

    On a network that ends in global average pool and linear layer the gradient is w_k^c / u, and GradCAM is the CAM
    of eq. (1), its factor 1/u included, and complete; on others it is not. Section 2 puts this weight into eq. (1),
    which has 1/u already: read to the letter, that divides the map by u once more. This follows Selvaraju et al.
    Their final ReLU, for the eye, is left out.

    Args:
        model, x, classes: as `cam`.
        head: features (N, K, h, w) -> logits, for a network without that architecture; pool and `classifier` where
            none is given.
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
    """GradCAM++ of its own paper: positive gradients, weighted pixel by pixel.

        [L(x, c)]_i = sum_k w_k^c A_{k,i},        w_k^c = sum_j alpha_j max(dY/dA_{k,j}, 0),
        alpha_j = (d2Y/dA_{k,j}^2) / (2 d2Y/dA_{k,j}^2 + sum_a A_{k,a} d3Y/dA_{k,j}^3)

    With Y = exp(f_c), and f_c piecewise linear in A, the n-th derivative is exp(f_c) g^n, g_j = df_c/dA_{k,j}. The
    exponential cancels in alpha, and so does g^2 where it is not 0, which leaves

        w_k^c = sum_j max(g_j, 0) / (2 + g_j sum_a A_{k,a}).

    The factor exp(f_c) that remains in dY is common to the whole map and left out, as in the libraries in use;
    `exponential` puts it back. Where other implementations add a small number to the denominator, this does not.
    The formula was made for A >= 0. The networks here have signed features, so that the denominator can vanish and
    change sign: with global average pool it is 2 + w_k^c mean(A_k).

    There is no 1/u in it: with global average pool and small features the map is about u/2 times that of positive
    weights in eq. (1). Not complete, and not what the paper's tables call GradCAM++: that is `gradcam_pp_release`.

    Args:
        model, x, classes, head, create_graph: as `gradcam`.
        exponential: multiply by exp(f_c), as with Y = exp(f_c) to the letter.

    Returns:
        (N, k, h, w), signed; the final ReLU, for the eye, is left out.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2; Chattopadhay et al. (2018), eqs. 5, 9 and 19 there.
    """
    features, gradients, scores = _head_gradients(model, x, classes, head, create_graph)
    mass = features.sum((2, 3))[:, None, :, None, None]
    positive = gradients > 0
    # Two `where`s: a gradient through the branch not taken would be NaN where its denominator is 0.
    denominator = torch.where(positive, 2 + gradients * mass, 1)
    weights = torch.where(positive, gradients / denominator, 0).sum((3, 4))
    maps = _weighted_sum(weights, features)
    return maps * scores.exp()[..., None, None] if exponential else maps
