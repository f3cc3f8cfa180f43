"""The linear tail folded into one matrix: what does not depend on x is computed once.

In Small nothing nonlinear follows the last convolution and the pool is a mean. With z = trunk(x) the logits are

    f(x) = M vec(z) + m,        M (classes, numel of z),  m (classes,),

for fixed weights. M has 10 rows of 1,568 numbers on MNIST, where the convolution that it replaces costs 7.7 million
multiplications an image. Everything that calls a network many times with the same weights (attacks, the inner
maximisation of training) uses this one function.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import GlobalPoolNetwork


def fold_logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function x -> logits (N, classes) equal to `model`, with the weights of this moment, detached.

    Its derivative with respect to x is that of `model`; weights get none. It costs one forward and one backward
    pass of the tail over `classes` images. A module that is no `GlobalPoolNetwork`, or has no affine tail, is
    returned as it is.

    Args:
        model: any classifier.

    Returns:
        A function from images (N, C, H, W) in [0, 1] to logits (N, classes).
    """
    if not isinstance(model, GlobalPoolNetwork) or type(model).tail is GlobalPoolNetwork.tail:
        return model
    weight = model.classifier.weight
    with torch.enable_grad():
        # Row c of M is the gradient of logit c at any point, here z = 0: one image a class, one backward pass.
        probe = torch.zeros(1, *model.input_shape, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            shape = model.trunk(probe).shape[1:]
        z = torch.zeros(model.num_classes, *shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
        logits = model.classifier(model.tail(z).mean((2, 3)))
        (matrix,) = torch.autograd.grad(logits.diagonal().sum(), z)
    matrix, offset = matrix.flatten(1), logits[0].detach()
    return lambda x: F.linear(model.trunk(x).flatten(1), matrix, offset)
