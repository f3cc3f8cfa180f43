"""Which maps the attacks of Tables 1, 2 and A5 are measured on: the paper's, and two that it names and did not have."""

from typing import NamedTuple

from torch import Tensor, nn

from ..attacks.sneaking_settings import Search
from ..interpreters.class_activation_maps import gradcam_pp
from ..interpreters.integration import NODES, integrated_gradients
from ..interpreters.registry import INTERPRETERS, MapFunction

# By the paper's names. Its GradCAM++ and its IG are the released code's, see `interpreters`.
PAPER_INTERPRETERS = {entry.table: entry.function for entry in INTERPRETERS.values() if entry.table}

RELU_IG, GRADCAM_PP = "IG (ReLU)", "GradCAM++ (2018)"

IG_SCALE = 1.0

# From 0.1 fourteen doublings end at 819. A weight far above the margin over the discrepancy makes any attack fail, so
# that the search meets that end only where the discrepancy is nearly 0.
UNCAPPED = Search(first=0.1, high=1000.0, rounds=14)


class Sneaked(NamedTuple):
    """A map that an ISA keeps: how it is scored, what the attack follows, and the search of the discrepancy's weight.

    Attributes:
        scored: the interpreter of the scores.
        followed: the interpreter whose derivative the attack follows; the same unless that one has none.
        search: None for the released code's, which ends at 0.0256.
    """

    scored: MapFunction
    followed: MapFunction
    search: Search | None = None


def smooth_ig(model: nn.Module, x: Tensor, classes: Tensor, *, create_graph: bool = False) -> Tensor:
    """Return integrated gradients of the network with softplus of slope 20 in the place of ReLU, for attacks to follow.

    The gradient of a ReLU network is constant in pieces. Automatic differentiation sees no change of the pieces, so
    that the derivative of its IG lacks the part that moves the map. Eight points of the path are enough for a
    direction.

    Source: Dombrowski et al. (2019), who attack maps of ReLU networks by softplus.
    """
    settings = {"activation": "softplus_20", "nodes": NODES, "fixed_weights": True}
    return integrated_gradients(model, x, classes, create_graph=create_graph, **settings)


SNEAKED = {
    **{name: Sneaked(function, function) for name, function in PAPER_INTERPRETERS.items()},
    RELU_IG: Sneaked(integrated_gradients, smooth_ig, UNCAPPED),
    GRADCAM_PP: Sneaked(gradcam_pp, gradcam_pp, UNCAPPED),
}


def released_scale(name: str, maps: Tensor, p: int) -> float:
    """Return the factor that brings a map to the scale of the released code's D.

    The factor is u for CAM and GradCAM++, which are plain sums in that code, and 1 for IG. That code sums Repr over its
    K channels: the factor is K with l1, and sqrt(K) with the square of l2. The GradCAM++ of 2018 has no factor 1/u.
    """
    if name in ("IG", RELU_IG, GRADCAM_PP):
        return IG_SCALE
    return maps.shape[1] ** (1 / p) if name == "Repr" else maps[0, 0].numel()
