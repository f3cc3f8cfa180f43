"""The queue: what it holds, in which order, and that work in pieces gives the network that work at once gives."""

import math
import time

import pytest
import torch
from conftest import ROOT

from interp_lib import paper, queue, storage
from interp_lib.data_files import DataError
from interp_lib.models import trained
from interp_lib.models.names import NetworkName
from interp_lib.study import measure, records
from interp_lib.training import group, job, loop
from interp_lib.training.run import Diverged

LESSONS = [NetworkName("digits", "small", method, 0, "lesson") for method in ("Normal", "Adv")]


@pytest.fixture
def short(monkeypatch, tmp_path):
    """A queue of two networks that train in seconds, without photographs, and a folder outside any clone."""
    monkeypatch.setattr(queue, "wanted", lambda: LESSONS)
    monkeypatch.setattr(queue, "PHOTOGRAPHS", 0)
    monkeypatch.setattr(queue.places, "home", lambda: tmp_path / "home")
    return tmp_path / "out"


def test_the_queue_begins_with_the_papers_methods_and_names_each_network_once():
    names = queue.wanted()
    assert [name.method for name in names[:6]] == ["Normal", "Adv", "TRADES", "Int", "Int-Adv", "Int-1-class"]
    assert {name.seed for name in names[:6]} == {0} and len(set(names)) == len(names)
    assert {(name.dataset, name.model) for name in names} == {
        *(("mnist", "small"), ("mnist", "pool")),
        *(("cifar10", "small"), ("cifar10", "wresnet")),
    }


def test_seeds_are_one_job_where_networks_train_together():
    names = queue.wanted()
    assert queue.jobs(names[:3], together=False) == [[name] for name in names[:3]]
    jobs = queue.jobs(names, together=True)
    assert [[name.seed for name in names] for names in jobs[:6]] == [[0, 1, 2]] * 6
    gammas = [names for names in jobs if names[0].gamma != paper.GAMMA]
    assert [[name.gamma for name in names] for names in gammas] == [list(queue.GAMMAS)]
    assert sum(map(len, jobs)) == len(names)


def test_what_any_folder_has_is_not_missing(tmp_path):
    LESSONS[0].path(tmp_path).touch()
    assert queue.missing(LESSONS, [tmp_path / "none", tmp_path]) == LESSONS[1:]


def test_a_dry_run_prints_a_time_for_each_job_and_writes_nothing(short, capsys):
    queue.work(0, out=short, dry_run=True)
    normal, adv, last = capsys.readouterr().out.splitlines()
    assert normal.startswith("digits-small-normal-s0-lesson: step 0 of 138, ") and normal.endswith(" up to here")
    assert "left" in adv and last.startswith("0 of 2 networks are there") and not short.exists()


def test_work_in_pieces_gives_the_same_network(short, tmp_path, capsys, monkeypatch):
    queue.work(0, out=short)
    assert not short.exists()
    clock = iter(range(10**6))
    monkeypatch.setattr(queue.time, "monotonic", lambda: next(clock))  # each look at the clock is a second
    for _ in range(2):
        queue.work(1, out=short)  # some 40 steps of the first network
    checkpoint = LESSONS[0].path(short).with_suffix(".checkpoint")
    assert checkpoint.exists() and not LESSONS[0].path(short).exists()
    capsys.readouterr()
    monkeypatch.undo()
    monkeypatch.setattr(queue, "wanted", lambda: LESSONS)
    monkeypatch.setattr(queue, "PHOTOGRAPHS", 0)
    queue.work(10, out=short)
    out = capsys.readouterr().out
    assert "lesson: step 0 of" not in out.splitlines()[0] and "2 of 2 networks are there" in out
    assert not checkpoint.exists()
    job.train([(name, name.path(tmp_path)) for name in LESSONS], together=False)
    for name in LESSONS:
        ours, whole = (trained.load(name.path(folder))[0].state_dict() for folder in (short, tmp_path))
        assert all(torch.equal(ours[key], whole[key]) for key in whole)
    (record,) = records.read_all(short / "results")  # measured as soon as they are trained, and never twice
    assert record.settings["measurement"] == "pgd" and {row["method"] for row in record.rows} == {"Normal", "Adv"}
    written = (short / "results" / f"{record.name}.json").stat().st_mtime_ns
    queue.measure_job(LESSONS, short, data_dir=None, device="cpu")
    assert (short / "results" / f"{record.name}.json").stat().st_mtime_ns == written


def test_a_job_that_diverges_does_not_keep_the_next_one_from_its_turn(short, capsys, monkeypatch):
    def diverges(pairs, **_):
        raise Diverged("the loss is nan at step 7; there is no checkpoint.")

    monkeypatch.setattr(job, "train", diverges)
    queue.work(10, out=short)
    out = capsys.readouterr().out
    assert all(f"{name.slug}: the loss is nan at step 7" in out for name in LESSONS)


def test_a_long_epoch_leaves_checkpoints_on_the_way(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    saved = []
    monkeypatch.setattr(loop.Run, "save", lambda self: saved.append(self.step))
    job.train([(LESSONS[0], LESSONS[0].path(tmp_path))], together=False)
    assert saved[:3] == [1, 2, 3] and saved[-1] == 138


def test_those_who_train_together_stop_in_time(monkeypatch, tmp_path):
    job.train([(name, name.path(tmp_path)) for name in LESSONS], together=True, until=time.monotonic())
    assert sorted(path.suffix for path in tmp_path.glob("digits*")) == [".checkpoint", ".checkpoint"]
    monkeypatch.setattr(group, "CHECKPOINT_SECONDS", 0)
    job.train([(name, name.path(tmp_path)) for name in LESSONS], together=True)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {name.slug for name in LESSONS}


@pytest.fixture
def photographed(short, monkeypatch):
    """A project whose record has one photograph, and what Table 1 is measured with: its options, each time."""
    monkeypatch.setattr(queue, "PHOTOGRAPHS", 50)
    (path,) = (ROOT / "results").glob("isa-restricted_imagenet-wresnet-released-*.json")
    record = records.read(path)
    row = record.rows[0]
    record.rows = [row | {"measured": 1}]
    records.write(record, storage.ready_folder(queue.places.home() / "results"))
    asked = []

    def measured(table, *, folder, until, **options):
        (path,) = folder.glob("*.json")  # the project's own, to go on from
        asked.append({"table": table, "until": until} | options)
        record.rows = [row | {"measured": options["images"]}]
        assert path == records.write(record, folder)

    monkeypatch.setattr(measure, "measure", measured)
    return asked


def test_photographs_go_on_from_the_projects_own_record_and_are_measured_once(photographed, tmp_path, capsys):
    how = {"data_dir": None, "device": "cpu"}
    for until in (-math.inf, math.inf, math.inf):
        queue.work_on_photographs(tmp_path, until=until, **how)
    part = {"dataset": "restricted_imagenet", "images": queue.PHOTOGRAPHS, "until": math.inf, "table": "table1"}
    assert photographed == [part | how]
    assert capsys.readouterr().out == "Table 1 on R-ImageNet: 1 of 50 photographs\n" * 2


def test_without_photographs_the_queue_goes_on(photographed, short, capsys, monkeypatch):
    def missing(*_, **__):
        raise DataError("no photographs here")

    monkeypatch.setattr(measure, "measure", missing)
    monkeypatch.setattr(queue, "AFTER_PHOTOGRAPHS", (("digits", "small"),))
    monkeypatch.setattr(job, "train", lambda *_, **__: None)
    queue.work(10, out=short)
    out = capsys.readouterr().out
    assert out.index("1 of 50 photographs") < out.index("left out: no photographs here") < out.index(LESSONS[0].slug)


@pytest.mark.parametrize("seconds, text", [(40, "40 s"), (61, "1.02 min"), (9_300, "2.58 h"), (200_000, "2.31 d")])
def test_durations_are_in_the_largest_unit(seconds, text):
    assert queue.words(seconds) == text
