"""The one table of interpreters: the properties and the fast path of each; and helpers for display."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_classes, check_logits
from ..values import check_each, check_whole
from . import class_activation_maps as cams
from . import integration, masking, sensitivity

MapFunction = Callable[..., Tensor]
LogitsAndMaps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Interpreter(NamedTuple):
    """An interpreter and its properties.

    Attributes:
        function: the interpreter itself, (model, x, classes, create_graph=False) -> maps.
        kind: 'CAM', 'PSM' (pixel sensitivity map), 'representation' or 'black box'.
        complete: whether the sum over pixels is a logit, or a difference of logits, as Proposition 1 assumes.
        table: the name of its rows in the paper's tables; None for an interpreter without rows.
        rows: weights of the linear layer (C, K) -> v, for a map (1/u) sum_k v_k^c A_{k,i}: attacks fold v with the
            network. None for a map that is no such sum.
        fold: model -> (x, classes) -> logits and maps, with the present weights and shared computation, for attacks;
            it returns None for a network that it cannot fold. None: attacks call `function`.
    """

    function: MapFunction
    kind: str
    complete: bool
    table: str | None = None
    rows: Callable[[Tensor], Tensor] | None = None
    fold: Callable[[nn.Module], LogitsAndMaps | None] | None = None


INTERPRETERS = {
    "cam": Interpreter(cams.cam, "CAM", True, "CAM", rows=lambda weight: weight),
    "gradcam": Interpreter(cams.gradcam, "CAM", True),
    "gradcam_pp": Interpreter(cams.gradcam_pp, "CAM", False, fold=cams.fold_gradcam_pp),
    "gradcam_pp_release": Interpreter(
        cams.gradcam_pp_release, "CAM", False, "GradCAM++", rows=lambda weight: weight.clamp(min=0)
    ),
    "integrated_gradients": Interpreter(integration.integrated_gradients, "PSM", True),
    "integrated_gradients_release": Interpreter(
        integration.integrated_gradients_release, "PSM", False, "IG", fold=integration.fold_release
    ),
    "vanilla_gradient": Interpreter(sensitivity.vanilla_gradient, "PSM", False),
    "smoothgrad": Interpreter(sensitivity.smoothgrad, "PSM", False),
    "guided_backpropagation": Interpreter(sensitivity.guided_backpropagation, "PSM", False),
    "deconvolution": Interpreter(sensitivity.deconvolution, "PSM", False),
    "rise": Interpreter(masking.rise, "black box", False),
    "representation": Interpreter(cams.representation, "representation", False, "Repr", fold=cams.fold_features),
    "input_times_gradient": Interpreter(sensitivity.input_times_gradient, "PSM", False),
}


def entry_of(function: MapFunction) -> Interpreter:
    """Return the entry of an interpreter; for a function that is not in the table, an entry without a fast path."""
    known = (entry for entry in INTERPRETERS.values() if entry.function is function)
    return next(known, Interpreter(function, "unknown", False))


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
