"""Pixel sensitivity maps: gradients at the image, at noisy copies of it, or along a path to it. See `interpreters`.

All maps here have one value for every pixel and colour of the image, (N, k, C, H, W): i in eq. (2) runs over the d
entries of x. `interpreters.sum_colours` makes them (N, k, H, W) and keeps their sum.

Without `create_graph` the network is folded first (`fast/fold.py`) and the map carries no graph. With it, the
derivative is that of the map itself, with respect to x and, unless `fixed_weights`, to the weights.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ACTIVATIONS, ReplacedRelu, check_rectifiers
from .checks import check_classes, check_images
from .fast.fold import fold_after_first
from .fast.proof import structure, unwrapped
from .models.predict import evaluating
from .quadrature import RULES, path_points
from .values import check_choice, check_number, check_whole

Folded = tuple[nn.Module, Callable[[Tensor], Tensor]]
BYTES = 400 * 2**20  # that the points of an internal batch may keep for the way back
POINTS = 1000  # of an internal batch, where they are as small as that
_rectified: set[tuple] = set()


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


def check_generator(generator: torch.Generator) -> None:
    """Refuse anything but a generator; the global one is nobody's to take from.

    Raises:
        TypeError: with the way to make one.
    """
    if not isinstance(generator, torch.Generator):
        came = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator; got {came}. Write torch.Generator().manual_seed(0).")


@leaving_no_trace
def vanilla_gradient(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of the logit.

        [L(x, c)]_i = df_c(x) / dx_i

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes an image.
        create_graph: whether the map can be differentiated, with respect to x and the weights.

    Returns:
        (N, k, C, H, W), signed. Not complete.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: section 2; Simonyan et al. (2013), who take absolute values for the eye.
    """
    _check(model, x, classes)
    return _mean_gradient(model, x, classes, 1, lambda first, _: first(x)[None], create_graph=create_graph)


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
        generator: source of the noise; the global generator is left alone.
        samples: m.
        sigma: in the unit of the pixels. Noisy copies are not clipped.
        internal_batch_size: about how many noisy copies are in memory at once, at least one an image; as many as take
            a few hundred MB where none is given. It does not change the noise. With `create_graph` all are kept.

    Returns:
        (N, k, C, H, W). Not complete.

    Raises:
        TypeError, ValueError: see `checks`; also no samples.

    Source: section 2; Smilkov et al. (2017), with noise of 10 to 20 % of the range.
    """
    _check(model, x, classes)
    check_whole(samples, "samples", 1)
    check_number(sigma, "sigma", 0)
    check_generator(generator)

    def points(first, numbers):
        like = {"dtype": x.dtype, "device": generator.device}
        # One draw a sample: the noise is the same whatever the internal batch size.
        noise = torch.stack([torch.randn(x.shape, generator=generator, **like) for _ in numbers])
        return first((x + sigma * noise.to(x.device)).flatten(0, 1)).unflatten(0, (len(numbers), len(x)))

    return _mean_gradient(
        model, x, classes, samples, points, internal_batch_size=internal_batch_size, create_graph=create_graph
    )


@leaving_no_trace
def guided_backpropagation(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient with every ReLU's backward pass replaced: only positive signals pass, and only where it was open.

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
    """The gradient with every ReLU's backward pass replaced by a ReLU of what comes back.

        R_in = [R_out > 0] R_out

    Arguments, Returns, Raises: as `vanilla_gradient`. Max-pools route what comes back to where their maximum was,
    the switches of the paper. See `activations.ReplacedRelu` for what counts as a ReLU.

    Source: section 2; Zeiler & Fergus (2014). Not complete.
    """
    _check(model, x, classes)
    return _mean_gradient(
        model, x, classes, 1, lambda first, _: first(x)[None], activation="deconvolution", create_graph=create_graph
    )


@leaving_no_trace
def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    baseline: Tensor | None = None,
    steps: int = 100,
    rule: str = "right",
    activation: str = "relu",
    nodes: int | None = None,
    internal_batch_size: int | None = None,
    fixed_weights: bool = False,
    folded: Folded | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Integrated gradients: the gradient averaged along the straight path from a baseline, times the difference.

        [L_IG(x, c)]_i = (x_i - a_i) 1/m sum_{s=1..m} df_c(a + t_s (x - a)) / dx_i,                    (eq. 2)

    t_s = s/m by the right rule of eq. (2); (s - 1)/m by the left, (s - 1/2)/m by the midpoint rule. Complete in the
    limit of many steps, sum_i L_i = f_c(x) - f_c(a).

    Eq. (2) as the paper means it has the network's own activation. The released code's IG rows of Table 1 come from
    the same weights with softplus, log(1 + e^h), in the place of every ReLU: `activation="softplus"`. That is another
    function, and its IG is complete with respect to that function's logits, not to the network's.

    Args:
        model: images -> logits (N, classes).
        x: images (N, C, H, W) in [0, 1].
        classes: int64 (N, k), k classes an image.
        baseline: a, like x or (1, C, H, W); black where none is given.
        steps: m.
        rule: 'left', 'midpoint' or 'right'.
        activation: 'relu', the network as it is, or 'softplus'; see `activations.ReplacedRelu`.
        nodes: how many points to compute in place of `steps`, by `quadrature.gauss_for_sum`; None for all of them.
            For smooth activations 8 give what 100 steps do, to float32; with relu they do not.
        internal_batch_size: about how many points of the path are in memory at once, at least one an image; as many as
            take a few hundred MB where none is given. With `create_graph` the graph keeps all of them.
        folded: what `fold_after_first(model)` returned, for a caller with many maps of the same weights.
        fixed_weights: take the weights as constants, so that an attack can differentiate the folded network.
        create_graph: whether the map can be differentiated, with respect to x, the baseline and the weights.

    Returns:
        (N, k, C, H, W), signed.

    Raises:
        TypeError, ValueError: see `checks`; also for unknown rules and activations, no steps, or a baseline of
            another shape.

    Source: eq. (2); Sundararajan et al. (2017). The release: right rule, 100 steps, black.
    """
    _check(model, x, classes)
    check_choice(rule, "rule", tuple(RULES))
    check_choice(activation, "activation", ("relu", "softplus"))
    check_whole(steps, "steps", 1)
    if nodes is not None:
        check_whole(nodes, "nodes", 1)
    if baseline is None:
        baseline = torch.zeros_like(x[:1])
    elif (
        not isinstance(baseline, Tensor)
        or (baseline.shape[1:], baseline.dtype) != (x.shape[1:], x.dtype)
        or len(baseline) not in (1, len(x))
    ):
        came = f"{tuple(baseline.shape)} of {baseline.dtype}" if isinstance(baseline, Tensor) else f"{baseline!r:.40}"
        raise ValueError(f"baseline must be like x, {tuple(x.shape)} of {x.dtype}, or one image; got {came}.")
    if not create_graph:
        x, baseline = x.detach(), baseline.detach()
    places, weights = path_points(int(steps), rule, nodes, like=x)
    ends: list[Tensor] = []

    def points(first, numbers):
        if not ends:  # the affine step, once
            ends.extend((first(baseline), first(x)))
        return ends[0] + places[numbers].view(-1, *[1] * x.dim()) * (ends[1] - ends[0])

    average = _mean_gradient(
        model,
        x,
        classes,
        len(places),
        points,
        activation=activation,
        weights=weights,
        internal_batch_size=internal_batch_size,
        fixed_weights=fixed_weights,
        folded=folded,
        create_graph=create_graph,
    )
    return average * (x - baseline)[:, None]


@leaving_no_trace
def rise(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    generator: torch.Generator,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
    probability: bool = True,
    internal_batch_size: int | None = None,
    create_graph: bool = False,
) -> Tensor:
    """RISE: the mean of random masks, each weighted by the score of the image seen through it. A black-box method.

        [L(x, c)]_i = 1/(m E[M]) sum_{s=1..m} s_c(x * M_s) [M_s]_i

    A mask is a grid of cells x cells random bits, 1 with probability `keep`, enlarged bilinearly to one cell more
    than the image on each axis, and cut out at a random offset. All images see the same masks.

    Args:
        model, x, classes: as `vanilla_gradient`; the model is only called.
        generator: source of the masks; the global generator is left alone.
        masks: m.
        cells, keep: see above; E[M] = keep.
        probability: s is the softmax of the logits, as in its paper; else the logits.
        internal_batch_size: about how many masked images are in memory at once; as many as take a few hundred MB where
            none is given.
        create_graph: whether the map can be differentiated; the graph then keeps all masked images.

    Returns:
        (N, k, H, W): a mask covers all colours. Not complete.

    Raises:
        TypeError, ValueError: see `checks`; also masks, cells or keep out of range.

    Source: section 1; Petsiuk et al. (2018).
    """
    _check(model, x, classes)
    check_whole(masks, "masks", 1)
    check_whole(cells, "cells", 1)
    check_number(keep, "keep", 0, 1, above=True)
    check_generator(generator)
    size = x.shape[2:]
    cell = [-(-n // cells) for n in size]
    total = torch.zeros(*classes.shape, *size, dtype=x.dtype, device=x.device)
    if not classes.numel():
        return total
    images = _at_once(internal_batch_size, model, model, x, total=masks * len(x))
    at_once = max(images // len(x), 1)
    like = {"generator": generator, "device": generator.device}
    with torch.set_grad_enabled(create_graph):
        for start in range(0, masks, at_once):
            drawn = []
            for _ in range(min(at_once, masks - start)):
                bits = (torch.rand(1, 1, cells, cells, **like) < keep).to(x.dtype)
                grown = F.interpolate(bits, [(cells + 1) * c for c in cell], mode="bilinear", align_corners=False)
                top, left = (int(torch.randint(c, (), **like)) for c in cell)
                drawn.append(grown[0, :, top : top + size[0], left : left + size[1]])
            mask = torch.stack(drawn).to(x.device)  # (s, 1, H, W)
            masked = (x * mask[:, None]).flatten(0, 1)
            scores = torch.cat([model(part) for part in masked.split(max(images, 1))])
            scores = (scores.softmax(1) if probability else scores).unflatten(0, (len(mask), len(x)))
            scores = scores.gather(2, classes.expand(len(mask), *classes.shape))
            total = total + torch.einsum("snk,shw->nkhw", scores, mask[:, 0])
    return total / (masks * keep)
