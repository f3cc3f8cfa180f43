"""Predictions, counts of correct images and fingerprints of networks; predictions always use evaluation mode."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..checks import check_batch, check_numbers
from ..values import check_whole


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Set `model` to evaluation mode; restore every module's own mode at the end, also after an exception.

    A plain function is passed through unchanged.
    """
    # Modes are kept per module: model.train() would also unfreeze batch normalisation that was set to eval on purpose.
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if modes:
        model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def all_finite(model: nn.Module) -> bool:
    """Return whether every weight is finite."""
    return all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def fingerprint(model: torch.nn.Module) -> str:
    """Return the first 16 hex digits of the SHA-256 of a network's weights, to identify the network in records."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Return the predicted classes, int64 (N,), computed in batches of `batch_size` images.

    Raises:
        TypeError, ValueError: see `checks`.
        NotANumber: a logit is NaN or infinite; the message names the first such image.
    """
    check_batch(model, x)
    check_whole(batch_size, "batch_size", 1)
    with evaluating(model):
        logits = torch.cat([model(batch) for batch in x.split(batch_size)])
    check_numbers(logits, "a logit")
    return logits.argmax(1)


def classified_right(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1000) -> Tensor:
    """Return which images (N, C, H, W) are classified as y (N,): bool (N,)."""
    check_batch(model, x, y)
    return predictions(model, x, batch_size) == y


def count_correct(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1000) -> int:
    """Count the images (N, C, H, W) that are classified as y (N,)."""
    return int(classified_right(model, x, y, batch_size).sum())
