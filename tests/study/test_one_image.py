"""One image under one attack: Proposition 1 by hand, every attack and map on a network, what is refused."""

import pytest
import torch
import toys

from interp_lib import adapt
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.interpreters.registry import INTERPRETERS
from interp_lib.models.architectures import build
from interp_lib.study import attack_image
from interp_lib.study.one_image import ATTACKS, SHOWN, TITLES, maps_by

ROWS = torch.tensor([0.6, 0.4, 0.1]).reshape(1, 1, 3, 1).expand(1, 1, 3, 2)  # logits .6, .4, .1


def test_both_sides_of_proposition_1_by_hand():
    """Sign steps lower row 0 by eps and raise row 1 by eps: each map moves by eps in l1, and so does their mean."""
    done = attack_image(toys.Rows(torch.float32), ROWS, eps=0.15, alpha=0.15, steps=1)
    assert done.pair == (0, 1) and done.bounded and done.complete
    assert torch.allclose(done.logits, torch.tensor([[0.6, 0.4, 0.1], [0.45, 0.55, 0.25]]))
    assert done.discrepancy == pytest.approx(0.15) and done.bound == pytest.approx(0.1)
    assert torch.allclose(
        done.maps.flatten(2)[:, :, 0], torch.tensor([[0.3, 0.2], [0.225, 0.275]])
    )  # pixels over u = 2
    assert all(tau != tau for tau in done.tau)  # NaN: the maps are constant
    row = done.row(["a", "b", "c"])
    assert row == {"t": "a", "reached": "b", "tau": None, "D": done.discrepancy, "bound": done.bound}


def test_no_bound_where_the_class_stays_or_the_map_is_not_complete():
    weak = attack_image(toys.Rows(torch.float32), ROWS, eps=0.05, alpha=0.05, steps=1)
    assert not weak.bounded and weak.complete and weak.pair == (0, 1) and weak.row("abc")["bound"] is None
    pixels = attack_image(toys.Rows(torch.float32), ROWS, eps=0.15, alpha=0.15, steps=1, interpreter="vanilla_gradient")
    assert not pixels.bounded and not pixels.complete and pixels.logits.argmax(1).tolist() == [0, 1]


def test_a_target_is_reached_and_its_maps_are_compared():
    done = attack_image(toys.Rows(torch.float32), ROWS, target=2, eps=0.4, alpha=0.4, steps=1)
    assert done.pair == (0, 2) and int(done.logits[1].argmax()) == 2 and done.bounded
    assert done.bound == pytest.approx(0.25) and done.discrepancy >= 0.25 - 1e-6


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("target", [None, 2])
def test_every_attack_stays_in_its_ball_and_leaves_the_network_as_it_was(attack, target, tiny_dataset):
    model, x = build("small", (1, 8, 8), 3, seed=0), tiny_dataset.test.x(slice(1))
    label = int(model(x).argmax()) if target is None else 0
    model.train()
    settings = {"eps": 0.2, "alpha": 0.05, "steps": 8, "label": label}
    done = attack_image(model, x, attack=attack, target=target, **settings)
    again = attack_image(model, x, attack=attack, target=target, **settings)
    assert model.training and torch.equal(done.x_adv, again.x_adv)
    assert 0 < (done.x_adv - done.x).abs().max() <= 0.2 + 1e-6 and torch.equal(done.x[None], x)
    if attack == "PGD":
        aim = torch.tensor([label if target is None else target])
        own = pgd(model, x, aim, eps=0.2, alpha=0.05, steps=8, targeted=target is not None)
        assert torch.equal(done.x_adv[None], own)
    else:
        elsewhere = attack_image(model, x, attack="PGD", target=target, **settings)
        assert not torch.equal(done.x_adv, elsewhere.x_adv)


def test_a_random_start_follows_its_seed(tiny_dataset):
    model, x = build("small", (1, 8, 8), 3, seed=0), tiny_dataset.test.x(slice(1))
    start = lambda seed: attack_image(model, x, eps=0.2, alpha=0.0, steps=1, start="random point", seed=seed).x_adv
    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    assert (start(1) - x[0]).abs().max() > 0.1


@pytest.mark.parametrize("name", SHOWN)
def test_every_map_is_the_interpreters_own(name, tiny_dataset):
    model, x = build("small", (1, 8, 8), 3, seed=0), tiny_dataset.test.x(slice(1))
    done = attack_image(model, x, interpreter=name, eps=0.1, alpha=0.05, steps=2)
    assert done.maps.shape[:2] == (2, 2) and done.complete == INTERPRETERS[name].complete
    maps = maps_by(name, model, x, torch.tensor([done.pair]))
    summed = maps.sum(2) if maps.dim() == 5 else maps
    assert torch.allclose(done.maps[0], summed[0], atol=1e-6)


def test_another_network_will_do_once_it_is_adapted():
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = adapt(models.resnet18(num_classes=5).eval())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    done = attack_image(model, x, attack="ISA", eps=0.05, alpha=0.0125, steps=4)
    assert done.maps.shape == (2, 2, 2, 2) and done.logits.shape == (2, 5)
    assert not done.bounded or done.discrepancy >= done.bound


def test_every_map_has_a_title_of_its_own():
    assert set(TITLES) == set(SHOWN) and len(set(TITLES.values())) == len(SHOWN)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attack": "pgd"}, "attack must be one of PGD, ISA, AAI"),
        ({"interpreter": "representation"}, "interpreter must be one of cam"),
        ({"start": "anywhere"}, "start must be one of x, random point"),
        ({"eps": 8}, "Write 8/255, not 8"),
        ({"target": 0, "label": 0}, "another class than the label 0"),
        ({"label": 3}, "label must lie in 0 .. 2; got 3"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        attack_image(toys.Rows(torch.float32), ROWS, **{"eps": 0.1, "alpha": 0.1, "steps": 1, **settings})


def test_refuses_two_images():
    with pytest.raises(ValueError, match="one image"):
        attack_image(toys.Rows(torch.float32), ROWS.repeat(2, 1, 1, 1), eps=0.1, alpha=0.1, steps=1)
