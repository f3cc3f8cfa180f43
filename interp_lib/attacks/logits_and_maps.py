"""Logits and maps from one forward pass, for attacks whose objective needs both."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import unwrapped
from ..fast.fold import fold_cam, fold_logits
from ..interpreters.registry import LogitsAndMaps, MapFunction, entry_of
from ..models.architectures import GlobalPoolNetwork
from ..models.contract import check_contract, linear_parts


def explain(model: nn.Module, interpreter: MapFunction) -> LogitsAndMaps:
    """Return a function (x, classes) -> logits (N, C) and maps L(x, classes) (N, k, ...), with the present weights.

    It equals (model(x), interpreter(model, x, classes)), with the derivatives with respect to x, but not those with
    respect to the weights. Logits and maps share their computation where the interpreter's entry in `INTERPRETERS` has
    a fast path: with `rows`, the logits are the sum of the CAM, plus the linear layer's bias if it has one. Any other
    interpreter of the contract is called unchanged, next to the folded logits.

    Args:
        model: a classifier in evaluation mode.
        interpreter: L(model, x, classes, create_graph=True).

    Raises:
        TypeError, ValueError: the network lacks what the interpreter needs, see `models.contract.check_contract`.
    """
    entry, bare = entry_of(interpreter), unwrapped(model)
    if entry.rows and isinstance(bare, GlobalPoolNetwork):
        return _fold_rows(bare, entry.rows)
    if entry.fold and (both := entry.fold(bare)):
        return both
    logits = fold_logits(model)
    return lambda x, classes: (logits(x), interpreter(model, x, classes, create_graph=True))


def _fold_rows(model: GlobalPoolNetwork, rows_of: Callable[[Tensor], Tensor]) -> LogitsAndMaps:
    """Return `explain` of a map that is a weighted sum of the features; see `Interpreter.rows`."""
    check_contract(model)
    weight, bias = linear_parts(model)
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    # The maps of the unchanged weights come first, since only they sum to the logits; the interpreter's rows follow.
    own = rows_of(weight)
    rows = weight if own is weight else torch.cat([weight, own])
    all_maps, first = fold_cam(model, rows), len(rows) - len(weight)

    def both(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        maps = all_maps(x)
        index = (classes + first)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        total = maps[:, : len(weight)].sum((2, 3))
        return total if bias is None else total + bias, maps.gather(1, index)

    return both
