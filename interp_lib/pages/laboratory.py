"""Write what the book's laboratory computes with: networks, images and a detector's thresholds.

The laboratory is a page that attacks MNIST Small in the reader's browser; its code is in book/static/laboratory. A page
that is opened as a file can read no other file but a script, so the data are scripts that fill a table.
"""

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import data
from ..fast.parts import compose_tail
from ..models import build, released, trained
from ..models.architectures import GlobalPoolNetwork, Small
from ..models.names import NetworkName
from ..places import project_root
from ..storage import write_atomically
from ..study.detection import scores, smoothed

FOLDER = "book/static/laboratory/data"

RELEASED = ("Normal", "Adv", "TRADES", "Int", "Int-Adv")

TRAINED = NetworkName("mnist", "small", "Int", 0, "quick")

FALSE_ALARMS = 0.05  # share of natural images that score above a detector's threshold

PER_CLASS = 2  # images of each class on the page


class Entry(NamedTuple):
    """One network of the laboratory.

    Attributes:
        key: its name in links.
        title: its name for readers.
        method: how it was trained.
        path: its file.
    """

    key: str
    title: str
    method: str
    path: Path

    def load(self) -> GlobalPoolNetwork:
        """Load the network."""
        return trained.load(self.path)[0] if self.path.suffix == ".safetensors" else released.load(self.path)


def trained_here() -> Entry:
    """Return the one network of the laboratory that was trained here; it is in the clone."""
    path = TRAINED.path(project_root() / "networks")
    return Entry("ours", f"{TRAINED.method} (trained here)", TRAINED.method, path)


def entries(released_dir: str | os.PathLike | None = None) -> list[Entry]:
    """Return the laboratory's networks: five that the authors released, and one that was trained here.

    Args:
        released_dir: see `models.released.released_dir`.

    Raises:
        FileNotFoundError: see `models.released.find`.
    """
    find = lambda method: released.find("mnist", "small", method, released_dir)
    return [*(Entry(m.lower(), f"{m} (released)", m, find(m)) for m in RELEASED), trained_here()]


def numbers(model: GlobalPoolNetwork) -> Tensor:
    """Return all numbers of a Small as one float32 row, its last two layers composed into one convolution.

    The order is conv1 (16, 1, 4, 4), its biases, conv2 (32, 16, 4, 4), its biases, the composed convolution of
    `fast.parts.compose_tail` (10, 32, 7, 7), its biases. The composition is computed in double precision.

    Args:
        model: a Small for images (1, 28, 28) and 10 classes, whose classifier has no bias.

    Returns:
        (24186,); the network itself has 166,688 numbers.

    Raises:
        TypeError: another kind of network.
        ValueError: another input shape, another number of classes, or a bias.
    """
    if not isinstance(model, Small):
        raise TypeError(f"the laboratory computes Small; got {type(model).__name__}.")
    if (model.input_shape, model.num_classes, model.classifier.bias) != ((1, 28, 28), 10, None):
        raise ValueError(
            "the laboratory needs a Small for images (1, 28, 28) and 10 classes, without a bias in its classifier; "
            f"got {model.input_shape}, {model.num_classes} and {'no' if model.classifier.bias is None else 'a'} bias."
        )
    double = build("small", model.input_shape, model.num_classes).double()
    double.load_state_dict(model.state_dict())
    parts = (double.conv1.weight, double.conv1.bias, double.conv2.weight, double.conv2.bias, *compose_tail(double))
    return torch.cat([part.detach().flatten() for part in parts]).float()


def threshold(model: GlobalPoolNetwork, x: Tensor) -> float:
    """Return the score that one natural image in twenty exceeds: `study.detection.scores`, CAM, 2-class, l1.

    Args:
        x: natural images (N, 1, 28, 28) in [0, 1]; the detector compares each with its smoothed copy.
    """
    return torch.quantile(scores(model, x, smoothed(x)).double(), 1 - FALSE_ALARMS).item()


def files(released_dir: str | os.PathLike | None = None, data_dir: str | os.PathLike | None = None) -> dict[str, bytes]:
    """Return the laboratory's data as file names and contents: an index with the images, and one file a network.

    Args:
        released_dir: folder of the authors' networks, see `models.released.released_dir`.
        data_dir: folder with MNIST, see `data.load`.

    Raises:
        FileNotFoundError, DataError: a network or MNIST is missing.
    """
    networks, dataset = entries(released_dir), data.load("mnist", data_dir)
    subset = dataset.evaluation_subset()
    labels = subset.y.tolist()
    # The first images of every class in the order of the paper's 200, sorted by class.
    chosen = [i for c in range(10) for i in [j for j, label in enumerate(labels) if label == c][:PER_CLASS]]
    images = {
        "bytes": _base64(dataset.test.images[subset.index[chosen]], "u1"),
        "labels": subset.y[chosen].tolist(),
        "targets": subset.target[chosen].tolist(),
        "numbers": subset.index[chosen].tolist(),
    }
    names = [{"key": entry.key, "title": entry.title} for entry in networks]
    contents = {"index.js": _script("laboratoryData", images=images, networks=names)}
    for entry in networks:
        model = entry.load()
        about = {
            "title": entry.title,
            "method": entry.method,
            "threshold": round(threshold(model, subset.x), 4),
            "natural": len(subset.x),
            "weights": _base64(numbers(model), "<f4"),
        }
        contents[f"network-{entry.key}.js"] = _script("laboratoryNetworks", **{entry.key: about})
    return contents


def write(released_dir: str | os.PathLike | None = None, data_dir: str | os.PathLike | None = None) -> list[Path]:
    """Write `files` into the book and return their paths. Arguments, Raises: as `files`."""
    folder, contents = project_root() / FOLDER, files(released_dir, data_dir)
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in contents]


def _script(table: str, **entries: object) -> bytes:
    """Return a script that adds entries to a global table, one a line."""
    lines = (
        f"(globalThis.{table} ??= {{}})[{json.dumps(key)}] = {json.dumps(value)};\n" for key, value in entries.items()
    )
    return "".join(lines).encode()


def _base64(values: Tensor, kind: str) -> str:
    return b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode()
