"""What is let in, and what is refused in which words: single numbers and choices, images, labels, sizes, devices."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp_lib.checks import (
    NotANumber,
    check_classes,
    check_images,
    check_labels,
    check_logits,
    check_numbers,
    check_pair,
    check_step_sizes,
    use_device,
)
from interp_lib.values import check_choice, check_each, check_number, check_radius, check_whole

NAN, INF = math.nan, math.inf
X, Y = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 2])
MAPS = torch.zeros(2, 3, 4, 4)


def refuses(check, *arguments, **more):
    """Whether a check refuses, with an error that it documents."""
    try:
        assert check(*arguments, **more) is None
    except (TypeError, ValueError):
        return True
    return False


def step_sizes(**change):
    check_step_sizes(**{"eps": 0.1, "alpha": 0.01, "steps": 3} | change)


WRONG_TYPES = [
    (lambda: check_number("0.1", "eps"), "eps must be a number; got '0.1' of type str."),
    (lambda: check_number(None, "eps"), "eps must be a number; got None of type NoneType."),
    (lambda: check_number(True, "eps"), "eps must be a number; got True of type bool."),
    (
        lambda: check_number(torch.zeros(2), "eps"),
        "eps must be a number; got a tensor of shape (2,) and torch.float32.",
    ),
    (lambda: check_number(torch.tensor(True), "eps"), "eps must be a number; got a tensor of shape () and torch.bool."),
    (
        lambda: check_number(torch.tensor(1j), "eps"),
        "eps must be a number; got a tensor of shape () and torch.complex64.",
    ),
    (lambda: check_radius("8/255"), "eps must be a number; got '8/255' of type str."),
    (lambda: check_whole("3", "steps"), "steps must be a whole number; got '3' of type str."),
    (lambda: check_whole(False, "steps"), "steps must be a whole number; got False of type bool."),
    (lambda: check_each("0.1", "eps", check_number), "eps must be a sequence, such as a list; got '0.1' of type str."),
    (lambda: check_each(0.1, "eps", check_number), "eps must be a sequence, such as a list; got 0.1 of type float."),
    (
        lambda: check_each(torch.tensor(0.1), "eps", check_number),
        "eps must be a sequence, such as a list; got a tensor of shape () and torch.float32.",
    ),
    (lambda: check_images([0.5]), "x must be a floating-point tensor; got list. Use x.float() / 255 on bytes."),
    (lambda: check_images(X.numpy()), "x must be a floating-point tensor; got ndarray. Use x.float() / 255 on bytes."),
    (
        lambda: check_images(X.byte(), "start"),
        "start must be a floating-point tensor; got dtype torch.uint8. Use x.float() / 255 on bytes.",
    ),
    (lambda: check_labels([0, 2], 2), "y must be an int64 tensor of labels; got list. Use y.long()."),
    (
        lambda: check_labels(Y.int(), 2, 3, "target"),
        "target must be an int64 tensor of labels; got dtype torch.int32. Use y.long().",
    ),
    (lambda: check_classes([[0]], 2), "classes must be an int64 tensor of labels; got list. Use y.long()."),
    (
        lambda: check_classes(Y[:, None].float(), 2),
        "classes must be an int64 tensor of labels; got dtype torch.float32. Use y.long().",
    ),
    (lambda: check_logits([1.0]), "logits must be a floating-point tensor (N, classes); got [1.0] of type list."),
    (
        lambda: check_logits(Y[:, None], "logits_adv"),
        "logits_adv must be a floating-point tensor (N, classes); got a tensor of shape (2, 1) and torch.int64.",
    ),
    (
        lambda: check_pair(MAPS, MAPS.long(), "maps", 3),
        "maps must be floating-point tensors; got a tensor of shape (2, 3, 4, 4) and torch.int64.",
    ),
    (lambda: check_pair(None, MAPS, "maps", 3), "maps must be floating-point tensors; got None of type NoneType."),
    (
        lambda: step_sizes(eps="8/255"),
        "eps must be a number or a tensor of one number per image; got '8/255' of type str.",
    ),
    (
        lambda: step_sizes(alpha=True),
        "alpha must be a number or a tensor of one number per image; got True of type bool.",
    ),
]
WRONG_VALUES = [
    (lambda: check_number(NAN, "eps"), "eps must be a finite number; got nan."),
    (lambda: check_number(INF, "eps"), "eps must be a finite number; got inf."),
    (lambda: check_number(torch.tensor(INF), "eps"), "eps must be a finite number; got inf."),
    (lambda: check_number(-1, "gamma", 0), "gamma must be a finite number >= 0; got -1."),
    (lambda: check_number(0, "gamma", 0, above=True), "gamma must be a finite number > 0; got 0."),
    (lambda: check_number(2, "keep", 0, 1), "keep must be a finite number in [0, 1]; got 2."),
    (lambda: check_number(0, "keep", 0, 1, above=True), "keep must be a finite number in (0, 1]; got 0."),
    (lambda: check_radius(8), "eps must be a finite number in [0, 1]; got 8. Write 8/255, not 8."),
    (
        lambda: check_radius(0.0, "first", above=True),
        "first must be a finite number in (0, 1]; got 0.0. Write 8/255, not 8.",
    ),
    (lambda: check_whole(1.5, "steps"), "steps must be a whole number >= 0; got 1.5."),
    (lambda: check_whole(NAN, "steps", 1), "steps must be a whole number >= 1; got nan."),
    (lambda: check_whole(INF, "steps"), "steps must be a whole number >= 0; got inf."),
    (lambda: check_whole(5, "nodes", 1, 4), "nodes must be a whole number in [1, 4]; got 5."),
    (lambda: check_whole(-(10**400), "seed"), f"seed must be a whole number >= 0; got {-(10**400)}."),
    (lambda: check_choice("l3", "norm", ("linf", "l2")), "norm must be one of linf, l2; got 'l3'."),
    (lambda: check_choice(True, "p", (1, 2)), "p must be one of 1, 2; got True."),
    (lambda: check_choice(1.0, "p", (1, 2)), "p must be one of 1, 2; got 1.0."),
    (lambda: check_choice(99 * "l", "norm", ("l2",)), f"norm must be one of l2; got '{79 * 'l'}."),
    (lambda: check_each([], "eps", check_number), "eps must hold at least one value; got none."),
    (
        lambda: check_each([0.1, 8], "eps", check_radius),
        "eps must be a finite number in [0, 1]; got 8. Write 8/255, not 8.",
    ),
    (lambda: check_each([1, 0], "eps", check_number, 0, above=True), "eps must be a finite number > 0; got 0."),
    (lambda: check_images(X[0]), "x must have shape (N, C, H, W); got (1, 3, 3). Add the missing axis."),
    (lambda: check_images(X * NAN), "x must be finite; it holds NaN or infinity."),
    (lambda: check_images(X * -INF), "x must be finite; it holds NaN or infinity."),
    (lambda: check_images(X * 510), "x must lie in [0, 1]; got min 255 and max 255. Divide bytes by 255."),
    (lambda: check_images(X - 1.5), "x must lie in [0, 1]; got min -1 and max -1. Put normalisation inside the model."),
    (lambda: check_labels(Y, 3), "y must have shape (3,), one label per image; got (2,)."),
    (lambda: check_labels(Y[:, None], 2), "y must have shape (2,), one label per image; got (2, 1)."),
    (lambda: check_labels(Y, 2, 2), "y must lie in 0 .. 1; got 0 .. 2."),
    (lambda: check_labels(Y - 1, 2), "y must lie in 0 .. C - 1; got -1 .. 1."),
    (
        lambda: check_classes(Y, 2),
        "classes must have shape (2, k), k classes per image; got (2,). Write y[:, None] for the true class.",
    ),
    (
        lambda: check_classes(Y[:, None], 3),
        "classes must have shape (3, k), k classes per image; got (2, 1). Write y[:, None] for the true class.",
    ),
    (lambda: check_classes(Y[:, None], 2, 2), "classes must lie in 0 .. 1; got 0 .. 2."),
    (lambda: check_logits(torch.zeros(3)), "logits must have shape (N, classes); got (3,)."),
    (
        lambda: check_pair(MAPS[:, 0, 0], MAPS[:, 0, 0], "maps", 3),
        "maps must have one shape (N, k, h, w), k the number of classes; got (2, 4) and (2, 4)."
        " Write maps[:, None] where the axis of classes is missing.",
    ),
    (
        lambda: check_pair(MAPS, MAPS[:1], "maps", 2),
        "maps must have one shape (N, ...); got (2, 3, 4, 4) and (1, 3, 4, 4).",
    ),
    (
        lambda: check_pair(MAPS, MAPS.sum(), "scores", 1),
        "scores must have one shape (..., E); got (2, 3, 4, 4) and ().",
    ),
    (lambda: step_sizes(eps=8), "eps must lie in [0, 1], the unit of the pixels; got 8 .. 8. Write 8/255, not 8."),
    (
        lambda: step_sizes(eps=torch.tensor([0.25, -0.5])),
        "eps must lie in [0, 1], the unit of the pixels; got -0.5 .. 0.25. Write 8/255, not 8.",
    ),
    (
        lambda: step_sizes(eps=torch.tensor([0.25, NAN])),
        "eps must lie in [0, 1], the unit of the pixels; got nan .. nan. Write 8/255, not 8.",
    ),
    (
        lambda: step_sizes(eps=29, largest=28.0),
        "eps must lie in [0, 28], the unit of the pixels; got 29 .. 29. Write 8/255, not 8.",
    ),
    (lambda: step_sizes(alpha=-0.5), "alpha must be a finite step size >= 0; got -0.5 .. -0.5."),
    (lambda: step_sizes(alpha=torch.tensor([0.5, INF])), "alpha must be a finite step size >= 0; got 0.5 .. inf."),
    (lambda: step_sizes(steps=-1), "steps must be a whole number >= 0; got -1."),
    (lambda: step_sizes(eps=X[:0, 0, 0, 0], steps=0.5), "steps must be a whole number >= 0; got 0.5."),
    (
        lambda: check_numbers(torch.tensor([0, NAN, 1, INF]), "the loss"),
        "the loss of image 1 is NaN or infinite (2 of 4 images); look for weights or a layer that give it.",
    ),
    (
        lambda: check_numbers(torch.tensor([[0, 1], [0, -INF]]), "the logit"),
        "the logit of image 1 is NaN or infinite (1 of 2 images); look for weights or a layer that give it.",
    ),
]


@pytest.mark.parametrize("refused, error", [(WRONG_TYPES, TypeError), (WRONG_VALUES, ValueError)])
def test_what_is_refused_is_named_with_what_came(refused, error):
    for check, message in refused:
        with pytest.raises(error) as caught:
            check()
        assert str(caught.value) == message


def test_what_is_accepted():
    check_number(0, "a", 0, 1)
    check_number(1.0, "a", 0, 1)
    check_number(-(10**400), "a")
    check_number(np.float32(0.5), "a", 0, 1)
    check_number(Fraction(8, 255), "a", 0, 1)
    check_number(torch.tensor(2), "a", 0)
    check_radius(0)
    check_radius(8 / 255)
    check_radius(1)
    check_whole(0, "a")
    check_whole(3.0, "a")
    check_whole(np.int64(4), "a", 1, 4)
    check_whole(10**400, "a")
    check_choice("l2", "a", ("linf", "l2"))
    check_choice(1, "a", (True, 1))
    check_choice(None, "a", (None, "b"))
    check_each([0.1, 1], "a", check_radius)
    check_each(range(3), "a", check_whole)
    check_each((3,), "a", check_whole, 1, 4)
    check_each(torch.tensor([0.0, 1.0]), "a", check_radius)
    check_images(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    check_images(X[:0])
    check_images(X.half())
    check_images(X.double().requires_grad_())
    check_labels(Y, 2)
    check_labels(Y, 2, 3)
    check_labels(Y[:0], 0, 3)
    check_classes(Y.expand(2, 2), 2, 3)
    check_classes(Y[:0, None], 0, 3)
    check_logits(torch.zeros(2, 3))
    check_pair(MAPS, MAPS.double(), "maps", 3)
    check_pair(MAPS[0, 0, 0], MAPS[0, 0, 0], "maps", 1)
    check_numbers(torch.zeros(3), "a")
    check_numbers(torch.zeros(0), "a")
    check_numbers(X.clone().requires_grad_(), "a")


NUMBERS = st.floats() | st.integers() | st.sampled_from([0.0, 1.0, NAN, INF, -INF])


@given(NUMBERS, NUMBERS, NUMBERS, st.booleans())
def test_a_number_is_accepted_between_its_limits_and_nowhere_else(value, a, b, above):
    limits = sorted(-INF if math.isnan(limit) else limit for limit in (a, b))
    inside = -INF < value < INF and (limits[0] < value if above else limits[0] <= value) and value <= limits[1]
    assert refuses(check_number, value, "a", *limits, above=above) != inside
    assert refuses(check_radius, value, above=above) == (not (0 < value <= 1 or (value == 0 and not above)))
    whole = inside and not above and value % 1 == 0
    assert above or refuses(check_whole, value, "a", *limits) != whole


@given(
    st.lists(st.floats(0, 1, width=32) | st.floats(width=32) | st.sampled_from([-1e-3, 1.001]), min_size=1, max_size=6)
)
def test_images_are_accepted_if_every_pixel_lies_between_black_and_white(pixels):
    x = torch.tensor(pixels).view(1, 1, 1, -1)
    assert refuses(check_images, x) != all(0 <= pixel <= 1 for pixel in pixels)


@given(st.lists(st.integers(-3, 9), max_size=6), st.integers(1, 8))
def test_labels_are_accepted_if_each_is_one_of_the_classes(labels, classes):
    y, wrong = torch.tensor(labels, dtype=torch.int64), not set(labels) <= set(range(classes))
    assert refuses(check_labels, y, len(y), classes) == wrong
    assert refuses(check_classes, y[:, None], len(y), classes) == wrong
    assert refuses(check_labels, y, len(y)) == any(label < 0 for label in labels)
    assert refuses(check_labels, y, len(y) + 1, classes)


SIZES = st.lists(st.floats(-1, 3) | st.sampled_from([0.0, 1.0, 1.5, 2.0, -1e-3, NAN, INF]), min_size=1, max_size=3)


@given(SIZES, SIZES, st.sampled_from([1.0, 2.0]))
def test_radii_and_steps_are_accepted_in_the_ball(eps, alpha, largest):
    inside = all(0 <= e <= largest for e in eps) and all(0 <= a < INF for a in alpha)
    one_an_image = {"eps": torch.tensor(eps, dtype=torch.float64), "alpha": torch.tensor(alpha, dtype=torch.float64)}
    assert refuses(step_sizes, **one_an_image, largest=largest) != inside
    if len(eps) == len(alpha) == 1:
        assert refuses(step_sizes, eps=eps[0], alpha=alpha[0], largest=largest) != inside


@given(st.lists(st.booleans(), max_size=6), st.sampled_from([NAN, INF, -INF]), st.sampled_from([(), (2,), (2, 3)]))
def test_the_first_image_without_a_number_is_named_and_the_others_counted(wrong, value, shape):
    found = torch.zeros(len(wrong), *shape)
    found.view(len(wrong), math.prod(shape))[torch.tensor(wrong, dtype=torch.bool), -1] = value
    if not any(wrong):
        return check_numbers(found, "it")
    with pytest.raises(NotANumber, match=rf"image {wrong.index(True)} .* \({sum(wrong)} of {len(wrong)} images"):
        check_numbers(found, "it")


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are so many GPUs; put cuDNN's switches back."""

    def pretend(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    yield pretend
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


@pytest.mark.parametrize(
    "number, device, chosen",
    [
        (0, None, "cpu"),
        (0, "cpu", "cpu"),
        (2, None, "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda:1", "cuda:1"),
        (2, torch.device("cuda", 0), "cuda:0"),
    ],
)
def test_a_device_that_is_there_is_taken(number, device, chosen, gpus):
    gpus(number)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = True, False
    assert use_device(device) == chosen
    exact = (False, True) if chosen.startswith("cuda") else (True, False)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == exact


@pytest.mark.parametrize(
    "number, device, known",
    [
        (0, "cuda", "cpu, PyTorch sees no CUDA here"),
        (0, "tpu", "cpu, PyTorch sees no CUDA here"),
        (2, "cuda:2", "cpu or cuda"),
        (2, "cuda:", "cpu or cuda"),
        (2, "cuda:-1", "cpu or cuda"),
        (2, "cpu:0", "cpu or cuda"),
    ],
)
def test_a_device_that_is_not_there_is_refused(number, device, known, gpus):
    gpus(number)
    with pytest.raises(ValueError, match=f"^device must be {known}; got '{device}'[.]$"):
        use_device(device)
