"""Logits and maps of one image from one pass, for attacks that look at both."""

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


# Points of the path in the place of the 100 of the released code's IG, which is smooth: the same to float32.
NODES = 8


def explain(model: nn.Module, interpreter: Interpreter) -> Explained:
    """A function (x, classes) -> logits (N, C) and maps L(x, classes) (N, k, ...), with the weights of this moment.

    Equal to (model(x), interpreter(model, x, classes)), with their derivatives with respect to x; weights get none.
    What the two share is computed once: the logits are the sum of the CAM, plus the linear layer's bias where it has
    one, and those of Repr come from its features.
    The released code's IG is folded once for all calls, and takes 8 points of its path that give the same sum as all
    100. Any other interpreter of the contract is called as it is, beside the folded logits.

    Args:
        model: a classifier in evaluation mode.
        interpreter: L(model, x, classes, create_graph=True).

    Raises:
        TypeError, ValueError: a network without what the interpreter needs, see `models.contract.check_contract`.
    """
    whole, model = model, unwrapped(model)
    if isinstance(model, GlobalPoolNetwork) and interpreter in (cam, gradcam_pp_release):
        check_contract(model)
        weight, bias = (None if part is None else part.detach() for part in linear_parts(model))
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
