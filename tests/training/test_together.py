"""Networks trained together against each trained by itself; on a GPU, where there is one, as recorded steps."""

import dataclasses
import signal

import pytest
import torch
from conftest import content
from test_training import SCHEDULE, STEPS_AN_EPOCH, furthest, network, same, seen
from torch.utils._python_dispatch import TorchDispatchMode

from interp_lib import training
from interp_lib.checks import use_device
from interp_lib.fast.objective import Climbing
from interp_lib.models.architectures import build
from interp_lib.training import methods, together
from interp_lib.training.loop import fit
from interp_lib.training.run import Diverged, Run
from interp_lib.training.together import fit_together

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    """The device as `use_device` sets it up: float32 convolutions that give the same bits again."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    yield use_device(request.param)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


# Adam turns the rounding of a gradient into a step, where the gradient is small: more on a GPU, which rounds otherwise
# in a stack than alone. Of how far the weights went.
TOLERANCE = {"cpu": 1e-3, "cuda": 1e-2}


@pytest.fixture
def dataset(tiny_dataset, device):
    splits = ("train", "validation", "test")
    moved = {
        name: dataclasses.replace(split, images=split.images.to(device), labels=split.labels.to(device))
        for name in splits
        for split in [getattr(tiny_dataset, name)]
    }
    return dataclasses.replace(tiny_dataset, **moved)


def some(method, dataset, seeds=(0, 1, 2), **settings):
    """Runs that differ in seed and initial weights."""
    device = dataset.train.labels.device
    return [Run(network(seed).to(device), dataset, method, SCHEDULE, seed=seed, **settings) for seed in seeds]


# Together and alone


@pytest.mark.parametrize("method", methods.METHODS)
def test_together_is_each_by_itself(method, dataset, device, monkeypatch):
    """Up to rounding: weights, histories.

    Both climb PyTorch's objectives. The compiled ones, which only a run by itself has, round otherwise; and on these
    images some cross-entropies come down to 1e-7, where 1 - p_y, and so the sign of a gradient, is rounding.
    """
    monkeypatch.setattr(Climbing, "takes", lambda self, x: False)
    gammas = (0.01, 0.05, 0.05)
    runs = [Run(network(k).to(device), dataset, method, SCHEDULE, seed=k, gamma=g) for k, g in enumerate(gammas)]
    finished = []
    fit_together(runs, finished=finished.append)
    assert finished == runs
    for k, run in enumerate(runs):
        alone = network(k).to(device)
        history = fit(alone, dataset, method, SCHEDULE, seed=k, gamma=gammas[k])
        moved = furthest(alone, network(k).to(device))
        assert moved > 0.01 and furthest(alone, run.model) < TOLERANCE[device] * moved and not run.model.training
        assert [list(row) for row in run.history] == [list(row) for row in history]
        for ours, theirs in zip(run.history, history, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1 * TOLERANCE[device])
            assert ours["eps"] == pytest.approx(theirs["eps"]) and ours["epoch"] == theirs["epoch"]
            for key in ("validation_accuracy", "validation_robust"):
                assert ours[key] == pytest.approx(theirs[key], abs=0.051)  # one of 20 images


def test_methods_and_architectures_beside_each_other(dataset, device):
    """Each as alone, and same again to the bit."""

    def runs():
        made = [
            Run(network(seed).to(device), dataset, method, SCHEDULE, seed=seed)
            for method in ("Normal", "Int-Adv")
            for seed in (0, 1)
        ]
        made += [
            Run(build(name, (1, 8, 8), 3, seed=seed).to(device), dataset, "Adv", SCHEDULE, seed=seed)
            for name in ("pool", "wresnet")
            for seed in (0, 1)
        ]
        return made

    first, second = runs(), runs()
    fit_together(first)
    fit_together(second)
    for a, b in zip(first, second, strict=True):
        assert same(a.model, b.model) and seen(a.history) == seen(b.history) and len(a.history) == SCHEDULE.epochs
    alone = build("pool", (1, 8, 8), 3, seed=1).to(device)
    fit(alone, dataset, "Adv", SCHEDULE, seed=1)
    moved = furthest(alone, build("pool", (1, 8, 8), 3, seed=1).to(device))
    assert furthest(alone, first[5].model) < TOLERANCE[device] * moved


def test_company_does_not_matter(dataset, device):
    """A run that diverges leaves the others what they are without it."""
    good, alone = some("Adv", dataset), some("Adv", dataset)
    wild = Run(network(3).to(dataset.train.labels.device), dataset, "Adv", SCHEDULE, seed=3)
    with torch.no_grad():
        wild.model.conv1.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="Adv: the loss is nan at step 0; there is no checkpoint yet"):
        fit_together([good[0], wild, *good[1:]])
    fit_together(alone)
    for a, b in zip(good, alone, strict=True):
        assert (
            furthest(a.model, b.model) < 1e-2 * TOLERANCE[device]
            and len(a.history) == SCHEDULE.epochs
            and not a.model.training
        )
    assert wild.history == []


class NoReads(TorchDispatchMode):
    """Refuse to bring a value from a tensor to Python, which no CUDA graph can."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", methods.METHODS)
def test_what_is_captured_reads_no_value(method, dataset, monkeypatch):
    group = together.Group(some(method, dataset, (0, 1)))
    group.load_order()
    monkeypatch.setattr(group.optimizer, "step", lambda: None)  # on a CPU PyTorch's own step reads the learning rate
    with NoReads():
        group.take_step()
        group.watch()
    with pytest.raises(AssertionError), NoReads():
        float(group.losses[0, 0])


# Stopped and resumed


@pytest.mark.parametrize("cuts", [(1,), (STEPS_AN_EPOCH,), (2, 3, 11), (12,)])
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(tmp_path, dataset, cuts, monkeypatch):
    monkeypatch.setattr("interp_lib.training.group.BLOCK", 3)
    whole = [run for method in ("Adv", "Int") for run in some(method, dataset, (0, 1))]
    fit_together(whole)

    def parts():  # a new process knows nothing but the checkpoints
        device = dataset.train.labels.device
        names = [(method, seed) for method in ("Adv", "Int") for seed in (0, 1)]
        return [
            Run(
                network(seed if not content(tmp_path) else 99).to(device),
                dataset,
                method,
                SCHEDULE,
                seed=seed,
                checkpoint=tmp_path / f"{method}{seed}",
            )
            for method, seed in names
        ]

    for cut in cuts:
        runs = parts()
        fit_together(runs, max_steps=cut)
        assert [run.step for run in parts()] == [cut] * 4
    runs = parts()
    fit_together(runs)
    for a, b in zip(runs, whole, strict=True):
        assert same(a.model, b.model) and seen(a.history) == seen(b.history)


def test_a_run_goes_on_by_itself_and_back(tmp_path, dataset, device):
    """A checkpoint of runs together is one for `fit`, on this device or another, and the other way round."""
    settings = {"seed": 1, "checkpoint": tmp_path / "checkpoint"}
    alone = network(1).to(device)
    fit(alone, dataset, "TRADES", SCHEDULE, seed=1)
    fit_together([Run(network(1).to(device), dataset, "TRADES", SCHEDULE, **settings)], max_steps=5)
    fit(network(9).to(device), dataset, "TRADES", SCHEDULE, **settings, max_steps=7)
    run = Run(network(9).to(device), dataset, "TRADES", SCHEDULE, **settings)
    assert run.step == 7
    fit_together([run])
    assert furthest(run.model, alone) < TOLERANCE[device] * furthest(alone, network(1).to(device))
    finished = []
    again = Run(network(9).to(device), dataset, "TRADES", SCHEDULE, **settings)
    fit_together([again], finished=finished.append)  # nothing is left to do
    assert finished == [again] and same(again.model, run.model)


def test_ctrl_c_leaves_checkpoints(tmp_path, dataset, device, monkeypatch):
    real, calls = together.Group.take_step, []

    def interrupted(self, **settings):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(self, **settings)

    monkeypatch.setattr("interp_lib.training.group.BLOCK", 2)
    monkeypatch.setattr("interp_lib.training.group.Group.take_step", interrupted)
    runs = [run for method in ("Normal", "Adv") for run in some(method, dataset, (0,))]
    for run in runs:
        run.checkpoint = tmp_path / run.method
    with pytest.raises(KeyboardInterrupt):
        fit_together(runs)
    monkeypatch.undo()
    assert device == "cuda" or sum(run.step for run in runs) >= 3  # there a recording is what calls take_step
    for run in runs:
        step = torch.load(run.checkpoint, weights_only=True)["step"]
        assert step == run.step < run.total
        whole = some(run.method, dataset, (0,))
        fit_together(whole, max_steps=step)
        assert same(run.model, whole[0].model)


def test_bfloat16_and_the_best_epoch_are_as_in_fit(dataset, device, monkeypatch):
    run = some("Adv", dataset, (0,), precision="bfloat16")[0]
    alone = network(0).to(device)
    fit_together([run])
    fit(alone, dataset, "Adv", SCHEDULE, precision="bfloat16")
    start = network(0).to(device)
    ours, theirs = (
        torch.cat([(p - q).flatten() for p, q in zip(m.parameters(), start.parameters(), strict=True)])
        for m in (run.model, alone)
    )
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.9
    accuracies = iter([0.2, 0.9, 0.9])
    kept = some("Adv", dataset, (0,), keep="best")[0]
    real = training.Run.end_epoch
    seen = lambda self, watched: real(self, {**watched, "validation_robust": next(accuracies)})
    monkeypatch.setattr(training.Run, "end_epoch", seen)
    fit_together([kept])
    monkeypatch.undo()
    two = some("Adv", dataset, (0,))[0]
    fit_together([two], max_steps=2 * STEPS_AN_EPOCH)
    assert same(kept.model, two.model)
