"""Measure how much another CPU's rounding moves an accuracy: the cause of most of Pool's differences from print."""

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from .. import data, storage
from ..attacks.projected_gradient_descent import pgd_iterates
from ..models.architectures import GlobalPoolNetwork, SameConv2d
from ..models.predict import classified_right
from . import compare, records
from .accuracy import proportion
from .measure import STEPS
from .sweep import Network, find_networks


@contextmanager
def rounded_differently(model: GlobalPoolNetwork, generator: torch.Generator, scale: float) -> Iterator[None]:
    """Add noise of `scale` times the mean magnitude to the convolutions of `model`, to imitate another CPU's rounding.

    Where an image is constant, its feature maps are constant too, and a max-pool sees exactly equal maxima. Which of
    them gets the gradient is then the library's choice, and on hardware that rounds differently it is chance.
    """

    def hook(_, __, h):
        # Detached and with its own generator: rounding has no gradient, and the global generator stays as it was.
        return h + scale * h.detach().abs().mean() * torch.randn(h.shape, generator=generator)

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, SameConv2d)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rounding_record(
    dataset: data.Dataset,
    model: str,
    found: Sequence[Network],
    cells: Iterable[tuple[str, float]],
    *,
    folder: str | Path = records.RESULTS,
    draws: int = 3,
    scale: float = 1e-6,
    n: int = 200,
) -> Path:
    """Measure how much rounding alone moves an accuracy under PGD: repeat the attack `draws` times with other rounding.

    Args:
        cells: pairs (method, eps) to measure, each after 10, 100 and 200 steps.
        scale: scale of the noise, relative to a layer's mean magnitude; float32 rounds at 6e-8 per multiplication.

    Returns:
        The record's path; a row has method, eps, steps, draw, correct, n, accuracy, se.
    """
    settings = {
        "measurement": "rounding", "dataset": dataset.name, "title": dataset.title, "data": dataset.fingerprint,
        "subset": {"n": n, "seed": 99}, "model": model, "networks": "released",
        "attack": {"name": "pgd", "alpha": 0.01, "steps": list(STEPS[1:])}, "draws": draws, "scale": scale,
    }  # fmt: skip
    record = records.Record(f"rounding-{dataset.name}-{model}-released", settings)
    path = Path(folder) / f"{record.name}.json"
    if path.exists():
        record = records.read(path)
    subset = dataset.evaluation_subset(n)
    by_method = {network.labels["method"]: network for network in found}
    held = {(row["method"], row["eps"], row["draw"]) for row in record.rows}
    wanted = [(method, eps, draw) for method, eps in cells for draw in range(draws)]
    began, before = time.perf_counter(), record.provenance.get("seconds", 0.0)
    for method, eps, draw in tqdm([w for w in wanted if w not in held], desc="rounding", unit="run", disable=None):
        plain = by_method[method].load()
        noisy, generator = copy.deepcopy(plain), torch.Generator().manual_seed(draw)
        with rounded_differently(noisy, generator, scale):
            run = pgd_iterates(noisy, subset.x, subset.y, eps=eps, alpha=0.01, steps=max(STEPS))
            stops = {k: x_adv for k, x_adv in enumerate(run, 1) if k in STEPS[1:]}
        rows = []
        for k, x_adv in stops.items():
            # The noise changes the search only; the unchanged network judges its result.
            right = classified_right(plain, x_adv, subset.y)
            rows.append({"method": method, "eps": eps, "steps": k, "draw": draw, **proportion(right)})
        with storage.locked(folder):  # another process may have written to the record meanwhile
            record = records.read(path) if path.exists() else record
            there = {(row["method"], row["eps"], row["draw"]) for row in record.rows}
            record.rows += [] if (method, eps, draw) in there else rows
            record.provenance = storage.provenance(before + time.perf_counter() - began)
            records.write(record, folder)
    return path


def measure_rounding(data_dir=None, networks_dir=None, folder: str | Path = records.RESULTS) -> Path:
    """Run `rounding_record` for the Pool cells in the records of `folder` that differ from print."""
    off = [
        c for c in compare.compare(records.read_all(folder)) if c.model == "Pool" and c.verdict() not in ("", "exact")
    ]
    if not off:
        raise FileNotFoundError(f"No Pool value in {folder} differs from print; measure A1 first.")
    found = [n for n in find_networks("released", networks_dir) if (n.dataset, n.model) == ("mnist", "pool")]
    cells = sorted({(c.method, compare.eps_of(c.level)) for c in off if c.table in ("A1", "A2", "A3")})
    return rounding_record(data.load("mnist", data_dir), "pool", found, cells, folder=folder)
