"""Networks that we trained: weights as safetensors, and beside them a small JSON of how they were trained.

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

LARGEST_JSON = 2**20  # bytes; of two hundred epochs it has about 50,000


class NetworkError(FileError):
    """A file that is no network of ours."""


def save(model: GlobalPoolNetwork, path: str | os.PathLike, how: dict) -> None:
    """Writes weights and, beside them, how they came about; each file whole or not at all.

    Args:
        how: plain JSON: dataset, data fingerprint, method, seed, schedule, losses, versions. The shape of the
            network is added.

    Raises:
        OSError: see `storage.write_atomically`.
        ValueError: a weight is NaN or infinite, or `load` could not build the network again.
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
    write_atomically(path.with_suffix(".json"), (json.dumps(how, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(path, tensors_to_bytes(tensors))


def _can_be_built(model: GlobalPoolNetwork) -> bool:
    """Whether `build` gives this network: its class, and weights of the same names and shapes."""
    if ARCHITECTURES.get(getattr(model, "name", None)) is not type(model):
        return False
    with torch.device("meta"):
        again = build(model.name, model.input_shape, model.num_classes)
    shapes = ({name: tensor.shape for name, tensor in network.state_dict().items()} for network in (model, again))
    return next(shapes) == next(shapes)


def load(path: str | os.PathLike) -> tuple[GlobalPoolNetwork, dict]:
    """A network in evaluation mode, and how it was trained.

    Raises:
        FileNotFoundError: one of the two files is missing.
        NetworkError: a file that is truncated, corrupt, or not of the shape that its JSON names.
    """
    path = Path(path)
    try:
        how = read_json(path.with_suffix(".json"), LARGEST_JSON)
        expected = weight_shapes(how["model"], how["input_shape"], how["num_classes"])
        largest = 8 * sum(map(math.prod, expected.values())) + LARGEST_JSON  # float64 and a header
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
            f"{path} is not a whole network with its .json beside it: {error}. Delete both and train it again."
        ) from None
    return model.eval(), how


def available(folder: str | os.PathLike = NETWORKS) -> list[Path]:
    """The networks of a folder, in order of name."""
    return sorted(Path(folder).glob("*.safetensors"))
