"""The attack against interpretability: the optimum on a linear CAM, eq. (7) by hand, and cells of Table 2."""

import pytest
import torch
import toys

from interp_lib.attacks.against_interpretability import aai, aai_objective
from interp_lib.attacks.ascent import input_gradient
from interp_lib.discrepancies import kendall_tau
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.interpreters.registry import INTERPRETERS
from interp_lib.models.architectures import build
from interp_lib.models.released import find, read_network
from interp_lib.study.rank_correlation import AAI, aai_rows, mean_and_error

DOUBLE = torch.float64


@pytest.fixture
def linear(make_images):
    return toys.Channels(), make_images(4, (2, 3, 3)), torch.tensor([0, 1, 2, 0])


def slopes(model, y):
    """Sign of the CAM's derivative with respect to each channel, (N, 2, 1, 1)."""
    return model.classifier.weight.detach()[y].sign()[:, :, None, None]


@pytest.mark.parametrize("k", [1, 4, 9])
def test_top_k_reaches_the_exact_optimum_on_a_linear_map(linear, k):
    """The k largest pixels go to the corner that lowers them; no other pixel moves."""
    model, x, y = linear
    largest = cam(model, x, y[:, None]).detach().flatten(1).topk(k).indices
    chosen = torch.zeros(4, 9, dtype=DOUBLE).scatter_(1, largest, 1).reshape(4, 1, 3, 3)
    x_adv = aai(model, x, y, eps=0.2, alpha=0.03, steps=20, hinge=0, top_k=k)
    assert (x_adv - (x - 0.2 * slopes(model, y) * chosen).clamp(0, 1)).abs().max() < 1e-12


def test_the_l1_norm_reaches_the_exact_optimum_on_a_linear_map(linear):
    """Every pixel of the map goes on in the direction in which the start has pushed it."""
    model, x, y = linear
    x = 0.3 + 0.4 * x  # away from the box, where a start could be pushed back
    start = x + 0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE) - 1)
    pushed = (cam(model, start, y[:, None]) - cam(model, x, y[:, None])).detach().sign()
    x_adv = aai(model, x, y, eps=0.2, alpha=0.03, steps=30, hinge=0, start=start)
    assert (x_adv - (x + 0.2 * slopes(model, y) * pushed)).abs().max() < 1e-12


@pytest.mark.parametrize("interpreter", [e.function for e in INTERPRETERS.values() if e.kind == "CAM"])
@pytest.mark.parametrize("hinge", [0.0, 3.0])
@pytest.mark.parametrize("top_k, p", [(None, 1), (None, 2), (8, 1)])
def test_the_objective_is_eq_7(small, make_images, interpreter, hinge, top_k, p):
    """Value and gradient, from the plain network; the value up to a constant that is left out."""
    x, y = make_images(3), torch.tensor([1, 4, 7])
    x_adv = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)).clamp(0, 1)
    clean = interpreter(small, x, y[:, None]).detach()[:, 0].flatten(1)

    def by_hand(z):
        maps = interpreter(small, z, y[:, None], create_graph=True)[:, 0].flatten(1)
        others = [torch.cat([f[:c], f[c + 1 :]]).max() - f[c] for f, c in zip(small(z), y, strict=True)]
        if top_k:
            apart = (clean - maps).gather(1, clean.argsort(1, descending=True)[:, :top_k]).sum(1)
        else:
            apart = (clean - maps).norm(p, dim=1)
        return apart - hinge * torch.stack(others).clamp(min=0)

    objective = aai_objective(small, x, y, hinge=hinge, top_k=top_k, interpreter=interpreter, p=p)
    with torch.no_grad():
        shift = objective(x_adv) - objective(x)
    assert shift == pytest.approx((by_hand(x_adv) - by_hand(x)).detach(), abs=1e-9)
    assert (input_gradient(objective, x_adv) - input_gradient(by_hand, x_adv)).abs().max() < 1e-9


def test_the_hinge_holds_the_prediction(make_images):
    model, x = build("small", seed=0).double().eval(), make_images(20)
    y = model(x).argmax(1).detach()
    settings = {"eps": 0.3, "alpha": 0.02, "steps": 40, "top_k": 8}
    free, held = (aai(model, x, y, hinge=hinge, **settings) for hinge in (0.0, 100.0))
    kept = [(model(x_adv).argmax(1) == y).double().mean().item() for x_adv in (free, held)]
    assert kept[0] < 0.5 and kept[1] > kept[0] + 0.2
    clean = cam(model, x, y[:, None]).flatten(1)
    for x_adv in (free, held):  # both lower what they are asked to lower
        after = cam(model, x_adv, y[:, None]).flatten(1)
        fall = (clean - after).gather(1, clean.topk(8).indices).sum(1)
        assert (fall > 0).all()


@pytest.mark.parametrize("steps", [0, 2])
def test_a_start_outside_is_projected(small, make_images, steps):
    x, y = make_images(2), torch.tensor([1, 2])
    x_adv = aai(small, x, y, eps=0.1, alpha=0.0, steps=steps, start=x + 5)
    assert (x_adv - (x + 0.1).clamp(max=1)).abs().max() < 1e-12


def test_one_seed_one_start(small, make_images):
    x, y = make_images(2), torch.tensor([1, 2])
    first, second, other = (
        aai(small, x, y, eps=0.1, alpha=0.02, steps=2, random_start=True, generator=torch.Generator().manual_seed(s))
        for s in (3, 3, 4)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "change, words",
    [
        ({}, "gradient of the norm is 0 at x"),
        ({"top_k": 0}, r"top_k must lie in 1 \.\. 49"),
        ({"top_k": 50}, r"top_k must lie in 1 \.\. 49"),
        ({"top_k": 8, "hinge": -1.0}, "hinge"),
        ({"random_start": True}, "Generator"),
        ({"random_start": True, "generator": torch.Generator(), "norm": "l2"}, "give start"),
        ({"top_k": 8, "norm": "l7"}, "linf, l2, l1"),
    ],
)
def test_bad_settings_are_refused(small, make_images, change, words):
    with pytest.raises(ValueError, match=words):
        aai(small, make_images(2), torch.tensor([1, 2]), eps=0.1, alpha=0.01, steps=1, **change)


# Scores


def test_an_image_whose_prediction_changes_is_dropped(tiny_dataset):
    """The rows from their parts: attack, predictions, and tau of the true class's map."""
    settings = {"top_k": 2, "alpha": 0.02, "steps": 20, "hinge": 0.0}
    model = build("small", (1, 8, 8), 3, seed=1).eval()
    subset = tiny_dataset.evaluation_subset(60)
    done = []
    rows = aai_rows(model, subset, eps=[1e-4, 0.3], attack=settings, progress=done.append)
    assert done == [20, 20] and [row["eps"] for row in rows] == [1e-4, 0.3]
    assert rows[0]["n"] == rows[0]["n_all"] == 60 and rows[0]["tau"] == rows[0]["tau_all"] > 0.9
    start = subset.x + subset.random_start(0.3)
    x_adv = aai(model, subset.x, subset.y, eps=0.3, start=start, **settings)
    taus = kendall_tau(*(cam(model, x, subset.y[:, None]) for x in (subset.x, x_adv)))
    same = model(x_adv).argmax(1) == model(subset.x).argmax(1)
    assert 0 < rows[1]["n"] == int(same.sum()) < 60
    assert rows[1]["tau"] == pytest.approx(taus[same].mean()) and rows[1]["tau_all"] == pytest.approx(taus.mean())
    assert rows[1]["se"] == pytest.approx(taus[same].std() / len(taus[same]) ** 0.5)


def test_none_left_is_none():
    assert mean_and_error(torch.tensor([])) == (None, None)
    assert mean_and_error(torch.tensor([0.5])) == (0.5, None)


@pytest.mark.parametrize("method, eps, tau, n", [("Int", 0.3, 0.913, 183), ("IG-Norm", 0.2, 0.662, 182)])
def test_cells_of_table_2_come_out_as_printed(mnist_subset, released_folder, method, eps, tau, n):
    model = read_network(find("mnist", "small", method, released_folder))
    (row,) = aai_rows(model, mnist_subset, eps=[eps])
    assert round(row["tau"], 3) == tau and row["n"] == n and row["n_all"] == 200


def test_an_image_whose_map_has_no_order_counts_in_no_mean(tiny_dataset, monkeypatch):
    monkeypatch.setitem(AAI, "top_k", 2)
    monkeypatch.setitem(AAI, "steps", 2)
    model = build("small", (1, 8, 8), 3, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    (row,) = aai_rows(model, tiny_dataset.evaluation_subset(5), eps=[0.1])
    assert (row["n"], row["n_all"], row["tau"], row["tau_all"]) == (0, 0, None, None)
    assert mean_and_error(torch.tensor([1.0, float("nan"), 0.0])) == (0.5, pytest.approx(0.5))
