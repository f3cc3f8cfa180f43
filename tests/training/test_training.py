"""Training against loops written out here, to the bit; and runs that are stopped, killed, resumed."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from importlib import resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import NO_YAML, ROOT, content
from hypothesis import given
from hypothesis import strategies as st

import interp_lib
from interp_lib.attacks.ascent import input_gradient, uniform_start
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.fast import compiled
from interp_lib.models.architectures import build
from interp_lib.schedule import Schedule
from interp_lib.training import loop, methods
from interp_lib.training import run as run_module
from interp_lib.training.loop import fit
from interp_lib.training.run import Diverged, Run, generator
from interp_lib.training.together import fit_together

SCHEDULE = Schedule(
    epochs=3,
    batch_size=9,
    learning_rate=0.01,
    eps=0.2,
    ramp_start=2,
    ramp_end=6,
    attack_steps=3,
    attack_alpha=0.1,
)
STEPS_AN_EPOCH = 40 // 9


def network(seed=0):
    return build("small", (1, 8, 8), 3, seed=seed)


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


def furthest(a, b):
    return max((p - q).abs().max().item() for p, q in zip(weights(a), weights(b), strict=True))


def seen(history):
    """A history without its wall times, which no two runs share."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def batches(dataset, schedule, seed=0):
    """The batches of all epochs: a permutation an epoch, the last partial batch dropped."""
    for epoch in range(schedule.epochs):
        order = torch.randperm(len(dataset.train), generator=generator(seed, "order", epoch))
        for start in range(0, len(order) - schedule.batch_size + 1, schedule.batch_size):
            index = order[start : start + schedule.batch_size]
            yield dataset.train.x(index), dataset.train.labels[index]


# What a method is


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_are_loops_with_adam(method, tiny_dataset):
    """The loop by hand, order, ramp, random start, projected sign steps, decay, Adam."""
    ours, theirs = network(), network()
    schedule = dataclasses.replace(SCHEDULE, decay=(5, 9))
    fit(ours, tiny_dataset, method, schedule, gamma=0.05)
    adam = torch.optim.Adam(theirs.parameters())
    for step, (x, y) in enumerate(batches(tiny_dataset, schedule)):
        eps = 0.2 * min(max((step - 2) / 4, 0), 1)
        problem, x_adv = methods.METHODS[method](theirs, x, y, 0.05), x
        if problem.objective and eps:
            low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
            x_adv = uniform_start(x, eps, generator(0, "start", step)).clamp(low, high)
            for _ in range(3):
                x_adv = (x_adv + 0.1 * input_gradient(problem.objective, x_adv).sign()).clamp(low, high)
        adam.zero_grad()
        problem.loss(x_adv).mean().backward()
        adam.param_groups[0]["lr"] = 0.01 * (1 if step < 5 else 0.1 if step < 9 else 0.1**2)
        adam.step()
    assert step + 1 == 3 * STEPS_AN_EPOCH
    moved = furthest(ours, network())
    assert moved > 0.01 and furthest(ours, theirs) < 1e-4 * moved  # the layout in memory decides the last bit


@pytest.mark.parametrize("method", ["Normal", "Adv"])
def test_training_is_that_of_the_plain_network(method, tiny_dataset):
    ours, theirs = network(), network()
    flat = dataclasses.replace(SCHEDULE, epochs=1)
    fit(ours, tiny_dataset, method, flat)
    adam = torch.optim.Adam(theirs.parameters(), lr=SCHEDULE.learning_rate)
    for step, (x, y) in enumerate(batches(tiny_dataset, flat)):
        if method == "Adv" and (eps := flat.radius(step)):
            start = uniform_start(x, eps, generator(0, "start", step))
            x = pgd(theirs, x, y, eps=eps, alpha=0.1, steps=3, start=start)
        adam.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        adam.step()
    assert furthest(ours, theirs) < 1e-2 * furthest(ours, network())


def test_adversarial_training_without_a_ball_is_normal_training(tiny_dataset):
    normal, adv = network(), network()
    flat = dataclasses.replace(SCHEDULE, eps=0.0)
    assert seen(fit(normal, tiny_dataset, "Normal", flat)) == seen(fit(adv, tiny_dataset, "Adv", flat))
    assert same(normal, adv)
    with_ball = network()
    fit(with_ball, tiny_dataset, "Adv", SCHEDULE)
    assert not same(normal, with_ball)


def test_the_loss_is_learnt(tiny_dataset):
    model = network()
    history = fit(model, tiny_dataset, "Normal", dataclasses.replace(SCHEDULE, epochs=15))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["validation_accuracy"] > 0.9
    assert [row["epoch"] for row in history] == list(range(1, 16)) and not model.training


def test_history_says_what_was_seen(tiny_dataset):
    history = fit(network(), tiny_dataset, "Adv", SCHEDULE)
    radii = [SCHEDULE.radius(STEPS_AN_EPOCH * epoch - 1) for epoch in (1, 2, 3)]
    assert [row["eps"] for row in history] == radii
    x, y = tiny_dataset.train.x(), tiny_dataset.train.labels
    whole = dataclasses.replace(SCHEDULE, batch_size=40, epochs=1)  # one step on all images
    (row,) = fit(network(), tiny_dataset, "Normal", whole)
    assert row["loss"] == pytest.approx(F.cross_entropy(network()(x), y).item(), rel=1e-5)
    model = network()
    last = fit(model, tiny_dataset, "Normal", SCHEDULE)[-1]
    predicted = model(tiny_dataset.validation.x()).argmax(1)
    assert last["validation_accuracy"] == (predicted == tiny_dataset.validation.labels).double().mean()


# Seeds


@pytest.mark.parametrize("method", methods.METHODS)
def test_same_seed_same_weights_another_seed_others(method, tiny_dataset):
    models = [network() for _ in range(3)]
    histories = [fit(m, tiny_dataset, method, SCHEDULE, seed=s) for m, s in zip(models, (1, 1, 2), strict=True)]
    assert same(models[0], models[1]) and seen(histories[0]) == seen(histories[1])
    assert not same(models[0], models[2])


def test_training_leaves_the_global_generator_alone(tiny_dataset):
    before = torch.get_rng_state()
    fit(network(), tiny_dataset, "Adv", SCHEDULE)
    assert torch.equal(before, torch.get_rng_state())


def test_generators_depend_on_seed_purpose_and_counter():
    draws = {
        (s, p, c): torch.rand(1, generator=generator(s, p, c)).item()
        for s in (0, 1)
        for p in ("order", "start")
        for c in (0, 1, 10)
    }
    assert len(set(draws.values())) == len(draws)
    assert torch.rand(1, generator=generator(1, "start", 10)).item() == draws[1, "start", 10]


# Stopped and resumed


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("cuts", [(1,), (4,), (5,), (2, 3, 11), (12,)])
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(tmp_path, tiny_dataset, method, cuts):
    whole, parts, checkpoint = network(), network(), tmp_path / "checkpoint"
    history = fit(whole, tiny_dataset, method, SCHEDULE)
    for cut in cuts:
        fit(parts, tiny_dataset, method, SCHEDULE, checkpoint=checkpoint, max_steps=cut)
        parts = network(seed=99)  # a new process knows nothing but the checkpoint
    assert seen(fit(parts, tiny_dataset, method, SCHEDULE, checkpoint=checkpoint)) == seen(history)
    assert same(whole, parts)
    assert content(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("method", ["Normal", "TRADES", "Int-Adv", "IG-Norm"])
def test_bfloat16_is_float32_with_other_rounding_and_resumes_to_the_bit(tmp_path, tiny_dataset, method):
    full, whole, parts = (network() for _ in range(3))
    fit(full, tiny_dataset, method, SCHEDULE)
    low = {"precision": "bfloat16"}
    history = fit(whole, tiny_dataset, method, SCHEDULE, **low)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    start = network()
    low_way, full_way = (
        torch.cat([(p - q).flatten() for p, q in zip(weights(m), weights(start), strict=True)]) for m in (whole, full)
    )
    assert not same(whole, full) and F.cosine_similarity(low_way, full_way, dim=0) > 0.9
    checkpoint = tmp_path / "checkpoint"
    fit(parts, tiny_dataset, method, SCHEDULE, checkpoint=checkpoint, max_steps=7, **low)
    with pytest.raises(ValueError, match="belongs to another run.*bfloat16"):
        fit(network(), tiny_dataset, method, SCHEDULE, checkpoint=checkpoint)
    parts = network(seed=99)
    assert seen(fit(parts, tiny_dataset, method, SCHEDULE, checkpoint=checkpoint, **low)) == seen(history)
    assert same(whole, parts)


@pytest.mark.skipif(compiled.library() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("method", ["Adv", "TRADES", "Int-Adv", "IG-Norm"])
@pytest.mark.parametrize("first, second", [("1", "0"), ("0", "1")], ids=["compiled first", "PyTorch first"])
def test_a_run_goes_on_where_another_path_left_it(tmp_path, tiny_dataset, monkeypatch, method, first, second):
    """Compiled or by PyTorch it is one function: the checkpoint is no other, and the weights differ by rounding."""
    start, whole, parts, checkpoint = network(), network(), network(), tmp_path / "checkpoint"
    fit(whole, tiny_dataset, method, SCHEDULE)
    try:
        for switch, stop in ((first, 7), (second, None)):
            monkeypatch.setenv("INTERP_COMPILED", switch)
            compiled._load.cache_clear()
            assert (compiled.library() is None) == (switch == "0")
            fit(parts, tiny_dataset, method, SCHEDULE, checkpoint=checkpoint, max_steps=stop)
    finally:
        monkeypatch.undo()
        compiled._load.cache_clear()
    one, other = (
        torch.cat([(p - q).flatten() for p, q in zip(weights(m), weights(start), strict=True)]) for m in (whole, parts)
    )
    assert F.cosine_similarity(one, other, dim=0) > 0.99


def test_seconds_are_those_of_training_and_not_of_the_time_between(tmp_path, tiny_dataset, monkeypatch):
    """A clock that every step advances by one second, and an interruption by a thousand."""
    now, real = [0.0], methods.METHODS["Normal"]

    def slow(*arguments, **settings):
        now[0] += 1
        return real(*arguments, **settings)

    monkeypatch.setattr(run_module.time, "perf_counter", lambda: now[0])
    monkeypatch.setitem(methods.METHODS, "Normal", slow)
    for stop in (2, 5, None):  # within the first epoch and the second
        history = fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=tmp_path / "c", max_steps=stop)
        now[0] += 1000
    assert [row["seconds"] for row in history] == [STEPS_AN_EPOCH] * 3


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import bands
from interp_lib.models import build
from interp_lib.training import group, loop, together
from interp_lib.training.run import Run
from interp_lib.schedule import Schedule
group.CHECKPOINT_SECONDS, take_step = 0, group.Group.take_step
group.Group.take_step = lambda *a, **k: (time.sleep(0.03), take_step(*a, **k))[1]
radius = Schedule.radius
run = lambda method, seed: Run(build("small", (1, 8, 8), 3, seed=seed), bands(), method,
                                        Schedule(*{schedule!r}), seed=seed,
                                        checkpoint=Path({checkpoint!r}).with_suffix(f".{{method}}{{seed}}"))
try:
    if {together}:
        together.fit_together([run(method, seed) for method in ("Adv", "Int") for seed in (0, 1)])
    else:
        Schedule.radius = lambda self, step: (time.sleep(0.03), radius(self, step))[1]
        loop.train(run("Adv", 0))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("at_once", [False, True], ids=["alone", "together"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_killed_process_is_resumed_to_the_bit(tmp_path, tiny_dataset, number, at_once):
    schedule, last = dataclasses.replace(SCHEDULE, epochs=12), ("Int", 1) if at_once else ("Adv", 0)
    checkpoint = tmp_path / "checkpoint.{}{}".format(*last)  # the one that is written last
    script = CHILD.format(
        tests=str(ROOT / "tests"),
        schedule=dataclasses.astuple(schedule),
        checkpoint=str(checkpoint),
        together=at_once,
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE) as child:
            deadline = time.monotonic() + 60
            while not checkpoint.exists():
                assert child.poll() is None and time.monotonic() < deadline, child.stderr.read()
                time.sleep(0.01)
            time.sleep(0.1)  # some steps further, in the middle of an epoch or not
            child.send_signal(number)
            child.wait(30)
        assert child.returncode == (-number if number == signal.SIGKILL else 130)
        step = torch.load(checkpoint, weights_only=True)["step"]
        assert STEPS_AN_EPOCH <= step < 12 * STEPS_AN_EPOCH
        if number == signal.SIGKILL:
            assert step % STEPS_AN_EPOCH == 0
        names = [(method, seed) for method in ("Adv", "Int") for seed in (0, 1)] if at_once else [last]
        run = lambda m, s, **more: Run(network(s if not more else 99), tiny_dataset, m, schedule, seed=s, **more)
        whole = [run(*name) for name in names]
        parts = [run(*name, checkpoint=checkpoint.with_suffix(".{}{}".format(*name))) for name in names]
        assert {part.step for part in parts} <= {step, step + STEPS_AN_EPOCH}
        for runs in (whole, parts):
            fit_together(runs) if at_once else loop.train(runs[0])
        for a, b in zip(whole, parts, strict=True):
            assert same(a.model, b.model) and seen(a.history) == seen(b.history)
    finally:
        torch.set_num_threads(threads)


def test_ctrl_c_waits_for_the_step_and_gives_the_handlers_back(tmp_path, tiny_dataset, monkeypatch):
    """The signal comes in the middle of the sixth step; the checkpoint has six whole steps."""
    real, calls = methods.METHODS["Normal"], []

    def interrupted(model, x, y, gamma, **settings):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return real(model, x, y, gamma)

    monkeypatch.setitem(methods.METHODS, "Normal", interrupted)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopped, checkpoint = network(), tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert torch.load(checkpoint, weights_only=True)["step"] == 6
    monkeypatch.undo()
    six = network()
    fit(six, tiny_dataset, "Normal", SCHEDULE, max_steps=6)
    assert same(stopped, six)


def test_training_runs_outside_the_main_thread(tiny_dataset):
    done, model, expected = [], network(), network()
    thread = threading.Thread(target=lambda: done.append(fit(model, tiny_dataset, "Normal", SCHEDULE)))
    thread.start()
    thread.join(60)
    again = fit(expected, tiny_dataset, "Normal", SCHEDULE)
    assert [seen(history) for history in done] == [seen(again)] and same(model, expected)


# What goes wrong


def test_divergence_names_the_step(tiny_dataset):
    wild = dataclasses.replace(SCHEDULE, learning_rate=1e25)
    with pytest.raises(Diverged, match="Normal: the loss is (nan|inf) at step 1; there is no checkpoint"):
        fit(network(), tiny_dataset, "Normal", wild)


def test_divergence_keeps_the_last_checkpoint(tmp_path, tiny_dataset, monkeypatch):
    checkpoint, good = tmp_path / "checkpoint", network()
    fit(good, tiny_dataset, "Normal", SCHEDULE, max_steps=4)
    real, calls = methods.METHODS["Normal"], []

    def diverging(model, x, y, gamma, **settings):
        calls.append(1)
        factor = float("nan") if len(calls) == 7 else 1
        return methods.Problem(lambda x_adv: real(model, x, y, gamma).loss(x_adv) * factor, None)

    monkeypatch.setitem(methods.METHODS, "Normal", diverging)
    with pytest.raises(Diverged, match=f"nan at step 6; {checkpoint} has the last good state"):
        fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint)
    monkeypatch.undo()
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["step"] == 4
    assert all(torch.equal(kept["model"][k], v) for k, v in good.state_dict().items())


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_checkpoint_that_is_no_file_is_refused_at_once(tmp_path, tiny_dataset, put):
    put(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="checkpoint is not a complete checkpoint: it is .*, not a file"):
        fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=tmp_path / "checkpoint")


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, tiny_dataset):
    checkpoint, wild = tmp_path / "checkpoint", dataclasses.replace(SCHEDULE)
    object.__setattr__(wild, "learning_rate", float("inf"))  # which a schedule would refuse
    with pytest.raises(Diverged, match="weights are NaN or infinite after 1 steps; there is no checkpoint yet"):
        fit(network(), tiny_dataset, "Normal", wild, checkpoint=checkpoint, max_steps=1)  # its loss was finite
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"seed": 1}, "'seed': 0"),
        ({"method": "Adv"}, "'method': 'Normal'"),
        ({"schedule": dataclasses.replace(SCHEDULE, epochs=4)}, "'epochs': 3"),
        ({"gamma": 0.02}, "'gamma': 0.01"),
        ({"dataset": None}, "'data': "),
        ({"model": build("pool", (1, 8, 8), 3, seed=0)}, "another architecture"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, tiny_dataset, change, word):
    checkpoint = tmp_path / "checkpoint"
    run = {"model": network(), "dataset": tiny_dataset, "method": "Normal", "schedule": SCHEDULE, "seed": 0}
    fit(**run, checkpoint=checkpoint, max_steps=2)
    before = checkpoint.read_bytes()
    if "dataset" in change:
        change = {"dataset": dataclasses.replace(tiny_dataset, fingerprint="other")}
    with pytest.raises(ValueError) as caught:
        fit(**(run | change), checkpoint=checkpoint)
    assert str(checkpoint) in str(caught.value) and word in str(caught.value)
    assert checkpoint.read_bytes() == before


class Trap:
    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "pickle", "other contents", "trap"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, tiny_dataset, kind):
    checkpoint = tmp_path / "checkpoint"
    fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint, max_steps=2)
    if kind == "other contents":
        torch.save({"model": {}}, checkpoint)
    elif kind == "trap":
        torch.save({"run": Trap()}, checkpoint)
    else:
        content = checkpoint.read_bytes()
        choice = {"empty": b"", "truncated": content[: len(content) // 2], "text": b"<html>404</html>"}
        checkpoint.write_bytes(choice.get(kind, pickle.dumps([1], protocol=2)))
    with pytest.raises(ValueError) as caught:
        fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint)
    message = str(caught.value)
    assert f"{checkpoint} is not a complete checkpoint" in message and "Delete it" in message
    assert "\n" not in message and not Trap.sprung


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, tiny_dataset, monkeypatch):
    checkpoint = tmp_path / "checkpoint"
    fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint, max_steps=4)
    before = checkpoint.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="checkpoint.*No space left"):
        fit(network(), tiny_dataset, "Normal", SCHEDULE, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


def test_unknown_methods_and_small_datasets_are_refused(tiny_dataset):
    with pytest.raises(ValueError, match="unknown method 'adv'; known are Normal, Adv"):
        fit(network(), tiny_dataset, "adv", SCHEDULE)
    with pytest.raises(ValueError, match="keep must be one of last, best; got 'first'"):
        fit(network(), tiny_dataset, "Adv", SCHEDULE, keep="first")
    with pytest.raises(ValueError, match="gamma must be a finite number >= 0; got -1"):
        fit(network(), tiny_dataset, "Int", SCHEDULE, gamma=-1)
    with pytest.raises(ValueError, match="Bands has 40 training images; a batch needs 41"):
        fit(network(), tiny_dataset, "Normal", dataclasses.replace(SCHEDULE, batch_size=41))


# Schedules


@given(
    start=st.integers(0, 1000),
    length=st.integers(0, 1000),
    eps=st.floats(0, 1),
    step=st.integers(0, 3000),
)
def test_the_radius_is_a_ramp(start, length, eps, step):
    schedule = dataclasses.replace(SCHEDULE, eps=eps, ramp_start=start, ramp_end=start + length)
    radius = schedule.radius(step)
    if step <= start:
        assert radius == 0
    elif step >= start + length:
        assert radius == eps
    else:
        assert radius == pytest.approx(eps * (step - start) / length, abs=1e-12)
    assert radius <= schedule.radius(step + 1)


def test_the_papers_ramp():
    """MNIST: 0 until step 2,000, then linear to 0.3 at step 10,000."""
    schedule = dataclasses.replace(SCHEDULE, eps=0.3, ramp_start=2000, ramp_end=10000)
    radii = [schedule.radius(step) for step in (0, 2000, 6000, 10000, 100000)]
    assert radii == pytest.approx([0, 0, 0.15, 0.3, 0.3])


FOLDER = Path(interp_lib.__file__).parent / "schedules"


def committed():
    import yaml

    return [
        (path.stem, dataset)
        for path in sorted(FOLDER.glob("*.yml"))
        for dataset in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("name, dataset", committed())
def test_committed_schedules_load(name, dataset):
    schedule = Schedule.load(name, dataset)
    assert schedule.epochs > 0 and 0 <= schedule.eps <= 1 and schedule.ramp_start <= schedule.ramp_end
    *numbers, decay = (getattr(schedule, f.name) for f in dataclasses.fields(Schedule))
    assert [type(v) for v in numbers] == [f.type for f in dataclasses.fields(Schedule)][:-1]
    assert all(type(step) is int for step in decay) and sorted(decay) == list(decay)


def test_the_papers_schedules_are_the_papers():
    """Section 5 and Appendix B; ramps and inner steps as in the released code."""
    mnist, cifar = Schedule.load("paper", "mnist"), Schedule.load("paper", "cifar10")
    assert (mnist.epochs, mnist.batch_size, mnist.learning_rate, mnist.attack_steps) == (100, 50, 1e-4, 40)
    assert (cifar.epochs, cifar.batch_size, cifar.learning_rate, cifar.attack_steps) == (200, 128, 1e-3, 10)
    assert (mnist.eps, cifar.eps, cifar.attack_alpha) == (0.3, 8 / 255, 2 / 255)
    assert [cifar.rate(s) for s in (0, 39999, 40000, 60000)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    assert mnist.rate(100000) == 1e-4


GOOD = {key: value for key, value in dataclasses.asdict(SCHEDULE).items()} | {"decay": []}


@pytest.mark.parametrize(
    "section, words",
    [
        (GOOD | {"epoch": 3}, ("keys", "epoch")),
        ({k: v for k, v in GOOD.items() if k != "eps"}, ("keys", "eps")),
        (GOOD | {"eps": "8 / 255"}, ("eps must be a number", "8 / 255")),
        (GOOD | {"eps": None}, ("eps must be a number", "None")),
        (GOOD | {"eps": float("nan")}, ("eps must be a number", "nan")),
        (GOOD | {"epochs": 2.5}, ("epochs must be a whole number", "2.5")),
        (GOOD | {"epochs": "many"}, ("epochs must be a whole number", "many")),
        (GOOD | {"decay": 40000}, ("decay must be a list", "40000")),
        (GOOD | {"decay": [0.5]}, ("decay must be a whole number", "0.5")),
        (GOOD | {"decay": [-1]}, ("decay must be a whole number >= 0", "-1")),
        (GOOD | {"epochs": 0}, ("epochs must be a whole number >= 1", "got 0.")),
        (GOOD | {"epochs": True}, ("epochs must be a whole number", "True")),
        (GOOD | {"batch_size": 0}, ("batch_size must be a whole number >= 1", "got 0.")),
        (GOOD | {"batch_size": -50}, ("batch_size must be a whole number >= 1", "got -50.")),
        (GOOD | {"eps": 5}, ("eps must be a finite number in [0, 1]", "got 5.0.")),
        (GOOD | {"eps": -0.1}, ("eps must be a finite number in [0, 1]", "got -0.1.")),
        (GOOD | {"ramp_start": -1}, ("ramp_start must be a whole number >= 0", "got -1.")),
        (GOOD | {"ramp_start": 7}, ("ramp_end must be at least ramp_start, 7", "got 6.")),
        (GOOD | {"attack_steps": -1}, ("attack_steps must be a whole number >= 0", "got -1.")),
        (GOOD | {"attack_alpha": -0.1}, ("attack_alpha must be a finite number >= 0", "got -0.1.")),
        (GOOD | {"learning_rate": 0}, ("learning_rate must be a finite number > 0", "got 0.0.")),
        (GOOD | {"learning_rate": float("inf")}, ("learning_rate must be a finite number > 0", "got inf.")),
        ([1, 2], ("keys",)),
        (None, ("keys",)),
        *((text, ("is not YAML of plain values", word)) for text, word in NO_YAML),
    ],
)
def test_bad_schedules_are_refused_by_name(tmp_path, monkeypatch, section, words):
    text = section if isinstance(section, str) else yaml.safe_dump({"bands": section})
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / "mine.yml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(ValueError) as caught:
        Schedule.load("mine", "bands")
    for word in ("schedules/mine.yml", *words):
        assert word in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100


def test_numbers_may_be_written_as_powers_of_ten(tmp_path, monkeypatch):
    """YAML reads 1e-3, without a point, as text."""
    (tmp_path / "schedules").mkdir()
    lines = [f"  {key}: {value}" for key, value in GOOD.items() if key != "learning_rate"]
    (tmp_path / "schedules" / "mine.yml").write_text(
        "\n".join(["bands:", *lines, "  learning_rate: 1e-3"]), encoding="utf-8"
    )
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    assert Schedule.load("mine", "bands") == dataclasses.replace(SCHEDULE, learning_rate=0.001)


def test_unknown_schedules_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown schedule 'slow'; known are digits, lesson, paper, quick"):
        Schedule.load("slow", "mnist")
    with pytest.raises(ValueError, match="schedule 'paper' is for mnist, cifar10, not for 'digits'"):
        Schedule.load("paper", "digits")


def test_the_best_epoch_is_kept_where_asked(tmp_path, tiny_dataset, monkeypatch):
    """Robust validation accuracies .2, .9, .9, .1: the second epoch is the first of the best."""
    accuracies, seen = iter([0.2, 0.9, 0.9, 0.1]), []

    def watched(model, dataset, schedule):
        seen.append(weights(model))
        return {"validation_accuracy": 0.5, "validation_robust": next(accuracies)}

    monkeypatch.setattr(loop, "watch", watched)
    model, schedule = network(), dataclasses.replace(SCHEDULE, epochs=4)
    fit(model, tiny_dataset, "Adv", schedule, checkpoint=tmp_path / "c", max_steps=2 * STEPS_AN_EPOCH, keep="best")
    assert all(torch.equal(p, q) for p, q in zip(weights(model), seen[1], strict=True))
    model, rows = network(seed=9), []  # resumed by another process
    history = fit(model, tiny_dataset, "Adv", schedule, checkpoint=tmp_path / "c", keep="best", report=rows.append)
    assert all(torch.equal(p, q) for p, q in zip(weights(model), seen[1], strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(weights(model), seen[3], strict=True))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4] and rows == history[2:]


def test_epochs_are_judged_under_the_final_radius(tiny_dataset):
    model = network()
    row = fit(model, tiny_dataset, "Adv", dataclasses.replace(SCHEDULE, epochs=10))[-1]
    x, y = tiny_dataset.validation.x(), tiny_dataset.validation.labels
    x_adv = pgd(model, x, y, eps=0.2, alpha=0.05, steps=10)
    assert row["validation_robust"] == (model(x_adv).argmax(1) == y).double().mean()
    assert row["validation_robust"] < row["validation_accuracy"]


def test_the_optimizer_is_pytorchs_adam_and_loads_no_compiler(tmp_path, tiny_dataset):
    """The same weights and state to the bit; `torch._dynamo` is what the import would take seconds for."""
    generator_, made = torch.Generator().manual_seed(0), []
    for kind in (run_module.Adam, torch.optim.Adam):
        model = network()
        optimizer = kind(model.parameters(), lr=0.01)
        made.append((model, optimizer))
    for _ in range(3):
        gradients = [torch.randn(p.shape, generator=generator_) for p in made[0][0].parameters()]
        for model, optimizer in made:
            for p, gradient in zip(model.parameters(), gradients, strict=True):
                p.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.02
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    (ours, own), (theirs, pytorch) = made  # networks and optimizers
    assert all(
        torch.equal(p, q) and p.grad is None for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    assert repr(own.state_dict()) == repr(pytorch.state_dict())
    pytorch.load_state_dict(own.state_dict())
    own.load_state_dict(pytorch.state_dict())
    code = (
        "import sys, torch; from interp_lib.training.run import Adam\n"
        "p = torch.nn.Parameter(torch.ones(3)); optimizer = Adam([p]); p.grad = torch.ones(3)\n"
        "optimizer.step(); optimizer.zero_grad(set_to_none=True); optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules, bool((p < 1).all()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
