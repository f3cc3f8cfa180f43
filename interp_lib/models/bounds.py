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

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_images
from ..values import check_choice, check_radius
from .architectures import SameConv2d, Small, same_conv2d, same_padding

KINDS = ("IBP", "CROWN")


class _Lines(NamedTuple):
    """The lines above * z + offset and below * z that enclose relu(z) on its interval, each (N, 1, c, h, w)."""

    above: Tensor
    offset: Tensor
    below: Tensor


def _lines(low: Tensor, high: Tensor) -> _Lines:
    low, high = low.clamp(max=0), high.clamp(min=0)
    # An active unit has low = 0 here, hence the slope 1; a dead one has high = 0, hence the slope 0.
    above = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    return _Lines(above, -above * low, (high > -low).to(low))


def _raise(a: Tensor, lines: _Lines) -> tuple[Tensor, Tensor]:
    """Replace <a, relu(z)> by a linear function of z that is nowhere smaller: its coefficients and its constant."""
    up = a.clamp(min=0)
    return up * lines.above + a.clamp(max=0) * lines.below, (up * lines.offset).flatten(2).sum(2)


def _pull(a: Tensor, conv: SameConv2d, size: tuple[int, ...]) -> Tensor:
    """Apply the transpose of a convolution without its bias: (R, K, h, w) -> (R, C, *size)."""
    out = F.conv_transpose2d(a, conv.weight, stride=conv.stride)
    top, left = (same_padding(n, k, s)[0] for n, k, s in zip(size, conv.kernel_size, conv.stride, strict=True))
    return out[:, :, top : top + size[0], left : left + size[1]]


def _interval(conv: SameConv2d, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the extremes of every unit of a layer, where each of its inputs lies in its own interval."""
    centre = same_conv2d((low + high) / 2, conv.weight, conv.bias, conv.stride)
    radius = same_conv2d((high - low) / 2, conv.weight.abs(), None, conv.stride)
    return centre - radius, centre + radius


def map_rows(model: Small) -> Tensor:
    """Return the CAM of Small as linear functions of h: L(x, c)_i - L(x', c)_i = <row_{c,i}, h(x) - h(x')>.

    Returns:
        (classes, u, 32, h, w), for the u = h * w pixels of the map, in units of eq. (1).
    """
    size = model.trunk_size()
    u, classes = size[0] * size[1], model.num_classes
    kernel = torch.einsum("ck,kdab->cdab", model.classifier.weight, model.conv3.weight) / u
    pixels = torch.eye(u, dtype=kernel.dtype, device=kernel.device).view(u, 1, *size)
    tail = SameConv2d(kernel.shape[1] * classes, 1, kernel.shape[2:], bias=False)
    tail.weight = nn.Parameter(kernel.flatten(0, 1)[None])
    return _pull(pixels, tail, size).unflatten(1, (classes, -1)).transpose(0, 1).contiguous().detach()


class Ball:
    """The images around x that a perturbation of size eps reaches, and bounds of what Small computes on them.

    Args:
        model: a Small; its weights are read at once, and again by `upper`.
        x: images (N, C, H, W) in [0, 1], of the dtype of the network. Bounds are computed in this dtype, and sound up
            to its rounding.
        eps: radius >= 0 of the l-infinity ball, in the unit of the pixels.
        kind: 'IBP' or 'CROWN', see the module.

    Attributes:
        h: h(x), (N, 32, h, w).
        low, high: bounds of z, the input of the second ReLU, same shape.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also any other network.
    """

    @torch.no_grad()
    def __init__(self, model: Small, x: Tensor, eps: float, kind: str = "CROWN"):
        if type(model) is not Small:
            raise TypeError(f"bounds are written for Small, conv-relu-conv-relu-affine; got {type(model).__name__}.")
        model.check_input(x)
        check_images(x)
        check_radius(eps)
        check_choice(kind, "kind", KINDS)
        self.conv1, self.conv2, self.kind = model.conv1, model.conv2, kind
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        self.centre, self.radius = (low + high) / 2, (high - low) / 2
        self.h = model.trunk(x)
        first = _interval(self.conv1, low, high)
        self.lines1 = _Lines(*(part[:, None] for part in _lines(*first)))
        if kind == "CROWN":
            self.low, self.high = self._second_layer()
        else:
            self.low, self.high = _interval(self.conv2, *(part.relu() for part in first))
        self.lines2 = _Lines(*(part[:, None] for part in _lines(self.low, self.high)))

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
        a, bound = _raise(rows, self.lines2)
        for conv, lines in ((self.conv2, self.lines1), (self.conv1, None)):
            if conv.bias is not None:
                bound = bound + a.sum((3, 4)) @ conv.bias
            size = self.centre.shape[2:] if lines is None else lines.above.shape[3:]
            # Channels last: the transposed convolution takes half the time.
            a = a.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            a = _pull(a, conv, size).unflatten(0, count)
            if lines is not None:
                a, constant = _raise(a, lines)
                bound = bound + constant
        a = a.flatten(2)
        return bound + (a @ self.centre.flatten(1)[:, :, None] + a.abs() @ self.radius.flatten(1)[:, :, None])[:, :, 0]

    def change(self, rows: Tensor) -> Tensor:
        """Return upper bounds of <row, h(x') - h(x)> over the ball, (N, R)."""
        return self.upper(rows) - (rows.flatten(2) @ self.h.flatten(1)[:, :, None])[:, :, 0]

    def _second_layer(self) -> tuple[Tensor, Tensor]:
        """Bound z by linear functions of the image, unit by unit on the patch of the image that it sees."""
        weight, kernel, stride = self.conv2.weight, self.conv2.kernel_size, self.conv2.stride
        size = self.lines1.above.shape[3:]
        pads = [same_padding(n, k, s) for n, k, s in zip(size, kernel, stride, strict=True)]
        around = (*pads[1], *pads[0])

        def windows(part: Tensor) -> Tensor:  # lines of 0 around the layer: relu of the padding is 0
            seen = F.unfold(F.pad(part[:, 0], around), kernel, stride=stride).transpose(1, 2)
            return seen.unflatten(2, (1, -1, *kernel)).flatten(0, 1)

        lines = _Lines(*map(windows, self.lines1))  # (N u, 1, 16, k, k)
        centre, radius = (self._patches(part) for part in (self.centre, self.radius))  # (N u, C p p, 1)
        bounds = []
        for sign in (-1, 1):
            a, bound = _raise((sign * weight)[None], lines)  # (N u, 32, 16, k, k)
            if self.conv1.bias is not None:
                bound = bound + a.sum((3, 4)) @ self.conv1.bias
            a = F.conv_transpose2d(a.flatten(0, 1), self.conv1.weight, stride=self.conv1.stride)
            a = a.flatten(1).unflatten(0, (len(bound), -1))
            bound = bound + (a @ centre + a.abs() @ radius)[:, :, 0]
            bound = bound if self.conv2.bias is None else bound + sign * self.conv2.bias
            bounds.append(sign * bound.unflatten(0, (len(self.h), -1)).transpose(1, 2).reshape(self.h.shape))
        return bounds[0], bounds[1]

    def _patches(self, part: Tensor) -> Tensor:
        """Return the patch of images that each unit of the second layer sees, with zeros beyond the image."""
        pads, kernel, stride = [], [], []
        for axis in (0, 1):
            (k1, s1), (k2, s2) = ((c.kernel_size[axis], c.stride[axis]) for c in (self.conv1, self.conv2))
            n, first, units = part.shape[2 + axis], self.lines1.above.shape[3 + axis], self.h.shape[2 + axis]
            before = s1 * same_padding(first, k2, s2)[0] + same_padding(n, k1, s1)[0]
            kernel.append((k2 - 1) * s1 + k1)
            stride.append(s1 * s2)
            pads.append((before, (units - 1) * s1 * s2 + kernel[-1] - n - before))
        seen = F.unfold(F.pad(part, (*pads[1], *pads[0])), kernel, stride=stride).transpose(1, 2)
        return seen.flatten(0, 1)[:, :, None]
