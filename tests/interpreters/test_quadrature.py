"""Few points in place of many: against the sums themselves."""

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib.interpreters.integration import integrated_gradients
from interp_lib.interpreters.quadrature import gauss_for_sum, path_points


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 200), nodes=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_polynomials_are_summed_exactly(steps, nodes, seed):
    """Up to degree 2 nodes - 1, in the Chebyshev basis; and with all points it is the sum itself."""
    nodes = min(nodes, steps)
    points = tuple((s + 1) / steps for s in range(steps))
    tau, weights = gauss_for_sum(points, nodes)
    assert (weights > 0).all() and float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert points[0] - 1e-12 <= float(tau.min()) <= float(tau.max()) <= 1 + 1e-12
    coefficients = torch.randn(2 * nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def polynomial(t):
        angle = (2 * t - 1).clamp(-1, 1).acos()
        return sum(c * (k * angle).cos() for k, c in enumerate(coefficients))

    mean = polynomial(torch.tensor(points, dtype=torch.float64)).mean()
    assert float((weights * polynomial(tau)).sum()) == pytest.approx(float(mean), abs=1e-10)


def test_points_by_hand():
    like = torch.zeros((), dtype=torch.float64)
    places, weights = path_points(4, "right", None, like=like)
    assert places.tolist() == [0.25, 0.5, 0.75, 1] and weights is None
    assert path_points(2, "midpoint", None, like=like)[0].tolist() == [0.25, 0.75]
    places, weights = path_points(2, "left", 2, like=like)
    assert places.tolist() == pytest.approx([0, 0.5]) and weights.tolist() == pytest.approx([0.5, 0.5])
    places, weights = path_points(3, "left", 1, like=like)  # the mean of 0, 1/3, 2/3
    assert places.tolist() == pytest.approx([1 / 3]) and weights.tolist() == [1]
    for nodes in (0, 5):
        with pytest.raises(ValueError, match=r"1 \.\. 4"):
            path_points(4, "right", nodes, like=like)


@pytest.mark.parametrize("name", ["small", "wresnet"])
def test_ig_of_a_smooth_network_needs_few_points(name, make_images):
    model = toys.biased(name, (3, 8, 8), 5)  # without biases relu is linear on a path from black
    x, classes = make_images(3, (3, 8, 8)), torch.tensor([[0, 4], [1, 1], [3, 2]])
    for activation, most in (("softplus", 1e-7), ("relu", 1.0)):
        full = integrated_gradients(model, x, classes, activation=activation)
        few = integrated_gradients(model, x, classes, activation=activation, nodes=8)
        gap = (full - few).abs().max() / full.abs().max()
        assert gap < most and (activation == "softplus" or gap > 1e-4), (activation, float(gap))
    everything = integrated_gradients(model, x, classes, steps=10, nodes=10)
    assert (everything - integrated_gradients(model, x, classes, steps=10)).abs().max() < 1e-12
