"""Fold a network with fixed weights into functions of x alone: compute once what does not depend on x.

All code that calls a network many times with the same weights uses a fold: attacks call `fold_for_attack` or
`fold_cam`, a training step calls `fold_for_training`. A fold has two steps, both exact up to rounding:

1. The tail becomes a matrix. In Small nothing nonlinear follows the last convolution, and the pool is a mean.
   With z = trunk(x) the logits are

       f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,).

   M has 10 rows of 1,568 numbers on MNIST; the convolution that it replaces costs 7.7 million multiplications per
   image.
2. The trunk keeps its convolutions; their input gradients become convolutions as well. See `convolution.FixedConv2d`.

`benchmarks/pgd.py` measures the speed-up. Every fold is compared with its network, once per network structure; see
`models.proof.proven`. If the two differ, the network is used unchanged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import unwrapped
from ..models.architectures import GlobalPoolNetwork, SameConv2d, pool_share
from ..models.contract import check_contract, keeps_contract, linear_parts
from ..models.proof import Function, depends_on_mode, dtype_of, hooked, proven
from .parts import Foldable, Folded, after_first, assemble, compose_tail, fixed_copy, fold_tail, frozen
from .training_step import affine_folds, mixed, plain_folds, tracked_once
from .trunk import compiled_trunk


def has_affine_tail(model: nn.Module) -> bool:
    """Return whether the network declares an `affine_tail`, and its fold passes the comparison."""
    return (
        isinstance(model, GlobalPoolNetwork)
        and model.affine_tail is not None
        and not any(map(hooked, model.modules()))
        and proven(model, _affine_rows, _own_rows, weights=True)
    )


def is_foldable(model: nn.Module) -> bool:
    """Return whether `FixedConv2d` can replace a network's convolutions; the fold must pass the comparison."""
    return (
        isinstance(model, GlobalPoolNetwork)
        and any(isinstance(module, SameConv2d) for module in model.modules())
        and not any(map(hooked, model.modules()))
        and proven(model, _plain_rows, _own_rows, weights=True)
    )


def _own_rows(model: GlobalPoolNetwork) -> Function:
    """Return the reference for `_rows`: the network's own logits, CAM and features, with and without weight graph."""
    fixed, (weight, _) = frozen(model), linear_parts(model)
    maps = lambda x: pool_share(F.conv2d(model.features(x), weight[:, :, None, None]))

    def halved(x: Tensor) -> Tensor:  # mixes z with its mirror image: equals the mixed tails only for an affine tail
        z = fixed.trunk(x)
        return fixed.tail((z + z.flip(-1)) / 2)

    def rows(x: Tensor) -> Tensor:
        free = [model(x), maps(x).flatten(1), model(x)]
        return torch.cat([*free, *(part.flatten(1) for part in (fixed(x), halved(x), fixed.features(x)))], 1)

    return rows


def _rows(model: GlobalPoolNetwork, free: Folded, fixed: Folded, *, affine: bool) -> Function:
    """Return a function that concatenates every folded output of a network into one row per image."""
    first, rest = after_first(model, affine)
    copied = fixed_copy(model)

    def rows(x: Tensor) -> Tensor:
        z = copied.trunk(x)
        maps, halved = free.cam(x), (copied.tail(z) + copied.tail(z.flip(-1))) / 2
        free_parts = [free.logits(x), maps.flatten(1), free.logits_of(maps)]
        # Two results that should both equal the logits are compared through their mean.
        fixed_parts = [(rest(first(x)) + fixed.logits(x)) / 2, halved.flatten(1), copied.features(x).flatten(1)]
        return torch.cat([*free_parts, *fixed_parts], 1)

    return rows


def _affine_rows(model: GlobalPoolNetwork) -> Function:
    return _rows(model, *affine_folds(model, None), affine=True)


def _plain_rows(model: GlobalPoolNetwork) -> Function:
    return _rows(model, *plain_folds(model, None), affine=False)


def fold_for_training(model: nn.Module | Foldable, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]:
    """Fold a network for one training step, its tail once: one fold with a graph to the weights, one without.

    The loss uses the first fold. The inner maximisation climbs the second, whose weights are detached copies: their
    gradients are neither computed nor stored. Both folds equal the network, and so do the derivatives that they have.

    For a network with dropout or batch statistics the two folds are different functions. The first runs in training
    mode and updates its running statistics once per step, from the first images that it sees: the natural images
    wherever the loss uses them. The second runs in evaluation mode, as every attack does: it updates no statistics,
    drops nothing, and treats each image independently of the others.

    Args:
        model: any classifier, or what folds itself; a network that does not keep the contract (`check_contract`) has
            logits but no CAM.
        dtype: precision of everything before the affine tail, or before the pool, forward and backward. Weights, maps
            and logits keep their own precision. Default: the precision of the network. A number in bfloat16 has 8
            significant bits; sums of products are accumulated with 24. A CPU with matrix units for bfloat16 (AMX)
            takes a half to a quarter of the time for large layers; other CPUs take longer than in single precision.
    """
    if isinstance(model, Foldable):
        return model.fold_for_training(dtype)
    if has_affine_tail(model):
        free, fixed = affine_folds(model, dtype)
    elif is_foldable(model) and not depends_on_mode(model):
        free, fixed = plain_folds(model, dtype)
    else:
        free, fixed = (_whole(network, dtype, model) for network in (model, frozen(model).eval()))
    return free, fixed._replace(differs=depends_on_mode(model))


def _whole(network: nn.Module, dtype: torch.dtype | None, model: nn.Module) -> Folded:
    """Return a network, or a frozen copy of it, unfolded: always its logits, and its CAM if it has one."""
    plain = dtype in (None, dtype_of(model))
    change = lambda f: f if plain else mixed(f, dtype)
    network = unwrapped(network)
    if not isinstance(network, GlobalPoolNetwork) or not keeps_contract(unwrapped(model)):

        def cam(x: Tensor) -> Tensor:
            check_contract(unwrapped(model), tuple(x.shape[1:]))
            return pool_share(F.conv2d(features(x), network.classifier.weight[:, :, None, None]))

        forward, features = (tracked_once(network, change(f)) for f in (network, getattr(network, "features", None)))
        return Folded(forward, cam, getattr(getattr(network, "classifier", None), "bias", None))
    return assemble(network, tracked_once(network, change(network.features)))


def fold_for_attack(model: nn.Module) -> Folded:
    """Fold a network with its current weights, detached, for an attack on its logits.

    Without an affine tail the logits are `model` itself, see `fold_logits`, and there is no CAM, see `fold_cam`.
    """
    if not has_affine_tail(model):
        return Folded(model)
    with torch.no_grad():
        composed = compose_tail(model)
        return assemble(model, fixed_trunk(model), composed, fold_tail(model, composed))


def fold_logits(model: nn.Module) -> Function:
    """Return a function x -> logits (N, classes) that equals `model` with its current weights, detached.

    Its derivatives with respect to x, of any order, equal the derivatives of `model`; weights get no gradient. `model`
    itself is returned if it is no `GlobalPoolNetwork`, has no affine tail, has a hook, or differs from its fold.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    return fold_for_attack(model).logits


def fixed_trunk(model: GlobalPoolNetwork) -> Function:
    """Return the trunk with the current weights, detached: compiled, or with `FixedConv2d` layers."""
    return compiled_trunk(model, lambda: fixed_copy(model).trunk, fixed=True)


def fold_cam(model: nn.Module, weight: Tensor | None = None) -> Function:
    """Return a function x -> CAMs of all classes, in units of eq. (1), with the current weights, detached.

    It equals `interpreters.cam` for classes 0 .. C - 1. A map sums over pixels to its logit, minus the bias of the
    linear layer if there is one, so that an attack on maps and logits needs one pass. In Small the last convolution and
    the linear layer become one convolution, see `parts.compose_tail`. Derivatives with respect to x, of any order,
    equal the network's; weights get no gradient.

    Args:
        model: a network with `features` and `classifier`; see `models`.
        weight: rows to use in place of the linear layer's weight, (classes, K).

    Returns:
        A function from images (N, C, H, W) in [0, 1] to maps (N, classes, h, w).

    Raises:
        TypeError, ValueError: see `check_contract`; for a network without `input_shape` only once it sees images.
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
        if maps is None:  # without `input_shape` only the images tell the shape to check the contract with
            check_contract(model, tuple(x.shape[1:]))
            maps = assemble(fixed, fixed.features, weight=weight).cam
        return maps(x)

    return cam


def fold_after_first(model: nn.Module) -> tuple[nn.Module, Function]:
    """Split the logits into two steps, f(x) = rest(first(x)) with `first` affine, with the current weights.

    On a straight path from a to x the affine step is computed at the two ends only, first(a + t (x - a)) =
    first(a) + t (first(x) - first(a)), and gradients at many points of the path are summed before one backward pass
    through `first`. For the networks of `models`, `first` is the first convolution; for others it is the identity.

    Args:
        model: any classifier.

    Returns:
        `first`, images -> (N, ...), and `rest`, the output of `first` -> logits (N, classes).
    """
    if has_affine_tail(model) or is_foldable(model):
        return after_first(model, has_affine_tail(model))
    return nn.Identity(), model
