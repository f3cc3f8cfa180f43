"""Networks that we trained: whole, or refused by name."""

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
import toys
from conftest import ROOT, content

from interp_lib.models import predict, trained
from interp_lib.models.architectures import build
from interp_lib.models.names import NetworkName
from interp_lib.models.trained import NetworkError
from interp_lib.study import schedules

HOW = {"dataset": "mnist", "method": "Int", "seed": 0, "schedule": "digits"}
NAME = NetworkName("mnist", "small", "IG-Norm-Sum", 3, "digits")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "net.safetensors"
    trained.save(build("small", (1, 8, 8), 3, seed=4).train(), path, HOW)
    return path


@pytest.mark.parametrize(
    "name, shape, classes", [("small", (1, 28, 28), 10), ("pool", (3, 9, 7), 2), ("wresnet", (3, 32, 32), 9)]
)
def test_round_trip(tmp_path, name, shape, classes):
    model = build(name, shape, classes, seed=1)
    trained.save(model, tmp_path / "net.safetensors", HOW)
    loaded, how = trained.load(tmp_path / "net.safetensors")
    assert type(loaded) is type(model) and not loaded.training
    assert (loaded.input_shape, loaded.num_classes) == (shape, classes)
    for (key, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert how == HOW | {"model": name, "input_shape": list(shape), "num_classes": classes}
    assert content(tmp_path) == ["net.json", "net.safetensors"]


def test_slug_and_path():
    assert NAME.slug == "mnist-small-ig-norm-sum-s3-digits"
    assert str(NAME.path("somewhere")) == f"somewhere/{NAME.slug}.safetensors"
    assert NAME.path().parent.name == "networks"
    others = [NetworkName("mnist", "small", "IG-Norm", 3, "digits"), NetworkName(*"abc", 3, "digits")]
    assert len({NAME.slug, *(other.slug for other in others)}) == 3


def test_available_is_in_order_of_name(tmp_path):
    for name in ("b", "a"):
        trained.save(build("small", (1, 8, 8), 3, seed=0), tmp_path / f"{name}.safetensors", HOW)
    assert [p.stem for p in trained.available(tmp_path)] == ["a", "b"]
    assert trained.available(tmp_path / "nowhere") == []


def refused(path):
    with pytest.raises(NetworkError) as caught:
        trained.load(path)
    assert str(path) in str(caught.value) and "train it again" in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999])
def test_truncated_weights_are_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@pytest.mark.parametrize("content", [b"text" * 100, pickle.dumps([1, 2]), b"\xff" * 64, b"\0" * 8])
def test_foreign_weights_are_refused(path, content):
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_half_is_missing(path, suffix):
    path.with_suffix(suffix).unlink()
    with pytest.raises(FileNotFoundError, match=f"net{suffix}"):
        trained.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "pool"},
        {"model": "resnet50"},
        {"model": None},
        {"input_shape": [3, 8, 8]},
        {"input_shape": []},
        {"input_shape": 8},
        {"input_shape": "188"},
        {"input_shape": [2_000_000, 8, 8]},
        {"input_shape": [1, 8, 10**12]},
        {"input_shape": [True, 8, 8]},
        {"input_shape": [1.0, 8, 8]},
        {"input_shape": [1, 8, 0]},
        {"num_classes": 4},
        {"num_classes": -1},
        {"num_classes": 10**12},
        {"num_classes": None},
    ],
    ids=str,
)
def test_a_json_of_another_network_is_refused(path, change):
    how = path.with_suffix(".json")
    how.write_text(json.dumps(json.loads(how.read_text(encoding="utf-8")) | change), encoding="utf-8")
    refused(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"model": "small"}', "3"])
def test_damaged_json_is_refused(path, content):
    path.with_suffix(".json").write_text(content, encoding="utf-8")
    refused(path)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/dev/zero", path),
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40),
    ],
    ids=["pipe", "folder", "device", "a hole of a terabyte"],
)
def test_what_is_no_file_of_that_size_is_refused_at_once(path, suffix, put):
    path.with_suffix(suffix).unlink()
    put(path.with_suffix(suffix))
    refused(path)


def test_messages_carry_no_escapes_and_no_megabytes(path):
    safetensors.torch.save_file({"\x1b[2J" + 10**6 * "k": torch.zeros(1)}, path)
    with pytest.raises(NetworkError) as caught:
        trained.load(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100


def test_weights_that_are_no_numbers_are_neither_written_nor_read(tmp_path):
    model, path = build("small", (1, 8, 8), 3, seed=0), tmp_path / "dead.safetensors"
    with torch.no_grad():
        model.conv2.bias[3] = float("nan")
    with pytest.raises(ValueError, match="dead.safetensors was not written: the network has weights that are NaN"):
        trained.save(model, path, HOW)
    assert content(tmp_path) == []
    with torch.no_grad():
        model.conv2.bias[3] = 0.0
    trained.save(model, path, HOW)
    tensors = safetensors.torch.load_file(path)
    tensors["conv2.bias"][3] = float("inf")
    safetensors.torch.save_file(tensors, path)
    refused(path)


def test_every_measured_network_is_the_one_that_is_there():
    """A network that was trained again leaves no number of the one before it."""
    weights = {}
    for path in [path for folder in (".", "paper") for path in trained.available(ROOT / "networks" / folder)]:
        model, how = trained.load(path)
        key = tuple(how[name] for name in ("dataset", "model", "method", "seed", "schedule", "gamma"))
        weights[key] = predict.fingerprint(model)
    checked = 0
    for record in schedules.read_schedules(ROOT / "results"):
        if record.settings.get("networks") == "ours":
            for row in (row for row in record.rows if "schedule" in row):
                key = record.settings["dataset"], record.settings["model"]
                key += tuple(row[name] for name in ("method", "seed", "schedule", "gamma"))
                assert row["weights"] == weights[key], (record.name, key)
                checked += 1
    assert checked > 1000


@pytest.mark.parametrize("make", [toys.Louder, lambda: toys.with_bias(build("small"))], ids=["class", "layer"])
def test_a_network_that_could_not_be_loaded_is_not_written(tmp_path, make):
    with pytest.raises(ValueError, match="was not written: it could not be loaded again"):
        trained.save(make(), tmp_path / "other.safetensors", HOW)
    assert not list(tmp_path.iterdir())
