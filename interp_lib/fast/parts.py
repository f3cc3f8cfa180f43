"""The building blocks of a folded network: the affine tail as one matrix, the trunk with fixed weights."""

import copy
import functools
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import (
    ARCHITECTURES,
    GlobalPoolNetwork,
    SameConv2d,
    pool_share,
    same_conv2d,
    same_padding,
)
from ..models.contract import linear_parts
from ..models.proof import Function, hooked
from .convolution import FixedConv2d, block_factor
from .objective import Head

# Make glibc keep the memory of one pass for the next pass: it returns freed memory to the system once it exceeds twice
# the largest block freed so far (32 MB at most), and an attack would then fault all its pages in again at every step.
# Freeing this block, whose memory is never touched, raises that limit for the whole process.
torch.empty(28 * 2**20, dtype=torch.uint8, device="cpu")


class Folded(NamedTuple):
    """A network as two functions of x.

    Attributes:
        logits: images (N, C, H, W) -> (N, classes).
        cam: images -> CAMs of all classes in units of eq. (1), (N, classes, h, w); None in some folds.
        bias: the bias of the linear layer, (classes,) or None: a map sums to its logit minus this bias.
        head: the weights after a compiled trunk, for `objective.climbing`; None if the trunk is not compiled.
        differs: whether dropout or batch statistics make the network another function in training mode.
        networks: number of networks that are computed as one; image i of a batch belongs to network i mod `networks`.
    """

    logits: Function
    cam: Function = None  # type: ignore[assignment]  # only the fold of an attack on the logits has none
    bias: Tensor | None = None
    head: Head | None = None
    differs: bool = False
    networks: int = 1

    def logits_of(self, maps: Tensor) -> Tensor:
        """Return the logits from the CAMs of all classes: (N, classes, h, w) -> (N, classes)."""
        total = maps.sum((2, 3))
        return total if self.bias is None else total + self.bias


@runtime_checkable
class Foldable(Protocol):
    """What folds itself for a training step, see `fold.fold_for_training`: several networks as one, `stack.Stack`."""

    def fold_for_training(self, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]: ...


def compose_tail(model: GlobalPoolNetwork, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compose the last convolution and the linear layer into one convolution, with one channel per class, not K.

        w_c'[j] = sum_k w_k^c v_k[j],        b_c' = sum_k w_k^c b_k

    v_k and b_k are the filters and biases of the last convolution. The output is u times the CAM of eq. (1). The
    weights keep their graph.

    Args:
        weight: rows to use in place of the linear layer's weight.

    Returns:
        w' (classes, c, k, k) and b' (classes,).
    """
    weight, conv = model.classifier.weight if weight is None else weight, model.get_submodule(model.affine_tail)
    offset = weight.new_zeros(len(weight)) if conv.bias is None else weight @ conv.bias
    return torch.einsum("ck,kijl->cijl", weight, conv.weight), offset


@functools.cache
def pixel_shares(n: int, k: int, s: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return B[p, j] of `fold_tail` for an axis of n pixels, kernel size k and stride s: (n, k)."""
    p, j, q = torch.arange(n)[:, None, None], torch.arange(k)[:, None], torch.arange(-(-n // s))
    return (s * q + j - same_padding(n, k, s)[0] == p).to(device, dtype).mean(2)


def fold_tail(model: GlobalPoolNetwork, composed: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return M and m of f(x) = M vec(z) + m: the composed convolution, averaged over its output.

    With B[p, j] the share of output pixels whose filter element j reads input pixel p, for each axis,

        M_c[p, p'] = sum_{j, j'} B[p, j] w_c'[j, j'] B'[p', j'],        m_c = b_c' + b_c,

    b_c the linear layer's own bias, if it has one. The weights keep their graph.

    Args:
        composed: the result of `compose_tail`, if the caller has it already.

    Returns:
        M with the channels last, (classes, h * w * c), and m (classes,).
    """
    weight, bias = composed or compose_tail(model)
    conv = model.get_submodule(model.affine_tail)
    sizes = zip(model.trunk_size(), conv.kernel_size, conv.stride, strict=True)
    rows, columns = (pixel_shares(n, k, s, weight.dtype, weight.device) for n, k, s in sizes)
    matrix = torch.einsum("pj,cijl,rl->cpri", rows, weight, columns)
    own = model.classifier.bias
    return matrix.flatten(1), bias if own is None else bias + own


def fixed_copy(model: GlobalPoolNetwork, *, gaining: bool = False, **replaced: nn.Module) -> GlobalPoolNetwork:
    """Copy a network with its current weights, detached, and `FixedConv2d` in place of its convolutions.

    Args:
        gaining: replace only convolutions that get faster whatever their width: layers with few input channels, see
            `block_factor`, or with a kernel larger than 3 pixels. Replacing the 5x5 layers makes an inner step of
            IG-Norm take 0.8 of its time in Pool; replacing the 3x3 layers, mostly of stride 1, would make an inner
            step of Adv take 1.1 times as long in WResnet.
        replaced: other modules to replace, as name=new module.
    """
    # deepcopy's memo maps the id of an object to its copy: entries here put a replacement in the place of a copy.
    convolutions = (m for m in model.modules() if isinstance(m, SameConv2d) and not hooked(m))
    fixed = {
        id(m): FixedConv2d(m) for m in convolutions if not gaining or block_factor(m) > 1 or max(m.kernel_size) > 3
    }
    fixed.update((id(getattr(model, name)), module) for name, module in replaced.items())
    return copy.deepcopy(model, fixed).requires_grad_(False)


def assemble(model: nn.Module, trunk: Function, composed=None, tail=None, weight: Tensor | None = None) -> Folded:
    """Build `Folded` from a trunk, `compose_tail` and `fold_tail`; without the last two, `trunk` is `features`.

    Args:
        weight: rows to use in place of the linear layer's weight, for the maps.
    """
    own, bias = linear_parts(model)
    if tail is None and composed is None:
        rows = own if weight is None else weight
        return Folded(
            lambda x: F.linear(trunk(x).mean((2, 3)), own, bias),
            lambda x: pool_share(F.conv2d(trunk(x), rows[:, :, None, None])),
            bias,
        )
    stride = model.get_submodule(model.affine_tail).stride
    head = Head.of(model, trunk, composed if stride == (1, 1) else None, tail)  # ascent.cpp has maps of stride 1 only
    return Folded(
        lambda x: F.linear(trunk(x).permute(0, 2, 3, 1).flatten(1), *tail),
        lambda x: pool_share(same_conv2d(trunk(x), composed[0], composed[1], stride)),
        bias,
        head,
    )


def frozen(model: nn.Module) -> nn.Module:
    """Copy a network with its current weights, detached."""
    return copy.deepcopy(model).requires_grad_(False)


def after_first(model: GlobalPoolNetwork, affine: bool) -> tuple[nn.Module, Function]:
    known = type(model).trunk in [m.trunk for m in ARCHITECTURES.values()] and isinstance(model.conv1, SameConv2d)
    first = FixedConv2d(model.conv1) if known else nn.Identity()
    replaced = {"conv1": nn.Identity()} if known else {}  # `first` has applied the convolution already
    if affine:
        with torch.no_grad():
            return first, assemble(model, fixed_copy(model, **replaced).trunk, tail=fold_tail(model)).logits
    rest = copy.deepcopy(model, {id(getattr(model, name)): module for name, module in replaced.items()})
    return first, rest.requires_grad_(False)
