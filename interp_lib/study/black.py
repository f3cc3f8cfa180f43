"""Measure the logits of the black image, the baseline of integrated gradients; the paper does not report them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .evaluation import IMAGES
from .sweep import Part, Plan, header, once


@torch.no_grad()
def black_rows(model: nn.Module, x: Tensor, y: Tensor) -> list[dict]:
    """Measure max_c |f_c(0)|, which section 2 wants near 0, beside the logits f_t(x) of natural images.

    Args:
        model: a network in evaluation mode.
        x, y: images (N, C, H, W) and labels (N,).

    Returns:
        One row for the network: largest |f_c(0)|, the class with the largest f_c(0), median f_t(x), n.
    """
    black, true = model(torch.zeros_like(x[:1]))[0], model(x).gather(1, y[:, None])
    # Not torch.median, which returns the lower of the two middle values.
    median = torch.quantile(true.double(), 0.5).item()
    return [{"largest": black.abs().max().item(), "class": int(black.argmax()), "median_logit": median, "n": len(x)}]


def black_plan(part: Part, *, n: int = IMAGES) -> Iterator[Plan]:
    """Plan `black_rows` on the paper's images."""
    subset = part.dataset.evaluation_subset(n).to(part.device)
    rows = once(lambda network, _: black_rows(network, subset.x, subset.y))
    yield Plan(header("black", part, n=n), rows, 1, "network")
