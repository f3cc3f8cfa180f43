"""Count what the network of Table 1's rows IG classifies right: a network with softplus in the place of ReLU."""

from collections.abc import Callable, Iterator

from ..interpreters.activations import ACTIVATIONS, ReplacedRelu
from ..models.architectures import GlobalPoolNetwork
from ..models.predict import count_correct
from .evaluation import ISA_IMAGES
from .sweep import Part, Plan, header, once


def softplus_plan(part: Part, *, n: int = ISA_IMAGES) -> Iterator[Plan]:
    """Plan the number of Table 1's images classified right with ReLU, and with softplus in its place."""
    subset = part.dataset.evaluation_subset(n).to(part.device)

    def rows(network: GlobalPoolNetwork, progress: Callable[[int], object]) -> list[dict]:
        counts = []
        for name in ("relu", "softplus"):
            with ReplacedRelu(ACTIVATIONS[name]):
                counts.append({"activation": name, "correct": count_correct(network, subset.x, subset.y), "n": n})
        progress(1)
        return counts

    score = "images classified right, with each activation in the place of ReLU"
    yield Plan(header("softplus", part, n=n, score=score), once(rows), 1, "network")
