"""RISE: the mean of random masks, weighted by the network's probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..values import check_number, check_whole
from .common import _at_once, _check, check_generator, leaving_no_trace


@leaving_no_trace
def rise(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    generator: torch.Generator,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
    probability: bool = True,
    internal_batch_size: int | None = None,
    create_graph: bool = False,
) -> Tensor:
    """RISE, a black-box method: the mean of random masks, each weighted by the score of the masked image.

        [L(x, c)]_i = 1/(m E[M]) sum_{s=1..m} s_c(x * M_s) [M_s]_i

    A mask starts as a grid of cells x cells random bits, each 1 with probability `keep`. It is enlarged bilinearly to
    one cell more than the image on each axis, and cropped at a random offset. All images get the same masks.

    Args:
        model, x, classes: as `sensitivity.vanilla_gradient`; the model is only called.
        generator: source of the masks; the global generator is not used.
        masks: number of masks m.
        cells, keep: see above; E[M] = keep.
        probability: take s as the softmax of the logits, as Petsiuk et al. do; otherwise as the logits.
        internal_batch_size: about how many masked images are in memory together; None for as many as take a few
            hundred MB.
        create_graph: whether the map can be differentiated; the graph then keeps all masked images.

    Returns:
        (N, k, H, W), without an axis for colour, since a mask covers all colours. Not complete.

    Raises:
        TypeError, ValueError: see `checks` and `values`; also masks, cells or keep out of range.

    Source: section 1; Petsiuk et al. (2018).
    """
    _check(model, x, classes)
    check_whole(masks, "masks", 1)
    check_whole(cells, "cells", 1)
    check_number(keep, "keep", 0, 1, above=True)
    check_generator(generator)
    size = x.shape[2:]
    cell = [-(-n // cells) for n in size]
    total = torch.zeros(*classes.shape, *size, dtype=x.dtype, device=x.device)
    if not classes.numel():
        return total
    images = _at_once(internal_batch_size, model, model, x, total=masks * len(x))
    at_once = max(images // len(x), 1)
    like = {"generator": generator, "device": generator.device}
    with torch.set_grad_enabled(create_graph):
        for start in range(0, masks, at_once):
            drawn = []
            # One mask after the other: the masks are the same whatever the internal batch size.
            for _ in range(min(at_once, masks - start)):
                bits = (torch.rand(1, 1, cells, cells, **like) < keep).to(x.dtype)
                grown = F.interpolate(bits, [(cells + 1) * c for c in cell], mode="bilinear", align_corners=False)
                top, left = (int(torch.randint(c, (), **like)) for c in cell)
                drawn.append(grown[0, :, top : top + size[0], left : left + size[1]])
            mask = torch.stack(drawn).to(x.device)  # (s, 1, H, W)
            masked = (x * mask[:, None]).flatten(0, 1)
            scores = torch.cat([model(part) for part in masked.split(max(images, 1))])
            scores = (scores.softmax(1) if probability else scores).unflatten(0, (len(mask), len(x)))
            scores = scores.gather(2, classes.expand(len(mask), *classes.shape))
            total = total + torch.einsum("snk,shw->nkhw", scores, mask[:, 0])
    return total / (masks * keep)
