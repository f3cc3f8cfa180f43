"""The authors' networks against numpy written from the protocol; and files that try to be more than that."""

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import RELEASED, RELEASED_FOLDER, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from interp_lib import models, paper
from interp_lib.models import pickles, predict, released
from interp_lib.models.predict import count_correct
from interp_lib.models.released import ReleasedNetworkError

IDS = ["-".join(name) for name in RELEASED]
needs_released = pytest.mark.skipif(
    not RELEASED, reason="needs the authors' networks: set INTERP_RELEASED to a folder with their .pkl files"
)


# The forward pass once more: numpy, float64, channels last as in the files


class Arrays(pickle.Unpickler):
    """numpy's own classes and nothing else: no code of the library is involved."""

    def find_class(self, module, name):
        assert (module.replace("_core", "core"), name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def pickled_arrays(path):
    with open(path, "rb") as file:
        layers = Arrays(file).load()
    return [[a.astype(np.float64) for a in layer] for layer in layers if not np.isnan(np.asarray(layer[0])).any()]


def windows(x, kernel, stride, fill):
    """TensorFlow's SAME: ceil(in / stride), the odd pixel right and below. (N, h, w, C, kernel, kernel)."""
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    return sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def conv(x, layer, stride=1):
    weight, bias = layer
    return np.tensordot(windows(x, weight.shape[0], stride, 0.0), weight, ([4, 5, 3], [0, 1, 2])) + bias


def max_pool(x):
    return windows(x, 2, 2, -np.inf).max((4, 5))


def relu(x):
    return np.maximum(x, 0)


def maps_small(x, layers):
    x = conv(x, layers[0], 2)
    x = conv(relu(x), layers[1], 2)
    return conv(relu(x), layers[2])


def maps_pool(x, layers):
    x = relu(max_pool(conv(x, layers[0])))
    return max_pool(conv(x, layers[1]))


def maps_wresnet(x, layers):
    x, layers = conv(x, layers[0]), layers[1:]
    for block in range(15):
        first, second = layers[2 * block : 2 * block + 2]
        stride = 2 if block in (5, 10) else 1
        out = conv(relu(conv(relu(x), first, stride)), second)
        if stride == 2:
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
            x = np.pad(x, [(0, 0), (0, 0), (0, 0), (c // 2, c // 2)])
        x = out + x
    return x


MAPS = {"small": maps_small, "pool": maps_pool, "wresnet": maps_wresnet}


@needs_released
@pytest.mark.parametrize("dataset, model, method", RELEASED, ids=IDS)
def test_forward_pass_is_the_protocols(dataset, model, method):
    path = released.find(dataset, model, method, RELEASED_FOLDER)
    network = released.read_network(path)
    side, channels = {"mnist": (28, 1), "cifar10": (32, 3), "restricted_imagenet": (224, 3)}[dataset]
    n = 1 if side == 224 else 3
    x = np.random.default_rng(0).random((n, side, side, channels))
    *convs, (head,) = pickled_arrays(path)
    maps = MAPS[model](x, convs)
    logits = maps.mean((1, 2)) @ head[0, 0]
    ours = torch.from_numpy(x).permute(0, 3, 1, 2)
    assert network.input_shape == (channels, side, side) and not network.training
    scale = np.abs(logits).max()
    single = network(ours.float()).detach().numpy()
    assert np.abs(single - logits).max() < 1e-4 * scale
    network.double()
    features = network.features(ours).detach().permute(0, 2, 3, 1).numpy()
    assert np.abs(features - maps).max() < 1e-9 * np.abs(maps).max()
    assert np.abs(network(ours).detach().numpy() - logits).max() < 1e-9 * scale


@needs_released
def test_all_31_networks_are_there_in_the_order_of_the_tables(released_folder):
    names = released.available(released_folder)
    assert len(names) == len(set(names)) == 31
    methods = [method for dataset, model, method in names if (dataset, model) == ("mnist", "small")]
    assert methods == ["Normal", "Adv", "TRADES", "IG-Norm", "IG-Norm-Sum", "Int-1-class", "Int", "Int-Adv"]


def printed_clean(table, dataset, model):
    """Method -> the printed accuracy at eps = 0."""
    unit = (table, dataset, model, "0")
    rows = (r for r in paper.paper_tables() if (r["table"], r["dataset"], r["model"], r["level"]) == unit)
    return {row["method"]: row["value"] for row in rows}


@pytest.mark.parametrize("table, model", [("3", "Small"), ("A1", "Pool")])
def test_clean_accuracies_are_the_printed_ones(released_folder, mnist_subset, table, model):
    printed = printed_clean(table, "MNIST", model)
    assert set(printed) == set(released.METHODS)
    for method, value in printed.items():
        network = released.read_network(released.find("mnist", model.lower(), method, released_folder))
        correct = count_correct(network, mnist_subset.x, mnist_subset.y)
        assert f"{correct / 200:.3f}" == f"{float(value):.3f}", method


# Files for the refusals: a network that reads, and what is put in its place


def layers_of(model):
    """A network as the authors' list: HWIO weights, biases, a pool's NaN, and the head."""
    convs = [m for m in model.modules() if isinstance(m, models.SameConv2d)]
    layers = [(c.weight.detach().permute(2, 3, 1, 0).numpy(), c.bias.detach().numpy()) for c in convs]
    layers.insert(1, (np.full((2, 2), np.nan, np.float32), np.float32(np.nan)))
    return [*layers, (model.classifier.weight.detach().T[None, None].numpy(),)]


@pytest.fixture(scope="module")
def layers():
    return layers_of(models.build("small", (1, 28, 28), 10, seed=5))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_network_reads_in_every_protocol_or_is_refused(tmp_path, layers, protocol):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(layers, protocol=protocol))
    if protocol < 3:  # bytes travel as text through a codec there, which is a program of its own
        with pytest.raises(ReleasedNetworkError, match="_codecs.encode" if protocol else "the operation LIST"):
            released.read_network(path)
    elif protocol > 4:
        with pytest.raises(ReleasedNetworkError, match="_frombuffer"):
            released.read_network(path)
    else:
        network, expected = released.read_network(path), models.build("small", seed=5)
        for a, b in zip(network.state_dict().values(), expected.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("order", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_survive_byte_order_width_and_memory_order(tmp_path, order, fortran):
    path = tmp_path / "network.pkl"
    array = np.arange(24).reshape(2, 3, 4, 1) / 8
    path.write_bytes(pickle.dumps([(np.array(array, order, order="F" if fortran else "C"),)], protocol=3))
    ((read,),) = pickles.read_layers(path)
    assert read.dtype == np.float32 and (read == array).all()


class Trap:
    """Unpickled, it creates a file: by REDUCE of whatever it is told."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Armed:
    """Unpickled, it creates a file: by BUILD."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        open(state["path"], "w").close()


class Elsewhere(pickle.Pickler):
    def persistent_id(self, obj):
        return f"elsewhere {len(obj)}" if isinstance(obj, np.ndarray) else None


def touch(path):
    open(path, "w").close()


def reduced(module, name, argument, *, stack=False):
    """A pickle that calls module.name(argument), written by hand."""
    text = f"{argument}".encode()
    push = b"X" + len(text).to_bytes(4, "little") + text
    if stack:
        names = b"".join(b"\x8c" + bytes([len(n)]) + n.encode() for n in (module, name))
        return b"\x80\x04" + names + b"\x93" + push + b"\x85R."
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + push + b"\x85R."


def traps(marker, layers):
    """Name -> bytes of a pickle that creates the marker where it is read by pickle.load."""
    command, code = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    plausible = list(layers)
    plausible[2] = (layers[2][0], Trap(touch, str(marker)))
    inside = np.array([Trap(os.system, command)], dtype=object)
    state = pickle.dumps(Trap(touch, str(marker)), protocol=2)[2:-1]
    text = command.encode()
    push = b"X" + len(text).to_bytes(4, "little") + text
    return {
        "os.system": reduced("os", "system", command),
        "posix.system": reduced("posix", "system", command, stack=True),
        "eval": reduced("builtins", "eval", code),
        "exec": reduced("builtins", "exec", code, stack=True),
        "python 2's eval": reduced("__builtin__", "eval", code),
        "an attribute of a module": reduced("glob", "os.system", command, stack=True),
        "nested in a plausible list": pickle.dumps(plausible, protocol=3),
        "build": pickle.dumps([(Armed(str(marker)),)], protocol=3),
        "object array": pickle.dumps([(inside,)], protocol=3),
        # numpy's own array, given as its state the result of a call
        "state of an array": pickle.dumps([], protocol=2)[:2]
        + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        + state
        + b"b.",
        "inst": b"(" + push + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + push + b"o.",
        "behind a list": pickle.dumps(layers, protocol=3)[:-1] + b"0" + reduced("os", "system", command)[2:],
    }


NAMES = list(traps("marker", [(0, 0)] * 5))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_are_refused_and_execute_nothing(tmp_path, layers, name):
    marker, path = tmp_path / "marker", tmp_path / "mnist_smallgap_int_100.pkl"
    path.write_bytes(traps(marker, layers)[name])
    for read in (pickles.read_layers, released.read_network, released.load):
        with pytest.raises(ReleasedNetworkError) as caught:
            read(path)
        assert str(path) in str(caught.value) and "Nothing in it was executed" in str(caught.value)
    assert not marker.exists()
    try:  # the same file is dangerous: this is what the reader has to withstand
        with open(path, "rb") as file:
            pickle.load(file)
    except Exception:
        pass
    assert marker.exists()


def test_hostile_pickles_neither_execute_nor_crash_nor_hang_nor_take_memory(tmp_path):
    """Some 200 of them, in a process whose memory and time are limited; the last line before a crash names the file."""
    script = ROOT / "tests/models/hostile_pickles.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    said = dict(map(json.loads, line.split(": ", 1)) for line in done.stdout.splitlines())
    assert said.pop("executed") == "False" and len(said) >= 150
    assert {name: text for name, text in said.items() if not text.startswith("refused: ")} == {}
    assert all(text.isprintable() and len(text) < 1100 for text in said.values())


def test_no_module_is_imported(tmp_path, monkeypatch):
    (tmp_path / "bait_for_the_reader.py").write_text("value = list\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x02cbait_for_the_reader\nvalue\n.")
    with pytest.raises(ReleasedNetworkError, match="bait_for_the_reader"):
        pickles.read_layers(path)
    assert "bait_for_the_reader" not in sys.modules


def elsewhere(layers):
    buffer = io.BytesIO()
    Elsewhere(buffer, protocol=2).dump(layers)
    return buffer.getvalue()


REFUSED = {
    "numpy.load": (lambda _: reduced("numpy", "load", "file.npy"), "numpy.load"),
    "numpy.fromfile": (
        lambda _: reduced("numpy.core.multiarray", "fromfile", "/etc/hostname"),
        "fromfile",
    ),
    "runstring": (lambda _: reduced("numpy.testing._private.utils", "runstring", "1"), "runstring"),
    "inside the vocabulary": (
        lambda _: reduced("numpy.core.multiarray", "_reconstruct.__globals__", "1", stack=True),
        "__globals__",
    ),
    "ndarray called": (lambda _: reduced("numpy", "ndarray", "1"), ""),
    "extension registry": (lambda _: b"\x80\x02\x82\x01.", ""),
    "persistent id": (elsewhere, "outside the file"),
    "half a file": (lambda layers: pickle.dumps(layers, protocol=3)[:50_000], ""),
    "last byte missing": (lambda layers: pickle.dumps(layers, protocol=3)[:-1], ""),
    "text": (lambda _: b"<html>404: Not Found</html>", ""),
    "git lfs pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", ""),
    "empty": (lambda _: b"", ""),
    "dict": (lambda layers: pickle.dumps({"layers": [1]}, protocol=3), "EMPTY_DICT"),
    "list of lists": (lambda layers: pickle.dumps([[1.0]], protocol=3), "no list of layers"),
    "empty list": (lambda _: pickle.dumps([], protocol=3), "shapes"),
    "integers": (lambda _: pickle.dumps([(np.zeros((2, 2, 1, 1), int),)], protocol=3), "i8"),
    "half precision": (lambda _: pickle.dumps([(np.zeros(2, np.float16),)], protocol=3), "f2"),
    "strings": (lambda _: pickle.dumps([(np.array(["os"]),)], protocol=3), "U2"),
    "fields": (lambda _: pickle.dumps([(np.zeros(2, [("a", "f4")]),)], protocol=3), "V4"),
    "array never filled": (
        lambda _: b"\x80\x03](cnumpy.core.multiarray\n_reconstruct\n)R\x85e.",
        "",
    ),
    "shape of another size": (
        lambda layers: pickle.dumps(layers, protocol=3).replace(b"K\x04K\x01K\x10", b"K\x04K\x01K\x11"),
        "",
    ),
    "no head": (lambda layers: pickle.dumps(layers[:-1], protocol=3), "shapes"),
    "a layer missing": (lambda layers: pickle.dumps(layers[1:], protocol=3), "shapes"),
    "another architecture": (
        lambda layers: pickle.dumps([(layers[0][0][:3], layers[0][1]), *layers[1:]], protocol=3),
        "architecture",
    ),
    "bias of another size": (
        lambda layers: pickle.dumps([(layers[0][0], layers[0][1][:1]), *layers[1:]], protocol=3),
        "biases",
    ),
    "no bias": (lambda layers: pickle.dumps([layers[0][:1], *layers[1:]], protocol=3), "biases"),
    "two biases": (
        lambda layers: pickle.dumps([(*layers[0], layers[0][1]), *layers[1:]], protocol=3),
        "biases",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name(tmp_path, layers, name):
    content, word = REFUSED[name]
    path = tmp_path / "network.pkl"
    path.write_bytes(content(layers))
    with pytest.raises(ReleasedNetworkError) as caught:
        released.read_network(path)
    message = str(caught.value)
    assert str(path) in message and word in message and "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_oversized_files_are_refused_unread(tmp_path):
    path = tmp_path / "network.pkl"
    with open(path, "wb") as file:
        file.write(pickle.dumps([]))
        file.truncate(pickles.LARGEST_FILE + 1)  # sparse
    with pytest.raises(ReleasedNetworkError, match="network.pkl is not .* 4.2 MB where at most 4.2 MB"):
        pickles.read_layers(path)


def test_nine_bytes_do_not_take_a_gigabyte(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x02]r" + (3 * 10**7).to_bytes(4, "little") + b".")
    tracemalloc.start()
    try:
        assert pickles.read_layers(path) == []
        assert tracemalloc.get_traced_memory()[1] < 10**6  # the C unpickler takes 480 MB
    finally:
        tracemalloc.stop()


SMALL_FILE = pickle.dumps([(np.eye(2, dtype=np.float32), np.ones(2, np.float32))] * 2, protocol=3)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path, data):
    content = bytearray(SMALL_FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    try:
        layers = pickles.read_layers(path)
    except ReleasedNetworkError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(a, np.ndarray) and a.dtype == np.float32 for layer in layers for a in layer)


# Finding them


@pytest.fixture
def repository(tmp_path, layers):
    """A clone with two networks at some depth."""
    folder = tmp_path / "clone"
    for path in ("nets/mnist_smallgap_int_100.pkl", "cifar_wresnet_normal_200.pkl", "nets/readme.pkl"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(pickle.dumps(layers, protocol=3))
    return folder


def test_networks_are_found_at_any_depth(repository, monkeypatch):
    assert released.find("mnist", "small", "Int", repository).parent.name == "nets"
    assert released.available(repository) == [("mnist", "small", "Int"), ("cifar10", "wresnet", "Normal")]
    monkeypatch.setenv("INTERP_RELEASED", str(repository))
    assert released.find("mnist", "small", "Int").name == "mnist_smallgap_int_100.pkl"
    assert len(released.available()) == 2


def test_load_takes_a_path_or_a_name(repository):
    path = repository / "nets" / "mnist_smallgap_int_100.pkl"
    marks = {
        predict.fingerprint(released.load(what, repository))
        for what in (path, str(path), "mnist_smallgap_int_100", "mnist_smallgap_int_100.pkl")
    }
    assert marks == {predict.fingerprint(models.build("small", seed=5))}
    for name in ("mnist_pool_adv_100", "*", "mnist_smallgap_???_100", "[mn]*"):
        with pytest.raises(FileNotFoundError, match=".pkl is neither a file nor a network in"):
            released.load(name, repository)
    for elsewhere in ("/nowhere/mnist_smallgap_int_100.pkl", "./mnist_smallgap_int_100.pkl", path.parent / "x.pkl"):
        with pytest.raises(FileNotFoundError, match="No such file"):
            released.load(elsewhere, repository)


def test_of_two_files_of_a_name_the_one_in_the_folder_itself_is_meant(repository):
    for before, more in (("nets", "other"), ("nets", "a"), ("a", ".")):
        assert released.find("mnist", "small", "Int", repository).parent.name == before
        (repository / more).mkdir(exist_ok=True)
        (repository / more / "mnist_smallgap_int_100.pkl").touch()
    assert released.find("mnist", "small", "Int", repository).parent == repository
    (repository / "mnist_pool_adv_100.pkl").mkdir()
    os.mkfifo(repository / "mnist_pool_int_100.pkl")
    assert len(released.available(repository)) == 2  # neither is a file


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("layer, part", [(0, 0), (0, 1), (2, 1), (-1, 0)])
def test_weights_that_are_no_numbers_are_refused(tmp_path, layers, layer, part, bad):
    changed = [tuple(np.array(a, np.float64) for a in parts) for parts in layers]
    changed[layer][part].flat[1] = bad
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(changed, protocol=3))
    with pytest.raises(ReleasedNetworkError, match="weights that are NaN or infinite"):
        released.read_network(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    for path in (tmp_path / "pipe.pkl", "/dev/zero", tmp_path):
        with pytest.raises(ReleasedNetworkError, match="a pipe or a device, not a file|a folder, not a file"):
            released.read_network(path)


def test_missing_networks_and_folders_say_what_to_do(repository, monkeypatch, tmp_path):
    monkeypatch.delenv("INTERP_RELEASED", raising=False)
    with pytest.raises(FileNotFoundError, match="(?s)No folder.*AkhilanB/Proper-Interp.*INTERP_RELEASED"):
        released.available()
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder.*--released-dir"):
        released.available(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="mnist_smallgap_adv_100.pkl is not in"):
        released.find("mnist", "small", "Adv", repository)
    for unknown in (("mnist", "wresnet", "Adv"), ("mnist", "small", "adv"), ("digits", "small", "Adv")):
        with pytest.raises(ValueError, match="was released; pairs.*mnist/small.*Normal, Adv"):
            released.find(*unknown, repository)
    with pytest.raises(FileNotFoundError, match="missing.pkl"):
        released.read_network(tmp_path / "missing.pkl")


def test_fingerprint_tells_networks_apart():
    first, second = models.build("small", seed=1), models.build("small", seed=1)
    assert predict.fingerprint(first) == predict.fingerprint(second)
    with torch.no_grad():
        second.conv2.bias[3] += 1e-7
    assert predict.fingerprint(first) != predict.fingerprint(second)
    assert len(predict.fingerprint(first)) == 16


def test_other_networks_say_gamma_radius_run_and_epochs(tmp_path):
    names = (
        "mnist_smallgap_adv_4_100 mnist_smallgap_int005_2_100 mnist_smallgap_int01_3_100 mnist_smallgap_int005_100 "
        "cifar_smallgap_int02_10_200 restimagenet_wresnet_normal_20 "
        # in the tables, or varying something else
        "mnist_smallgap_adv_100 mnist_smallgap_int_100 mnist_smallgap_int2_100 mnist_smallgap_adv_1 "
        "restimagenet_wresnet_normal_35 mnist_pool_adv_100"
    )
    for name in names.split():
        (tmp_path / f"{name}.pkl").touch()
    assert [(n[:7], n.path.stem) for n in released.other_networks(tmp_path)] == [
        (("mnist", "small", "Adv", None, 0.4, 1, 100), "mnist_smallgap_adv_4_100"),
        (("mnist", "small", "Int", 0.005, 0.2, 1, 100), "mnist_smallgap_int005_2_100"),
        (("mnist", "small", "Int", 0.005, 0.3, 1, 100), "mnist_smallgap_int005_100"),
        (("mnist", "small", "Int", 0.01, 0.3, 2, 100), "mnist_smallgap_int01_3_100"),
        (("cifar10", "small", "Int", 0.02, 10 / 255, 1, 200), "cifar_smallgap_int02_10_200"),
        (("restricted_imagenet", "wresnet", "Normal", None, None, 1, 20), "restimagenet_wresnet_normal_20"),
    ]
