"""The release's sweeps beside the networks of the tables: which rows belong together."""

from interp_lib.study import gamma_and_radius
from interp_lib.study.records import Record


def record(networks, rows, measurement="pgd", **settings):
    settings = {"measurement": measurement, "dataset": "mnist", "model": "small", "networks": networks, **settings}
    return Record(f"{measurement}-mnist-small-{networks}", settings, rows)


def row(method, eps=0.3, accuracy=0.5, **more):
    return {"method": method, "eps": eps, "steps": 200, "accuracy": accuracy, "se": 0.03, "n": 200, **more}


FOUND = [
    record("released", [row("Normal"), row("Adv"), row("Int"), row("IG-Norm")]),
    record(
        "sweeps",
        [
            row("Int", gamma=0.02, radius=0.3, run=2),
            row("Adv", radius=0.4, run=1),
            row("Int", gamma=0.02, radius=0.3, run=1),
            row("Int", gamma=0.001, radius=0.4, run=1),
        ],
    ),
    record("ours", [row("Int", gamma=0.5)]),
    record("released", [row("Adv", accuracy=0.1)], measurement="many"),
    record("released", [row("Adv", accuracy=0.1)], model="pool"),
]


def test_networks_of_the_tables_have_the_papers_settings():
    rows = gamma_and_radius.rows_of_small(FOUND, "pgd", "mnist")
    assert [(r["method"], r["gamma"], r["radius"], r["run"]) for r in rows[:3]] == [
        ("Normal", 0.0, 0.0, 1),
        ("Adv", None, 0.3, 1),
        ("Int", 0.01, 0.3, 1),
    ]
    assert len(rows) == 7
    assert [r["accuracy"] for r in gamma_and_radius.rows_of_small(FOUND, "many", "mnist")] == [0.1]
    assert gamma_and_radius.rows_of_small(FOUND, "pgd", "cifar10") == []


def test_rows_are_chosen_by_value_and_in_order():
    rows = gamma_and_radius.rows_of_small(FOUND, "pgd", "mnist")
    chosen = gamma_and_radius.choose(rows, method="Int", radius=0.3)
    assert [(r["gamma"], r["run"]) for r in chosen] == [(0.01, 1), (0.02, 1), (0.02, 2)]
    assert (
        len(gamma_and_radius.choose(rows, radius=[0.3, 0.4 + 1e-9])) == 6
        and gamma_and_radius.choose(rows, eps=0.2) == []
    )


def test_figure_a1_has_one_radius_and_normal_training_as_zero():
    rows = gamma_and_radius.gamma_rows(FOUND)
    assert [(r["gamma"], r["run"]) for r in rows] == [(0.0, 1), (0.01, 1), (0.02, 1), (0.02, 2)]
