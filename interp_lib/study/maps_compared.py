"""What the chapter on comparing maps compares: one table of maps of a class, and the images on which they are drawn."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.against_interpretability import aai
from ..attacks.projected_gradient_descent import pgd
from ..data import EvaluationSubset
from ..fast.fold import fold_logits
from ..interpreters import class_activation_maps as cams
from ..interpreters import integration, masking, sensitivity
from ..interpreters.registry import sum_colours, upsample
from ..models.predict import evaluating
from ..values import check_choice, check_radius
from .accuracy import check_subset
from .evaluation import ALPHA, STEPS
from .rank_correlation import PRINTED_AAI

# GradCAM is left out: on these networks it is the CAM. The GradCAM++ is that of Chattopadhay et al., not the release's.
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "CAM": cams.cam,
    "GradCAM++ (2018)": cams.gradcam_pp,
    "RISE": partial(masking.rise, masks=1000),
    "gradient": sensitivity.vanilla_gradient,
    "SmoothGrad": sensitivity.smoothgrad,
    "guided": sensitivity.guided_backpropagation,
    "x · gradient": sensitivity.input_times_gradient,
    "IG": integration.integrated_gradients,
}

RANDOM = ("RISE", "SmoothGrad")

INPUTS = ("x", "noise", "PGD", "AAI")

SETTINGS = {
    "RISE": "1,000 masks",
    "SmoothGrad": "50 copies, sigma 0.15",
    "IG": "ReLU, black baseline, 100 steps, right",
}


def attack_settings(eps: float, steps: int) -> dict:
    """Return what a record says of `inputs_of`."""
    return {"names": list(INPUTS), "norm": "linf", "eps": eps, "steps": steps, "alpha": ALPHA}


def map_of(name: str, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    """Return one class's map of every image at the map's own resolution, (N, h, w), signed, colours summed.

    Args:
        name: a key of `FUNCTIONS`.
        x: images (N, C, H, W) in [0, 1].
        y: the class of each map, int64 (N,).
        seed: of the masks of RISE and the noise of SmoothGrad.

    Raises:
        ValueError: an unknown name.
    """
    check_choice(name, "name", tuple(FUNCTIONS))
    drawn = {"generator": torch.Generator().manual_seed(seed)} if name in RANDOM else {}
    with evaluating(model), torch.no_grad():
        asked = fold_logits(model) if name == "RISE" else model  # which only calls it, a thousand times an image
        return sum_colours(FUNCTIONS[name](asked, x, y[:, None], **drawn))[:, 0].detach()


def to_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps (N, h, w) to another size, as (N, *size): means over blocks when smaller, bilinear when larger."""
    if maps.shape[1] >= size[0]:
        return F.adaptive_avg_pool2d(maps[:, None], size)[:, 0]
    return upsample(maps[:, None], size)[:, 0]


def inputs_of(
    model: nn.Module, subset: EvaluationSubset, *, eps: float, steps: int = STEPS[-1], seed: int = 0
) -> Mapping[str, Tensor]:
    """Return the images on which maps are compared: `INPUTS` -> (N, C, H, W).

    'x' are natural images; 'noise' has +eps or -eps added to every pixel at random, clipped to the box, which is as
    large a change as an attack's; 'PGD' is Table 3's attack; 'AAI' is eq. (7) with its hinge, in the top-k form of
    Table 2, which moves the CAM of the true class and keeps the prediction.

    Args:
        subset: images and labels, on the model's device.
        eps: radius > 0, in the unit of the pixels.
        steps: of PGD and AAI, of 0.01 each.
        seed: of the noise.

    Raises:
        TypeError, ValueError: see `checks` and `values`.
    """
    check_subset(subset)
    check_radius(eps, above=True)
    x, y = subset.x, subset.y
    signs = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x) < 0.5
    start = (x + subset.random_start(eps).to(x)).clamp(0, 1)
    pixels = map_of("CAM", model, x[:1], y[:1]).numel()
    attack = PRINTED_AAI["top-k"] | {"steps": steps}
    attack["top_k"] = min(attack["top_k"], -(-pixels // 2))  # digits have CAMs of four pixels
    return {
        "x": x,
        "noise": (x + eps * (2 * signs.to(x) - 1)).clamp(0, 1),
        "PGD": pgd(model, x, y, eps=eps, alpha=ALPHA, steps=steps),
        "AAI": aai(model, x, y, eps=eps, start=start, **attack),
    }
