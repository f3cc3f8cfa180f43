"""Networks from elsewhere: weights read without running them, and fitted to torchvision's architectures or refused."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from interp_lib import adapt
from interp_lib.models import NORMALISATIONS, class_names, read_weights, torchvision_network
from interp_lib.models.trained import NetworkError

pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def network():
    return torchvision_network("resnet18", num_classes=7, seed=3)


def images(n=2, size=48):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def stored(network, folder, how):
    """The network's weights in a file, in one of the forms in which people keep them."""
    state, path = network.state_dict(), folder / "weights.pt"
    if how == "safetensors":
        path = folder / "weights.safetensors"
        save_file(state, path)
    elif how == "checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    elif how == "old":
        torch.save(
            {key: value for key, value in state.items() if "num_batches" not in key},
            path,
            _use_new_zipfile_serialization=False,
        )
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("how", ["safetensors", "state_dict", "checkpoint", "old"])
def test_a_file_of_weights_gives_the_network_that_wrote_it(network, tmp_path, how):
    again = torchvision_network("resnet18", stored(network, tmp_path, how))
    assert not again.training and again.fc.out_features == 7
    with torch.no_grad():
        assert torch.equal(again(images()), network(images()))


def test_random_weights_follow_their_seed_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    one, same, other = (torchvision_network("resnet18", num_classes=2, seed=s).fc.weight for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_normalisation_is_torchvisions(network):
    from torchvision.transforms.functional import normalize

    model = adapt(network, **NORMALISATIONS["ImageNet"])
    with torch.no_grad():
        own = network(normalize(images(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert (model(images()) - own).abs().max() < 1e-5 * own.abs().max()


class Bomb:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_is_never_run(tmp_path, capsys):
    path = tmp_path / "bomb.pt"
    for dump in (lambda file: torch.save({"a": Bomb()}, file), lambda file: pickle.dump(Bomb(), file)):
        with open(path, "wb") as file:
            dump(file)
        with pytest.raises(NetworkError, match=r"cannot be read|can be read without running it"):
            read_weights(path)
    assert capsys.readouterr().out == ""


def test_a_whole_network_is_refused_with_what_to_write_instead(network, tmp_path):
    torch.save(network, tmp_path / "whole.pt")
    with pytest.raises(NetworkError, match=r"torch\.save\(network\.state_dict\(\), path\)"):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, {"state_dict": {"a": "b"}}])
def test_what_is_no_weights_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(NetworkError, match="no weights by name"):
        read_weights(tmp_path / "odd.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_damaged_file_and_a_missing_one(name, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / name)
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(NetworkError, match=name):
        read_weights(tmp_path / name)
    with pytest.raises((NetworkError, ValueError), match="folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("conv1.weight"), r"lacks conv1\.weight \(1 in all\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"also has extra \(1 such in all\)"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}), r"conv1\.weight has shape \(64, 1, 7, 7\)"),
        (lambda s: s.update({"fc.bias": torch.full((7,), torch.nan)}), "NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_named(network, tmp_path, change, words):
    state = dict(network.state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match=words):
        torchvision_network("resnet18", tmp_path / "weights.pt")


def test_a_mistyped_architecture_gets_the_nearest():
    with pytest.raises(ValueError, match="no classifier 'resnet19'; known are .*resnet18"):
        torchvision_network("resnet19")


def test_names_of_imagenets_classes_and_of_others():
    names = class_names("resnet18", 1000)
    assert names[0] == "tench" and names[281] == "tabby" and len(names) == 1000
    assert class_names("resnet18", 3) == ("0", "1", "2")


def test_a_network_without_a_linear_layer_takes_imagenets_number_of_classes():
    assert isinstance(torchvision_network("squeezenet1_1").classifier[1], nn.Conv2d)
