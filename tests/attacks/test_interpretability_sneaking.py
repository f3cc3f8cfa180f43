"""The sneaking attack against a plain loop, against Proposition 1, and against Table 1."""

from dataclasses import replace

import pytest
import torch
import toys

from interp_lib.attacks.ascent import clipped
from interp_lib.attacks.interpretability_sneaking import isa, isa_over_eps, margin, margin_attack, search_isa
from interp_lib.attacks.logits_and_maps import explain
from interp_lib.attacks.sneaking_settings import Discrepancy, Search, class_set, released_settings
from interp_lib.discrepancies import discrepancy, proposition1_bound, two_class_discrepancy
from interp_lib.interpreters.class_activation_maps import cam, gradcam_pp_release, representation
from interp_lib.interpreters.integration import integrated_gradients_release
from interp_lib.models.architectures import build
from interp_lib.models.released import find, read_network
from interp_lib.study import compare, isa_scores
from interp_lib.study.isa_scores import isa_rows
from interp_lib.study.nds_nsl import from_record
from interp_lib.study.records import Record

SETTINGS = {"eps": 0.1, "alpha": 0.02, "steps": 6}


@pytest.fixture
def case(small, make_images):
    """Images with the network's own predictions as labels, and other classes as targets."""
    x = make_images(5)
    y = small(x).argmax(1).detach()
    return small, x, y, (y + torch.tensor([1, 2, 3, 4, 5])) % 10


# The parts


def test_the_margin_is_positive_where_the_class_leads():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])
    assert margin(logits, torch.tensor([0, 2, 1])).tolist() == [1, -1, 0]
    logits = torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    target = torch.arange(100) % 7
    assert torch.equal(margin(logits, target) > 0, logits.argmax(1) == target)


def test_sets_of_classes():
    y, target = torch.tensor([3, 1]), torch.tensor([0, 2])
    assert class_set("1-class", y, target).tolist() == [[3], [1]]
    assert class_set("2-class", y, target).tolist() == [[3, 0], [1, 2]]
    assert class_set("all-class", y, target, 4).tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match="'3-class'"):
        class_set("3-class", y, target)


def plain_loop(model, x, y, target, *, interpreter, classes, p, eps, batch, scale):
    """The released code's search, written once more: one image at a time, no fold, eq. (6) by hand."""
    images, gammas = [], []
    for i in range(len(x)):
        image, label, of = x[i : i + 1], target[i], classes[i : i + 1]
        clean = interpreter(model, image, of).detach()

        def attack(gamma, image=image, label=label, of=of, clean=clean, size=eps[i]):
            x_adv = image.clone()
            for _ in range(10):
                x_adv.requires_grad_()
                f, maps = model(x_adv)[0], interpreter(model, x_adv, of)
                others = torch.cat([f[:label], f[label + 1 :]])
                lead = others.max() - f[label]
                difference = ((maps - clean) * scale).flatten(2)
                terms = difference.abs().sum(2) if p == 1 else difference.square().sum(2)
                (gradient,) = torch.autograd.grad(torch.clamp(lead, min=-0.1) + gamma * terms.mean(), x_adv)
                x_adv = x_adv.detach() - 0.2 * size * (1000 / batch * gradient).clamp(-1, 1)
                x_adv = torch.minimum(torch.maximum(x_adv, image - size), image + size).clamp(0, 1)
            return x_adv, bool(model(x_adv)[0].argmax() == label)

        low, high, gamma = 0.0, 1.0, 5e-5
        for _ in range(10):
            if attack(gamma)[1]:
                low, gamma = gamma, min(2 * gamma, (gamma + high) / 2)
            else:
                high, gamma = gamma, (low + gamma) / 2
        images.append(attack(low)[0])
        gammas.append(low)
    return torch.cat(images), torch.tensor(gammas, dtype=x.dtype)


@pytest.mark.parametrize(
    "interpreter, name, p",
    [(cam, "1-class", 1), (cam, "2-class", 2), (gradcam_pp_release, "all-class", 1), (representation, "2-class", 2)],
)
def test_equals_a_plain_loop_over_images_and_rounds(case, interpreter, name, p):
    model, x, y, target = case
    eps = torch.tensor([0.02, 0.1, 0.2, 0.4, 0.05], dtype=x.dtype)
    classes = class_set(name, y, target)
    settings = released_settings(eps, Discrepancy(interpreter, classes, p, scale=49.0), batch=5)
    found = search_isa(model, x, y, target, **settings)
    expected, gamma = plain_loop(
        model, x, y, target, interpreter=interpreter, classes=classes, p=p, eps=eps, batch=5, scale=49.0
    )
    assert found.gamma == pytest.approx(gamma) and (found.gamma > 0).any()
    assert (found.x_adv - expected).abs().max() < 1e-8


# The search


def test_without_rounds_and_with_a_vanishing_weight_it_is_the_plain_attack(case):
    """lambda -> infinity. With a floor that is never reached the margin always decides the sign."""
    model, x, y, target = case
    plain = margin_attack(model, x, y, target, tau=1e9, **SETTINGS)
    assert torch.equal(plain, isa(model, x, y, target, tau=1e9, search=Search(rounds=0), **SETTINGS))
    vanishing = isa(model, x, y, target, tau=1e9, search=Search(first=1e-13, rounds=1), **SETTINGS)
    assert ((vanishing - plain).abs() < 1e-12).double().mean() > 0.999
    found = search_isa(model, x, y, target, search=Search(rounds=0), **SETTINGS)
    assert (found.gamma == 0).all()
    assert torch.equal(found.success, model(found.x_adv).argmax(1) == target)


def test_success_is_success_and_the_weight_is_the_one_that_succeeded(case):
    model, x, y, target = case
    found = search_isa(model, x, y, target, **SETTINGS | {"eps": 0.3, "alpha": 0.1})
    assert found.success.any() and torch.equal(found.success, model(found.x_adv).argmax(1) == target)
    assert ((found.gamma == 0) | found.success).all() and (found.gamma > 0).any()
    for i in (found.gamma > 0).nonzero()[:, 0].tolist():
        once = search_isa(
            model,
            x[i : i + 1],
            y[i : i + 1],
            target[i : i + 1],
            search=Search(first=float(found.gamma[i]), rounds=1),
            **SETTINGS | {"eps": 0.3, "alpha": 0.1},
        )
        assert once.success.all() and (once.x_adv - found.x_adv[i]).abs().max() < 1e-9


def test_more_rounds_never_lose_a_success_nor_lower_the_weight(case):
    model, x, y, target = case
    before = None
    for rounds in (0, 2, 5, 8):
        found = search_isa(model, x, y, target, search=Search(rounds=rounds), **SETTINGS | {"eps": 0.2, "alpha": 0.06})
        if before:
            assert (found.success | ~before.success).all() and (found.gamma >= before.gamma).all()
        before = found


def test_one_class_hides_and_two_classes_cannot(make_images):
    """On maps without a pixel in common L(x, t) can stay as it is; by Proposition 1 the pair (t, t') cannot."""
    model = toys.Rows()
    x = torch.tensor([[0.6, 0.5], [0.4, 0.3], [0.1, 0.2]], dtype=torch.float64).reshape(1, 1, 3, 2)
    y, target = torch.tensor([0]), torch.tensor([1])
    settings = {"eps": 0.5, "alpha": 0.005, "steps": 200, "search": Search(rounds=12), "tau": 0.0}
    bound = float(proposition1_bound(model(x).detach(), y, target))
    assert bound == pytest.approx(0.1)
    pair, apart = class_set("2-class", y, target), {}
    for name in ("1-class", "2-class"):
        found = search_isa(model, x, y, target, distance=Discrepancy(classes=class_set(name, y, target)), **settings)
        assert found.success.all()
        true = discrepancy(cam(model, x, y[:, None]), cam(model, found.x_adv, y[:, None]))
        both = two_class_discrepancy(cam(model, x, pair), cam(model, found.x_adv, pair))
        apart[name] = float(true.detach()), float(both.detach())
    assert apart["1-class"][0] < 0.006  # a step of 0.005
    assert bound <= apart["2-class"][1] < 1.1 * bound and apart["1-class"][1] >= bound
    plain = margin_attack(model, x, y, target, **{key: settings[key] for key in ("eps", "alpha", "steps")})
    assert float(two_class_discrepancy(cam(model, x, pair), cam(model, plain, pair)).detach()) > 1.3 * bound


def test_proposition_1_holds_for_every_attack_that_succeeds(make_images):
    model, x = build("small", seed=2).double().eval(), make_images(12, seed=3)
    y = model(x).argmax(1).detach()
    target = (y + 1 + torch.arange(12) % 9) % 10
    pair = class_set("2-class", y, target)
    for name in ("1-class", "2-class", "all-class"):
        settings = {"distance": Discrepancy(classes=class_set(name, y, target)), "search": Search(rounds=6)}
        found = search_isa(model, x, y, target, eps=0.3, alpha=0.06, steps=10, **settings)
        apart = two_class_discrepancy(cam(model, x, pair), cam(model, found.x_adv, pair)).detach()
        assert found.success.any()
        assert (apart >= proposition1_bound(model(x).detach(), y, target) - 1e-12)[found.success].all()


def test_untargeted_leaves_the_label(case):
    model, x, y, _ = case
    found = search_isa(model, x, y, eps=0.3, alpha=0.06, steps=10)
    assert found.success.any() and torch.equal(found.success, model(found.x_adv).argmax(1) != y)


def test_several_eps_in_one_batch_equal_separate_runs(case):
    model, x, y, target = case
    eps = torch.tensor([[0.1], [0.2], [0.3]], dtype=x.dtype) * torch.linspace(0.5, 1, 5, dtype=x.dtype)
    distance = Discrepancy(classes=class_set("1-class", y, target))
    settings = {"steps": 5, "search": Search(rounds=4), "distance": distance, "direction": clipped(50)}
    together = isa_over_eps(model, x, y, target, eps=eps, alpha=eps / 4, **settings)
    assert together.x_adv.shape == (3, *x.shape) and together.gamma.shape == together.success.shape == (3, 5)
    for row, size in enumerate(eps):
        separate = search_isa(model, x, y, target, eps=size, alpha=size / 4, **settings)
        assert (together.x_adv[row] - separate.x_adv).abs().max() < 1e-9
        assert torch.equal(together.gamma[row], separate.gamma)
    with pytest.raises(ValueError, match=r"shape \(E, 5\); got \(3, 4\)"):
        isa_over_eps(model, x, y, target, eps=eps[:, :4], alpha=eps[:, :4], steps=1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"target": torch.tensor([0, 0])}, "another class than y"),
        ({"target": torch.tensor([10, 3])}, r"target must lie in 0 \.\. 9"),
        ({"target": None, "distance": Discrepancy(p=2)}, r"eq\. \(8\)"),
        ({"target": None, "distance": Discrepancy(classes=torch.tensor([[0], [1]]))}, r"eq\. \(8\)"),
        ({"tau": -0.1}, "tau must be a finite number >= 0"),
        ({"distance": Discrepancy(classes=torch.tensor([0, 1]))}, "k classes per image"),
    ],
)
def test_bad_settings_are_refused(small, make_images, change, words):
    arguments = {"target": torch.tensor([3, 4]), **SETTINGS} | change
    with pytest.raises(ValueError, match=words):
        isa(small, make_images(2), torch.tensor([0, 1]), **arguments)


# Table 1


def test_cells_of_table_1_come_out_close(real_mnist, released_folder):
    """MNIST, CAM: NDS and NSL within 5 % of print for l1 all-class, and for l2 1-class with the squared score."""
    model = read_network(find("mnist", "small", "Normal", released_folder))
    subset = real_mnist.evaluation_subset(100)
    (rows,) = isa_rows(model, subset, interpreters=["CAM"], norms=[1], class_sets=["all-class"])
    rows += next(isa_rows(model, subset, interpreters=["CAM"], norms=[2], class_sets=["1-class"]))
    settings = {"measurement": "isa", "dataset": "mnist", "model": "small", "networks": "released", "title": "MNIST"}
    cells = compare.compare([Record("by-hand", settings, [{"method": "Normal", **row} for row in rows])])
    found = {(c.level, c.metric): c.verdict() for c in cells if c.released is not None}
    assert set(found) == {(level, metric) for level in ("l1:all-class", "l2:1-class") for metric in ("NDS", "NSL")}
    assert set(found.values()) <= {"exact", "close"}


def rows_of(model, subset, **settings):
    settings = {"interpreters": ["CAM"], "norms": [1], "class_sets": ["2-class"], "penalties": [1.2, 1.6]} | settings
    (*_, rows) = isa_rows(model, subset, **settings)
    return rows


def test_rows_keep_what_each_image_contributes(tiny_dataset):
    """Images at once, one at a time, and going on from a part: the same rows; scores are those of `each`."""
    model, subset = build("small", (1, 8, 8), 3, seed=0), tiny_dataset.evaluation_subset(8)
    settings = {"norms": [1, 2], "class_sets": ["1-class", "2-class"]}
    together = rows_of(model, subset, **settings)
    assert [(row["measure"], row["squared_score"]) for row in together] == [
        ("l1:1-class", False),
        ("l1:2-class", False),
        ("l2:1-class", False),
        ("l2:1-class", True),
        ("l2:2-class", False),
        ("l2:2-class", True),
    ]
    for row in together:
        each = from_record(row["each"])
        assert row["measured"] == len(each) == 8 and row["n"] == int((each[:, 0] > 0).sum())
        if row["n"] > 1:
            assert row["nds"] == float(each[:, 1].sum() / each[:, 0].sum()) and row["nds_se"] > 0
    part = rows_of(model, subset, images=3, **settings)
    assert {row["measured"] for row in part} == {3}
    for other in (rows_of(model, subset, batch_size=1, **settings), rows_of(model, subset, held=part, **settings)):
        for a, b in zip(together, other, strict=True):
            assert from_record(a["each"]).numpy() == pytest.approx(from_record(b["each"]).numpy(), rel=1e-3)
    assert list(isa_rows(model, subset, interpreters=["CAM"], held=together, **settings)) == []


def test_an_image_whose_target_leads_already_is_not_searched(tiny_dataset, monkeypatch):
    model, subset = build("small", (1, 8, 8), 3, seed=0), tiny_dataset.evaluation_subset(12)
    logits = model(subset.x)
    leads = (logits.gather(1, subset.target[:, None]) > logits.gather(1, subset.y[:, None]))[:, 0]
    assert leads.any() and not leads.all()
    searched, real = [], isa_scores.isa_over_eps
    counted = lambda model, x, *args, **more: searched.append(len(x)) or real(model, x, *args, **more)
    monkeypatch.setattr(isa_scores, "isa_over_eps", counted)
    (row,) = rows_of(model, subset)
    assert searched == [int((~leads).sum())] and row["measured"] == 12
    assert all(row["each"][i] is None for i in leads.nonzero()[:, 0])
    wrong = replace(subset, x=subset.x[leads], y=subset.y[leads], target=subset.target[leads])
    (row,) = rows_of(model, wrong)
    assert row["n"] == 0 and row["nds"] is row["nds_se"] is None and len(searched) == 1


def test_ig_of_the_attack_is_the_released_codes_ig(released_folder, real_mnist):
    """Eight points in place of a hundred: map and gradient of the discrepancy agree to float32."""
    model = read_network(find("mnist", "small", "Normal", released_folder))
    subset = real_mnist.evaluation_subset(4)
    pair = class_set("2-class", subset.y, subset.target)
    x_adv = (subset.x + 0.05).clamp(0, 1)

    def apart(logits_and_maps):
        x = x_adv.clone().requires_grad_()
        logits, maps = logits_and_maps(x)
        clean = integrated_gradients_release(model, subset.x, pair)
        return logits, maps, torch.autograd.grad(discrepancy(clean, maps, 2, True).sum(), x)[0]

    plain = lambda x: (model(x), integrated_gradients_release(model, x, pair, create_graph=True))
    both = explain(model, integrated_gradients_release)
    # Sums over 100 points in float32, in another order on every processor: the largest deviation seen is 1.1e-5.
    for fast, slow in zip(apart(lambda x: both(x, pair)), apart(plain), strict=True):
        assert (fast - slow).abs().max() < 1e-4 * slow.abs().max()


def test_the_first_step_of_all_rounds_is_the_plain_one(case):
    """At x the maps agree, so that no weight shows: with one step every round gives the plain attack."""
    model, x, y, target = case
    settings = {"eps": 0.2, "alpha": 0.1, "steps": 1}
    plain = margin_attack(model, x, y, target, **settings)
    assert torch.equal(plain, isa(model, x, y, target, search=Search(first=1.0, rounds=3), **settings))
    assert (isa(model, x, y, target, search=Search(rounds=2), **settings | {"steps": 0}) == x).all()
