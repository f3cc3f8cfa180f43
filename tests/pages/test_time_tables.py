"""The tables on training time, from records made by hand; and what the chapter says of the committed ones."""

import re

import nbformat
import pytest
from conftest import ROOT, cell, record, row

from interp_lib.pages import time_tables
from interp_lib.schedule import Schedule
from interp_lib.study import records
from interp_lib.study.records import outcome_digits

SCHEDULE = Schedule(
    epochs=36, batch_size=50, learning_rate=1, eps=0.3, ramp_start=0, ramp_end=0, attack_steps=4, attack_alpha=0.1
)


def texts(table):
    return [[line[0][0] for line in cells] for cells in table.rows]


def timed(**ms):
    """Milliseconds a step, here and in the plain loop; a thousand steps an epoch."""
    rows = [
        {
            **{"method": m, "ms_a_step": here, "ms_a_step_plain": plain, "ratio": plain / here},
            **{"seconds_an_epoch": here, "ms_a_step_bfloat16": here / 4, "ratio_bfloat16": 4.0},
        }
        for m, (here, plain) in ms.items()
    ]
    made = record(rows, measurement="training-time", batch=50, attack_steps=4, rounds=5, threads=2)
    made.settings["images_an_epoch"] = 1000 * 50
    made.provenance["device"] = "x86_64, 2 threads"
    return made


@pytest.fixture
def timing():
    return timed(Adv=(100.0, 250.0), Int=(200.0, 1000.0))


def test_times_of_a_step_and_of_the_whole_training(timing):
    made = time_tables.step_times(timing, SCHEDULE)
    # 36 epochs of 100 s are an hour.
    assert texts(made) == [["Adv", "100", "250", "2.5", "100", "1.0"], ["Int", "200", "1000", "5.0", "200", "2.0"]]
    assert made.note == "MNIST Small, batch 50, 4 inner steps; x86_64, 2 threads, median of 5 rounds."
    low = time_tables.bfloat16_times(timing)
    assert texts(low) == [["Adv", "100", "25", "4.0"], ["Int", "200", "50", "4.0"]]
    ratios = time_tables.ratios(timing, [("Int", "Adv")])
    assert texts(ratios) == [["Int / Adv", "2.0", "4.0"]]


def test_bfloat16_is_compared_with_the_same_seed_in_float32():
    def seed(right, number, **more):
        right = [digit == "1" for digit in right]
        share = {"accuracy": sum(right) / 8, "right": outcome_digits(right), "seed": number, "gamma": 0.01}
        return row(sum(right), n=8, schedule="quick") | share | more

    ours = record([seed("11110000", 0), seed("11110011", 1), seed("00000000", 0, gamma=0.1)], source="ours")
    low = record([seed("01111111", 0), seed("11111111", 2)], source="bfloat16")
    for made in (ours, low):
        made.settings["measurement"] = "many"
    table = time_tables.bfloat16_accuracy([ours, low])
    # Five of eight images differ, four for bfloat16: +3/8 ± sqrt(5/8 - 9/64) / sqrt(8), and p = 2 (1 + 5) / 2^5.
    # Seeds 0 and 1 have 4 and 6 of 8 images: their standard deviation is sqrt(2) / 8.
    assert texts(table) == [["MNIST Adv, seed 0", "0.3", "0.500", "0.875", "+0.375 ± 0.246", "0.375", "0.177"]]
    assert "schedule quick, n = 8. " in table.note and "corrected for 1 differences" in table.note


@pytest.fixture
def gpu():
    rows = [
        {"methods": methods, "stack": stack, "how": how, "ms_a_step": ms}
        for methods, stack, how, ms in [
            (["Adv"], 1, "launched", 40.0),
            (["Adv"], 1, "recorded", 8.0),
            (["Adv"], 3, "recorded", 12.0),
            (["Int"], 1, "launched", 30.0),
            (["Int"], 1, "recorded", 10.0),
            (["Adv", "Int"], 1, "recorded", 17.0),
        ]
    ]
    made = record(rows, measurement="training-time-gpu", batch=50, attack_steps=4, steps=10)
    made.provenance |= {"device": "a GPU", "commit": "0123456789ab"}
    return made


def test_times_on_a_gpu(gpu, timing):
    table = time_tables.on_gpu(gpu)
    assert table.columns == ["method", "launched", "recorded", "ratio", "stack of 3"]
    assert texts(table) == [["Adv", "40.0", "8.0", "5.0", "4.0"], ["Int", "30.0", "10.0", "3.0", "–"]]
    assert table.note.endswith("a GPU, mean of 10 steps, float32, commit 0123456.")
    assert texts(time_tables.beside_each_other([gpu])) == [["Adv and Int", "1", "17.0", "18.0"]]
    # 36 epochs of 1,000 steps: 36,000 steps of 8 ms are 4.8 minutes, of 100 ms an hour.
    whole = time_tables.whole_training(timing, [gpu], SCHEDULE)
    assert whole.columns == ["method", "GPU", "2 cores"] and "36,000 steps" in whole.note
    assert texts(whole) == [["Adv", "5", "60"], ["Int", "6", "120"]]


def test_networks_trained_at_the_same_time():
    def how(method, run, *seconds, model="wresnet"):
        history = [{"seconds": s} for s in seconds]
        return {"dataset": "cifar10", "model": model, "method": method, "trained_together": run, "history": history}

    made = [how("Adv", "b", 99, 10, 12), how("Int", "b", 99, 10, 12), how("TRADES", "a", 99, 5)]
    table = time_tables.trained_together([*made, how("Int", "c", 1, 1, model="small")], "cifar10", "wresnet", warm_up=1)
    assert texts(table) == [["TRADES", "5"], ["Adv, Int", "11"]] and "from number 2 on" in table.note


def test_rows_of_figure_3(timing):
    cells = [cell(released=0.5, ours=0.25, n=200, n_ours=200, schedule="quick")]
    (adv, of_int) = time_tables.figure3_rows(timing, cells, levels=("0.3",)).to_dict("records")
    # Wilson's half-width of 100 in 200: sqrt(1/800 + 1/160,000) / (1 + 1/200).
    assert adv == {"method": "Adv", "seconds": 100.0, "0.3": 0.5, "0.3 error": pytest.approx(0.035267, abs=1e-6)}
    assert of_int["seconds"] == 200.0 and of_int["0.3"] != of_int["0.3"]  # not measured: NaN
    ours = time_tables.figure3_rows(timing, cells, "ours")
    assert list(ours["0.3"])[0] == 0.25 and list(ours["schedule"])[0] == "quick" and "0.4" not in ours


def test_the_chapter_says_what_the_records_say():
    found = records.read_all(ROOT / "results")
    (timing,) = (r for r in found if r.family == "training-time-mnist-small")
    hours = {m: float(h) for m, *_, h in texts(time_tables.step_times(timing, Schedule.load("paper", "mnist")))}
    # 'in an evening, and one of the two with integrated gradients in most of a day'
    assert max(h for m, h in hours.items() if not m.startswith("IG")) < 6
    assert all(18 < h < 24 for m, h in hours.items() if m.startswith("IG"))
    pairs = [("IG-Norm", "Int-Adv"), ("Int", "Adv")]
    (ig, ig_plain), (ours, ours_plain) = (map(float, line[1:]) for line in texts(time_tables.ratios(timing, pairs)))
    # 'more than three times as much', 'more than twice as long ..., and three times as long in the plain loop'
    assert min(ig, ig_plain) >= 3 and 2 < ours < 3 < ours_plain < 3.5
    lines = texts(time_tables.bfloat16_accuracy(found))
    (clear,) = (line for line in lines if not line[5].startswith("<") and float(line[5]) <= 0.05)
    assert len(lines) == 14 and not any(line[5].startswith("<") for line in lines)
    assert clear[:2] == ["MNIST Chen-IG-Norm, seed 0", "0.35"]  # 'one of fourteen is, beyond it'
    # 'about what another seed changes there'
    assert 0.5 < float(re.match(r"\+([\d.]+)", clear[4]).group(1)) / float(clear[6]) < 1.5
    text = "".join(c.source for c in nbformat.read(ROOT / "book/23_training_time.ipynb", 4).cells)
    assert "One of fourteen is, beyond it" in text and "about what another seed changes there" in text
