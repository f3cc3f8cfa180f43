"""Compute several networks of one architecture as one function: one grouped convolution replaces S convolutions.

Networks as small as these leave a GPU idle: a kernel takes about as long for the batch of one network as for the
batches of eight. Image i of a batch belongs to network i mod S, so that the images of all networks, (N * S, C, H, W),
become (N, S * C, H, W) without a copy. `training.methods` treats a stack like one network, because it works image by
image.

Only the inner steps, with fixed weights, are grouped. The pass that computes the weights' gradients takes the networks
one after another: gradients of grouped weights are slow.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import GlobalPoolNetwork, SameConv2d, pool_share, same_conv2d, same_padding
from ..models.proof import Function, hooked, proven
from .fold import has_affine_tail
from .parts import Folded, compose_tail, fold_tail


class GroupedConvolution(torch.autograd.Function):
    """`same_conv2d` with fixed weights: only x is differentiated.

    The second derivative of PyTorch's own convolution always computes the weights' derivative too, one group after
    another. In an inner step of IG-Norm this takes fifteen times as long as the part that is needed.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], groups: int) -> Tensor:
        return same_conv2d(x, weight, bias, stride, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.stride, ctx.groups = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        axes = list(zip(ctx.size, weight.shape[2:], ctx.stride, dy.shape[2:], strict=True))
        before = [same_padding(n, k, s)[0] for n, k, s, _ in axes]
        # Pixels at the end of the padded image that no filter reaches: conv_transpose2d must append them, as zeros.
        behind = [n + p - ((out - 1) * s + k) for (n, k, s, out), p in zip(axes, before, strict=True)]
        more = [max(b, 0) for b in behind]
        dx = F.conv_transpose2d(dy, weight, None, ctx.stride, 0, more, ctx.groups)
        (top, left), (height, width) = before, ctx.size
        return dx[:, :, top : top + height, left : left + width], None, None, None, None


class GroupedConv2d(SameConv2d):
    """A `SameConv2d` of several networks as groups, without memory for weights, that differentiates x alone."""

    def __init__(self, conv: SameConv2d, networks: int):
        channels = networks * conv.in_channels, networks * conv.out_channels
        bias = conv.bias is not None
        super().__init__(*channels, conv.kernel_size, conv.stride, groups=networks, bias=bias, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        return GroupedConvolution.apply(x, self.weight, self.bias, self.stride, self.groups)


class Trunk(nn.Module):
    """A network's trunk as a module, so that `torch.func.functional_call` can run it with other weights."""

    def __init__(self, network: GlobalPoolNetwork):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.trunk(x)


class Stack:
    """S networks that are computed together.

    Args:
        networks: networks of one architecture and shape, without hooks. Their own weights, not copies, are used and
            get the gradients.

    Raises:
        ValueError: no network; several architectures, shapes or devices; a linear layer with a bias; hooks; more than
            one network of a class that is not `stackable`, as WResnet, whose shortcuts pad the channels of each
            network with zeros on both sides; or networks that compute something else than their class's trunk, last
            convolution, pool and linear layer, see `models.proof.proven`.
    """

    def __init__(self, networks: Sequence[GlobalPoolNetwork], *, trial: bool = True):
        kinds = {(type(n), n.input_shape, n.classifier.weight.shape, n.classifier.weight.device) for n in networks}
        if len(kinds) != 1:
            raise ValueError(f"networks of one architecture, shape and device can be stacked; got {len(kinds)} kinds.")
        if any(network.classifier.bias is not None for network in networks):
            raise ValueError("networks whose linear layer has a bias cannot be stacked; train each by itself.")
        if any(hooked(module) for network in networks for module in network.modules()):
            raise ValueError("networks with hooks cannot be stacked; remove the hooks.")
        if len(networks) > 1 and not networks[0].stackable:
            raise ValueError(f"a {type(networks[0]).__name__} cannot be stacked; train each by itself.")
        self.networks, first = tuple(networks), networks[0]
        self.affine = has_affine_tail(first)
        # Templates of the trunk, for one network and for all networks with fixed weights. They are on the meta device,
        # without memory, because every call brings its weights. For deepcopy's memo see `parts.fixed_copy`.
        grouped = {id(m): GroupedConv2d(m, len(networks)) for m in first.modules() if isinstance(m, SameConv2d)}
        self.one, self.all = (Trunk(copy.deepcopy(first, memo).to("meta")) for memo in ({}, grouped))
        tail = ("classifier.", f"{first.affine_tail}.") if self.affine else ("classifier.",)
        self.names = [name for name, _ in first.named_parameters() if not name.startswith(tail)]
        if trial and not proven(first, _stacked):
            raise ValueError(f"a {type(first).__name__} computes something else than its stack; train each by itself.")

    def __len__(self) -> int:
        return len(self.networks)

    def repeat(self, values: Tensor) -> Tensor:
        """Repeat the same images, or labels, for every network: (N, ...) -> (N * S, ...)."""
        return values.repeat_interleave(len(self), 0)

    def each(self, values: Tensor) -> Tensor:
        """Average values (N * S,) over the images of each network: (S,)."""
        return values.unflatten(0, (-1, len(self))).mean(0)

    def trunk(self, dtype: torch.dtype | None, fixed: bool) -> Callable[[Tensor], Tensor]:
        """Return the trunks, images (N * S, C, H, W) -> (N * S, c, h, w); with `fixed`, no graph to the weights."""
        size = len(self)
        parameters = [[network.get_parameter(name) for name in self.names] for network in self.networks]
        if fixed:
            parameters = [[torch.cat([p.detach() for p in same]) for same in zip(*parameters, strict=True)]]
        # Matrix units want channels_last.
        layout = torch.contiguous_format if dtype is None or (fixed and size > 1) else torch.channels_last

        def convert(values: Tensor) -> Tensor:
            kind = layout if values.dim() == 4 else torch.preserve_format
            return values.to(dtype=dtype or values.dtype, memory_format=kind)

        weights = [
            {f"network.{name}": convert(p) for name, p in zip(self.names, own, strict=True)} for own in parameters
        ]

        def through(template: Trunk, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
            z = torch.func.functional_call(template, weights, (convert(x),))
            if z.requires_grad and layout is torch.channels_last:  # else earlier gradients mix layouts
                z.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))
            return z.to(x.dtype)

        def trunk(x: Tensor) -> Tensor:
            if fixed:
                z = through(self.all, x.reshape(-1, size * x.shape[1], *x.shape[2:]), *weights)
                return z.reshape(len(x), -1, *z.shape[2:])
            parts = x.unflatten(0, (-1, size)).unbind(1)
            return torch.stack([through(self.one, *pair) for pair in zip(parts, weights, strict=True)], 1).flatten(0, 1)

        return trunk

    def fold_for_training(self, dtype: torch.dtype | None = None) -> tuple[Folded, Folded]:
        """Fold all networks together, as `fold.fold_for_training` does one: images (N * S, C, H, W) -> (N * S, ...)."""
        tail = self.tail()
        return (
            self._fold(self.trunk(dtype, fixed=False), *tail),
            self._fold(self.trunk(dtype, fixed=True), *(part.detach() for part in tail)),
        )

    def tail(self) -> tuple[Tensor, ...]:
        """Stack the weights after the trunks, with their graph: `compose_tail` and `fold_tail`, or linear layers."""
        if not self.affine:
            return (torch.stack([network.classifier.weight for network in self.networks]),)
        composed = [compose_tail(network) for network in self.networks]
        tails = [fold_tail(*pair) for pair in zip(self.networks, composed, strict=True)]
        matrix, bias = (torch.stack(parts) for parts in zip(*tails, strict=True))
        kernel, offset = (torch.cat(parts) for parts in zip(*composed, strict=True))
        # Reorder the columns from (h, w, c) to (c, h, w): here the trunk's output has the channels first.
        matrix = matrix.unflatten(2, (-1, kernel.shape[1])).transpose(2, 3).flatten(2)
        return kernel, offset, matrix, bias

    def _fold(self, trunk: Callable[[Tensor], Tensor], *tail: Tensor) -> Folded:
        size = len(self)

        def rows(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            """Apply each network's matrix: (N * S, d) times (S, classes, d) transposed, plus (S, classes)."""
            # A sum over 1,568 numbers for ten classes occupies a few of the GPU's multiprocessors; eight partial sums
            # occupy all.
            parts = 8 if features.shape[1] % 8 == 0 else 1
            batches = features.unflatten(1, (parts, -1)).unflatten(0, (-1, size)).permute(1, 2, 0, 3)
            product = (batches @ weight.unflatten(2, (parts, -1)).permute(0, 2, 3, 1)).sum(1)  # (S, N, classes)
            product = product if bias is None else product + bias[:, None]
            return product.transpose(0, 1).flatten(0, 1)

        if not self.affine:
            (weight,) = tail

            def linear_maps(x: Tensor) -> Tensor:
                every = trunk(x).unflatten(0, (-1, size))
                return pool_share(torch.einsum("nskhw,sck->nschw", every, weight).flatten(0, 1))

            return Folded(lambda x: rows(trunk(x).mean((2, 3)), weight), linear_maps, networks=size)
        kernel, offset, matrix, bias = tail
        first = self.networks[0]
        stride = first.get_submodule(first.affine_tail).stride

        def maps(x: Tensor) -> Tensor:
            z = trunk(x)
            together = z.reshape(-1, size * z.shape[1], *z.shape[2:])
            every = same_conv2d(together, kernel, offset, stride, size)
            return pool_share(every.reshape(len(x), -1, *every.shape[2:]))

        return Folded(lambda x: rows(trunk(x).flatten(1), matrix, bias), maps, networks=size)


def _stacked(model: GlobalPoolNetwork) -> Function:
    """Return the logits of a network as its stack computes them, for `proven`: with free weights, and with fixed."""
    stack = Stack([model, model] if model.stackable else [model], trial=False)
    free, fixed = stack.fold_for_training()

    def logits(x: Tensor) -> Tensor:
        images = stack.repeat(x)
        # Two results that should both equal the logits are compared through their mean.
        return (free.logits(images)[:: len(stack)] + fixed.logits(images)[len(stack) - 1 :: len(stack)]) / 2

    return logits
