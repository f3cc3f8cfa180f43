"""The check of derivatives is checked: it passes a right one and finds a wrong one, a part of one, and none."""

import pytest
import torch

from interp_lib import interpreters
from interp_lib.interpreters.derivatives import derivative_errors


@pytest.fixture
def setting(small, make_images):
    return small, 0.9 * make_images(2) + 0.05, torch.tensor([[1, 2], [0, 3]])


def errors(setting, maps):
    return derivative_errors(maps, *setting, directions=3)


def test_a_right_derivative_passes(setting):
    before = [p.clone() for p in setting[0].parameters()]
    for error in errors(setting, lambda m, x, c: interpreters.cam(m, x, c).square()):
        assert error.median <= error.largest < 1e-5
    assert all(torch.equal(p, q) for p, q in zip(setting[0].parameters(), before, strict=True)), "weights are put back"


def test_weights_are_put_back_after_an_error(setting):
    before, calls = [p.clone() for p in setting[0].parameters()], []

    def fails(m, x, c):
        calls.append(x)
        if len(calls) == 4:  # the first map, two at x plus and minus hv, and the first with moved weights
            raise KeyboardInterrupt
        return interpreters.cam(m, x, c)

    with pytest.raises(KeyboardInterrupt):
        derivative_errors(fails, *setting, directions=1)
    assert all(torch.equal(p, q) for p, q in zip(setting[0].parameters(), before, strict=True))


def test_half_a_derivative_is_half_wrong(setting):
    half = lambda m, x, c: (lambda maps: maps / 2 + maps.detach() / 2)(interpreters.cam(m, x, c))
    for error in errors(setting, half):
        assert 0.2 < error.median < 0.6 and error.largest >= error.median


def test_silence_about_the_weights_is_found(setting):
    model, x, c = setting
    frozen = lambda m, x, c: interpreters.cam(m, x, c) + 0 * sum(p.detach().sum() for p in m.parameters())

    def at_x_only(m, x, c):
        weights = [p.detach() for p in m.parameters()]
        names = [name for name, _ in m.named_parameters()]
        made = torch.func.functional_call(m, dict(zip(names, weights, strict=True)), (x,))
        return made[:, :, None]

    at_x, at_weights = errors(setting, at_x_only)
    assert at_x.median < 1e-5 and at_weights == (None, None)
    assert errors(setting, frozen)[1].median < 1e-5


def test_a_map_without_a_graph_has_none(setting):
    found = errors(setting, lambda m, x, c: interpreters.cam(m, x, c).detach())
    assert found == ((None, None), (None, None))


def test_a_constant_map_has_the_derivative_zero(setting):
    at_x, _ = errors(setting, lambda m, x, c: m.classifier.weight[c])
    assert at_x == (0, 0)


def test_single_precision_is_refused(setting):
    model, x, c = setting
    with pytest.raises(ValueError, match="float64"):
        derivative_errors(interpreters.cam, model.float(), x.float(), c)
