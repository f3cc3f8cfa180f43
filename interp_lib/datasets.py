"""The one table of datasets: titles, classes and the shape of images; no PyTorch, so that commands answer at once."""

from typing import NamedTuple


class DatasetEntry(NamedTuple):
    """What is known of a dataset before its files are read.

    Attributes:
        title: the name that pages and records print.
        classes: names of the classes, in the order of the labels.
        shape: of one image in an npz file, (H, W) or (H, W, 3); None for a dataset with a reader of its own.
    """

    title: str
    classes: tuple[str, ...]
    shape: tuple[int, ...] | None = None


def words(text: str) -> tuple[str, ...]:
    """Return class names that are separated by commas."""
    return tuple(text.split(", "))


NUMERALS = tuple("0123456789")
CIFAR10 = words("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
RESTRICTED_IMAGENET = words("dog, cat, frog, turtle, bird, primate, fish, crab, insect")
CLOTHES = words("T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot")

# A dataset with a shape is read from `<name>.npz`, whose copy counts as unverified unless `data` knows its checksum.
DATASETS = {
    "digits": DatasetEntry("Digits", NUMERALS),
    "mnist": DatasetEntry("MNIST", NUMERALS, (28, 28)),
    "cifar10": DatasetEntry("CIFAR-10", CIFAR10, (32, 32, 3)),
    "restricted_imagenet": DatasetEntry("R-ImageNet", RESTRICTED_IMAGENET),
    "fashion_mnist": DatasetEntry("Fashion-MNIST", CLOTHES, (28, 28)),
}
TITLES = {name: entry.title for name, entry in DATASETS.items()}
