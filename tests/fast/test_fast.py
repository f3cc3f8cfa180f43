"""The compiled trunk against PyTorch in double precision, every derivative that training takes; and what if it cannot
be compiled."""

import shutil
import subprocess
import sys
from types import MethodType

import pytest
import torch
from torch import nn

from interp_lib import models
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.fast import compiled, trunk
from interp_lib.fast.fold import fold_cam, fold_logits
from interp_lib.fast.objective import Climbing
from interp_lib.training import methods

SHAPES = [(1, 28, 28), (3, 32, 32)]
needs_compiler = pytest.mark.skipif(compiled.library() is None, reason=compiled.status())


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """A process that has compiled nothing, and a folder of its own for what it will."""
    compiled._load.cache_clear()
    monkeypatch.setattr(compiled, "cache", lambda: tmp_path / "cache")
    yield tmp_path / "cache"
    compiled._load.cache_clear()


def images(shape, n, kind="noise"):
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))
    return {"noise": x, "constant": torch.full_like(x, 0.5), "saturated": x.round(), "black": 0 * x}[kind]


def shaken(shape, seed=0):
    """A Small with biases that are not 0."""
    model = models.build("small", shape, 10, seed=seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + p.numel()))
    return model


def apart(found, expected):
    pairs = [(a.detach(), b.detach()) for a, b in zip(found, expected, strict=True)]
    return max(float((a - b).abs().max() / (b.abs().max() or 1)) for a, b in pairs)


def everything(model, function, x):
    """Value; derivatives by x and weights; second derivatives as IG-Norm's loss and its attack have them."""
    weights = [p for name, p in model.named_parameters() if name.startswith(("conv1", "conv2"))]
    probe = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    x = x.clone().requires_grad_()
    h = function(x)
    first = torch.autograd.grad((h**3).sum(), [x, *weights], retain_graph=True)
    (dx,) = torch.autograd.grad((h**3).sum(), x, create_graph=True)
    second = torch.autograd.grad((dx * probe).sum(), [x, *weights], create_graph=False, retain_graph=True)
    (v,) = torch.autograd.grad((dx * probe).sum(), x, create_graph=True)
    third = torch.autograd.grad((v**2).sum(), [x, *weights])
    return [part.detach() for part in (h, *first, *second, *third)]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 7, 50])
@pytest.mark.parametrize("kind", ["noise", "constant", "saturated", "black"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_derivative_is_that_of_double_precision(shape, n, kind, threads):
    model, x, before = shaken(shape), images(shape, n, kind), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = everything(model, trunk.compiled_trunk(model, None), x)
    finally:
        torch.set_num_threads(before)
    model = model.double()
    expected = everything(model, model.trunk, x.double())
    # Sums of up to 50 x 196 numbers of either sign, after three such; ten times the most that was seen.
    assert apart(found[:3], expected[:3]) < 1e-5 and apart(found, expected) < 2e-4


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_does_not_see_its_companions_and_none_is_enough(shape):
    logits, x = fold_logits(shaken(shape)), images(shape, 9)
    assert torch.equal(logits(x)[4:5], logits(x[4:5])) or apart([logits(x)[4:5]], [logits(x[4:5])]) < 1e-6
    empty = x[:0].requires_grad_()
    assert torch.autograd.grad(logits(empty).sum(), empty)[0].shape == empty.shape


@needs_compiler
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_training_step_is_the_one_by_pytorch(method, monkeypatch):
    x, y = images((1, 28, 28), 6), torch.arange(6)
    grown = {}
    for way in ("compiled", "PyTorch"):
        if way == "PyTorch":
            monkeypatch.setattr(trunk, "library", lambda: None)
        model = shaken((1, 28, 28))
        problem = methods.METHODS[method](model, x, y)
        at = x
        if problem.objective:
            z = (x + 0.05).clamp(0, 1).requires_grad_()
            (climbed,) = torch.autograd.grad(problem.objective(z).sum(), z)
            at = (x + 0.1 * climbed.sign()).clamp(0, 1) if way == "compiled" else grown["at"]
            grown["at"] = at
        problem.loss(at).mean().backward()
        grown[way] = [p.grad for p in model.parameters()]
    assert apart(grown["compiled"], grown["PyTorch"]) < 1e-4


@needs_compiler
def test_attacks_and_maps_take_the_compiled_way(monkeypatch):
    model, x, y, calls = shaken((1, 28, 28)), images((1, 28, 28), 4), torch.arange(4), []
    call = trunk.Layers._call
    monkeypatch.setattr(trunk.Layers, "_call", lambda self, name, *a: calls.append(name) or call(self, name, *a))
    climb = Climbing._call
    monkeypatch.setattr(Climbing, "_call", lambda self, *a: calls.append("climb") or climb(self, *a))
    pgd(model, x, y, eps=0.1, alpha=0.01, steps=1)  # the first attack of all may try the compiled one against PyTorch
    calls.clear()
    pgd(model, x, y, eps=0.1, alpha=0.01, steps=3)
    assert set(calls) == {"climb"}
    calls.clear()
    fold_cam(model)(x)
    assert calls == ["push"]


@needs_compiler
@pytest.mark.parametrize(
    "change", ["kernel", "channels", "dilation", "double", "hook", "trunk", "image in double precision"]
)
def test_other_layers_and_other_numbers_are_left_to_pytorch(change):
    model, x = models.build("small", (1, 28, 28), 10, seed=0), images((1, 28, 28), 2)
    if change == "kernel":
        model.conv1 = models.SameConv2d(1, 16, 5, stride=2)
    elif change == "channels":
        model.conv2 = models.SameConv2d(16, 24, 4, stride=2)
        model.conv3 = models.SameConv2d(24, 100, 7)
    elif change == "dilation":
        model.conv2 = models.SameConv2d(16, 32, 4, stride=2, dilation=2)
    elif change == "hook":
        model.conv1.register_forward_hook(lambda module, given, out: 2 * out)
    elif change == "trunk":
        model.trunk = MethodType(lambda self, x: 2 * models.Small.trunk(self, x), model)
    elif change == "image in double precision":
        with pytest.raises(RuntimeError, match="same|double|Double"):  # as the network itself says
            fold_logits(model)(x.double())
    if change == "double":
        model, x = model.double(), x.double()
    logits = fold_logits(model)
    assert apart([logits(x)], [model(x)]) < 1e-5


@needs_compiler
def test_no_number_stays_no_number():
    model, x = shaken((1, 28, 28)), images((1, 28, 28), 3)
    x[1, 0, 3, 3] = float("nan")
    logits = fold_logits(model)(x)
    assert logits[1].isnan().any() and logits[[0, 2]].isfinite().all()


@pytest.mark.parametrize("compiler, said", [("false", "false failed"), ("no-such-compiler", "compiled"), ("", "")])
def test_a_compiler_that_fails_or_is_not_there(compiler, said, anew, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    if not compiler:  # nor any other
        monkeypatch.setenv("PATH", str(tmp_path))
        said = "no C++ compiler"
    elif compiler == "no-such-compiler" and not shutil.which("c++"):
        said = "no C++ compiler"
    assert said in compiled.status()
    model, x = shaken((1, 28, 28)), images((1, 28, 28), 3)
    assert apart([fold_logits(model)(x)], [model(x)]) < 1e-5


def test_a_compiler_that_complains_is_quoted(anew, monkeypatch, tmp_path):
    script = tmp_path / "cc.sh"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "ascent.cpp:1: error: no such thing" >&2\nexit 1\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert compiled.status() == f"PyTorch ({script} failed: ascent.cpp:1: error: no such thing)"
    assert [p.name for p in anew.iterdir()] == [".lock"]


def test_it_can_be_switched_off(anew, monkeypatch):
    monkeypatch.setenv("INTERP_COMPILED", "0")
    assert compiled.library() is None and compiled.status() == "PyTorch (INTERP_COMPILED=0)"


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_no_obstacle(anew):
    anew.write_text("a file where the folder should be")
    assert compiled.library() is not None and anew.is_file()


@needs_compiler
def test_two_processes_compile_once(tmp_path):
    line = (
        "import pathlib, sys\nfrom interp_lib.fast import compiled\n"
        f"compiled.cache = lambda: pathlib.Path({str(tmp_path)!r}, 'cache')\n"
        "made = compiled._compile\ncompiled._compile = lambda *a: (print('compiles'), made(*a))\n"
        "print(compiled.status())"
    )
    both = [subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=300)[0] for process in both)
    assert said.count("compiles\n") == 1 and said.count("compiled, ") == 2
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1


@needs_compiler
def test_a_fold_keeps_the_weights_of_its_moment():
    model, x = shaken((1, 28, 28)), images((1, 28, 28), 2)
    logits, own = fold_logits(model), model(x).detach()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert apart([logits(x)], [own]) < 1e-5
    assert apart([torch.func.vmap(lambda image: logits(image[None])[0])(x)], [own]) < 1e-5


@needs_compiler
def test_the_network_of_training_is_not_changed_by_it():
    model, x = shaken((1, 28, 28)), images((1, 28, 28), 2)
    before = [p.clone() for p in model.parameters()]
    function = trunk.compiled_trunk(model, None)
    function(x).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.conv1.weight.grad is not None and model.conv3.weight.grad is None
    assert isinstance(model.conv1, nn.Conv2d)
