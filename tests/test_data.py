"""Data against truth: numpy's legacy generator, scikit-learn, torchvision's checksums, the original MNIST."""

import dataclasses
import gc
import gzip
import hashlib
import os
import pickle
import socket
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits

from interp_lib import data, data_files
from interp_lib.data import DataError
from interp_lib.datasets import DATASETS

FINGERPRINTS = {
    "digits": "cdb4a097ad9443104f4b29c2d71663f145ae9b6590091d648890d6405218015d",
    "mnist": "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b",
    "JPEG copy": "cdc671490cec7e6dd53f00a88535c2ed8895ec749924027d6a7ccf7f7509fd75",
}
NPZ = [name for name, entry in DATASETS.items() if entry.shape]
SUPER_CLASSES = ("dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect")


@pytest.fixture(autouse=True)
def sealed(monkeypatch, tmp_path):
    """No network, no INTERP_DATA, and ./data is empty: what a test finds, it has written."""

    def refuse(*_, **__):
        raise OSError("no network in a test")

    monkeypatch.delenv("INTERP_DATA", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


def arrays(name="mnist", train=5003, test=230, seed=0):
    rng = np.random.default_rng(seed)
    shape, classes = DATASETS[name].shape, len(DATASETS[name].classes)
    return {
        "x_train": rng.integers(0, 256, (train, *shape), np.uint8),
        "y_train": rng.integers(0, classes, train, np.uint8),
        "x_test": rng.integers(0, 256, (test, *shape), np.uint8),
        "y_test": rng.integers(0, classes, test, np.uint8),
    }


def write(folder, name="mnist", **changes):
    content = {**arrays(name), **changes}
    np.savez(folder / f"{name}.npz", **{key: value for key, value in content.items() if value is not None})
    return content


def write_idx(folder, content):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for key, file in {
        "x_train": "train-images-idx3-ubyte",
        "y_train": "train-labels-idx1-ubyte",
        "x_test": "t10k-images-idx3-ubyte",
        "y_test": "t10k-labels-idx1-ubyte",
    }.items():
        array = content[key]
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (raw / file).write_bytes(header + array.tobytes())
    return raw


def write_batches(folder, monkeypatch, size=1010):
    """Batches in the format of the CIFAR-10 page, with their own checksums in place of the real ones."""
    rng = np.random.default_rng(0)
    sums, batches = {}, []
    (folder / "cifar-10-batches-py").mkdir()
    for file in data_files.CIFAR10_FILES:
        batch = {
            "data": rng.integers(0, 256, (size, 3072), np.uint8),
            "labels": rng.integers(0, 10, size).tolist(),
        }
        (folder / file).write_bytes(content := pickle.dumps(batch, protocol=2))
        sums[file] = hashlib.md5(content).hexdigest()
        batches.append(batch)
    monkeypatch.setattr(data_files, "CIFAR10_FILES", sums)
    return batches


def write_images(root, folders, each=2):
    """Images of one colour each: red is the folder, green the file."""
    for k, entry in enumerate(folders):
        (root / entry).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (20, 30), (k % 256, 10 * i, 7)).save(root / entry / f"{entry}_{i}.JPEG", quality=100)


def refused(name, folder, *words, download=False):
    """The one message of a refusal, which holds the words and comes without another error behind it."""
    with pytest.raises(DataError) as caught:
        data.load(name, folder, download=download)
    message = str(caught.value)
    for word in words:
        assert str(word) in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


# The evaluation subset


def test_evaluation_subset_is_the_legacy_calls(digits):
    np.random.seed(99)  # noqa: NPY002
    index = np.random.permutation(400)[:200]  # noqa: NPY002
    true = digits.test.labels.numpy()[index]
    target = (true + 1 + np.random.randint(9, size=200)) % 10  # noqa: NPY002
    start = np.random.uniform(-0.3, 0.3, (200, 28, 28, 1))  # noqa: NPY002
    subset = digits.evaluation_subset()
    assert (subset.index.numpy() == index).all()
    assert (subset.y.numpy() == true).all()
    assert (subset.target.numpy() == target).all()
    assert (subset.random_start(0.3).numpy() == start.transpose(0, 3, 1, 2).astype(np.float32)).all()
    assert (subset.x.numpy() == digits.test.images.numpy()[index] / np.float32(255)).all()
    assert [t.dtype for t in (subset.index, subset.x, subset.y, subset.target)] == [
        torch.int64,
        torch.float32,
        torch.int64,
        torch.int64,
    ]


def test_random_start_of_colour_images_is_drawn_channels_last(tmp_path):
    write(tmp_path, "cifar10")
    np.random.seed(5)  # noqa: NPY002
    np.random.permutation(230), np.random.randint(9, size=3)  # noqa: NPY002
    start = np.random.uniform(-8 / 255, 8 / 255, (3, 32, 32, 3))  # noqa: NPY002
    subset = data.load("cifar10", tmp_path).evaluation_subset(3, seed=5)
    assert (subset.random_start(8 / 255).numpy() == start.transpose(0, 3, 1, 2).astype(np.float32)).all()


def test_random_start_is_one_draw_for_every_eps(digits):
    subset = digits.evaluation_subset(20)
    unit = subset.random_start(1.0)
    assert unit.min() < -0.99 and unit.max() > 0.99
    torch.testing.assert_close(subset.random_start(0.1), 0.1 * unit)
    assert torch.equal(subset.random_start(1.0), unit)
    assert not subset.random_start(0.0).any()
    for eps in (8, -0.1, float("nan")):
        with pytest.raises(ValueError, match="8/255"):
            subset.random_start(eps)


def test_targets_are_every_other_class_and_the_global_generator_is_left_alone(digits):
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    subset = digits.evaluation_subset(400)
    subset.random_start(0.1)
    assert np.random.rand() == expected  # noqa: NPY002
    assert set(((subset.target - subset.y) % 10).tolist()) == set(range(1, 10))
    assert sorted(subset.index.tolist()) == list(range(400))


@pytest.mark.parametrize("n", [0, -1, 401])
def test_evaluation_subset_refuses_more_than_there_is(digits, n):
    with pytest.raises(DataError, match=f"1 .. 400.*{n}"):
        digits.evaluation_subset(n)


# Splits


def test_bytes_become_floats_exactly_as_division_says():
    split = data.Split(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64))
    assert (split.x().numpy().ravel() == (np.arange(256) / 255).astype(np.float32)).all()


def test_index_of_a_split_selects_images():
    split = data.Split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), torch.arange(5))
    assert (split.x(torch.tensor([4, 0])) * 255).round().flatten().tolist() == [4, 0]
    assert len(split) == 5 and split.x(slice(1, 3)).shape == (2, 1, 1, 1)


def test_everything_is_frozen(digits):
    for thing, name in ((digits, "copy"), (digits.test, "labels"), (digits.evaluation_subset(2), "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)


def test_import_needs_only_torch_and_numpy():
    code = "import sys, interp_lib.data; print({'torchvision', 'sklearn', 'PIL', 'IPython'} & set(sys.modules))"
    folder = os.path.dirname(os.path.dirname(data.__file__))
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# Digits


def test_digits_are_the_same_everywhere(digits):
    assert digits.fingerprint == FINGERPRINTS["digits"]
    assert (digits.title, digits.copy, digits.shape, digits.num_classes) == (
        "Digits",
        "original",
        (1, 28, 28),
        10,
    )


def test_digits_are_split_by_class_and_every_image_is_used_once(digits):
    truth = np.bincount(load_digits().target)
    total = 0
    for split, size in ((digits.test, 400), (digits.validation, 200), (digits.train, 1197)):
        assert len(split) == size
        count = split.labels.bincount().numpy()
        assert np.abs(count - truth * size / 1797).max() <= 1.5  # each share, up to rounding
        total = total + count
    assert (total == truth).all()


def test_digits_are_scikit_learns_resized(digits):
    bunch = load_digits()
    coarse = torch.from_numpy(bunch.images)[:, None] * 255 / 16
    truth = F.interpolate(coarse, (28, 28), mode="bilinear", align_corners=False)
    ours = torch.cat([digits.train.images, digits.validation.images, digits.test.images]).double().flatten(1)
    labels = torch.cat([digits.train.labels, digits.validation.labels, digits.test.labels])
    distance, nearest = torch.cdist(ours, truth.flatten(1)).min(1)
    assert torch.equal(nearest.sort().values, torch.arange(1797))  # each image once
    assert (ours - truth.flatten(1)[nearest]).abs().max() <= 0.5 + 1e-9  # rounding only
    assert (labels.numpy() == bunch.target[nearest.numpy()]).all()


# MNIST and CIFAR-10: what is read


@pytest.mark.parametrize("name", NPZ)
def test_npz_is_read_in_order(tmp_path, name):
    content, entry = write(tmp_path, name), DATASETS[name]
    dataset = data.load(name, tmp_path)
    assert (dataset.copy, dataset.title) == ("unverified copy", f"{entry.title}, unverified copy")
    assert (dataset.shape[1:], dataset.classes) == (entry.shape[:2], entry.classes)
    for split, x, y in (
        (dataset.validation, content["x_train"][:5000], content["y_train"][:5000]),
        (dataset.train, content["x_train"][5000:], content["y_train"][5000:]),
        (dataset.test, content["x_test"], content["y_test"]),
    ):
        images = split.images.permute(0, 2, 3, 1).numpy().reshape(x.shape)
        assert (images == x).all() and (split.labels.numpy() == y).all()
        assert split.labels.dtype == torch.int64 and split.images.is_contiguous()


def test_fashion_mnist_is_read_from_an_npz_and_from_nothing_else(tmp_path):
    """Its classes in the order of Xiao et al. (2017); whether a copy is the original is not known here."""
    message = refused("fashion_mnist", tmp_path, "no Fashion-MNIST", "fashion_mnist.npz", "x_train", download=True)
    assert "no network" not in message
    write(tmp_path, "fashion_mnist", y_test=np.full(230, 10))
    refused("fashion_mnist", tmp_path, "test labels in 0 .. 9", "Replace it")
    write(tmp_path, "fashion_mnist", y_test=np.arange(230) % 10)
    clothes = data.load("fashion_mnist", tmp_path)
    names = [clothes.classes[label] for label in clothes.test.labels[:10]]
    assert names[:2] == ["T-shirt/top", "trouser"] and names[8:] == ["bag", "ankle boot"]
    assert clothes.copy == "unverified copy" and len(clothes.evaluation_subset(9).x) == 9


def test_colour_npz_moves_channels_first_and_takes_columns_of_labels(tmp_path):
    content = write(tmp_path, "cifar10", y_test=np.arange(230, dtype=np.int32)[:, None] % 10)
    cifar10 = data.load("cifar10", tmp_path)
    assert (cifar10.test.images.numpy() == content["x_test"].transpose(0, 3, 1, 2)).all()
    assert cifar10.test.labels.tolist() == [i % 10 for i in range(230)]
    assert cifar10.classes[6] == "frog" and cifar10.title == "CIFAR-10, unverified copy"


def test_fingerprint_is_sha256_of_shape_bytes_and_labels_and_sees_each(tmp_path):
    content = write(tmp_path)
    truth = hashlib.sha256(
        b"(230, 1, 28, 28)" + content["x_test"].tobytes() + content["y_test"].astype("<i8").tobytes()
    )
    first = data.load("mnist", tmp_path)
    assert first.fingerprint == truth.hexdigest()
    content["y_test"][3] = (content["y_test"][3] + 1) % 10
    write(tmp_path, **content)
    assert data.load("mnist", tmp_path).fingerprint != first.fingerprint


def test_torchvision_layout_of_mnist_is_the_same_data(tmp_path):
    folder = tmp_path / "layout"
    write_idx(folder, write(tmp_path))
    first, second = data.load("mnist", tmp_path), data.load("mnist", folder)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part).images, getattr(second, part).images)
        assert torch.equal(getattr(first, part).labels, getattr(second, part).labels)
    assert second.copy == "unverified copy"


def test_torchvision_layout_of_cifar10_is_verified_and_goes_before_an_npz(tmp_path, monkeypatch):
    batches = write_batches(tmp_path, monkeypatch)
    write(tmp_path, "cifar10")
    cifar10 = data.load("cifar10", tmp_path)
    assert (cifar10.copy, cifar10.title) == ("original", "CIFAR-10")
    assert (cifar10.test.images.flatten(1).numpy() == batches[5]["data"]).all()
    assert cifar10.test.labels.tolist() == batches[5]["labels"]
    assert (cifar10.train.images.flatten(1).numpy() == batches[4]["data"][960:]).all()
    assert cifar10.validation.labels[1010:2020].tolist() == batches[1]["labels"]


def test_checksums_are_torchvisions():
    from torchvision.datasets import CIFAR10

    truth = {f"{CIFAR10.base_folder}/{file}": md5 for file, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)}
    assert data_files.CIFAR10_FILES == truth


def test_environment_names_the_folder_and_an_argument_goes_before_it(tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()  # with the next line a clone, whose data/ is the default from every folder in it
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    for name, seed in (("here", 1), ("there", 2), ("data", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, **arrays(seed=seed))
    default = data.load("mnist")
    monkeypatch.setenv("INTERP_DATA", str(tmp_path / "here"))
    environment, argument = data.load("mnist"), data.load("mnist", str(tmp_path / "there"))
    for loaded, seed in ((default, 3), (environment, 1), (argument, 2)):
        assert (loaded.test.images.numpy()[:, 0] == arrays(seed=seed)["x_test"]).all()


def test_download_goes_into_the_folder_with_torchvision(tmp_path, monkeypatch):
    import torchvision

    content = arrays()
    monkeypatch.setattr(
        torchvision.datasets.MNIST, "__init__", lambda self, root, download: write_idx(tmp_path, content)
    )
    mnist = data.load("mnist", tmp_path)
    assert (mnist.test.labels.numpy() == content["y_test"]).all()
    assert socket.getdefaulttimeout() is None


# MNIST and CIFAR-10: what is refused


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("download", [False, True])
def test_no_data_and_no_network_names_the_three_ways(tmp_path, name, download):
    layout = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-py"}[name]
    ways = (
        f"python -m interp_lib data {name}",
        "--data-dir",
        "INTERP_DATA",
        f"torchvision's layout, with {layout}",
    )
    message = refused(name, None, *ways, f"{name}.npz", "x_train", download=download)
    assert ("no network in a test" in message) == download
    assert "\n" not in message


def test_a_folder_that_does_not_exist_is_not_made(tmp_path, monkeypatch):
    refused("mnist", tmp_path / "typo", "typo", "does not exist", "--data-dir", download=True)
    assert not (tmp_path / "typo").exists()
    monkeypatch.setenv("INTERP_DATA", str(tmp_path / "other"))
    refused("mnist", None, "other", "INTERP_DATA")
    (tmp_path / "file").touch()
    refused("mnist", tmp_path / "file", "a file")


def test_unknown_name_lists_the_known_ones():
    refused("imagenet", None, "'imagenet'", "digits, mnist, cifar10, restricted_imagenet")


@pytest.mark.parametrize(
    "key, change, words",
    [
        ("x_test", lambda a: (a / 255).astype(np.float32), ("test images as uint8", "float32")),
        ("x_test", lambda a: a.astype(np.int64), ("test images as uint8", "int64")),
        ("x_test", lambda a: np.repeat(a[..., None], 3, -1), ("(N, 28, 28)", "(230, 28, 28, 3)")),
        ("x_test", lambda a: a[0], ("(N, 28, 28)", "(28, 28)")),
        ("x_test", lambda a: a[:0], ("N > 0", "(0, 28, 28)")),
        ("x_test", lambda a: a[0, 0, 0], ("(N, 28, 28)", "()")),
        ("x_train", lambda a: a[:5000], ("more than 5000 training images", "5000")),
        ("y_train", lambda a: a[:-1], ("training labels of shape (5003,)", "(5002,)")),
        ("y_test", lambda a: np.eye(10, dtype=np.uint8)[a], ("test labels of shape (230,)", "(230, 10)")),
        ("y_test", lambda a: a.astype(np.float64), ("test labels as whole numbers", "float64")),
        ("y_test", lambda a: a > 4, ("test labels as whole numbers", "bool")),
        ("y_train", lambda a: a + np.uint8(1), ("training labels in 0 .. 9", "1 .. 10")),
        ("y_test", lambda a: a.astype(np.int64) - 1, ("test labels in 0 .. 9", "-1 .. 8")),
        ("y_test", lambda a: None, ("x_train, y_train, x_test, y_test", "got x_train, y_train, x_test.")),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, key, change, words):
    write(tmp_path, **{key: change(arrays()[key])})
    refused("mnist", tmp_path, tmp_path / "mnist.npz", *words, "python -m interp_lib data mnist")


def test_grey_images_are_no_cifar10(tmp_path):
    write(tmp_path, "cifar10", x_train=np.zeros((5003, 32, 32), np.uint8))
    refused("cifar10", tmp_path, "cifar10.npz", "(N, 32, 32, 3)", "(5003, 32, 32)")


@pytest.mark.parametrize("kind", ["truncated", "damaged", "text", "empty", "array", "gzip", "folder"])
def test_files_that_are_no_npz_are_refused(tmp_path, kind):
    path = tmp_path / "mnist.npz"
    write(tmp_path)
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        damaged = bytearray(content)
        damaged[100_000] ^= 1  # inside the first images: the archive opens, its checksum does not hold
        choice = {
            "truncated": content[: len(content) // 2],
            "damaged": bytes(damaged),
            "text": b"<html>404: Not Found</html>",
            "empty": b"",
            "gzip": gzip.compress(content[:1000]),
        }
        path.write_bytes(choice[kind])
    refused("mnist", tmp_path, path, "npz file", "Delete it, then run `python -m interp_lib data mnist`")


class Trap:
    """An object whose unpickling shows."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_pickles_are_never_opened(tmp_path):
    trap = np.array([Trap()] * 230, dtype=object)
    write(tmp_path, y_test=trap)
    refused("mnist", tmp_path, "mnist.npz", "plain arrays")
    (tmp_path / "mnist.npz").write_bytes(pickle.dumps(trap))
    refused("mnist", tmp_path, "mnist.npz", "plain arrays")
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", pickle.dumps(trap))
    refused("mnist", tmp_path, "mnist.npz")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in data_files.CIFAR10_FILES:
        (tmp_path / file).write_bytes(pickle.dumps(Trap()))
    refused("cifar10", tmp_path, folder / "data_batch_1", "md5")
    assert not Trap.sprung
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung  # the trap works
    Trap.sprung = False


def test_truncated_batch_is_refused_by_name(tmp_path, monkeypatch):
    write_batches(tmp_path, monkeypatch, size=20)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_4"
    path.write_bytes(path.read_bytes()[:-100])
    refused("cifar10", tmp_path, path, "md5", "python -m interp_lib data cifar10")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"0", lambda b: b[:7], lambda b: b"", gzip.compress]
)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_idx_is_refused_by_name(tmp_path, file, damage):
    raw = write_idx(tmp_path, arrays(test=3))
    (raw / file).write_bytes(damage((raw / file).read_bytes()))
    refused("mnist", tmp_path, raw / file, "idx file", "python -m interp_lib data mnist")


def test_images_and_labels_swapped_between_idx_files_are_refused(tmp_path):
    raw = write_idx(tmp_path, arrays())
    (raw / "t10k-labels-idx1-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    refused("mnist", tmp_path, "t10k", "test labels of shape (230,)", "(5003,)")


def test_half_a_layout_is_no_layout(tmp_path):
    raw = write_idx(tmp_path, arrays(test=3))
    (raw / "t10k-labels-idx1-ubyte").unlink()
    refused("mnist", tmp_path, "4 files", "not tried")


def test_files_that_the_disk_refuses_are_named(tmp_path, monkeypatch):
    raw = write_idx(tmp_path, arrays(test=3))

    def refuse(path, largest):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(data_files, "read_bytes", refuse)
    refused("mnist", tmp_path, raw / "train-images-idx3-ubyte", "Permission denied")


# Restricted ImageNet


def test_sample_of_restricted_imagenet(tmp_path):
    names = [f"{k}_{name}" for k, name in enumerate(SUPER_CLASSES)]
    write_images(tmp_path / "restricted_imagenet" / "val", names)
    (tmp_path / "restricted_imagenet" / "val" / "0_dog" / ".DS_Store").touch()
    dataset = data.load("restricted_imagenet", tmp_path)
    assert (dataset.title, dataset.copy) == ("R-ImageNet, 18-image sample", "sample")
    assert dataset.classes == SUPER_CLASSES and dataset.shape == (3, 224, 224)
    assert dataset.test.labels.tolist() == [k for k in range(9) for _ in range(2)]
    corner = dataset.test.images[:, :, 0, 0].int()
    truth = torch.tensor([[k, 10 * i, 7] for k in range(9) for i in range(2)])
    assert (corner - truth).abs().max() <= 2  # JPEG; files in sorted order
    assert len(dataset.train) == len(dataset.validation) == 0 and dataset.train.x().shape == (0, 3, 224, 224)
    assert len(dataset.evaluation_subset(18).x) == 18


def test_imagenet_folder_is_mapped_by_ranges(tmp_path):
    root = tmp_path / "val"
    wnids = [f"n{10_000_000 + 3 * i}" for i in range(1000)]
    for wnid in wnids:
        (root / wnid).mkdir(parents=True)
    ranges = (
        (151, 268),
        (281, 285),
        (30, 32),
        (33, 37),
        (80, 100),
        (365, 382),
        (389, 397),
        (118, 121),
        (300, 319),
    )
    used = [(k, i) for k, (low, high) in enumerate(ranges) for i in range(low, high + 1)]
    for _, i in used:  # an image carries its ImageNet index in its colour
        Image.new("RGB", (8, 8), (60 * (i // 100), 2 * (i % 100), 0)).save(root / wnids[i] / "a.JPEG", quality=100)
    dataset = data.load("restricted_imagenet", tmp_path)
    assert (dataset.title, dataset.copy) == ("R-ImageNet, unverified copy", "unverified copy")
    assert dataset.test.labels.tolist() == [k for k, _ in used] and len(used) == 203
    colours = dataset.test.images[:, :2, 100, 100].int()
    truth = torch.tensor([[60 * (i // 100), 2 * (i % 100)] for _, i in used])
    assert (colours - truth).abs().max() <= 2
    (root / wnids[999]).rmdir()
    refused("restricted_imagenet", tmp_path, root, "999 folders", "0_dog")


def test_images_are_resized_and_not_cropped(tmp_path):
    names = [f"{k}_{name}" for k, name in enumerate(SUPER_CLASSES)]
    write_images(tmp_path / "val", names, each=1)
    image = np.zeros((100, 400, 3), np.uint8)
    image[:, :50], image[:, 350:] = 255, 255  # bright ends, which a crop would lose
    Image.fromarray(image).save(tmp_path / "val" / "0_dog" / "0_dog_0.JPEG", quality=100)
    first = data.load("restricted_imagenet", tmp_path).test.x(slice(1))[0]
    assert first[:, :, :20].min() > 0.9 and first[:, :, -20:].min() > 0.9 and first[:, :, 40:180].max() < 0.1


def test_restricted_imagenet_refusals_name_folder_and_file(tmp_path):
    names = [f"{k}_{name}" for k, name in enumerate(SUPER_CLASSES)]
    root = tmp_path / "val"
    refused("restricted_imagenet", tmp_path, "0_dog .. 8_insect", "ImageNet", root)
    write_images(root, names, each=1)
    bad = root / "4_bird" / "4_bird_0.JPEG"
    good = bad.read_bytes()
    for content in (b"no image", good[: len(good) // 2], b""):
        bad.write_bytes(content)
        refused("restricted_imagenet", tmp_path, bad, "Replace the file")
    bad.unlink()
    refused("restricted_imagenet", tmp_path, root / "4_bird", "none")
    (root / "4_bird").rename(root / "4_cat")
    refused("restricted_imagenet", tmp_path, root, "4_bird, 4_cat")


def photographs(folder):
    """A sample of one image a class; the path of the dog, for a test to put something else there."""
    names = [f"{k}_{name}" for k, name in enumerate(SUPER_CLASSES)]
    write_images(folder / "val", names, each=1)
    return folder / "val" / "0_dog" / "0_dog_0.JPEG"


@pytest.mark.parametrize("value, mode", [(32768, "I;16"), (257, "I;16"), (65535, "I;16"), (128, "L"), (1, "1")])
def test_greys_of_16_bits_are_scaled_and_not_cut_off(tmp_path, value, mode):
    path, white = photographs(tmp_path), {"I;16": 65535, "L": 255, "1": 1}[mode]
    Image.new(mode, (10, 12), value).save(path, "PNG")
    pixels = data.load("restricted_imagenet", tmp_path).test.images[0]
    assert pixels.unique().tolist() == [round(255 * value / white)]


@pytest.mark.parametrize("format", ["EPS", "TIFF", "GIF", "BMP", "PPM", "WEBP", "ICNS", "PDF", "TGA"])
def test_photographs_are_jpeg_or_png_whatever_they_are_called(tmp_path, monkeypatch, format):
    """Above all no EPS: Pillow would start Ghostscript on it."""
    path = photographs(tmp_path)
    Image.new("F" if format == "TIFF" else "RGB", (16, 16)).save(path, format)
    monkeypatch.setattr(subprocess, "Popen", None)
    refused("restricted_imagenet", tmp_path, path, "expected a JPEG or a PNG")


def test_a_large_photograph_is_not_decoded(tmp_path):
    """169 megapixels in a file of 200 kB."""
    path = photographs(tmp_path)
    Image.new("L", (13_000, 13_000)).save(path, "PNG")
    refused("restricted_imagenet", tmp_path, path, "13000 x 13000 pixels")


def test_a_packed_archive_is_not_unpacked(tmp_path):
    """3 MB of it would be 784 MB."""
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 28, 28)}
            )
            for _ in range(49):
                member.write(bytes(16 * 10**6))
    refused("mnist", tmp_path, "mnist.npz", "784 MB unpacked")


def test_an_archive_is_closed_and_arrays_may_be_written_to(tmp_path):
    write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load("mnist", tmp_path)
        write_idx(tmp_path, arrays(test=3))
        data.load("mnist", tmp_path)
        gc.collect()


@pytest.mark.parametrize(
    "put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "folder", "device"]
)
@pytest.mark.parametrize("kind", ["npz", "idx", "batch", "photograph"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind, put):
    name = {"npz": "mnist", "idx": "mnist", "batch": "cifar10", "photograph": "restricted_imagenet"}[kind]
    if kind == "npz":
        path = tmp_path / "mnist.npz"
    elif kind == "idx":
        path = write_idx(tmp_path, arrays(test=3)) / "train-images-idx3-ubyte"
    elif kind == "batch":
        write_batches(tmp_path, monkeypatch, size=20)
        path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    else:
        path = photographs(tmp_path)
    path.unlink(missing_ok=True)
    put(path)
    refused(name, tmp_path, *((path, ", not a file") if kind in ("npz", "photograph") else ("got neither",)))


def test_messages_carry_no_escapes_and_no_megabytes(tmp_path):
    np.savez(tmp_path / "mnist.npz", **{"\x1b[2J" + 500 * "k" + str(i): np.zeros(1) for i in range(100)})
    message = refused("mnist", tmp_path, "mnist.npz", "python -m interp_lib data mnist")
    assert message.isprintable() and len(message) < 1100


# The real data, where there is some


def test_real_mnist_is_the_original(real_mnist):
    assert (real_mnist.fingerprint, real_mnist.copy, real_mnist.title) == (
        FINGERPRINTS["mnist"],
        "original",
        "MNIST",
    )
    assert (len(real_mnist.train), len(real_mnist.validation), len(real_mnist.test)) == (55000, 5000, 10000)
    assert real_mnist.train.x().mean().item() == pytest.approx(0.1307, abs=5e-4)  # the field's mean
    assert real_mnist.test.labels.bincount().tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert real_mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_original_test_images_beside_other_training_images_are_no_original(real_mnist, tmp_path):
    write(tmp_path, x_test=real_mnist.test.images[:, 0].numpy(), y_test=real_mnist.test.labels.numpy())
    other = data.load("mnist", tmp_path)
    assert other.fingerprint == FINGERPRINTS["mnist"] and other.copy == "unverified copy"


def test_real_cifar10_says_which_copy_it_is(data_folder):
    try:
        cifar10 = data.load("cifar10", data_folder, download=False)
    except DataError as error:
        pytest.skip(f"needs a real CIFAR-10: {error}")
    assert (cifar10.copy == "JPEG copy") == (cifar10.fingerprint == FINGERPRINTS["JPEG copy"])
    assert cifar10.title == {"original": "CIFAR-10"}.get(cifar10.copy, f"CIFAR-10, {cifar10.copy}")
    assert cifar10.test.labels.bincount().tolist() == [1000] * 10
    assert cifar10.test.labels[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog


# One's own pictures


def painted(path, size=(40, 20), left=(200, 0, 0), right=(0, 0, 100), format="PNG", **more):
    """A picture of two halves."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format, **more)
    return path


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_of_any_size_is_scaled_and_cropped_at_its_middle(tmp_path, format):
    path = painted(tmp_path / "mine.jpg", size=(80, 20), format=format)
    x = data.picture(path, (3, 10, 10))
    assert x.shape == (1, 3, 10, 10) and x.dtype == torch.float32
    # The middle square of 80 x 20 is scaled to 10 x 10: its left half is red, its right half blue.
    assert (x[0, :, 5, 1] - torch.tensor([200, 0, 0]) / 255).abs().max() < 0.02
    assert (x[0, :, 5, 8] - torch.tensor([0, 0, 100]) / 255).abs().max() < 0.02


def test_a_grey_picture_has_one_channel_of_its_luminance(tmp_path):
    x = data.picture(painted(tmp_path / "a.png", left=(100, 100, 100), right=(255, 255, 255)), (1, 8, 8))
    assert x.shape == (1, 1, 8, 8) and x[0, 0, 4, 1].item() == pytest.approx(100 / 255) and x[0, 0, 4, 6] == 1


def test_a_camera_held_upright_gives_an_upright_picture(tmp_path):
    tags = Image.Exif()
    tags[274] = 6  # orientation: turn it clockwise by 90 degrees
    x = data.picture(painted(tmp_path / "a.jpg", size=(40, 40), format="JPEG", exif=tags), (3, 8, 8))
    assert x[0, 0, 1, 4] > 0.7 and x[0, 2, 6, 4] > 0.3 and x[0, 2, 1, 4] < 0.1  # red above, blue below


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\nxxxx", b"<svg></svg>"])
def test_what_is_no_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "cat.png").write_bytes(content)
    with pytest.raises(data.DataError, match=r"cat\.png: expected .*; got"):
        data.picture(tmp_path / "cat.png", (3, 8, 8))
    for missing in (tmp_path / "dog.png", tmp_path):
        with pytest.raises(data.DataError, match="expected|not a file"):
            data.picture(missing, (3, 8, 8))
    with pytest.raises(ValueError, match=r"shape must be \(1, H, W\) or \(3, H, W\); got \(2, 8, 8\)"):
        data.picture(tmp_path / "cat.png", (2, 8, 8))


def test_a_folder_of_pictures_is_a_dataset(tmp_path):
    for k in range(20):
        painted(tmp_path / "own" / ("dark" if k % 2 else "light") / f"{k:02}.png", left=(k, k, k), right=(k, k, k))
    (tmp_path / "own" / "dark" / "notes.txt").write_text("no picture")
    (tmp_path / "own" / ".hidden").mkdir()
    dataset = data.of_folder(tmp_path / "own", (1, 6, 6))
    assert (dataset.name, dataset.classes, dataset.shape) == ("own", ("dark", "light"), (1, 6, 6))
    assert [len(s) for s in (dataset.test, dataset.validation, dataset.train)] == [4, 2, 14]
    splits = (dataset.test, dataset.validation, dataset.train)
    seen = {int(i[0, 0, 0]): int(y) for s in splits for i, y in zip(s.images, s.labels, strict=True)}
    assert seen == {k: 1 - k % 2 for k in range(20)}  # every picture once, with the class of its folder
    assert data.of_folder(tmp_path / "own", (1, 6, 6)).fingerprint == dataset.fingerprint
    assert dataset.evaluation_subset(4).x.shape == (4, 1, 6, 6)


def test_a_folder_without_classes_is_refused(tmp_path):
    for folder, words in ((tmp_path / "none", "got no folder"), (tmp_path, "got 0 of them")):
        with pytest.raises(data.DataError, match=f"one a class; {words}"):
            data.of_folder(folder, (1, 6, 6))
    for name in ("a", "b"):
        painted(tmp_path / name / "1.png")
    with pytest.raises(data.DataError, match="at least 10 pictures; got 2"):
        data.of_folder(tmp_path, (1, 6, 6))
