"""A record grows network by network: what is measured, what is kept, and Table 4 as printed."""

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import content

from interp_lib import storage
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import predict, trained
from interp_lib.models.architectures import build
from interp_lib.models.predict import count_correct, predictions
from interp_lib.study import accuracy, compare, evaluation, isa_scores, measure, rank_correlation, records, sweep


@pytest.fixture
def bench(tmp_path, monkeypatch, tiny_dataset):
    """Three networks of ours on a tiny dataset, small settings, and a list of the runs that took place."""
    bench = Bench(tmp_path, tiny_dataset)
    for seed, method in enumerate(("Normal", "Adv", "Int")):
        bench.train(method, seed)
    real = accuracy.pgd_accuracy_in_batches

    def counted(model, *args, **kwargs):
        if len(bench.runs) == bench.stop_at:
            raise KeyboardInterrupt
        bench.runs.append(bench.methods[predict.fingerprint(model)])
        return real(model, *args, **kwargs)

    monkeypatch.setattr(accuracy, "pgd_accuracy_in_batches", counted)
    return bench


class Bench:
    def __init__(self, folder, dataset):
        self.dataset = dataset
        self.nets, self.results = folder / "networks", folder / "results"
        self.methods, self.runs, self.stop_at = {}, [], None

    def train(self, method, seed):
        model = build("small", (1, 8, 8), 3, seed=seed)
        self.methods[predict.fingerprint(model)] = method
        how = {"dataset": "digits", "method": method, "seed": 0, "schedule": "digits"}
        trained.save(model, self.nets / f"{method}.safetensors", how)

    def part(self, *methods):
        """The networks of some methods, or all."""
        networks = [n for n in sweep.find_networks("ours", self.nets) if not methods or n.labels["method"] in methods]
        return sweep.Part(self.dataset, "small", networks, "ours", self.results)

    def measure(self, name="digits", *methods, **options):
        """Measure with few steps and radii, and read the record."""
        options = {"eps": (0, 0.1, 0.3), "steps": (1, 3), **options} if name == "digits" else options
        (path,) = measure.measure_part(measure.find(name), self.part(*methods), **options)
        return records.read(path)


def test_the_record_has_every_network_and_setting(bench, tiny_dataset):
    record = bench.measure()
    assert bench.runs == ["Normal", "Adv", "Int"]  # the order of the paper's tables
    assert len(record.rows) == 3 * 3 * 2
    assert [row["method"] for row in record.rows[::6]] == ["Normal", "Adv", "Int"]
    assert record.settings["data"] == tiny_dataset.fingerprint
    assert record.settings["attack"]["eps"] == [0, 0.1, 0.3] and record.settings["attack"]["steps"] == [1, 3]
    subset = tiny_dataset.evaluation_subset()
    for row in record.rows:
        model, _ = trained.load(bench.nets / f"{row['method']}.safetensors")
        assert row["weights"] == predict.fingerprint(model) and row["n"] == 200 and row["seed"] == 0
        if row["eps"] == 0:
            assert row["correct"] == count_correct(model, subset.x, subset.y)
    assert set(record.provenance) == {"commit", "versions", "device", "seconds", "date"}


def test_a_second_run_measures_nothing(bench):
    first = bench.measure()
    assert bench.measure() == first
    assert len(bench.runs) == 3


def test_an_interrupted_run_keeps_what_is_done(bench):
    bench.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        bench.measure()
    (path,) = bench.results.glob("*.json")
    assert {row["method"] for row in records.read(path).rows} == {"Normal"}
    bench.stop_at = None
    record = bench.measure()
    assert bench.runs == ["Normal", "Adv", "Int"]
    bench.runs.clear()
    shutil.rmtree(bench.results)
    assert bench.measure().rows == record.rows


def test_changed_weights_are_measured_anew_and_only_they(bench):
    first = bench.measure()
    bench.train("Adv", seed=17)
    second = bench.measure()
    assert bench.runs == ["Normal", "Adv", "Int", "Adv"]
    for rows in (first.rows, second.rows):
        assert [row["method"] for row in rows[::6]] == ["Normal", "Adv", "Int"] and len(rows) == 18
    changed = {a["method"] for a, b in zip(first.rows, second.rows, strict=True) if a != b}
    assert changed == {"Adv"}


def test_another_seed_is_another_row(bench):
    bench.measure()
    model = build("small", (1, 8, 8), 3, seed=30)
    bench.methods[predict.fingerprint(model)] = "Normal, seed 1"
    how = {"dataset": "digits", "method": "Normal", "seed": 1, "schedule": "digits"}
    trained.save(model, bench.nets / "z.safetensors", how)
    record = bench.measure()
    assert bench.runs[3:] == ["Normal, seed 1"]
    assert [(row["method"], row["seed"]) for row in record.rows[::6]] == [
        ("Normal", 0),
        ("Normal", 1),
        ("Adv", 0),
        ("Int", 0),
    ]


def test_other_settings_are_another_record(bench):
    names = {bench.measure(**options).name for options in ({}, {"steps": (1, 2)}, {"eps": (0, 0.1)}, {"n": 50})}
    assert len(names) == len(content(bench.results)) == 4


def test_random_starts_have_a_record_of_their_own(bench, tiny_dataset):
    record, subset = bench.measure("starts", eps=(0, 0.1, 0.3), steps=3), tiny_dataset.evaluation_subset()
    assert record.family == "starts-digits-small-ours" and record.settings["attack"]["starts"] == [1, 5]
    assert record.settings["attack"]["random_start"] == "uniform, seed 0" and record.settings["attack"]["steps"] == [3]
    model, _ = trained.load(bench.nets / "Adv.safetensors")
    generator = torch.Generator().manual_seed(0)
    x_adv = pgd(model, subset.x, subset.y, eps=0.3, alpha=0.01, steps=3, random_start=True, generator=generator)
    right = (predictions(model, subset.x) == subset.y) & (predictions(model, x_adv) == subset.y)
    (row,) = (r for r in record.rows if (r["method"], r["eps"], r["starts"]) == ("Adv", 0.3, 1))
    assert row["correct"] == int(right.sum())


@pytest.mark.parametrize("part", [{"dataset": "digits"}, {"model": "small"}, {"dataset": "digits", "model": "small"}])
def test_a_part_of_a_table_asks_for_nothing_of_the_others(bench, monkeypatch, part, tiny_dataset):
    both = replace(measure.find("digits"), parts=(("mnist", "pool"), ("digits", "small")))
    monkeypatch.setitem(measure.MEASUREMENTS, "digits", both)
    monkeypatch.setattr(measure.data, "load", lambda name, data_dir=None: tiny_dataset)
    everything = sweep.find_networks
    missing = lambda *_: [*everything("ours", bench.nets), sweep.Network("mnist", "pool", {"method": "Adv"}, None)]
    monkeypatch.setattr(measure, "find_networks", missing)
    few = {"eps": (0, 0.1), "steps": (1, 2)}
    (path,) = measure.measure("digits", "ours", folder=bench.results, device="cpu", **part, **few)
    assert records.read(path).family == "pgd-digits-small-ours"


def test_many_images_have_a_record_of_their_own(bench, tiny_dataset):
    record, subset = bench.measure("many", eps=(0, 0.3), steps=[3], n=205), tiny_dataset.evaluation_subset(205)
    assert record.family == "many-digits-small-ours" and record.settings["subset"]["n"] == 205
    model, _ = trained.load(bench.nets / "Adv.safetensors")
    (row,) = (r for r in record.rows if (r["method"], r["eps"]) == ("Adv", 0.3))
    x_adv = pgd(model, subset.x, subset.y, eps=0.3, alpha=0.01, steps=3)
    assert (row["correct"], row["n"], row["steps"]) == (count_correct(model, x_adv, subset.y), 205, 3)


def test_training_images_have_a_record_of_their_own(bench, tiny_dataset):
    record, train = bench.measure("seen", steps=[2]), tiny_dataset.train
    assert record.family == "seen-digits-small-ours" and record.settings["subset"] == {"n": 200, "split": "train"}
    model, _ = trained.load(bench.nets / "Adv.safetensors")
    found = {r["eps"]: r["correct"] for r in record.rows if r["method"] == "Adv"}
    x_adv = pgd(model, train.x(), train.labels, eps=0.15, alpha=0.01, steps=2)
    assert found == {0: count_correct(model, train.x(), train.labels), 0.15: count_correct(model, x_adv, train.labels)}
    assert {r["n"] for r in record.rows} == {len(train)}  # all there are


def test_softplus_in_the_place_of_relu_is_another_network(bench, tiny_dataset):
    record, subset = bench.measure("softplus", "Normal", n=60), tiny_dataset.evaluation_subset(60)
    assert [(row["activation"], row["n"]) for row in record.rows] == [("relu", 60), ("softplus", 60)]
    model, _ = trained.load(bench.nets / "Normal.safetensors")
    assert record.rows[0]["correct"] == count_correct(model, subset.x, subset.y)
    smooth = torch.nn.functional.softplus
    maps = model.conv3(smooth(model.conv2(smooth(model.conv1(subset.x)))))
    right = model.classifier(maps.mean((2, 3))).argmax(1) == subset.y
    assert record.rows[1]["correct"] == int(right.sum()) != record.rows[0]["correct"]


def test_the_statements_eps_and_the_training_radius_are_the_defaults(real_mnist):
    part = sweep.Part(real_mnist, "small", [], "ours")
    many, seen = (next(iter(measure.find(name).plans(part))).settings for name in ("many", "seen"))
    assert many["attack"]["eps"] == evaluation.perturbation_sizes("mnist", "small") and many["subset"]["n"] == 2000
    assert seen["attack"]["eps"] == [0, 0.3] and seen["subset"] == {"n": 200, "split": "train"}


@pytest.mark.parametrize("table, attack", [("table2", "aai"), ("A5", "aai"), ("table1", "isa")])
def test_attacks_on_interpretation_have_records_of_their_own(bench, tiny_dataset, monkeypatch, table, attack):
    runs = []

    def rows(model, subset, progress=None, **settings):
        runs.append(bench.methods[predict.fingerprint(model)])
        progress(1)
        n, interpreter = len(subset.x), settings.get("interpreter", "CAM")
        row = {"interpreter": interpreter, "n": n, "tau": 0.5, "nds": 1.0, "nsl": 1.0, "measure": "l2:1-class"}
        return [{**row, "squared_score": False, "eps": eps} for eps in settings.get("eps", (0,))]

    def growing(model, subset, held=(), **settings):
        if not held:
            yield rows(model, subset, **settings)

    monkeypatch.setattr(rank_correlation, "aai_rows", rows)
    monkeypatch.setattr(isa_scores, "isa_rows", growing)
    part = bench.part(*measure.find(table).methods)
    options = {"eps": (0, 0.1, 0.3)} if attack == "aai" else {}
    for _ in range(2):
        path, *ig = measure.measure_part(measure.find(table), part, **options)
    record = records.read(path)
    methods = list(dict.fromkeys(row["method"] for row in record.rows))
    assert methods == (["Normal"] if attack == "isa" else ["Normal", "Adv", "Int"])
    assert runs == methods * (1 + len(ig)) and len(ig) == (attack == "isa")
    assert record.settings["measurement"] == attack and record.settings["data"] == tiny_dataset.fingerprint
    if attack == "aai":
        assert record.settings["attack"] | {"eps": [0.1, 0.3], "top_k": 8, "hinge": 0.0} == record.settings["attack"]
        assert record.rows[0]["interpreter"] == {"table2": "CAM", "A5": "GradCAM++"}[table]
        assert [row["eps"] for row in record.rows[:2]] == [0.1, 0.3] and record.rows[0]["n"] == 200
    else:
        assert record.settings["attack"]["penalties"] == [1.1, 1.2, 1.4, 1.6] and record.rows[0]["n"] == 100
        assert record.settings["interpreters"] == ["CAM", "GradCAM++", "Repr"] and "IG" not in record.settings
        softplus = records.read(ig[0]).settings
        assert softplus["interpreters"] == ["IG"] and softplus["IG"]["activation"] == "softplus"


@pytest.fixture
def isa_bench(bench, monkeypatch):
    """The first network, and three quick measures of four images, two at a time, in `bench.searched`."""
    real, searched = isa_scores._isa_of_images, []

    def counted(model, x, *args, name, p, classes, **more):
        if len(searched) == bench.stop_at:
            raise KeyboardInterrupt
        searched.append((name, classes, len(x)))
        return real(model, x, *args, name=name, p=p, classes=classes, **more)

    monkeypatch.setattr(isa_scores, "_isa_of_images", counted)
    bench.searched, bench.images = searched, 4
    return bench


def test_a_record_of_isas_goes_on_within_a_network(isa_bench):
    scores = {"norms": [2], "penalties": [1.5], "class_sets": ["1-class", "2-class"], "batch_size": 2}

    def run(folder, **limit):
        part = isa_bench.part("Normal")._replace(folder=folder)
        (plan,) = isa_scores.isa_plan(part, interpreters=("CAM", "Repr"), images=isa_bench.images, **scores)
        return records.read(sweep.grow(plan, part, **limit))

    whole = run(isa_bench.results / "whole")
    everything = [("CAM", "1-class", 2), ("CAM", "2-class", 2), ("Repr", "2-class", 2)]
    assert isa_bench.searched == 2 * everything
    isa_bench.searched.clear()
    isa_bench.stop_at = 4  # killed in the second measure of the third and fourth image
    with pytest.raises(KeyboardInterrupt):
        run(isa_bench.results / "stopped")
    (path,) = (isa_bench.results / "stopped").glob("*.json")
    measured = {(r["interpreter"], r["measure"]): r["measured"] for r in records.read(path).rows}
    assert measured == {("CAM", "l2:1-class"): 4, ("CAM", "l2:2-class"): 2, ("Repr", "l2:2-class"): 2}
    isa_bench.stop_at = None
    isa_bench.searched.clear()
    assert run(isa_bench.results / "stopped").rows == whole.rows
    assert isa_bench.searched == everything[1:]
    assert run(isa_bench.results / "stopped").rows == whole.rows and isa_bench.searched == everything[1:]
    isa_bench.searched.clear()  # a run that has no time left ends after one measure
    hurried = [run(isa_bench.results / "hurried", until=-math.inf) for _ in 2 * everything]
    assert isa_bench.searched == 2 * everything and hurried[-1].rows == whole.rows
    assert [record.rows[0]["measured"] for record in hurried] == [2, 2, 2, 4, 4, 4]
    isa_bench.searched[:] = everything[1:]
    isa_bench.images = 5  # one more later
    longer = run(isa_bench.results / "stopped")
    assert isa_bench.searched[2:] == [(name, classes, 1) for name, classes, _ in everything]
    assert [row["each"][:4] for row in longer.rows] == [row["each"] for row in whole.rows]
    assert {row["measured"] for row in longer.rows} == {5} and longer.name == whole.name
    assert all(row["weights"] == whole.rows[0]["weights"] and row["method"] == "Normal" for row in longer.rows)


def test_r_imagenet_is_left_out_where_its_images_are_not_there(bench, monkeypatch, tiny_dataset, capsys):
    def load(name, data_dir=None):
        if name == "restricted_imagenet":
            raise measure.data.DataError("no images here")
        return tiny_dataset

    monkeypatch.setattr(measure.data, "load", load)
    monkeypatch.setattr(isa_scores, "isa_rows", lambda *_, held, **__: iter([] if held else [[{"n": 1}]]))
    both = replace(measure.find("table1"), parts=(("digits", "small"), ("restricted_imagenet", "wresnet")))
    monkeypatch.setitem(measure.MEASUREMENTS, "table1", both)
    real = list(sweep.find_networks("ours", bench.nets))
    other = sweep.Network("restricted_imagenet", "wresnet", {"method": "Normal"}, real[0].path)
    monkeypatch.setattr(measure, "find_networks", lambda *_: [*real, other])
    assert len(measure.measure("table1", "ours", folder=bench.results, device="cpu")) == 2
    assert capsys.readouterr().err == "left out: no images here\n"
    monkeypatch.setitem(measure.MEASUREMENTS, "table1", replace(both, parts=both.parts[1:]))
    with pytest.raises(measure.data.DataError, match="no images here"):
        measure.measure("table1", "ours", folder=bench.results, device="cpu")


def test_unknown_tables_and_sources_are_refused(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="unknown table 'table9'; known are table1, table2, table3, table4, table5, A1"
    ):
        measure.measure("table9")
    with pytest.raises(ValueError, match="'released', 'sweeps' or 'ours'; got 'theirs'"):
        measure.measure("table3", "theirs")
    with pytest.raises(FileNotFoundError, match="No ours network of mnist/small, cifar10/wresnet"):
        measure.measure("table3", "ours", networks_dir=tmp_path)
    monkeypatch.delenv("INTERP_RELEASED", raising=False)
    with pytest.raises(FileNotFoundError, match="INTERP_RELEASED"):
        measure.measure("table3")


def test_options_that_a_measurement_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="table1 has no option eps; its options are: n."):
        measure.measure("table1", networks_dir=tmp_path, eps=[0.1])
    with pytest.raises(ValueError, match="figure1 has no option n; its options are: none."):
        measure.measure("figure1", networks_dir=tmp_path, n=3)
    with pytest.raises(ValueError, match="figure2 is measured on networks that are released; got 'ours'"):
        measure.measure("figure2", "ours", networks_dir=tmp_path)


def test_two_columns_of_table_4_come_out_as_printed(tmp_path, released_folder, data_folder, real_mnist):
    """Normal and Int on MNIST, eps 0.3, one and ten steps of 0.01; the whole is measured by the pipeline."""
    for method in ("normal", "int"):
        name = f"mnist_smallgap_{method}_100.pkl"
        (path,) = released_folder.rglob(name)
        shutil.copy(path, tmp_path / name)
    where = {"data_dir": data_folder, "networks_dir": tmp_path, "folder": tmp_path / "results"}
    (path,) = measure.measure("Table4", device="cpu", eps=[0.3], steps=[1, 10], **where)
    cells = [cell for cell in compare.compare([records.read(path)]) if cell.released is not None]
    assert [(c.table, c.method, c.level) for c in cells] == [
        ("4", method, level) for method in ("Normal", "Int") for level in ("1", "10")
    ]
    assert {cell.verdict() for cell in cells} == {"exact"}
    assert {cell.copy for cell in cells} == {"MNIST"}


def test_two_runs_at_once_lose_nothing_of_each_other(bench, monkeypatch):
    """While Adv is measured, another process measures Int."""
    one = accuracy.pgd_accuracy_in_batches

    def meanwhile(model, *args, **kwargs):
        rows = one(model, *args, **kwargs)
        if bench.runs[-1] == "Adv":
            bench.measure("digits", "Int")
        return rows

    monkeypatch.setattr(accuracy, "pgd_accuracy_in_batches", meanwhile)
    record = bench.measure()
    assert bench.runs == ["Normal", "Adv", "Int"]
    assert [row["method"] for row in record.rows[::6]] == ["Normal", "Adv", "Int"]


WRITERS = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from interp_lib import models
from interp_lib.study.sweep import Part, Plan, grow
os.fsync = lambda handle: None  # quicker, and the two meet more often
settings = {"measurement": "new", "dataset": "digits", "model": "small", "networks": "ours"}
class Network(SimpleNamespace):
    def load(self):
        return models.build("small", (1, 8, 8), 3, seed=self.labels["seed"])
for run in range(20):
    networks = [Network(labels={"method": sys.argv[2], "seed": 0}, path=Path("a"))]
    rows = lambda task: ([{"eps": k / 10} for k in range(last)] for last in (1, 2))
    grow(Plan(settings | {"run": run}, rows, 1), Part(None, "small", networks, "ours", sys.argv[1]))
"""


def test_two_processes_on_one_record_lose_no_row_in_twenty_runs(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(measure.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    both = [subprocess.Popen([*command, method], env=environment) for method in ("Adv", "Int")]
    assert [process.wait(120) for process in both] == [0, 0]
    for record in (found := records.read_all(tmp_path)):
        labels = [(row["method"], row["seed"], row["eps"]) for row in record.rows]
        assert labels == [(method, 0, eps) for method in ("Adv", "Int") for eps in (0.0, 0.1)]
    assert len(found) == 20


def test_two_files_of_one_network_are_refused_by_name(bench):
    trained.save(
        build("small", (1, 8, 8), 3, seed=9),
        bench.nets / "copy.safetensors",
        {"dataset": "digits", "method": "Adv", "seed": 0, "schedule": "digits"},
    )
    said = "Adv.safetensors and .*copy.safetensors would share a line, since both are digits, small, method Adv, seed 0"
    with pytest.raises(ValueError, match=said):
        bench.measure()
    assert bench.runs == []


@pytest.mark.parametrize(
    "key, value",
    [("method", ["Adv"]), ("dataset", 3), ("seed", "0"), ("seed", True), ("schedule", None), ("gamma", "0.01")],
)
def test_a_network_whose_json_says_what_cannot_be_is_refused(bench, key, value):
    how = {"dataset": "digits", "method": "Adv", "seed": 7, key: value}
    trained.save(build("small", (1, 8, 8), 3, seed=0), bench.nets / "x.safetensors", how)
    with pytest.raises(trained.NetworkError, match=f"x.safetensors: the .json beside it says {key}"):
        bench.measure()


def test_a_record_keeps_where_its_earlier_rows_came_from(bench, monkeypatch):
    monkeypatch.setattr(storage, "commit", lambda: "before")
    bench.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        bench.measure()
    monkeypatch.setattr(storage, "commit", lambda: "after")
    bench.stop_at = None
    found = bench.measure().provenance
    assert found["commit"] == "after" and [earlier["commit"] for earlier in found["earlier"]] == ["before"]
    bench.train("Int", 7)
    assert bench.measure().provenance["earlier"] == found["earlier"]  # the same code again


def test_what_goes_wrong_names_the_network(bench):
    other = build("small", (3, 8, 8), 3, seed=0)
    bench.methods[predict.fingerprint(other)] = "TRADES"
    trained.save(other, bench.nets / "TRADES.safetensors", {"dataset": "digits", "method": "TRADES"})
    with pytest.raises(ValueError, match=r"TRADES.safetensors: Small takes images of shape \(N, 3, 8, 8\)"):
        bench.measure()
    (path,) = bench.results.glob("*.json")
    assert {row["method"] for row in records.read(path).rows} == {"Normal", "Adv"}


def test_a_network_that_does_not_say_what_it_is_is_refused(bench):
    trained.save(build("small", (1, 8, 8), 3, seed=0), bench.nets / "x.safetensors", {"seed": 0})
    with pytest.raises(trained.NetworkError, match="x.safetensors: the .json beside it does not say dataset and meth"):
        bench.measure()
