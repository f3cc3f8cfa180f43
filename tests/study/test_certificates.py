"""Certificates: radii by hand, what they bound is bounded, and no attack breaks an image that is certified."""

import pytest
import torch
from conftest import images
from toys import biased

from interp_lib.attacks.ascent import ascend, uniform_start
from interp_lib.attacks.auto_pgd import apgd
from interp_lib.discrepancies import discrepancy, distances, two_class_discrepancy
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import build
from interp_lib.models.bounds import KINDS, Ball, map_rows
from interp_lib.models.predict import classified_right
from interp_lib.study import certificates, records
from interp_lib.study.certificates import FORMS, STEPS_OF_PROOF, certified, largest_gain, refuted

EVERY = [(form, kind) for form in FORMS for kind in KINDS]


@pytest.fixture(scope="module")
def case():
    model = biased("small", (1, 9, 8), 4, seed=2, spread=0.05)
    x = images(12, (1, 9, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


def gains_at(model, x, z, y, form):
    """What f_c - f_y gains from x to z by each form, for all classes c, by the library's maps and discrepancies."""
    with torch.no_grad():
        if form == "logits":
            change = model(z) - model(x)
            return change - change.gather(1, y[:, None])
        classes = torch.arange(model.num_classes).expand(len(x), -1)
        natural, moved = (cam(model, images, classes) for images in (x, z))
        if form == "all-class":
            return model.num_classes * discrepancy(natural, moved)[:, None].expand(classes.shape)
        out = []
        for c in range(model.num_classes):
            pair = torch.stack([y, torch.full_like(y, c)], 1)
            one, other = cam(model, x, pair), cam(model, z, pair)
            if form == "joint":
                between = lambda maps: maps[:, 1:] - maps[:, :1]
                out.append(distances(between(one), between(other))[:, 0])
            elif form == "2-class":
                out.append(2 * two_class_discrepancy(one, other))
            else:
                out.append(one[0, 0].numel() ** 0.5 * distances(one, other, 2).sum(1))
        return torch.stack(out, 1)


def two_maps(x, weights):
    """A Small on two pixels: its map of class c is weights[c] . x, where that is positive; and x, and class 0."""
    model = build("small", (1, 1, 2), 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.conv1.weight[:2, 0, 1, 1:3] = torch.tensor(weights, dtype=torch.float64)
        model.conv2.weight[[0, 1], [0, 1], 1, 1] = 1.0
        model.conv3.weight[[0, 1], [0, 1], 3, 3] = 1.0
        model.classifier.weight[[0, 1], [0, 1]] = 1.0
    return model, torch.tensor([[[x]]], dtype=torch.float64), torch.tensor([0])


@pytest.mark.parametrize(
    "form, kind, radius",
    [
        ("logits", "CROWN", 0.4),  # f_1 - f_0 = -x2, and x2 = 0.4
        ("joint", "CROWN", 0.4),
        ("2-class", "CROWN", 0.4 / 3),  # |d1 + d2| + |d1| is at most 3 eps
        ("logits", "IBP", 0.4 / 3),
        ("2-class", "IBP", 0.4 / 3),
    ],
)
def test_by_hand_a_detour_through_two_maps_costs_two_thirds(form, kind, radius):
    given = two_maps([0.5, 0.4], [(1.0, 1.0), (1.0, 0.0)])
    assert certified(*given, eps=radius - 1e-6, form=form, kind=kind).item()
    assert not certified(*given, eps=radius + 1e-6, form=form, kind=kind).item()


def test_by_hand_the_norms_of_one_pixel():
    # u = 1: the l2 form is the 2-class form, and two classes are all classes.
    model, x, y = two_maps([0.5, 0.4], [(1.0, 1.0), (1.0, 0.0)])
    ball, rows, other = Ball(model, x, 0.1), map_rows(model), torch.tensor([[1]])
    gain = {form: largest_gain(ball, rows, y, other, form).item() for form in FORMS}
    assert gain == pytest.approx({"logits": 0.1, "joint": 0.1, "2-class": 0.3, "2-class l2": 0.3, "all-class": 0.3})


@pytest.mark.parametrize("form, kind", EVERY)
def test_a_gain_is_never_more_than_its_bound(case, form, kind):
    model, x, y = case
    targets = torch.stack([torch.tensor([c for c in range(4) if c != label]) for label in y])
    generator = torch.Generator().manual_seed(0)
    for eps in (0.01, 0.1):
        bound = largest_gain(Ball(model, x, eps, kind), map_rows(model), y, targets, form)
        for z in [uniform_start(x, eps, generator) for _ in range(5)] + [
            (x + eps * torch.randn(x.shape, generator=generator, dtype=x.dtype).sign()).clamp(0, 1) for _ in range(5)
        ]:
            assert (gains_at(model, x, z, y, form).gather(1, targets) <= bound + 1e-9).all()


def test_every_form_is_a_detour_of_the_one_before(case):
    model, x, y = case
    z = uniform_start(x, 0.2, torch.Generator().manual_seed(1))
    logits, joint, pair, l2, every = (gains_at(model, x, z, y, form) for form in FORMS)
    others = torch.ones_like(logits).scatter(1, y[:, None], 0).bool()
    for less, more in ((logits, joint), (joint, pair), (pair, l2), (pair, every)):
        assert (less <= more + 1e-12)[others].all() and (less < more - 1e-6)[others].any()


@pytest.mark.parametrize("form, kind", EVERY)
def test_no_attack_breaks_a_certified_image(case, form, kind):
    model, x, y = case
    counts = []
    for eps in (1e-4, 0.001, 0.01, 0.25):
        held = certified(model, x, y, eps=eps, form=form, kind=kind)
        counts.append(int(held.sum()))
        x_adv = apgd(model, x, y, eps=eps, steps=20, generator=torch.Generator().manual_seed(0))
        assert classified_right(model, x_adv, y)[held].all()
        for broken_by in STEPS_OF_PROOF[: STEPS_OF_PROOF.index(form) + 1] if form in STEPS_OF_PROOF else STEPS_OF_PROOF:
            assert not (held & refuted(model, x, y, eps=eps, form=broken_by)).any()
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


@pytest.mark.parametrize("form, kind", EVERY)
def test_at_radius_0_what_is_right_is_certified(case, form, kind):
    model, x, y = case
    y = y.clone()
    y[:5] = (y[:5] + 1) % 4
    assert torch.equal(certified(model, x, y, eps=0.0, form=form, kind=kind), classified_right(model, x, y))
    assert not certified(model, x, y, eps=0.0, form=form, kind=kind, slack=100.0).any()


def test_what_is_settled_by_coarse_bounds_is_settled_by_fine_ones(case):
    model, x, y = case
    ball, rows = Ball(model, x, 0.02), map_rows(model)
    coarse = certificates._coarse_gain(ball, rows, y)
    targets = torch.arange(4).expand(len(x), 4)
    others = targets != y[:, None]
    for form in ("joint", "2-class"):
        assert (largest_gain(ball, rows, y, targets, form) <= coarse + 1e-9)[others].all()


@pytest.mark.parametrize("form", STEPS_OF_PROOF)
def test_refuted_is_what_an_attack_on_the_form_shows(case, form):
    model, x, y = case
    assert not refuted(model, x, y, eps=0.0, form=form).any()
    shown = [refuted(model, x, y, eps=eps, form=form) for eps in (0.02, 0.1, 1.0)]
    assert shown[0].sum() < shown[2].sum() and shown[2].sum() > len(x) / 2
    with torch.no_grad():
        margin = model(x).gather(1, y[:, None]) - model(x)

    def excess(z):  # the same objective by the network's own maps, climbed from elsewhere
        with torch.enable_grad():
            maps = lambda images: cam(model, images, torch.arange(4).expand(len(x), 4))
            moved = (maps(z) - maps(x).detach()).flatten(2)
            own = moved[torch.arange(len(x)), y][:, None]
            parts = {"logits": moved - own, "joint": (moved - own).abs(), "2-class": moved.abs() + own.abs()}[form]
            return (parts.sum(2) - margin).scatter(1, y[:, None], -torch.inf).amax(1)

    start = uniform_start(x, 0.1, torch.Generator().manual_seed(5))
    z = ascend(excess, x, eps=0.1, alpha=0.02, steps=30, start=start)
    with torch.no_grad():
        agree = (excess(z) >= 0) == shown[1]
    assert agree.float().mean() > 0.7


def test_the_true_class_alone_certifies_nothing():
    # The map of class 0 is x1 and stays as it is; that of class 1 is x2, which rises above it.
    model, x, y = two_maps([0.5, 0.4], [(1.0, 0.0), (0.0, 1.0)])
    z = torch.tensor([[[[0.5, 0.6]]]], dtype=torch.float64)
    assert gains_at(model, x, z, y, "2-class")[0, 0] == 0 and not classified_right(model, z, y).item()


def test_radii_are_certified_and_refuted_and_rows_hold_them(case):
    model, x, y = case
    model, x, wrong = model.float(), x.float(), y.clone()
    wrong[3] = (wrong[3] + 1) % 4
    seen = []
    rows = certificates.certificate_rows(model, x, wrong, progress=seen.append)
    assert [(row["kind"], row["form"]) for row in rows] == [
        (kind, form) for kind in ("attack", *KINDS) for form in STEPS_OF_PROOF
    ]
    assert sum(seen) == 9 * 11
    kept = torch.arange(12) != 3
    radius = {}
    for row in rows:
        assert row["n"] == 12 and row["correct"] == 11 and row["radii"][3] is None
        values = radius[row["kind"], row["form"]] = torch.tensor([row["radii"][n] for n in kept.nonzero()[:, 0]])
        assert certificates.accuracy_at(row["radii"], 0.0) == 11
        assert certificates.accuracy_at(row["radii"], 0.01) == int((values >= 0.01).sum())
        if row["kind"] in KINDS:
            held = certified(model, x[kept], y[kept], eps=values, form=row["form"], kind=row["kind"])
            assert held.all() and values.max() > 0
    for form in STEPS_OF_PROOF:
        assert (radius["IBP", form] <= radius["attack", form]).all()
        assert radius["IBP", form].mean() < radius["CROWN", form].mean() < radius["attack", form].mean()
    model.double()


def test_a_search_finds_where_a_ratio_passes_one():
    true = torch.tensor([0.01, 0.03, 0.2, 0.09])
    ratio = lambda eps: (eps / true) ** 1.3
    low, high = certificates._search(ratio, torch.full((4,), 0.05), torch.full((4,), 0.1), 4)
    assert (low < true.clamp(max=0.1)).all() and (low > 0.9 * true.clamp(max=0.1)).all()
    assert (high[[0, 1, 3]] >= true[[0, 1, 3]]).all() and high[2] == 0.1
    infinite = lambda eps: torch.full_like(eps, torch.inf)
    assert certificates._search(infinite, torch.full((1,), 0.05), torch.full((1,), 0.1), 3)[0].item() == 0


def test_single_precision_is_far_within_the_slack(case):
    model, x, y = case
    targets = torch.stack([torch.tensor([c for c in range(4) if c != label]) for label in y])
    gains = []
    for dtype in (torch.float32, torch.float64):
        model, x = model.to(dtype), x.to(dtype)
        gains += [largest_gain(Ball(model, x, 0.05), map_rows(model), y, targets, "2-class").double()]
    assert (gains[0] - gains[1]).abs().max() < certificates.SLACK / 10


@pytest.mark.parametrize(
    "error, match, changed",
    [
        (ValueError, "form must be one of", {"form": "1-class"}),
        (ValueError, "kind must be one of", {"kind": "LP"}),
        (ValueError, "eps must lie", {"eps": 8}),
        (TypeError, "Small", {"model": build("pool", (1, 9, 8), 4, seed=0).double()}),
        (ValueError, "one label per image", {"y": torch.zeros(3, dtype=torch.int64)}),
    ],
)
def test_what_cannot_be_certified_is_refused(case, error, match, changed):
    model, x, y = case
    given = {"model": model, "x": x, "y": y, "eps": 0.1} | changed
    with pytest.raises(error, match=match):
        certified(given.pop("model"), given.pop("x"), given.pop("y"), **given)


def test_no_image_no_certificate_and_a_record_is_refused_without_radii(case):
    model, x, y = case
    assert certified(model, x[:0], y[:0], eps=0.1).shape == (0,)
    row = {"method": "Int", "kind": "CROWN", "form": "joint", "radii": [0.1], "correct": 1, "n": 1}
    settings = {"measurement": "certificates", "dataset": "mnist", "model": "small", "networks": "ours", "title": "M"}
    assert not records.fault(records.Record("certificates", settings, [row, row | {"kind": "IBP"}]))
    assert "twice" in records.fault(records.Record("certificates", settings, [row, row]))
    del row["radii"]
    assert "radii" in records.fault(records.Record("certificates", settings, [row]))
