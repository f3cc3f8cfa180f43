"""Networks from elsewhere: torchvision's architectures, with weights from a file that is read without running it."""

import difflib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor, nn

from ..reading import opened, read_bytes
from ..values import check_choice, check_whole
from .predict import all_finite
from .trained import NetworkError

LARGEST_WEIGHTS = 2**32  # bytes

# What torchvision's networks were trained with, as arguments of `adapt`.
NORMALISATIONS: dict[str, dict[str, tuple[float, float, float]]] = {
    "none": {},
    "ImageNet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}

WRAPPERS = ("state_dict", "model_state_dict", "model", "weights")  # keys under which checkpoints keep the weights


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a network's weights by name from a .safetensors file, or from one of `torch.save`, without running code.

    A checkpoint that keeps them under `state_dict` or a like key is opened, and the prefix `module.` of a network that
    was trained on several GPUs is left out.

    Raises:
        FileNotFoundError: no such file.
        NetworkError: the file holds something else than tensors, such as a whole pickled network; says what to do.
    """
    path = Path(path).expanduser()
    content: object
    try:
        if path.suffix == ".safetensors":
            content = tensors_from_bytes(read_bytes(path, LARGEST_WEIGHTS))
        else:
            with opened(path, LARGEST_WEIGHTS) as file:  # weights_only: a full pickle could run code
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except SafetensorError as error:
        raise NetworkError(f"{path} is not a safetensors file: {error}.") from None
    except Exception as error:  # torch, zipfile and pickle each raise errors of their own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NetworkError(
            f"{path} is not a file of weights that can be read without running it: {reason} Write one with "
            "torch.save(network.state_dict(), path), or as safetensors."
        ) from None
    wrapper = next(
        (key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), ""
    )
    if wrapper:
        content = content[wrapper]  # type: ignore[index]  # a mapping, as the line above has seen
    if (
        not isinstance(content, Mapping)
        or not all(isinstance(value, Tensor) for value in content.values())
        or not content
    ):
        raise NetworkError(f"{path} holds no weights by name; write torch.save(network.state_dict(), path).")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def torchvision_network(
    architecture: str, weights: str | os.PathLike | None = None, *, num_classes: int | None = None, seed: int = 0
) -> nn.Module:
    """Build one of torchvision's classifiers, in evaluation mode; nothing is downloaded.

    Args:
        architecture: a name such as 'resnet18'.
        weights: a file of weights, see `read_weights`; None for random ones.
        num_classes: default: as many as the file has, else 1,000.
        seed: seed of random weights; the global generator is not used.

    Raises:
        ValueError: an unknown architecture; suggests the nearest.
        FileNotFoundError, NetworkError: see `read_weights`; also weights that do not fit, which names one.
        ModuleNotFoundError: torchvision is not installed.
    """
    models = _torchvision_models()
    known = models.list_models(module=models)
    if architecture not in known:
        near = difflib.get_close_matches(str(architecture), known, 3) or ["resnet18", "densenet121", "mobilenet_v2"]
        raise ValueError(f"torchvision has no classifier {architecture!r:.80}; known are {', '.join(near)} and others.")
    check_whole(seed, "seed", 0, 2**63 - 1)
    state = None if weights is None else read_weights(weights)
    if num_classes is None:
        with torch.device("meta"):
            plan = models.get_model(architecture, weights=None)
        last = [name for name, module in plan.named_modules() if isinstance(module, nn.Linear)][-1:]
        layer = None if state is None or not last else state.get(f"{last[0]}.weight")
        num_classes = 1000 if layer is None else len(layer)
    check_whole(num_classes, "num_classes", 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = models.get_model(architecture, weights=None, num_classes=num_classes)
    if state is not None:
        _fill(network, state, f"{weights} does not fit {architecture}")
    return network.eval()


def _fill(network: nn.Module, state: Mapping[str, Tensor], complaint: str) -> None:
    """Load weights into a network; raise a NetworkError that names one that is missing, left over or wrong."""
    own = network.state_dict()
    # Counters of batch normalisation, which old files lack, have no part in what a network computes.
    state = {**{name: own[name] for name in own if name.endswith("num_batches_tracked")}, **state}
    if missing := sorted(own.keys() - state.keys()):
        raise NetworkError(f"{complaint}: it lacks {missing[0]} ({len(missing)} in all).")
    if strange := sorted(state.keys() - own.keys()):
        raise NetworkError(f"{complaint}: it also has {strange[0]} ({len(strange)} such in all).")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise NetworkError(
                f"{complaint}: {name} has shape {tuple(state[name].shape)} where {tuple(tensor.shape)} is expected."
            )
    network.load_state_dict(state)
    if not all_finite(network):
        raise NetworkError(f"{complaint}: it has weights that are NaN or infinite.")


def class_names(architecture: str, num_classes: int) -> tuple[str, ...]:
    """Return ImageNet's names for a network of 1,000 classes, as torchvision lists them, else the classes' numbers."""
    check_choice(architecture, "architecture", (models := _torchvision_models()).list_models(module=models))
    if num_classes == 1000:
        names = models.get_model_weights(architecture).DEFAULT.meta.get("categories", ())
        if len(names) == num_classes:
            return tuple(names)
    return tuple(map(str, range(num_classes)))


def _torchvision_models() -> ModuleType:
    # Imported here: only this needs torchvision, which a training run can do without.
    return importlib.import_module("torchvision.models")
