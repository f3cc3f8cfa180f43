"""Measure the logits of the black image, the baseline of integrated gradients; the paper does not report them."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import data
from . import records
from .sweep import find_networks, grow, once


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


def measure_black(data_dir=None, networks_dir=None, folder=records.RESULTS) -> list[Path]:
    """Run `black_rows` for the released Small networks on the paper's 200 images; write one record per dataset."""
    networks, paths = list(find_networks("released", networks_dir)), []
    for dataset in ("mnist", "cifar10"):
        found = [n for n in networks if (n.dataset, n.model) == (dataset, "small")]
        loaded = data.load(dataset, data_dir)
        settings = {
            "measurement": "black", "dataset": dataset, "title": loaded.title, "data": loaded.fingerprint,
            "subset": {"n": 200, "seed": 99}, "model": "small", "networks": "released",
        }  # fmt: skip
        subset = loaded.evaluation_subset(200)
        rows = once(lambda network, _, s=subset: black_rows(network, s.x, s.y))
        paths.append(grow(settings, found, rows, 1, unit="image", folder=folder, device="cpu"))
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m interp_lib.study.black", description=__doc__)
    parser.add_argument("--data-dir", help="default: INTERP_DATA")
    parser.add_argument("--released-dir", help="default: INTERP_RELEASED")
    parser.add_argument("--results-dir", default=records.RESULTS)
    chosen = parser.parse_args()
    print(*measure_black(chosen.data_dir, chosen.released_dir, chosen.results_dir), sep="\n")
