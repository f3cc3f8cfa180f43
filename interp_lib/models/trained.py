"""Save and load networks trained here: weights as safetensors, and a small JSON file that says how they were trained.

`mnist-small-int-s0-paper.safetensors` and `.json` are one network: dataset, architecture, method, seed, schedule;
`mnist-small-int-s0-paper-g0.003` has another gamma than the paper's 0.01. Neither file can run code when it is read.
"""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from ..reading import FileError, read_bytes, read_json
from ..storage import write_atomically
from .architectures import ARCHITECTURES, GlobalPoolNetwork, build, weight_shapes
from .names import NETWORKS
from .predict import all_finite

LARGEST_JSON = 2**20  # bytes; after two hundred epochs of training a file has about 50,000


class NetworkError(FileError):
    """A file is not a network saved by this module."""


def save(model: GlobalPoolNetwork, path: str | os.PathLike, how: dict) -> None:
    """Write the weights and, beside them, how they were trained; each file is written whole or not at all.

    Args:
        how: plain JSON: dataset, data fingerprint, method, seed, schedule, losses, versions. `save` adds the
            architecture, the input shape and the number of classes.

    Raises:
        OSError: see `storage.write_atomically`.
        ValueError: a weight is NaN or infinite, or `load` could not rebuild the network.
    """
    path = Path(path)
    if not _can_be_built(model):
        raise ValueError(
            f"{path} was not written: it could not be loaded again, because {type(model).__name__} is not, layer by "
            f"layer, one of {', '.join(ARCHITECTURES)}. Keep model.state_dict() with torch.save, or the network's own."
        )
    if not all_finite(model):
        raise ValueError(f"{path} was not written: the network has weights that are NaN or infinite.")
    how = {
        "model": model.name,
        "input_shape": list(model.input_shape),
        "num_classes": model.num_classes,
        **how,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    # The weights are written last: `available` lists them, so that a listed network has its .json file.
    write_atomically(path.with_suffix(".json"), (json.dumps(how, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(path, tensors_to_bytes(tensors))


def _can_be_built(model: GlobalPoolNetwork) -> bool:
    """Return whether `build` makes this network: the same class, and weights of the same names and shapes."""
    if ARCHITECTURES.get(getattr(model, "name", "")) is not type(model):
        return False
    with torch.device("meta"):
        again = build(model.name, model.input_shape, model.num_classes)
    shapes = ({name: tensor.shape for name, tensor in network.state_dict().items()} for network in (model, again))
    return next(shapes) == next(shapes)


def load(path: str | os.PathLike) -> tuple[GlobalPoolNetwork, dict]:
    """Load a network in evaluation mode, and the record of how it was trained.

    Raises:
        FileNotFoundError: one of the two files is missing.
        NetworkError: a file is truncated or corrupt, or the weights do not have the shapes that the JSON file implies.
    """
    path = Path(path)
    try:
        how = read_json(path.with_suffix(".json"), LARGEST_JSON)
        expected = weight_shapes(how["model"], how["input_shape"], how["num_classes"])
        largest = 8 * sum(map(math.prod, expected.values())) + LARGEST_JSON  # at most float64, plus a header
        tensors = tensors_from_bytes(read_bytes(path, largest))
        came = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        if wrong := sorted(key for key in came | expected if came.get(key) != expected.get(key)):
            key = wrong[0]
            raise ValueError(f"its {key} has shape {came.get(key)}, by its .json {expected.get(key)}")
        model = build(how["model"], how["input_shape"], how["num_classes"])
        model.load_state_dict(tensors)
        if not all_finite(model):
            raise ValueError("it has weights that are NaN or infinite")
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise NetworkError(
            f"{path} is not a complete network with its .json beside it: {error}. Delete both and train it again."
        ) from None
    return model.eval(), how


def available(folder: str | os.PathLike = NETWORKS) -> list[Path]:
    """List the paths of the networks in a folder, sorted by name."""
    return sorted(Path(folder).glob("*.safetensors"))
