"""The command line: help everywhere, one line for a mistake, and the units of work themselves."""

import csv
import io
import os
import re
import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT

from interp_lib import __main__ as cli
from interp_lib import commands, data, models
from interp_lib.models import predict, trained
from interp_lib.schedule import Schedule
from interp_lib.study import records
from interp_lib.training import job
from interp_lib.training.methods import METHODS

COMMANDS = ("data", "train", "queue", "measure", "compare", "chapter", "pages", "laboratory", "book")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder with nothing but a file, and no variables that say where things are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    for variable in ("INTERP_DATA", "INTERP_RELEASED"):
        monkeypatch.delenv(variable, raising=False)


def python(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "interp_lib", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_help_lists_every_command():
    done = python("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in (*COMMANDS, "INTERP_DATA", "INTERP_RELEASED"):
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"python -m interp_lib {command}" in out and "%(default)" not in out


def test_help_of_train_names_every_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    (words,) = re.findall(r"--method METHOD\s+(.*)", capsys.readouterr().out)
    assert {name.strip() for name in re.split("[,:;]|or ", words)} >= set(METHODS)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("data", "imagenet"), ("unknown dataset 'imagenet'",)),
        (("data", "mnist", "--no-download", "--data-dir", "."), ("no MNIST in", "--data-dir")),
        (("data", "mnist", "--data-dir", "typo"), ("typo", "does not exist")),
        (("train", "--method", "Interp"), ("unknown method 'Interp'",)),
        (("train", "--model", "resnet"), ("unknown architecture 'resnet'",)),
        (("train", "--schedule", "slow"), ("unknown schedule 'slow'", "digits")),
        (("train", "--schedule", "paper"), ("schedule 'paper' is for mnist, cifar10", "'digits'")),
        (("train", "--precision", "float16"), ("unknown precision 'float16'", "bfloat16")),
        (("train", "--out", "a_file"), ("a_file must be a folder that can be written to: File exists",)),
        (("train", "--out", "a_file/nets"), ("a_file/nets must be a folder", "Not a directory")),
        (("train", "--dataset", "cifar100"), ("unknown dataset 'cifar100'",)),
        (("train", "--profile", "quick"), ("unknown profile 'quick'", "digits")),
        (("measure", "table9"), ("unknown table 'table9'", "table3")),
        (("measure", "A1", "--dataset", "mnist", "--model", "small"), ("A1 is measured on mnist/pool, cifar10/small",)),
        (("measure", "figure1", "--n", "3"), ("figure1 has no option n",)),
        (("measure", "rounding", "--networks", "ours"), ("measured on networks that are released; got 'ours'",)),
        (("train", "--device", "gpu", "--out", "nets"), ("device must be cpu", "'gpu'")),
        (("measure", "digits", "--device", "tpu"), ("device must be cpu", "'tpu'")),
        (("measure", "table3"), ("INTERP_RELEASED", "AkhilanB/Proper-Interpretability")),
        (("measure", "table3", "--released-dir", "typo"), ("typo is not a folder",)),
        (("measure", "table3", "--networks", "ours", "--networks-dir", "."), ("No ours network",)),
        (("compare", "--table", "6"), ("no Table 6", "A5")),
        (("compare", "--results-dir", "typo"), ("typo is not a folder of records",)),
        (("chapter", "99_missing"), ("unknown chapter '99_missing'",)),
        (("chapter", "99_missing", "-p", "eps"), ("NAME=VALUE", "'eps'")),
        (("book", "--profile", "quick"), ("unknown profile 'quick'",)),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_mistake_shows_no_traceback_in_a_process_of_its_own():
    done = python("measure", "table9")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["dance"], ["measure"], ["train", "--seed", "one"]], ids=str)
def test_what_is_no_command_is_one_line_that_names_the_help(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.startswith("error: ") and "--help" in err and err.count("\n") == 1


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run_data", interrupted)
    assert cli.main(["data", "digits"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


# The units of work


def test_data_says_which_copy_it_is(capsys):
    assert cli.main(["data", "digits"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Digits (original): images (1, 28, 28), 10 classes; 1197 training, 200 validation, 400 test")


def test_train_then_measure_then_compare(tmp_path, monkeypatch, capsys):
    """Digits, one epoch: a network, a record, the paper's table beside nothing."""
    short = Schedule(1, 400, 0.01, 0.1, 0, 1, 1, 0.1)
    monkeypatch.setattr(Schedule, "load", classmethod(lambda cls, name, dataset: short))
    assert cli.main(["train", "--method", "adv", "--seed", "3", "--out", "nets", "--device", "cpu"]) == 0
    path = tmp_path / "nets" / "digits-small-adv-s3-digits.safetensors"
    assert capsys.readouterr().out.startswith("nets/digits-small-adv-s3-digits.safetensors: validation")
    model, how = trained.load(path)
    assert (how["method"], how["seed"], how["title"]) == ("Adv", 3, "Digits")
    assert how["provenance"]["seconds"] == round(how["history"][0]["seconds"], 1) > 0
    assert not list(tmp_path.rglob("*.checkpoint"))

    assert cli.main(["train", "--method", "Adv", "--seed", "3", "--out", "nets"]) == 0
    assert capsys.readouterr().out == "nets/digits-small-adv-s3-digits.safetensors is there already\n"
    assert cli.main(["train", "--method", "Adv", "--seed", "3", "--out", "nets", "--precision", "bfloat16"]) == 0
    assert "is there already, but with precision float32; name another folder" in capsys.readouterr().out
    before = path.stat().st_mtime_ns
    assert cli.main(["train", "--method", "Adv", "--seed", "3", "--out", "nets", "--no-resume"]) == 0
    assert path.stat().st_mtime_ns > before and "validation accuracy" in capsys.readouterr().out

    arguments = ["--networks", "ours", "--networks-dir", "nets", "--results-dir", "out", "--device", "cpu"]
    assert cli.main(["measure", "digits", "--n", "20", "--eps", "0,1/10", *arguments]) == 0
    (record,) = records.read_all("out")
    assert capsys.readouterr().out == f"out/{record.name}.json: 8 rows\n"
    assert record.settings["subset"]["n"] == 20 and record.settings["attack"]["eps"] == [0, 0.1]
    assert {row["weights"] for row in record.rows} == {predict.fingerprint(model)}

    assert cli.main(["compare", "--networks", "ours", "--results-dir", "out"]) == 0
    assert "743 of the paper's 743 values are not measured" in capsys.readouterr().out


@pytest.mark.parametrize("at_once", [False, True])
def test_lists_of_methods_gammas_and_seeds(at_once, tmp_path, monkeypatch, capsys):
    """Every combination is a network; trained at the same time or one by one they are the same up to rounding."""
    from interp_lib import training

    short = Schedule(1, 400, 0.01, 0.1, 0, 1, 1, 0.1)
    monkeypatch.setattr(Schedule, "load", classmethod(lambda cls, name, dataset: short))
    real = commands.train
    monkeypatch.setattr(commands, "train", lambda *args, **settings: real(*args, **settings, together=at_once))
    arguments = ["train", "--method", "adv,int", "--gamma", "0.01,0.02", "--seed", "0,1", "--out", "nets"]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    slugs = [
        f"digits-small-{m}-s{s}-digits{g}" for m, g in (("adv", ""), ("int", ""), ("int", "-g0.02")) for s in (0, 1)
    ]
    found = {path.stem: trained.load(path) for path in trained.available("nets")}
    assert sorted(found) == sorted(slugs) and capsys.readouterr().out.count("under attack, after 1 epochs") == 6
    assert {how.get("trained_together", 1) for _, how in found.values()} == {6 if at_once else 1}
    assert not list(tmp_path.rglob("*.checkpoint"))
    alone, _ = found["digits-small-int-s1-digits-g0.02"]
    again = models.build("small", seed=1)
    training.fit(again, data.load("digits"), "Int", short, gamma=0.02, seed=1)
    flat = lambda model: torch.cat([p.detach().flatten() for p in model.parameters()])
    moved = (flat(again) - flat(models.build("small", seed=1))).norm()  # Adam's first steps follow a gradient's sign
    assert (flat(again) - flat(alone)).norm() < (0.02 if at_once else 1e-6) * moved
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("is there already") == 6
    with pytest.raises(SystemExit):
        cli.main(["train", "--seed", "0,one"])
    assert "must be a whole number in 0 .. 9223372036854775807; got 'one'" in capsys.readouterr().err


@pytest.mark.parametrize("able, warned", [({"amx_bf16": False}, True), ({"amx_bf16": True}, False), (None, False)])
def test_bfloat16_without_units_for_it_is_said_to_be_slow(able, warned, tmp_path, monkeypatch, capsys):

    short = Schedule(1, 1197, 0.01, 0.1, 0, 1, 1, 0.1)
    monkeypatch.setattr(Schedule, "load", classmethod(lambda cls, name, dataset: short))
    if able is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    arguments = ["train", "--precision", "bfloat16", "--device", "cpu", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert ("no units for bfloat16" in capsys.readouterr().err) == warned
    _, how = trained.load(tmp_path / "digits-small-normal-s0-digits.safetensors")
    assert how["precision"] == "bfloat16"


def test_a_log_has_a_line_for_every_epoch_that_takes_long(capsys):
    row = {"epoch": 3, "loss": 0.5, "validation_accuracy": 0.9, "validation_robust": 0.25, "seconds": 9.0}
    job.log_epoch("mnist-pool-int-s0-quick", row)
    job.log_epoch("mnist-pool-int-s0-quick", row | {"seconds": 61.7})
    out, err = capsys.readouterr()
    said = "mnist-pool-int-s0-quick, epoch 3: loss 0.5000, validation accuracy 0.900, 0.250 under attack; 62 s\n"
    assert (out, err) == ("", said)


def test_compare_prints_743_values_as_csv(capsys):
    assert cli.main(["compare", "--csv", "--results-dir", "."]) == 0
    out = capsys.readouterr().out
    rows = list(csv.reader(io.StringIO(out)))
    assert len(rows) == 744 and {len(row) for row in rows} == {12}
    assert rows[0][-4:] == ["released", "ours", "n", "n_ours"]
    assert cli.main(["compare", "--csv", "--table", "a1", "--results-dir", "."]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 81


def test_a_damaged_record_is_named(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "half.json").write_text('{"schema": 1,', encoding="utf-8")
    assert cli.main(["compare", "--results-dir", "results"]) == 2
    err = capsys.readouterr().err
    assert "results/half.json" in err and err.count("\n") == 1


def test_a_reader_that_has_enough_ends_it_quietly():
    command = f"{sys.executable} -m interp_lib compare --csv --results-dir . | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.stdout.startswith("table,dataset") and done.stdout.count("\n") == 1 and done.stderr == ""


def test_a_row_without_what_it_needs_is_named(tmp_path, capsys):
    settings = {"measurement": "pgd", "dataset": "mnist", "model": "small", "networks": "released", "title": "MNIST"}
    records.write(records.Record("pgd-mnist-small-released", settings, [{"eps": 0.1, "steps": 200}]), tmp_path)
    assert cli.main(["compare", "--results-dir", str(tmp_path)]) == 2
    assert "pgd-mnist-small-released" in (err := capsys.readouterr().err) and "it lacks 'method'" in err


def test_a_package_that_is_not_there_is_one_line(monkeypatch, capsys):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'scipy'")

    monkeypatch.setattr(commands, "run_compare", missing)
    assert cli.main(["compare"]) == 1
    assert capsys.readouterr().err == (
        "error: No module named 'scipy'. Install everything: pip install -r requirements.txt.\n"
    )


def test_tensorboard_gets_every_number_of_an_epoch(tmp_path, monkeypatch):
    seen = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, key, value, step):
            seen.append((self.folder, key, value, step))

        def flush(self):
            seen.append("flushed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    job.scalars(tmp_path)({"epoch": 2, "loss": 0.5})
    assert seen == [(tmp_path, "epoch", 2, 2), (tmp_path, "loss", 0.5, 2), "flushed"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        job.scalars(tmp_path)
