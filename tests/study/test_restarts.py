"""PGD with other losses and restarts: an independent writing, who is attacked, and what saturated gradients hide."""

import pytest
import torch
import toys
from conftest import images

from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right
from interp_lib.study import records, restarts, sweep
from interp_lib.study.accuracy import pgd_accuracy


@pytest.fixture(scope="module")
def case():
    return toys.mostly_right(images(30, (1, 8, 8), dtype=torch.float32))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def outcomes(row):
    return torch.tensor(records.outcomes_of(row["right"], row["n"]))


def test_a_run_is_coarse_and_then_fine_pgd_from_a_random_point(case):
    model, x, y = case
    x_adv = restarts.climb(model, x, y, eps=0.1, loss="cross-entropy", steps=7, generator=seeded())
    coarse = pgd(model, x, y, eps=0.1, alpha=0.1 / 4, steps=4, random_start=True, generator=seeded())
    assert torch.equal(x_adv, pgd(model, x, y, eps=0.1, alpha=0.1 / 40, steps=3, start=coarse))
    with_momentum = restarts.climb(
        model, x, y, eps=0.1, loss="cross-entropy", momentum=True, steps=7, generator=seeded()
    )
    assert not torch.equal(with_momentum, x_adv) and (with_momentum - x).abs().max() <= 0.1 + 1e-6


def test_restarts_never_lose_an_image_and_attack_only_what_is_left(case, monkeypatch):
    model, x, y = case
    climb, attacked = restarts.climb, []

    def counted(model, some, *rest, **settings):
        attacked.append((settings["loss"], settings["momentum"], len(some)))
        return climb(model, some, *rest, **settings)

    monkeypatch.setattr(restarts, "climb", counted)
    rows = restarts.restart_rows(model, x, y, eps=0.2, starts=(1, 2, 4), steps=8, table_steps=1)
    first, *others = rows
    (table3,) = pgd_accuracy(model, x, y, eps=[0.2], steps=[1])
    assert first["attack"] == "Table 3" and outcomes(first).equal(outcomes(table3)) and not outcomes(first)[:3].any()
    for name, (loss, momentum) in restarts.ATTACKS.items():
        mine = {row["starts"]: outcomes(row) for row in others if row["attack"] == name}
        assert list(mine) == [1, 2, 4]
        for fewer, more in ((outcomes(first), mine[1]), (mine[1], mine[2]), (mine[2], mine[4])):
            assert not (more & ~fewer).any()
        sizes = [n for some_loss, some_momentum, n in attacked if (some_loss, some_momentum) == (loss, momentum)]
        assert sizes[:3] == [int(outcomes(first).sum()), int(mine[1].sum()), int(mine[2].sum())]
    assert 0 < min(row["correct"] for row in others) < first["correct"]


def test_the_first_run_of_every_attack_has_the_same_start(case):
    model, x, y = case
    (_, row, *_) = restarts.restart_rows(
        model, x, y, eps=0.05, attacks=["margin"], starts=[1], steps=4, table_steps=1, seed=7
    )
    right = classified_right(model, pgd(model, x, y, eps=0.05, alpha=0.01, steps=1), y)
    x_adv = restarts.climb(model, x[right], y[right], eps=0.05, loss="margin", steps=4, generator=seeded(7))
    right[right.clone()] = classified_right(model, x_adv, y[right])
    assert outcomes(row).equal(right)


def test_losses_without_a_scale_break_what_saturation_hides(case):
    model, x, y = case
    sure = build("small", (1, 8, 8), 5, seed=1)
    with torch.no_grad():
        sure.classifier.weight *= 1e5
    attacks = ["cross-entropy", "margin", "DLR"]
    rows = restarts.restart_rows(sure, x, y, eps=0.3, attacks=attacks, starts=[1], steps=10, table_steps=10)
    left = {row["attack"]: row["correct"] for row in rows}
    assert left["Table 3"] == left["cross-entropy"] == 27 and max(left["margin"], left["DLR"]) < 20


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"starts": [0]}, {"attacks": ["FAB"]}])
def test_wrong_settings_are_refused_by_name(case, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        restarts.restart_rows(*case, **{"eps": 0.1, **wrong})


def test_the_record_goes_on_radius_by_radius(tmp_path, tiny_dataset):
    for seed, method in enumerate(("Adv", "Int")):
        how = {"dataset": "digits", "method": method, "seed": 0, "schedule": "digits"}
        network = build("small", (1, 8, 8), 3, seed=seed)
        trained.save(network, tmp_path / f"networks/{method}.safetensors", how)
    part = sweep.Part(tiny_dataset, "small", list(sweep.find_networks("ours", tmp_path / "networks")), "ours", tmp_path)

    def run():
        (plan,) = restarts.restarts_plan(part, eps=[0.1, 0.2], n=20, steps=2, starts=[1, 2])
        return records.read(sweep.grow(plan, part))

    whole = run()
    assert len(whole.rows) == 2 * 2 * (1 + 2 * len(restarts.ATTACKS)) and whole.settings["attack"]["steps"] == 2
    kept = [row for row in whole.rows if row["eps"] == 0.1]
    records.write(records.Record(whole.family, whole.settings, kept, whole.provenance), tmp_path)
    key = lambda row: (row["method"], row["eps"], row["attack"], row["starts"])
    assert sorted(run().rows, key=key) == sorted(whole.rows, key=key)
