"""Networks by two schedules side by side: rows are kept apart, values match line by line, distances are means."""

import math

import pytest

from interp_lib.study import schedules
from interp_lib.study.records import Record


def pgd(networks, rows):
    settings = {"measurement": "pgd", "dataset": "mnist", "model": "small", "networks": networks, "title": "MNIST"}
    return Record("pgd-mnist-small-" + networks, {**settings, "subset": {"n": 200}}, rows)


def row(method, eps, correct, schedule=None, seed=0):
    labels = {"schedule": schedule, "seed": seed, "gamma": 0.01} if schedule else {}
    return {"method": method, **labels, "eps": eps, "steps": 200, "correct": correct, "n": 200}


@pytest.fixture
def found():
    """Adv at eps = 0.3, printed 0.890: two seeds by quick, one by paper; TRADES by quick alone."""
    quick = [row("Adv", 0.3, 180, "quick"), row("Adv", 0.3, 190, "quick", 1), row("TRADES", 0.3, 1, "quick")]
    return [pgd("released", [row("Adv", 0.3, 178)]), pgd("ours", quick), pgd("ours", [row("Adv", 0.3, 170, "paper")])]


def test_each_schedule_has_its_own_networks_and_only_shared_values(found):
    columns = schedules.cells_by_schedule(found)
    at = {name: {(c.method, c.level): c for c in cells if c.table == "3"} for name, cells in columns.items()}
    assert set(at["quick"]) == set(at["paper"]) == {("Adv", "0.3")}
    assert at["quick"]["Adv", "0.3"].ours == 0.925 and at["paper"]["Adv", "0.3"].ours == 0.85
    assert at["quick"]["Adv", "0.3"].schedule == "quick" and at["paper"]["Adv", "0.3"].spread is None


def test_distances_are_means_of_absolute_differences(found):
    at = {(r["table"], r["method"]): r for r in schedules.distances(schedules.cells_by_schedule(found))}
    adv = at["3", "Adv"]
    assert adv["values"] == 1
    assert math.isclose(adv["quick to print"], 0.925 - 0.89) and math.isclose(adv["paper to print"], 0.89 - 0.85)
    assert math.isclose(adv["quick to released"], 0.925 - 0.89) and math.isclose(adv["paper to released"], 0.04)


def test_curves_hold_each_printed_value_once(found):
    rows = schedules.curves(schedules.cells_by_schedule(found))
    assert sorted((r["source"], r["accuracy"]) for r in rows) == [
        ("paper", 0.89),
        ("schedule paper", 0.85),
        ("schedule quick", 0.925),
    ]


def test_a_committed_record_has_networks_of_one_schedule():
    several = [{row["schedule"] for row in r.rows if "schedule" in row} for r in schedules.read_schedules()]
    assert {"quick"} in several and {"paper"} in several and max(map(len, several)) == 1
    for name in schedules.OTHERS:
        rows = [row for record in schedules.read_all(schedules.RESULTS / name) for row in record.rows]
        assert rows and {row["schedule"] for row in rows} == {name}
