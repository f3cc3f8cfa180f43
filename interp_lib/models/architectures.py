"""Small, Pool and WResnet as the authors released them, on one plan: features -> pool -> linear.

Every network maps images x (N, C, H, W) in [0, 1] to logits f(x) (N, classes) by

    f_c(x) = (1/u) sum_i sum_k w_k^c A_{k,i}(x),                                     (eq. 1, summed over i)

where A = features(x) are K maps of u = h * w pixels and w is the weight of a linear layer, here without a bias. The
logit is therefore the sum over pixels of the class activation map: completeness by construction. If a network has a
bias, the map sums to the logit minus the bias, and Proposition 1, which is about changes of logits, still holds. No
activation follows the last convolution, so that A is affine in the last convolution's input; `fast/fold.py` uses this.

Source: section 2 and Appendix B. The text leaves out details of the layers; they follow the released code:
TensorFlow's SAME padding, ReLU before a convolution and not after it, no normalisation of the input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_images
from .pooling import max_pool


def pool_share(maps: Tensor) -> Tensor:
    """Return every pixel's share in the mean over pixels: maps / u."""
    return maps / (maps.shape[2] * maps.shape[3])


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Compute TensorFlow's SAME padding of one axis: (before, after); the odd pixel goes after.

    The output has ceil(size / stride) pixels; the total is max((out - 1) * stride + kernel - size, 0).
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def same_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], groups: int = 1) -> Tensor:
    """Convolve with TensorFlow's SAME padding, for any input size: (N, C, H, W) -> (N, K, h, w)."""
    # PyTorch's padding="same" refuses strides, and its numeric padding is the same on both sides.
    (top, bottom), (left, right) = (
        same_padding(n, k, s) for n, k, s in zip(x.shape[2:], weight.shape[2:], stride, strict=True)
    )
    if top == bottom and left == right:
        return F.conv2d(x, weight, bias, stride, (top, left), groups=groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, groups=groups)


class SameConv2d(nn.Conv2d):
    """A layer that computes `same_conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return same_conv2d(x, self.weight, self.bias, self.stride, self.groups)


class GlobalPoolNetwork(nn.Module):
    """A network on the plan trunk -> tail -> global average pool -> linear layer.

    `trunk` contains all nonlinear layers; `tail` is affine and returns the K feature maps. If the last operation before
    the global average pool is nonlinear, as in Pool, the tail is the identity.

    Attributes:
        input_shape: (C, H, W) of one image.
        classifier: `nn.Linear(K, classes, bias=False)`; its weight is w of eq. (1). A bias is allowed.

    What a class declares; `fast` relies on it, and compares every fold with the network before it is used:

    Attributes:
        affine_tail: the name of the `SameConv2d` that is the whole tail, if there is one. A class with an affine tail
            defines `trunk_size` as well.
        stackable: whether several networks of the class can be computed as one, see `fast.stack`: all their weights
            before the classifier are those of `SameConv2d` layers, and everything else treats each channel by itself.
        any_size: whether the network accepts images of other sizes than `input_shape`.
    """

    name: str
    affine_tail: str | None = None
    stackable = False
    any_size = False

    def __init__(self, input_shape: tuple[int, int, int], channels: int, num_classes: int):
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.classifier = nn.Linear(channels, num_classes, bias=False)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if written := {"features", "forward"} & set(vars(cls)):  # attacks and maps rely on the plan and fold it
            raise TypeError(
                f"{cls.__name__} must not define {' and '.join(sorted(written))}: these follow from trunk, tail and "
                "classifier. Write trunk; normalisation goes to its beginning."
            )

    @property
    def num_classes(self) -> int:
        return self.classifier.out_features

    def trunk(self, x: Tensor) -> Tensor:
        """Compute everything before the affine tail: (N, C, H, W) -> (N, c, h, w)."""
        raise TypeError(f"{type(self).__name__} defines no trunk")

    def tail(self, z: Tensor) -> Tensor:
        """Apply the affine last part: output of the trunk (N, c, h, w) -> feature maps (N, K, h, w)."""
        return z

    def trunk_size(self) -> tuple[int, ...]:
        """Return the size (h, w) of the trunk's output; only a network with an affine tail has to define it."""
        raise TypeError(f"{type(self).__name__} defines no trunk_size")

    def features(self, x: Tensor) -> Tensor:
        """Return the feature maps A of eq. (1), signed and before the pool: (N, C, H, W) -> (N, K, h, w)."""
        return self.tail(self.trunk(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes): the sum over pixels of every class's CAM, plus the bias if there is one."""
        return self.classifier(self.features(x).mean((2, 3)))

    def check_input(self, x: Tensor) -> None:
        """Refuse images of another shape or dtype than the network's; see also `checks.check_images`."""
        check_images(x)
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (N, {', '.join(map(str, self.input_shape))}); "
                f"got {tuple(x.shape)}. Choose the dataset that the network was built for."
            )
        if x.dtype != self.classifier.weight.dtype:
            raise ValueError(
                f"x must have the dtype of the network, {self.classifier.weight.dtype}; got {x.dtype}. "
                "Write x.to(...), or model.double()."
            )


class Small(GlobalPoolNetwork):
    """Three convolutions of 16, 32 and 100 filters: 4x4/2, 4x4/2, 7x7 (0.17 M parameters on MNIST)."""

    name = "small"
    affine_tail = "conv3"
    stackable = True

    def __init__(self, input_shape=(1, 28, 28), num_classes: int = 10):
        super().__init__(input_shape, 100, num_classes)
        self.conv1 = SameConv2d(input_shape[0], 16, 4, stride=2)
        self.conv2 = SameConv2d(16, 32, 4, stride=2)
        self.conv3 = SameConv2d(32, 100, 7)

    def trunk(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu()).relu()

    def tail(self, z: Tensor) -> Tensor:
        return self.conv3(z)

    def trunk_size(self) -> tuple[int, ...]:
        strides = zip(self.conv1.stride, self.conv2.stride, strict=True)
        return tuple(-(-n // (s * t)) for n, (s, t) in zip(self.input_shape[1:], strides, strict=True))


class Pool(GlobalPoolNetwork):
    """Two 5x5 convolutions of 32 and 64 filters, each followed by a 2x2 max-pool (0.05 M parameters)."""

    name = "pool"
    stackable = True

    def __init__(self, input_shape=(1, 28, 28), num_classes: int = 10):
        super().__init__(input_shape, 64, num_classes)
        self.conv1 = SameConv2d(input_shape[0], 32, 5)
        self.conv2 = SameConv2d(32, 64, 5)

    def trunk(self, x: Tensor) -> Tensor:
        # A ReLU and a max-pool commute; pooling first leaves a quarter of the pixels to rectify.
        h = max_pool(self.conv1(x)).relu()
        return max_pool(self.conv2(h))


class Block(nn.Module):
    """conv(relu(conv(relu(h)))) + shortcut(h); the shortcut average-pools and zero-pads where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.stride, self.extra = stride, channels_out - channels_in
        self.conv1 = SameConv2d(channels_in, channels_out, 3, stride=stride)
        self.conv2 = SameConv2d(channels_out, channels_out, 3)

    def forward(self, h: Tensor) -> Tensor:
        out = self.conv2(self.conv1(h.relu()).relu())
        if self.stride > 1:
            h = F.avg_pool2d(h, self.stride, ceil_mode=True, count_include_pad=False)
        if self.extra:
            h = F.pad(h, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return out + h


class WResnet(GlobalPoolNetwork):
    """A residual network of 31 3x3 convolutions: five blocks each of 16, 32 and 64 channels (0.46 M parameters).

    The paper cites the 46 M network of Madry et al. (2018); the networks released with the paper are a hundred times
    smaller.
    """

    name = "wresnet"

    def __init__(self, input_shape=(3, 32, 32), num_classes: int = 10):
        super().__init__(input_shape, 64, num_classes)
        self.conv1 = SameConv2d(input_shape[0], 16, 3)
        self.blocks = nn.Sequential(
            *(
                Block(before if first else width, width, stride if first else 1)
                for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
                for first in (True, False, False, False, False)
            )
        )

    def trunk(self, x: Tensor) -> Tensor:
        return self.blocks(self.conv1(x))


LARGEST_SIZE = 2**16  # upper bound on an image axis and on the number of classes that a file may state


ARCHITECTURES = {cls.name: cls for cls in (Small, Pool, WResnet)}


def build(name: str, input_shape=(1, 28, 28), num_classes: int = 10, *, seed: int | None = None) -> GlobalPoolNetwork:
    """Build a new network by name, 'small', 'pool' or 'wresnet'.

    Args:
        input_shape: (C, H, W) of one image.
        num_classes: number of logits.
        seed: draw initial weights from a generator with this seed, as the released code does: normal with standard
            deviation 1 / sqrt(fan in), biases 0. Without a seed the weights are meant to be loaded afterwards.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}.")
    with torch.random.fork_rng(devices=[]):  # nn.Module's own initialisation would advance the global generator
        model = ARCHITECTURES[name](tuple(input_shape), num_classes)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # a bias
                    parameter.zero_()
                else:
                    parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return model


def weight_shapes(name: str, input_shape: tuple[int, int, int], num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights by name, as `build` makes them, without allocating the weights.

    Raises:
        ValueError: the name is unknown, or the numbers are not an image shape and a number of classes.
    """
    sizes = (*input_shape, num_classes)
    if len(sizes) != 4 or not all(type(size) is int and 0 < size <= LARGEST_SIZE for size in sizes):
        raise ValueError(
            f"input_shape (C, H, W) and num_classes must be whole numbers in 1 .. {LARGEST_SIZE}; got {sizes}"
        )
    with torch.device("meta"):
        model = build(name, input_shape, num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
