"""PGD against closed forms on a linear model; and what an attack leaves behind: nothing."""

import random

import conftest
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib.attacks.ascent import ascend, clipped, input_gradient, projected_ascent, uniform_start
from interp_lib.attacks.projected_gradient_descent import pgd, pgd_iterates
from interp_lib.models.architectures import build

DOUBLE = torch.float64


def images(n=4, shape=(1, 4, 4), **more):
    return conftest.images(n, shape, **more)  # with black and white pixels, where the box binds


# The optimum


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), eps=st.floats(0, 1), targeted=st.booleans())
def test_reaches_the_exact_optimum_of_a_linear_model(seed, eps, targeted):
    """With two classes cross-entropy is monotone in (w_other - w_y) . x: its worst point is a corner."""
    model, x = toys.Linear(classes=2, seed=seed), images(seed=seed)
    y = torch.arange(4) % 2
    direction = (model.weight[1 - y] - model.weight[y]).detach().reshape(x.shape)
    if targeted:
        direction = -direction
    corner = torch.where(direction > 0, (x + eps).clamp(max=1), (x - eps).clamp(min=0))
    for alpha, steps in ((1.0, 1), (eps / 7 + 1e-3, 7)):
        x_adv = pgd(model, x, y, eps=eps, alpha=alpha, steps=steps, targeted=targeted)
        assert torch.equal(x_adv, corner)


def test_a_random_or_given_start_reaches_the_same_optimum():
    model, x, y = toys.Linear(classes=2), images(), torch.tensor([0, 1, 1, 0])
    plain = pgd(model, x, y, eps=0.2, alpha=0.05, steps=20)
    seeded = torch.Generator().manual_seed(1)
    assert torch.equal(plain, pgd(model, x, y, eps=0.2, alpha=0.05, steps=20, random_start=True, generator=seeded))
    assert torch.equal(plain, pgd(model, x, y, eps=0.2, alpha=0.05, steps=20, start=torch.rand_like(x, dtype=DOUBLE)))


def test_targeted_descends_and_untargeted_climbs():
    model, x = build("small", seed=3).double(), images(8, (1, 28, 28))
    y = torch.arange(8) % 10
    before = F.cross_entropy(model(x), y, reduction="none")
    up = F.cross_entropy(model(pgd(model, x, y, eps=0.1, alpha=0.02, steps=5)), y, reduction="none")
    down = F.cross_entropy(model(pgd(model, x, y, eps=0.1, alpha=0.02, steps=5, targeted=True)), y, reduction="none")
    assert (up > before).all() and (down < before).all()


def test_each_step_is_the_sign_of_the_gradient():
    """Three steps by hand, with a gradient from another route: torch.func on one image at a time."""
    model, x, y = build("small", seed=1).double(), images(3, (1, 28, 28)), torch.tensor([1, 5, 9])
    gradient = torch.func.grad(lambda image, label: F.cross_entropy(model(image[None]), label[None]))
    expected = x
    for _ in range(3):
        step = torch.stack([gradient(image, label) for image, label in zip(expected, y, strict=True)]).sign()
        expected = torch.minimum(torch.maximum(expected + 0.03 * step, x - 0.05), x + 0.05).clamp(0, 1)
    x_adv = pgd(model, x, y, eps=0.05, alpha=0.03, steps=3)
    # Signs of gradients at rounding level may differ; nothing else may.
    assert ((x_adv - expected).abs() < 1e-12).double().mean() > 0.999


# Ball and box


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    eps=st.floats(0, 1),
    alpha=st.floats(0, 2),
    steps=st.integers(0, 4),
    random_start=st.booleans(),
    single=st.booleans(),
)
def test_stays_in_ball_and_box(seed, eps, alpha, steps, random_start, single):
    dtype = torch.float32 if single else DOUBLE
    model, x = toys.Linear(seed=seed).to(dtype), images(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    x_adv = pgd(
        model,
        x,
        torch.tensor([0, 1, 2, 0]),
        eps=eps,
        alpha=alpha,
        steps=steps,
        random_start=random_start,
        generator=generator,
    )
    assert x_adv.dtype == dtype and x_adv.shape == x.shape and not x_adv.requires_grad
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert (x_adv - x).abs().max() <= eps + 2 * torch.finfo(dtype).eps
    if not random_start:  # a step of alpha moves no pixel further than alpha
        assert (x_adv - x).abs().max() <= alpha * steps + 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("eps, steps", [(0.0, 5), (0.3, 0), (0.0, 0)])
def test_no_ball_or_no_step_is_the_identity(eps, steps):
    model, x, y = toys.Linear(), images(), torch.tensor([0, 1, 2, 0])
    x_adv = pgd(model, x, y, eps=eps, alpha=0.1, steps=steps)
    assert torch.equal(x_adv, x)
    x_adv += 1  # a copy, not the images themselves
    assert x.max() <= 1


def test_a_step_of_a_hundredth_cannot_pass_a_tenth_in_ten():
    """What Table 4's first two columns rest on."""
    model, x, y = build("small", seed=0).double(), images(2, (1, 28, 28)), torch.tensor([3, 4])
    for k, x_adv in enumerate(pgd_iterates(model, x, y, eps=0.3, alpha=0.01, steps=10), 1):
        assert (x_adv - x).abs().max() == pytest.approx(0.01 * k, abs=1e-12)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_start_outside_is_projected(steps):
    model, x, y = toys.Linear(), images(), torch.tensor([0, 1, 2, 0])
    x_adv = pgd(model, x, y, eps=0.1, alpha=0.01, steps=steps, start=x + 5)
    assert x_adv.max() <= 1 and (x_adv - x).max() <= 0.1 + 1e-12


@pytest.mark.parametrize("change", [lambda x: x[:1], lambda x: x.float(), lambda x: x[:, :, :2]])
def test_a_start_of_another_shape_or_dtype_is_refused(change):
    model, x = toys.Linear(), images()
    with pytest.raises(ValueError, match="start"):
        pgd(model, x, torch.tensor([0, 1, 2, 0]), eps=0.1, alpha=0.01, steps=2, start=change(x))


# Independence


def test_companions_of_a_batch_change_nothing_to_the_bit():
    model = build("small", seed=0)
    x, y = images(8, (1, 28, 28), dtype=torch.float32), torch.arange(8)
    other = torch.cat([x[:3], images(5, (1, 28, 28), seed=9, dtype=torch.float32)])
    labels = torch.cat([y[:3], torch.zeros(5, dtype=torch.int64)])
    together = pgd(model, x, y, eps=0.1, alpha=0.02, steps=8)
    assert torch.equal(together[:3], pgd(model, other, labels, eps=0.1, alpha=0.02, steps=8)[:3])


@pytest.mark.parametrize("architecture", ["small", "pool"])
def test_alone_and_in_a_batch_agree(architecture):
    model = build(architecture, seed=0).double()
    x, y = images(5, (1, 28, 28)), torch.arange(5)
    together = pgd(model, x, y, eps=0.1, alpha=0.02, steps=6)
    alone = torch.cat([pgd(model, x[i : i + 1], y[i : i + 1], eps=0.1, alpha=0.02, steps=6) for i in range(5)])
    assert (together - alone).abs().max() < 1e-12


def test_a_radius_for_each_image_equals_separate_runs():
    model, x, y = build("small", seed=0).double(), images(4, (1, 28, 28)), torch.arange(4)
    radii = torch.tensor([0.0, 0.05, 0.1, 0.3], dtype=DOUBLE)
    for random_start in (False, True):
        kwargs = {"alpha": 0.03, "steps": 5, "random_start": random_start}
        together = pgd(model, x, y, eps=radii, generator=torch.Generator().manual_seed(4), **kwargs)
        for i, eps in enumerate(radii.tolist()):
            separate = pgd(model, x, y, eps=eps, generator=torch.Generator().manual_seed(4), **kwargs)
            assert (together[i] - separate[i]).abs().max() < 1e-12


# Randomness


def test_same_seed_same_start_another_seed_another():
    model, x, y = toys.Linear(), images(), torch.tensor([0, 1, 2, 0])
    starts = [
        pgd(
            model,
            x,
            y,
            eps=0.2,
            alpha=0.0,
            steps=1,
            random_start=True,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (5, 5, 6)
    ]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_uniform_start_is_uniform_in_the_ball():
    x = torch.full((50, 1, 20, 20), 0.5, dtype=DOUBLE)
    noise = (uniform_start(x, 0.2, torch.Generator().manual_seed(0)) - x).flatten() / 0.2
    assert noise.abs().max() <= 1 and noise.mean().abs() < 0.02
    counts = torch.histc(noise, 10, -1, 1) / len(noise)
    assert (counts - 0.1).abs().max() < 0.01  # a tenth of the pixels in each tenth


def test_a_random_start_needs_a_generator_and_excludes_a_start():
    model, x, y = toys.Linear(), images(), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="Generator"):
        pgd(model, x, y, eps=0.1, alpha=0.01, steps=1, random_start=True)
    with pytest.raises(ValueError, match="excludes start"):
        pgd(
            model,
            x,
            y,
            eps=0.1,
            alpha=0.01,
            steps=1,
            random_start=True,
            start=x,
            generator=torch.Generator(),
        )


# What is left behind


def state(model, x):
    """All that an attack could disturb."""
    return {
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "weights": [v.clone() for v in model.state_dict().values()],
        "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
        "x": (x.requires_grad, x.grad, x.detach().clone()),
        "grad mode": torch.is_grad_enabled(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1:3],  # noqa: NPY002
        "python": random.getstate(),
    }


def assert_same(before, after):
    for key in before:
        flat = [v for part in (before[key], after[key]) for v in (part if isinstance(part, list | tuple) else [part])]
        half = len(flat) // 2
        assert 2 * half == len(flat), key
        for a, b in zip(flat[:half], flat[half:], strict=True):
            if isinstance(a, torch.Tensor | np.ndarray):
                assert (torch.as_tensor(a) == torch.as_tensor(b)).all(), key
            else:
                assert a == b, key


@pytest.fixture(params=["training", "mixed", "evaluation"])
def disturbed(request):
    """A model in a mode that must survive, with flags, a gradient and a hook of its own."""
    return toys.Stateful.marked(request.param), images(dtype=torch.float32), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("outer", [torch.enable_grad, torch.no_grad])
def test_leaves_everything_as_it_was(disturbed, outer):
    model, x, y = disturbed
    with outer():
        before = state(model, x)
        generator = torch.Generator().manual_seed(0)
        pgd(model, x, y, eps=0.1, alpha=0.02, steps=3, random_start=True, generator=generator)
        assert_same(before, state(model, x))
    x.requires_grad_()
    x_adv = pgd(model, x, y, eps=0.1, alpha=0.02, steps=3)
    assert x.requires_grad and x.grad is None and not x_adv.requires_grad and x_adv.grad_fn is None


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_leaves_everything_as_it_was_when_it_fails_half_way(disturbed, error):
    model, x, y = disturbed
    before = state(model, x)
    model.fail_at, model.error = 3, error
    with pytest.raises(type(error)):
        pgd(model, x, y, eps=0.1, alpha=0.02, steps=6)
    assert model.calls == 3
    assert_same(before, state(model, x))


def test_leaves_everything_as_it_was_when_abandoned_half_way(disturbed):
    model, x, y = disturbed
    before = state(model, x)
    run = pgd_iterates(model, x, y, eps=0.1, alpha=0.02, steps=6)
    next(run)
    assert_same(before, state(model, x))  # between two iterates the model is its owner's
    next(run)
    run.close()
    assert_same(before, state(model, x))


def test_dropout_and_batch_statistics_are_off_during_the_attack(disturbed):
    model, x, y = disturbed
    first = pgd(model, x, y, eps=0.1, alpha=0.02, steps=4)
    torch.manual_seed(123)
    model.eval()
    assert torch.equal(first, pgd(model, x, y, eps=0.1, alpha=0.02, steps=4))


@pytest.mark.parametrize("architecture", ["small", "pool", "wresnet"])
def test_weights_of_our_networks_get_no_gradient(architecture):
    shape = (3, 32, 32) if architecture == "wresnet" else (1, 28, 28)
    model = build(architecture, shape, seed=0).train()
    x = images(2, shape, dtype=torch.float32)
    pgd(model, x, torch.tensor([1, 2]), eps=0.1, alpha=0.02, steps=2)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_frozen_networks_are_attacked_the_same():
    model, x, y = build("small", seed=0).double(), images(2, (1, 28, 28)), torch.tensor([1, 2])
    first = pgd(model, x, y, eps=0.1, alpha=0.02, steps=3)
    model.requires_grad_(False)
    assert torch.equal(first, pgd(model, x, y, eps=0.1, alpha=0.02, steps=3))


def test_input_gradient_is_the_derivative():
    x = images()
    weight = torch.randn(16, generator=torch.Generator().manual_seed(2), dtype=DOUBLE).reshape(1, 1, 4, 4)
    gradient = input_gradient(lambda z: (weight * z**3).sum((1, 2, 3)), x)
    assert torch.allclose(gradient, 3 * weight * x**2, atol=1e-14)


def test_iterates_are_the_prefixes_of_one_run():
    model, x, y = build("small", seed=0), images(3, (1, 28, 28), dtype=torch.float32), torch.arange(3)
    iterates = list(pgd_iterates(model, x, y, eps=0.05, alpha=0.02, steps=5))
    assert len(iterates) == 5
    for k, x_adv in enumerate(iterates, 1):
        assert torch.equal(x_adv, pgd(model, x, y, eps=0.05, alpha=0.02, steps=k))


def test_another_objective_is_another_attack():
    """Climbing a quadratic bowl ends at the farthest corner of the ball, descending it in the middle."""
    x = images()
    *_, far = projected_ascent(lambda z: ((z - 0.5) ** 2).sum((1, 2, 3)), x, eps=0.1, alpha=0.02, steps=9)
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    assert torch.allclose(far, torch.where(x > 0.5, high, low), atol=1e-12)


# Refusals


@pytest.mark.parametrize("eps", [torch.tensor([0.1, 0.2]), torch.full((4, 1), 0.1)])
def test_radii_of_another_number_of_images_are_refused(eps):
    """Other wrong inputs: test_checks.py and test_wrong_inputs.py."""
    with pytest.raises(ValueError) as caught:
        pgd(toys.Linear(), images(), torch.tensor([0, 1, 2, 0]), eps=eps, alpha=0.01, steps=2)
    assert "(4,)" in str(caught.value) and str(tuple(eps.shape)) in str(caught.value)


def test_our_networks_refuse_other_images_and_labels():
    x = images(2, (1, 28, 28), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"Small takes images of shape \(N, 3, 32, 32\).*28, 28"):
        pgd(build("small", (3, 32, 32), seed=0), x, torch.tensor([1, 2]), eps=0.1, alpha=0.01, steps=1)
    with pytest.raises(ValueError, match=r"0 \.\. 9; got 2 \.\. 10"):
        pgd(build("small", seed=0), x, torch.tensor([2, 10]), eps=0.1, alpha=0.01, steps=1)


def test_bad_input_is_refused_also_when_there_is_nothing_to_do():
    with pytest.raises(ValueError, match="Divide bytes by 255"):
        pgd(toys.Linear(), 255 * images(), torch.tensor([0, 1, 2, 0]), eps=0.1, alpha=0.01, steps=0)


def test_an_empty_batch_and_a_whole_float_of_steps():
    model, x, y = toys.Linear(), images(), torch.tensor([0, 1, 2, 0])
    assert pgd(model, x[:0], y[:0], eps=0.1, alpha=0.01, steps=2).shape == (0, 1, 4, 4)
    assert torch.equal(pgd(model, x, y, eps=0.1, alpha=0.01, steps=2.0), pgd(model, x, y, eps=0.1, alpha=0.01, steps=2))


def test_a_folded_network_is_attacked_in_evaluation_mode_too():
    torch.manual_seed(0)
    model, x, y = toys.Dropping(), images(shape=(1, 28, 28), dtype=torch.float32), torch.tensor([0, 1, 2, 0])
    attack = {"eps": 0.3, "alpha": 0.1, "steps": 3}
    expected = pgd(model.eval(), x, y, **attack)
    before = torch.get_rng_state()
    assert torch.equal(pgd(model.train(), x, y, **attack), expected)
    assert torch.equal(torch.get_rng_state(), before) and model.training


def test_a_gradient_that_is_one_number_for_all_pixels_is_climbed():
    x = images()
    moved = ascend(lambda z: z.sum((1, 2, 3)), x, eps=0.3, alpha=0.1, steps=2)
    assert torch.allclose(moved, (x + 0.2).clamp(max=1))
    moved = ascend(lambda z: z.mean((1, 2, 3)), x, eps=0.3, alpha=0.1, steps=1, direction=clipped(1.0))
    assert torch.allclose(moved, (x + 0.1 / x[0].numel()).clamp(max=1))
