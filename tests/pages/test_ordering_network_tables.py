"""The chapter's tables of networks, from cells and records made by hand; and what it says of the committed ones."""

import pytest
from conftest import ROOT, record, row

from interp_lib.pages import ordering_network_tables as tables
from interp_lib.schedule import Schedule
from interp_lib.study import compare, intervals, records
from interp_lib.study.compare import Cell


def texts(table):
    return [[" ".join(text for text, _ in cell) for cell in cells] for cells in table.rows]


def wresnet(method, level, value, **measured):
    return Cell("3", "CIFAR-10", "WResnet", method, "ATA", "eps", level, value, **measured)


PRINTED = [
    *(wresnet("Adv", "0", "0.500", released=0.5, ours=0.45), wresnet("Adv", "8/255", "0.400", ours=0.25)),
    *(wresnet("TRADES", "0", "0.600", ours=0.6), wresnet("TRADES", "8/255", "0.300", ours=0.1)),
    *(wresnet("Int", "0", "0.500", released=0.5), wresnet("Int", "8/255", "0.300", released=0.3)),
    Cell("3", "MNIST", "Small", "Int", "ATA", "eps", "0", "0.100"),
    Cell("A1", "CIFAR-10", "Small", "Int", "ATA", "eps", "0", "0.100"),
]


def test_printed_values_and_who_is_below_whom():
    table = tables.as_printed(PRINTED)
    assert table.columns == ["printed", "ε = 0", "8/255"]
    assert texts(table) == [["Adv", "0.500", "0.400"], ["TRADES", "0.600", "0.300"], ["Int", "0.500", "0.300"]]
    assert table.caption.startswith("Adv, TRADES and Int on")
    assert tables.printed_below(PRINTED, "Int", "TRADES") == ["0"]
    assert tables.printed_below(PRINTED, "Int", "Adv") == ["8/255"]


def schedule(ramp_end, epochs=2):
    return Schedule(
        **{"epochs": epochs, "batch_size": 10, "learning_rate": 1, "eps": 0.3, "ramp_start": 0, "ramp_end": ramp_end},
        **{"attack_steps": 1, "attack_alpha": 0.1},
    )


def test_steps_at_the_full_radius():
    # 65 images are six whole batches; the radius is full from step 10 on, of steps 0 to 11.
    assert tables.steps_at_full_radius(schedule(10), 65) == (2, 12)
    assert tables.steps_at_full_radius(schedule(20), 65) == (0, 12)


def test_networks_of_two_schedules():
    table = tables.two_schedules(PRINTED, schedule(10), schedule(5, epochs=1), images=65)
    # No Int was trained here, and the released Adv has no value at 8/255.
    assert texts(table) == [["Adv", "0.500", "0.500", "0.450", "0.400", "–", "0.250"]]
    assert table.note.endswith("at most 0.035. Steps at the full radius: released 2 of 12, trained here 1 of 6.")


def test_training_images_beside_others():
    def measured(measurement, clean, attacked, source="released", dataset="cifar10", steps=10):
        counts = ((0.0, clean), (8 / 255, attacked), (4 / 255, 0.9))
        rows = [row(0, method="Int", eps=eps, steps=steps, accuracy=a) for eps, a in counts]
        return record(rows, measurement=measurement, dataset=dataset, model="wresnet", source=source)

    both = [measured("seen", 0.96, 0.5), measured("pgd", 0.72, 0.3)]
    others = [measured("seen", 1.0, 1.0, "ours"), measured("pgd", 0.1, 0.1, dataset="mnist")]
    table = tables.on_training_images([*both, *others, measured("pgd", 0.2, 0.2, steps=200)])
    assert texts(table) == [["WResnet Int, released", "0.960", "0.720", "0.500", "0.300"]]
    assert "PGD, 10 steps of 0.01." in table.note


def of_seeds(measurement, counts, **more):
    """Networks of MNIST Small trained here: {(method, seed, eps): images right of 200}."""
    rows = [
        row(k, method=m, seed=seed, eps=eps, gamma=0.01, schedule="quick", accuracy=k / 200, **more)
        for (m, seed, eps), k in counts.items()
    ]
    return record(rows, source="ours", measurement=measurement)


@pytest.fixture
def seeds():
    counts = {
        ("Int", 1, 0.3): 150,
        ("Int", 0, 0.3): 120,
        ("Int", 0, 0.4): 20,
        ("Adv", 0, 0.3): 140,
        ("Adv", 1, 0.3): 60,
    }
    random = {("Int", 0, 0.4): 0}
    few = {("Int", 0, 0.3): 200}  # of one random start, which counts for nothing here
    return [of_seeds("pgd", counts), of_seeds("starts", random, starts=5), of_seeds("starts", few, starts=1)]


def test_networks_seed_by_seed(seeds):
    table = tables.seed_by_seed(seeds, ["Int", "Adv"], (0.3, 0.4))
    assert table.columns == ["network", "ε = 0.3", "0.4"]
    assert texts(table) == [
        ["Int, seed 0", "0.600 –", "0.100 0.000"],
        ["Int, seed 1", "0.750 –", "– –"],
        ["Adv, seed 0", "0.700 –", "– –"],
        ["Adv, seed 1", "0.300 –", "– –"],
    ]
    assert [css for _, css in table.rows[0][2]] == ["", "random"]
    assert texts(tables.seed_by_seed(seeds, ["Adv"], (0.3,))) == [
        ["Adv, seed 0", "0.700 –"],
        ["Adv, seed 1", "0.300 –"],
    ]


def test_seeds_ahead_of_every_rival(seeds):
    assert tables.seeds_ahead(seeds, ["Int"], 0.3) == {"Int": [1]}  # seed 0 is above one of Adv's two seeds
    assert tables.seeds_ahead(seeds, ["Adv"], 0.3, rival="Int") == {"Adv": []}


@pytest.fixture(scope="module")
def found():
    return records.read_all(ROOT / "results")


def test_the_chapter_says_what_the_records_say_of_wresnets(found):
    cells = compare.compare(found)
    # 'Table 3 has Int level with Adv or above it at every ε'
    assert len(tables.as_printed(cells).columns) == 8 and tables.printed_below(cells, "Int", "Adv") == []
    adv, int_ = (
        c
        for m in ("Adv", "Int")
        for c in cells
        if (c.table, c.dataset, c.method) == ("3", "CIFAR-10", m)
        if c.level == "8/255"
    )
    kept = [f"{value:.3f}" for c in (adv, int_) for value in (c.ours, c.released)]
    assert kept == ["0.345", "0.165", "0.315", "0.265"]
    # 'It is not Int that is worse here but Adv that is better'
    assert intervals.fisher(round(200 * adv.ours), 200, round(200 * adv.released), 200) < 0.001
    schedules = (Schedule.load(name, "cifar10") for name in ("paper", "quick"))
    # 'the full radius in their last 200 steps only, those trained here in 2,020; ... trained ten times as long'
    assert [tables.steps_at_full_radius(s, 45_000) for s in schedules] == [(200, 70_200), (2_020, 7_020)]
    seen = {line[0]: line[1:] for line in texts(tables.on_training_images(found))}
    clean = {m: seen[f"WResnet {m}, released"][:2] for m in ("Adv", "Int", "Int-Adv")}
    assert clean == {"Adv": ["0.960", "0.715"], "Int": ["0.930", "0.725"], "Int-Adv": ["0.880", "0.660"]}
    # 'At 8/255 the released Adv keeps 0.295 of its own training images, fewer than the one trained here, 0.410'
    attacked = [seen[f"WResnet {name}"][2] for name in ("Adv, released", "Adv, trained here", "Int, released")]
    assert attacked == ["0.295", "0.410", "0.515"]


def test_the_chapter_says_what_the_records_say_of_seeds(found):
    methods = ["Int", "Int-Adv"]
    # 'by quick with one seed in three'; 'from a random point of the ball nothing is left of it'
    assert all(len(ahead) == 1 for ahead in tables.seeds_ahead(found, methods, 0.35).values())
    lines = texts(tables.seed_by_seed(found, methods, (0.35, 0.4)))
    assert len(lines) == 6 and max(float(cell.split()[1]) for line in lines for cell in line[1:]) < 0.02
