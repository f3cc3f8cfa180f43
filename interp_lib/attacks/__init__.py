"""Attacks, one per file; each is a function attack(model, x, y, *, eps, alpha, steps, ...) -> x_adv.

`unforeseen` has those of Table 5, which corrupt an image in other ways than pixel by pixel.
"""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "against_interpretability": "aai",
        "ascent": "ascend clipped projected_ascent uniform_start",
        "auto_pgd": "apgd dlr",
        "balls": "perturbation_size project",
        "interpretability_sneaking": "isa isa_over_eps margin margin_attack search_isa",
        "losses": "LOSSES loss_objective",
        "momentum": "mifgsm",
        "projected_gradient_descent": "pgd pgd_iterates",
        "smallest_perturbation": "minimal_eps",
        "squares": "square",
        "sneaking_settings": "CLASS_SETS Discrepancy Search class_set released_settings",
    },
    modules="unforeseen",
)
