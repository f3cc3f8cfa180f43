"""Load datasets as tensors in [0, 1], with the paper's splits and its evaluation subset.

Images are stored as bytes (N, C, H, W) and converted to floats on request: all of MNIST takes 55 MB. A dataset states
which copy of the files it was read from: "original" only where checksums prove it, never because of a file's name.

Needs torch and numpy; also scikit-learn for digits, PIL for restricted_imagenet and torchvision for downloads.

Source: section 5 for the datasets; the released code for the splits and the evaluation subset, which the paper does
not describe.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .data_files import (
    DIGITS_VALIDATION,
    VALIDATION,
    DataError,
    data_folder,
    read_digits,
    read_files,
)
from .datasets import DATASETS, TITLES
from .photographs import read_folder, read_picture, read_restricted_imagenet

# (fingerprint of the test split, fingerprint of all training images) -> name of the copy. Both must match: the
# original test images together with other training images do not make an original dataset.
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
    ): "JPEG copy",  # cifar10, every image compressed once with JPEG
}


@dataclass(frozen=True, eq=False)
class Split:
    """Images, stored as bytes, and their labels.

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
        """Return images[index] / 255: float32 (N, C, H, W) in [0, 1]; `index` is a slice or a tensor."""
        return self.images[index].float() / 255


@dataclass(frozen=True, eq=False)
class EvaluationSubset:
    """The images on which the paper's tables are measured, with the targets of its targeted attacks.

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

    def to(self, device: str | torch.device) -> "EvaluationSubset":
        """Return the same subset on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("index", "x", "y", "target")}
        return replace(self, **tensors)

    def random_start(self, eps: float) -> Tensor:
        """Draw the random start of an attack: uniform in (-eps, eps), float32 (N, C, H, W).

        The draw follows that of the targets in the same random stream, as in the released code, and has its order of
        axes, (N, H, W, C). Every eps uses the same draw, so that the starts for two eps are multiples of each other.
        The result is neither clipped to the box nor added to x.

        Args:
            eps: perturbation size in [0, 1], the unit of the pixels.

        Raises:
            ValueError: eps out of range.
        """
        if not 0 <= eps <= 1:
            raise ValueError(f"eps must lie in [0, 1], the unit of the pixels; got {eps}. Write 8/255, not 8.")
        # A fresh generator at the stored state: calling this method twice gives the same start.
        generator = np.random.RandomState()
        generator.set_state(self._generator_state)
        n, c, h, w = self.x.shape
        start = torch.from_numpy(generator.uniform(-eps, eps, (n, h, w, c)))
        return start.float().permute(0, 3, 1, 2).contiguous().to(self.x.device)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of a dataset, and the copy of the dataset from which they were read.

    Attributes:
        name: a key of `datasets.DATASETS`.
        title: the name that pages and records print; it includes the copy unless that is the original.
        copy: "original", "JPEG copy", "unverified copy" or "sample".
        fingerprint: sha256 over the shape, the bytes and the labels of the test images.
        classes: names of the classes, in the order of the labels.
        train, validation, test: the splits; train and validation are empty for restricted_imagenet.
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
        """Draw the paper's evaluation subset: the first n images of a permutation of the test set, then targets.

        The draws are those of the released code, in the same order, from numpy's legacy generator. The global generator
        is not touched.

        Args:
            n: number of images, 1 .. len(test).
            seed: seed of the legacy generator.

        Raises:
            DataError: n is not in 1 .. len(test).
        """
        if not 1 <= n <= len(self.test):
            raise DataError(f"n must lie in 1 .. {len(self.test)}, the test images of {self.title}; got {n}.")
        generator = np.random.RandomState(seed)
        index = torch.from_numpy(generator.permutation(len(self.test))[:n]).to(self.test.labels)
        y = self.test.labels[index]
        offset = torch.from_numpy(generator.randint(self.num_classes - 1, size=n)).to(y)
        # The offset is at most C - 2, so that the target is never the true class.
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

    For mnist and cifar10, search the folder for torchvision's layout, then for a Keras-style `<name>.npz`, then
    download; for other datasets with a shape in `datasets.DATASETS`, such as fashion_mnist, search for the npz alone.
    The first 5,000 training images are the validation split. digits is scikit-learn's dataset of 1,797
    images: 400 for testing, 200 for validation, the rest for training. restricted_imagenet has test images only: the
    only network used on it is the one that the authors released, and nothing is trained.

    Args:
        name: a key of `datasets.DATASETS`.
        data_dir: folder with the data. Default: the environment variable INTERP_DATA; without it, data/ of the clone;
            without a clone, ./data.
        download: whether mnist and cifar10 may be downloaded into that folder with torchvision.
        device: device of the tensors.

    Raises:
        DataError: the data are missing, or are not the dataset that their name promises.
    """
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}.")
    try:
        if name == "digits":
            training, testing, copy = read_digits()
        elif name == "restricted_imagenet":
            training, testing, copy = read_restricted_imagenet(data_folder(data_dir))
        else:
            training, testing, copy = read_files(name, data_folder(data_dir), download)
    except OSError as error:  # a disk error, or missing permissions
        raise DataError(f"{error.filename}: expected a readable file; got {error.strerror}.") from None
    train, test = Split(*training), Split(*testing)
    mark = fingerprint(test)
    copy = copy or _KNOWN_COPIES.get((mark, fingerprint(train)), "unverified copy")
    kind = f"{len(test)}-image sample" if copy == "sample" else copy
    title = TITLES[name] if copy == "original" else f"{TITLES[name]}, {kind}"
    cut = DIGITS_VALIDATION if name == "digits" else VALIDATION
    train, validation = (Split(train.images[i], train.labels[i]) for i in (slice(cut, None), slice(cut)))
    splits = (Split(s.images.to(device), s.labels.to(device)) for s in (train, validation, test))
    return Dataset(name, title, copy, mark, DATASETS[name].classes, *splits)


def of_folder(folder: str | os.PathLike, shape: tuple[int, int, int], *, seed: int = 0) -> Dataset:
    """Make a dataset of one's own pictures: a folder with one folder of PNG and JPEG files for each class.

    A fifth of the pictures, drawn at random, is for testing, and a tenth for validation.

    Args:
        folder: the names of its folders are those of the classes, in alphabetical order.
        shape: (C, H, W) of the images, see `photographs.read_picture`.
        seed: of the draw.

    Raises:
        DataError: fewer than two classes, fewer than ten pictures, or a file that is not a picture.
    """
    images, labels, classes = read_folder(folder, shape)
    if len(labels) < 10:
        raise DataError(f"{folder}: expected at least 10 pictures; got {len(labels)}.")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ends = len(labels) // 5, len(labels) // 5 + max(len(labels) // 10, 1)
    test, validation, train = (
        Split(images[i], labels[i]) for i in (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])
    )
    name = os.path.basename(os.path.abspath(folder))
    return Dataset(name, name, "own pictures", fingerprint(test), classes, train, validation, test)


def picture(path: str | os.PathLike, shape: tuple[int, int, int]) -> Tensor:
    """Read one PNG or JPEG as an image (1, C, H, W) in [0, 1]; arguments and errors of `photographs.read_picture`."""
    return read_picture(path, shape)[None].float() / 255


def fingerprint(split: Split) -> str:
    """Return the sha256 of the shape as "(N, C, H, W)", the images' bytes and the labels as little-endian int64."""
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    digest.update(split.images.cpu().contiguous().numpy())
    digest.update(split.labels.cpu().numpy().astype("<i8"))
    return digest.hexdigest()
