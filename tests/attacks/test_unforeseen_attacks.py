"""The unforeseen attacks against independent writings, Pillow, finite differences and the contract of attacks."""

import io
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from interp_lib.attacks import unforeseen
from interp_lib.attacks.unforeseen import elastic_flow, fog_map, gabor_noise, jpeg_coefficients, snow_flakes
from interp_lib.attacks.unforeseen.corruption import Corruption, attack
from interp_lib.attacks.unforeseen.jpeg_coefficients import Codec
from interp_lib.models.architectures import build

ATTACKS = {
    "gabor": partial(unforeseen.gabor, eps=60),
    "gabor as released": partial(unforeseen.gabor, eps=60, as_released=True),
    "snow": partial(unforeseen.snow, eps=1),
    "snow as released": partial(unforeseen.snow, eps=1, as_released=True),
    "jpeg linf": partial(unforeseen.jpeg, eps=1),
    "jpeg l2": partial(unforeseen.jpeg, eps=8, norm="l2"),
    "jpeg l1": partial(unforeseen.jpeg, eps=200, norm="l1"),
    "fog": partial(unforeseen.fog, eps=300),
    "elastic": partial(unforeseen.elastic, eps=2),
}
CORRUPTIONS = {
    "gabor": unforeseen.gabor_corruption,
    "snow": unforeseen.snow_corruption,
    "jpeg linf": unforeseen.jpeg_corruption,
    "jpeg l2": partial(unforeseen.jpeg_corruption, norm="l2"),
    "jpeg l1": partial(unforeseen.jpeg_corruption, norm="l1"),
    "fog": unforeseen.fog_corruption,
    "elastic": unforeseen.elastic_corruption,
}
EPS = {"gabor": 60.0, "snow": 1.0, "jpeg linf": 1.0, "jpeg l2": 8.0, "jpeg l1": 200.0, "fog": 300.0, "elastic": 2.0}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=4, colours=3, side=32, dtype=torch.float32):
    """Smooth images: a JPEG of noise says little."""
    small = torch.rand((n, colours, 5, 5), generator=seeded(1), dtype=dtype)
    return F.interpolate(small, size=(side, side), mode="bicubic").clamp(0.05, 0.95)


@pytest.fixture(scope="module")
def model():
    return build("small", input_shape=(3, 32, 32), seed=0)


LABELS = torch.tensor([0, 3, 5, 9])


@every_attack
def test_in_the_box_repeatable_and_the_loss_moves_as_asked(name, model):
    x = pictures()
    state, grad = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]
    run = lambda seed=0, **more: ATTACKS[name](model, x, LABELS, generator=seeded(seed), **more)
    x_adv = run(steps=20)
    assert x_adv.shape == x.shape and not x_adv.requires_grad
    assert 0 <= x_adv.min() and x_adv.max() <= 1
    assert torch.equal(x_adv, run(steps=20))
    assert not torch.equal(x_adv, run(1, steps=20))
    assert torch.equal(state, torch.get_rng_state()) and grad == [p.requires_grad for p in model.parameters()]
    # Sign steps on so few parameters need not raise every image's loss.
    many, labels = pictures(32), torch.arange(32) % 10
    mean = lambda **more: F.cross_entropy(model(ATTACKS[name](model, many, labels, generator=seeded(), **more)), labels)
    assert mean(steps=20) > mean(steps=0) > mean(steps=20, targeted=True)


@every_attack
def test_companions_do_not_matter(name, model):
    x = pictures()
    others = x.clone()
    others[1:] = 1 - others[1:]
    run = lambda images: ATTACKS[name](model, images, LABELS, generator=seeded(), steps=5)
    assert torch.allclose(run(x)[0], run(others)[0], atol=1e-5)


@every_attack
@pytest.mark.parametrize(("colours", "side"), [(1, 28), (3, 40), (1, 8), (3, 224)])
def test_sizes_and_colours(name, colours, side):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(colours, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    x = pictures(2, colours, side)
    x_adv = ATTACKS[name](network, x, LABELS[:2] % 3, generator=seeded(), steps=2)
    assert x_adv.shape == x.shape and x_adv.isfinite().all() and 0 <= x_adv.min() and x_adv.max() <= 1


@every_attack
def test_no_images_and_one_strength_an_image(name, model):
    function, x = ATTACKS[name], pictures()
    assert function(model, x[:0], LABELS[:0], generator=seeded(), steps=2).shape == (0, 3, 32, 32)
    sizes = torch.full((4,), function.keywords["eps"], dtype=torch.float32)
    both = [function(model, x, LABELS, generator=seeded(), steps=3, eps=eps) for eps in (sizes, float(sizes[0]))]
    assert torch.allclose(*both, atol=1e-5)


@every_attack
@pytest.mark.parametrize(
    "wrong", [{"eps": -1}, {"eps": "8"}, {"steps": 2.5}, {"alpha": -1.0}, {"generator": None}, {"eps": math.nan}]
)
def test_wrong_inputs_are_refused_by_name(name, wrong, model):
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        ATTACKS[name](model, pictures(), LABELS, **{"generator": seeded(), **wrong})


def test_jpeg_names_norms_and_colours(model):
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1"):
        unforeseen.jpeg(model, pictures(), LABELS, eps=1, norm="l3", generator=seeded())
    with pytest.raises(ValueError, match="colours of x must be one of 1, 3; got 2"):
        Codec(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="quality"):
        Codec(torch.zeros(1, 1, 8, 8), quality=0)


# Gabor's contrast is not differentiated: it has the next test.
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "gabor"])
def test_gradients_by_finite_differences(name):
    x = 0.4 + 0.2 * pictures(2, 3, 16, torch.float64)
    # Strengths so small that nothing is clipped: at a clip there is no derivative.
    eps = EPS[name] * (0.02 if name != "elastic" else 0.3)
    corruption = CORRUPTIONS[name](x, eps, 0.1, seeded())
    z = corruption.start.clone()
    weights = torch.rand(x.shape, generator=seeded(2), dtype=torch.float64)
    value = lambda z: (weights * corruption.images(z)).sum()
    (gradient,) = torch.autograd.grad(value(z.requires_grad_()), z)
    direction = torch.randn(z.shape, generator=seeded(3), dtype=torch.float64)
    if name == "snow":
        direction = direction * z.detach()  # brightness stays positive
    step = 1e-6
    with torch.no_grad():
        difference = (value(z + step * direction) - value(z - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-5)


def test_gabors_gradient_is_the_convolutions_with_the_contrast_held():
    x = torch.full((2, 1, 16, 16), 0.5, dtype=torch.float64)
    corruption = unforeseen.gabor_corruption(x, 20.0, 1.0, seeded())
    kernel = gabor_noise.kernels(2, x, seeded())  # the same draw
    z = corruption.start.clone().requires_grad_()
    weights = torch.rand(x.shape, generator=seeded(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * corruption.images(z)).sum(), z)
    v = torch.cat(
        [F.conv2d(start[None], k[None, None], padding=11) for start, k in zip(corruption.start, kernel, strict=True)]
    )
    centred = v - v.mean((2, 3), keepdim=True)
    gain = 1.001 / (0.001 + centred.abs() / centred.abs().amax((2, 3), keepdim=True))
    even = centred * gain
    spread = (even.amax((2, 3)) - even.amin((2, 3)))[:, :, None, None]
    expected = (even - even.amin((2, 3), keepdim=True)) / spread
    assert torch.allclose(corruption.images(corruption.start), 0.5 + 20 / 255 * expected, atol=1e-9)
    back = [F.conv2d((weights * gain / spread)[i][None], kernel[i][None, None], padding=11) for i in range(2)]
    assert torch.allclose(gradient, 20 / 255 * torch.cat(back), atol=1e-9)


def test_gabor_kernels_are_waves_under_a_bell():
    kernels, generator = gabor_noise.kernels(50, torch.zeros(1, dtype=torch.float64), seeded()), seeded()
    draw = lambda: torch.rand(50, generator=generator, dtype=torch.float64)
    sides, width, waves, angle = 1 + (10 * draw()).floor(), 0.101 + 0.3 * draw(), 3 + 2.75 * draw(), math.pi * draw()
    for i in range(50):
        for row, column in ((0, 0), (3, 17), (11, 11), (20, 8)):
            y, x = row / 22 - 0.5, column / 22 - 0.5
            turns = [angle[i] + math.pi * j / sides[i] for j in range(int(sides[i]))]
            wave = sum(math.cos(2 * math.pi * waves[i] * (x * math.cos(a) + y * math.sin(a))) for a in turns)
            expected = math.exp(-(x * x + y * y) / (2 * width[i] ** 2)) * wave
            assert float(kernels[i, row, column]) == pytest.approx(expected, abs=1e-9)


def test_gabor_moves_its_spikes_and_the_released_code_all_other_pixels():
    x = torch.full((8, 1, 28, 28), 0.5)
    for as_released in (False, True):
        corruption = unforeseen.gabor_corruption(x, 60.0, 28.0, seeded(), as_released=as_released)
        spikes = corruption.start != 0
        assert 0.05 < spikes.float().mean() < 0.1  # a fourteenth of 6,272, to six standard errors and more
        moved = corruption.move(corruption.start, torch.ones_like(x))
        assert torch.equal(moved != 0, ~spikes if as_released else spikes)
        assert moved.abs().max() == 1


def drawn(down, right, width):
    """One streak by the definition, pixel by pixel: a line from the middle, its thickness, its mirror image."""
    image = np.zeros((13, 13))
    swap = right < down
    long, short = (down, right) if swap else (right, down)
    slope = short / long
    wide = width * math.sqrt(1 + slope) / 2
    for along in range(long + 1):
        for across in range(7):
            value = min(max(min(across + 1 + wide / 2 - along * slope, -across + 1 + wide / 2 + along * slope), 0), 1)
            row, column = (along, across) if swap else (across, along)
            image[6 + row, 6 + column] = value
    for row in range(7):
        for column in range(7):
            image[row, column] = image[12 - row, 12 - column]
    return image


def test_streaks_are_lines_through_the_middle():
    streaks = iter(snow_flakes._streaks())
    for down in range(2, 7):
        for right in range(2, 7):
            for width in (1, 3, 5):
                assert np.allclose(next(streaks), drawn(down, right, width), atol=1e-6)


@pytest.mark.parametrize("side", [8, 28, 32, 44])
def test_snow_is_the_convolution_of_flakes_on_a_grid(side):
    x = torch.zeros(3, 1, side, side, dtype=torch.float64)
    kernels = snow_flakes.kernels(3, x, seeded())
    brightness = torch.rand((3, 7, side // 4, side // 4), generator=seeded(1), dtype=torch.float64)
    grid = torch.zeros(3, 7, side, side, dtype=torch.float64)
    for layer in range(4):
        grid[:, layer, ::4, layer::4] = brightness[:, layer] ** 4
    for layer in range(3):
        grid[:, 4 + layer, layer + 1 :: 4, ::4] = brightness[:, 4 + layer] ** 4
    expected = torch.cat([F.conv2d(grid[i][None], kernels[i][None], padding=6) for i in range(3)])
    snow = snow_flakes.fallen(brightness, snow_flakes.phases(kernels), (side, side))
    assert torch.allclose(snow, expected, atol=1e-12)


def test_streaks_are_blurred_by_a_bell_of_one():
    kernels = snow_flakes.kernels(200, torch.zeros(1, dtype=torch.float64), seeded())
    sums, known = kernels.sum((2, 3)), snow_flakes._streaks().sum((1, 2))
    # The blur spreads a streak without changing its sum, but for what leaves the kernel at its ends.
    assert sums.max() <= known.max() + 1e-5 and sums.min() >= 0.8 * known.min()
    assert kernels.min() >= 0


def test_snow_keeps_its_budget_and_the_released_code_exceeds_it_by_a_step():
    x = torch.full((3, 1, 64, 64), 0.3)
    means = lambda z: F.avg_pool2d(z, 8)
    for as_released, most in ((False, 0.2), (True, 0.2 + 0.14)):
        corruption = unforeseen.snow_corruption(x, 2.0, 0.14, seeded(), as_released=as_released)
        z = corruption.start
        for _ in range(30):
            z = corruption.move(z, torch.ones_like(z))
        assert float(means(z).max()) == pytest.approx(most, abs=1e-5)


def pillow(x, quality):
    """Write images with Pillow and read them again."""
    read = []
    for image in x:
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=quality, subsampling=2)
        read.append(np.array(Image.open(file)).reshape(*image.shape[1:], -1))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("quality", [1, 10, 50, 75, 100])
@pytest.mark.parametrize("colours", [1, 3])
def test_rounded_coefficients_are_pillows_file(quality, colours):
    x = pictures(4, 1, 28 if colours == 1 else 32)
    if colours == 3:  # of one chrominance everywhere: readers interpolate it in different ways
        x = 0.25 + 0.5 * x + torch.tensor([0.15, 0.0, -0.1])[:, None, None]
    x = (x * 255).round() / 255
    codec = Codec(x, quality)
    exact = codec.encode(x)
    z = 2 * (exact.round() - exact)
    assert z.abs().max() <= 1
    ours, file = codec.decode(exact + z / 2).clamp(0, 1), pillow(x, quality)
    # Whole numbers in the encoder and ties of rounding: where a coefficient rounds the other way, a block differs.
    difference = (ours - file).abs() * 255
    assert difference.mean() < 1.5 and difference.flatten().kthvalue(int(0.9 * difference.numel())).values <= 3
    if quality < 20:  # it is the file's loss and not the picture that is met
        assert difference.mean() < 0.3 * ((x - file).abs() * 255).mean()


def test_grey_jpeg_without_rounding_is_the_image():
    x = pictures(2, 1, 28, torch.float64)
    codec = Codec(x)
    assert codec.encode(x).shape == (2, codec.size) == (2, 32 * 32)
    assert torch.allclose(codec.decode(codec.encode(x)), x, atol=1e-12)
    y = pictures(2, 3, 32, torch.float64)
    codec = Codec(y)
    once = codec.decode(codec.encode(y))
    assert torch.allclose(codec.decode(codec.encode(once)), once, atol=1e-5)  # to the digits of the colour matrices
    assert codec.size == 32 * 32 * 3 // 2


def test_jpeg_stays_in_its_ball(model):
    x = pictures(6)
    for norm, eps, order in (("linf", 0.25, math.inf), ("l2", 8.0, 2), ("l1", 256.0, 1)):
        corruption = unforeseen.jpeg_corruption(x, eps, eps / 4, seeded(), norm=norm)
        z = corruption.start
        assert (torch.linalg.vector_norm(z, order, dim=1) <= eps * (1 + 1e-5)).all()
        for seed in range(12):
            z = corruption.move(z, torch.randn(z.shape, generator=seeded(seed)))
            assert (torch.linalg.vector_norm(z, order, dim=1) <= eps * (1 + 1e-5)).all()
            assert norm == "linf" or z.abs().max() <= 2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_points_fill_the_ball(norm):
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    points = jpeg_coefficients.random_point(20_000, 3, norm, torch.zeros(1), seeded())
    radii = torch.linalg.vector_norm(points, order, dim=1)
    assert radii.max() <= 1 + 1e-6
    # Uniform in a ball of 3 dimensions: P(radius < r) = r^3; four standard errors of 20,000 points.
    for r in (0.3, 0.5, 0.8):
        assert float((radii < r).float().mean()) == pytest.approx(r**3, abs=4 * math.sqrt(r**3 * (1 - r**3) / 20_000))
    assert points.mean(0).abs().max() < 0.02


def test_frank_wolfe_spends_eps_on_the_largest_gradients():
    z = torch.tensor([[0.0, 1.0, -1.0, 0.5]])
    gradient = torch.tensor([[0.1, -3.0, 2.0, 1.0]])
    # Rooms: 3 for the second (down from 1 to -2), 3 for the third (up from -1 to 2), then 1 of the fourth's 1.5.
    corner = torch.tensor([[0.0, -3.0, 3.0, 1.0]])
    step = jpeg_coefficients.frank_wolfe(z, gradient, 7.0, 3)
    assert torch.allclose(step, z + (corner - z) / 4)


def midpoints(z, size):
    """The public definition of the map, written into one array level by level."""
    grid, spacing, rough, number = np.zeros((size, size)), size, 100.0, 0
    at = lambda start_row, start_column: grid[start_row::spacing, start_column::spacing]
    while spacing >= 2:
        half = spacing // 2
        corners = at(0, 0).copy()
        square = corners + np.roll(corners, -1, 0)
        grid[half::spacing, half::spacing] = (square + np.roll(square, -1, 1)) / 4 + (2 * z[number] - 1) * rough
        middle = at(half, half).copy()
        row = middle + np.roll(middle, 2, 0) + corners + np.roll(corners, -1, 1)
        grid[0::spacing, half::spacing] = row / 4 + (2 * z[number + 1] - 1) * rough
        column = middle + np.roll(middle, 2, 1) + corners + np.roll(corners, -1, 0)
        grid[half::spacing, 0::spacing] = column / 4 + (2 * z[number + 2] - 1) * rough
        number, spacing, rough = number + 3, half, rough / 2
    grid -= grid.min()
    return grid / grid.max()


def test_the_fog_map_is_made_of_midpoints():
    sides = fog_map.sizes(28)
    assert sides == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32] == fog_map.sizes(32)
    assert fog_map.sizes(224)[-1] == 128
    z = torch.rand((2, sum(k * k for k in sides)), generator=seeded(), dtype=torch.float64)
    for i, one in enumerate(z):
        parts = [part.view(k, k).numpy() for part, k in zip(one.split([k * k for k in sides]), sides, strict=True)]
        assert np.allclose(fog_map.fog_map(z, 32)[i, 0], midpoints(parts, 64), atol=1e-12)


def test_elastic_without_a_flow_is_the_image_and_a_constant_flow_shifts_it():
    x = pictures(2, 3, 32, torch.float64)
    smoothing = elastic_flow.gaussian(32, x)
    assert float(smoothing.sum()) == pytest.approx(1) and smoothing.shape == (5, 5)
    assert elastic_flow.gaussian(224, x).shape == (25, 25)
    z = torch.zeros(2, 2, 32, 32, dtype=torch.float64)
    assert torch.allclose(elastic_flow.warped(x, z, smoothing), x, atol=1e-12)
    z[:, 0] = 32 / 31  # a pixel is 2 / 31 of the width from -1 to 1, and the flow's unit 2 / 32
    moved = elastic_flow.warped(x, z, smoothing)
    assert torch.allclose(moved[..., :-1], x[..., 1:], atol=1e-9)


def test_a_corruption_of_ones_own(model):
    x = pictures()
    darker = Corruption(
        torch.full((4, 1, 1, 1), 0.9), lambda z: x * z, lambda z, gradient: (z + 0.1 * gradient.sign()).clamp(0, 1)
    )
    loss = lambda images: F.cross_entropy(model(images), LABELS, reduction="none")
    found = attack(model, x, LABELS, darker, steps=30)
    tried = torch.stack([loss(x * z) for z in torch.linspace(0, 1, 41)])
    assert torch.isclose(loss(found), tried.amax(0), rtol=0.05).float().mean() >= 0.5  # some have a maximum inside
    assert (loss(found) >= loss(0.9 * x) - 1e-4).all()
