"""What every attack promises: ball and box, nothing left behind, no effect of companions. PGD has its own file."""

import inspect

import pytest
import torch
import toys
from test_projected_gradient_descent import assert_same, state
from torch.overrides import TorchFunctionMode

from interp_lib import attacks
from interp_lib.attacks.against_interpretability import aai
from interp_lib.attacks.ascent import clipped, projected_ascent
from interp_lib.attacks.auto_pgd import apgd
from interp_lib.attacks.interpretability_sneaking import isa, margin_attack
from interp_lib.attacks.logits_and_maps import explain
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.attacks.smallest_perturbation import minimal_eps
from interp_lib.attacks.sneaking_settings import Discrepancy, Search, class_set
from interp_lib.attacks.squares import square
from interp_lib.checks import NotANumber
from interp_lib.interpreters.class_activation_maps import cam, gradcam_pp_release, representation
from interp_lib.interpreters.registry import INTERPRETERS
from interp_lib.models.architectures import build
from interp_lib.schedule import Schedule
from interp_lib.training.loop import inner_maximum
from interp_lib.training.methods import METHODS

EPS, TARGET = 0.1, torch.tensor([1, 2, 0, 1])
LABELS = torch.tensor([0, 1, 2, 0])


def generator():
    return torch.Generator().manual_seed(5)


def minimal(model, x, y, target, eps):
    attack = lambda size: margin_attack(model, x, y, target, eps=size, alpha=0.3 * size, steps=2)
    return minimal_eps(attack, lambda x_adv: (x_adv - x).flatten(1).sum(1) > 0.1, x, first=eps / 2, high=eps).x_adv


STEPS = {"alpha": 0.03, "steps": 3}
SEARCH = {"search": Search(first=0.5, high=10.0, rounds=3)}
ATTACKS = {
    "margin": lambda m, x, y, t, eps: margin_attack(m, x, y, t, eps=eps, **STEPS),
    "isa": lambda m, x, y, t, eps: isa(m, x, y, t, eps=eps, **STEPS, **SEARCH),
    "isa, l2, all classes": lambda m, x, y, t, eps: isa(
        m,
        x,
        y,
        t,
        eps=eps,
        distance=Discrepancy(cam, class_set("all-class", y, t, 3), 2, squared=True),
        **STEPS,
        **SEARCH,
    ),
    "isa, clipped steps": lambda m, x, y, t, eps: isa(m, x, y, t, eps=eps, direction=clipped(10), **STEPS, **SEARCH),
    "isa, Repr": lambda m, x, y, t, eps: isa(
        m, x, y, t, eps=eps, distance=Discrepancy(representation), **STEPS, **SEARCH
    ),
    "isa, untargeted": lambda m, x, y, t, eps: isa(m, x, y, eps=eps, **STEPS, **SEARCH),
    "aai": lambda m, x, y, t, eps: aai(m, x, y, eps=eps, random_start=True, generator=generator(), **STEPS),
    "aai, top-k": lambda m, x, y, t, eps: aai(m, x, y, eps=eps, top_k=2, **STEPS),
    "aai, top-k, no hinge": lambda m, x, y, t, eps: aai(
        m, x, y, eps=eps, top_k=2, hinge=0, interpreter=gradcam_pp_release, **STEPS
    ),
    "minimal": minimal,
    "apgd": lambda m, x, y, t, eps: apgd(m, x, y, eps=eps, steps=12, generator=generator()),
    "square": lambda m, x, y, t, eps: square(m, x, y, eps=eps, queries=12, generator=generator()),
}


def parameters(function):
    return inspect.signature(function).parameters


def usual(attack):
    """Whether an attack of the package needs no more than (model, x, y, eps=, alpha=, steps=), and returns images."""
    needed = [p.name for p in parameters(attack).values() if p.default is p.empty]
    returned = inspect.signature(attack).return_annotation
    return needed == ["model", "x", "y", "eps", "alpha", "steps"] and returned is torch.Tensor


def as_usual(attack):
    return lambda m, x, y, t, eps: attack(m, x, y, eps=eps, **STEPS)


exported = {name: getattr(attacks, name) for name in attacks.__all__ if name not in ATTACKS}
ATTACKS |= {name: as_usual(attack) for name, attack in exported.items() if inspect.isfunction(attack) and usual(attack)}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture(params=["training", "mixed", "evaluation"])
def disturbed(request, make_images):
    """A model in a mode that must survive, with flags, a gradient and a hook of its own."""
    return toys.Stateful.marked(request.param), make_images(4, (1, 5, 5), dtype=torch.float32)


@every_attack
@pytest.mark.parametrize("eps", [0.0, 0.02, 0.1, torch.tensor([0.0, 0.01, 0.1, 0.05])], ids=str)
@pytest.mark.parametrize("architecture", ["small", "pool"])
def test_stays_in_ball_and_box(attack, eps, architecture, make_images):
    if attack is minimal and (isinstance(eps, torch.Tensor) or eps == 0):
        pytest.skip("it looks for eps")
    model, x = build(architecture, (1, 8, 8), 3, seed=0), make_images(4, (1, 8, 8), dtype=torch.float32)
    x_adv = attack(model, x, LABELS, TARGET, eps)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype and not x_adv.requires_grad
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    size = (x_adv - x).abs().flatten(1).amax(1)
    assert (size <= torch.as_tensor(eps) + 1e-6).all()
    assert torch.equal(x_adv[size == 0], x[size == 0]) and ((size == 0) | (torch.as_tensor(eps) > 0)).all()
    x_adv += 1  # a copy, not the images themselves
    assert x.max() <= 1


@every_attack
@pytest.mark.parametrize("outer", [torch.enable_grad, torch.no_grad])
def test_leaves_everything_as_it_was(attack, disturbed, outer):
    model, x = disturbed
    with outer():
        before = state(model, x)
        first = attack(model, x, LABELS, TARGET, EPS)
        assert_same(before, state(model, x))
    torch.manual_seed(123)  # neither dropout nor batch statistics take part
    model.eval()
    assert torch.equal(first, attack(model, x, LABELS, TARGET, EPS))


@every_attack
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_leaves_everything_as_it_was_when_it_fails_half_way(attack, disturbed, error):
    model, x = disturbed
    before = state(model, x)
    model.fail_at, model.error = 3, error
    with pytest.raises(type(error)):
        attack(model, x, LABELS, TARGET, EPS)
    assert_same(before, state(model, x))


@every_attack
def test_companions_change_nothing(attack, make_images):
    """Within rounding, in double precision; also alone."""
    model, x = build("small", (1, 8, 8), 3, seed=0).double(), make_images(4, (1, 8, 8))
    together = attack(model, x, LABELS, TARGET, EPS)
    for i in (slice(0, 3), slice(0, 1)):
        assert (attack(model, x[i], LABELS[i], TARGET[i], EPS) - together[i]).abs().max() < 1e-9


@every_attack
def test_weights_get_no_gradient(attack, make_images):
    model, x = build("small", (1, 8, 8), 3, seed=0).train(), make_images(4, (1, 8, 8), dtype=torch.float32)
    attack(model, x, LABELS, TARGET, EPS)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


@every_attack
@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": 255 * torch.ones(4, 1, 8, 8)}, "Divide bytes by 255"),
        ({"x": torch.ones(4, 3, 8, 8)}, "takes images of shape"),
        ({"y": torch.tensor([0, 1, 2, 3])}, r"0 \.\. 2"),
    ],
)
def test_bad_input_is_refused(attack, change, words, make_images):
    model = build("small", (1, 8, 8), 3, seed=0)
    arguments = {"x": make_images(4, (1, 8, 8), dtype=torch.float32), "y": LABELS} | change
    with pytest.raises(ValueError, match=words):
        attack(model, arguments["x"], arguments["y"], TARGET, EPS)


class Scans(TorchFunctionMode):
    """Count how often the range of a batch of images is computed, which is what their check takes."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.Tensor.aminmax and args[0].dim() == 4
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "minimal"])
def test_images_are_checked_once(attack, make_images):
    model, x = build("small", (1, 8, 8), 3, seed=0), make_images(4, (1, 8, 8), dtype=torch.float32)
    with Scans() as scans:
        ATTACKS[attack](model, x, LABELS, TARGET, EPS)
    assert scans.count == 1


def test_pgd_checks_images_once_and_an_inner_step_of_training_never(make_images):
    model, x = build("pool", (1, 8, 8), 3, seed=0), make_images(4, (1, 8, 8), dtype=torch.float32)
    with Scans() as scans:
        pgd(model, x, LABELS, eps=EPS, random_start=True, generator=generator(), **STEPS)
    assert scans.count == 1
    schedule = Schedule(
        epochs=1, batch_size=4, learning_rate=0.1, eps=EPS, ramp_start=0, ramp_end=1, attack_steps=3, attack_alpha=0.03
    )
    with Scans() as scans:
        problem = METHODS["Int-Adv"](model, x, LABELS)
        problem.loss(inner_maximum(problem.objective, x, eps=EPS, schedule=schedule, generator=generator()))
    assert scans.count == 0


# Balls other than l-infinity


def linear_objective(weight):
    return lambda x: (weight * x).sum((1, 2, 3))


@pytest.mark.parametrize("norm, p", [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("eps", [0.0, 0.3, 1.5, 3.9])
def test_climbs_a_linear_function_to_the_optimum_of_ball_and_box(norm, p, eps, make_images):
    """The optimum from its conditions: x + clip(s w) in l2; in l1 the best pixels are filled up in turn."""
    x = make_images(3, (1, 4, 4), seed=2)
    weight = torch.randn(1, 4, 4, generator=generator(), dtype=torch.float64)
    *_, x_adv = projected_ascent(linear_objective(weight), x, eps=eps, alpha=10.0, steps=400, norm=norm)
    size = torch.linalg.vector_norm((x_adv - x).flatten(1), p, dim=1)
    assert (size <= eps + 1e-9).all() and x_adv.min() >= 0 and x_adv.max() <= 1
    room = torch.where(weight > 0, 1 - x, x)
    if norm == "l1":
        order = weight.abs().flatten().argsort(descending=True)
        left = room.flatten(1)[:, order]
        filled = torch.minimum(left, (eps - (left.cumsum(1) - left)).clamp(min=0))
        best = (filled * weight.abs().flatten()[order]).sum(1)
    else:
        low, high = torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.full((3, 1, 1, 1), 1e6, dtype=torch.float64)
        for _ in range(200):
            s = (low + high) / 2
            fits = torch.minimum(room, s * weight.abs()).flatten(1).norm(dim=1)[:, None, None, None] <= eps
            low, high = torch.where(fits, s, low), torch.where(fits, high, s)
        best = (torch.minimum(room, low * weight.abs()) * weight.abs()).sum((1, 2, 3))
    gained = linear_objective(weight)(x_adv) - linear_objective(weight)(x)
    assert gained == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("attack", ["isa", "aai"])
def test_other_balls_hold_for_the_attacks(norm, attack, make_images):
    model, x = build("small", (1, 8, 8), 3, seed=0).double(), make_images(4, (1, 8, 8))
    eps = torch.tensor([0.0, 0.1, 0.5, 2.0], dtype=torch.float64)
    arguments = {"eps": eps, "alpha": 0.5 * eps, "steps": 4, "norm": norm}
    if attack == "isa":
        x_adv = isa(model, x, LABELS, TARGET, search=Search(rounds=2), **arguments)
    else:
        x_adv = aai(model, x, LABELS, top_k=2, **arguments)
    size = torch.linalg.vector_norm((x_adv - x).flatten(1), 2 if norm == "l2" else 1, dim=1)
    assert (size <= eps + 1e-9).all() and (size[1:] > 0.9 * eps[1:]).any()


def test_another_norm_is_refused(make_images):
    with pytest.raises(ValueError, match="linf, l2, l1; got 'l3'"):
        list(projected_ascent(linear_objective(1), make_images(2), eps=0.1, alpha=0.1, steps=1, norm="l3"))
    with pytest.raises(ValueError, match="alpha must be a number or a tensor of shape"):
        list(projected_ascent(linear_objective(1), make_images(2), eps=0.1, alpha=torch.ones(3), steps=1))


# No images, and no numbers


@every_attack
@pytest.mark.parametrize("eps", [0.1, torch.zeros(0)], ids=["one eps", "an eps an image"])
@pytest.mark.parametrize("architecture", ["small", "foreign"])
def test_no_images_are_attacked_to_no_images(attack, eps, architecture):
    """As in 'attack only those that are still right', where none is."""
    model = build("small", (1, 8, 8), 3, seed=0) if architecture == "small" else toys.Stateful()
    if attack is minimal and isinstance(eps, torch.Tensor):
        pytest.skip("it looks for eps")
    none = torch.zeros(0, dtype=torch.int64)
    assert attack(model, torch.zeros(0, 1, 8, 8), none, none, eps).shape == (0, 1, 8, 8)


@every_attack
@pytest.mark.parametrize("where", ["logit", "gradient"])
def test_a_nan_is_an_error_that_names_the_first_image(attack, where):
    if attack is minimal:
        attack = ATTACKS["margin"]
    if attack is ATTACKS["square"] and where == "gradient":
        pytest.skip("it takes no gradient")
    x = torch.full((4, 1, 5, 5), 0.25)
    x[2:, :, 0, 0] = 0.75
    with pytest.raises(NotANumber, match=r"of image 2 is NaN or infinite \(2 of 4 images\)"):
        attack(toys.NanAboveHalf(where), x, LABELS, TARGET, EPS)


# Logits and maps together, through the fast path of an interpreter where it has one


@pytest.mark.parametrize("architecture", ["small", "pool", "foreign"])
@pytest.mark.parametrize("name", [n for n, e in INTERPRETERS.items() if "generator" not in parameters(e.function)])
def test_explain_is_the_network_and_its_maps(name, architecture, make_images):
    """Values, and derivatives with respect to x."""
    if (name, architecture) == ("integrated_gradients_release", "pool"):
        pytest.skip("a max-pool has kinks on the path, where 8 points are not 100")
    model = toys.Stateful() if architecture == "foreign" else build(architecture, (1, 8, 8), 3, seed=0)
    model, x, function = model.double().eval(), make_images(4, (1, 8, 8)), INTERPRETERS[name].function
    classes = torch.stack([LABELS, TARGET], 1)

    def everything(both):
        z = x.clone().requires_grad_()
        logits, maps = both(z, classes)
        generator = torch.Generator().manual_seed(0)
        total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in (logits, maps))
        return logits, maps, torch.autograd.grad(total, z)[0]

    fast = everything(explain(model, function))
    plain = everything(lambda z, classes: (model(z), function(model, z, classes, create_graph=True)))
    for a, b in zip(fast, plain, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < {"integrated_gradients_release": 1e-5}.get(name, 1e-10) * b.abs().max()
