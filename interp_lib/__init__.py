"""Interpreters, discrepancies, attacks and trainers of Boopathy et al., as tested functions.

`dir(interp_lib)` lists what most people come for; each name is loaded when it is asked for, so that the import itself
loads neither PyTorch nor anything of Jupyter.
"""

from .faces import lazy

__version__ = "0.1.0"

# Module -> the names that are asked for here. A name must not be that of a module beside this file.
__getattr__, _names, __all__ = lazy(
    __name__,
    {
        "attacks": "aai isa isa_over_eps minimal_eps pgd",
        "discrepancies": "kendall_tau normalised_discrepancy proposition1_bound target_free_discrepancy "
        "two_class_discrepancy",
        "interpreters": "cam deconvolution gradcam gradcam_pp guided_backpropagation integrated_gradients "
        "representation rise smoothgrad vanilla_gradient",
        "models": "Pool Small WResnet adapt build",
        "schedule": "Schedule",
        "training": "fit fit_together",
    },
)


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
