"""Toy networks, one of each kind, named for what they are: closed forms, state to disturb, traps for attacks."""

import torch
import torch.nn.functional as F
from torch import nn

from interp_lib.models.architectures import GlobalPoolNetwork, SameConv2d, Small, build

DOUBLE = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# Our own architectures, changed


def biased(architecture, shape=(1, 28, 28), classes=10, *, seed=0, spread=0.3):
    """A seeded network in double precision, in evaluation mode, whose biases count: a new one has them at 0."""
    model = build(architecture, shape, classes, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, spread, generator=generator)
    return model


def with_bias(model):
    """The same network with a bias in its linear layer, from -5 to 5."""
    weight = model.classifier.weight
    layer = nn.Linear(*reversed(weight.shape)).to(weight.dtype)
    layer.weight = weight
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-5, 5, len(weight)))
    model.classifier = layer
    return model


class Louder(Small):
    """A Small with a trunk and a weight of its own."""

    def __init__(self, *shape_and_classes):
        super().__init__(*shape_and_classes)
        self.volume = nn.Parameter(torch.tensor(3.0))

    def trunk(self, x):
        return self.volume * super().trunk(x)


class Negated(Small):
    """A Small with a tail of its own."""

    def tail(self, z):
        return -2 * super().tail(z)


class Dropping(Small):
    """A Small with dropout."""

    def trunk(self, x):
        return F.dropout(super().trunk(x), training=self.training)


# On the plan trunk -> tail -> pool -> linear layer


class OnePixel(GlobalPoolNetwork):
    """Features relu(x - threshold) of a 1x1 image and given weights: three numbers tell all."""

    def __init__(self, *weights, threshold=0.0):
        super().__init__((1, 1, 1), 1, len(weights))
        self.double().threshold = threshold
        self.classifier.weight.data = torch.tensor(weights, dtype=DOUBLE)[:, None]

    def trunk(self, x):
        return (x - self.threshold).relu()


class TwoConvolutions(GlobalPoolNetwork):
    """Two convolutions on 1x6x6 images with an affine tail, three classes."""

    def __init__(self, seed=0):
        super().__init__((1, 6, 6), 4, 3)
        self.conv1, self.conv2 = SameConv2d(1, 3, 3), SameConv2d(3, 4, 3)
        self.double()
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * randn(*parameter.shape, seed=seed * 100 + i))

    def trunk(self, x):
        return self.conv1(x).relu()

    def tail(self, z):
        return self.conv2(z)


# Features, pool and linear layer, but not of our classes


class Pooled(nn.Module):
    """Feature maps that a subclass defines, their mean over pixels, a linear layer of three classes."""

    num_classes = 3

    def __init__(self, weight):
        super().__init__()
        self.classifier = nn.Linear(*reversed(weight.shape), bias=False)
        self.classifier.weight = nn.Parameter(weight)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Channels(Pooled):
    """Feature maps that are the image's two channels: the CAM of class c is w_c . x, pixel by pixel, over u."""

    def __init__(self, seed=0):
        super().__init__(randn(3, 2, seed=seed))

    def features(self, x):
        return x


class Rows(Pooled):
    """CAMs that are pixels of their own: class c sees row c of the image. Its logits are the means of the rows."""

    def __init__(self, dtype=DOUBLE):
        super().__init__(torch.eye(3, dtype=dtype))

    def features(self, x):
        return x.transpose(1, 2)  # row c is channel c


class NanAboveHalf(Pooled):
    """Right everywhere, but NaN where the first pixel is above a half: the logit, or only its gradient."""

    def __init__(self, where):
        super().__init__(torch.tensor([[0.5], [-0.5], [0.25]]))
        self.where = where

    def features(self, x):
        bad, x = x[:, 0, 0, 0] > 0.5, x.clone()
        x[bad] = x[bad] * torch.nan if self.where == "logit" else x[bad] + 0 * (x[bad] - x[bad].detach()).sqrt()
        return x


class Stateful(Pooled):
    """State to disturb: batch statistics, dropout, parts in different modes; and it fails on request."""

    def __init__(self, mode="training", seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
            super().__init__(nn.Linear(4, 3).weight.detach())
        self.body = body
        self.calls, self.fail_at, self.error = 0, None, None
        self.train(mode != "evaluation")
        if mode == "mixed":
            body[1].eval()

    @classmethod
    def marked(cls, mode):
        """With what must survive besides its mode: a flag, a gradient and a hook."""
        model = cls(mode)
        model.classifier.weight.requires_grad_(False)
        model.body[0].weight.grad = torch.ones_like(model.body[0].weight)
        model.body[2].register_forward_hook(lambda *_: None)
        return model

    def features(self, x):
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return self.body(x)


# Without feature maps


class Linear(nn.Module):
    """Logits w . x + b over images of some pixels: every question about it has a closed form."""

    def __init__(self, classes=3, pixels=16, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator, dtype=DOUBLE))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator, dtype=DOUBLE))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight, self.bias)


class Crooked(nn.Module):
    """Two classes, told apart by a curve so crooked that every step of an attack matters."""

    num_classes = 2

    def __init__(self, seed, dtype=DOUBLE):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(4 * torch.randn(9, 8, generator=generator, dtype=dtype))
        self.second = nn.Parameter(torch.randn(8, 2, generator=generator, dtype=dtype))
        self.calls = 0

    def forward(self, x):
        self.calls += torch.is_grad_enabled()
        return (3 * x.flatten(1) @ self.first).sin() @ self.second


class Dead(nn.Module):
    """Class 1 as soon as the mean of the pixels passes .6, behind a ReLU with no gradient below: x = .5 is stuck."""

    num_classes = 2

    def forward(self, x):
        beyond = (x.mean((1, 2, 3)) - 0.5).clamp(min=0)
        return torch.stack([torch.full_like(beyond, 0.1), beyond], 1)


class Foreign(nn.Module):
    """Another's network: batch statistics, a ReLU in place, a pool as a function, dropout, and a bias that counts."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3))
            self.last = nn.Linear(6, 3)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([5.0, -5.0, 0.0]))

    def forward(self, x):
        return self.last(F.dropout(F.avg_pool2d(self.body(x).relu_(), (4, 4)).flatten(1), 0.5, self.training))


def mostly_right(x):
    """A small network for images (N, 1, 8, 8), the images, and labels that it gives them, but for the first three."""
    model = build("small", (1, 8, 8), 5, seed=1)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 5
    return model, x, y
