"""Pixel sensitivity maps: gradients at the image or at noisy copies of it, with plain or modified ReLUs.

All maps here have one value for every pixel and colour of the image, (N, k, C, H, W): i in eq. (2) runs over the d
entries of x. `interpreters.sum_colours` sums them over colours, to (N, k, H, W).

Without `create_graph` the network is folded first (`fast/fold.py`) and the map carries no graph. With it, autograd
gives the derivative of the map itself, with respect to x and to the weights. See `interpreters` for the contract.
"""

import torch
from torch import Tensor, nn

from ..values import check_number, check_whole
from .common import _check, _mean_gradient, check_generator, leaving_no_trace


@leaving_no_trace
def vanilla_gradient(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of the logit.

        [L(x, c)]_i = df_c(x) / dx_i

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes per image.
        create_graph: whether the map can be differentiated, with respect to x and the weights.

    Returns:
        (N, k, C, H, W), signed. Not complete.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2; Simonyan et al. (2013), who take absolute values for display.
    """
    _check(model, x, classes)
    return _mean_gradient(model, x, classes, 1, lambda first, _: first(x)[None], create_graph=create_graph)


@leaving_no_trace
def input_times_gradient(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of the logit, times the image.

        [L(x, c)]_i = x_i df_c(x) / dx_i

    For a network of convolutions, ReLUs and linear layers without biases the map sums to f_c(x); with biases it is
    not complete.

    Arguments, Returns, Raises: as `vanilla_gradient`.

    Source: Shrikumar et al. (2016), "Not just a black box"; in none of the paper's sections.
    """
    gradient = vanilla_gradient(model, x, classes, create_graph=create_graph)
    return gradient * (x if create_graph else x.detach())[:, None]


@leaving_no_trace
def smoothgrad(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    generator: torch.Generator,
    samples: int = 50,
    sigma: float = 0.15,
    internal_batch_size: int | None = None,
    create_graph: bool = False,
) -> Tensor:
    """The mean gradient at noisy copies of the image.

        [L(x, c)]_i = 1/m sum_{s=1..m} df_c(x + e_s) / dx_i,        e_s ~ N(0, sigma^2)

    Args:
        model, x, classes, create_graph: as `vanilla_gradient`.
        generator: source of the noise; the global generator is not used.
        samples: number of noisy copies m.
        sigma: standard deviation of the noise, in the unit of the pixels. Noisy copies are not clipped.
        internal_batch_size: about how many noisy copies are in memory together, at least one per image; None for as
            many as take a few hundred MB. It does not change the noise. With `create_graph` the graph keeps all copies.

    Returns:
        (N, k, C, H, W). Not complete.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also no samples.

    Source: section 2; Smilkov et al. (2017), who use noise of 10 to 20 % of the pixels' range.
    """
    _check(model, x, classes)
    check_whole(samples, "samples", 1)
    check_number(sigma, "sigma", 0)
    check_generator(generator)

    def points(first, numbers):
        like = {"dtype": x.dtype, "device": generator.device}
        # One draw per sample: the noise is the same whatever the internal batch size.
        noise = torch.stack([torch.randn(x.shape, generator=generator, **like) for _ in numbers])
        return first((x + sigma * noise.to(x.device)).flatten(0, 1)).unflatten(0, (len(numbers), len(x)))

    return _mean_gradient(
        model, x, classes, samples, points, internal_batch_size=internal_batch_size, create_graph=create_graph
    )


@leaving_no_trace
def guided_backpropagation(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient with a modified ReLU: only positive gradients pass backward, and only where the input was positive.

        R_in = [h > 0] [R_out > 0] R_out

    Arguments, Returns, Raises: as `vanilla_gradient`. See `activations.ReplacedRelu` for what counts as a ReLU.

    Source: section 2; Springenberg et al. (2014). Not complete.
    """
    _check(model, x, classes)
    return _mean_gradient(
        model, x, classes, 1, lambda first, _: first(x)[None], activation="guided", create_graph=create_graph
    )


@leaving_no_trace
def deconvolution(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient with the backward pass of every ReLU replaced by a ReLU of the incoming gradient.

        R_in = [R_out > 0] R_out

    Arguments, Returns, Raises: as `vanilla_gradient`. Max-pools route the gradient to the position of their maximum,
    the "switches" of Zeiler & Fergus. See `activations.ReplacedRelu` for what counts as a ReLU.

    Source: section 2; Zeiler & Fergus (2014). Not complete.
    """
    _check(model, x, classes)
    return _mean_gradient(
        model, x, classes, 1, lambda first, _: first(x)[None], activation="deconvolution", create_graph=create_graph
    )
