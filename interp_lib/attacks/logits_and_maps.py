"""Logits and maps from one forward pass, for attacks whose objective needs both."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..fast.fold import fold_after_first, fold_cam, fold_logits, is_foldable
from ..fast.parts import fixed_copy
from ..interpreters.class_activation_maps import cam, gradcam_pp_release, representation
from ..interpreters.integration import integrated_gradients_release
from ..models.architectures import GlobalPoolNetwork
from ..models.contract import check_contract, linear_parts
from ..models.proof import unwrapped

Interpreter = Callable[..., Tensor]

Explained = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


# Points of the path that replace the 100 points of the released code's IG. It is smooth, so both agree to float32.
NODES = 8


def explain(model: nn.Module, interpreter: Interpreter) -> Explained:
    """Return a function (x, classes) -> logits (N, C) and maps L(x, classes) (N, k, ...), with the present weights.

    It equals (model(x), interpreter(model, x, classes)), with the derivatives with respect to x, but not those with
    respect to the weights. Logits and maps share their computation: the logits are the sum of the CAM, plus the linear
    layer's bias if it has one, or come from the features of Repr.

    The released code's IG is folded once for all calls, and takes 8 points of its path that give the same sum as all
    100. Any other interpreter of the contract is called unchanged, next to the folded logits.

    Args:
        model: a classifier in evaluation mode.
        interpreter: L(model, x, classes, create_graph=True).

    Raises:
        TypeError, ValueError: the network lacks what the interpreter needs, see `models.contract.check_contract`.
    """
    whole, model = model, unwrapped(model)
    if isinstance(model, GlobalPoolNetwork) and interpreter in (cam, gradcam_pp_release):
        check_contract(model)
        weight, bias = (None if part is None else part.detach() for part in linear_parts(model))
        # The maps of the unchanged weights come first, since only they sum to the logits; the clamped rows follow.
        rows = weight if interpreter is cam else torch.cat([weight, weight.clamp(min=0)])
        all_maps, first = fold_cam(model, rows), len(rows) - len(weight)

        def both(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
            maps = all_maps(x)
            index = (classes + first)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
            total = maps[:, : len(weight)].sum((2, 3))
            return total if bias is None else total + bias, maps.gather(1, index)

        return both
    if is_foldable(model) and interpreter is representation:
        frozen = fixed_copy(model)

        def features_first(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
            features = frozen.features(x)
            return frozen.classifier(features.mean((2, 3))), features

        return features_first
    if interpreter is integrated_gradients_release:
        first, rest = folded = fold_after_first(model)
        settings = {"nodes": NODES, "fixed_weights": True, "folded": folded, "create_graph": True}
        return lambda x, classes: (rest(first(x)), interpreter(model, x, classes, **settings))
    logits = fold_logits(whole)
    return lambda x, classes: (logits(x), interpreter(whole, x, classes, create_graph=True))
