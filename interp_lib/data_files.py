"""Read dataset files into tensors of bytes: the readers behind `data.load`, and the files that they refuse.

A reader returns pairs (images uint8 (N, C, H, W), labels int64 (N,)), or raises a DataError that names the file, what
was expected, what was found and what to do. A pickle is opened only after its checksum proves that it is the original.
"""

import hashlib
import importlib
import math
import os
import pickle
import socket
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .datasets import DATASETS
from .places import home
from .reading import FileError, opened, read_bytes

VALIDATION = 5000  # the first training images, as in the released code
DIGITS_VALIDATION, DIGITS_TEST = 200, 400

_TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10"}  # the datasets that torchvision's classes download
_MNIST_PARTS = {"training": "train", "test": "t10k"}
_MNIST_FILES = tuple(
    f"MNIST/raw/{part}-{kind}" for part in _MNIST_PARTS.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
# File -> the md5 that torchvision checks: five training batches, then the test batch.
CIFAR10_FILES = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}

Arrays = tuple[Tensor, Tensor]


# Limits on input files, so that a wrong or malicious file cannot fill the memory. MNIST has 70,000 images.
MOST_IMAGES = 100_000


class DataError(FileError):
    """Data that are missing, damaged or not the dataset that their name promises; the message says what to do."""


def _wrong(path: Path, expected: str, came: object, advice: str) -> DataError:
    return DataError(f"{path}: expected {expected}; got {came}. {advice}")


def _fetch_again(name: str) -> str:
    return f"Delete it, then run `python -m interp_lib data {name}`." if name in _TORCHVISION else "Replace it."


def _import(module: str, package: str, reason: str):
    """Import a module that only some datasets need; raise a DataError that says how to install it when that fails."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{reason} needs {package}, which cannot be imported: pip install {package}.") from None


def data_folder(data_dir: str | os.PathLike | None) -> Path:
    """Return the requested folder, which must exist, or data/ of the clone, else ./data, which may be missing."""
    asked = data_dir if data_dir is not None else os.environ.get("INTERP_DATA") or None
    folder = home() / "data" if asked is None else Path(asked).expanduser()
    if not folder.is_dir() and (asked is not None or folder.exists()):
        came = "a file" if folder.exists() else "nothing: it does not exist"
        raise _wrong(folder, "a folder of data", came, "Create it, or correct --data-dir or INTERP_DATA.")
    return folder


def _checked(images: np.ndarray, labels: np.ndarray, name: str, path: Path, part: str) -> Arrays:
    """Check the arrays of a file and return them as images (N, C, H, W) and labels; raise a DataError if wrong.

    Images come as (N, H, W) or (N, H, W, 3).
    """
    n, shape, last = len(images) if images.ndim else 0, _shape(name), len(DATASETS[name].classes) - 1
    if images.dtype != np.uint8:
        wrong = f"{part} images as uint8 in 0 .. 255", images.dtype
    elif images.shape != (n, *shape) or n == 0:
        wrong = f"{part} images of shape (N, {', '.join(map(str, shape))}), N > 0", images.shape
    elif part == "training" and n <= VALIDATION:
        wrong = f"more than {VALIDATION} training images, as many as make up the validation split", n
    elif not np.issubdtype(labels.dtype, np.integer):
        wrong = f"{part} labels as whole numbers", labels.dtype
    elif labels.shape not in ((n,), (n, 1)):
        wrong = f"{part} labels of shape ({n},), one an image", labels.shape
    elif labels.min() < 0 or labels.max() > last:
        wrong = f"{part} labels in 0 .. {last}", f"{labels.min()} .. {labels.max()}"
    else:
        images = np.ascontiguousarray(images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2))
        return torch.from_numpy(images), torch.from_numpy(labels.reshape(n).astype(np.int64))
    raise _wrong(path, *wrong, _fetch_again(name))


def read_files(name: str, folder: Path, download: bool) -> tuple[Arrays, Arrays, str | None]:
    """Read torchvision's layout of MNIST or CIFAR-10, else an npz, else a download of these two; name a known copy."""
    npz, title = folder / f"{name}.npz", DATASETS[name].title
    put = f"put a Keras-style {npz.name} there, with x_train, y_train, x_test, y_test as uint8."
    if name not in _TORCHVISION:
        if npz.exists():
            return *_read_npz(name, npz), None
        raise DataError(
            f"no {title} in {folder.absolute()}: expected {npz.name}; got nothing. Point --data-dir or INTERP_DATA to "
            f"a folder, and {put}"
        )
    read, files = {"mnist": (_read_mnist, _MNIST_FILES), "cifar10": (_read_cifar10, CIFAR10_FILES)}[name]
    layout = Path(next(iter(files))).parent

    def complete():
        return all((folder / file).is_file() for file in files)

    if not complete() and npz.exists():
        return *_read_npz(name, npz), None
    tried = _download(name, folder) if download and not complete() else "not tried"
    if not complete():
        raise DataError(
            f"no {title} in {folder.absolute()}: expected {layout}/ ({len(files)} files) "
            f"or {npz.name}; got neither (download: {tried}). Do one of three things: with a network, run "
            f"`python -m interp_lib data {name}`; or point --data-dir or INTERP_DATA to a folder in "
            f"torchvision's layout, with {layout}/ in it; or {put}"
        )
    return *read(folder), "original" if name == "cifar10" else None  # CIFAR-10's md5 were checked


def _download(name: str, folder: Path) -> str:
    """Download with torchvision; return "done" or the reason of a failure."""
    timeout = socket.getdefaulttimeout()
    try:
        datasets = _import("torchvision.datasets", "torchvision", "a download")
        # torchvision sets no timeout, and would wait for minutes on a network that drops packets silently.
        socket.setdefaulttimeout(30)
        getattr(datasets, _TORCHVISION[name])(str(folder), download=True)
    except Exception as error:  # networks, mirrors and disks raise many kinds of errors
        return f"failed, {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        socket.setdefaulttimeout(timeout)
    return "done"


def _read_npz(name: str, path: Path) -> tuple[Arrays, Arrays]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    expected = f"an npz file of plain arrays {', '.join(keys)}"
    try:
        with opened(path, _largest(name)) as file:
            with zipfile.ZipFile(file) as archive:  # unpacked arrays may be 1,000 times the file's size
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > _largest(name):
                raise FileError(f"{unpacked / 1e6:,.0f} MB unpacked where at most {_largest(name) / 1e6:,.0f} are read")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:  # loading a pickle can run any program
                members = archive.files
                arrays = [np.asarray(archive[key]) for key in keys if key in members]  # plain bytes if it is no .npy
    except OSError as error:
        if error.filename:  # an error of the disk; numpy's errors about the content name no file
            raise
        raise _wrong(path, expected, f"what cannot be read as one ({error})", _fetch_again(name)) from None
    except Exception as error:  # numpy, zipfile and zlib raise many kinds of errors
        raise _wrong(path, expected, f"what cannot be read as one ({error})", _fetch_again(name)) from None
    if len(arrays) < len(keys):
        raise _wrong(path, expected, f"{', '.join(members) or 'none of them'}", _fetch_again(name))
    x_train, y_train, x_test, y_test = arrays
    return _checked(x_train, y_train, name, path, "training"), _checked(x_test, y_test, name, path, "test")


def _shape(name: str) -> tuple[int, ...]:
    shape = DATASETS[name].shape
    assert shape is not None  # datasets without a shape have readers of their own
    return shape


def _largest(name: str) -> int:
    """Return the largest accepted size in bytes: MOST_IMAGES images of the dataset with int64 labels."""
    return MOST_IMAGES * (math.prod(_shape(name)) + 8)


def _content(path: Path, name: str, expected: str) -> bytes:
    """Read a file of a dataset; raise a DataError when it is a pipe, a folder or too large."""
    try:
        return read_bytes(path, _largest(name))
    except FileError as error:
        raise _wrong(path, expected, f"what cannot be read: {error}", _fetch_again(name)) from None


def _read_mnist(folder: Path) -> tuple[Arrays, Arrays]:
    splits = []
    for part, prefix in _MNIST_PARTS.items():
        images, labels = (file for file in _MNIST_FILES if f"/{prefix}-" in file)
        arrays = _read_idx(folder / images, 3), _read_idx(folder / labels, 1)
        splits.append(_checked(*arrays, "mnist", folder / images, part))
    training, test = splits
    return training, test


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """Read MNIST's idx format: bytes 0, 0, 8 (for uint8), number of axes; sizes as big-endian int32; data."""
    expected = f"an idx file of uint8 with {axes} axes"
    # bytearray, because torch.from_numpy warns about an array that cannot be written to.
    raw = np.frombuffer(bytearray(_content(path, "mnist", expected)), np.uint8)
    magic, header = [0, 0, 8, axes], 4 + 4 * axes
    shape = raw[4:header].view(">u4").tolist() if len(raw) >= header else ()
    if raw[:4].tolist() != magic or len(shape) != axes or len(raw) != header + math.prod(shape):
        raise _wrong(path, expected, f"{len(raw)} bytes that are not a whole one", _fetch_again("mnist"))
    return raw[header:].reshape(shape)


def _read_cifar10(folder: Path) -> tuple[Arrays, Arrays]:
    batches = []
    for file, md5 in CIFAR10_FILES.items():
        content = _content(folder / file, "cifar10", f"the original file, md5 {md5}")
        came = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if came != md5:  # checked first, because loading a pickle can run any program
            came = f"{len(content)} bytes with md5 {came}"
            raise _wrong(folder / file, f"the original file, md5 {md5}", came, _fetch_again("cifar10"))
        batch = pickle.loads(content, encoding="latin1")
        batches.append((torch.from_numpy(batch["data"]).view(-1, 3, 32, 32), torch.tensor(batch["labels"])))
    *training, test = batches
    return tuple(torch.cat(parts) for parts in zip(*training, strict=True)), test


def read_digits() -> tuple[Arrays, Arrays, None]:
    """Read scikit-learn's 8x8 digits, enlarged to 28x28: (validation then training images) and test images.

    The splits are stratified: every class has its share of each. The interpolation is bilinear with half-pixel centres
    and uses integers: value 8 stands for exactly 127.5, which floats would round up on one machine and down on another.
    """
    bunch = _import("sklearn.datasets", "scikit-learn", "the dataset digits").load_digits()
    centre = np.clip(4 * np.arange(28) - 5, 0, 98)  # centre of a fine pixel, in fourteenths of a coarse one
    weight = np.maximum(14 - np.abs(centre[:, None] - 14 * np.arange(8)), 0)
    images = weight @ bunch.images.astype(np.int64) @ weight.T  # white is 16 * 14 * 14 = 3136
    # Adding 1568, half of 3136, rounds to the nearest integer, halves up.
    images = torch.from_numpy((255 * images + 1568) // 3136).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(bunch.target[order], kind="stable")]
    picks = []
    for size in (DIGITS_TEST, DIGITS_VALIDATION):  # evenly spaced positions in images sorted by class
        positions = np.arange(size) * len(order) // size
        picks.append(np.sort(order[positions]))
        order = np.delete(order, positions)
    test, training = picks[0], np.concatenate([picks[1], np.sort(order)])
    return (images[training], labels[training]), (images[test], labels[test]), None
