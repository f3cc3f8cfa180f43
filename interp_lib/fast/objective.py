"""Objectives of attacks on Small that one compiled function climbs, all steps of an image before the next image.

`ascent.cpp` does the arithmetic. `climbing` attaches the compiled form to the plain objective of an attack where one
exists; `Climbing.takes` compares the two before the compiled form is first used.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import same_padding
from ..models.proof import verdict
from .compiled import _Head, _Objective
from .trunk import CompiledTrunk
from .trunk_layers import Layers, pointer

KINDS = "cross-entropy", "divergence", "probe", "target-free", "true class", "path", "sneaking"  # as in ascent.cpp
OF_MAPS = "target-free", "true class", "sneaking"
CLASSES, CHANNELS, WIDE = 10, 8, 8  # as in ascent.cpp
CALL = 20_000  # images times steps in one call, half a second: Python handles an interrupt only between calls
AGREES = 0.02  # relative to the gradient's length: rounding may open or shut a ReLU; a wrong formula is off by about 1
Objective = Callable[[Tensor], Tensor]


class Sneaking(NamedTuple):
    """What an objective of kind 'sneaking', eq. (6) or eq. (7), needs besides the target and x.

    Attributes:
        shares: the weight of each class's distance, (N, classes) or (1, classes).
        gamma: the weight of the discrepancy, (N,); below 0 it is to grow, as in eq. (7).
        tau: bound on the margin.
        p, squared: the norm, 1 or 2, and whether it is squared.
    """

    shares: Tensor
    gamma: Tensor
    tau: float
    p: int
    squared: bool


class Head:
    """The weights after the trunk, detached, in the memory orders that `ascent.cpp` reads.

    Args:
        layers: the `Layers` of the compiled trunk.
        shape: (h, w) of the trunk's output.
        classes: number of logits.
        composed: w' and b' of `parts.compose_tail`, or None.
        tail: M and m of `parts.fold_tail`, or None.
        bias: the bias of the linear layer, (classes,) or None.
    """

    def __init__(self, layers: Layers, shape: tuple[int, int], classes: int, composed, tail, bias: Tensor | None):
        self.layers, self.shape, self.classes = layers, shape, classes
        self.composed, self.tail, self.bias = composed, tail, bias
        self.packed: dict[bool, tuple[_Head, list[Tensor]]] = {}

    @classmethod
    def of(cls, model: nn.Module, trunk: Callable, composed=None, tail=None) -> "Head | None":
        """Build the head of a folded Small; return None if its trunk is not compiled or its weights have a graph."""
        tensors = [part for pair in (composed, tail) if pair for part in pair]
        if not isinstance(trunk, CompiledTrunk) or any(part.requires_grad for part in tensors):
            return None
        layers = trunk.layers
        network = layers.network(*model.input_shape[1:])
        return cls(layers, (network.rows2, network.columns2), model.num_classes, composed, tail, model.classifier.bias)

    def can(self, kind: str) -> bool:
        """Return whether the head has the parts that a kind of objective needs, in a size that `ascent.cpp` handles."""
        if kind not in OF_MAPS or kind == "sneaking" and self.tail is None:
            return self.tail is not None or kind == "probe"
        if self.composed is None or len(self.composed[0]) != self.classes:
            return False
        height, width = self.composed[0].shape[2:]
        return height == width and max(self.shape) <= WIDE

    def pack(self, maps: bool) -> _Head:
        """Return the C structure for objectives of maps, or of logits; it is built at first use."""
        if maps not in self.packed:
            parts: list[Tensor | None] = [None] * 6
            size = top = left = 1
            if maps:
                weight, shift = self.composed
                size, pixels = weight.shape[2], self.shape[0] * self.shape[1]
                top, left = (same_padding(n, size, 1)[0] for n in self.shape)
                share = weight.detach() / pixels
                blocks = F.pad(share, (0, 0) * 3 + (0, -len(share) % CLASSES)).unflatten(0, (-1, CLASSES))
                turned = share.unflatten(1, (-1, CHANNELS)).flip(3, 4)
                bias = weight.new_zeros(self.classes) if self.bias is None else self.bias
                parts[2:] = blocks.permute(0, 3, 2, 4, 1), turned.permute(1, 3, 0, 4, 2), shift / pixels, bias
            if self.tail is not None:
                parts[:2] = self.tail
            # The structure has bare pointers: the tensors are stored with it, so that their memory stays allocated.
            kept = [None if part is None else part.detach().contiguous() for part in parts]
            self.packed[maps] = _Head(self.classes, size, top, left, *map(pointer, kept)), kept
        return self.packed[maps][0]


class Climbing:
    """A plain objective, images (N, C, H, W) -> (N,), together with its compiled form.

    Calling it evaluates the plain objective, for autograd. `climb` and `value_and_gradient` are compiled. For the
    arguments see `climbing`.
    """

    def __init__(self, plain: Objective, head: Head, kind: str, y, reference, cross_entropy, weight, points, sneaking):
        self.plain, self.head, self.kind = plain, head, kind
        # `told` has bare pointers into y and reference: as attributes their memory stays allocated.
        self.y = None if y is None else y.detach().contiguous()
        self.reference = None if reference is None else reference.detach().contiguous()
        self.told = _Objective(
            KINDS.index(kind), points, cross_entropy, weight, pointer(self.y), pointer(self.reference)
        )
        power = squared = None
        if sneaking:
            shares, gamma, tau, power, squared = sneaking
            self.shares = shares.expand(len(gamma), -1).float().contiguous()
            self.gamma = gamma.detach().float().contiguous()
            self.told.shares, self.told.gamma, self.told.tau = pointer(self.shares), pointer(self.gamma), tau
            self.told.power, self.told.squared = power, squared
        layers = head.layers
        self.key = (
            kind,
            bool(cross_entropy),
            power,
            squared,
            layers.sizes,
            layers.strides,
            layers.colours,
            head.classes,
        )

    def __call__(self, x: Tensor) -> Tensor:
        return self.plain(x)

    def takes(self, x: Tensor) -> bool:
        """Return whether the compiled form equals this objective at images like x; tried once per kind and shape."""
        n = len(next(part for part in (self.y, self.reference) if part is not None))
        known = x.dtype == torch.float32 and x.device.type == "cpu" and not torch._C._are_functorch_transforms_active()
        if not known or x.dim() != 4 or (len(x), x.shape[1]) != (n, self.head.layers.colours) or n == 0:
            return False
        return verdict((*self.key, *x.shape[1:]), lambda: self.agrees(x.detach()))

    def agrees(self, x: Tensor) -> bool | None:
        # Away from x, because there a discrepancy from the maps of x and its gradient are 0.
        x = (x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0))) / 2
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            value = self.plain(at)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        compiled_value, compiled_gradient = self.value_and_gradient(x)
        if not (value.isfinite().all() and gradient.isfinite().all()):
            return None  # the plain objective reports it
        near = (compiled_value - value).abs().max() <= 1e-3 * value.abs().max() + 1e-6
        return bool(near) and bool((compiled_gradient - gradient).norm() <= AGREES * gradient.norm())

    def _call(self, x: Tensor, low, high, alpha, slope: float, steps: int, values, gradients) -> Tensor:
        network = self.head.layers.network(*x.shape[2:])
        sound = torch.empty(len(x), dtype=torch.uint8)
        tensors, rest = (
            [ctypes.c_void_p(pointer(t)) for t in some] for some in ((x, low, high, alpha), (values, gradients, sound))
        )
        compiled = self.head.layers.compiled
        assert compiled is not None  # a head belongs to a compiled trunk
        compiled.climb(
            ctypes.byref(network),
            ctypes.byref(self.head.pack(self.kind in OF_MAPS)),
            ctypes.byref(self.told),
            min(torch.get_num_threads(), len(x)),
            ctypes.c_long(len(x)),
            *tensors,
            ctypes.c_float(slope),
            steps,
            *rest,
        )
        return sound

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective (N,) and its derivative with respect to x (N, C, H, W)."""
        x = x.detach().contiguous()
        values, gradients = x.new_empty(len(x)), torch.empty_like(x)
        self._call(x, None, None, None, 0, 0, values, gradients)
        return values, gradients

    def climb(
        self, x: Tensor, low: Tensor, high: Tensor, alpha: float | Tensor, steps: int, slope: float = 0
    ) -> tuple[Tensor, Tensor]:
        """Return x after some steps, and whether value and gradient were finite at every step, bool (N,).

        Args:
            x: the first iterate, (N, C, H, W); it is not changed.
            low, high: lower and upper bounds of the intersection of ball and box, (N, C, H, W).
            alpha: step size, a number or (N, 1, 1, 1).
            steps: number of steps, > 0.
            slope: take alpha * clip(slope * gradient, -1, 1) for a step; 0 for alpha * sign(gradient).
        """
        x = x.detach().clone(memory_format=torch.contiguous_format)
        alpha = torch.as_tensor(alpha, dtype=x.dtype).flatten().expand(len(x)).contiguous()
        low, high, sound = low.contiguous(), high.contiguous(), torch.ones(len(x), dtype=torch.bool)
        at_a_time = max(1, CALL // len(x))
        for done in range(0, steps, at_a_time):
            sound &= self._call(x, low, high, alpha, slope, min(at_a_time, steps - done), None, None).bool()
        return x, sound


def climbing(
    plain: Objective,
    head: Head | None,
    kind: str,
    *,
    y: Tensor | None = None,
    reference: Tensor | None = None,
    cross_entropy: float = 0.0,
    weight: float = 1.0,
    points: int = 1,
    sneaking: Sneaking | None = None,
) -> Objective:
    """Return `plain` with a compiled form to climb it, or `plain` itself if there is no compiled form.

        objective = cross_entropy * -log softmax(f(x'))_y + weight * term

    Args:
        plain: images (N, C, H, W) -> (N,).
        head: `Folded.head` of the fold that `plain` uses.
        kind: the term. 'cross-entropy': no term. 'divergence': KL(q || softmax f(x')). 'probe': <G, trunk(x')>.
            'target-free': the discrepancy of eq. (8) from the maps at x, without the factor 1/2, with renormalised
            weights, summed over pixels. 'true class': only its first norm. 'path': ||IG(x, x')||_1 of the
            cross-entropy. 'sneaking': the negative of eq. (6), divided by lambda, with
            `weight` for the margin; y is the target.
        y: labels (N,); for every kind except 'divergence' and 'probe'.
        reference: q (N, classes) for 'divergence', G (N, h, w, 32) for 'probe', x (N, C, H, W) for maps and paths.
        points: m, the number of points on the path.
        sneaking: the rest of eq. (6).
    """
    if head is None or not head.can(kind):
        return plain
    if y is not None and not (y.dtype == torch.int64 and len(y) and 0 <= int(y.min()) <= int(y.max()) < head.classes):
        return plain
    if reference is not None and reference.dtype != torch.float32:
        return plain
    if kind not in (*OF_MAPS, "path") and weight != 1:  # `ascent.cpp` has no weight for the other terms
        raise ValueError(f"a term of kind {kind!r} has weight 1; got {weight}.")
    return Climbing(plain, head, kind, y, reference, cross_entropy, weight, points, sneaking)
