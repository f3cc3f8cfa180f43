"""The interpreters that the book shows, what is known of each, and helpers for the eye."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_classes, check_logits
from ..values import check_each, check_whole
from .class_activation_maps import cam, gradcam, gradcam_pp, gradcam_pp_release, representation
from .integration import integrated_gradients
from .masking import rise
from .sensitivity import deconvolution, guided_backpropagation, smoothgrad, vanilla_gradient


class Interpreter(NamedTuple):
    """What is known of an interpreter.

    kind: 'CAM', 'PSM' (pixel sensitivity map), 'representation' or 'black box'.
    complete: whether the sum over pixels is a difference of logits, as Proposition 1 assumes.
    total: what the sum over pixels is, in words; None where it is nothing in particular.
    """

    function: Callable[..., Tensor]
    kind: str
    complete: bool
    total: str | None = None


INTERPRETERS = {
    "cam": Interpreter(cam, "CAM", True, "f_c(x)"),
    "gradcam": Interpreter(gradcam, "CAM", True, "f_c(x), where pool and linear layer end the network"),
    "gradcam_pp": Interpreter(gradcam_pp, "CAM", False),
    "gradcam_pp_release": Interpreter(gradcam_pp_release, "CAM", False, "f_c(x) without its negative weights"),
    "integrated_gradients": Interpreter(
        integrated_gradients, "PSM", True, "f_c(x) - f_c(baseline), up to the error of the sum over steps"
    ),
    "vanilla_gradient": Interpreter(vanilla_gradient, "PSM", False),
    "smoothgrad": Interpreter(smoothgrad, "PSM", False),
    "guided_backpropagation": Interpreter(guided_backpropagation, "PSM", False),
    "deconvolution": Interpreter(deconvolution, "PSM", False),
    "rise": Interpreter(rise, "black box", False),
    "representation": Interpreter(representation, "representation", False, "u times the pooled feature"),
}


def completeness_gap(maps: Tensor, logits: Tensor, classes: Tensor, logits_baseline: Tensor | None = None) -> Tensor:
    """By how much a map misses completeness.

        sum_i [L(x, c)]_i - (f_c(x) - f_c(a))

    Args:
        maps: (N, k, ...).
        logits: f(x), (N, classes).
        classes: int64 (N, k), those of the maps.
        logits_baseline: f(a), (N, classes) or (1, classes), for integrated gradients; 0 where none is given.

    Returns:
        (N, k), signed; 0 for a complete interpreter.

    Raises:
        TypeError, ValueError: see `checks`; also where maps and classes do not belong together.

    Source: Proposition 1; Sundararajan et al. (2017), their Proposition 1.
    """
    check_logits(logits)
    check_classes(classes, *logits.shape)
    if maps.shape[:2] != classes.shape:
        raise ValueError(f"maps of shape {tuple(maps.shape)} are not of {tuple(classes.shape)} classes.")
    target = logits if logits_baseline is None else logits - logits_baseline
    return maps.flatten(2).sum(2) - target.gather(1, classes)


def sum_colours(maps: Tensor) -> Tensor:
    """Maps of pixels (N, k, C, H, W) -> (N, k, H, W), their sum kept; others are returned as they are."""
    return maps.sum(2) if maps.dim() == 5 else maps


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, k, h, w) -> (N, k, *size) by bilinear interpolation, for the eye. Source: section 2."""
    check_each(size, "size", check_whole, 1)
    if not isinstance(maps, Tensor) or maps.dim() != 4 or len(size) != 2:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps must have shape (N, k, h, w) and size two numbers; got {came} and {tuple(size)}.")
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def normalise_for_display(maps: Tensor) -> Tensor:
    """Each map over its largest absolute value: (N, k, ...) in [-1, 1], 0 stays 0. Source: Figures 1 and 2."""
    largest = maps.flatten(2).abs().amax(2).view(*maps.shape[:2], *[1] * (maps.dim() - 2))
    return maps / torch.where(largest > 0, largest, 1)
