"""Reads the networks that the authors released, without TensorFlow and without trusting the file.

A released file is a pickle: a list of pairs (W, b) in the order of the layers, W as (height, width, in, out), arrays
of NaN in the place of a pool, and last a one-element tuple with the linear layer (1, 1, K, classes). A pickle can run
any program while it is read. This reader admits nothing but float arrays: the four names that numpy's arrays need
are answered by stand-ins that keep bytes, and every other name is refused before anything is called.

Source: the authors' repository, AkhilanB/Proper-Interpretability (MIT licence).
"""

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .models import ARCHITECTURES, GlobalPoolNetwork, SameConv2d, build
from .records import GAMMA

METHODS = ("Normal", "Adv", "TRADES", "IG-Norm", "IG-Norm-Sum", "Int-1-class", "Int", "Int-Adv")
_METHOD_IN_FILE = dict(zip(METHODS, ("normal", "adv", "trades", "ig", "igsum", "intone", "int", "intadv"), strict=True))
_FILE_NAME = {
    ("mnist", "small"): "mnist_smallgap_{}_100.pkl",
    ("mnist", "pool"): "mnist_pool_{}_100.pkl",
    ("cifar10", "small"): "cifar_smallgap_{}_200.pkl",
    ("cifar10", "wresnet"): "cifar_wresnet_{}_200.pkl",
    ("restricted_imagenet", "wresnet"): "restimagenet_wresnet_{}_35.pkl",
}
# Networks that are in no table: other gammas and radii of training, second runs at the paper's, other epochs.
_OTHER_FILE = re.compile(r"(mnist|cifar)_smallgap_(?:adv|int(0\d+)?)(?:_(\d+))?_(?:100|200)\.pkl")
_OTHER_EPOCHS = re.compile(r"restimagenet_wresnet_normal_(\d+)\.pkl")
# In file names a radius is in tenths on MNIST and in 255ths on CIFAR-10.
_RADIUS = {"mnist": (10, 3), "cifar": (255, 8)}  # unit of the names, the paper's radius in it
LARGEST_FILE = 64 * 2**20  # bytes; the released files have at most 1.9 MB


class ReleasedNetworkError(ValueError):
    """A file that is no released network, or that tries to be more than one."""


class _Dtype:
    """Stands in for numpy.dtype: remembers a float width and a byte order, refuses the rest."""

    def __init__(self, code, *_):
        if code not in ("f4", "f8"):
            raise pickle.UnpicklingError(f"an array of dtype {code!r}; only f4 and f8 are admitted")
        self.code = code

    def __setstate__(self, state):
        order = state[1]
        if order not in ("<", ">") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields, or of no byte order")
        self.code = order + self.code[-2:]


class _Array:
    """Stands in for numpy.ndarray: keeps shape, dtype and bytes until the file is read."""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def numpy(self) -> np.ndarray:
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes):
            raise pickle.UnpicklingError("an array without bytes of floats")
        flat = np.frombuffer(self.data, self.dtype.code)
        return flat.reshape(self.shape, order="F" if self.fortran else "C").astype(np.float32)


# The unpickler in Python, not the one in C: there, nine bytes can ask for 64 GB of memory (a memo of 2**32 places).
class _FloatsOnly(pickle._Unpickler):
    """An unpickler whose whole vocabulary is: list, tuple, number, string, bytes, float array."""

    _VOCABULARY = {
        "_reconstruct": lambda *_: _Array(),
        "ndarray": None,  # only ever an argument of _reconstruct
        "dtype": _Dtype,
        "scalar": lambda *_: None,  # the NaN that stands for a pool's bias
    }

    def find_class(self, module, name):
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in self._VOCABULARY:
            return self._VOCABULARY[name]
        raise pickle.UnpicklingError(f"the name {module}.{name}, which has no place in a network of float arrays")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("a reference to an object outside the file")


def read_layers(path: str | os.PathLike) -> list[tuple[np.ndarray, ...]]:
    """The arrays of a released file, layer by layer, pools left out.

    Returns:
        Pairs (W, b), W float32 (height, width, in, out) and b (out,), and last the one-element tuple
        (W (1, 1, K, classes),).

    Raises:
        FileNotFoundError: no such file.
        ReleasedNetworkError: too large, truncated, corrupt, or holding anything but float arrays.
    """
    path = Path(path)
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ReleasedNetworkError(f"{path}: {size / 2**20:.0f} MB; a released network has at most 1.9 MB.")
    try:
        with open(path, "rb") as file:
            layers = _FloatsOnly(file).load()
        if not isinstance(layers, list) or not all(isinstance(layer, tuple) for layer in layers):
            raise pickle.UnpicklingError("no list of layers")
        arrays = [tuple(a.numpy() for a in layer if isinstance(a, _Array)) for layer in layers]
    except Exception as error:  # a hostile file can raise anything, and none of it is worth a stack trace
        raise ReleasedNetworkError(
            f"{path} is not a released network: it holds {error}. Expected a pickled list of float arrays "
            "as published by the authors; fetch the file again. Nothing in it was executed."
        ) from None
    return [layer for layer in arrays if layer and not np.isnan(layer[0]).any()]


def read_network(path: str | os.PathLike, *, input_shape: tuple[int, int, int] | None = None) -> GlobalPoolNetwork:
    """A released file as one of our networks, in evaluation mode.

    Args:
        path: the .pkl file.
        input_shape: (C, H, W); left out, it is told from the arrays: 28x28 for one input channel, 224x224 for nine
            classes, 32x32 otherwise.

    Raises:
        FileNotFoundError, ReleasedNetworkError: see `read_layers`; also where no known architecture has these shapes.
    """
    layers = read_layers(path)
    shapes = [w.shape for w, *_ in layers]
    if len(shapes) < 2 or any(len(s) != 4 for s in shapes) or len(layers[-1]) != 1:
        raise ReleasedNetworkError(f"{path} is not a released network: its layers have shapes {shapes}.")
    channels, classes = shapes[0][2], shapes[-1][3]
    if input_shape is None:
        side = 28 if channels == 1 else 224 if classes == 9 else 32
        input_shape = (channels, side, side)
    for name in ARCHITECTURES:
        model = build(name, input_shape, classes)
        convs = [m for m in model.modules() if isinstance(m, SameConv2d)]
        expected = [(*c.kernel_size, c.in_channels, c.out_channels) for c in convs]
        if shapes == [*expected, (1, 1, model.classifier.in_features, classes)]:
            break
    else:
        raise ReleasedNetworkError(f"{path}: no architecture of {', '.join(ARCHITECTURES)} has the shapes {shapes}.")
    biases = [tuple(b.shape for b in rest) for _, *rest in layers[:-1]]
    if biases != [((c.out_channels,),) for c in convs]:
        raise ReleasedNetworkError(f"{path} is not a released network: its biases have shapes {biases}.")
    with torch.no_grad():
        for conv, (weight, bias) in zip(convs, layers[:-1], strict=True):
            conv.weight.copy_(torch.from_numpy(weight).permute(3, 2, 0, 1))
            conv.bias.copy_(torch.from_numpy(bias))
        model.classifier.weight.copy_(torch.from_numpy(layers[-1][0])[0, 0].T)
    return model.eval()


def released_dir(folder: str | os.PathLike | None = None) -> Path:
    """The folder of released networks: `folder`, else the environment variable INTERP_RELEASED.

    Raises:
        FileNotFoundError: neither is set, or it is no folder.
    """
    folder = folder or os.environ.get("INTERP_RELEASED")
    how = (
        "Clone the authors' repository (AkhilanB/Proper-Interpretability on GitHub) and pass --released-dir, "
        "or set INTERP_RELEASED, to it or to any folder that holds its .pkl files."
    )
    if not folder:
        raise FileNotFoundError(f"No folder of released networks is set. {how}")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder. {how}")
    return Path(folder)


def find(dataset: str, model: str, method: str, folder: str | os.PathLike | None = None) -> Path:
    """The file of one released network, at any depth under the folder.

    Raises:
        FileNotFoundError: with the name that was looked for.
        ValueError: the authors released no network of that description.
    """
    if (dataset, model) not in _FILE_NAME or method not in METHODS:
        raise ValueError(
            f"no network {dataset} / {model} / {method} was released; pairs of dataset and model are "
            f"{', '.join('/'.join(k) for k in _FILE_NAME)}, methods {', '.join(METHODS)}."
        )
    name, folder = _FILE_NAME[dataset, model].format(_METHOD_IN_FILE[method]), released_dir(folder)
    for path in (folder / name, *sorted(folder.rglob(name))):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is not in {folder}. Was the whole repository cloned?")


def available(folder: str | os.PathLike | None = None) -> list[tuple[str, str, str]]:
    """(dataset, model, method) of every released network in the folder, in the order of the paper's tables."""
    folder = released_dir(folder)
    names = {path.name for path in folder.rglob("*.pkl")}
    return [
        (dataset, model, method)
        for (dataset, model), pattern in _FILE_NAME.items()
        for method in METHODS
        if pattern.format(_METHOD_IN_FILE[method]) in names
    ]


class OtherNetwork(NamedTuple):
    """A released network that is in none of the paper's tables; what it is, its file name says and nothing else.

    Attributes:
        dataset, model, method: as those of the tables.
        gamma: weight of the discrepancy in training, in the released code's units; None for Adv and Normal.
        radius: eps of its training, in the unit of the pixels; None for Normal.
        run: 2 for a second network of the same method, gamma and radius, else 1.
        epochs: of its training.
        path: the file.
    """

    dataset: str
    model: str
    method: str
    gamma: float | None
    radius: float | None
    run: int
    epochs: int
    path: Path


def other_networks(folder: str | os.PathLike | None = None) -> list[OtherNetwork]:
    """The networks in the folder that vary gamma, the radius of training, the run or the epochs.

    Adv and Int of Small on MNIST and CIFAR-10, and the Normal networks of R-ImageNet with other epochs than Table 1's.
    `mnist_smallgap_int005_4_100.pkl` is Int with gamma 0.005 and radius 0.4, after 100 epochs. A name that gives the
    paper's own radius is a second run of the network whose name gives none.

    Args:
        folder: see `released_dir`.

    Returns:
        In the order of dataset, method, radius, gamma and run.
    """
    found = []
    for path in released_dir(folder).rglob("*.pkl"):
        if epochs := _OTHER_EPOCHS.fullmatch(path.name):
            if path.name != _FILE_NAME["restricted_imagenet", "wresnet"].format("normal"):
                found.append(
                    OtherNetwork("restricted_imagenet", "wresnet", "Normal", None, None, 1, int(epochs[1]), path)
                )
        elif (name := _OTHER_FILE.fullmatch(path.name)) and (name[2] or name[3]):
            unit, usual = _RADIUS[name[1]]
            method = "Adv" if "_adv_" in path.name else "Int"
            gamma = None if method == "Adv" else float(f"0.{name[2]}") if name[2] else GAMMA
            dataset, epochs = {"mnist": ("mnist", 100), "cifar": ("cifar10", 200)}[name[1]]
            radius = int(name[3] or usual)
            second = 2 if name[3] and radius == usual else 1
            found.append(OtherNetwork(dataset, "small", method, gamma, radius / unit, second, epochs, path))
    return sorted(
        found, key=lambda n: (list(_FILE_NAME).index(n[:2]), n.method, n.radius or 0, n.gamma or 0, n.run, n.epochs)
    )


def load(path_or_name: str | os.PathLike, folder: str | os.PathLike | None = None) -> GlobalPoolNetwork:
    """A released network by path, or by the name of its file with or without `.pkl`.

    Raises:
        FileNotFoundError, ReleasedNetworkError: see `read_layers`.
    """
    path = Path(path_or_name)
    if path.is_file():
        return read_network(path)
    name = f"{path.name.removesuffix('.pkl')}.pkl"
    for found in sorted(released_dir(folder).rglob(name)):
        return read_network(found)
    raise FileNotFoundError(f"{name} is neither a file nor a network in {released_dir(folder)}.")


def fingerprint(model: torch.nn.Module) -> str:
    """The first 16 digits of the sha256 of a network's weights: says which network a number belongs to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
