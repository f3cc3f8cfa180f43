"""What all maps of pixels are made by: the mean of gradients at points, no trace in the network, memory by bytes."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..checks import check_classes, check_images
from ..fast.fold import fold_after_first
from ..models.predict import evaluating
from ..models.proof import structure, unwrapped
from ..values import check_whole
from .activations import ACTIVATIONS, ReplacedRelu, check_rectifiers

Folded = tuple[nn.Module, Callable[[Tensor], Tensor]]
BYTES = 400 * 2**20  # that the points of an internal batch may keep for the way back
POINTS = 1000  # of an internal batch, where they are as small as that
_rectified: set[tuple] = set()


def _check_rectifiers(model: nn.Module, x: Tensor) -> None:
    """`activations.check_rectifiers`, once for every structure of a network."""
    key = (structure(model), x.shape[1:]) if isinstance(model, nn.Module) else None
    if key in _rectified or not len(x):
        return
    with evaluating(model):
        check_rectifiers(model, x[:1].detach())
    if key is not None:
        if len(_rectified) > 256:
            _rectified.clear()
        _rectified.add(key)


def _check(model: nn.Module, x: Tensor, classes: Tensor) -> None:
    check_images(x)
    check_classes(classes, len(x), getattr(unwrapped(model), "num_classes", None))
    if hasattr(model, "check_input"):
        model.check_input(x)


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
    folded: Folded | None = None,
    create_graph: bool = False,
) -> Tensor:
    """The mean over `count` points of df_c/dx at each, or with `weights` (count,) the sum: (N, k, C, H, W).

    With f = rest(first(.)), `points(first, numbers)` gives first(point) for each of these point numbers,
    (len(numbers), N, ...). Forward passes are shared by the classes; gradients are summed over points where the
    path enters `rest`, and pulled back through the affine `first` once.
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
        # A graph that is kept keeps all points, in however many parts they come.
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
                of = slice(begin, begin + parts.step)
                h = every[:, of]
                if not (create_graph and h.requires_grad):
                    h = h.detach().requires_grad_()
                # Plain relu is left as it is: dispatching through a mode would only cost time.
                if activation == "relu":
                    logits = rest(h.flatten(0, 1))
                else:
                    with replaced:
                        logits = rest(h.flatten(0, 1))
                scores = logits.unflatten(0, h.shape[:2])
                for j, c in enumerate(classes[of].T):
                    score = scores.gather(2, c.expand(len(h), -1)[..., None])
                    score = (score if weights is None else score * weights[numbers, None, None]).sum()
                    keep = j + 1 < classes.shape[1] or None
                    (gradient,) = torch.autograd.grad(score, h, create_graph=create_graph, retain_graph=keep)
                    total[part][j] = total[part][j] + gradient.sum(0)
        average = torch.cat([torch.stack(part, 1) for part in total]) / (count if weights is None else 1)
        if isinstance(first, nn.Identity):
            return average
        zeros = torch.zeros(average.shape[:2].numel(), *x.shape[1:], dtype=x.dtype, device=x.device, requires_grad=True)
        (gradient,) = torch.autograd.grad(first(zeros), zeros, average.flatten(0, 1), create_graph=create_graph)
        return gradient.unflatten(0, average.shape[:2])


@contextlib.contextmanager
def undisturbed(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Buffers, as running statistics are, and the global generators, as they were: a network in training mode has both.

    Nothing is done for a network in evaluation mode.
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
                buffer.data.copy_(value)  # .data: a graph that is kept must not see a change
                module._buffers[key] = buffer


def leaving_no_trace(interpreter: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An interpreter inside `undisturbed`."""

    @functools.wraps(interpreter)
    def wrapper(model: nn.Module, x: Tensor, *arguments, **settings) -> Tensor:
        with undisturbed(model, x):
            return interpreter(model, x, *arguments, **settings)

    return wrapper


def bytes_an_image(network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """What a network keeps of one image for the way back: the difference between two images and one.

    Args:
        x: one image, or what the network takes in its place, (1, ...).
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
    """How many images may be in memory at once: as many as were asked for, else by their bytes.

    Args:
        total: how many there will be; few small ones are not measured.
    """
    if given is not None:
        check_whole(given, "internal_batch_size", 1)
        return int(given)
    if not len(x) or total == 1 or total * x[0].nbytes < BYTES / 1000:
        return POINTS
    with evaluating(model):
        return max(min(POINTS, BYTES // bytes_an_image(network, x[:1])), 1)


def check_generator(generator: torch.Generator) -> None:
    """Refuse anything but a generator; the global one is nobody's to take from.

    Raises:
        TypeError: with the way to make one.
    """
    if not isinstance(generator, torch.Generator):
        came = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator; got {came}. Write torch.Generator().manual_seed(0).")
