"""The Square attack: its schedule, what a query changes, and networks whose answer is known."""

import pytest
import torch
from conftest import images
from torch import nn

from interp_lib.attacks.interpretability_sneaking import margin as lead
from interp_lib.attacks.squares import area, square
from interp_lib.models.architectures import build


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_squares_shrink_as_the_published_schedule_says():
    shares = {1: 0.8, 5: 0.8, 6: 0.4, 25: 0.4, 26: 0.2, 101: 0.1, 251: 0.05, 501: 0.025, 1001: 0.0125, 2001: 0.00625}
    assert {query: area(query, 5000, 0.8) for query in shares} == pytest.approx(shares)
    assert area(4999, 5000, 0.8) == pytest.approx(0.8 / 512)
    assert area(500, 1000, 0.8) == area(2500, 5000, 0.8)  # rescaled to the number of queries


def test_the_lead_is_negative_where_another_class_is_above():
    logits = torch.tensor([[2.0, 5.0, 1.0], [4.0, 1.0, 3.5]])
    assert lead(logits, torch.tensor([0, 0])).tolist() == [-3.0, 0.5]


class Sum(nn.Module):
    """Two classes: the first leads as long as the image's sum exceeds a bound."""

    def __init__(self, bound):
        super().__init__()
        self.bound, self.calls, self.seen = bound, [], []

    def forward(self, x):
        self.calls.append(len(x))
        self.seen.append(x.clone())
        total = x.flatten(1).sum(1) - self.bound
        return torch.stack([total, torch.zeros_like(total)], 1)


def test_a_sum_is_driven_to_its_least_value():
    x, y = torch.full((3, 1, 6, 6), 0.5), torch.zeros(3, dtype=torch.long)
    x_adv = square(Sum(0.0), x, y, eps=0.2, queries=800, generator=seeded())
    assert torch.allclose(x_adv, torch.full_like(x, 0.3))


def test_fooled_images_cost_no_more_queries_and_queries_change_squares_by_two_eps():
    model = Sum(17.0)
    x, y = torch.full((8, 2, 5, 5), 0.5), torch.zeros(8, dtype=torch.long)  # sums of 25, that become 17 and less
    x_adv = square(model, x, y, eps=0.2, queries=400, generator=seeded())
    assert (x_adv.flatten(1).sum(1) <= 17).all()
    assert len(model.calls) < 400  # and a few that prove the fold
    first = next(seen for seen in model.seen if seen.shape == x.shape and not torch.equal(seen, x))
    stripes = (first - 0.5) / 0.2
    assert torch.allclose(stripes.abs(), torch.ones_like(x)) and torch.allclose(stripes, stripes[:, :, :1].expand_as(x))


def test_inside_ball_and_box_and_no_worse_than_the_stripes():
    model, x = build("small", (1, 8, 8), 4, seed=1).double(), images(6, (1, 8, 8))
    y = model(x).argmax(1)
    few, many = (square(model, x, y, eps=0.1, queries=k, generator=seeded()) for k in (1, 300))
    assert (many - x).abs().max() <= 0.1 + 1e-12 and 0 <= many.min() and many.max() <= 1
    assert (lead(model(many), y) <= lead(model(few), y) + 1e-9).all()


def test_no_images_no_queries_and_no_generator():
    model, x, y = Sum(0.0), torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.long)
    assert square(model, x[:0], y[:0], eps=0.1, generator=seeded()).shape == (0, 1, 4, 4)
    assert torch.equal(square(model, x, y, eps=0.1, queries=0, generator=seeded()), x)
    with pytest.raises(ValueError, match="generator must be a torch.Generator"):
        square(model, x, y, eps=0.1, generator=None)
    with pytest.raises(ValueError, match="share"):
        square(model, x, y, eps=0.1, share=0, generator=seeded())
