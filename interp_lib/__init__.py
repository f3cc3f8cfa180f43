"""Interpreters, discrepancies, attacks and trainers of Boopathy et al., as tested functions.

`dir(interp_lib)` lists the names that most people need. Each name is loaded on first use, so that `import interp_lib`
loads neither PyTorch nor Jupyter.
"""

from .faces import lazy

__version__ = "0.1.0"

# Module -> the names that it exports here. No name may equal that of a module beside this file: importing the module
# would overwrite the name.
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
