"""Figures 1 and 2: what they compare, what a record keeps of it, and which image they show."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from interp_lib import __main__ as cli
from interp_lib import data, interpreters, models
from interp_lib.datasets import DATASETS
from interp_lib.discrepancies import kendall_tau, two_class_discrepancy
from interp_lib.study import figures, records, sneaking_over_eps, stored_maps, sweep
from interp_lib.study.measure import measure

EPS = (0.1, 0.3, 0.6)


@pytest.fixture(scope="module")
def network():
    return models.build("small", (1, 16, 16), 3, seed=1).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image(network, make_images):
    """An image with its prediction t and, for a target t', the runner-up."""
    x = make_images(1, (1, 16, 16), dtype=torch.float32)
    order = network(x).argsort(1, descending=True)
    return x, order[:, 0], order[:, 1]


@pytest.fixture(scope="module")
def sneaked(network, image):
    return sneaking_over_eps.sneaking(network, *image, eps=EPS)


def test_figure_1_shows_both_images_by_three_interpreters(network, image):
    x, y, target = image
    versions = figures.figure1(network, x, y, target, eps=0.3)
    natural, attacked = versions["x"], versions["PGD"]
    assert natural.predicted == int(y) and natural.tau == {} and torch.equal(natural.image, x[0])
    assert (attacked.image - x[0]).abs().max() <= 0.3 + 1e-6
    assert list(attacked.maps) == ["CAM", "GradCAM++", "IG"]
    pair = torch.stack([y, target], 1)
    expected = interpreters.gradcam_pp_release(network, attacked.image[None], pair)[0]
    assert torch.allclose(attacked.maps["GradCAM++"], expected, atol=1e-6)
    ig = [version.maps["IG"] for version in versions.values()]
    assert ig[0].shape == (2, 16, 16)
    assert attacked.tau["IG"] == kendall_tau(*ig).tolist()


def test_without_a_ball_nothing_moves(network, image):
    x, y, target = image
    attacked = figures.figure1(network, x, y, target, eps=0.0)["PGD"]
    assert torch.equal(attacked.image, x[0])
    assert all(tau == pytest.approx(1) for pair in attacked.tau.values() for tau in pair)


def test_sneaking_measures_every_attack_in_every_measure(network, image, sneaked):
    x, y, target = image
    assert [row["attack"] for row in sneaked.rows[::3]] == ["PGD", "1-class", "2-class", "all-class"]
    pair = torch.stack([y, target], 1)
    clean = interpreters.cam(network, x, pair)
    for row in sneaked.rows:
        shown = sneaked.versions[EPS.index(row["eps"])][row["attack"]]
        assert (shown.image - x[0]).abs().max() <= row["eps"] + 1e-6
        assert row["success"] == (shown.predicted == int(target))
        assert row["2-class"] == pytest.approx(two_class_discrepancy(clean, shown.maps["CAM"][None]).item(), rel=1e-4)
        assert row["1-class"] == pytest.approx((clean[0, 0] - shown.maps["CAM"][0]).abs().sum().item(), rel=1e-4)


def test_proposition_1_holds_every_success_up(sneaked, network, image):
    f = network(image[0])[0]
    assert sneaked.bound == pytest.approx(float(f[image[1]] - f[image[2]]) / 2)
    won = [row for row in sneaked.rows if row["success"]]
    assert won and all(row["2-class"] >= sneaked.bound - 1e-5 for row in won)


def rows(name, *points, p=1):
    return [{"p": p, "attack": name, "eps": e, "success": s, name: d} for e, s, d in points]


def test_lowest_so_far_keeps_the_attack_of_the_smaller_ball():
    searched = rows("1-class", (0.3, True, 3.0), (0.1, False, 0.0), (0.2, True, 2.0), (0.4, True, 1.0))
    found = sneaking_over_eps.lowest_so_far(searched + rows("PGD", (0.1, True, 9.0)))
    assert [(row["eps"], row["lowest"]) for row in found] == [(0.2, 2.0), (0.3, 2.0), (0.4, 1.0)]


def test_falls_by_hand():
    both = rows("1-class", (0.1, True, 4.0), (0.2, True, 1.0)) + rows("2-class", (0.1, True, 2.0), (0.2, True, 3.0))
    assert sneaking_over_eps.falls(both) == {"1-class": 0.75, "2-class": 0.0}
    assert sneaking_over_eps.falls(both, p=2) == {}


def test_moved_maps_starts_at_the_image_itself(network, image):
    frames = figures.moved_maps(network, image[0], image[1], eps=(0.0, 0.3))
    assert frames[0]["AAI"].tau["CAM"] == pytest.approx([1])
    assert frames[0]["AAI"].maps["CAM"].shape[0] == 1
    top = frames[0]["x"].maps["CAM"].flatten().topk(8).indices
    fall = [frame["AAI"].maps["CAM"].flatten()[top].sum() for frame in frames]
    assert fall[1] < fall[0]


def test_a_record_keeps_eight_bits():
    values = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    row = stored_maps.quantised(values, 56)
    assert row["full"] == [7, 5]
    assert (stored_maps.dequantised(row) - values).abs().max() <= values.abs().max() / 254 + 1e-6
    assert torch.equal(stored_maps.dequantised(stored_maps.quantised(torch.zeros(1, 2, 2), 56)), torch.zeros(1, 2, 2))


def test_a_large_map_is_stored_as_means_over_blocks():
    values = torch.arange(16.0).reshape(1, 4, 4)
    row = stored_maps.quantised(values, 2)
    assert row["shape"] == [1, 2, 2] and row["full"] == [4, 4]
    assert torch.allclose(stored_maps.dequantised(row), torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]), atol=0.05)


@pytest.fixture
def bands(tiny_dataset, monkeypatch):
    """The tiny dataset as a unit of the figures, and a network that fits it."""
    monkeypatch.setitem(figures.UNITS, ("digits", "small"), (0.3, (0.3, 0.6)))
    network = models.build("small", (1, 8, 8), 3, seed=0).eval()
    with torch.no_grad():  # whatever it says is right
        labels = torch.cat([network(tiny_dataset.test.x(i)[None]).argmax(1) for i in range(len(tiny_dataset.test))])
    split = data.Split(tiny_dataset.test.images, labels)
    return data.Dataset("digits", "Bands", "original", "0", ("a", "b", "c"), split, split, split), network


def record_of(figure, dataset, network, folder):
    """The record of a figure on a network that is in no file."""
    part = sweep.Part(dataset, "small", [Loaded(network)], "released", folder)
    (plan,) = figures.figure_plan(part, figure=figure)
    return sweep.grow(plan, part)


class Loaded:
    labels, path = {"method": "Normal"}, Path("x")

    def __init__(self, network):
        self.load = lambda: network


def test_a_figure_survives_its_record(bands, tmp_path):
    dataset, network = bands
    path = record_of("figure1", dataset, network, tmp_path)
    record = records.read(path)
    shown = stored_maps.read_versions(record)
    chosen = record.settings["image"]
    subset = dataset.evaluation_subset()
    i = chosen["position"]
    one = slice(i, i + 1)
    assert int(subset.index[i]) == chosen["test_image"] and dataset.classes[int(subset.y[i])] == chosen["true"]
    again = figures.figure1(network, subset.x[one], subset.y[one], subset.target[one], eps=0.3)
    assert shown["PGD"].tau == again["PGD"].tau and shown["x"].tau == {}
    assert shown["PGD"].predicted == int(subset.target[i])
    for name in ("CAM", "GradCAM++", "IG"):
        exact = again["PGD"].maps[name]
        assert (shown["PGD"].maps[name] - exact).abs().max() <= exact.abs().max() / 250
    assert path == record_of("figure1", dataset, network, tmp_path)


def test_figure_2_keeps_curves_bound_and_pictures(bands, tmp_path):
    dataset, network = bands
    record = records.read(record_of("figure2", dataset, network, tmp_path))
    curves, bound = stored_maps.read_curves(record)
    assert len(curves) == 2 * 4 * 2  # norms, attacks, sizes
    assert all(row["2-class"] >= bound - 1e-5 for row in curves if row["success"] and row["p"] == 1)
    assert list(stored_maps.read_versions(record)) == ["x", "PGD", "1-class", "2-class", "all-class"]


def test_the_image_is_the_first_by_rule(bands):
    dataset, network = bands
    x, y = dataset.test.x(slice(0, 20)), dataset.test.labels[:20]
    target = (y + 1) % 3
    with pytest.raises(ValueError, match="no image"):
        figures.first_fooled(network, x, y, target, eps=0.0)
    first = figures.first_fooled(network, x, y, target, eps=0.5)
    y[first] = target[first]  # not classified right any more
    later = figures.first_fooled(network, x, y, (y + 1) % 3, eps=0.5)
    assert later > first
    for k in range(later):
        with pytest.raises(ValueError, match="no image"):
            figures.first_fooled(network, x[k : k + 1], y[k : k + 1], ((y + 1) % 3)[k : k + 1], eps=0.5)


def test_a_missing_dataset_is_named(released_folder, tmp_path):
    with pytest.raises(data.DataError, match="nowhere: expected a folder of data"):
        measure("figure1", networks_dir=released_folder, folder=tmp_path, data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("figure", ["figure1", "figure2"])
def test_the_command_says_what_a_figure_needs(figure, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("INTERP_RELEASED", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["measure", figure]) == 2
    assert "INTERP_RELEASED" in capsys.readouterr().err


@pytest.mark.parametrize("figure", ["figure1", "figure2"])
def test_committed_figures_are_whole(figure):
    """What the chapters draw: three datasets, every version with its maps, taus that fit the maps that are stored."""
    found = [r for r in records.read_all(ROOT / "results") if r.settings["measurement"] == figure]
    assert {r.settings["dataset"] for r in found} == {"mnist", "cifar10", "restricted_imagenet"}
    for record in found:
        versions = stored_maps.read_versions(record)
        natural = versions["x"]
        for name, version in versions.items():
            classes = DATASETS[record.settings["dataset"]].classes
            expected = record.settings["image"]["true" if name == "x" else "target"]
            assert classes[version.predicted] == expected
            assert (version.image - natural.image).abs().max() <= record.settings["attack"]["eps"] + 2 / 127
            for key, taus in version.tau.items():
                if version.maps[key].shape[1] <= 8:  # small maps are stored as they are, to eight bits
                    again = kendall_tau(natural.maps[key], version.maps[key]).tolist()
                    assert again == pytest.approx(taus, abs=0.03)
