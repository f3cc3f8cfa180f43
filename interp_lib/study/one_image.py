"""One image under one attack: logits, maps before and after, and both sides of Proposition 1, for any network."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attacks.against_interpretability import aai
from ..attacks.ascent import uniform_start
from ..attacks.interpretability_sneaking import isa
from ..attacks.projected_gradient_descent import pgd
from ..attacks.sneaking_settings import Search
from ..checks import check_images, check_labels
from ..discrepancies import discrepancy, kendall_tau, proposition1_bound
from ..interpreters.registry import INTERPRETERS, sum_colours
from ..models.predict import evaluating
from ..values import check_choice, check_radius, check_whole

ATTACKS = ("PGD", "ISA", "AAI")

STARTS = ("x", "random point")

# Maps of classes; `representation` has none. Fewer points, copies and masks than the defaults, to answer at once.
SHOWN = tuple(name for name, entry in INTERPRETERS.items() if entry.kind in ("CAM", "PSM", "black box"))
FEW: dict[str, dict] = {
    "integrated_gradients": {"steps": 50, "rule": "midpoint"},
    "smoothgrad": {"samples": 25},
    "rise": {"masks": 500},
}
FEW["integrated_gradients_release"] = FEW["integrated_gradients"]
RANDOM = ("smoothgrad", "rise")

# Names that fit above a map.
TITLES = {
    "cam": "CAM",
    "gradcam": "GradCAM",
    "gradcam_pp": "GradCAM++",
    "gradcam_pp_release": "CAM, w ≥ 0",
    "integrated_gradients": "IG",
    "integrated_gradients_release": "IG, softplus",
    "vanilla_gradient": "gradient",
    "smoothgrad": "SmoothGrad",
    "guided_backpropagation": "guided",
    "deconvolution": "deconvolution",
    "rise": "RISE",
    "input_times_gradient": "x · gradient",
}

TOP_K = 8  # pixels of the AAI, as in Table 2
WEIGHTS = Search(rounds=6)  # of ISA's discrepancy


class AttackedImage(NamedTuple):
    """What an attack does to an image and to its maps.

    Attributes:
        x, x_adv: (C, H, W), the image and the attacked image.
        logits: (2, classes), f(x) and f(x').
        pair: t and t', the class of the image and the class that its maps are compared with.
        maps: (2, 2, h, w), the maps of x and of x', each for t and t'; colours are summed.
        tau: Kendall's tau-b between the maps of x and x', for t and t'; NaN where a map is constant.
        discrepancy: the l1 2-class discrepancy, eq. (4), of the maps before colours are summed.
        bound: its lower bound 1/2 (f_t(x) - f_t'(x)), eq. (5).
        complete: whether the interpreter is complete, as Proposition 1 assumes.
    """

    x: Tensor
    x_adv: Tensor
    logits: Tensor
    pair: tuple[int, int]
    maps: Tensor
    tau: tuple[float, float]
    discrepancy: float
    bound: float
    complete: bool

    @property
    def bounded(self) -> bool:
        """Whether Proposition 1 applies: the interpreter is complete, and t' is at least as likely as t on x'."""
        t, other = self.pair
        return self.complete and bool(self.logits[1, other] >= self.logits[1, t])

    def row(self, names: Sequence[str]) -> dict:
        """Return what a record keeps: t, the class of x', tau of t's map, D, and its bound where it applies.

        Args:
            names: names of the classes.
        """
        tau = self.tau[0] if math.isfinite(self.tau[0]) else None
        of_class = {"t": names[self.pair[0]], "reached": names[int(self.logits[1].argmax())]}
        return {**of_class, "tau": tau, "D": self.discrepancy, "bound": self.bound if self.bounded else None}


def maps_by(name: str, model: nn.Module, x: Tensor, classes: Tensor, *, seed: int = 0) -> Tensor:
    """Return the maps of an interpreter, called by its name in `INTERPRETERS`, with few points, copies and masks.

    Args:
        name: one of `SHOWN`.
        model, x, classes: see `interpreters.cam`.
        seed: seed of the noise of SmoothGrad and of the masks of RISE.

    Returns:
        (N, k, h, w), or (N, k, C, H, W) for maps of pixels.

    Raises:
        TypeError, ValueError: see `checks`; also an unknown name.
    """
    check_choice(name, "interpreter", SHOWN)
    more: dict[str, Any] = dict(FEW.get(name, {}))
    if name in RANDOM:
        more["generator"] = torch.Generator().manual_seed(seed)
    return INTERPRETERS[name].function(model, x, classes, **more)


def attack_image(
    model: nn.Module,
    x: Tensor,
    *,
    label: int | None = None,
    target: int | None = None,
    attack: str = "PGD",
    interpreter: str = "cam",
    eps: float,
    alpha: float,
    steps: int,
    start: str = "x",
    seed: int = 0,
) -> AttackedImage:
    """Attack one image and compute what the attack does to its class and to its maps.

    The attacks on maps, ISA and AAI, attack the CAM; `interpreter` decides which maps are computed and compared.

    Args:
        model: a network with a CAM; `adapt` makes one of others.
        x: one image (1, C, H, W) in [0, 1].
        label: its class t. Default: the network's prediction.
        target: t', the class that PGD and ISA aim at. Default: none, any class other than t will do; the maps are then
            compared for the likeliest other class on x'.
        attack: 'PGD'; 'ISA', eq. (6), which keeps the maps of t and t'; 'AAI', eq. (7), which keeps the class.
        interpreter: one of `SHOWN`.
        eps, alpha: radius and step size, in the unit of the pixels.
        steps: number of steps.
        start: 'x' or 'random point', of the ball; ISA starts at x.
        seed: seed of the random point, and of maps that are random.

    Returns:
        The attacked image, its logits and maps, and both sides of Proposition 1.

    Raises:
        TypeError, ValueError: see `checks`; also more than one image, or a target that is the label.

    Source: eqs. (4) to (7).
    """
    check_images(x)
    check_choice(attack, "attack", ATTACKS)
    check_choice(start, "start", STARTS)
    check_choice(interpreter, "interpreter", SHOWN)
    if len(x) != 1:
        raise ValueError(f"x must be one image (1, C, H, W); got {tuple(x.shape)}. Write x[:1].")
    check_radius(eps)
    check_whole(seed, "seed", 0, 2**63 - 1)
    x = x.detach()
    with evaluating(model), torch.no_grad():
        clean = model(x)
        y = clean.argmax(1) if label is None else torch.tensor([label], device=x.device)
        aim = None if target is None else torch.tensor([target], device=x.device)
        for classes, name in ((y, "label"), (aim, "target")):
            if classes is not None:
                check_labels(classes, 1, clean.shape[1], name)
        if target == int(y):
            raise ValueError(f"target must be another class than the label {int(y)}.")
        x_adv = _attacked(model, x, y, aim, attack, start, seed, eps=eps, alpha=alpha, steps=steps)
        attacked = model(x_adv)
        # Untargeted: the class that leads on x', or where that is still t, the runner-up.
        other = attacked.scatter(1, y[:, None], -torch.inf).argmax(1) if aim is None or attack == "AAI" else aim
        pair = torch.stack([y, other], 1)
    before, after = (maps_by(interpreter, model, image, pair, seed=seed).detach() for image in (x, x_adv))
    shown = torch.cat([sum_colours(before), sum_colours(after)])
    return AttackedImage(
        x[0].cpu(),
        x_adv[0].cpu(),
        torch.cat([clean, attacked]).cpu(),
        (int(y), int(other)),
        shown.cpu(),
        tuple(kendall_tau(*shown[:, j : j + 1]).item() for j in (0, 1)),
        float(discrepancy(before, after)),
        float(proposition1_bound(clean, y, other)),
        INTERPRETERS[interpreter].complete,
    )


def _attacked(model: nn.Module, x: Tensor, y: Tensor, aim: Tensor | None, attack: str, start: str, seed: int, **ascent):
    """Return x' of the attack with this name; see `attack_image`."""
    if attack == "ISA":
        return isa(model, x, y, aim, search=WEIGHTS, **ascent)
    begin = None
    if start != "x":
        begin = uniform_start(x, ascent["eps"], torch.Generator().manual_seed(seed))
    if attack == "AAI":
        with torch.no_grad():
            pixels = model.features(x[:1]).shape[2:].numel()
        return aai(model, x, y, top_k=min(TOP_K, pixels), start=begin, **ascent)
    return pgd(model, x, y if aim is None else aim, targeted=aim is not None, start=begin, **ascent)
