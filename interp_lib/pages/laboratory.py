"""Write what the book's laboratory computes with: networks of MNIST Small, images, thresholds of a detector.

The laboratory is a page that attacks networks in the reader's browser; its code is in book/static/laboratory. A page
opened as a file may read no other file but scripts, so the data are scripts that add to one table.
"""

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import data
from ..fast.fold import has_affine_tail
from ..fast.parts import compose_tail
from ..models import released, trained
from ..models.architectures import GlobalPoolNetwork, Small
from ..models.names import NetworkName
from ..places import project_root
from ..storage import write_atomically
from ..study.detection import scores, smoothed

FOLDER = "book/static/laboratory"

RELEASED = ("Normal", "Adv", "TRADES", "Int", "Int-Adv")

TRAINED = NetworkName("mnist", "small", "Int", 0, "quick")

FALSE_ALARMS = 0.05  # share of the natural images above a detector's threshold

PER_CLASS = 2  # images of each class on the page


class Entry(NamedTuple):
    """A network of the laboratory: its key in links, its name for readers, its method, and where its file is."""

    key: str
    title: str
    method: str
    path: Path


def entries(released_dir: str | os.PathLike | None = None) -> list[Entry]:
    """Return the laboratory's networks: those that the authors released, and one that was trained here.

    Raises:
        FileNotFoundError: see `models.released.find`.
    """
    found = [
        Entry(method.lower(), f"{method} (released)", method, released.find("mnist", "small", method, released_dir))
        for method in RELEASED
    ]
    own = TRAINED.path(project_root() / "networks")
    return [*found, Entry("ours", f"{TRAINED.method} (trained here)", TRAINED.method, own)]


def load(entry: Entry) -> GlobalPoolNetwork:
    """Load a network of the laboratory."""
    return trained.load(entry.path)[0] if entry.path.suffix == ".safetensors" else released.load(entry.path)


def numbers(model: GlobalPoolNetwork) -> Tensor:
    """Return all numbers of a Small, its last two layers composed into one convolution, as one float32 row.

    The order is conv1, its biases, conv2, its biases, the composed convolution of `fast.parts.compose_tail` (classes,
    32, 7, 7), its biases. The composition is computed in double precision.

    Args:
        model: a Small for images (1, 28, 28), which has 24,186 such numbers instead of 166,412.

    Raises:
        TypeError: another network.
        ValueError: another input shape or number of classes, or a network that differs from its fold.
    """
    if not isinstance(model, Small):
        raise TypeError(f"the laboratory computes Small; got {type(model).__name__}.")
    if (model.input_shape, model.num_classes) != ((1, 28, 28), 10) or not has_affine_tail(model):
        raise ValueError(
            f"the laboratory needs a Small for images (1, 28, 28) of 10 classes, without hooks; got {model.input_shape} "
            f"and {model.num_classes} classes."
        )
    double = released.build("small", model.input_shape, model.num_classes).double()
    double.load_state_dict(model.state_dict())
    parts = (double.conv1.weight, double.conv1.bias, double.conv2.weight, double.conv2.bias, *compose_tail(double))
    return torch.cat([part.detach().flatten() for part in parts]).float()


def threshold(model: GlobalPoolNetwork, x: Tensor) -> float:
    """Return the score that one natural image in twenty exceeds: `study.detection.scores`, CAM, 2-class, l1.

    Args:
        x: natural images (N, 1, 28, 28); the detector compares each with its smoothed copy.
    """
    return torch.quantile(scores(model, x, smoothed(x)).double(), 1 - FALSE_ALARMS).item()


def shown(dataset: data.Dataset) -> list[int]:
    """Return positions in the paper's evaluation subset: the first images of every class, ordered by class."""
    y = dataset.evaluation_subset().y.tolist()
    return [i for c in range(dataset.num_classes) for i in [j for j, label in enumerate(y) if label == c][:PER_CLASS]]


def script(table: str, key: str, value: object) -> bytes:
    """Return a script that adds one entry to a table of the page."""
    return f"(globalThis.{table} ??= {{}})[{json.dumps(key)}] = {json.dumps(value, ensure_ascii=False)};\n".encode()


def write(released_dir: str | os.PathLike | None = None, data_dir: str | os.PathLike | None = None) -> list[Path]:
    """Write the networks and the images of the laboratory into the book; return the paths.

    Args:
        released_dir: folder of the authors' networks, see `models.released.released_dir`.
        data_dir: folder with MNIST, see `data.load`.

    Raises:
        FileNotFoundError, DataError: networks or images are missing.
    """
    folder, dataset = project_root() / FOLDER / "data", data.load("mnist", data_dir)
    subset = dataset.evaluation_subset()
    chosen = shown(dataset)
    images = {
        "bytes": _base64(dataset.test.images[subset.index[chosen]]),
        "labels": subset.y[chosen].tolist(),
        "targets": subset.target[chosen].tolist(),
        "numbers": subset.index[chosen].tolist(),
        "source": f"{dataset.title}, test images, {dataset.copy}",
    }
    files, listed = {}, entries(released_dir)
    for entry in listed:
        model = load(entry)
        about = {
            "title": entry.title,
            "method": entry.method,
            "threshold": round(threshold(model, subset.x), 4),
            "natural": len(subset.x),
            "weights": _base64(numbers(model)),
        }
        files[f"network-{entry.key}.js"] = script("laboratoryNetworks", entry.key, about)
    names = [{"key": entry.key, "title": entry.title} for entry in listed]
    files["index.js"] = script("laboratoryData", "images", images) + script("laboratoryData", "networks", names)
    for name, text in files.items():
        write_atomically(folder / name, text)
    return [folder / name for name in files]


def _base64(values: Tensor) -> str:
    kind = "<f4" if values.is_floating_point() else "u1"
    return b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode()
