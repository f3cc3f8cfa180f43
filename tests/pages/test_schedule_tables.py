"""The tables of the chapter on schedules: of records of a few images, and what they say of the committed ones."""

import pytest

from interp_lib.pages import schedule_tables
from interp_lib.study import schedules
from interp_lib.study.records import Record, outcome_digits


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in row] for row in table.rows]


def record(measurement, networks, rows):
    settings = {"measurement": measurement, "dataset": "mnist", "model": "small", "networks": networks}
    return Record(f"{measurement}-mnist-small-{networks}", settings | {"title": "MNIST", "subset": {"n": 200}}, rows)


def counted(right, **labels):
    outcomes = [digit == "1" for digit in right]
    share = sum(outcomes) / len(outcomes)
    return {"correct": sum(outcomes), "n": len(outcomes), "accuracy": share, "right": outcome_digits(outcomes)} | labels


def pgd(correct, schedule=None, seed=0, method="Adv"):
    labels = {"schedule": schedule, "seed": seed, "gamma": 0.01} if schedule else {}
    return {"method": method, **labels, "eps": 0.3, "steps": 200, "correct": correct, "n": 200}


@pytest.fixture(scope="module")
def columns():
    """Adv at eps = 0.3, printed 0.890: two seeds by quick, one by paper."""
    quick = [pgd(180, "quick"), pgd(190, "quick", 1)]
    found = [record("pgd", "released", [pgd(178)]), record("pgd", "ours", quick)]
    return schedules.cells_by_schedule([*found, record("pgd", "ours", [pgd(170, "paper")])])


def test_distances_have_a_line_a_table_and_method_and_name_the_seeds(columns):
    made = schedule_tables.distance_table(columns)
    assert made.columns[2:] == ["quick to print", "quick to released", "paper to print", "paper to released"]
    assert texts(made)[0] == ["Table 3, Adv", "1", "0.035", "0.035", "0.040", "0.040"]
    assert made.note.endswith("Seeds: quick: Adv 2; paper: Adv 1.")


def test_accuracies_stand_under_print(columns):
    made = schedule_tables.accuracies(columns)
    assert made.columns == ["ε", "0.3"]
    # 0.900 and 0.950 are 0.035 from one another's mean: sqrt(2) 0.025.
    values = ("printed", "0.890"), ("released", "0.890"), ("quick", "0.925 ± 0.035"), ("paper", "0.850")
    assert texts(made) == [[f"Adv, {name}", value] for name, value in values]


def test_many_images_are_compared_in_pairs():
    adv = {"method": "Adv", "eps": 0.3}
    found = [
        record("many", "released", [counted("11110000", **adv)]),
        record("many", "ours", [counted("11111110", **adv, schedule="paper", seed=0)]),
    ]
    made = schedule_tables.on_many_images(found, "Adv", 0.3)
    # Three of eight images differ, all in one direction: 2 / 2^3.
    assert texts(made) == [["paper minus released", "0.875", "0.500", "+0.375 ± 0.171", "0.250"]]
    assert made.note.endswith("the same 8 test images; seeds: released 1, paper 1.")


def test_under_apgd_the_released_network_stands_above_ours():
    at = {"method": "Adv", "attack": "APGD-T", "eps": 0.3}
    ours = [counted("1110", **at, schedule="paper", seed=0), counted("0000", **at, schedule="quick", seed=0)]
    found = [record("strong", "released", [counted("1100", **at)]), record("strong", "ours", ours)]
    assert texts(schedule_tables.under_apgd(found)) == [["Adv, seed 0", "0.500 0.750"]]


# The committed records


@pytest.fixture(scope="module")
def committed():
    return schedules.read_schedules()


def test_the_schedule_moves_normal_and_not_adv(committed):
    columns = schedules.cells_by_schedule(committed)
    gap = {(row["table"], row["method"]): row for row in schedules.distances(columns)}
    for table in ("3", "4"):
        assert gap[table, "Normal"]["paper to print"] < 0.25 * gap[table, "Normal"]["quick to print"]
        assert abs(gap[table, "Adv"]["paper to print"] - gap[table, "Adv"]["quick to print"]) < 0.02
    at = {tuple(row[0].split(", ")): row[1:] for row in texts(schedule_tables.accuracies(columns))}
    quick, paper = (float(at["Normal", schedule][1].split()[0]) for schedule in ("quick", "paper"))
    assert abs(paper - 0.53) < 0.05 < 0.3 < quick - 0.53
    lines = {row[0]: row[1:] for row in texts(schedule_tables.on_many_images(committed, "Adv", 0.3))}
    assert lines["paper minus released"][3] == "< 0.001" and float(lines["paper minus quick"][3]) > 0.1


def test_by_the_papers_schedule_the_first_claim_has_the_papers_sign(committed):
    signs = {
        row[0]: [int(cell.split()[0]) for cell in row[1:]] for row in texts(schedule_tables.first_claim(committed))
    }
    assert all(signs[f"paper, seed {seed}"] == [8, 8] for seed in range(3))
    assert all(signs[f"quick, seed {seed}"][0] < 8 for seed in range(3))
