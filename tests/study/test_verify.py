"""Cells measured again: what agrees, a planted disagreement, other weights and data, and one real cell of Table 4."""

import copy
from dataclasses import replace

import pytest

from interp_lib import __main__ as cli
from interp_lib import data
from interp_lib.models import predict, trained
from interp_lib.models.architectures import build
from interp_lib.study import accuracy, measure, records, sweep, verify

SMALL = {
    "table3": {"eps": (0, 0.3), "steps": (1, 200), "n": 40},
    "table2": {"eps": (0.1, 0.3), "steps": 5, "n": 40},
    "table1": {"n": 12, "interpreters": ("CAM",), "norms": (1,)},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory, tiny_dataset):
    """Records of two small networks under the names of MNIST's released ones, their dataset and their files."""
    folder = tmp_path_factory.mktemp("verify")
    # Twice as large: an AAI of eight pixels needs maps of more than four.
    double = lambda split: data.Split(split.images.repeat_interleave(2, 2).repeat_interleave(2, 3), split.labels)
    splits = {name: double(getattr(tiny_dataset, name)) for name in ("train", "validation", "test")}
    mark = data.fingerprint(splits["test"])
    dataset, networks = replace(tiny_dataset, name="mnist", fingerprint=mark, **splits), []
    for seed, method in enumerate(("Normal", "Adv")):
        path = folder / f"{method}.safetensors"
        trained.save(build("small", (1, 16, 16), 3, seed=seed), path, {})
        networks.append(sweep.Network("mnist", "small", {"method": method}, path))
    for name, options in SMALL.items():
        chosen = networks[:1] if name == "table1" else networks
        part = sweep.Part(dataset, "small", chosen, "released", folder / "results")
        measurement = replace(measure.find(name), plans=measure.isa_scores.isa_plan) if name == "table1" else None
        measure.measure_part(measurement or measure.find(name), part, **options)
    return dataset, networks, records.read_all(folder / "results")


@pytest.fixture
def again(scene, monkeypatch):
    dataset, networks, found = scene
    monkeypatch.setattr(verify, "find_networks", lambda source, folder: iter(networks))
    lines = []

    def run(all_records=found, **options):
        return verify.verify(all_records, datasets={"mnist": dataset}, report=lines.append, **options)

    run.lines = lines
    return run


def planted(all_records, **change):
    """The records, in which the first PGD row at eps 0.3 after 200 steps has other numbers."""
    altered = copy.deepcopy(all_records)
    for record in altered:
        for row in record.rows:
            if record.settings["measurement"] == "pgd" and (row["eps"], row["steps"]) == (0.3, 200):
                for name in ("right", "accuracy"):
                    row.pop(name)
                row["correct"] += change["correct"] if row["correct"] < 20 else -change["correct"]
                return altered
    raise AssertionError("no such row")


def test_what_is_measured_again_is_what_the_records_say(again, scene):
    able = verify.verifiable(scene[2])
    kinds = {one.record.settings["measurement"] for one in able}
    assert kinds >= {"pgd", "aai", "isa"} and {one.cell.table for one in able} >= {"1", "2", "3", "4"}
    done = again(cells=1000, seed=0)
    assert len(done) == len(able) and {one.verdict for one in done} == {"equal"}
    assert again.lines[0].startswith(f"seed 0: {len(able)} of {len(able)} cells; about")
    assert len(again.lines) == len(able) + 2 and f"{len(able)} equal, 0 within rounding, 0 different" in again.lines[-1]


def test_a_planted_disagreement_is_seen_and_one_image_is_rounding(again, scene):
    with pytest.raises(verify.Disagreement, match="1 of .* cells differ from their records by more than rounding"):
        again(planted(scene[2], correct=5), cells=1000, tables=["3"])
    assert sum(line.endswith("  differs") for line in again.lines) == 1
    done = again(planted(scene[2], correct=1), cells=1000, tables=["3"])
    assert [one.verdict for one in done].count("rounding") == 1


def test_cells_of_one_network_share_their_attack(again, scene, monkeypatch):
    runs, real = [], accuracy.pgd_accuracy_in_batches

    def counted(model, *args, **how):
        runs.append((predict.fingerprint(model), tuple(how["eps"]), tuple(how["steps"])))
        return real(model, *args, **how)

    monkeypatch.setattr(accuracy, "pgd_accuracy_in_batches", counted)
    done = again(cells=1000, tables=["3", "4"])
    assert len(done) > len(runs) == 2 and len({weights for weights, *_ in runs}) == 2


def test_a_draw_follows_its_seed_and_draws_no_cell_twice(scene):
    able = verify.verifiable(scene[2])
    name = lambda drawn: [(one.cell.table, one.cell.method, one.cell.metric, one.cell.level) for one in drawn]
    first = name(verify.draw(able, 5, 1))
    assert first == name(verify.draw(able, 5, 1)) != name(verify.draw(able, 5, 2))
    assert len(set(first)) == 5 and len(verify.draw(able, 10**6, 0)) == len(able)


def test_what_can_be_drawn(scene):
    found = scene[2]
    assert {one.cell.table for one in verify.verifiable(found, tables=["a1", "4"])} == {"4"}
    assert verify.verifiable(found, model="pool") == []
    assert verify.verifiable(found, longest=0.0) == []
    ours = copy.deepcopy(found)
    for record in ours:
        record.settings["networks"] = "ours"
    assert verify.verifiable(ours) == []
    few = copy.deepcopy(found)
    for record in few:
        for row in record.rows:
            if "tau" in row:
                row["n"], row["tau"] = verify.FEWEST - 1, 0.5
    assert not any(one.cell.metric.startswith("tau") for one in verify.verifiable(few))
    with pytest.raises(ValueError, match="no Table 9; it has 1, 2"):
        verify.verifiable(found, tables=["9"])
    with pytest.raises(ValueError, match="model must be one of small, pool, wresnet; got 'big'"):
        verify.verifiable(found, model="big")


def test_other_weights_other_data_and_other_settings_are_refused(again, scene):
    weights, copies, settings = (copy.deepcopy(scene[2]) for _ in range(3))
    for record in weights:
        for row in record.rows:
            row["weights"] = "0" * 16
    with pytest.raises(ValueError, match=r"Adv\.safetensors has other weights|Normal\.safetensors has other weights"):
        again(weights, tables=["3"])
    for record in copies:
        record.settings["data"] = "another copy"
    with pytest.raises(ValueError, match="other settings than this code, or other data: data"):
        again(copies, tables=["3"])
    for record in settings:
        record.settings["attack"] |= {"alpha": 0.02}
    with pytest.raises(ValueError, match="other data: attack"):
        again(settings, tables=["3"])


def test_nothing_to_draw_is_said(again):
    with pytest.raises(ValueError, match="no record has a cell to draw: name other tables, raise --longest"):
        again([])


def test_the_command_says_what_it_needs_and_how_it_ended(scene, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("INTERP_RELEASED", raising=False)
    monkeypatch.setenv("INTERP_DATA", str(tmp_path))
    folder = tmp_path / "results"
    for record in planted(scene[2], correct=5):
        records.write(record, folder)
    command = ["verify", "--tables", "3", "--seed", "1", "--results-dir", str(folder)]
    assert cli.main(command) == 2
    assert "set INTERP_DATA and INTERP_RELEASED, or name --data-dir and --released-dir" in capsys.readouterr().err
    monkeypatch.setattr(verify, "find_networks", lambda source, folder: iter(scene[1]))
    assert cli.main(command) == 2  # no data
    assert "set INTERP_DATA and INTERP_RELEASED" in capsys.readouterr().err
    monkeypatch.setattr(verify.data, "load", lambda *_, **__: scene[0])
    assert cli.main(command) == 1
    assert "cells differ from their records by more than rounding" in capsys.readouterr().err
    assert cli.main([*command, "--results-dir", str(tmp_path / "nowhere")]) == 2
    assert "not a folder of records" in capsys.readouterr().err


def test_a_committed_record_is_measured_again(real_mnist, released_folder):
    from conftest import ROOT

    able = verify.verifiable(records.read_all(ROOT / "results"), tables=["4"], model="small")
    chosen = [one for one in able if one.row["steps"] == 1 and one.row["method"] in ("Adv", "Int")]
    assert len(chosen) == 2
    done = list(verify.check(chosen, networks_dir=released_folder, datasets={"mnist": real_mnist}))
    assert {one.verdict for one in done} <= {"equal", "rounding"} and done[0].drawn.cell.printed > 0
