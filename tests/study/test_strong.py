"""The row of attacks: each sees what those before it left, and the record holds every image's outcome."""

import pytest
import torch
import toys
from conftest import images

from interp_lib.attacks.auto_pgd import apgd
from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right
from interp_lib.study import records, strong, sweep


@pytest.fixture(scope="module")
def case():
    return toys.mostly_right(images(30, (1, 8, 8), dtype=torch.float32))


def outcomes(rows):
    return {row["attack"]: torch.tensor(records.outcomes_of(row["right"], row["n"])) for row in rows}


def test_every_attack_can_only_take_images_away_and_wrong_ones_stay_wrong(case):
    model, x, y = case
    rows = strong.strong_rows(model, x, y, eps=0.3, steps=10, queries=60, square_images=12)
    right = outcomes(rows)
    assert list(right) == ["none", "APGD-CE", "APGD-T", "Square"] and rows[3]["n"] == 12
    assert not right["none"][:3].any() and right["none"][3:].all()
    assert not (right["APGD-CE"] & ~right["none"]).any() and not (right["APGD-T"] & ~right["APGD-CE"]).any()
    assert not (right["Square"] & ~right["APGD-T"][:12]).any()
    assert right["APGD-CE"].sum() < 27
    generator = torch.Generator().manual_seed(0)
    index = right["none"].nonzero()[:, 0]
    x_adv = apgd(model, x[index], y[index], eps=0.3, steps=10, generator=generator)
    assert torch.equal(right["APGD-CE"][index], classified_right(model, x_adv, y[index]))


def test_targets_are_all_other_classes_the_likeliest_first(case):
    model, x, y = case
    others = strong.targets(model, x, y)
    with torch.no_grad():
        logits = model(x)
    assert others.shape == (30, 4) and not (others == y[:, None]).any()
    assert (logits.gather(1, others).diff(dim=1) <= 0).all()


def test_no_square_no_row_and_several_batches(case, monkeypatch):
    model, x, y = case
    seen = []
    once = strong.strong_rows(model, x, y, eps=0.05, steps=5, square_images=0)
    monkeypatch.setattr(strong, "IN_CACHE", 10)
    rows = strong.strong_rows(model, x, y, eps=0.05, steps=5, queries=9, square_images=15, progress=seen.append)
    assert [row["attack"] for row in once] == ["none", "APGD-CE", "APGD-T"]
    assert seen == [10, 10, 10] and [row["n"] for row in rows] == [30, 30, 30, 15]


def test_a_network_without_a_right_image(case):
    model, x, y = case
    with torch.no_grad():
        wrong = (model(x).argmax(1) + 1) % 5
    rows = strong.strong_rows(model, x, wrong, eps=0.05, steps=2, queries=2)
    assert [row["correct"] for row in rows] == [0, 0, 0, 0]


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"eps": 8}, {"square_images": -1}])
def test_wrong_settings_are_refused_by_name(case, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strong.strong_rows(*case, **{"eps": 0.1, **wrong})


def test_the_record_goes_on_radius_by_radius(monkeypatch, tmp_path, tiny_dataset):
    how = {"dataset": "digits", "method": "Int", "seed": 0, "schedule": "digits"}
    trained.save(build("small", (1, 8, 8), 3, seed=0), tmp_path / "networks" / "one.safetensors", how)
    calls, plain = [], strong.strong_rows

    def short(*args, **more):
        calls.append(more["eps"])
        return plain(*args, **more, steps=1, queries=2)

    monkeypatch.setattr(strong, "strong_rows", short)
    monkeypatch.setattr(strong, "targets", lambda model, x, y: y[:, None][:, :0])  # DLR needs four classes
    part = sweep.Part(tiny_dataset, "small", list(sweep.find_networks("ours", tmp_path / "networks")), "ours", tmp_path)

    def run():
        (plan,) = strong.strong_plan(part, eps=[0.1, 0.2], n=20)
        return records.read(sweep.grow(plan, part))

    whole = run()
    assert calls == [0.1, 0.2] and len(whole.rows) == 8
    whole.rows = [row for row in whole.rows if row["eps"] == 0.1]
    records.write(whole, tmp_path)
    assert len(run().rows) == 8 and calls == [0.1, 0.2, 0.2]
