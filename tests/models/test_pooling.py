"""The pool with a cheap second derivative against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib.models.pooling import max_pool

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def torchs(x):
    return F.max_pool2d(x, 2, ceil_mode=True)


def up_to_second(pool, x, weight, direction):
    """The pool, the gradient of a function of it that is curved, and that gradient's derivative."""
    x = x.clone().requires_grad_()
    y = pool(x)
    (first,) = torch.autograd.grad(((weight * y).sin() + y**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * direction).sum(), x)
    return y.detach(), first.detach(), second


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    levels=st.sampled_from([2, 1000]),
    seed=st.integers(0, 10**6),
)
def test_values_and_derivatives_are_torchs_with_ties_and_odd_edges(layout, shape, levels, seed):
    """Of two levels most windows have ties: both take the first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(levels, shape, generator=generator).double().contiguous(memory_format=layout)
    weight = torch.randn(torchs(x).shape, dtype=x.dtype, generator=generator)
    direction = torch.randn(shape, dtype=x.dtype, generator=generator)
    for ours, theirs in zip(*(up_to_second(f, x, weight, direction) for f in (max_pool, torchs)), strict=True):
        assert ours.shape == theirs.shape and torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_third_derivatives_too(layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
    gradient = lambda x: torch.autograd.grad((max_pool(x) ** 4).sum(), x, create_graph=True)[0]
    assert torch.autograd.gradgradcheck(gradient, x.requires_grad_())


def test_functional_transforms_reach_it():
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.func.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x) for pool in (max_pool, torchs))
    assert torch.equal(ours, theirs)
