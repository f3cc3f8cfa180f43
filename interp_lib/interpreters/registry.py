"""The interpreters that the book shows, the properties of each, and helpers for display."""

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
    """An interpreter and its properties.

    Attributes:
        function: the interpreter itself.
        kind: 'CAM', 'PSM' (pixel sensitivity map), 'representation' or 'black box'.
        complete: whether the sum over pixels is a difference of logits, as Proposition 1 assumes.
        total: the sum over pixels, in words; None if it has no particular meaning.
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
    """Return how far the sum of a map is from the value that completeness demands.

        sum_i [L(x, c)]_i - (f_c(x) - f_c(a))

    Args:
        maps: (N, k, ...).
        logits: f(x), (N, classes).
        classes: int64 (N, k), the classes of the maps.
        logits_baseline: f(a), (N, classes) or (1, classes), for integrated gradients; None for 0.

    Returns:
        (N, k), signed; 0 for a complete interpreter.

    Raises:
        TypeError, ValueError: see `checks`; also if the shapes of maps and classes do not match.

    Source: Proposition 1; Sundararajan et al. (2017), their Proposition 1.
    """
    check_logits(logits)
    check_classes(classes, *logits.shape)
    if maps.shape[:2] != classes.shape:
        raise ValueError(f"maps of shape {tuple(maps.shape)} are not of {tuple(classes.shape)} classes.")
    target = logits if logits_baseline is None else logits - logits_baseline
    return maps.flatten(2).sum(2) - target.gather(1, classes)


def sum_colours(maps: Tensor) -> Tensor:
    """Sum pixel maps (N, k, C, H, W) over colours to (N, k, H, W); return other maps unchanged."""
    return maps.sum(2) if maps.dim() == 5 else maps


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps (N, k, h, w) to (N, k, *size) by bilinear interpolation, for display. Source: section 2."""
    check_each(size, "size", check_whole, 1)
    if not isinstance(maps, Tensor) or maps.dim() != 4 or len(size) != 2:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps must have shape (N, k, h, w) and size two numbers; got {came} and {tuple(size)}.")
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def normalise_for_display(maps: Tensor) -> Tensor:
    """Divide each map (N, k, ...) by its largest absolute value, so that it lies in [-1, 1] and 0 stays 0.

    Source: Figures 1 and 2.
    """
    largest = maps.flatten(2).abs().amax(2).view(*maps.shape[:2], *[1] * (maps.dim() - 2))
    return maps / torch.where(largest > 0, largest, 1)
