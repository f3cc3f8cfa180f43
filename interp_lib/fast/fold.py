"""The logits as a function of x alone, for fixed weights: what does not depend on x is computed once.

Everything that calls a network many times with the same weights uses it: attacks `fold_logits` and `fold_cam`, a
training step `fold_for_training`. Two steps, both exact up to rounding:

1. The tail becomes a matrix. In Small nothing nonlinear follows the last convolution and the pool is a mean.
   With z = trunk(x) the logits are

       f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,).

   M has 10 rows of 1,568 numbers on MNIST, where the convolution that it replaces costs 7.7 million
   multiplications an image.
2. The trunk keeps its convolutions; their input gradients become convolutions as well. See `FixedConv2d`.

`benchmarks/pgd.py` measures what this is worth. What is folded proves itself, once for every structure of a network:
see `proven`. Where it is not the network, the network is used as it is.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import GlobalPoolNetwork, SameConv2d, Small, pool_share
from ..models.contract import check_contract, keeps_contract, linear_parts
from ..models.proof import Function, depends_on_mode, dtype_of, hooked, proven, unwrapped
from .parts import Folded, after_first, assemble, compose_tail, fixed_copy, fold_tail, frozen, keep_memory
from .training_step import affine_folds, mixed, plain_folds, tracked_once
from .trunk import compiled_trunk


# The tail as a matrix ---------------------------------------------------------------------------------------------
def has_affine_tail(model: nn.Module) -> bool:
    """Whether the network is Small's tail after some trunk, and what is folded of it has proven itself."""
    return (
        getattr(type(model), "tail", None) is Small.tail
        and not any(map(hooked, model.modules()))
        and proven(model, _affine_rows, _own_rows, weights=True)
    )


def is_foldable(model: nn.Module) -> bool:
    """Whether a network's convolutions can be replaced and its features arranged anew; proven as well."""
    return (
        isinstance(model, GlobalPoolNetwork)
        and any(isinstance(module, SameConv2d) for module in model.modules())
        and not any(map(hooked, model.modules()))
        and proven(model, _plain_rows, _own_rows, weights=True)
    )


def _own_rows(model: GlobalPoolNetwork) -> Function:
    """What `_rows` is held to: the network's own logits, CAM and features, with and without a graph to its weights."""
    fixed, (weight, _) = frozen(model), linear_parts(model)
    maps = lambda x: pool_share(F.conv2d(model.features(x), weight[:, :, None, None]))

    def halved(x: Tensor) -> Tensor:  # images and their mirror images: an affine tail does not see which are mixed
        z = fixed.trunk(x)
        return fixed.tail((z + z.flip(-1)) / 2)

    def rows(x: Tensor) -> Tensor:
        free = [model(x), maps(x).flatten(1), model(x)]
        return torch.cat([*free, *(part.flatten(1) for part in (fixed(x), halved(x), fixed.features(x)))], 1)

    return rows


def _rows(model: GlobalPoolNetwork, free: Folded, fixed: Folded, *, affine: bool) -> Function:
    """All that is folded of a network, in one row an image."""
    first, rest = after_first(model, affine)
    copied = fixed_copy(model)

    def rows(x: Tensor) -> Tensor:
        z = copied.trunk(x)
        maps, halved = free.cam(x), (copied.tail(z) + copied.tail(z.flip(-1))) / 2
        free_parts = [free.logits(x), maps.flatten(1), free.logits_of(maps)]
        fixed_parts = [(rest(first(x)) + fixed.logits(x)) / 2, halved.flatten(1), copied.features(x).flatten(1)]
        return torch.cat([*free_parts, *fixed_parts], 1)

    return rows


def _affine_rows(model: Small) -> Function:
    return _rows(model, *affine_folds(model, None), affine=True)


def _plain_rows(model: GlobalPoolNetwork) -> Function:
    return _rows(model, *plain_folds(model, None), affine=False)


def fold_for_training(model: nn.Module, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]:
    """A network for one training step, its tail folded once: with a graph to the weights, and without.

    The loss is made of the first. The inner maximisation climbs the second, which has the weights of this moment:
    their gradients are neither computed nor kept. Both equal the network, with all derivatives that they have.

    A network with dropout or batch statistics is two functions. The first is the one of training mode, and takes one
    update of its running statistics a step: from the images that it sees first, the natural ones wherever the loss
    has them. The second is that of evaluation mode, as every attack is: it updates nothing, drops nothing, and every
    image is its own problem.

    Args:
        model: any classifier; one that keeps no contract (`check_contract`) has logits and no CAM.
        dtype: where given, the precision in which everything before the affine tail, or before the pool, is computed,
            forward and backward. Weights, maps and logits keep theirs. A number in bfloat16 has 8 significant bits;
            products are added up in 24. A processor with units for that (AMX) takes a half to a quarter of the time
            for large layers, other processors more than before.
    """
    if not isinstance(model, nn.Module):  # several networks, see `stack.Stack`
        return model.fold(dtype)
    keep_memory()
    if has_affine_tail(model):
        free, fixed = affine_folds(model, dtype)
    elif is_foldable(model) and not depends_on_mode(model):
        free, fixed = plain_folds(model, dtype)
    else:
        free, fixed = (_whole(network, dtype, model) for network in (model, frozen(model).eval()))
    return free, fixed._replace(differs=depends_on_mode(model))


def _whole(network: nn.Module, dtype: torch.dtype | None, model: nn.Module) -> Folded:
    """A network, or a frozen copy of it, as it is: its CAM where it has one, its logits in any case."""
    change = (lambda f: f) if dtype in (None, dtype_of(model)) else functools.partial(mixed, dtype=dtype)
    network = unwrapped(network)
    if not isinstance(network, GlobalPoolNetwork) or not keeps_contract(unwrapped(model)):

        def cam(x: Tensor) -> Tensor:
            check_contract(unwrapped(model), tuple(x.shape[1:]))
            return pool_share(F.conv2d(features(x), network.classifier.weight[:, :, None, None]))

        forward, features = (tracked_once(network, change(f)) for f in (network, getattr(network, "features", None)))
        return Folded(forward, cam, getattr(getattr(network, "classifier", None), "bias", None))
    return assemble(network, tracked_once(network, change(network.features)))


def fold_logits(model: nn.Module) -> Function:
    """A function x -> logits (N, classes) equal to `model`, with the weights of this moment, detached.

    Its derivatives with respect to x, of any order, are those of `model`; weights get none. A module that is no
    `GlobalPoolNetwork`, or has no affine tail, or a hook, or whose fold is not what it does, is returned as it is.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    if not has_affine_tail(model):
        return model
    keep_memory()
    with torch.no_grad():
        return assemble(model, fixed_trunk(model), tail=fold_tail(model)).logits


def fixed_trunk(model: GlobalPoolNetwork) -> Function:
    """The trunk with the weights of this moment, detached: compiled, or on `FixedConv2d`."""
    return compiled_trunk(model, lambda: fixed_copy(model).trunk, fixed=True)


def fold_cam(model: nn.Module, weight: Tensor | None = None) -> Function:
    """A function x -> CAMs of all classes, in units of eq. (1), with the weights of this moment, detached.

    It equals `interpreters.cam` for classes 0 .. C - 1; its sum over pixels is the logits, less the bias of the
    linear layer where it has one, so that an attack on both needs no second pass. In Small the last convolution and
    the linear layer become one, see `compose_tail`. Derivatives with respect to x, of any order, are the network's;
    weights get none.

    Args:
        model: a network with `features` and `classifier`; see `models`.
        weight: rows in the place of the linear layer's, (classes, K).

    Returns:
        A function from images (N, C, H, W) in [0, 1] to maps (N, classes, h, w).

    Raises:
        TypeError, ValueError: see `check_contract`; of a network without `input_shape` when it sees images.
    """
    model = unwrapped(model)
    with torch.no_grad():
        if has_affine_tail(model):
            return assemble(model, fixed_trunk(model), compose_tail(model, weight)).cam
    if hasattr(model, "input_shape"):
        check_contract(model)
    fixed = frozen(model)
    maps = assemble(fixed, fixed.features, weight=weight).cam if hasattr(model, "input_shape") else None

    def cam(x: Tensor) -> Tensor:
        nonlocal maps
        if maps is None:
            check_contract(model, tuple(x.shape[1:]))
            maps = assemble(fixed, fixed.features, weight=weight).cam
        return maps(x)

    return cam


def fold_after_first(model: nn.Module) -> tuple[nn.Module, Function]:
    """The logits in two steps, f(x) = rest(first(x)), `first` affine, with the weights of this moment.

    Along a straight path from a to x the affine step is computed at the ends only, first(a + t (x - a)) =
    first(a) + t (first(x) - first(a)), and gradients at many points of the path are summed before they are pulled
    back through it. For the networks of `models`, `first` is their first convolution; for others the identity.

    Args:
        model: any classifier.

    Returns:
        `first`, images -> (N, ...), and `rest`, that -> logits (N, classes).
    """
    if has_affine_tail(model) or is_foldable(model):
        return after_first(model, has_affine_tail(model))
    return nn.Identity(), model
