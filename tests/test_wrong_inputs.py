"""Wrong inputs to functions and commands: an error of ours, in one sentence that names what was expected."""

import re
from functools import cache

import pytest
import torch

from interp_lib import __main__ as cli
from interp_lib import discrepancies, interpreters, models, training
from interp_lib.attacks.against_interpretability import aai
from interp_lib.attacks.ascent import projected_ascent
from interp_lib.attacks.interpretability_sneaking import isa_over_eps, margin_attack, search_isa
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.attacks.smallest_perturbation import minimal_eps
from interp_lib.attacks.sneaking_settings import Discrepancy, Search, class_set
from interp_lib.pages import chapters, parameters, profiles
from interp_lib.schedule import Schedule
from interp_lib.study import accuracy, rank_correlation
from interp_lib.study import isa_scores as maps

NAN, INF = float("nan"), float("inf")
# What is not clear or is let in, and why it stays so.
EXCEPTIONS = {}
EXPECTATION = re.compile(r"must|needs|known are|takes|is no\b|is for|has no|excludes|written|no Table|measured on")


@cache
def good():
    """Two images that a Small network takes, and what goes with them."""
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    network = models.build("small", seed=0).eval()
    return {"model": network, "x": x, "y": torch.tensor([3, 5]), "target": torch.tensor([1, 2])}


def images():
    """What is no image of two, as x."""
    x = good()["x"]
    return {
        "text": "x",
        "None": None,
        "list": [[0.5]],
        "numpy": x.numpy(),
        "bytes": (255 * x).byte(),
        "int": x.long(),
        "three axes": x[0],
        "NaN": x * NAN,
        "infinite": x / 0,
        "negative": x - 1,
        "of bytes": 255 * x,
        "other size": x[:, :, :14],
        "other channels": x.repeat(1, 3, 1, 1),
        "other dtype": x.double(),
    }


def labels():
    """What is no label of two images, as y."""
    y = good()["y"]
    return {
        "text": "y",
        "None": None,
        "list": [3, 5],
        "float": y.float(),
        "int32": y.int(),
        "column": y[:, None],
        "three": torch.tensor([1, 2, 3]),
        "negative": torch.tensor([-1, 2]),
        "too large": torch.tensor([1, 10]),
    }


def pick(table, *names):
    return {name: table[name] for name in names}


# What a message calls an argument, where it is not by its name.
IN_OTHER_WORDS = {
    ("x", "other size"): "shape",
    ("x", "other channels"): "shape",
    ("model", "other classes"): "num_classes",
}
EPS = {"negative": -0.1, "of bytes": 8, "NaN": NAN, "text": "8/255", "None": None, "three": torch.full((3,), 0.1)}
ALPHA = {"negative": -0.1, "NaN": NAN, "None": None, "infinite": INF}
STEPS = {"negative": -1, "half": 1.5, "None": None, "text": "ten", "NaN": NAN}
WHOLE = {"zero": 0, "half": 1.5, "text": "3", "None": None}
NUMBER = {"NaN": NAN, "text": "a", "None": None, "negative": -1.0}
SIZES = {"a number": 0.1, "none": [], "text": "0.1", "negative": [-0.1], "of bytes": [8], "NaN": [NAN], "None": None}
SIZES_ABOVE = {"a number": 1.1, "none": [], "zero": [0.0], "text": ["a"], "NaN": [NAN], "infinite": [INF]}
NUMBERS = {"a number": 3, "none": [], "negative": [-1], "half": [1.5], "text": ["3"], "None": None}


def attack_cases():
    g = good()
    start = {"NaN": g["x"] * NAN, "three": torch.rand(3, 1, 28, 28), "other dtype": g["x"].double(), "list": [1]}
    ball = {"eps": EPS, "alpha": ALPHA, "steps": STEPS}
    settings = {"eps": 0.1, "alpha": 0.05, "steps": 2}
    base = {k: g[k] for k in ("model", "x", "y")} | settings
    yield pgd, base, {"x": images(), "y": labels(), **ball, "start": start}
    yield pgd, base | {"random_start": True, "generator": None}, {"generator": {"None": None, "a seed": 0}}
    yield (
        aai,
        base | {"start": g["x"] * 0.9},
        {
            "x": pick(images(), "text", "bytes", "three axes", "NaN", "of bytes", "other size", "other dtype"),
            "y": labels(),
            **ball,
            "start": start,
            "hinge": NUMBER,
            "p": {"three": 3, "text": "l1", "None": None},
            "top_k": {"zero": 0, "too many": 50, "half": 1.5},
            "norm": {"l3": "l3", "None": None, "two": 2},
        },
    )
    isa = base | {"target": g["target"]}
    yield (
        search_isa,
        isa,
        {
            "x": pick(images(), "None", "int", "infinite", "negative", "other channels", "other dtype"),
            "y": pick(labels(), "float", "column", "list", "too large"),
            "target": {kind: value for kind, value in labels().items() if value is not None},
            **ball,
            "tau": NUMBER,
            "distance": {
                "of float classes": Discrepancy(classes=g["y"][:, None].float()),
                "of flat classes": Discrepancy(classes=g["y"]),
                "of too large classes": Discrepancy(classes=g["y"][:, None] + 9),
                "a map": interpreters.cam,
                "None": None,
            },
            "search": {"rounds": 3, "None": None},
            "norm": {"l0": "l0"},
        },
    )
    rounds = {"negative": -1, "half": 0.5, "None": None}
    yield Search, {}, {"first": NUMBER | {"zero": 0.0}, "high": {"below": 0.01, "NaN": NAN}, "rounds": rounds}
    yield Discrepancy, {}, {"p": {"three": 3, "text": "l1"}, "scale": NUMBER}
    yield (margin_attack, isa, {"y": pick(labels(), "float", "column"), "target": pick(labels(), "list"), **ball})
    both = isa | {"eps": torch.full((2, 2), 0.1), "alpha": torch.full((2, 2), 0.02)}
    yield isa_over_eps, both, {"eps": {"flat": torch.rand(2), "a number": 0.1}, "alpha": {"None": None}, "y": labels()}
    yield class_set, {"name": "1-class", "y": g["y"], "target": g["target"]}, {"name": {"other": "3-class", "one": 1}}
    search = {"attack": lambda eps: g["x"], "succeeds": lambda x: torch.zeros(2, dtype=torch.bool), "x": g["x"]}
    yield (
        minimal_eps,
        search,
        {
            "attack": {"None": None},
            "succeeds": {"text": "yes"},
            "x": pick(images(), "bytes", "NaN", "list"),
            "first": NUMBER | {"zero": 0.0},
            "high": {"NaN": NAN, "None": None},
            "rounds": STEPS,
        },
    )
    climb = {"objective": lambda x: x.sum((1, 2, 3)), "x": g["x"]} | settings
    yield lambda **k: list(projected_ascent(**k)), climb, {**ball, "start": start, "norm": {"l3": "l3"}}


def interpreter_cases():
    g = good()
    classes = {
        "float": g["y"][:, None].float(),
        "flat": g["y"],
        "three": torch.zeros(3, 1, dtype=torch.int64),
        "too large": g["y"][:, None] + 5,
        "negative": -g["y"][:, None],
        "list": [[3], [5]],
        "None": None,
    }
    base = {"model": g["model"], "x": g["x"], "classes": g["y"][:, None]}
    random = base | {"generator": torch.Generator().manual_seed(0)}
    yield interpreters.cam, base, {"x": images(), "classes": classes}
    for function in (interpreters.gradcam, interpreters.vanilla_gradient, interpreters.integrated_gradients):
        some = pick(images(), "list", "int", "NaN", "of bytes", "other size", "other dtype")
        yield function, base, {"x": some, "classes": pick(classes, "float", "flat", "list", "None")}
    yield interpreters.representation, base, {"x": pick(images(), "bytes", "three axes", "None")}
    yield (
        interpreters.integrated_gradients,
        base,
        {
            "steps": WHOLE,
            "rule": {"other": "trapezoid", "None": None},
            "activation": {"other": "gelu"},
            "baseline": {"other size": g["x"][:, :, :7], "a number": 0.0, "other dtype": g["x"].double()},
            "internal_batch_size": {k: v for k, v in WHOLE.items() if v is not None},
            "nodes": {"zero": 0, "text": "8"},
        },
    )
    generator = {"None": None, "a seed": 0}
    yield interpreters.smoothgrad, random, {"samples": WHOLE, "sigma": NUMBER, "generator": generator}
    yield (
        interpreters.rise,
        random,
        {"masks": WHOLE, "cells": WHOLE, "keep": NUMBER | {"two": 2}, "generator": generator},
    )
    some = {"maps": torch.rand(2, 1, 7, 7), "size": (28, 28)}
    yield interpreters.upsample, some, {"size": {"one": 28, "text": "28x28", "zero": (0, 0)}, "maps": {"list": [1]}}


def discrepancy_cases():
    a, b = torch.rand(2, 2, 3, 3), torch.rand(2, 2, 3, 3)
    wrong = {"list": [1], "None": None, "int": (9 * a).long(), "other shape": a[:, :1], "no classes": a[:, 0]}
    pair, y = {"maps": a, "maps_adv": b}, torch.tensor([0, 1])
    p = {"three": 3, "text": "l1", "None": None}
    yield discrepancies.distances, pair, {"maps": wrong, "maps_adv": wrong, "p": p, "scale": NUMBER}
    yield discrepancies.normalised_discrepancy, pair, {"maps": wrong, "p": p}
    yield discrepancies.two_class_discrepancy, pair, {"maps_adv": wrong}
    free = pair | {"y": y, "logits_adv": torch.rand(2, 2)}
    logits = {"list": [1], "None": None, "flat": torch.rand(2), "int": y[:, None]}
    yield (
        discrepancies.target_free_discrepancy,
        free,
        {"logits_adv": logits, "y": pick(labels(), "list", "float", "column")},
    )
    ranks = {"map_a": a, "map_b": b}
    flat = {"list": [1], "None": None, "other shape": a[:1], "int": (9 * a).long()}
    yield discrepancies.kendall_tau, ranks, {"map_a": flat}
    bound = {"logits": torch.rand(2, 10), "t": good()["y"], "t_prime": good()["target"]}
    yield discrepancies.proposition1_bound, bound, {"logits": logits, "t": labels(), "t_prime": pick(labels(), "list")}
    slope = {"scores": torch.rand(2, 3), "eps": torch.rand(2, 3)}
    yield discrepancies.normalised_slope, slope, {"scores": {"list": [1], "other shape": torch.rand(2, 2)}}


def evaluation_cases(dataset):
    g = good()
    base = {k: g[k] for k in ("model", "x", "y")}
    wrong = {"x": pick(images(), "text", "bytes", "three axes", "NaN", "of bytes", "other size", "other dtype")}
    yield models.count_correct, base, {**wrong, "y": labels(), "batch_size": WHOLE}
    yield models.predictions, {k: g[k] for k in ("model", "x")}, {"x": images()}
    yield accuracy.proportion, {"right": torch.ones(2, dtype=torch.bool)}, {"right": {"int": g["y"], "list": [True]}}
    grid = base | {"eps": [0.1], "steps": [1]}
    yield accuracy.pgd_accuracy, grid, {**wrong, "y": labels(), "eps": SIZES, "steps": NUMBERS, "alpha": ALPHA}
    yield accuracy.pgd_accuracy_in_batches, grid, {"y": labels(), "batch_size": WHOLE, "x": {"list": [0.5]}}
    some = pick(labels(), "float", "column", "None")
    starts = base | {"eps": [0.1], "steps": 1}
    yield (
        accuracy.random_start_accuracy,
        starts,
        {"y": some, "eps": SIZES, "steps": STEPS, "starts": NUMBERS | {"zero": [0]}, "seed": {"negative": -1}},
    )
    rows = {"model": g["model"], "subset": dataset.evaluation_subset(2), "eps": [0.1]}
    yield (
        rank_correlation.aai_rows,
        rows,
        {
            "eps": SIZES | {"zero": [0]},
            "interpreter": {"other": "IG2", "None": None},
            "subset": {"None": None},
            "attack": {"None": None, "other": {"stepps": 3}},
        },
    )
    del (rows := dict(rows))["eps"]
    yield (
        lambda **k: list(maps.isa_rows(**k)),
        rows,
        {
            "interpreters": {"text": "CAM", "other": ["LIME"], "none": []},
            "norms": {"three": [3], "a number": 1},
            "class_sets": {"other": ["3-class"]},
            "penalties": SIZES_ABOVE,
            "images": WHOLE | {"many": 99},
            "batch_size": {"zero": 0, "half": 0.5},
            "subset": {"images": g["x"]},
        },
    )


def training_cases(dataset):
    schedule = {
        "epochs": 1,
        "batch_size": 20,
        "learning_rate": 0.01,
        "eps": 0.1,
        "ramp_start": 0,
        "ramp_end": 1,
        "attack_steps": 1,
        "attack_alpha": 0.1,
    }
    whole = {"negative": -1, "half": 1.5, "text": "3", "None": None}
    yield (
        Schedule,
        schedule,
        {
            "epochs": whole | {"zero": 0},
            "batch_size": whole | {"zero": 0},
            "learning_rate": NUMBER,
            "eps": NUMBER | {"7": 7},
            "ramp_start": whole,
            "ramp_end": whole,
            "attack_steps": whole,
            "attack_alpha": NUMBER,
            "decay": {"a number": 3, "negative": (-1,), "text": "3"},
        },
    )
    yield (Schedule, schedule | {"ramp_start": 5, "ramp_end": 9}, {"ramp_end": {"before it starts": 3}})
    yield Schedule.load, {"name": "quick", "dataset": "mnist"}, {"name": {"other": "slow", "path": "../x"}}
    fit = {
        "model": models.build("small", dataset.shape, 3, seed=0),
        "dataset": dataset,
        "method": "Adv",
        "schedule": Schedule(**schedule),
        "max_steps": 0,
    }
    yield (
        training.fit,
        fit,
        {
            "model": {
                "other shape": models.build("small", seed=0),
                "other classes": models.build("small", dataset.shape, 4),
                "a name": "small",
                "None": None,
            },
            "dataset": {"a name": "mnist", "None": None},
            "method": {"other": "Interp", "None": None, "path": "../x"},
            "schedule": {"a name": "quick", "None": None, "a dictionary": schedule},
            "gamma": NUMBER,
            "seed": whole,
            "max_steps": {"negative": -1, "half": 0.5, "text": "3"},
            "precision": {"other": "float16", "None": None},
            "keep": {"other": "first", "None": None},
            "checkpoint": {"a number": 3},
            "report": {"text": "print"},
        },
    )


PARAMETERS = {
    "eps": {"of bytes": 8, "zero": 0, "negative": -0.1, "text": "small", "NaN": NAN, "None": None, "by zero": "1/0"},
    "alpha": {"of bytes": "2", "list": [0.1]},
    "n": {"zero": 0, "half": 1.5, "text": "all", "yes": True, "None": None},
    "steps": {"zero": 0, "half": "1/2", "text": "ten"},
    "index": {"negative": -1, "many": 200},
    "seed": {"negative": -1, "half": 0.5},
    "recompute": {"text": "maybe", "two": 2, "None": None},
    "method": {"other": "Interp", "None": None},
    "profile": {"other": "quick", "path": "../digits", "a number": 3},
}
# Command lines, and a word that the message must have.
LINES = {
    "data": "COMMAND|name",
    "data imagenet": "imagenet",
    "data mnist --data-dir typo": "typo",
    "data mnist --data-dir ": "data-dir",
    "train --method ../../evil/x": "evil",
    "train --method Interp": "Interp",
    "train --model resnet": "resnet",
    "train --dataset cifar100": "cifar100",
    "train --schedule slow": "slow",
    "train --schedule paper": "paper",
    "train --seed -1": "seed",
    "train --seed one": "seed",
    "train --seed 1.5": "seed",
    "train --seed 0,,1": "seed",
    "train --gamma -1": "gamma",
    "train --gamma nan": "gamma",
    "train --gamma inf": "gamma",
    "train --gamma x": "gamma",
    "train --precision float16": "float16",
    "train --keep first": "keep",
    "train --device gpu --out nets": "gpu",
    "train --device cpu:3 --out nets": "cpu:3",
    "train --profile quick": "quick",
    "train --out a_file": "a_file",
    "train --epochs 3": "epochs",
    "measure": "table",
    "measure table9": "table9",
    "measure digits --networks theirs": "networks",
    "measure digits --device tpu": "tpu",
    "measure table3 --released-dir typo": "typo",
    "measure A1 --dataset mnist --model small": "A1",
    "measure digits --networks ours --networks-dir typo": "digits/small",
    "measure figure1 --n 3": "n",
    "compare --table 6": "6",
    "compare --results-dir typo": "typo",
    "compare --networks theirs": "networks",
    "chapter": "name",
    "chapter 99_missing": "99_missing",
    "chapter ../index": "index",
    "chapter all -p eps": "NAME=VALUE",
    "chapter 02_interpretation -p eps=8": "eps",
    "chapter 02_interpretation -p epps=.1": "eps",
    "chapter 02_interpretation -p n=3": "index",
    "chapter 03_discrepancy -p steps=many": "steps",
    "chapter 03_discrepancy -p recompute=maybe": "recompute",
    "chapter all --execution-timeout 0": "execution-timeout",
    "chapter all --execution-timeout soon": "execution-timeout",
    "chapter index --profile quick": "quick",
    "book --profile quick": "quick",
    "book --cores 0": "cores",
    "book --cores two": "cores",
    "dance": "dance",
    "pages index": "index",
    "": "COMMAND",
}


def table(dataset):
    """(name, call, word that the message must have) of every wrong input."""
    cases = (
        *attack_cases(),
        *interpreter_cases(),
        *discrepancy_cases(),
        *evaluation_cases(dataset),
        *training_cases(dataset),
    )
    for function, base, wrong in cases:
        called = getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
        called = "isa_rows" if "interpreters" in wrong else "projected_ascent" if called == "<lambda>" else called
        for argument, values in wrong.items():
            for kind, value in values.items():
                word = {"map_a": "maps", "map_b": "maps", "maps_adv": "maps", "name": "name|schedule"}.get(
                    argument, argument
                )
                yield (
                    f"{called}, {argument}: {kind}",
                    lambda f=function, b=base, a=argument, v=value: f(**b | {a: v}),
                    IN_OTHER_WORDS.get((argument, kind), word),
                )
    for name, values in PARAMETERS.items():
        for kind, value in values.items():
            yield f"parameter {name}: {kind}", lambda n=name, v=value: parameters.read(n, v), name
    for value in (3, None, "quick", "../digits", ""):
        yield f"profiles.load: {value!r}", lambda v=value: profiles.load(v), "profile"
    for name, given in (("99", {}), (None, {}), ("index", {"n": 3}), ("index", {"profile": "quick"})):
        word = "chapter" if not given else next(iter(given))
        yield f"chapters.execute: {name}, {given}", lambda n=name, g=given: chapters.execute(n, g), word
    for text in ("eps", "=3", "a b=3"):
        yield f"parse_parameter: {text}", lambda t=text: chapters.parse_parameter(t), "NAME=VALUE"


def verdict(call, word):
    """'clear', 'accepted', or what was said in the place of a clear sentence."""
    try:
        call()
    except (ValueError, TypeError, FileNotFoundError) as error:
        message = str(error)
        clear = re.search(rf"(?<![a-z])({word})", message) and EXPECTATION.search(message)
        if clear and "\n" not in message and len(message) < 500:
            return "clear"
        return f"{type(error).__name__}: {message:.200}"
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.200}"
    return "accepted"


def test_wrong_inputs_are_refused_by_name(tiny_dataset, tmp_path, monkeypatch, capsys):
    found = {name: verdict(call, word) for name, call, word in table(tiny_dataset)}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    for variable in ("INTERP_DATA", "INTERP_RELEASED"):
        monkeypatch.delenv(variable, raising=False)
    for line, word in LINES.items():
        found[f"command {line}"] = line_verdict(line, word, capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"a_file"}
    wrong = {name: said for name, said in found.items() if said != "clear"}
    print("\n".join(f"{name} -> {said}" for name, said in wrong.items()))
    print(len(found))
    assert len(found) >= 300
    assert set(wrong) == set(EXCEPTIONS)
    assert len(wrong) <= 0.05 * len(found)


def line_verdict(line, word, capsys):
    try:
        status = cli.main(re.split(" ", line) if line else [])
    except SystemExit as leaving:
        status = leaving.code
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    out, err = capsys.readouterr()
    clear = status == 2 and not out and err.startswith("error: ") and err.count("\n") == 1 and re.search(word, err)
    return "clear" if clear else f"{status}: {out}{err}"


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("eps", "8/255", 8 / 255),
        ("eps", 1, 1.0),
        ("alpha", "1e-2", 0.01),
        ("n", "1e2", 100),
        ("n", 50.0, 50),
        ("recompute", "no", False),
        ("recompute", "Yes", True),
        ("recompute", 1, True),
        ("method", "int-adv", "Int-Adv"),
        ("profile", "digits", "digits"),
    ],
)
def test_what_can_be_read_is_read(name, value, expected):
    read = parameters.read(name, value)
    assert read == expected and type(read) is type(expected)
