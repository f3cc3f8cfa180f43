"""Detectors: AUC and ROC by hand, what a detector is given, and an attack that evades it."""

import math

import pytest
import torch
from conftest import images
from scipy.stats import mannwhitneyu

from interp_lib.discrepancies import discrepancy
from interp_lib.interpreters.class_activation_maps import cam
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right
from interp_lib.study import detection


@pytest.fixture(scope="module")
def case():
    model = build("small", (1, 8, 8), 5, seed=1).double()
    x = images(12, (1, 8, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


def test_the_area_is_the_share_of_pairs_in_order():
    value, error = detection.auc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0]))
    assert value == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    # Means over the pairs of an attacked image: 1 and 1/4; of another image: 1/2 and 3/4.
    assert error == pytest.approx(math.sqrt(0.28125 / 2 + 0.03125 / 2))
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(40, generator=generator) + 0.2, torch.rand(30, generator=generator)
    assert detection.auc(one, other)[0] == pytest.approx(mannwhitneyu(one, other).statistic / 1200)


def test_the_error_is_the_spread_of_the_area_over_samples():
    generator = torch.Generator().manual_seed(1)
    draw = lambda: detection.auc(0.5 + torch.randn(60, generator=generator), torch.randn(60, generator=generator))
    values, errors = zip(*(draw() for _ in range(400)), strict=True)
    assert torch.tensor(values).std().item() == pytest.approx(sum(errors) / 400, rel=0.15)


def test_the_curve_is_made_of_all_thresholds_and_its_area_is_the_auc():
    positive, negative = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([2.0, 1.0])
    wrong, found = detection.roc(positive, negative)
    assert list(zip(wrong, found, strict=True)) == [
        (0, 0),
        (0, pytest.approx(1 / 3)),
        (0.5, pytest.approx(2 / 3)),
        (1, 1),
    ]
    area = sum((b - a) * (u + v) / 2 for a, b, u, v in zip(wrong, wrong[1:], found, found[1:], strict=False))
    assert area == pytest.approx(detection.auc(positive, negative)[0])


def test_smoothing_is_a_mean_that_repeats_the_edge():
    z = torch.zeros(1, 1, 4, 4)
    z[0, 0, 0, 0] = 9.0
    out = detection.smoothed(z)[0, 0]
    assert out[0, 0] == 4 and out[0, 1] == 2 and out[1, 1] == 1 and out[2, 2] == 0
    assert torch.equal(detection.smoothed(torch.full((1, 2, 5, 5), 0.25)), torch.full((1, 2, 5, 5), 0.25))


def test_a_detector_compares_the_classes_that_the_network_sees(case):
    model, x, _ = case
    z = detection.smoothed(x)
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)
        for rule, count in (("1-class", 1), ("2-class", 2), ("all-class", 5)):
            expected = discrepancy(cam(model, x, order[:, :count]), cam(model, z, order[:, :count]), 2)
            assert torch.allclose(detection.scores(model, x, z, rule=rule, p=2), expected)
    with pytest.raises(ValueError, match="rule must be one of"):
        detection.scores(model, x, z, rule="3-class")


def test_evading_stays_in_its_ball_fools_and_lowers_the_score(case):
    model, x, y = case
    eps = torch.full((12,), 0.3, dtype=x.dtype)
    with torch.no_grad():
        target = model(x).argsort(1, descending=True)[:, 1]
    z = detection.evading(model, x, y, target, eps=eps, steps=10)
    assert (z - x).abs().max() <= 0.3 + 1e-9 and 0 <= z.min() and z.max() <= 1
    plain = detection.ascend(
        lambda image: -detection.margin(model(image), y).clamp(min=-0.1), x, eps=eps, alpha=eps / 8, steps=10
    )
    both = ~classified_right(model, z, y) & ~classified_right(model, plain, y)
    assert both.any() and (~classified_right(model, z, y)).sum() >= (~classified_right(model, plain, y)).sum()
    score = lambda image: detection.scores(model, image, detection.smoothed(image))[both]
    assert score(z).mean() < score(plain).mean()


def test_a_row_for_every_detector_and_attack_over_images_that_fool(case):
    model, x, y = case
    wrong = y.clone()
    wrong[0] = (wrong[0] + 1) % 5  # not classified right: not attacked
    seen = []
    rows = detection.detection_rows(model, x, wrong, interpreters=["CAM", "Repr"], steps=6, progress=seen.append)
    assert len(rows) == 3 * 2 * (3 * 2 + 2) and seen == [1, 1, 1]
    assert all(row["n"] <= 11 and (row["auc"] is None) == (row["n"] == 0) for row in rows)
    smallest = [row for row in rows if row["attack"] == "smallest"]
    assert {row["n"] for row in smallest} == {11} and all(0 <= row["auc"] <= 1 for row in smallest)
    size = {row["attack"]: row["median_eps"] for row in rows}
    assert size["larger"] == pytest.approx(1.3 * size["smallest"], rel=0.3)
