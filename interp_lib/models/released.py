"""Find and load the networks that the authors released, without TensorFlow and without trusting the file.

Source: the authors' repository, AkhilanB/Proper-Interpretability (MIT licence). `pickles` reads its files.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import torch

from ..paper import GAMMA, METHODS
from .architectures import ARCHITECTURES, GlobalPoolNetwork, SameConv2d, build, weight_shapes
from .pickles import ReleasedNetworkError, read_layers

_METHOD_IN_FILE = dict(zip(METHODS, ("normal", "adv", "trades", "ig", "igsum", "intone", "int", "intadv"), strict=True))

_FILE_NAME = {
    ("mnist", "small"): "mnist_smallgap_{}_100.pkl",
    ("mnist", "pool"): "mnist_pool_{}_100.pkl",
    ("cifar10", "small"): "cifar_smallgap_{}_200.pkl",
    ("cifar10", "wresnet"): "cifar_wresnet_{}_200.pkl",
    ("restricted_imagenet", "wresnet"): "restimagenet_wresnet_{}_35.pkl",
}


# Networks in none of the tables: other gammas or training radii, second runs with the paper's own, other epochs.
_OTHER_FILE = re.compile(r"(mnist|cifar)_smallgap_(?:adv|int(0\d+)?)(?:_(\d+))?_(?:100|200)\.pkl")

_OTHER_EPOCHS = re.compile(r"restimagenet_wresnet_normal_(\d+)\.pkl")


# In file names a radius is in tenths on MNIST and in 255ths on CIFAR-10.
_RADIUS = {"mnist": (10, 3), "cifar": (255, 8)}  # units per 1.0, the paper's radius in these units


def read_network(path: str | os.PathLike, *, input_shape: tuple[int, int, int] | None = None) -> GlobalPoolNetwork:
    """Read a released file as one of this library's networks, in evaluation mode.

    Args:
        path: the .pkl file.
        input_shape: (C, H, W). Default: inferred from the arrays: 28x28 for one input channel, 224x224 for nine
            classes, 32x32 otherwise.

    Raises:
        FileNotFoundError, ReleasedNetworkError: see `read_layers`; also if no known architecture has these shapes.
    """
    layers = read_layers(path)
    shapes = [w.shape for w, *_ in layers]
    if len(shapes) < 2 or any(len(s) != 4 for s in shapes) or len(layers[-1]) != 1:
        raise ReleasedNetworkError(f"{path} is not a released network: its layers have shapes {shapes}.")
    channels, classes = shapes[0][2], shapes[-1][3]
    if input_shape is None:
        side = 28 if channels == 1 else 224 if classes == 9 else 32
        input_shape = (channels, side, side)
    try:
        known = {name: weight_shapes(name, input_shape, classes) for name in ARCHITECTURES}
    except ValueError as error:
        raise ReleasedNetworkError(f"{path} is not a released network: {error}.") from None
    for name, expected in known.items():
        kernels = [(*size[2:], size[1], size[0]) for size in expected.values() if len(size) == 4]
        if shapes == [*kernels, (1, 1, *expected["classifier.weight"][::-1])]:
            break
    else:
        raise ReleasedNetworkError(f"{path}: no architecture of {', '.join(ARCHITECTURES)} has the shapes {shapes}.")
    biases = [tuple(b.shape for b in rest) for _, *rest in layers[:-1]]
    if biases != [((kernel[-1],),) for kernel in kernels]:
        raise ReleasedNetworkError(f"{path} is not a released network: its biases have shapes {biases}.")
    model = build(name, input_shape, classes)
    convs = [m for m in model.modules() if isinstance(m, SameConv2d)]
    with torch.no_grad():
        for conv, (weight, bias) in zip(convs, layers[:-1], strict=True):
            # TensorFlow's order (height, width, in, out) to PyTorch's (out, in, height, width).
            conv.weight.copy_(torch.from_numpy(weight).permute(3, 2, 0, 1))
            conv.bias.copy_(torch.from_numpy(bias))
        model.classifier.weight.copy_(torch.from_numpy(layers[-1][0])[0, 0].T)
    return model.eval()


def released_dir(folder: str | os.PathLike | None = None) -> Path:
    """Return the folder of released networks: `folder`, else the environment variable INTERP_RELEASED.

    Raises:
        FileNotFoundError: neither is set, or the path is not a folder.
    """
    folder = folder or os.environ.get("INTERP_RELEASED")
    how = (
        "Clone the authors' repository (AkhilanB/Proper-Interpretability on GitHub) and pass --released-dir, "
        "or set INTERP_RELEASED, to it or to any folder that holds its .pkl files."
    )
    if not folder:
        raise FileNotFoundError(f"No folder of released networks is set. {how}")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder. {how}")
    return folder


def _files(folder: Path) -> dict[str, Path]:
    """Map names of .pkl files at any depth to paths; of equal names, a file in `folder` itself or the first wins."""
    paths = sorted(folder.rglob("*.pkl"), key=lambda path: (path.parent != folder, path))
    return {path.name: path for path in reversed(paths) if path.is_file()}


def find(dataset: str, model: str, method: str, folder: str | os.PathLike | None = None) -> Path:
    """Find the file of one released network, at any depth under the folder.

    Raises:
        FileNotFoundError: the file is missing; the message gives its name.
        ValueError: the authors released no such network.
    """
    if (dataset, model) not in _FILE_NAME or method not in METHODS:
        raise ValueError(
            f"no network {dataset} / {model} / {method} was released; pairs of dataset and model are "
            f"{', '.join('/'.join(k) for k in _FILE_NAME)}, methods {', '.join(METHODS)}."
        )
    name, folder = _FILE_NAME[dataset, model].format(_METHOD_IN_FILE[method]), released_dir(folder)
    if path := _files(folder).get(name):
        return path
    raise FileNotFoundError(f"{name} is not in {folder}. Was the whole repository cloned?")


def available(folder: str | os.PathLike | None = None) -> list[tuple[str, str, str]]:
    """List (dataset, model, method) of the tables' networks in the folder, in the order of the paper's tables."""
    names = _files(released_dir(folder))
    return [
        (dataset, model, method)
        for (dataset, model), pattern in _FILE_NAME.items()
        for method in METHODS
        if pattern.format(_METHOD_IN_FILE[method]) in names
    ]


class OtherNetwork(NamedTuple):
    """A released network that is in none of the paper's tables; only its file name says how it was trained.

    Attributes:
        dataset, model, method: the same names as in the tables.
        gamma: weight of the discrepancy in training, in the released code's units; None for Adv and Normal.
        radius: eps in training, in the unit of the pixels; None for Normal.
        run: 2 for a second network with the same method, gamma and radius, else 1.
        epochs: number of training epochs.
        path: path of the file.
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
    """List the networks in the folder that vary gamma, the training radius, the run or the number of epochs.

    These are Adv and Int networks of Small on MNIST and CIFAR-10, and Normal networks on R-ImageNet with other numbers
    of epochs than Table 1's. `mnist_smallgap_int005_4_100.pkl` is Int with gamma 0.005 and radius 0.4, after 100
    epochs. A name that contains the paper's own radius is a second run of the network whose name contains no radius.

    Args:
        folder: see `released_dir`.

    Returns:
        The networks, sorted by dataset, method, radius, gamma, run and epochs.
    """
    networks = []
    for path in _files(released_dir(folder)).values():
        if match := _OTHER_EPOCHS.fullmatch(path.name):
            if path.name != _FILE_NAME["restricted_imagenet", "wresnet"].format("normal"):
                networks.append(
                    OtherNetwork("restricted_imagenet", "wresnet", "Normal", None, None, 1, int(match[1]), path)
                )
        elif (name := _OTHER_FILE.fullmatch(path.name)) and (name[2] or name[3]):
            unit, usual = _RADIUS[name[1]]
            method = "Adv" if "_adv_" in path.name else "Int"
            gamma = None if method == "Adv" else float(f"0.{name[2]}") if name[2] else GAMMA
            dataset, epochs = {"mnist": ("mnist", 100), "cifar": ("cifar10", 200)}[name[1]]
            radius = int(name[3] or usual)
            second = 2 if name[3] and radius == usual else 1
            networks.append(OtherNetwork(dataset, "small", method, gamma, radius / unit, second, epochs, path))
    return sorted(
        networks, key=lambda n: (list(_FILE_NAME).index(n[:2]), n.method, n.radius or 0, n.gamma or 0, n.run, n.epochs)
    )


def load(path_or_name: str | os.PathLike, folder: str | os.PathLike | None = None) -> GlobalPoolNetwork:
    """Load a released network by path, or by its file name with or without `.pkl`.

    An argument that contains a folder is a path: the file is read from there, and nowhere else is searched.

    Raises:
        FileNotFoundError, ReleasedNetworkError: see `read_layers`.
    """
    path = Path(path_or_name)
    if path.name != str(path_or_name) or path.is_file():
        return read_network(path)
    name, folder = f"{path.name.removesuffix('.pkl')}.pkl", released_dir(folder)
    if file := _files(folder).get(name):
        return read_network(file)
    raise FileNotFoundError(f"{name} is neither a file nor a network in {folder}.")
