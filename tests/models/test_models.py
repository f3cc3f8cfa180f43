"""Architectures: TensorFlow's padding against its formula, completeness, and the numbers of the protocol."""

import math

import pytest
import torch
import torch.nn.functional as F
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interp_lib.models.architectures import ARCHITECTURES, GlobalPoolNetwork, SameConv2d, Small, build, same_padding

DOUBLE = torch.float64
SHAPES = [
    ("small", (1, 28, 28)),
    ("small", (3, 32, 32)),
    ("small", (1, 8, 8)),
    ("pool", (1, 28, 28)),
    ("pool", (3, 32, 32)),
    ("wresnet", (3, 32, 32)),
    ("wresnet", (1, 28, 28)),
    ("wresnet", (3, 64, 64)),
]


# Padding


@given(size=st.integers(1, 300), kernel=st.integers(1, 11), stride=st.integers(1, 5))
def test_same_padding_is_tensorflows(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    out = (size + before + after - kernel) // stride + 1
    # Where the stride passes the kernel TensorFlow pads nothing and may drop pixels.
    assert out == math.ceil(size / stride)
    if before + after:  # no more than is needed: with one pixel less the last window would not fit
        assert (math.ceil(size / stride) - 1) * stride + kernel == size + before + after


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from([1, 2, 3, 4, 5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 10**6),
)
def test_same_convolution_is_a_sum_over_the_padded_window(height, width, kernel, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = SameConv2d(1, 1, kernel, stride=stride).double()
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
        conv.bias.normal_(generator=generator)
    x = torch.rand(1, 1, height, width, generator=generator, dtype=DOUBLE)
    out = conv(x)[0, 0]
    assert out.shape == (-(-height // stride), -(-width // stride))
    top = max((out.shape[0] - 1) * stride + kernel - height, 0) // 2
    left = max((out.shape[1] - 1) * stride + kernel - width, 0) // 2
    for i, j in ((0, 0), (out.shape[0] - 1, out.shape[1] - 1), (out.shape[0] // 2, 0)):
        total = conv.bias.item()
        for a in range(kernel):
            for b in range(kernel):
                row, column = i * stride + a - top, j * stride + b - left
                if 0 <= row < height and 0 <= column < width:
                    total += (conv.weight[0, 0, a, b] * x[0, 0, row, column]).item()
        assert out[i, j].item() == pytest.approx(total, abs=1e-12)


def test_the_odd_pixel_is_right_and_below():
    """A 2x2 kernel of ones at stride 1 looks at its own pixel, right and below."""
    conv = SameConv2d(1, 1, 2).double()
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.bias.zero_()
    x = torch.arange(4.0, dtype=DOUBLE).reshape(1, 1, 2, 2)  # 0 1 / 2 3
    assert conv(x)[0, 0].tolist() == [[6, 4], [5, 3]]


# The plan


@pytest.mark.parametrize("name, shape", SHAPES)
def test_logits_are_the_mean_of_the_cam(name, shape, make_images):
    model, x = toys.biased(name, shape, 7), make_images(2, shape)
    features, weight = model.features(x), model.classifier.weight
    cam = torch.einsum("ck,nkhw->nchw", weight, features)
    assert torch.allclose(model(x), cam.mean((2, 3)), atol=1e-12 * cam.abs().max().item())
    assert model.classifier.bias is None and weight.shape == (7, features.shape[1])


@pytest.mark.parametrize(
    "name, shape, features",
    [
        ("small", (1, 28, 28), (100, 7, 7)),
        ("small", (3, 32, 32), (100, 8, 8)),
        ("pool", (1, 28, 28), (64, 7, 7)),
        ("pool", (3, 32, 32), (64, 8, 8)),
        ("pool", (1, 30, 30), (64, 8, 8)),  # SAME: 30 -> 15 -> 8
        ("wresnet", (3, 32, 32), (64, 8, 8)),
        ("wresnet", (3, 224, 224), (64, 56, 56)),
    ],
)
def test_feature_maps_have_the_sizes_of_the_protocol(name, shape, features):
    with torch.no_grad():
        assert build(name, shape).features(torch.zeros(1, *shape)).shape == (1, *features)


@pytest.mark.parametrize(
    "name, shape, convolutions, parameters",
    [
        ("small", (1, 28, 28), 3, 16 * 17 + 32 * (16 * 16 + 1) + 100 * (49 * 32 + 1) + 1000),
        ("pool", (1, 28, 28), 2, 32 * 26 + 64 * (25 * 32 + 1) + 640),
        (
            "wresnet",
            (3, 32, 32),
            31,
            16 * 28 + 10 * 16 * 145 + 32 * 145 + 9 * 32 * 289 + 64 * 289 + 9 * 64 * 577 + 640,
        ),
    ],
)
def test_sizes_of_the_networks(name, shape, convolutions, parameters):
    model = build(name, shape)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == convolutions
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_pool_is_the_same_with_relu_before_or_after_the_max_pool(make_images):
    model, x = toys.biased("pool"), make_images(3)
    h = F.max_pool2d(model.conv1(x).relu(), 2)
    expected = F.max_pool2d(model.conv2(h), 2)
    assert torch.equal(model.features(x), expected)
    assert (expected < 0).any()  # no activation follows the last pool


@pytest.mark.parametrize("name, shape", [("small", (1, 28, 28)), ("wresnet", (3, 32, 32))])
def test_nothing_nonlinear_follows_the_last_convolution(name, shape, make_images):
    features = toys.biased(name, shape).features(make_images(2, shape))
    assert (features < 0).double().mean() > 0.05


def test_small_sees_relu_between_its_convolutions(make_images):
    model, x = toys.biased("small"), make_images(2)
    first = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), model.conv1.weight, model.conv1.bias, 2))
    second = F.relu(F.conv2d(F.pad(first, (1, 1, 1, 1)), model.conv2.weight, model.conv2.bias, 2))
    maps = F.conv2d(F.pad(second, (3, 3, 3, 3)), model.conv3.weight, model.conv3.bias)
    assert torch.allclose(model.features(x), maps, atol=1e-12)


def test_a_block_without_weights_is_its_shortcut():
    model = build("wresnet", (3, 32, 32)).double()
    h = torch.randn(2, 16, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    halved = model.blocks[5](h)
    assert halved.shape == (2, 32, 4, 4)
    assert torch.equal(halved[:, 8:24], F.avg_pool2d(h, 2))
    assert not halved[:, :8].any() and not halved[:, 24:].any()
    assert torch.equal(model.blocks[0](h), h)


def test_wresnet_has_one_skip_around_two_convolutions(make_images):
    block = toys.biased("wresnet", (3, 32, 32)).blocks[5]
    h = torch.randn(2, 16, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    inner = F.relu(F.conv2d(F.pad(F.relu(h), (0, 1, 0, 1)), block.conv1.weight, block.conv1.bias, 2))
    out = F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = F.pad(F.avg_pool2d(h, 2), (0, 0, 0, 0, 8, 8))
    assert torch.allclose(block(h), out + shortcut, atol=1e-12)


# Building


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_start_as_the_protocol_says_and_follow_the_seed(name):
    first, again, other = (build(name, (3, 32, 32), seed=seed) for seed in (3, 3, 4))
    for (key, a), b, c in zip(
        first.state_dict().items(), again.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
        if a.dim() == 1:
            assert not a.any()
            continue
        assert not torch.equal(a, c), key
        spread = a.numel() ** -0.5  # relative standard error of a standard deviation is 1 / sqrt(2 n)
        assert a.std().item() * a[0].numel() ** 0.5 == pytest.approx(1, abs=5 * spread)


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build("small"), build("small", seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="unknown architecture 'resnet50'; known are small, pool, wresnet"):
        build("resnet50")


@pytest.mark.parametrize(
    "x, error, words",
    [
        (torch.zeros(2, 3, 28, 28), ValueError, "Small takes images of shape (N, 1, 28, 28); got (2, 3, 28"),
        (torch.zeros(2, 1, 32, 32), ValueError, "Choose the dataset that the network was built for"),
        (torch.full((2, 1, 28, 28), 2.64), ValueError, "must lie in [0, 1]; got min 2.64 and max 2.64"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), TypeError, "torch.uint8"),
    ],
)
def test_check_input_refuses_other_images(x, error, words):
    with pytest.raises(error) as caught:
        build("small").check_input(x)
    assert words in str(caught.value)


def test_check_input_admits_what_the_network_takes():
    build("small").check_input(torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("method", ["forward", "features"])
def test_a_network_cannot_leave_the_plan_that_attacks_rely_on(method):
    with pytest.raises(TypeError, match=f"Normalised must not define {method}: .* normalisation goes to its beginning"):
        type("Normalised", (Small,), {method: lambda self, x: super(Small, self).forward((x - 0.13) / 0.31)})


def test_a_network_without_a_trunk_says_so():
    class Empty(GlobalPoolNetwork):
        pass

    with pytest.raises(TypeError, match="Empty defines no trunk"):
        Empty((1, 2, 2), 1, 2)(torch.zeros(1, 1, 2, 2))
