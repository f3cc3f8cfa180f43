"""Other functions in the place of ReLU, forward or backward, without touching a network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ReplacedRelu(TorchFunctionMode):
    """Inside this context `relu` is another function, in whatever network runs, in this thread.

    Calls of `torch.relu`, `Tensor.relu` and `F.relu` (hence `nn.ReLU`) are answered by `activation`; the network is
    not touched, and leaving the context, also by an exception, is all that it takes to undo it.
    """

    def __init__(self, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.relu, Tensor.relu, F.relu):
            return self.activation(args[0] if args else kwargs["input"])
        return func(*args, **(kwargs or {}))


class GuidedRelu(torch.autograd.Function):
    """ReLU; backward only where both its input and what comes back are positive."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return dy.clamp(min=0) * (x > 0)


class DeconvolutionRelu(torch.autograd.Function):
    """ReLU; backward it is applied to what comes back, and the input does not matter."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.clamp(min=0)


ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "softplus": F.softplus,
    "guided": GuidedRelu.apply,
    "deconvolution": DeconvolutionRelu.apply,
}
