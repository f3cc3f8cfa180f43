"""Datasets -> tensors in [0, 1], with the paper's splits and its evaluation subset.

Images are kept as bytes (N, C, H, W) and become floats when they are asked for: all of MNIST takes 55 MB. A
dataset says which copy it is: "original" only where checksums prove it, never on the word of a file's name.

Needs torch and numpy; scikit-learn (digits), PIL (restricted_imagenet), torchvision (downloads) where used.

Source: section 5 for the datasets; the released code for the splits and the evaluation subset, which the text
leaves out.
"""

import hashlib
import importlib
import math
import os
import pickle
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DIGITS = tuple("0123456789")
CLASSES = {
    "digits": DIGITS,
    "mnist": DIGITS,
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "restricted_imagenet": ("dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect"),
}
# First and last ImageNet index of every class of Restricted ImageNet, in the order of its classes.
IMAGENET_RANGES = (
    *((151, 268), (281, 285), (30, 32), (33, 37), (80, 100)),
    *((365, 382), (389, 397), (118, 121), (300, 319)),
)
VALIDATION = 5000
DIGITS_VALIDATION, DIGITS_TEST = 200, 400

_TITLES = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "restricted_imagenet": "R-ImageNet"}
_IMAGE_SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}
# (fingerprint of the test split, of all training images) -> which copy. Both: the right test images
# beside other training images are no original.
_KNOWN_COPIES = {
    (
        "cdb4a097ad9443104f4b29c2d71663f145ae9b6590091d648890d6405218015d",
        "9f28ef089506d42cc13a0f85bed5fc41370843755a57072931a7cb1db483440f",
    ): "original",  # digits
    (
        "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b",
        "71d3be42f93ad20da73bb4a9744d0bebdaa6832be56dc010e21940e72c4c8b1e",
    ): "original",  # mnist
    (
        "cdc671490cec7e6dd53f00a88535c2ed8895ec749924027d6a7ccf7f7509fd75",
        "ada9c7478ebe3c238fe19487f25fbcb1bc9da7e9760753f7ea5e62646a0298e7",
    ): "JPEG copy",  # cifar10, every image once through JPEG
}
_MNIST_PARTS = {"training": "train", "test": "t10k"}
_MNIST_FILES = tuple(
    f"MNIST/raw/{part}-{kind}"
    for part in _MNIST_PARTS.values()
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
# File -> md5, as torchvision checks them: five training batches, then the test batch.
_CIFAR10_FILES = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}


class DataError(ValueError):
    """Data that is missing, damaged or not what its name says; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images as bytes with their labels.

    Attributes:
        images: uint8 (N, C, H, W) in 0 .. 255.
        labels: int64 (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images {tuple(self.images.shape[1:])})"

    def x(self, index=slice(None)) -> Tensor:
        """Images float32 (N, C, H, W) in [0, 1], images[index] / 255; `index` is a slice or a tensor."""
        return self.images[index].float() / 255


@dataclass(frozen=True, eq=False)
class EvaluationSubset:
    """The images that the paper's tables rest on, with the targets of its targeted attacks.

    Attributes:
        index: int64 (N,), positions in the test split.
        x: float32 (N, C, H, W) in [0, 1].
        y: int64 (N,), true labels.
        target: int64 (N,), a uniformly drawn class other than y.
    """

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    _generator_state: tuple = field(repr=False)

    def random_start(self, eps: float) -> Tensor:
        """The draw that follows the targets: uniform in (-eps, eps), float32 (N, C, H, W).

        One underlying draw serves every eps, so that starts for two eps are multiples of each other. Drawn as
        (N, H, W, C), the released code's order of axes. Neither clipped to the box nor added to x.

        Args:
            eps: perturbation size in [0, 1], the unit of the pixels.

        Raises:
            ValueError: eps out of range.
        """
        if not 0 <= eps <= 1:
            raise ValueError(
                f"eps must lie in [0, 1], the unit of the pixels; got {eps}. Write 8/255, not 8."
            )
        generator = np.random.RandomState()
        generator.set_state(self._generator_state)
        n, c, h, w = self.x.shape
        start = torch.from_numpy(generator.uniform(-eps, eps, (n, h, w, c)))
        return start.float().permute(0, 3, 1, 2).contiguous().to(self.x.device)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, and which copy of the dataset they come from.

    Attributes:
        name: "digits", "mnist", "cifar10" or "restricted_imagenet".
        title: what pages and records print; names the copy unless it is the original.
        copy: "original", "JPEG copy", "unverified copy" or "sample".
        fingerprint: sha256 over the shape, the bytes and the labels of the test images.
        classes: names of the classes, in the order of the labels.
        train, validation, test: the splits; the first two are empty for restricted_imagenet.
    """

    name: str
    title: str
    copy: str
    fingerprint: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.test.images.shape[1:])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def evaluation_subset(self, n: int = 200, seed: int = 99) -> EvaluationSubset:
        """The paper's evaluation subset: the first n of a permutation of the test images, then targets.

        Follows the released code, draw by draw, from numpy's legacy generator; the global one is left alone.

        Args:
            n: number of images, 1 .. len(test).
            seed: of the legacy generator.

        Raises:
            DataError: n is not in 1 .. len(test).
        """
        if not 1 <= n <= len(self.test):
            raise DataError(f"n must lie in 1 .. {len(self.test)}, the test images of {self.title}; got {n}.")
        generator = np.random.RandomState(seed)
        index = torch.from_numpy(generator.permutation(len(self.test))[:n]).to(self.test.labels)
        y = self.test.labels[index]
        offset = torch.from_numpy(generator.randint(self.num_classes - 1, size=n)).to(y)
        target = (y + 1 + offset) % self.num_classes
        return EvaluationSubset(index, self.test.x(index), y, target, generator.get_state())


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    download: bool = True,
    device: str | torch.device = "cpu",
) -> Dataset:
    """Load a dataset.

    mnist and cifar10 are looked for in torchvision's layout, then as Keras-style `<name>.npz`, then
    downloaded; their first 5,000 training images are the validation split. digits is scikit-learn's: 1,797
    images, 400 to test, 200 to validate, the rest to train. restricted_imagenet has test images only: the one
    network used on it is the authors' released one, and nothing is trained.

    Args:
        name: "digits", "mnist", "cifar10" or "restricted_imagenet".
        data_dir: folder with the data; None means the environment variable INTERP_DATA, else ./data.
        download: whether mnist and cifar10 may be downloaded into that folder with torchvision.
        device: where the tensors are put.

    Raises:
        DataError: no data, or data that is not what its name says.
    """
    if name not in _TITLES:
        raise DataError(f"unknown dataset {name!r}; known are {', '.join(_TITLES)}.")
    try:
        if name == "digits":
            train, test, copy = _read_digits()
        elif name == "restricted_imagenet":
            train, test, copy = _read_restricted_imagenet(_data_folder(data_dir))
        else:
            train, test, copy = _read_files(name, _data_folder(data_dir), download)
    except OSError as error:  # a disk, or permissions
        raise DataError(f"{error.filename}: expected a readable file; got {error.strerror}.") from None
    mark = fingerprint(test)
    copy = copy or _KNOWN_COPIES.get((mark, fingerprint(train)), "unverified copy")
    kind = f"{len(test)}-image sample" if copy == "sample" else copy
    title = _TITLES[name] if copy == "original" else f"{_TITLES[name]}, {kind}"
    cut = DIGITS_VALIDATION if name == "digits" else VALIDATION
    train, validation = (Split(train.images[i], train.labels[i]) for i in (slice(cut, None), slice(cut)))
    splits = (Split(s.images.to(device), s.labels.to(device)) for s in (train, validation, test))
    return Dataset(name, title, copy, mark, CLASSES[name], *splits)


def fingerprint(split: Split) -> str:
    """sha256 over the shape as "(N, C, H, W)", the images' bytes and the labels as little-endian int64."""
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    digest.update(split.images.cpu().contiguous().numpy())
    digest.update(split.labels.cpu().numpy().astype("<i8"))
    return digest.hexdigest()


def _wrong(path: Path, expected: str, came: object, advice: str) -> DataError:
    return DataError(f"{path}: expected {expected}; got {came}. {advice}")


def _fetch_again(name: str) -> str:
    return f"Delete it, then run `python -m interp_lib data {name}`."


def _import(module: str, package: str, reason: str):
    """A module that only some datasets need, or a DataError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{reason} needs {package}, which does not import: pip install {package}.") from None


def _data_folder(data_dir: str | os.PathLike | None) -> Path:
    """The folder asked for, which must exist, or ./data, which need not."""
    asked = data_dir if data_dir is not None else os.environ.get("INTERP_DATA") or None
    folder = Path("data" if asked is None else asked).expanduser()
    if not folder.is_dir() and (asked is not None or folder.exists()):
        came = "a file" if folder.exists() else "nothing: it does not exist"
        raise _wrong(folder, "a folder of data", came, "Create it, or correct --data-dir or INTERP_DATA.")
    return folder


def _checked(images: np.ndarray, labels: np.ndarray, name: str, path: Path, part: str) -> Split:
    """What a file held as a split, or a DataError: (N, H, W) or (N, H, W, 3) -> (N, C, H, W)."""
    n, shape, last = len(images) if images.ndim else 0, _IMAGE_SHAPES[name], len(CLASSES[name]) - 1
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
        return Split(torch.from_numpy(images), torch.from_numpy(labels.reshape(n).astype(np.int64)))
    raise _wrong(path, *wrong, _fetch_again(name))


def _read_files(name: str, folder: Path, download: bool) -> tuple[Split, Split, str | None]:
    """MNIST or CIFAR-10 and which copy, where known: torchvision's layout, else an npz, else a download."""
    read, files = {"mnist": (_read_mnist, _MNIST_FILES), "cifar10": (_read_cifar10, _CIFAR10_FILES)}[name]
    npz, layout = folder / f"{name}.npz", Path(next(iter(files))).parent

    def complete():
        return all((folder / file).is_file() for file in files)

    if not complete() and npz.exists():
        return *_read_npz(name, npz), None
    tried = _download(name, folder) if download and not complete() else "not tried"
    if not complete():
        raise DataError(
            f"no {_TITLES[name]} in {folder.absolute()}: expected {layout}/ ({len(files)} files) "
            f"or {npz.name}; got neither (download: {tried}). Do one of three things: with a network, run "
            f"`python -m interp_lib data {name}`; or point --data-dir or INTERP_DATA to a folder in "
            f"torchvision's layout, with {layout}/ in it; or put a Keras-style {npz.name} there, with "
            "x_train, y_train, x_test, y_test as uint8."
        )
    return *read(folder), "original" if name == "cifar10" else None  # CIFAR-10's files have passed their md5


def _download(name: str, folder: Path) -> str:
    """Download with torchvision; returns how it went."""
    timeout = socket.getdefaulttimeout()
    try:
        datasets = _import("torchvision.datasets", "torchvision", "a download")
        # torchvision sets no limit, and would wait for minutes where a network swallows packets.
        socket.setdefaulttimeout(30)
        {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name](str(folder), download=True)
    except Exception as error:  # networks, mirrors and disks each fail in their own way
        return f"failed, {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        socket.setdefaulttimeout(timeout)
    return "done"


def _read_npz(name: str, path: Path) -> tuple[Split, Split]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    expected = f"an npz file of plain arrays {', '.join(keys)}"
    try:
        archive = np.load(path, allow_pickle=False)  # a pickle can run any program while it is read
        found = getattr(archive, "files", ())
        arrays = [np.asarray(archive[key]) for key in keys if key in found]  # bytes where no .npy
    except Exception as error:  # numpy, zipfile, zlib and the disk each complain in their own way
        raise _wrong(path, expected, f"what cannot be read as one ({error})", _fetch_again(name)) from None
    if len(arrays) < len(keys):
        raise _wrong(path, expected, f"{', '.join(found) or 'none of them'}", _fetch_again(name))
    return _checked(*arrays[:2], name, path, "training"), _checked(*arrays[2:], name, path, "test")


def _read_mnist(folder: Path) -> tuple[Split, Split]:
    splits = []
    for part, prefix in _MNIST_PARTS.items():
        images, labels = (file for file in _MNIST_FILES if f"/{prefix}-" in file)
        arrays = _read_idx(folder / images, 3), _read_idx(folder / labels, 1)
        splits.append(_checked(*arrays, "mnist", folder / images, part))
    return tuple(splits)


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """MNIST's own format: bytes 0, 0, 8 (for uint8), number of axes; sizes as big-endian int32; data."""
    raw = np.fromfile(path, np.uint8)
    magic, header = [0, 0, 8, axes], 4 + 4 * axes
    shape = raw[4:header].view(">u4").tolist() if len(raw) >= header else ()
    if raw[:4].tolist() != magic or len(shape) != axes or len(raw) != header + math.prod(shape):
        expected, came = (
            f"an idx file of uint8 with {axes} axes",
            f"{len(raw)} bytes that are not a whole one",
        )
        raise _wrong(path, expected, came, _fetch_again("mnist"))
    return raw[header:].reshape(shape)


def _read_cifar10(folder: Path) -> tuple[Split, Split]:
    batches = []
    for file, md5 in _CIFAR10_FILES.items():
        content = (folder / file).read_bytes()
        came = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if came != md5:  # checked before the pickle is opened: it can run any program while it is read
            came = f"{len(content)} bytes with md5 {came}"
            raise _wrong(folder / file, f"the original file, md5 {md5}", came, _fetch_again("cifar10"))
        batch = pickle.loads(content, encoding="latin1")
        batches.append((torch.from_numpy(batch["data"]).view(-1, 3, 32, 32), torch.tensor(batch["labels"])))
    *training, test = batches
    return Split(*(torch.cat(parts) for parts in zip(*training, strict=True))), Split(*test)


def _read_digits() -> tuple[Split, Split, None]:
    """scikit-learn's 8x8 digits at 28x28: validation then training, and test, every class in its share.

    Bilinear with half-pixel centres, in whole numbers: value 8 stands for 127.5 exactly, which floats would
    round up on one machine and down on another.
    """
    bunch = _import("sklearn.datasets", "scikit-learn", "the dataset digits").load_digits()
    centre = np.clip(4 * np.arange(28) - 5, 0, 98)  # of a fine pixel, in fourteenths of a coarse one
    weight = np.maximum(14 - np.abs(centre[:, None] - 14 * np.arange(8)), 0)
    images = weight @ bunch.images.astype(np.int64) @ weight.T  # white is 16 * 14 * 14 = 3136
    images = torch.from_numpy((255 * images + 1568) // 3136).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(bunch.target[order], kind="stable")]
    picks = []
    for size in (DIGITS_TEST, DIGITS_VALIDATION):  # evenly spaced in an order by class
        positions = np.arange(size) * len(order) // size
        picks.append(np.sort(order[positions]))
        order = np.delete(order, positions)
    test, training = picks[0], np.concatenate([picks[1], np.sort(order)])
    return Split(images[training], labels[training]), Split(images[test], labels[test]), None


def _read_restricted_imagenet(folder: Path) -> tuple[Split, Split, str]:
    """val/<k>_<class>/ (a sample) or ImageNet's val/<wnid>/, in sorted order, and which of the two it was."""
    names = [f"{k}_{c}" for k, c in enumerate(CLASSES["restricted_imagenet"])]
    expected = f"the folders {names[0]} .. {names[-1]}, or ImageNet's 1000, n01440764 .. n15075141"
    advice = "Point --data-dir or INTERP_DATA to the validation images of ImageNet 2012 (image-net.org)."
    roots = (folder / "restricted_imagenet" / "val", folder / "val")
    root = next((root for root in roots if root.is_dir()), None)
    if root is None:
        raise _wrong(roots[0], expected, f"nothing, there or in {roots[1]}", advice)
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if found == names:
        copy, labelled = "sample", enumerate(names)
    elif len(found) == 1000 and all(re.fullmatch(r"n\d{8}", entry) for entry in found):
        copy = "unverified copy"
        labelled = ((k, found[i]) for k, (a, b) in enumerate(IMAGENET_RANGES) for i in range(a, b + 1))
    else:
        odd = ", ".join(sorted(set(names) ^ set(found))[:9])
        raise _wrong(root, expected, f"{len(found)} folders, missing or odd: {odd}", advice)
    paths, labels = [], []
    for k, entry in labelled:
        files = [p for p in sorted((root / entry).iterdir()) if re.fullmatch(r"[^.].*\.jpe?g", p.name, re.I)]
        if not files:
            raise _wrong(
                root / entry, "images *.jpg or *.JPEG", "none", "Add some: a whole class is missing."
            )
        paths += files
        labels += [k] * len(files)
    images, labels = _decode(paths), torch.tensor(labels)
    return Split(images[:0], labels[:0]), Split(images, labels), copy


def _decode(paths: list[Path]) -> Tensor:
    """Images as uint8 (N, 3, 224, 224), resized by PIL's bilinear filter, which averages where it shrinks."""
    from tqdm import tqdm

    pil = _import("PIL.Image", "pillow", "the dataset restricted_imagenet")
    images = np.empty((len(paths), 224, 224, 3), np.uint8)
    for i, path in enumerate(tqdm(paths, "decoding", unit=" images", leave=False, delay=1)):
        try:
            with pil.open(path) as image:
                images[i] = image.convert("RGB").resize((224, 224), pil.Resampling.BILINEAR)
        except Exception as error:  # PIL has a dozen kinds of errors for a damaged file
            raise _wrong(path, "an image", f"what cannot be read ({error})", "Replace the file.") from None
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
