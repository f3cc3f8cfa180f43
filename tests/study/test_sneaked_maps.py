"""IG on ReLU and the GradCAM++ of 2018 under ISA: what the attack follows, what is scored, and its search."""

import pytest
import torch
import toys
from conftest import bands

from interp_lib.attacks.interpretability_sneaking import isa_over_eps
from interp_lib.attacks.sneaking_settings import Discrepancy, class_set, released_settings
from interp_lib.discrepancies import normalised_discrepancy
from interp_lib.interpreters.class_activation_maps import gradcam_pp
from interp_lib.interpreters.integration import integrated_gradients
from interp_lib.models.architectures import build
from interp_lib.study import isa_scores, records, sneaked_maps
from interp_lib.study.nds_nsl import from_record, image_scores
from interp_lib.study.sneaked_maps import GRADCAM_PP, RELU_IG, SNEAKED, UNCAPPED


def derivative(interpreter, model, x, step=None):
    """Of a map's sum: by autograd, or by a difference over `step`."""
    first = torch.tensor([[0]])
    if step:
        ends = [interpreter(model, x + k * step / 2, first).sum() for k in (-1, 1)]
        return ((ends[1] - ends[0]) / step).item()
    x = x.clone().requires_grad_()
    return torch.autograd.grad(interpreter(model, x, first, create_graph=True).sum(), x)[0].item()


def test_autograd_of_relu_ig_lacks_what_the_smooth_one_has():
    """f = relu(x - 1/4) at x = 4/5: IG is x - 1/4 with slope 1, and autograd gives IG / x = 11/16."""
    model, x = toys.OnePixel(1.0, -1.0, threshold=0.25), torch.full((1, 1, 1, 1), 0.8, dtype=torch.float64)
    fine = lambda *args, **how: integrated_gradients(*args, steps=4000, rule="midpoint", **how)
    assert derivative(fine, model, x, step=0.1) == pytest.approx(1, abs=0.01)
    assert derivative(fine, model, x) == pytest.approx(11 / 16, abs=0.01)
    assert derivative(sneaked_maps.smooth_ig, model, x) == pytest.approx(1, abs=0.03)


def test_the_smooth_map_is_nearly_that_of_the_network(make_images):
    model, x, y = build("small", seed=2).double(), make_images(3), torch.tensor([[0, 1], [2, 3], [4, 5]])
    own = integrated_gradients(model, x, y)
    off = lambda other: (other - own).abs().sum() / own.abs().sum()
    softplus = off(integrated_gradients(model, x, y, activation="softplus"))
    assert off(sneaked_maps.smooth_ig(model, x, y)) < softplus / 2


def test_the_papers_maps_have_the_released_search_and_the_two_others_their_own():
    assert all(
        (entry.scored, entry.followed, entry.search) == (function, function, None)
        for name, function in sneaked_maps.PAPER_INTERPRETERS.items()
        for entry in [SNEAKED[name]]
    )
    assert SNEAKED[GRADCAM_PP] == (gradcam_pp, gradcam_pp, UNCAPPED)
    assert SNEAKED[RELU_IG] == (integrated_gradients, sneaked_maps.smooth_ig, UNCAPPED)
    assert UNCAPPED.first * 2 ** (UNCAPPED.rounds - 1) > 800


@pytest.mark.parametrize("name", [GRADCAM_PP, RELU_IG])
def test_rows_are_scores_of_the_networks_own_map_under_an_attack_that_follows_the_other(name):
    model, subset = build("small", (1, 8, 8), 3, seed=1), bands().evaluation_subset(8)
    (rows,) = isa_scores.isa_rows(
        model, subset, interpreters=[name], norms=[1], class_sets=["2-class"], penalties=(1.2, 1.6)
    )
    x, y, target = subset.x, subset.y, subset.target
    plain = isa_scores._smallest_eps(model, x, y, target)
    pair, leads = class_set("2-class", y, target), lambda z: isa_scores._leads(model, z, y, target, ties=True)
    eps = (torch.tensor([1.2, 1.6])[:, None] * plain.eps).clamp(max=1)
    distance = Discrepancy(SNEAKED[name].followed, pair)
    settings = released_settings(eps, distance, batch=100) | {"search": UNCAPPED}
    attacks = [plain.x_adv, *isa_over_eps(model, x, y, target, **settings).x_adv]
    maps = lambda z: SNEAKED[name].scored(model, z, pair)
    scores = torch.stack([normalised_discrepancy(maps(x), maps(z)) for z in attacks], 1)
    sizes = torch.stack([(z - x).abs().flatten(1).amax(1) for z in attacks], 1)
    able = ~isa_scores._leads(model, x, y, target)
    expected = image_scores(scores, sizes, torch.stack([leads(z) & able for z in attacks], 1))
    assert torch.allclose(from_record(rows[0]["each"]), expected, rtol=1e-4) and (expected[:, 0] > 0).any()


def test_plans_are_a_record_for_each_map_under_a_name_of_their_own(tiny_dataset):
    from interp_lib.study.sweep import Part

    plans = list(isa_scores.beyond_plan(Part(tiny_dataset, "small", [], "ours"), n=50))
    assert [plan.settings["interpreters"] for plan in plans] == [[GRADCAM_PP], [RELU_IG]]
    assert {plan.settings["measurement"] for plan in plans} == {"isa-beyond"} and "IG" not in plans[0].settings
    assert [plan.total for plan in plans] == [6 * 50, 6 * 40]
    assert plans[1].settings["search"] == {"first": 0.1, "high": 1000.0, "rounds": 14}
    assert records._NEEDED["isa-beyond"] == records._NEEDED["isa"]
