"""The parts that a folded network is made of: the affine tail as one matrix, the trunk with fixed weights."""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import (
    ARCHITECTURES,
    GlobalPoolNetwork,
    SameConv2d,
    Small,
    pool_share,
    same_conv2d,
    same_padding,
)
from ..models.contract import linear_parts
from ..models.proof import Function, hooked
from .convolution import FixedConv2d, block_factor
from .objective import Head


class Folded(NamedTuple):
    """A network as two functions of x.

    Attributes:
        logits: images (N, C, H, W) -> (N, classes).
        cam: images -> CAMs of all classes in units of eq. (1), (N, classes, h, w).
        bias: of the linear layer, (classes,) or None: a map sums to its logit less this.
        differs: whether it is of evaluation mode, where dropout and batch statistics make that another function.
    """

    logits: Callable[[Tensor], Tensor]
    cam: Callable[[Tensor], Tensor]
    bias: Tensor | None = None
    differs: bool = False

    @property
    def head(self) -> Head | None:
        """What follows a compiled trunk, for `objective.climbing`; None where nothing is compiled."""
        return getattr(self.logits, "head", None)

    def logits_of(self, maps: Tensor) -> Tensor:
        """The logits from the CAMs of all classes: (N, classes, h, w) -> (N, classes)."""
        total = maps.sum((2, 3))
        return total if self.bias is None else total + self.bias


def compose_tail(model: Small, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The last convolution and the linear layer as one convolution with a channel a class in place of K.

        w_c'[j] = sum_k w_k^c v_k[j],        b_c' = sum_k w_k^c b_k

    v_k and b_k are its filters and biases. The output is u times the CAM of eq. (1). The weights keep their graph.

    Args:
        weight: rows in the place of the linear layer's.

    Returns:
        w' (classes, c, k, k) and b' (classes,).
    """
    weight, bias = model.classifier.weight if weight is None else weight, model.conv3.bias
    offset = weight.new_zeros(len(weight)) if bias is None else weight @ bias
    return torch.einsum("ck,kijl->cijl", weight, model.conv3.weight), offset


@functools.cache
def pixel_shares(n: int, k: int, s: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """B[p, j] of `fold_tail` for an axis of n pixels, a kernel of k and stride s: (n, k)."""
    p, j, q = torch.arange(n)[:, None, None], torch.arange(k)[:, None], torch.arange(-(-n // s))
    return (s * q + j - same_padding(n, k, s)[0] == p).to(device, dtype).mean(2)


def fold_tail(model: Small, composed: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """M and m of f(x) = M vec(z) + m: the composed convolution, averaged over its output.

    With B[p, j] the share of output pixels whose filter element j meets input pixel p, for each axis,

        M_c[p, p'] = sum_{j, j'} B[p, j] w_c'[j, j'] B'[p', j'],        m_c = b_c' + b_c,

    b_c the linear layer's own bias, where it has one. The weights keep their graph.

    Args:
        composed: what `compose_tail` returns, where the caller has it.

    Returns:
        M with the channels last, (classes, h * w * c), and m (classes,).
    """
    weight, bias = composed or compose_tail(model)
    shares = []
    for axis, n in enumerate(model.input_shape[1:]):
        for conv in (model.conv1, model.conv2):
            n = -(-n // conv.stride[axis])
        shares.append(pixel_shares(n, model.conv3.kernel_size[axis], model.conv3.stride[axis], weight.dtype,
                                   weight.device))  # fmt: skip
    matrix = torch.einsum("pj,cijl,rl->cpri", shares[0], weight, shares[1])
    own = model.classifier.bias
    return matrix.flatten(1), bias if own is None else bias + own


def fixed_copy(model: GlobalPoolNetwork, *, gaining: bool = False, **replaced: nn.Module) -> GlobalPoolNetwork:
    """The network with the weights of this moment, detached, on `FixedConv2d` in the place of its convolutions.

    Args:
        gaining: only those that are the faster for it with any width: few input channels, see `block_factor`, or a
            kernel of more than 3 pixels. An inner step of IG-Norm takes 0.8 of its time in Pool by its 5x5 layer; one
            of Adv would take 1.1 times as long in WResnet by the 3x3 layers, of stride 1 mostly.
        replaced: modules that are replaced by another, by name.
    """
    # The architecture is written once, in the model: a copy runs its own trunk.
    convolutions = (m for m in model.modules() if isinstance(m, SameConv2d) and not hooked(m))
    fixed = {
        id(m): FixedConv2d(m) for m in convolutions if not gaining or block_factor(m) > 1 or max(m.kernel_size) > 3
    }
    fixed.update((id(getattr(model, name)), module) for name, module in replaced.items())
    return copy.deepcopy(model, fixed).requires_grad_(False)


def assemble(model: nn.Module, trunk: Function, composed=None, tail=None, weight: Tensor | None = None) -> Folded:
    """`Folded` from a trunk, `compose_tail` and `fold_tail`; without these from `features` in the place of a trunk.

    Args:
        weight: rows in the place of the linear layer's, for the maps.
    """
    own, bias = linear_parts(model)
    if tail is None and composed is None:
        rows = own if weight is None else weight
        return Folded(
            lambda x: F.linear(trunk(x).mean((2, 3)), own, bias),
            lambda x: pool_share(F.conv2d(trunk(x), rows[:, :, None, None])),
            bias,
        )
    stride = model.conv3.stride
    logits = lambda x: F.linear(trunk(x).permute(0, 2, 3, 1).flatten(1), *tail)
    logits.head = Head.of(model, trunk, composed, tail)
    return Folded(logits, lambda x: pool_share(same_conv2d(trunk(x), *composed, stride)), bias)


def frozen(model: nn.Module) -> nn.Module:
    """A copy with the weights of this moment, detached."""
    return copy.deepcopy(model).requires_grad_(False)


def keep_memory() -> None:
    """Makes glibc keep the memory of a pass for the next one.

    It hands freed memory back to the system once that is twice the largest block freed so far (of 32 MB at most),
    and an attack would fault all its pages in again at every step. This block is never touched.
    """
    torch.empty(28 * 2**20, dtype=torch.uint8)


def after_first(model: GlobalPoolNetwork, affine: bool) -> tuple[nn.Module, Function]:
    known = type(model).trunk in [m.trunk for m in ARCHITECTURES.values()] and isinstance(model.conv1, SameConv2d)
    first = FixedConv2d(model.conv1) if known else nn.Identity()
    replaced = {"conv1": nn.Identity()} if known else {}
    if affine:
        with torch.no_grad():
            return first, assemble(model, fixed_copy(model, **replaced).trunk, tail=fold_tail(model)).logits
    rest = copy.deepcopy(model, {id(getattr(model, name)): module for name, module in replaced.items()})
    return first, rest.requires_grad_(False)
