"""The tables on training: schedules, and networks trained here, from descriptions made by hand."""

import pytest

from interp_lib.pages import trained_tables
from interp_lib.schedule import Schedule

NETWORK = {"dataset": "mnist", "model": "small", "method": "Adv", "schedule": "quick", "seed": 0}


def network(seconds=120, robust=(0.1, 0.5), device="a processor, 1 threads", **changes):
    history = [{"epoch": k, "validation_accuracy": 0.9, "validation_robust": r} for k, r in enumerate(robust, 1)]
    return NETWORK | {"history": history, "provenance": {"device": device, "seconds": seconds}} | changes


def texts(table):
    return [[line[0][0] for line in cells] for cells in table.rows]


def test_schedules_have_a_column_each():
    table = trained_tables.schedules([("paper", "mnist"), ("quick", "mnist")], {"mnist": 55_000})
    assert table.columns == ["", "paper mnist", "quick mnist"]
    lines = {line[0]: line[1:] for line in texts(table)}
    paper = Schedule.load("paper", "mnist")
    assert lines["epochs"] == ["100", "6"] and lines["steps"][0] == f"{100 * (55_000 // paper.batch_size):,}"
    radii = [paper.radius(step) for step in range(110_000)]
    assert lines["steps at full ε"][0] == f"{radii.count(max(radii)):,}"


def test_networks_are_grouped_by_method_schedule_and_device():
    made = [
        network(method="TRADES"),
        network(seed=1, seconds=240, robust=(0.2, 0.7)),
        network(),
        network(schedule="paper", seconds=6000),
        network(device="NVIDIA H200", precision="bfloat16"),
        network(method="Chen-IG-Norm"),
        network(model="pool"),
    ]
    table = trained_tables.trained(made, "mnist", "small")
    assert texts(table) == [
        ["Adv", "quick", "CPU", "2", "3", "0.900 to 0.900", "0.500 to 0.700"],
        ["Adv", "paper", "CPU", "1", "100", "0.900", "0.500"],
        ["Adv", "quick", "H200, bfloat16", "1", "2", "0.900", "0.500"],
        ["TRADES", "quick", "CPU", "1", "2", "0.900", "0.500"],
        ["Chen-IG-Norm", "quick", "CPU", "1", "2", "0.900", "0.500"],
    ]
    with pytest.raises(ValueError, match="no network of CIFAR-10 Small is among"):
        trained_tables.trained(made, "cifar10", "small")


def test_learning_rows_are_the_papers_methods_epoch_by_epoch():
    rows = trained_tables.learning_rows([network(method="Chen-IG-Norm"), network(seed=3)], "mnist", "small")
    assert list(rows["method"]) == ["Adv", "Adv"] and list(rows["seed"]) == ["quick 3"] * 2
    assert list(rows["validation_robust"]) == [0.1, 0.5]
