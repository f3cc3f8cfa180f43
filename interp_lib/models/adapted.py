"""Wrap other classifiers as models of the contract: any network that ends in global average pool and linear layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import check_images, unwrapped
from .architectures import GlobalPoolNetwork
from .proof import AGREES, differences, dtype_of, trial_copy

SIZES = (64, 32, 224, 28, 299)  # pixels a side of random trial images; the first size that a network accepts is used

POOLS = {F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, Tensor.mean}


class PoolInputs(TorchFunctionMode):
    """Record the feature maps that are averaged over all their pixels inside this context, in call order."""

    def __init__(self):
        super().__init__()
        self.inputs: list[Tensor] = []
        self.dropouts: list[tuple[Tensor, float]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in POOLS or func is F.dropout:
            x = args[0] if args else kwargs["input"]
            if func is F.dropout:
                self.dropouts.append((x, (kwargs or {}).get("p", args[1] if len(args) > 1 else 0.5)))
            elif isinstance(x, Tensor) and x.dim() == 4 and result.shape.numel() == x.shape[:2].numel():
                self.inputs.append(x)
        return result


class Adapted(GlobalPoolNetwork):
    """A classifier on the plan normalise -> trunk -> tail -> global average pool -> linear layer; see `adapt`.

    It holds the given network itself, not a copy: training this model trains the network. Dropout between pool and
    linear layer becomes dropout of whole feature maps, which is equivalent, because the pool is a mean.

    Attributes:
        network: the given network.
        input_shape: (C, H, W) of the trial images; the model accepts every other size that the network accepts.
    """

    any_size = True

    def __init__(
        self,
        network: nn.Module,
        classifier: str,
        features: str | int,
        dropout: float,
        input_shape: tuple[int, int, int],
        mean: Tensor | None,
        std: Tensor | None,
    ):
        nn.Module.__init__(self)  # GlobalPoolNetwork's would make a linear layer of its own
        self.network, self.input_shape = network, tuple(input_shape)
        self._classifier, self._features = classifier, features
        self.dropout = nn.Dropout2d(dropout)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.train(network.training)

    @property
    def name(self) -> str:  # type: ignore[override]  # elsewhere a constant of the class
        return f"adapted {type(self.network).__name__}"

    @property
    def classifier(self) -> nn.Linear:
        return self.network.get_submodule(self._classifier)

    def trunk(self, x: Tensor) -> Tensor:
        x = x if self.mean is None else (x - self.mean) / self.std
        # The whole network runs, but only the recorded feature maps are used, not its logits.
        if isinstance(self._features, int):
            with PoolInputs() as pools:
                self.network(x)
            return pools.inputs[self._features]
        kept: list[Tensor] = []
        module = self.network.get_submodule(self._features)
        handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            self.network(x)
        finally:
            handle.remove()
        return kept[-1]

    def tail(self, z: Tensor) -> Tensor:
        return self.dropout(z)

    def check_input(self, x: Tensor) -> None:
        """Refuse images with another number of colours; every size that the network accepts is accepted."""
        check_images(x)
        if x.shape[1] != self.input_shape[0]:
            raise ValueError(f"{self.name} takes images of {self.input_shape[0]} colours; got {tuple(x.shape)}.")


def adapt(
    model: nn.Module,
    features: str | nn.Module | None = None,
    classifier: str | nn.Module | None = None,
    *,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    images: Tensor | None = None,
) -> GlobalPoolNetwork:
    """Wrap a classifier that ends in global average pool and linear layer as a model of this library's contract.

        f_c(x) = b_c + 1/u sum_i sum_k w_k^c A_{k,i}( (x - mean) / std )

    Every interpreter, attack and training method works on the returned model. Pool and linear layer are found by
    running the network, never by their names, and the result is compared with the network's own forward pass, in value
    and gradient, before it is used. ResNet, DenseNet, MobileNetV2, EfficientNet, RegNet, ShuffleNet, your own networks
    and `nn.Sequential(normalise, network)` need no more arguments.

    Args:
        model: images -> logits (N, C); used, not copied.
        features: the module whose output is A, or its name. Default: A is the input of the last pool.
        classifier: the `nn.Linear` after the pool, or its name. Default: the layer that returns the logits.
        mean, std: of the normalisation, one number or one per colour, if the network does not normalise by itself.
        images: (N, C, H, W) in [0, 1] for the trial. Default: random images.

    Returns:
        The model, in the network's current mode (training or evaluation).

    Raises:
        TypeError: `model` is no `nn.Module`.
        ValueError: the network does not end in pool and linear layer; the message says what to do instead.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"adapt needs an nn.Module; got {type(model).__name__}. Attacks and maps of pixels take functions."
        )
    network = unwrapped(model)
    if isinstance(network, GlobalPoolNetwork) and mean is None and std is None and features is classifier is None:
        return network
    copied = trial_copy(network)
    x, numbers = _probe(network, copied, images), {}
    for key, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        value = torch.as_tensor(default if values is None else values, dtype=torch.float64).flatten()
        if len(value) not in (1, x.shape[1]) or not value.isfinite().all() or (key == "std" and not (value > 0).all()):
            raise ValueError(f"{key} must be one number per colour, {x.shape[1]} of them; got {values}.")
        numbers[key] = value.view(1, -1, 1, 1)
    if mean is None and std is None:
        numbers = dict.fromkeys(numbers)
    z = x if numbers["mean"] is None else (x - numbers["mean"]) / numbers["std"]
    layer, pooled, inputs, dropouts = _run(network, copied, z, classifier)
    if features is None:
        same = lambda a: a.shape[1] == pooled.shape[1] and _close(a.mean((2, 3)), pooled)
        places = [i - len(inputs) for i, a in enumerate(inputs) if a.shape[0] == len(z) and same(a)]
        if not places:
            raise ValueError(
                f"the linear layer {layer!r} of {type(network).__name__} takes {pooled.shape[1]} numbers that are not "
                f"means over the pixels of feature maps, so that there is no CAM. {ADVICE}"
            )
        place: int | str = places[-1]
    else:
        place = features if isinstance(features, str) else _name(network, features, "features")
        if place not in dict(network.named_modules()):
            raise ValueError(f"features must name a module of {type(network).__name__}; got {place!r}.")
    # The copy is in evaluation mode, where dropout is the identity: its input equals what the linear layer takes.
    kept = 1.0
    for given, p in dropouts:
        if given.numel() == pooled.numel() and _close(given.flatten(1), pooled):
            kept *= 1 - p
    settings = (layer, place, 1 - kept, x.shape[1:], *numbers.values())
    adapted = Adapted(copied, *settings).eval()
    own = lambda images: copied(images if numbers["mean"] is None else (images - numbers["mean"]) / numbers["std"])
    try:
        value, gradient = differences(own, adapted, x)
    except (IndexError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"features {place!r} give no maps (N, K, h, w) for {layer!r}: {error}. {ADVICE}") from None
    if not max(value, gradient) < AGREES[torch.float64]:
        raise ValueError(
            f"{layer!r} of the pooled output of {place!r} misses the logits of {type(network).__name__} by {value:.2g} "
            f"of their size, and their gradient by {gradient:.2g}: something comes between. Leave features out, or "
            "name what the pool is given."
        )
    like = next(network.parameters())
    return Adapted(network, *settings).to(like.device).to(dtype_of(network))


ADVICE = (
    "Use gradcam(model, x, classes, head=...) with `features` and head, maps of pixels such as integrated_gradients, "
    "and attacks and methods without a CAM, such as pgd and Adv, on the network as it is."
)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= AGREES[torch.float64] * b.abs().max())


def _name(network: nn.Module, module: nn.Module, argument: str) -> str:
    for name, own in network.named_modules():
        if own is module:
            return name
    raise ValueError(f"{argument} must be a module of {type(network).__name__}, or its name; got {module!r:.60}.")


def _probe(network: nn.Module, copied: nn.Module, images: Tensor | None) -> Tensor:
    """Return one or two images that the network accepts, in float64 on the CPU."""
    if images is not None:
        check_images(images, "images")
        return images[:2].detach().to("cpu", torch.float64)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    colours, refusal = first.in_channels if first else 3, None
    shapes = [network.input_shape] if isinstance(network, GlobalPoolNetwork) else [(colours, n, n) for n in SIZES]
    for shape in shapes:
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        try:
            with torch.no_grad():
                copied(x)
            return x
        except Exception as error:  # too small, too large, or of another kind: try the next size
            refusal = str(error).partition("\n")[0]
    raise ValueError(
        f"{type(network).__name__} refuses random images of {colours} colours and {', '.join(map(str, SIZES))} "
        f"pixels: {refusal}. Give some of its own, images=x[:2]."
    )


def _run(network: nn.Module, copied: nn.Module, z: Tensor, classifier: str | nn.Module | None):
    """Return the linear layer's name and input, all inputs of global average pools, and dropouts with rates."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    keep = lambda name: lambda module, inputs, output: calls.append((name, inputs[0], output))
    handles = [m.register_forward_hook(keep(n)) for n, m in copied.named_modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad(), PoolInputs() as pools:
            logits = copied(z)
    finally:
        for handle in handles:
            handle.remove()
    kind = type(network).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(f"{kind} must give logits (N, C); got {getattr(logits, 'shape', type(logits).__name__)}.")
    if classifier is not None:
        name = classifier if isinstance(classifier, str) else _name(network, classifier, "classifier")
        matches = [call for call in calls if call[0] == name]
        if not matches:
            raise ValueError(
                f"classifier must be an nn.Linear that {kind} runs, one of "
                f"{', '.join(dict.fromkeys(c[0] for c in calls)) or 'none'}; got {name!r}."
            )
    else:
        matches = [call for call in calls if _close(call[2], logits)]
        if not matches:
            raise ValueError(f"the logits of {kind} are not what a linear layer gives, so that it has no CAM. {ADVICE}")
    name, pooled, _ = matches[-1]
    if pooled.dim() != 2:
        raise ValueError(f"the linear layer {name!r} of {kind} takes {tuple(pooled.shape)}, not (N, K). {ADVICE}")
    return name, pooled, pools.inputs, pools.dropouts
