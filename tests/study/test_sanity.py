"""Random layers: which are random, that nothing else is, and what maps of random networks have in common."""

import pytest
import torch
from conftest import images
from toys import biased

from interp_lib.discrepancies import kendall_tau
from interp_lib.models.architectures import ARCHITECTURES, build
from interp_lib.study import sanity
from interp_lib.study.maps_compared import map_of

NAMES = ("CAM", "gradient", "x · gradient")


def small():
    return build("small", (1, 12, 12), 4, seed=3)


def test_layers_go_from_the_last_to_the_first():
    assert sanity.layers_of(small()) == ["classifier", "conv3", "conv2", "conv1"]
    for name in ARCHITECTURES:
        model = build(name, (1, 16, 16), 3, seed=0)
        layers = sanity.layers_of(model)
        assert layers[0] == "classifier" and len(set(layers)) == len(layers)
        weights = [p for p in model.parameters() if p.dim() > 1]
        assert len(layers) == len(weights)


def test_random_layers_are_initial_ones_and_the_others_stay():
    model = biased("small", (1, 12, 12), 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed = sanity.randomised(model, ["classifier", "conv3"], seed=7)
    fresh = build("small", (1, 12, 12), 4, seed=7).double()
    for key, value in changed.state_dict().items():
        source = fresh.state_dict() if key.startswith(("classifier", "conv3")) else before
        assert torch.equal(value, source[key]) and torch.equal(model.state_dict()[key], before[key])
    with pytest.raises(ValueError, match="layers must be one of"):
        sanity.randomised(model, ["conv9"], seed=0)


def test_rows_are_means_over_networks_and_images():
    model, x, y = small(), images(5, (1, 12, 12), dtype=torch.float32), torch.tensor([0, 1, 2, 3, 0])
    seen = []
    rows = sanity.sanity_rows(model, x, y, names=NAMES, draws=3, progress=seen.append)
    assert len(rows) == 4 * 3 * 2 and seen == 12 * [1]
    taus = [
        kendall_tau(*(map_of("gradient", f, x, y).abs() for f in (model, sanity.randomised(model, ["classifier"], k))))
        for k in range(3)
    ]
    (row,) = [r for r in rows if (r["layer"], r["interpreter"], r["form"]) == ("classifier", "gradient", "absolute")]
    means = torch.stack(taus).mean(1)
    assert row["tau"] == pytest.approx(means.mean().item()) and row["n"] == 3 and row["share"] == 1
    assert row["se"] == pytest.approx(means.std().item() / 3**0.5)


def test_a_wholly_random_network_has_other_signed_maps_and_the_image_stays_in_the_absolute_ones():
    """Signed maps of unrelated networks agree by chance alone; x times the gradient keeps what is black."""
    model, x = small(), images(20, (1, 12, 12), dtype=torch.float32)
    x[:, :, :, :6] = 0  # half of every image is black
    rows = sanity.sanity_rows(model, x, torch.arange(20) % 4, names=NAMES, draws=12)
    at = {(r["interpreter"], r["form"]): r for r in rows if r["layer"] == "conv1"}
    for name in NAMES:
        assert abs(at[name, "signed"]["tau"]) < 4 * at[name, "signed"]["se"] < 0.5, name  # a CAM has nine pixels
    # Of pixels in random order, half of them 0: pairs across the halves agree, and with ties tau-b is at least 1/2.
    assert at["x · gradient", "absolute"]["tau"] > 0.5 > 0.3 > at["CAM", "absolute"]["tau"]


def test_a_constant_map_has_no_value():
    model, x = small(), images(2, (1, 12, 12), dtype=torch.float32)
    with torch.no_grad():
        model.classifier.weight.zero_()
    rows = sanity.sanity_rows(model, x, torch.tensor([0, 1]), names=["CAM"], draws=2)
    assert {(r["tau"], r["n"], r["share"]) for r in rows} == {(None, 0, 0.0)}


@pytest.mark.parametrize("wrong", [{"names": ["cam"]}, {"draws": 0}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sanity.sanity_rows(small(), images(2, (1, 12, 12), dtype=torch.float32), torch.tensor([0, 1]), **wrong)
