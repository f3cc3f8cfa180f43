"""Compare two interpretations: eqs. (3), (4) and (8), NDS and NSL, rank correlation, and Proposition 1.

The discrepancies take maps (N, k, ...) as `interpreters` returns them, with k classes per image and any number of axes
after these, and return one number per image. They detach nothing. The l1 and l2 norms have the subgradient 0 where the
maps agree. A name with an underscore is the same function unchecked, for the inner steps of attacks and training.

A CAM in units of eq. (1) sums to the logit. The released code omits its factor 1/u, which multiplies every discrepancy
by the number of pixels u (squared l2: by u^2). Pass `scale=u` to obtain the released code's numbers.
"""

import torch
from torch import Tensor

from .checks import check_labels, check_logits, check_pair
from .values import check_choice, check_number


def check_maps(maps: Tensor, maps_adv: Tensor) -> None:
    """Refuse two sets of maps of different shapes, or without an axis for classes and an axis for pixels.

    Raises:
        TypeError: they are not floating-point tensors.
        ValueError: names both shapes.
    """
    check_pair(maps, maps_adv, "maps", 3)


def distances(maps: Tensor, maps_adv: Tensor, p: int = 1, squared: bool = False, *, scale: float = 1.0) -> Tensor:
    """Return ||L(x, i) - L(x', i)||_p for every class: the terms of eq. (3).

    Args:
        maps, maps_adv: L(x, .) and L(x', .), (N, k, ...), of the same k classes.
        p: 1 or 2.
        squared: take the square of the norm, as the released code does in its l2 attacks.
        scale: factor on both maps; u, the number of pixels, gives the released code's units of a CAM.

    Returns:
        (N, k).

    Raises:
        TypeError, ValueError: see `checks` and `values`; also another p, or maps of different shapes.

    Source: eq. (3).
    """
    check_maps(maps, maps_adv)
    check_choice(p, "p", (1, 2))
    check_number(scale, "scale", 0, above=True)
    return _distances(maps, maps_adv, p, squared, scale)


def _distances(maps: Tensor, maps_adv: Tensor, p: int = 1, squared: bool = False, scale: float = 1.0) -> Tensor:
    norm = torch.linalg.vector_norm((maps_adv - maps).flatten(2), p, dim=2) * scale
    return norm.square() if squared else norm


def discrepancy(maps: Tensor, maps_adv: Tensor, p: int = 1, squared: bool = False, *, scale: float = 1.0) -> Tensor:
    """Return the interpretability discrepancy for any set of classes.

        D(x, x') = 1/|C| sum_{i in C} ||L(x, i) - L(x', i)||_p                                        (eq. 3)

    C is the set of classes that the maps belong to: k = 1 for the true class, 2 for the pair (t, t'), the number of
    classes for all. For `interpreters.representation` the mean over C is a mean over channels.

    Args, Raises: as `distances`.

    Returns:
        (N,).

    Source: eq. (3); section 3.1 allows l2 "or its square".
    """
    return distances(maps, maps_adv, p, squared, scale=scale).mean(1)


def two_class_discrepancy(maps: Tensor, maps_adv: Tensor, *, scale: float = 1.0) -> Tensor:
    """Return the l1 2-class discrepancy, which Proposition 1 bounds from below.

        D_{2,l1}(x, x') = 1/2 (||L(x, t) - L(x', t)||_1 + ||L(x, t') - L(x', t')||_1)                 (eq. 4)

    Args:
        maps, maps_adv: (N, 2, ...), of the true label t and the target t'.
        scale: see `distances`.

    Returns:
        (N,).

    Raises:
        TypeError, ValueError: see `distances`; also any other number of classes.

    Source: eq. (4).
    """
    check_maps(maps, maps_adv)
    if maps.shape[1] != 2:
        raise ValueError(f"eq. (4) is about two classes, t and t'; got maps of {maps.shape[1]}.")
    return discrepancy(maps, maps_adv, scale=scale)


def target_free_discrepancy(
    maps: Tensor, maps_adv: Tensor, y: Tensor, logits_adv: Tensor, *, renormalise: bool = True, scale: float = 1.0
) -> Tensor:
    """Return the discrepancy without a target: all other classes, weighted by their probabilities at x'.

        D~(x, x') = 1/2 ||L(x, t) - L(x', t)||_1 + 1/2 sum_{i != t} p_i ||L(x, i) - L(x', i)||_1,
        p_i = e^{f(x')_i} / sum_{i'} e^{f(x')_i'}                                                     (eq. 8)

    As printed, the sum in p goes over all classes, so that the p_i add up to 1 - p_t. The released code takes the
    softmax over the classes other than t, so that they add up to 1; this is the default here. Neither detaches p: the
    derivative with respect to x' and to the network's weights goes through it.

    The released training code omits the factor 1/2, and the factor 1/u of the CAM: `scale=2 * u` gives its value.

    Args:
        maps, maps_adv: maps of all classes, (N, classes, ...).
        y: the true labels t, int64 (N,).
        logits_adv: f(x'), (N, classes).
        renormalise: take the softmax over the classes other than t (released code); otherwise p as printed.
        scale: see `distances`.

    Returns:
        (N,).

    Raises:
        TypeError, ValueError: see `checks` and `values`; also if maps and logits differ in their number of classes.

    Source: eq. (8).
    """
    check_maps(maps, maps_adv)
    check_number(scale, "scale", 0, above=True)
    check_labels(y, *maps.shape[:2])
    check_logits(logits_adv, "logits_adv")
    if logits_adv.shape != maps.shape[:2]:
        raise ValueError(
            f"eq. (8) needs the maps of all classes; got maps of {maps.shape[1]} classes for {len(maps)} images "
            f"and logits of shape {tuple(logits_adv.shape)}."
        )
    return _target_free_discrepancy(maps, maps_adv, y, logits_adv, renormalise, scale)


def _target_free_discrepancy(
    maps: Tensor, maps_adv: Tensor, y: Tensor, logits_adv: Tensor, renormalise: bool = True, scale: float = 1.0
) -> Tensor:
    per_class = _distances(maps, maps_adv, scale=scale)
    true = torch.zeros_like(per_class, dtype=torch.bool).scatter_(1, y[:, None], True)
    if renormalise:
        p = logits_adv.masked_fill(true, -torch.inf).softmax(1)  # -inf gives p_t = 0 and leaves t out of the sum
    else:
        p = logits_adv.softmax(1).masked_fill(true, 0)
    return (per_class.gather(1, y[:, None]).squeeze(1) + (p * per_class).sum(1)) / 2


def normalised_discrepancy(maps: Tensor, maps_adv: Tensor, p: int = 1, squared: bool = False) -> Tensor:
    """Return the normalised discrepancy score (NDS) of every image: eq. (3) in units of the natural map's range.

        D_norm = 1/|C| sum_{i in C} || (L(x, i) - L(x', i)) / (max_j L(x, i)_j - min_j L(x, i)_j) ||_p

    Args:
        maps: L(x, .) of the natural images, (N, k, ...). The range is the range of these maps alone, so the order of
            the two arguments matters.
        maps_adv: L(x', .), same shape. A factor common to both maps cancels.
        p: 1 or 2.
        squared: take the square of each norm. The paper and the released code take the norm itself; only the two cells
            `l2, 1-class` of CAM and GradCAM++ in Table 1 are reproduced by the square.

    Returns:
        (N,); infinite or NaN where a natural map is constant.

    Raises:
        TypeError, ValueError: see `distances`.

    Source: Appendix D. For `interpreters.representation`, whose channels take the place of classes, the score is the
    mean over channels, as in the released code.
    """
    per_class = distances(maps, maps_adv, p)
    low, high = maps.flatten(2).aminmax(dim=2)
    per_class = per_class / (high - low)
    return (per_class.square() if squared else per_class).mean(1)


def normalised_slope(scores: Tensor, eps: Tensor) -> Tensor:
    """Return the normalised slope (NSL): the relative change of the NDS per relative change of the perturbation size.

        S_norm = ( |D(eps_last) - D(eps_first)| / D(eps_first) ) / ( (eps_last - eps_first) / eps_first )

    Args:
        scores: D_norm of E ISAs, (..., E), in the order of eps.
        eps: perturbation sizes, same shape, first < last; eps* and 1.6 eps* in Appendix D.

    Returns:
        (...,); infinite or NaN where D(eps_first) is 0.

    Source: Appendix D.
    """
    check_pair(scores, eps, "scores and eps", 1)
    first, last = scores[..., 0], scores[..., -1]
    return (last - first).abs() / first * eps[..., 0] / (eps[..., -1] - eps[..., 0])


def kendall_tau(map_a: Tensor, map_b: Tensor) -> Tensor:
    """Return Kendall's rank correlation tau-b of two maps.

        tau_b = (P - Q) / sqrt((P + Q + T_a) (P + Q + T_b)),

    with P the number of concordant pairs of pixels, Q of discordant pairs, T_a and T_b of pairs tied in one map only.

    Args:
        map_a, map_b: (N, ...); everything after the first axis is one map. Write maps[:, i] for class i.

    Returns:
        (N,) float64 on the CPU, in [-1, 1]; NaN where a map is constant.

    Raises:
        ValueError: maps of different shapes.

    Source: Figures 1 and 2, Tables 2, A4 and A5, for maps that are not up-sampled; `scipy.stats.kendalltau`.
    """
    from scipy.stats import kendalltau  # imported here, since a training run does not need it

    check_pair(map_a, map_b, "maps", 2)
    arrays = (m.detach().flatten(1).cpu().double().numpy() for m in (map_a, map_b))
    taus = [float(kendalltau(a, b).statistic) for a, b in zip(*arrays, strict=True)]
    return torch.tensor(taus, dtype=torch.float64)


def proposition1_bound(logits: Tensor, t: Tensor, t_prime: Tensor) -> Tensor:
    """Return the lower bound on the l1 2-class discrepancy of a successful attack, for a complete interpreter.

        D_{2,l1}(x, x') >= 1/2 (f_t(x) - f_t'(x))      wherever      f_t'(x') >= f_t(x')              (eq. 5)

    Args:
        logits: f(x) of the natural example, (N, classes).
        t, t_prime: the true label and the target, int64 (N,).

    Returns:
        (N,); negative where x itself is misclassified as t'.

    Raises:
        TypeError, ValueError: see `checks`.

    Source: Proposition 1.
    """
    check_logits(logits)
    n, classes = logits.shape
    check_labels(t, n, classes, name="t")
    check_labels(t_prime, n, classes, name="t_prime")
    return (logits.gather(1, t[:, None]) - logits.gather(1, t_prime[:, None])).squeeze(1) / 2
