"""Shared parts of the pixel maps: mean gradients at many points, restoring the network, batch sizes by memory."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..checks import check_batch, check_classes, class_count
from ..fast.fold import fold_after_first
from ..models.predict import evaluating
from ..models.proof import structure, verdict
from ..values import check_whole
from .activations import ACTIVATIONS, ReplacedRelu, check_rectifiers

TwoSteps = tuple[nn.Module, Callable[[Tensor], Tensor]]
BYTES = 400 * 2**20  # memory that one internal batch may save for the backward pass
POINTS = 1000  # largest internal batch, however small its points are


def _check_rectifiers(model: nn.Module, x: Tensor) -> None:
    """Run `activations.check_rectifiers` once for every structure of a network."""

    def trial() -> bool:
        with evaluating(model):
            check_rectifiers(model, x[:1].detach())
        return True

    if len(x) and isinstance(model, nn.Module):
        verdict(("rectifiers", structure(model), x.shape[1:]), trial)
    elif len(x):
        trial()


def _check(model: nn.Module, x: Tensor, classes: Tensor) -> None:
    check_batch(model, x)
    check_classes(classes, len(x), class_count(model))


def _mean_gradient(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    count: int,
    points: Callable[[Callable[[Tensor], Tensor], range], Tensor],
    *,
    activation: str = "relu",
    weights: Tensor | None = None,
    internal_batch_size: int | None = None,
    fixed_weights: bool = False,
    folded: TwoSteps | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Return the mean of df_c/dx over `count` points, or the sum weighted by `weights` (count,): (N, k, C, H, W).

    With f = rest(first(.)), `points(first, numbers)` returns first(point) for the points with these numbers, as
    (len(numbers), N, ...). All classes share one forward pass. Gradients are summed over the points at the input of
    `rest`, and the sum goes back through the affine `first` once.
    """
    if folded:
        first, rest = folded
    elif create_graph and not fixed_weights:
        first, rest = nn.Identity(), model
    else:
        first, rest = fold_after_first(model)
    if activation != "relu":
        _check_rectifiers(model, x)
    if not classes.numel():
        return x.new_zeros(*classes.shape, *x.shape[1:])
    with torch.no_grad():
        # With create_graph the graph keeps all points in memory anyway, so smaller parts would save nothing.
        whole = create_graph and internal_batch_size is None
        images = POINTS if whole else _at_once(internal_batch_size, model, rest, first(x[:1]), total=count * len(x))
    at_once = max(images // len(x), 1)
    parts = range(0, len(x), len(x) if whole or internal_batch_size else min(images, len(x)))
    total = [[0.0] * classes.shape[1] for _ in parts]
    replaced = ReplacedRelu(ACTIVATIONS[activation])
    with torch.enable_grad():
        for start in range(0, count, at_once):
            numbers = range(start, min(start + at_once, count))
            every = points(first, numbers)
            for part, begin in enumerate(parts):
                span = slice(begin, begin + parts.step)
                h = every[:, span]
                if not (create_graph and h.requires_grad):
                    h = h.detach().requires_grad_()
                # Without a replacement, run outside the mode: its dispatch would only cost time.
                if activation == "relu":
                    logits = rest(h.flatten(0, 1))
                else:
                    with replaced:
                        logits = rest(h.flatten(0, 1))
                scores = logits.unflatten(0, h.shape[:2])
                for j, c in enumerate(classes[span].T):
                    score = scores.gather(2, c.expand(len(h), -1)[..., None])
                    score = (score if weights is None else score * weights[numbers, None, None]).sum()
                    keep = j + 1 < classes.shape[1] or None  # None is PyTorch's default: keep it if create_graph
                    (gradient,) = torch.autograd.grad(score, h, create_graph=create_graph, retain_graph=keep)
                    total[part][j] = total[part][j] + gradient.sum(0)
        average = torch.cat([torch.stack(part, 1) for part in total]) / (count if weights is None else 1)
        if isinstance(first, nn.Identity):
            return average
        # `first` is affine, so its derivative is the same at every point: 0 will do.
        zeros = torch.zeros(average.shape[:2].numel(), *x.shape[1:], dtype=x.dtype, device=x.device, requires_grad=True)
        (gradient,) = torch.autograd.grad(first(zeros), zeros, average.flatten(0, 1), create_graph=create_graph)
        return gradient.unflatten(0, average.shape[:2])


@contextlib.contextmanager
def undisturbed(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Restore the buffers (such as running statistics) and the global generators, which training mode can change.

    A network in evaluation mode changes neither, and nothing is saved for it.
    """
    if not isinstance(model, nn.Module) or not any(module.training for module in model.modules()):
        yield
        return
    before = [(m, key, b, b.clone()) for m in model.modules() for key, b in m._buffers.items() if b is not None]
    with torch.random.fork_rng(devices=[x.device] if isinstance(x, Tensor) and x.is_cuda else []):
        try:
            yield
        finally:
            for module, key, buffer, value in before:
                buffer.data.copy_(value)  # .data: autograd does not count this write, so a kept graph stays valid
                module._buffers[key] = buffer


def leaving_no_trace(interpreter: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate an interpreter so that it runs inside `undisturbed`."""

    @functools.wraps(interpreter)
    def wrapper(model: nn.Module, x: Tensor, *arguments, **settings) -> Tensor:
        with undisturbed(model, x):
            return interpreter(model, x, *arguments, **settings)

    return wrapper


def bytes_an_image(network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Return how many bytes a network saves per image for the backward pass.

    Measured as the difference between two images and one, so that what does not grow with the batch drops out.

    Args:
        x: one image, or whatever input the network takes, (1, ...).
    """

    def kept(copies: int) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.cat([x] * copies).detach().requires_grad_())
        return total

    return max(kept(2) - kept(1), x.nbytes)


def _at_once(given: int | None, model: nn.Module, network: Callable[[Tensor], Tensor], x: Tensor, *, total: int) -> int:
    """Return how many images may be in memory together: `given`, or as many as fit into `BYTES`.

    Args:
        total: number of images overall; few small images are not measured, since they fit in any case.
    """
    if given is not None:
        check_whole(given, "internal_batch_size", 1)
        return int(given)
    if not len(x) or total == 1 or total * x[0].nbytes < BYTES / 1000:
        return POINTS
    with evaluating(model):
        return max(min(POINTS, BYTES // bytes_an_image(network, x[:1])), 1)


def check_generator(generator: torch.Generator) -> None:
    """Refuse anything but an explicit torch.Generator; the global generator must not be used.

    Raises:
        TypeError: says how to make a generator.
    """
    if not isinstance(generator, torch.Generator):
        came = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator; got {came}. Write torch.Generator().manual_seed(0).")
