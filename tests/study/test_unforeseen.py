"""Table 5: what a row says, what a second run measures, and what the comparison makes of several random starts."""

import math
from statistics import stdev

import pytest
import torch

from interp_lib import data, paper
from interp_lib.attacks.unforeseen import snow
from interp_lib.models import trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right
from interp_lib.study import records, sweep, unforeseen
from interp_lib.study.compare import compare
from interp_lib.study.runs import averaged


@pytest.fixture(scope="module")
def subset():
    return data.load("digits").evaluation_subset(12)


def test_a_row_is_the_attack_at_the_papers_settings(subset):
    network = build("small", input_shape=subset.x.shape[1:], seed=0)
    rows = unforeseen.unforeseen_rows(network, subset, attack="Snow", draws=(3, 5), steps=4)
    assert [(row["attack"], row["form"], row["draw"], row["n"]) for row in rows] == [
        ("Snow", "released", draw, 12) for draw in (3, 5)
    ]
    x_adv = snow(
        network,
        subset.x,
        subset.target,
        eps=2.0,
        alpha=2 / math.sqrt(4),
        steps=4,
        targeted=True,
        as_released=True,
        generator=torch.Generator().manual_seed(5),
    )
    right = classified_right(network, x_adv, subset.y)
    assert rows[1]["correct"] == int(right.sum())
    assert records.outcomes_of(rows[1]["right"], 12) == right.tolist()


def test_the_strengths_are_the_released_codes():
    strengths = {name: attack.keywords["eps"] for name, attack in unforeseen.ATTACKS.items()}
    assert strengths == {"Gabor": 400, "Snow": 2, "JPEG-linf": 0.25, "JPEG-l2": 8, "JPEG-l1": 256, "Fog": 2048}
    printed = {row["level"] for row in paper.paper_tables() if row["table"] == "5"}
    assert printed == set(unforeseen.PRINTED) < set(unforeseen.ATTACKS)


@pytest.mark.parametrize("wrong", [{"attack": "Rain"}, {"form": "own"}, {"draws": [-1]}, {"draws": []}])
def test_wrong_settings_are_refused_by_name(wrong, subset):
    network = build("small", input_shape=subset.x.shape[1:], seed=0)
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        unforeseen.unforeseen_rows(network, subset, **{"attack": "Snow", **wrong})


def test_starts_are_averaged_and_their_spread_kept():
    right = [[True, True, False, False], [True, False, False, True], [True, True, True, False]]
    rows = [
        {"draw": k, "correct": sum(one), "n": 4, "right": records.outcome_digits(one)} for k, one in enumerate(right)
    ]
    row = averaged(rows)
    assert row["correct"] == pytest.approx(7 / 3) and row["n"] == 4
    assert row["outcomes"] == pytest.approx((1, 2 / 3, 1 / 3, 1 / 3))
    assert row["noise"] == pytest.approx(stdev([0.5, 0.5, 0.75]) * math.sqrt(4 / 3))
    assert "noise" not in averaged(rows[:1])


def record(values, network="released"):
    settings = {
        "measurement": "unforeseen",
        "dataset": "cifar10",
        "title": "CIFAR-10",
        "subset": {"n": 200, "seed": 99},
        "model": "small",
        "networks": network,
    }
    rows = [
        {"method": "Int", "attack": "Snow", "form": form, "draw": draw, "correct": correct, "n": 200}
        for form, counts in values.items()
        for draw, correct in enumerate(counts)
    ]
    return records.Record(f"unforeseen-cifar10-small-{network}", settings, rows)


def cell_of(cells):
    (cell,) = [c for c in cells if (c.table, c.method, c.level) == ("5", "Int", "Snow")]
    return cell


def test_the_comparison_takes_the_mean_of_the_released_form_and_knows_its_noise():
    cell = cell_of(compare([record({"released": [20, 24, 22], "defined": [100]})]))
    assert cell.value == "0.105" and cell.released == pytest.approx(22 / 200) and cell.n == 200
    assert cell.noise == pytest.approx(0.01 * math.sqrt(4 / 3))
    assert cell.verdict() == "one image" and cell.cause() == "unexplained"
    near = cell_of(compare([record({"released": [23, 27, 25]})]))
    assert near.verdict() == "close"  # 0.02 from print, where a start differs by 0.01
    assert cell_of(compare([record({"released": [29, 31, 30]})])).verdict() == "other"


def test_a_second_run_measures_only_the_starts_that_are_missing(monkeypatch, tmp_path, tiny_dataset):
    network, calls, plain = build("small", (1, 8, 8), 3, seed=0), [], unforeseen.unforeseen_rows
    how = {"dataset": "digits", "method": "Int", "seed": 0, "schedule": "digits"}
    trained.save(network, tmp_path / "networks" / "one.safetensors", how)
    monkeypatch.setattr(
        unforeseen, "unforeseen_rows", lambda *a, **k: calls.append((k["attack"], k["form"])) or plain(*a, **k)
    )
    networks = list(sweep.find_networks("ours", tmp_path / "networks"))
    part = sweep.Part(tiny_dataset, "small", networks, "ours", tmp_path)

    def run():
        calls.clear()
        (plan,) = unforeseen.unforeseen_plan(part, n=4, steps=1, draws=2, fewer=1)
        return records.read(sweep.grow(plan, part))

    whole = run()
    assert len(whole.rows) == 5 * 2 + 3 and len(calls) == 8
    half = run()
    assert calls == []
    half.rows = [row for row in whole.rows if (row["attack"], row["form"], row["draw"]) != ("Snow", "released", 1)]
    records.write(half, tmp_path)
    again = run()
    assert calls == [("Snow", "released")]
    assert sorted(map(str, again.rows)) == sorted(map(str, whole.rows))
