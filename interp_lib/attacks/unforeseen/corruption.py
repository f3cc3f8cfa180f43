"""The loop of all unforeseen attacks: gradient ascent on the parameters of a corruption.

A corruption makes x' = clip(T(x; z), 0, 1) from parameters z in a set Z. The attack climbs the cross-entropy l over z:

    z^{k+1} = P_Z( z^k + alpha s(grad_z l(f(x'(z^k)))) ),        k = 0, ..., steps - 1.

Each corruption of this package says what T, Z and the random first z are. Strengths have the units of Kang et al.

The public code of these attacks, with which Table 5 was measured, departs from this in two of them: Gabor's and Snow's.
`as_released` asks for what it does. See `gabor_noise` and `snow_flakes`.

Source: Kang et al. (2019), and their public code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checks import check_batch, check_step_sizes
from ...fast.fold import fold_for_attack
from ...models.predict import evaluating
from ..ascent import cross_entropy, iterates, value_and_gradient


@dataclass(frozen=True)
class Corruption:
    """A corruption of one batch of images, with its random parts drawn, for one run of `attack`.

    Attributes:
        start: the first parameters z, (N, ...), random.
        transform: z -> T(x; z), (N, C, H, W), differentiable; what leaves [0, 1] is clipped, see `images`.
        move: (z, gradient) -> the next z: a step that raises the objective, and the projection onto Z.
    """

    start: Tensor
    transform: Callable[[Tensor], Tensor]
    move: Callable[[Tensor, Tensor], Tensor]

    def images(self, z: Tensor) -> Tensor:
        """Return x' = clip(T(x; z), 0, 1), (N, C, H, W)."""
        return self.transform(z).clamp(0, 1)


# Makes a corruption for images x, from x, eps, alpha and the generator.
Make = Callable[[Tensor, float | Tensor, float | Tensor, torch.Generator], Corruption]


def corrupted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    make: Make,
    *,
    eps: float | Tensor,
    alpha: float | Tensor | None,
    steps: int,
    targeted: bool,
    generator: torch.Generator,
) -> Tensor:
    """Check the arguments of an unforeseen attack, make its corruption and climb; see `attack`."""
    check_batch(model, x, y)
    alpha = _default_step(eps, steps) if alpha is None else alpha
    check_step_sizes(eps=eps, alpha=alpha, steps=steps, largest=LARGEST)
    if not isinstance(generator, torch.Generator):
        raise ValueError("generator must be a torch.Generator, the source of the random start.")
    if len(x) == 0:
        return x.clone()
    return attack(model, x, y, make(x.detach(), eps, alpha, generator), steps=steps, targeted=targeted)


LARGEST = 1e6  # of a strength, far beyond what any of these attacks needs: Fog's is 2048


def _default_step(eps: float | Tensor, steps: int) -> float | Tensor:
    """Return Kang et al.'s step size, eps / sqrt(steps)."""
    return eps / math.sqrt(steps) if isinstance(steps, int) and steps > 0 and not isinstance(eps, bool | str) else 0.0


def attack(
    model: nn.Module, x: Tensor, y: Tensor, corruption: Corruption, *, steps: int, targeted: bool = False
) -> Tensor:
    """Climb the cross-entropy over a corruption's parameters and return its last images, (N, C, H, W) in [0, 1].

    For a corruption of one's own; `gabor`, `snow`, `jpeg`, `fog` and `elastic` make theirs and call this function.

    Args:
        model: images -> logits (N, classes).
        x, y: the images that the corruption was made for; true labels, or targets when `targeted`.
        corruption: see `Corruption`.
        steps: number of steps.

    Raises:
        NotANumber: the objective or its gradient is NaN or infinite; names the first such image.
    """
    with evaluating(model):
        folded = fold_for_attack(model)
        objective = cross_entropy(folded.logits, y, targeted=targeted, head=folded.head)

        def slope(z: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                free = corruption.transform(z)
            images = free.detach().clamp(0, 1)
            value, gradient = value_and_gradient(objective, images)
            # The derivative of the clip; autograd's takes several passes.
            return value, torch.autograd.grad(free, z, gradient.mul_(images == free))[0]

        last = list(iterates(slope, corruption.start, corruption.move, int(steps), every=False))
        with torch.no_grad():
            return corruption.images(last[0] if steps else corruption.start)


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers in [0, 1) on the generator's device, with dtype and device of `like`."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def padded(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of images until both sides are multiples of a number."""
    height, width = x.shape[2:]
    return torch.nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
