"""Bound what Small computes on a whole ball around an image: interval arithmetic (IBP) and linear bounds (CROWN).

The maps and the logits of Small are affine in h = relu(z), z the input of its second ReLU. A `Ball` bounds z, and from
it any linear function of h, for all images x' with ||x' - x||_inf <= eps and pixels in [0, 1].

IBP takes every unit of a layer between the extremes that the layer before it allows, each unit by itself. CROWN
replaces every ReLU by two lines, one above and one below it on its interval [l, r],

    relu(z) <= r / (r - l) (z - l),        relu(z) >= a z,  a = 1 if r > -l, else 0,        for l < 0 < r,

so that a linear function of h becomes one of the image, whose extremes on the ball have a closed form. Neither is
always the tighter one.

Source: Gowal et al. (2018) for IBP, Zhang et al. (2018) for CROWN with adaptive slopes.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_step_sizes
from ..values import check_choice
from .architectures import SameConv2d, Small, same_conv2d, same_padding

KINDS = ("IBP", "CROWN")


class _Lines(NamedTuple):
    """The lines above * z + offset and below * z that enclose relu(z) on its interval, each (N, 1, h, w, c)."""

    above: Tensor
    offset: Tensor
    below: Tensor


def _lines(low: Tensor, high: Tensor) -> _Lines:
    """Return the lines of a layer from bounds of its input, (N, c, h, w)."""
    low, high = (side.permute(0, 2, 3, 1)[:, None].contiguous() for side in (low.clamp(max=0), high.clamp(min=0)))
    # An active unit has low = 0 here, hence the slope 1; a dead one has high = 0, hence the slope 0.
    above = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    return _Lines(above, -above * low, (high > -low).to(low))


def _raise(a: Tensor, lines: _Lines) -> tuple[Tensor, Tensor]:
    """Replace <a, relu(z)> by a linear function of z that is nowhere smaller.

    Args:
        a: (N, R, h, w, c), channels last, as everything here that has a row axis: it takes a third of the time.

    Returns:
        Its coefficients, of the shape of a, and its constant (N, R).
    """
    constant = a.clamp(min=0).flatten(2) @ lines.offset.flatten(2).transpose(1, 2)
    return torch.where(a > 0, lines.above, lines.below) * a, constant[:, :, 0]


def _pull(a: Tensor, conv: SameConv2d, size: tuple[int, ...]) -> Tensor:
    """Apply the transpose of a convolution without its bias: (M, h, w, K) -> (M, *size, C).

    The pixels of a stride s that differ by multiples of s have a common kernel. As s^2 channels of an ordinary
    convolution, these kernels take a quarter of the time of PyTorch's transposed convolution.
    """
    (stride, _), (kernel, _) = conv.stride, conv.kernel_size
    taps = -(-kernel // stride)
    around = F.pad(conv.weight, (0, taps * stride - kernel) * 2)
    phases = around.unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).permute(1, 3, 5, 0, 2, 4)
    phases = phases.flip(4, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    out = F.pixel_shuffle(F.conv2d(a.permute(0, 3, 1, 2), phases, padding=taps - 1), stride)
    top, left = (same_padding(n, kernel, stride)[0] for n in size)
    return out[:, :, top : top + size[0], left : left + size[1]].permute(0, 2, 3, 1)


def _interval(conv: SameConv2d, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the extremes of every unit of a layer, where each of its inputs lies in its own interval."""
    centre = same_conv2d((low + high) / 2, conv.weight, conv.bias, conv.stride)
    radius = same_conv2d((high - low) / 2, conv.weight.abs(), None, conv.stride)
    return centre - radius, centre + radius


def _check_small(model: nn.Module) -> None:
    if type(model) is not Small:
        raise TypeError(f"bounds are written for Small, two ReLUs and an affine tail; got {type(model).__name__}.")


def map_rows(model: Small) -> Tensor:
    """Return the CAM of Small as linear functions of h: L(x, c)_i - L(x', c)_i = <row_{c,i}, h(x) - h(x')>.

    Returns:
        (classes, u, 32, h, w), for the u = h * w pixels of the map, in units of eq. (1).

    Raises:
        TypeError: another network.
    """
    _check_small(model)
    size = model.trunk_size()
    u, classes = size[0] * size[1], model.num_classes
    kernel = torch.einsum("ck,kdab->cdab", model.classifier.weight, model.conv3.weight) / u
    pixels = torch.eye(u, dtype=kernel.dtype, device=kernel.device).view(u, *size, 1)
    tail = SameConv2d(kernel.shape[1] * classes, 1, kernel.shape[2:], bias=False)
    tail.weight = nn.Parameter(kernel.flatten(0, 1)[None])
    return _pull(pixels, tail, size).unflatten(3, (classes, -1)).permute(3, 0, 4, 1, 2).contiguous().detach()


class Ball:
    """The images around x that a perturbation of size eps reaches, and bounds of what Small computes on them.

    Args:
        model: a Small; its weights are read at once, and again by `upper`.
        x: images (N, C, H, W) in [0, 1], of the dtype of the network. Bounds are computed in this dtype, and sound up
            to its rounding.
        eps: radius >= 0 of the l-infinity ball, in the unit of the pixels, a number or one per image, (N,).
        kind: 'IBP' or 'CROWN', see the module.

    Attributes:
        h: h(x), (N, 32, h, w).
        low, high: bounds of z, the input of the second ReLU, same shape.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also any other network.
    """

    @torch.no_grad()
    def __init__(self, model: Small, x: Tensor, eps: float | Tensor, kind: str = "CROWN"):
        _check_small(model)
        model.check_input(x)
        check_step_sizes(eps=eps, alpha=0, steps=0)
        check_choice(kind, "kind", KINDS)
        self.conv1, self.conv2, self.kind = model.conv1, model.conv2, kind
        eps = eps.to(x).view(-1, 1, 1, 1) if isinstance(eps, Tensor) else eps
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        self.centre, self.radius = (low + high) / 2, (high - low) / 2
        self.h = model.trunk(x)
        first = _interval(self.conv1, low, high)
        self.lines1 = _lines(*first)
        if kind == "CROWN":
            self.low, self.high = self._second_layer()
        else:
            self.low, self.high = _interval(self.conv2, *(part.relu() for part in first))
        self.lines2 = _lines(self.low, self.high)

    def at(self, index: Tensor) -> "Ball":
        """Return the ball of some of the images, int64 (M,); one image may be taken several times."""
        chosen = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(chosen, name, value[index])
            elif isinstance(value, _Lines):
                setattr(chosen, name, _Lines(*(part[index] for part in value)))
        return chosen

    @torch.no_grad()
    def upper(self, rows: Tensor) -> Tensor:
        """Return upper bounds of <row, h(x')> over the ball; minus those of -rows are lower bounds.

        Args:
            rows: linear functions of h, (N, R, 32, h, w), R of each image.

        Returns:
            (N, R).
        """
        if self.kind == "IBP":
            high, low = (part.relu().flatten(1)[:, :, None] for part in (self.high, self.low))
            rows = rows.flatten(2)
            return (rows.clamp(min=0) @ high + rows.clamp(max=0) @ low)[:, :, 0]
        count = rows.shape[:2]
        a, bound = _raise(rows.permute(0, 1, 3, 4, 2).contiguous(), self.lines2)
        for conv, lines in ((self.conv2, self.lines1), (self.conv1, None)):
            if conv.bias is not None:
                bound = bound + a.sum((2, 3)) @ conv.bias
            size = self.centre.shape[2:] if lines is None else lines.above.shape[2:4]
            a = _pull(a.flatten(0, 1), conv, size).unflatten(0, count)
            if lines is not None:
                a, constant = _raise(a, lines)
                bound = bound + constant
        centre, radius = (part.permute(0, 2, 3, 1).flatten(1)[:, :, None] for part in (self.centre, self.radius))
        a = a.flatten(2)
        return bound + (a @ centre + a.abs() @ radius)[:, :, 0]

    def change(self, rows: Tensor) -> Tensor:
        """Return upper bounds of <row, h(x') - h(x)> over the ball, (N, R)."""
        return self.upper(rows) - (rows.flatten(2) @ self.h.flatten(1)[:, :, None])[:, :, 0]

    def _second_layer(self) -> tuple[Tensor, Tensor]:
        """Bound z by linear functions of the image, unit by unit on the patch of the image that it sees."""
        weight, kernel, stride = self.conv2.weight, self.conv2.kernel_size, self.conv2.stride
        size = self.lines1.above.shape[2:4]
        pads = [same_padding(n, k, s) for n, k, s in zip(size, kernel, stride, strict=True)]

        def windows(part: Tensor) -> Tensor:  # lines of 0 around the layer: relu of the padding is 0
            part = F.pad(part[:, 0].permute(0, 3, 1, 2), (*pads[1], *pads[0]))
            seen = F.unfold(part, kernel, stride=stride).transpose(1, 2)
            return seen.unflatten(2, (-1, *kernel)).permute(0, 1, 3, 4, 2).flatten(0, 1)[:, None].contiguous()

        lines = _Lines(*map(windows, self.lines1))  # (N u, 1, k, k, 16)
        centre, radius = (self._patches(part) for part in (self.centre, self.radius))  # (N u, C p p, 1)
        weight = weight.permute(0, 2, 3, 1).contiguous()[None]  # (1, 32, k, k, 16)
        # The transpose of the first layer on a patch, as one matrix.
        entries = torch.eye(weight[0, 0].numel(), dtype=weight.dtype, device=weight.device)
        entries = entries.view(-1, *weight.shape[2:]).permute(0, 3, 1, 2)
        pull = F.conv_transpose2d(entries, self.conv1.weight, stride=self.conv1.stride).flatten(1)
        bounds = []
        for sign in (-1, 1):
            a, bound = _raise(sign * weight, lines)  # (N u, 32, k, k, 16)
            if self.conv1.bias is not None:
                bound = bound + a.sum((2, 3)) @ self.conv1.bias
            a = a.flatten(2) @ pull
            bound = bound + (a @ centre + a.abs() @ radius)[:, :, 0]
            bound = bound if self.conv2.bias is None else bound + sign * self.conv2.bias
            bounds.append(sign * bound.unflatten(0, (len(self.h), -1)).transpose(1, 2).reshape(self.h.shape))
        return bounds[0], bounds[1]

    def _patches(self, part: Tensor) -> Tensor:
        """Return the patch of images that each unit of the second layer sees, with zeros beyond the image."""
        pads, kernel, stride = [], [], []
        for axis in (0, 1):
            (k1, s1), (k2, s2) = ((c.kernel_size[axis], c.stride[axis]) for c in (self.conv1, self.conv2))
            n, first, units = part.shape[2 + axis], self.lines1.above.shape[2 + axis], self.h.shape[2 + axis]
            before = s1 * same_padding(first, k2, s2)[0] + same_padding(n, k1, s1)[0]
            kernel.append((k2 - 1) * s1 + k1)
            stride.append(s1 * s2)
            pads.append((before, (units - 1) * s1 * s2 + kernel[-1] - n - before))
        seen = F.unfold(F.pad(part, (*pads[1], *pads[0])), kernel, stride=stride).transpose(1, 2)
        return seen.flatten(0, 1)[:, :, None]
